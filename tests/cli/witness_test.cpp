// SPDX-License-Identifier: GPL-2.0-only
// The witness: its file, and the verbs that read and write it.
#include "witness.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>

#include "commands.h"
#include "fake_dm.h"
#include "run_tool.h"
#include "spare_image.h"
#include "text.h"
#include "unique_fd.h"

namespace remap::test {
namespace {

using testing::_;
using testing::HasSubstr;
using testing::NiceMock;
using testing::Return;

constexpr const char* uuid = "f28f3435-da42-4d3f-9bfd-9cb7a12f41e7";
constexpr const char* other_uuid = "0b1c7de5-5f0a-4d56-9d3b-0d7a8a1f6c11";
constexpr const char* text =
    R"({"witness_version":1,"uuid":"f28f3435-da42-4d3f-9bfd-9cb7a12f41e7","generation":7,)"
    R"("sequence":40,"time":1700000000})"
    "\n";

WitnessRecord record() {
    return {.uuid = uuid, .least = {.generation = 7, .sequence = 40}, .time = 1700000000};
}

std::string file_text(const std::string& path) {
    std::ostringstream all;
    all << std::ifstream(path).rdbuf();
    return all.str();
}

void put_text(const std::string& path, const std::string& what) {
    std::ofstream(path) << what;
}

// ---- its text ----

TEST(WitnessFile, IsALineOfJson) {
    EXPECT_EQ(write_witness(record()), text);
    const Result<WitnessRecord> read = parse_witness(text);
    ASSERT_TRUE(read) << read.error().text();
    EXPECT_EQ(*read, record());
}

TEST(WitnessFile, KeysOfNewerToolsAreSkipped) {
    std::string longer = text;
    longer.replace(longer.find('}'), 1, R"(,"colour":"blue"})");
    EXPECT_EQ(parse_witness(longer).value(), record());
}

TEST(WitnessFile, LargestNumbersSurvive) {
    WitnessRecord largest = record();
    largest.least = {.generation = UINT64_MAX, .sequence = UINT64_MAX};
    EXPECT_EQ(parse_witness(write_witness(largest)).value(), largest);
}

std::string with(const std::string& from, const std::string& to) {
    std::string changed = text;
    return changed.replace(changed.find(from), from.size(), to);
}

TEST(WitnessFile, MalformedOnesAreRefusedWithTheReason) {
    const std::pair<std::string, const char*> malformed[] = {
        {"", "no JSON object"},
        {"7:40", "no JSON object"},
        {"[7, 40]", "no JSON object"},
        {std::string(text).substr(0, 100), "no JSON object"},
        {std::string(text) + text, "no JSON object"},
        {std::string(4096, '['), "no JSON object"},
        {"\xff\xfe", "no JSON object"},
        {"{}", "\"witness_version\" is missing"},
        {with(R"("generation":7,)", ""), "\"generation\" is missing"},
        {with("\"generation\":7", "\"generation\":-7"), "no number"},
        {with("\"generation\":7", "\"generation\":7.5"), "no number"},
        {with("\"generation\":7", "\"generation\":\"7\""), "no number"},
        {with("\"generation\":7", "\"generation\":18446744073709551616"), "no number"},
        {with("\"sequence\":40", "\"sequence\":null"), "\"sequence\" is missing, or no number"},
        {with("\"time\":1700000000", "\"time\":{}"), "\"time\" is missing, or no number"},
        {with("f28f3435", "F28F3435"), "no UUID"},
        {with("\"f28f3435-da42-4d3f-9bfd-9cb7a12f41e7\"", "7"), "no UUID"},
        {with("\"witness_version\":1", "\"witness_version\":2"), "witness of version 2"},
    };
    for (const auto& [what, reason] : malformed) {
        const Result<WitnessRecord> read = parse_witness(what);
        ASSERT_FALSE(read) << what;
        EXPECT_THAT(read.error().what(), HasSubstr(reason)) << what;
        EXPECT_FALSE(read.error().advice().empty());
    }
}

// ---- the file ----

class WitnessKept : public testing::Test {
  protected:
    void keep(const Witness& reached) {
        const Result<void> kept = keep_witness(file_, uuid, reached);
        ASSERT_TRUE(kept) << kept.error().text();
    }
    Witness kept() { return read_witness(file_).value().value().least; }

    TempDir dir_;
    std::string file_ = dir_.path("witness");
};

TEST_F(WitnessKept, IsWrittenWhereThereIsNone) {
    EXPECT_EQ(read_witness(file_).value(), std::nullopt);
    keep({7, 40});
    EXPECT_EQ(kept(), (Witness{7, 40}));
    EXPECT_EQ(read_witness(file_).value()->uuid, uuid);
    EXPECT_GT(read_witness(file_).value()->time, 1700000000U);
}

TEST_F(WitnessKept, NeverGoesBack) {
    keep({7, 40});
    keep({6, 41});
    EXPECT_EQ(kept(), (Witness{7, 41}));
    keep({8, 39});
    EXPECT_EQ(kept(), (Witness{8, 41}));
}

TEST_F(WitnessKept, IsReplacedAndNotWrittenInto) {
    keep({7, 40});
    const UniqueFd before(open(file_.c_str(), O_RDONLY | O_CLOEXEC));
    keep({8, 50});
    std::array<char, 4096> old{};
    const ssize_t n = read(before.get(), old.data(), old.size());
    ASSERT_GT(n, 0);
    EXPECT_EQ(parse_witness({old.data(), static_cast<std::size_t>(n)}).value().least,
              (Witness{7, 40}));
    const std::filesystem::directory_iterator files(dir_.path(""));
    EXPECT_EQ(std::distance(begin(files), end(files)), 1) << "something was left beside it";
}

// It was led to another disk on purpose.
TEST_F(WitnessKept, LinkToItStaysALink) {
    const TempDir other;
    const std::string far = other.path("far");
    std::filesystem::create_symlink(far, dir_.path("absolute"));
    std::filesystem::create_symlink("absolute", file_);
    for (const Witness& reached : {Witness{7, 40}, Witness{8, 50}}) {
        keep(reached);
        EXPECT_TRUE(std::filesystem::is_symlink(file_));
        EXPECT_TRUE(std::filesystem::is_symlink(dir_.path("absolute")));
        EXPECT_EQ(read_witness(far).value().value().least, reached);
    }
    std::filesystem::create_symlink("loop", dir_.path("loop"));
    EXPECT_FALSE(keep_witness(dir_.path("loop"), uuid, {7, 40}));
}

// The later one would put back what it had read before the earlier one wrote.
TEST_F(WitnessKept, ProgramsThatKeepItTakeTurns) {
    UniqueFd other(open(dir_.path("").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_EQ(flock(other.get(), LOCK_EX), 0);
    auto keeping = std::async(std::launch::async, [&] { keep({7, 40}); });
    EXPECT_EQ(keeping.wait_for(std::chrono::milliseconds(100)), std::future_status::timeout);
    EXPECT_EQ(read_witness(file_).value(), std::nullopt);
    other = UniqueFd();
    keeping.get();
    EXPECT_EQ(kept(), (Witness{7, 40}));
}

TEST_F(WitnessKept, OfAnotherSpareIsLeftAlone) {
    keep({7, 40});
    const std::string before = file_text(file_);
    const Result<void> other = keep_witness(file_, other_uuid, {8, 50});
    ASSERT_FALSE(other);
    EXPECT_THAT(other.error().text(), HasSubstr(file_ + ": the witness is of spare "));
    EXPECT_EQ(file_text(file_), before);
}

TEST_F(WitnessKept, WhatIsNoWitnessIsLeftAlone) {
    for (const std::string& what : {std::string("/dev/sda /home ext4\n"), std::string(9000, ' ')}) {
        put_text(file_, what);
        const Result<void> kept = keep_witness(file_, uuid, {7, 40});
        ASSERT_FALSE(kept);
        EXPECT_THAT(kept.error().text(), HasSubstr(file_ + ": is no witness"));
        EXPECT_EQ(file_text(file_), what);
    }
}

TEST_F(WitnessKept, WhereItCannotBeThatIsSaid) {
    const Result<void> nowhere = keep_witness(dir_.path("no/witness"), uuid, {7, 40});
    ASSERT_FALSE(nowhere);
    EXPECT_THAT(nowhere.error().text(), HasSubstr("No such file or directory"));
    EXPECT_FALSE(keep_witness(dir_.path(""), uuid, {7, 40}));
}

// ---- check ----

class WitnessCheck : public testing::Test {
  protected:
    void SetUp() override { look_at(image_); }
    void look_at(const SpareImage& image) {
        const auto summary = run_tool({"check", "--json", image.spare()}).json()["summary"];
        uuid_ = summary["uuid"];
        now_ = {summary["generation"], summary["next_sequence"]};
    }
    void known(const Witness& least) {
        put_text(file_, write_witness({.uuid = uuid_, .least = least, .time = 1700000000}));
    }
    ToolRun check(const std::string& option = "--force") {
        return run_tool({"check", option, "--witness", file_, image_.spare()});
    }

    SpareImage image_{SpareImage::Content::records};
    TempDir dir_;
    std::string file_ = dir_.path("witness");
    std::string uuid_;
    Witness now_;
};

TEST_F(WitnessCheck, ASpareThatIsAsNewIsSound) {
    for (const Witness& least : {now_, Witness{}, Witness{now_.generation - 1, now_.sequence}}) {
        known(least);
        const ToolRun run = check();
        EXPECT_EQ(run.exit_code, 0) << run.out << run.err;
        EXPECT_THAT(run.out, HasSubstr("as new as its witness of 2023-11-14"));
    }
}

TEST_F(WitnessCheck, AnOlderOneIsUnusable) {
    for (const Witness& least : {Witness{now_.generation + 1, now_.sequence},
                                 Witness{now_.generation, now_.sequence + 1}}) {
        known(least);
        const ToolRun run = check();
        EXPECT_EQ(run.exit_code, 1);
        EXPECT_THAT(run.out, HasSubstr("unusable: the spare is an older copy of itself: it is at " +
                                       witness_text(now_) + ", and was at " + witness_text(least) +
                                       " on 2023-11-14"));
        const ToolRun json = check("--json");
        EXPECT_EQ(json.exit_code, 1);
        EXPECT_EQ(json.json()["verdict"], "unusable");
        EXPECT_THAT(json.json()["refusal"], HasSubstr("older copy of itself"));
    }
}

TEST_F(WitnessCheck, AnotherSpareIsNotTheOne) {
    uuid_ = other_uuid;
    known(now_);
    const ToolRun run = check();
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.out, HasSubstr("unusable: the witness is of spare "));
}

TEST_F(WitnessCheck, AFileThatIsMissingOrNoWitnessIsAnError) {
    EXPECT_EQ(check().exit_code, 1);
    EXPECT_THAT(check().err, HasSubstr(file_ + ": there is no such file"));
    put_text(file_, "witness");
    EXPECT_EQ(check().exit_code, 1);
    EXPECT_THAT(check().err, HasSubstr(file_ + ": is no witness"));
}

// What is not whole is not whole, however new.
TEST_F(WitnessCheck, DamageIsToldFirst) {
    known(now_);
    image_.resize(0);
    EXPECT_THAT(check().out, HasSubstr("too small"));
}

// ---- verbs that speak to a mapped device ----

class WitnessVerbs : public WitnessCheck {
  protected:
    void SetUp() override {
        WitnessCheck::SetUp();
        device_.name = "home";
        device_.targets = {{.start = 0, .length = 4096, .type = "remap", .params = ""}};
        maps_to(image_);
        has_witness("7:20");
        ON_CALL(dm_, remove(_, _)).WillByDefault(Return(Result<void>()));
        ON_CALL(dm_, message("home", "save")).WillByDefault(Return(std::string("generation=7")));
    }
    // From the next has_witness() on.
    void maps_to(const SpareImage& spare) {
        look_at(spare);
        line_ = "8:0 0 " + spare.spare() + " 2 uuid " + uuid_;
    }
    // In the status; empty: a module that gives none.
    void has_witness(const std::string& numbers) {
        device_.targets.front().params =
            "rw CLEAN generation=7 records=3 remapped=24 pending=0 spare_free=900 spare_total=1000 "
            "retired=0 records_free=900 read_errors=0 write_errors=0 relocated=0 rescued=0 "
            "refused=0 "
            "journal_used=0 journal_size=32 saves=1 save_errors=0 last_save=0 autosave=60 "
            "breaker=closed";
        if (!numbers.empty()) {
            device_.targets.front().params += " witness=" + numbers;
        }
        ON_CALL(dm_, status(_)).WillByDefault(Return(device_));
        MappedDevice with_table = device_;
        with_table.targets.front().params = line_;
        ON_CALL(dm_, table(_)).WillByDefault(Return(with_table));
    }
    template <typename Command>
    Result<ExitCode> quiet(Command command) {
        testing::internal::CaptureStdout();
        Result<ExitCode> code = command();
        testing::internal::GetCapturedStdout();
        return code;
    }
    Result<ExitCode> save() {
        return quiet([&] { return cmd_save(dm_, {.name = "home", .witness = file_}); });
    }
    Result<ExitCode> remove() { return cmd_remove(dm_, {.name = "home", .witness = file_}); }
    Witness kept() { return read_witness(file_).value().value().least; }

    const SpareImage clean_{SpareImage::Content::empty};
    NiceMock<FakeDm> dm_;
    MappedDevice device_;
    std::string line_;
};

TEST_F(WitnessVerbs, SaveNotesWhatTheKernelTells) {
    EXPECT_EQ(save(), ExitCode::done);
    EXPECT_EQ(kept(), (Witness{7, 20}));
    EXPECT_EQ(read_witness(file_).value()->uuid, uuid_);
}

TEST_F(WitnessVerbs, AModuleWithoutAWitnessIsAnError) {
    has_witness("");
    const Result<ExitCode> code = save();
    ASSERT_FALSE(code);
    EXPECT_THAT(code.error().text(), HasSubstr("home: the loaded module gives no witness"));
}

// The stop is a save of its own, and the spare can be read after it.
TEST_F(WitnessVerbs, RemoveNotesWhatTheStopHasLeft) {
    maps_to(clean_);
    has_witness("0:1");
    EXPECT_EQ(remove(), ExitCode::done);
    EXPECT_EQ(kept(), now_);
}

TEST_F(WitnessVerbs, RemoveTellsThatTheStopDidNotReachTheSpare) {
    has_witness("1:2");
    const Result<ExitCode> code = remove();
    ASSERT_FALSE(code);
    EXPECT_THAT(code.error().text(), HasSubstr("home: is removed, but: " + image_.spare() +
                                               ": the last save did not reach it"));
    EXPECT_EQ(kept(), now_);
    EXPECT_FALSE(cmd_remove(dm_, {.name = "home"})) << "without a witness, too";
}

// Nothing was written, so nothing is missing.
TEST_F(WitnessVerbs, RemoveOfAReadOnlyDeviceLeavesTheSpareAsItWas) {
    device_.read_only = true;
    has_witness("1:2");
    EXPECT_EQ(remove(), ExitCode::done);
    EXPECT_EQ(kept(), (Witness{1, 2}));
}

// The stop has been by then.
TEST_F(WitnessVerbs, RemoveThatOnlyLetsGoNotesWhatTheStopHasLeft) {
    has_witness("1:2");
    ON_CALL(dm_, remove(_, _)).WillByDefault(Return(fail("busy")));
    EXPECT_FALSE(cmd_remove(dm_, {.name = "home", .witness = file_}));
    EXPECT_EQ(kept(), (Witness{1, 2}));
    EXPECT_FALSE(cmd_remove(dm_, {.name = "home", .force = true, .witness = file_}));
    EXPECT_EQ(kept(), now_);
}

TEST_F(WitnessVerbs, RemoveThatIsDeferredSaysThatItCannotNoteTheStop) {
    ON_CALL(dm_, names()).WillByDefault(Return(std::vector<std::string>{"home"}));
    testing::internal::CaptureStderr();
    EXPECT_EQ(cmd_remove(dm_, {.name = "home", .deferred = true, .witness = file_}),
              ExitCode::done);
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                HasSubstr("home: goes when its last user closes it, and " + file_ + " does not"));
    EXPECT_EQ(kept(), (Witness{7, 20}));
}

TEST_F(WitnessVerbs, RemoveNotesWhatWasBeforeWhereTheSpareIsInUseAgain) {
    const UniqueFd other(open(image_.spare().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(flock(other.get(), LOCK_EX), 0);
    EXPECT_EQ(remove(), ExitCode::done);
    EXPECT_EQ(kept(), (Witness{7, 20}));
}

TEST_F(WitnessVerbs, RemoveWithAFileThatIsNoGoodRemovesNothing) {
    put_text(file_, "notes");
    EXPECT_CALL(dm_, remove(_, _)).Times(0);
    EXPECT_FALSE(remove());
}

TEST_F(WitnessVerbs, WithoutTheOptionNothingIsAsked) {
    maps_to(clean_);
    has_witness("");
    EXPECT_CALL(dm_, status(_)).Times(0);
    EXPECT_EQ(cmd_remove(dm_, {.name = "home"}), ExitCode::done);
    EXPECT_EQ(quiet([&] { return cmd_save(dm_, {.name = "home"}); }), ExitCode::done);
    EXPECT_FALSE(std::filesystem::exists(file_));
}

}  // namespace
}  // namespace remap::test

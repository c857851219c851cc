// Spares that were swapped: another device's, an older copy of the same one, and two halves from
// different times. docs/recovery.md has the table of them.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;

class SwappedSpare : public testing::Test {
  protected:
    // A spare with a record, and known data: seed 1, where it is remapped seed 2.
    void SetUp() override {
        DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
        const BlockFile mapped(device.path());
        write_pattern(mapped, 0, 4096, 1);
        device.message("remap 1000 8");
        write_pattern(mapped, 1000, 8, 2);
        uuid = word_behind("uuid", device.table()[0].text);
    }

    static std::string word_behind(const std::string& word, const std::string& text) {
        const auto at = text.find(word + " ") + word.size() + 1;
        return text.substr(at, text.find(' ', at) - at);
    }
    [[nodiscard]] Table table(const std::string& witness = "") const {
        if (witness.empty()) {
            return remap_table(main.path(), spare.path());
        }
        return remap_table(main.path(), spare.path(), {"uuid", uuid, "witness", witness});
    }
    static std::string witness_of(const DmDevice& device) {
        return remap_status(device).values.at("witness");
    }

    // Copies of the spare, by name; of one half of it, as `dd` has it.
    void copy(const std::string& name) const { dd(spare.path(), "/tmp/" + name, {"iflag=direct"}); }
    void put_back(const std::string& name) const {
        dd("/tmp/" + name, spare.path(), {"oflag=direct", "conv=notrunc"});
    }
    void put_back_half(const std::string& name, bool head) const {
        const std::string half = std::to_string(kSpareMiB / 2);
        dd("/tmp/" + name, spare.path(),
           {"oflag=direct", "conv=notrunc", "count=" + half, "skip=" + (head ? "0" : half),
            "seek=" + (head ? "0" : half)});
    }
    static void dd(const std::string& from, const std::string& to,
                   const std::vector<std::string>& more) {
        std::vector<std::string> words = {"dd", "if=" + from, "of=" + to, "bs=1M"};
        words.insert(words.end(), more.begin(), more.end());
        run_ok(words);
    }

    static constexpr uint64_t kSpareMiB = 8;
    LoopDevice main{16 * kMiB};
    LoopDevice spare{kSpareMiB * kMiB};
    std::string uuid;
};

// ---- another device's spare ----

TEST_F(SwappedSpare, OfAnotherDeviceIsRefused) {
    const LoopDevice larger(32 * kMiB);
    EXPECT_TRUE(refused(remap_table(larger.path(), spare.path()), "main device of another size"));
    EXPECT_TRUE(refused(remap_table(main.path(), spare.path(), {}, 32752, 16), "start sector"));
    // Where main gives no id and has the size: by the spare's UUID, which the printed line has.
    const LoopDevice other(kSpareMiB * kMiB);
    { const DmDevice device("remap", remap_table(main.path(), other.path(), {"format"})); }
    EXPECT_TRUE(
        refused(remap_table(main.path(), other.path(), {"uuid", uuid}), "has another UUID"));
}

// ---- an older copy ----

// The limit: it is whole, and what was written to a remapped sector since is not on it.
TEST_F(SwappedSpare, OlderCopyIsServedWhereNobodyKnowsBetter) {
    copy("older");
    {
        const DmDevice device("remap", table());
        write_pattern(BlockFile(device.path()), 1000, 8, 3);
    }
    put_back("older");
    const DmDevice device("remap", table());
    EXPECT_EQ(remap_status(device).mode, "rw");
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 1000, 8, 2)) << "not what was written";
}

TEST_F(SwappedSpare, OlderCopyIsRefusedWithAWitness) {
    copy("older");
    std::string witness;
    {
        DmDevice device("remap", table());
        witness = witness_of(device);
        EXPECT_EQ(create_error(table(witness)), EBUSY);
        write_pattern(BlockFile(device.path()), 1000, 8, 3);
        // The same to a commit.
        copy("before_the_commit");
        device.message("remap 2000 8");
        witness = witness_of(device);
        copy("newest");
    }
    for (const char* older : {"older", "before_the_commit"}) {
        put_back(older);
        const auto numbers = witness.find(':');
        EXPECT_TRUE(refused(table(witness), "its witness is of " + witness.substr(0, numbers) +
                                                " and " + witness.substr(numbers + 1)));
        EXPECT_TRUE(refused(table(witness), "spare is older than its witness"));
        EXPECT_EQ(create_error(table(witness)), ESTALE);
    }
    put_back("newest");
    DmDevice device("remap", table(witness));
    EXPECT_THAT(remap_list(device), SizeIs(2));
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 1000, 8, 3));
}

TEST_F(SwappedSpare, WitnessIsPrintedAsItWasGivenAndHoldsForGood) {
    DmDevice device("remap", table());
    EXPECT_THAT(device.table()[0].text, Not(HasSubstr("witness")));
    device.reload(table(witness_of(device)));
    const Table printed = device.table();
    EXPECT_THAT(printed[0].text, HasSubstr(" 4 uuid " + uuid + " witness "));
    for (unsigned sector = 2000; sector < 2080; sector += 16) {
        device.message("remap " + std::to_string(sector) + " 8");
        EXPECT_EQ(device.table(), printed);
        device.reload(printed);
    }
    device.remove();
    DmDevice again("remap", printed);
    EXPECT_EQ(again.table(), printed);
    EXPECT_THAT(remap_list(again), SizeIs(6));
}

// A device that began with an older copy is no better for being alive.
TEST_F(SwappedSpare, ReloadWithAWitnessAsksTheLiveDevice) {
    copy("older");
    std::string witness;
    {
        DmDevice device("remap", table());
        device.message("save");
        device.message("save");
        witness = witness_of(device);
    }
    put_back("older");
    DmDevice device("remap", table());
    EXPECT_THROW(device.load(table(witness)), DmError);
    EXPECT_EQ(remap_status(device).mode, "rw");
    device.reload(table(witness_of(device)));
}

// ---- two halves ----

class TwoTimes : public SwappedSpare {
  protected:
    // What is made of the copies "older" and "newer", either way round.
    void expect_refused() const {
        for (const bool head : {true, false}) {
            put_back("newer");
            put_back_half("older", head);
            EXPECT_TRUE(refused(table(), "different times")) << (head ? "older head" : "tail");
        }
    }
};

TEST_F(TwoTimes, SomeCommitsApartAreRefused) {
    DmDevice device("remap", table());
    copy("older");
    device.message("remap 2000 8");
    device.message("remap 3000 8");
    copy("newer");
    device.remove();
    expect_refused();
}

TEST_F(TwoTimes, ACommitAndASaveApartAreRefused) {
    DmDevice device("remap", table());
    copy("older");
    device.message("remap 2000 8");
    device.message("save");
    copy("newer");
    device.remove();
    expect_refused();
}

TEST_F(TwoTimes, ManyGenerationsApartAreRefused) {
    copy("older");
    for (unsigned i = 0; i < 3; i++) {
        const DmDevice device("remap", table());
    }
    copy("newer");
    expect_refused();
}

// A crash leaves the same: it is served as the newer one, which the witness agrees to.
TEST_F(TwoTimes, OneCommitApartIsServedAsTheNewerOne) {
    DmDevice device("remap", table());
    copy("older");
    device.message("remap 2000 8");
    copy("newer");
    device.remove();
    for (const bool head : {true, false}) {
        put_back("newer");
        put_back_half("older", head);
        DmDevice mixed("remap", table());
        EXPECT_THAT(remap_list(mixed), SizeIs(2));
        EXPECT_EQ(remap_status(mixed).mode, "rw");
    }
}

// ---- the tool ----

class WitnessFile : public SwappedSpare {
  protected:
    void TearDown() override {
        for (const auto& name : dm_device_names()) {
            dm_remove(name, true);
        }
    }
    static CommandResult tool(const std::vector<std::string>& words) {
        std::vector<std::string> argv = {"dm-remapctl"};
        argv.insert(argv.end(), words.begin(), words.end());
        return run(argv);
    }
    static void tool_ok(const std::vector<std::string>& words) {
        const auto result = tool(words);
        EXPECT_EQ(result.status, 0) << testing::PrintToString(words) << '\n' << result.output;
    }
    [[nodiscard]] CommandResult create() const {
        return tool({"create", "remap", main.path(), spare.path(), "--witness", file});
    }
    // The copy is refused by the tool before the kernel is asked, and changes nothing.
    void expect_old(const std::string& name) const {
        copy("now");
        put_back(name);
        EXPECT_EQ(tool({"check", "--witness", file, spare.path()}).status, 1) << name;
        const auto refused = create();
        EXPECT_EQ(refused.status, 1) << name;
        EXPECT_THAT(refused.output, HasSubstr("is an older copy of itself")) << name;
        EXPECT_THAT(dm_device_names(), SizeIs(0));
        put_back("now");
    }

    const std::string file = "/tmp/witness";
};

TEST_F(WitnessFile, KnowsEachCopyFromBeforeTheLastCreateSaveOrRemove) {
    run({"rm", "-f", file});
    copy("at_first");
    const auto first = create();
    EXPECT_EQ(first.status, 0) << first.output;
    EXPECT_THAT(first.output, HasSubstr("nothing can be compared"));
    copy("in_use");
    write_pattern(BlockFile("/dev/mapper/remap"), 1000, 8, 3);
    tool_ok({"save", "remap", "--witness", file});
    copy("saved");
    write_pattern(BlockFile("/dev/mapper/remap"), 1000, 8, 4);
    tool_ok({"remove", "remap", "--witness", file});
    for (const char* older : {"at_first", "in_use", "saved"}) {
        expect_old(older);
    }
    tool_ok({"check", "--witness", file, spare.path()});
    const auto again = create();
    EXPECT_EQ(again.status, 0) << again.output;
    EXPECT_THAT(run_ok({"dmsetup", "table", "remap"}), HasSubstr(" witness "));
    EXPECT_TRUE(verify_pattern(BlockFile("/dev/mapper/remap"), 1000, 8, 4));
}

// A spare that was in use when the power went, and its file from when it was created.
TEST_F(WitnessFile, OfARunningDeviceHoldsAfterACrash) {
    run({"rm", "-f", file});
    EXPECT_EQ(create().status, 0);
    tool_ok({"remap", "remap", "2000", "8"});
    copy("crashed");
    tool_ok({"remove", "remap"});
    put_back("crashed");
    EXPECT_EQ(create().status, 0);
}

TEST_F(WitnessFile, OfAnotherSpareIsRefused) {
    run({"rm", "-f", file});
    EXPECT_EQ(create().status, 0);
    tool_ok({"remove", "remap"});
    tool_ok({"format", "--yes", "--force", main.path(), spare.path()});
    const auto refused = create();
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.output, HasSubstr("the witness is of spare " + uuid));
    run_ok({"rm", file});
    EXPECT_EQ(create().status, 0);
}

}  // namespace
}  // namespace remap::vm

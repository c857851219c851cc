// SPDX-License-Identifier: GPL-2.0-only
// The verbs that speak to a mapped device, with a stand-in for the kernel.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "fake_dm.h"
#include "remap_device.h"

namespace remap {
namespace {

using test::FakeDm;
using testing::_;
using testing::AllOf;
using testing::HasSubstr;
using testing::InSequence;
using testing::IsEmpty;
using testing::NiceMock;
using testing::Not;
using testing::Return;
using testing::StrictMock;

constexpr const char* table_line = "8:0 0 8:16 2 uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7";

std::string status_line(const std::string& mode_and_state, int pending, int spare_free) {
    return mode_and_state +
           " generation=7 records=3 remapped=24 pending=" + std::to_string(pending) +
           " spare_free=" + std::to_string(spare_free) +
           " spare_total=1000 retired=0 records_free=28 read_errors=0 write_errors=0 relocated=0 "
           "rescued=0 "
           "refused=0 journal_used=0 journal_size=32 saves=1 save_errors=0 last_save=0 "
           "autosave=60 breaker=closed refusing=no future=1";
}

MappedDevice device(const std::string& type, const std::string& params) {
    return {.name = "home",
            .uuid = "",
            .suspended = false,
            .read_only = false,
            .open_count = 0,
            .targets = {{.start = 0, .length = 4096, .type = type, .params = params}}};
}

// What a command printed, and how it ended.
struct Outcome {
    Result<ExitCode> code;
    std::string out;
};

template <typename Command>
Outcome capture(Command command) {
    testing::internal::CaptureStdout();
    Result<ExitCode> code = command();
    return {std::move(code), testing::internal::GetCapturedStdout()};
}

class StatusTest : public testing::Test {
  protected:
    Outcome status_of(const std::string& line, bool json = false) {
        ON_CALL(dm_, names()).WillByDefault(Return(std::vector<std::string>{"home"}));
        ON_CALL(dm_, status(_)).WillByDefault(Return(device("remap", line)));
        ON_CALL(dm_, table(_)).WillByDefault(Return(device("remap", table_line)));
        return capture([&] { return cmd_status(dm_, {.name = "home", .json = json}); });
    }

    NiceMock<FakeDm> dm_;
};

TEST_F(StatusTest, AHealthyDeviceIsDone) {
    const Outcome outcome = status_of(status_line("rw CLEAN", 0, 1000));
    EXPECT_EQ(outcome.code, ExitCode::done);
    EXPECT_THAT(outcome.out, HasSubstr("home"));
}

TEST_F(StatusTest, WhatNeedsAttentionExitsWithThree) {
    for (const std::string& line :
         {status_line("degraded CLEAN", 0, 1000), status_line("ro CLEAN", 0, 1000),
          status_line("fail CLEAN", 0, 1000), status_line("rw ERROR", 0, 1000),
          status_line("rw CLEAN", 8, 1000), status_line("rw CLEAN", 0, 100)}) {
        const Outcome outcome = status_of(line);
        EXPECT_EQ(outcome.code, ExitCode::attention) << line;
        EXPECT_THAT(outcome.out, HasSubstr("home: attention: "));
    }
    EXPECT_EQ(status_of(status_line("rw DIRTY", 0, 101)).code, ExitCode::done);
    const Outcome unreadable = status_of(status_line("rw CLEAN", 0, 1000) + " unreadable=3");
    EXPECT_EQ(unreadable.code, ExitCode::attention);
    EXPECT_THAT(unreadable.out, HasSubstr("3 sectors cannot be read on the spare"));
    EXPECT_EQ(status_of(status_line("rw CLEAN", 0, 1000) + " unreadable=0").code, ExitCode::done);
    std::string open = status_line("rw CLEAN", 0, 1000);
    open.replace(open.find("closed"), 6, "open");
    EXPECT_EQ(status_of(open).code, ExitCode::attention);
    for (const auto& [why, text] :
         {std::pair("spare_full", "the spare is full"), std::pair("table_full", "the table"),
          std::pair("no_room_beneath", "make room there"), std::pair("spare_fails", "kernel's log"),
          std::pair("of_tomorrow", "of_tomorrow")}) {
        std::string refusing = status_line("rw CLEAN", 0, 1000);
        refusing.replace(refusing.find("refusing=no"), 11, std::string("refusing=") + why);
        EXPECT_EQ(status_of(refusing).code, ExitCode::attention) << why;
        EXPECT_THAT(status_of(refusing).out, HasSubstr(text));
    }
    std::string full = status_line("rw CLEAN", 0, 1000);
    full.replace(full.find("records=3"), 9, "records=252");
    EXPECT_THAT(status_of(full).out, HasSubstr("room for only 28 records more"));
    EXPECT_EQ(status_of(full).code, ExitCode::attention);
}

TEST_F(StatusTest, LeavesOutABreakerThatTheKernelDoesNotGive) {
    const std::string with = status_line("rw CLEAN", 0, 1000);
    EXPECT_THAT(status_of(with).out, HasSubstr("breaker"));
    const std::string without = with.substr(0, with.find(" breaker="));
    EXPECT_THAT(status_of(without).out, Not(HasSubstr("breaker")));
    EXPECT_EQ(nlohmann::json::parse(status_of(without, true).out)["devices"].at(0)["breaker"],
              nullptr);
}

TEST_F(StatusTest, JsonHasRealNumbersAndItsVersion) {
    const Outcome outcome = status_of(status_line("rw CLEAN", 8, 1000), true);
    EXPECT_EQ(outcome.code, ExitCode::attention);
    const auto json = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(json["json_format_version"], 1);
    const auto& home = json["devices"].at(0);
    EXPECT_EQ(home["name"], "home");
    EXPECT_EQ(home["pending"], 8);
    EXPECT_EQ(home["needs_attention"], true);
    EXPECT_EQ(home["last_save"], nullptr);
    EXPECT_EQ(home["spare_uuid"], "f28f3435-da42-4d3f-9bfd-9cb7a12f41e7");
    EXPECT_EQ(home["other"]["future"], 1);
}

TEST_F(StatusTest, NoDevicesIsNoError) {
    ON_CALL(dm_, names()).WillByDefault(Return(std::vector<std::string>{}));
    const Outcome text = capture([&] { return cmd_status(dm_, {}); });
    EXPECT_EQ(text.code, ExitCode::done);
    EXPECT_THAT(text.out, IsEmpty());
    const Outcome json = capture([&] { return cmd_status(dm_, {.name = "", .json = true}); });
    EXPECT_EQ(nlohmann::json::parse(json.out)["devices"], nlohmann::json::array());
}

TEST_F(StatusTest, SkipsDevicesOfOtherTargets) {
    ON_CALL(dm_, names()).WillByDefault(Return(std::vector<std::string>{"root"}));
    ON_CALL(dm_, table("root")).WillByDefault(Return(device("linear", "8:0 0")));
    const Outcome outcome = capture([&] { return cmd_status(dm_, {}); });
    EXPECT_EQ(outcome.code, ExitCode::done);
    EXPECT_THAT(outcome.out, IsEmpty());
}

TEST_F(StatusTest, ASuspendedDeviceNeedsAttention) {
    status_of(status_line("rw CLEAN", 0, 1000));
    MappedDevice suspended = device("remap", status_line("rw CLEAN", 0, 1000));
    suspended.suspended = true;
    ON_CALL(dm_, status(_)).WillByDefault(Return(suspended));
    const Outcome outcome = capture([&] { return cmd_status(dm_, {.name = "home"}); });
    EXPECT_EQ(outcome.code, ExitCode::attention);
    EXPECT_THAT(outcome.out, HasSubstr("home: attention: it is suspended"));
}

TEST_F(StatusTest, BeforeItIsLoadedThereIsNothingMoreToTell) {
    const Outcome outcome = status_of("fail CLEAN");
    EXPECT_EQ(outcome.code, ExitCode::attention);
    EXPECT_THAT(outcome.out, HasSubstr("home: attention: the table is not loaded"));
    EXPECT_THAT(outcome.out, Not(HasSubstr("are free")));
}

// Nor does one that is let go: whoever watches must hear of both.
TEST_F(StatusTest, OneThatCannotBeReadDoesNotHideTheOthers) {
    MappedDevice gone = device("error", "");
    gone.name = "gone";
    gone.uuid = "REMAP-f28f3435-da42-4d3f-9bfd-9cb7a12f41e7-gone";
    status_of(status_line("rw CLEAN", 0, 1000));
    ON_CALL(dm_, names()).WillByDefault(Return(std::vector<std::string>{"bad", "gone", "home"}));
    ON_CALL(dm_, status("bad")).WillByDefault(Return(device("remap", "rw CLEAN nonsense")));
    ON_CALL(dm_, status("gone")).WillByDefault(Return(gone));
    ON_CALL(dm_, table("gone")).WillByDefault(Return(gone));
    testing::internal::CaptureStderr();
    const Outcome outcome = capture([&] { return cmd_status(dm_, {}); });
    const std::string err = testing::internal::GetCapturedStderr();
    EXPECT_EQ(outcome.code, ExitCode::error);
    EXPECT_THAT(outcome.out, HasSubstr("home"));
    EXPECT_THAT(err, HasSubstr("malformed status"));
    EXPECT_THAT(err, HasSubstr("gone: is let go, its table is error"));
    testing::internal::CaptureStderr();
    const Outcome json = capture([&] { return cmd_status(dm_, {.name = "", .json = true}); });
    testing::internal::GetCapturedStderr();
    EXPECT_EQ(nlohmann::json::parse(json.out)["errors"].size(), 2U);
}

// The uuid is there from its creation on, the table only when it was loaded: to remove it then
// would be the wrong advice.
TEST_F(StatusTest, OneThatIsBeingCreatedIsNotLetGo) {
    MappedDevice young = device("remap", "");
    young.uuid = "REMAP-f28f3435-da42-4d3f-9bfd-9cb7a12f41e7-home";
    young.targets.clear();
    EXPECT_THAT(not_ours(young).text(),
                AllOf(HasSubstr("home: has no table yet"), HasSubstr("being created"),
                      Not(HasSubstr("let go"))));
}

TEST_F(StatusTest, ADeviceOfAnotherTargetIsAnError) {
    ON_CALL(dm_, status(_)).WillByDefault(Return(device("linear", "")));
    ON_CALL(dm_, table(_)).WillByDefault(Return(device("linear", "8:0 0")));
    const Result<ExitCode> code = cmd_status(dm_, {.name = "home"});
    ASSERT_FALSE(code);
    EXPECT_THAT(code.error().text(), HasSubstr("home: is no remap device, its table is linear"));
}

TEST_F(StatusTest, AMalformedStatusNamesTheDevice) {
    const Outcome outcome = status_of("rw CLEAN nonsense");
    ASSERT_FALSE(outcome.code);
    EXPECT_THAT(outcome.code.error().text(), HasSubstr("home: malformed status"));
}

class ListTest : public testing::Test {
  protected:
    void expect_page(const std::string& message, const std::string& reply) {
        EXPECT_CALL(dm_, message("home", message)).WillOnce(Return(reply));
    }

    StrictMock<FakeDm> dm_;
    const InSequence in_order_;
};

TEST_F(ListTest, FollowsThePages) {
    expect_page("list 0", "8 16 mapped 4096 manual 1700000000\n32 8 pending - read_error 0\n");
    expect_page("list 40", "64 8 mapped 4112 write_error 1700000000 unreadable\n");
    expect_page("list 72", "");
    const Outcome outcome = capture([&] { return cmd_list(dm_, {.name = "home", .json = true}); });
    EXPECT_EQ(outcome.code, ExitCode::done);
    const auto json = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(json["json_format_version"], 1);
    ASSERT_EQ(json["records"].size(), 3U);
    EXPECT_EQ(json["records"][0]["spare"], 4096);
    EXPECT_EQ(json["records"][1]["spare"], nullptr);
    EXPECT_EQ(json["records"][1]["kind"], "pending");
    EXPECT_EQ(json["records"][2]["sector"], 64);
    EXPECT_EQ(json["records"][2]["unreadable"], true);
    EXPECT_EQ(json["records"][0]["unreadable"], false);
}

TEST_F(ListTest, APageThatGoesBackEndsWithAnError) {
    expect_page("list 0", "8 16 mapped 4096 manual 0\n");
    expect_page("list 24", "8 16 mapped 4096 manual 0\n");
    const Result<ExitCode> code = cmd_list(dm_, {.name = "home"});
    ASSERT_FALSE(code);
    EXPECT_THAT(code.error().text(), HasSubstr("goes back from sector 24"));
}

TEST_F(ListTest, AMalformedLineNamesTheDevice) {
    expect_page("list 0", "8 sixteen mapped 4096 manual 0\n");
    const Result<ExitCode> code = cmd_list(dm_, {.name = "home"});
    ASSERT_FALSE(code);
    EXPECT_THAT(code.error().text(), HasSubstr("home: malformed record"));
}

class MessageTest : public testing::Test {
  protected:
    void expect_message(const std::string& message, const std::string& reply) {
        EXPECT_CALL(dm_, message("home", message)).WillOnce(Return(reply));
    }

    StrictMock<FakeDm> dm_;
};

TEST_F(MessageTest, RemapSaysWhatItDid) {
    expect_message("remap 8 16", "moved=12 pending=4");
    const Outcome outcome =
        capture([&] { return cmd_remap(dm_, {.name = "home", .sector = 8, .count = 16}); });
    EXPECT_EQ(outcome.code, ExitCode::done);
    EXPECT_THAT(outcome.out, HasSubstr("12 sectors moved"));
    EXPECT_THAT(outcome.out, HasSubstr("4 sectors cannot be read"));
}

TEST_F(MessageTest, WithoutACountTheKernelChooses) {
    expect_message("remap 8", "moved=8 pending=0");
    EXPECT_EQ(capture([&] { return cmd_remap(dm_, {.name = "home", .sector = 8}); }).code,
              ExitCode::done);
}

TEST_F(MessageTest, UnremapFailsIfAnythingStays) {
    expect_message("unremap 8 16", "moved=8 refused=8");
    const Outcome outcome =
        capture([&] { return cmd_unremap(dm_, {.name = "home", .sector = 8, .count = 16}); });
    ASSERT_FALSE(outcome.code);
    EXPECT_THAT(outcome.code.error().text(), HasSubstr("home: 8 sectors stay on the spare"));
}

TEST_F(MessageTest, ForgetSaveAndRestoreReportTheirReply) {
    expect_message("forget 8 16", "dropped=16");
    EXPECT_THAT(
        capture([&] { return cmd_forget(dm_, {.name = "home", .sector = 8, .count = 16}); }).out,
        HasSubstr("16 pending sectors dropped"));
    expect_message("save", "generation=9");
    EXPECT_THAT(capture([&] { return cmd_save(dm_, {.name = "home"}); }).out,
                HasSubstr("generation 9"));
    expect_message("restore", "generation=9 healed");
    EXPECT_THAT(capture([&] { return cmd_restore(dm_, "home"); }).out,
                HasSubstr("a damaged copy was written anew"));
}

TEST_F(MessageTest, ResetBreakerSaysWhatItMeans) {
    expect_message("reset_breaker", "");
    EXPECT_THAT(capture([&] { return cmd_reset_breaker(dm_, "home"); }).out,
                HasSubstr("home: breaker closed"));
}

TEST_F(MessageTest, AReplyWithoutItsKeysIsAnError) {
    expect_message("save", "");
    const Result<ExitCode> code = cmd_save(dm_, {.name = "home"});
    ASSERT_FALSE(code);
    EXPECT_THAT(code.error().text(), HasSubstr("home: reply to save: \"generation\" is missing"));
}

class RemoveTest : public testing::Test {
  protected:
    void has_table(const MappedDevice& table) {
        EXPECT_CALL(dm_, table("home")).WillOnce(Return(table));
    }

    StrictMock<FakeDm> dm_;
};

TEST_F(RemoveTest, RemovesAtOnceOrDeferred) {
    has_table(device("remap", table_line));
    EXPECT_CALL(dm_, remove("home", Removal::now)).WillOnce(Return(Result<void>()));
    EXPECT_EQ(cmd_remove(dm_, {.name = "home"}), ExitCode::done);
    has_table(device("remap", table_line));
    EXPECT_CALL(dm_, remove("home", Removal::deferred)).WillOnce(Return(Result<void>()));
    EXPECT_CALL(dm_, names()).WillOnce(Return(std::vector<std::string>{}));
    EXPECT_EQ(cmd_remove(dm_, {.name = "home", .deferred = true}), ExitCode::done);
}

TEST_F(RemoveTest, ForceLetsGoFirst) {
    const InSequence in_order;
    has_table(device("remap", table_line));
    EXPECT_CALL(dm_, replace_by_error("home")).WillOnce(Return(Result<void>()));
    EXPECT_CALL(dm_, remove("home", Removal::now)).WillOnce(Return(Result<void>()));
    EXPECT_EQ(cmd_remove(dm_, {.name = "home", .force = true}), ExitCode::done);
}

TEST_F(RemoveTest, LeavesDevicesOfOthersAlone) {
    has_table(device("linear", "8:0 0"));
    EXPECT_FALSE(cmd_remove(dm_, {.name = "home"}));
}

TEST_F(RemoveTest, TakesWhatIsLeftOfOneOfOurs) {
    MappedDevice replaced = device("error", "");
    replaced.uuid = "REMAP-f28f3435-da42-4d3f-9bfd-9cb7a12f41e7-home";
    has_table(replaced);
    EXPECT_CALL(dm_, remove("home", Removal::now)).WillOnce(Return(Result<void>()));
    EXPECT_EQ(cmd_remove(dm_, {.name = "home"}), ExitCode::done);
    // As the stop of a unit would again and again, after it was busy once.
    has_table(replaced);
    EXPECT_CALL(dm_, remove("home", Removal::now)).WillOnce(Return(Result<void>()));
    EXPECT_EQ(cmd_remove(dm_, {.name = "home", .witness = "/nowhere/witness"}), ExitCode::done);
}

}  // namespace
}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include "target_spec.h"

#include <gmock/gmock.h>

namespace remap {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr const char* uuid = "f28f3435-da42-4d3f-9bfd-9cb7a12f41e7";

TEST(TableParams, WritesDevicesAlone) {
    EXPECT_EQ(write_table_params({.main = "8:0", .main_start = 2048, .spare = "8:16"}),
              "8:0 2048 8:16");
}

TEST(TableParams, WritesFeaturesWithTheirCount) {
    const TableParams params{.main = "8:0",
                             .main_start = 0,
                             .spare = "8:16",
                             .uuid = uuid,
                             .witness = Witness{.generation = 7, .sequence = 40},
                             .no_auto_remap = true,
                             .verify_spare_writes = true,
                             .read_retries = 0};
    EXPECT_EQ(write_table_params(params),
              "8:0 0 8:16 8 uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7 witness 7:40 "
              "no_auto_remap verify_spare_writes read_retries 0");
}

class TableParamsRoundTrip : public testing::TestWithParam<const char*> {};

TEST_P(TableParamsRoundTrip, ReadsAndWritesTheSame) {
    const Result<TableParams> params = parse_table_params(GetParam());
    ASSERT_TRUE(params) << params.error().text();
    EXPECT_EQ(write_table_params(*params), GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Lines, TableParamsRoundTrip,
    testing::Values("8:0 0 8:16", "/dev/sda 18446744073709551615 /dev/sdb",
                    "8:0 0 8:16 2 uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7",
                    "8:0 0 8:16 4 uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7 witness "
                    "0:18446744073709551615",
                    "8:0 0 8:16 3 uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7 rebind",
                    "8:0 0 8:16 1 no_auto_remap", "8:0 0 8:16 1 verify_spare_writes",
                    "8:0 0 8:16 5 uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7 no_auto_remap "
                    "read_retries 7",
                    "8:0 0 8:16 3 no_auto_remap of_the_future 12"));

TEST(TableParams, ReadsEachFeature) {
    const Result<TableParams> params = parse_table_params(
        "8:0 63 8:16 6 read_retries 3 uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7 no_auto_remap "
        "verify_spare_writes");
    ASSERT_TRUE(params) << params.error().text();
    EXPECT_EQ(*params, (TableParams{.main = "8:0",
                                    .main_start = 63,
                                    .spare = "8:16",
                                    .uuid = uuid,
                                    .no_auto_remap = true,
                                    .verify_spare_writes = true,
                                    .read_retries = 3}));
}

class BadTableParams : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(BadTableParams, IsRefusedWithTheReason) {
    const Result<TableParams> params = parse_table_params(GetParam().first);
    ASSERT_FALSE(params);
    EXPECT_THAT(params.error().what(), HasSubstr(GetParam().second));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, BadTableParams,
    testing::Values(std::pair("", "missing"), std::pair("8:0 0", "missing"),
                    std::pair("8:0 -1 8:16", "start"), std::pair("8:0 0x10 8:16", "start"),
                    std::pair("8:0 18446744073709551616 8:16", "start"),
                    std::pair("8:0 0 8:16 uuid", "number of features"),
                    std::pair("8:0 0 8:16 2 no_auto_remap", "number of features"),
                    std::pair("8:0 0 8:16 0 no_auto_remap", "number of features"),
                    std::pair("8:0 0 8:16 1 uuid", "without a value"),
                    std::pair("8:0 0 8:16 2 uuid 1234", "no UUID"),
                    std::pair("8:0 0 8:16 2 uuid F28F3435-DA42-4D3F-9BFD-9CB7A12F41E7", "no UUID"),
                    std::pair("8:0 0 8:16 1 witness", "without a value"),
                    std::pair("8:0 0 8:16 2 witness 7", "no witness"),
                    std::pair("8:0 0 8:16 2 witness 7:", "no witness"),
                    std::pair("8:0 0 8:16 2 witness :7", "no witness"),
                    std::pair("8:0 0 8:16 2 witness 7:4:0", "no witness"),
                    std::pair("8:0 0 8:16 2 witness 7:-40", "no witness"),
                    std::pair("8:0 0 8:16 2 witness 7:18446744073709551616", "no witness"),
                    std::pair("8:0 0 8:16 2 read_retries many", "no number")));

constexpr const char* status_line =
    "rw DIRTY generation=7 records=3 remapped=24 pending=8 spare_free=1000 spare_total=1040 "
    "retired=16 records_free=90 read_errors=5 write_errors=4 relocated=3 rescued=2 refused=1 "
    "journal_used=6 "
    "journal_size=32 saves=9 save_errors=0 last_save=1700000000 autosave=60 breaker=closed "
    "witness=6:40 refusing=table_full unreadable=24 recovered=2";

TEST(Status, ReadsEachKey) {
    const Result<TargetStatus> status = parse_status(status_line);
    ASSERT_TRUE(status) << status.error().text();
    EXPECT_EQ(*status, (TargetStatus{.mode = Mode::rw,
                                     .state = State::dirty,
                                     .generation = 7,
                                     .records = 3,
                                     .remapped = 24,
                                     .pending = 8,
                                     .spare_free = 1000,
                                     .spare_total = 1040,
                                     .retired = 16,
                                     .records_free = 90,
                                     .read_errors = 5,
                                     .write_errors = 4,
                                     .relocated = 3,
                                     .rescued = 2,
                                     .refused = 1,
                                     .journal_used = 6,
                                     .journal_size = 32,
                                     .saves = 9,
                                     .save_errors = 0,
                                     .last_save = 1700000000,
                                     .autosave = "60",
                                     .breaker = "closed",
                                     .refusing = "table_full",
                                     .witness = Witness{.generation = 6, .sequence = 40},
                                     .unreadable = 24,
                                     .recovered = 2,
                                     .other = {}}));
}

// Older modules do not give it.
TEST(Status, MayLackWhatOlderModulesDoNotSay) {
    std::string older = status_line;
    older.erase(older.find(" unreadable="));
    const Result<TargetStatus> status = parse_status(older);
    ASSERT_TRUE(status) << status.error().text();
    EXPECT_EQ(status->unreadable, 0U);
    EXPECT_EQ(status->recovered, 0U);
    EXPECT_FALSE(parse_status(older + " unreadable=few"));
    EXPECT_FALSE(parse_status(older + " recovered="));
}

TEST(Status, KeepsKeysOfNewerModules) {
    const Result<TargetStatus> status =
        parse_status(std::string(status_line) + " temperature=40 colour=blue");
    ASSERT_TRUE(status) << status.error().text();
    EXPECT_THAT(status->other, ElementsAre(Pair("temperature", "40"), Pair("colour", "blue")));
}

TEST(Status, ReadsEveryModeAndState) {
    const std::string keys = std::string(status_line).substr(sizeof("rw DIRTY") - 1);
    for (const Mode mode : {Mode::rw, Mode::degraded, Mode::ro, Mode::fail}) {
        for (const State state : {State::clean, State::dirty, State::writing, State::error}) {
            const Result<TargetStatus> status = parse_status(std::string(mode_name(mode)) + " " +
                                                             std::string(state_name(state)) + keys);
            ASSERT_TRUE(status) << status.error().text();
            EXPECT_EQ(status->mode, mode);
            EXPECT_EQ(status->state, state);
        }
    }
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    return text.replace(text.find(from), from.size(), to);
}

TEST(Status, RefusesWhatIsMalformed) {
    for (const std::string& line :
         {std::string(""), std::string("rw"), std::string("rw DIRTY"),
          replaced(status_line, "rw", "RW"), replaced(status_line, "DIRTY", "dirty"),
          replaced(status_line, "records=3 ", ""), replaced(status_line, "records=3", "records=-3"),
          replaced(status_line, "records=3", "records="),
          replaced(status_line, "witness=6:40", "witness=6"),
          replaced(status_line, "records=3", "records=18446744073709551616"),
          replaced(status_line, "records=3", "records=3 records=4"),
          replaced(status_line, "records=3", "records=3 =4")}) {
        const Result<TargetStatus> status = parse_status(line);
        ASSERT_FALSE(status) << line;
        EXPECT_THAT(status.error().what(), HasSubstr("malformed status"));
        EXPECT_FALSE(status.error().advice().empty());
    }
}

TEST(List, ReadsMappedAndPending) {
    const auto records = parse_list(
        "8 16 mapped 4096 manual 1700000000\n40 8 pending - "
        "read_error 1700000001\n");
    ASSERT_TRUE(records) << records.error().text();
    EXPECT_THAT(*records, ElementsAre(ListedRecord{.sector = 8,
                                                   .count = 16,
                                                   .kind = RecordKind::mapped,
                                                   .spare = 4096,
                                                   .reason = "manual",
                                                   .time = 1700000000},
                                      ListedRecord{.sector = 40,
                                                   .count = 8,
                                                   .kind = RecordKind::pending,
                                                   .spare = std::nullopt,
                                                   .reason = "read_error",
                                                   .time = 1700000001}));
}

TEST(List, TellsWhatIsUnreadable) {
    EXPECT_TRUE(parse_list_line("8 16 mapped 4096 manual 1700000000 unreadable")->unreadable);
    EXPECT_FALSE(parse_list_line("8 16 mapped 4096 manual 1700000000")->unreadable);
    EXPECT_FALSE(parse_list_line("8 16 mapped 4096 manual 1700000000 extra")->unreadable);
}

TEST(List, EmptyReplyHasNoRecords) {
    EXPECT_TRUE(parse_list("")->empty());
    EXPECT_TRUE(parse_list("\n")->empty());
}

TEST(List, FieldsOfNewerModulesAreSkipped) {
    EXPECT_TRUE(parse_list_line("8 16 mapped 4096 manual 1700000000 extra"));
}

class BadListLine : public testing::TestWithParam<const char*> {};

TEST_P(BadListLine, IsRefused) {
    EXPECT_FALSE(parse_list_line(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Lines, BadListLine,
                         testing::Values("", "8 16 mapped 4096 manual", "x 16 mapped 4096 manual 0",
                                         "8 0 mapped 4096 manual 0",
                                         "18446744073709551615 2 mapped 4096 manual 0",
                                         "8 16 retired 4096 manual 0", "8 16 mapped - manual 0",
                                         "8 16 pending 4096 manual 0",
                                         "8 16 mapped 4096 manual yesterday"));

TEST(KeyValues, ReadsRepliesToMessages) {
    const Result<KeyValues> reply = parse_key_values("generation=12 verified");
    ASSERT_TRUE(reply);
    EXPECT_EQ(*reply->number("generation"), 12U);
    EXPECT_THAT(reply->words, ElementsAre("verified"));
    EXPECT_FALSE(reply->number("moved"));
}

TEST(DeviceName, UuidCarriesPrefixSpareAndName) {
    EXPECT_EQ(device_uuid(uuid, "home"), "REMAP-f28f3435-da42-4d3f-9bfd-9cb7a12f41e7-home");
}

TEST(DeviceName, LongestStillFitsItsUuid) {
    EXPECT_TRUE(check_device_name(std::string(85, 'n')));
    EXPECT_EQ(device_uuid(uuid, std::string(85, 'n')).size(), 128U);
    EXPECT_FALSE(check_device_name(std::string(86, 'n')));
}

TEST(DeviceName, RefusesWhatOthersWouldMangle) {
    for (const char* name : {"", ".", "..", "control", "a/b", "a b", "a\nb", "\xc3\xa4"}) {
        EXPECT_FALSE(check_device_name(name)) << name;
    }
    EXPECT_TRUE(check_device_name("vg0-home_2.x"));
}

}  // namespace
}  // namespace remap

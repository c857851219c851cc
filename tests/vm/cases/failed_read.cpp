// A read that fails: an error for the bad blocks alone and a record of it, or, if the disk thinks
// better of it, the data, moved while it can be had.

#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "harness.h"
#include "stack.h"
#include "within.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(FailedRead, IsAnErrorForTheBadBlocksAlone) {
    Stack stack;
    stack.main.fail(1000, 4, Fails::kReadsUntilWritten);
    EXPECT_EQ(stack.read(992, 32), EIO);
    EXPECT_THAT(stack.records(), ElementsAre("1000 4 pending read_error"));
    EXPECT_EQ(stack.number("pending"), 4U);
    EXPECT_EQ(stack.number("remapped"), 0U);
    EXPECT_EQ(stack.number("relocated"), 0U);
    EXPECT_GE(stack.number("read_errors"), 1U);
    EXPECT_EQ(stack.number("write_errors"), 0U);
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total"));
    EXPECT_EQ(stack.value("breaker"), "closed");
    EXPECT_TRUE(stack.is_whole({1000, 1001, 1002, 1003}));
    stack.restart();
    EXPECT_THAT(stack.records(), ElementsAre("1000 4 pending read_error"));
    EXPECT_TRUE(stack.is_whole({1000, 1001, 1002, 1003}));
}

TEST(FailedRead, OfOneBlockAndOfAMegabyte) {
    Stack stack;
    stack.main.fail({{0, 1}, {2000, 1}, {stack.sectors() - 1, 1}}, Fails::kAll);
    EXPECT_EQ(stack.read(2000, 1), EIO);
    EXPECT_EQ(stack.read(0, 2048), EIO);
    EXPECT_EQ(stack.read(stack.sectors() - 2048, 2048), EIO);
    EXPECT_THAT(stack.records(), ElementsAre("0 1 pending read_error", "2000 1 pending read_error",
                                             "32767 1 pending read_error"));
    EXPECT_TRUE(stack.is_whole({0, 2000, 32767}));
    stack.restart();
    EXPECT_TRUE(stack.is_whole({0, 2000, 32767}));
}

// Some blocks recover. Nobody has to write there.
TEST(FailedRead, OfARangeThatRecoversEndsItsRecord) {
    constexpr const char* kInterval = "/sys/module/dm_remap/parameters/dm_remap_autosave_interval";
    Stack stack;
    write_value(kInterval, "1");
    stack.main.fail(1000, 8, Fails::kReadsUntilWritten);
    ASSERT_EQ(stack.read(1000, 8), EIO);
    ASSERT_THAT(stack.records(), ElementsAre("1000 8 pending read_error"));
    stack.main.heal(1000, 4);
    const uint32_t events = stack.device().info().event_nr;
    EXPECT_EQ(stack.read(1000, 4), 0);
    EXPECT_TRUE(within(10s, [&] { return stack.number("recovered") == 1; }));
    EXPECT_THAT(stack.records(), ElementsAre("1004 4 pending read_error"));
    EXPECT_TRUE(stack.has_event_after(events));
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total"));
    EXPECT_TRUE(stack.is_whole({1004, 1005, 1006, 1007}));
    stack.restart();
    EXPECT_THAT(stack.records(), ElementsAre("1004 4 pending read_error"));
    // Removed while one waits.
    stack.main.heal_all();
    EXPECT_EQ(stack.read(1004, 4), 0);
    stack.restart();
    write_value(kInterval, "60");
    EXPECT_TRUE(stack.is_whole());
}

TEST(FailedRead, IsTriedAgainEachTime) {
    Stack stack;
    stack.main.fail(1000, 1, Fails::kAll);
    EXPECT_EQ(stack.read(1000, 1), EIO);
    EXPECT_EQ(stack.read(1000, 1), EIO);
    EXPECT_THAT(stack.records(), ElementsAre("1000 1 pending read_error"));
    stack.main.heal_all();
    EXPECT_TRUE(stack.is_whole());
}

TEST(FailedRead, LogicalBlocksOf4096) {
    Stack stack({.block_size = 4096});
    stack.main.fail(1000, 16, Fails::kReadsUntilWritten);
    EXPECT_EQ(stack.read(960, 128), EIO);
    EXPECT_THAT(stack.records(), ElementsAre("1000 16 pending read_error"));
    EXPECT_TRUE(stack.is_whole({1000, 1008}));
    stack.restart();
    EXPECT_TRUE(stack.is_whole({1000, 1008}));
}

// As a disk reports it: sense key medium error.
TEST(FailedRead, MediumErrors) {
    for (const unsigned block : {1U, 8U}) {
        ScsiDebug main({"dev_size_mb=16", "sector_size=" + std::to_string(block * 512)});
        const LoopDevice spare(16 << 20);
        register_spare(spare.path());
        write_pattern(BlockFile(main.path()), 0, 32768, 1);
        DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
        const BlockFile mapped(device.path());
        main.fail_reads(1600 / block, 2);
        const Buffer buffer(64 * kSector);
        EXPECT_EQ(mapped.read(1600 - 32, buffer.bytes()), EIO);
        EXPECT_THAT(remap_brief(device),
                    ElementsAre("1600 " + std::to_string(2 * block) + " pending read_error"));
        EXPECT_THAT(unreadable(mapped, 1536, 128), ElementsAre(1600, 1600 + block));
        EXPECT_TRUE(verify_pattern(mapped, 0, 1600, 1));
        EXPECT_TRUE(verify_pattern(mapped, 1616, 32768 - 1616, 1));
        main.fail_reads(0, 0);
    }
}

// Of a disk that shows its physical blocks of 4096 bytes as eight, those fail together.
TEST(FailedRead, OfAPhysicalBlockIsOneRecord) {
    ScsiDebug main({"dev_size_mb=16", "sector_size=512", "physblk_exp=3"});
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 32768, 1);
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    const BlockFile mapped(device.path());
    main.fail_reads(1603, 1);
    const Buffer buffer(64 * kSector);
    EXPECT_EQ(mapped.read(1568, buffer.bytes()), EIO);
    EXPECT_THAT(remap_brief(device), ElementsAre("1600 8 pending read_error"));
    EXPECT_TRUE(verify_pattern(mapped, 0, 1600, 1));
    EXPECT_TRUE(verify_pattern(mapped, 1608, 32768 - 1608, 1));
    // A write settles it.
    main.fail_reads(0, 0);
    write_pattern(mapped, 1600, 8, 2);
    EXPECT_THAT(remap_brief(device), IsEmpty());
    EXPECT_TRUE(verify_pattern(mapped, 1600, 8, 2));
}

// Through the page cache, whose read-ahead goes over the bad block too.
TEST(FailedRead, ThroughThePageCache) {
    Stack stack;
    stack.main.fail(1001, 1, Fails::kAll);
    const BlockFile cached(stack.device().path(), O_RDONLY);
    EXPECT_TRUE(verify_pattern(cached, 0, 1000, 1));
    EXPECT_THAT(unreadable(cached, 1000, 8), testing::Contains(1001));
    EXPECT_TRUE(verify_pattern(cached, 1008, 3000, 1));
    EXPECT_THAT(stack.records(), ElementsAre("1001 1 pending read_error"));
}

// The disk's requests take long, and what fails is decided when they begin: in the midst of the
// retries it changes its mind.
TEST(FailedRead, ThatComesBackIsRescued) {
    NullBlk main({.size_mb = 16, .block_size = 512, .delay_ms = 100});
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 8192, 1);
    {
        DmDevice device("remap",
                        remap_table(main.path(), spare.path(), {"format", "read_retries", "50"}));
        const BlockFile mapped(device.path());
        main.add_bad(1003, 1);
        const Buffer buffer(8 * kSector);
        int error = -1;
        std::jthread reader([&] { error = mapped.read(1000, buffer.bytes()); });
        std::this_thread::sleep_for(2500ms);
        main.remove_bad(1003, 1);
        reader.join();
        ASSERT_EQ(error, 0);
        const Buffer expected(8 * kSector);
        fill_pattern(expected.bytes(), 1000, 1);
        EXPECT_TRUE(std::ranges::equal(buffer.bytes(), expected.bytes()));
        EXPECT_TRUE(within(10s, [&] { return remap_status(device).number("rescued") == 1; }));
        EXPECT_THAT(remap_brief(device), ElementsAre("1003 1 mapped rescued"));
        EXPECT_EQ(remap_status(device).number("pending"), 0U);
        EXPECT_EQ(remap_status(device).number("remapped"), 1U);
        // It is served from the spare now.
        main.add_bad(1003, 1);
        EXPECT_TRUE(verify_pattern(mapped, 0, 8192, 1));
    }
    DmDevice device("remap", remap_table(main.path(), spare.path()));
    EXPECT_THAT(remap_brief(device), ElementsAre("1003 1 mapped rescued"));
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 0, 8192, 1));
}

TEST(FailedRead, OfTheSpareIsAnErrorAndKeepsTheRecord) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    const auto record = remap_list(stack.device()).at(0);
    stack.spare.fail(std::stoull(record.spare) + 2, 1, Fails::kAll);
    EXPECT_EQ(stack.read(1000, 8), EIO);
    EXPECT_TRUE(stack.is_whole({1002}));
    EXPECT_EQ(stack.number("remapped"), 8U);
    // Neither there nor on main can it be written: elsewhere.
    ASSERT_EQ(stack.write(1000, 8, 3), 0);
    EXPECT_TRUE(stack.is_whole());
    EXPECT_EQ(stack.number("remapped"), 8U);
    EXPECT_GE(stack.number("retired"), 1U);
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// The place could not be read, and then loses what is written there: only who reads back finds out.
TEST(FailedRead, OfTheSpareMakesTheNextWriteGoElsewhere) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    const uint64_t place = std::stoull(remap_list(stack.device()).at(0).spare) + 2;
    stack.spare.fail(place, 1, Fails::kReadsUntilWritten);
    EXPECT_EQ(stack.read(1000, 8), EIO);
    EXPECT_EQ(stack.number("unreadable"), 1U);
    EXPECT_TRUE(remap_list(stack.device()).at(1).unreadable);
    // The record knows it after a restart.
    stack.restart();
    EXPECT_EQ(stack.number("unreadable"), 1U);
    stack.spare.fail(place, 1, Fails::kDropsWrites);
    ASSERT_EQ(stack.write(1000, 8, 3), 0);
    EXPECT_EQ(stack.read(1000, 8), 0);
    EXPECT_TRUE(stack.is_whole());
    EXPECT_EQ(stack.number("unreadable"), 0U);
    EXPECT_EQ(stack.number("retired"), 1U);
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

TEST(FailedRead, OfTheSpareIsCuredByAWrite) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    const uint64_t place = std::stoull(remap_list(stack.device()).at(0).spare) + 2;
    stack.spare.fail(place, 1, Fails::kReadsUntilWritten);
    EXPECT_EQ(stack.read(1000, 8), EIO);
    EXPECT_EQ(stack.number("unreadable"), 1U);
    ASSERT_EQ(stack.write(1000, 8, 3), 0);
    EXPECT_TRUE(stack.is_whole());
    EXPECT_EQ(stack.number("unreadable"), 0U);
    EXPECT_EQ(stack.number("retired"), 0U);
}

}  // namespace
}  // namespace remap::vm

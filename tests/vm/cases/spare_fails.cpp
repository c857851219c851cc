// Spares that are full or fail while something has to be moved there: an error at worst, and all
// that was promised before is served.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "failing.h"
#include "harness.h"
#include "kernel_log.h"
#include "stack.h"
#include "within.h"

namespace remap::vm {
namespace {

uint64_t spare_sector(Stack& stack, size_t record) {
    return std::stoull(remap_list(stack.device()).at(record).spare);
}

TEST(SpareFails, Full) {
    Stack stack({.main_mb = 32});
    const uint64_t room = stack.number("spare_total");
    ASSERT_LT(room + 10000, stack.sectors());
    stack.main.fail({{1000, 8}, {2000, 8}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    // All but four sectors.
    stack.device().message("remap 10000 " + std::to_string(room - 8 - 4));
    ASSERT_EQ(stack.number("spare_free"), 4U);
    EXPECT_EQ(stack.write(2000, 8, 2), EIO);
    EXPECT_GE(stack.number("refused"), 1U);
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
    // With room again it goes on.
    stack.device().message("unremap 10000 100");
    ASSERT_EQ(stack.write(2000, 8, 3), 0);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// There may be space for the data, and no place for the record.
TEST(SpareFails, ItsTableIsFull) {
    Stack stack({.spare_mb = 1});
    const uint64_t promised = stack.number("records_free");
    stack.main.fail(20000, 1, Fails::kWrites);
    uint64_t records = 0;
    while (message_error(stack.device(), "remap " + std::to_string(2 * records) + " 1") == 0) {
        records++;
    }
    EXPECT_GE(records, promised);
    EXPECT_EQ(stack.number("records_free"), 0U);
    EXPECT_GT(stack.number("spare_free"), 100U);
    KernelLog log;
    EXPECT_EQ(stack.write(20000, 1, 2), EIO);
    EXPECT_TRUE(log.contains("the table is full", 1000));
    EXPECT_GE(stack.number("refused"), 1U);
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
    // With room again it goes on.
    stack.device().message("unremap 0 100");
    ASSERT_EQ(stack.write(20000, 1, 3), 0);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

TEST(SpareFails, UseRaisesEventsAtItsThresholds) {
    Stack stack({.main_mb = 32});
    const uint64_t room = stack.number("spare_total");
    for (const unsigned percent : {50, 75, 90, 100}) {
        const uint64_t used = stack.number("remapped");
        const uint64_t wanted = (room * percent + 99) / 100;
        // Just below by hand, and over it by a write: a record, and the threshold. A good block of
        // the write shows that main works: a copy for a control has no room at the end.
        stack.device().message("remap " + std::to_string(used) + " " +
                               std::to_string(wanted - used - 1));
        const uint32_t events = stack.device().info().event_nr;
        stack.main.fail(wanted - 1, 1, Fails::kWrites);
        ASSERT_EQ(stack.write(wanted - 1, 2, 2), 0);
        EXPECT_TRUE(stack.has_event_after(events)) << percent;
    }
    EXPECT_EQ(stack.number("spare_free"), 0U);
    EXPECT_TRUE(stack.is_whole());
}

// A thin volume whose pool is full: SPACE ALLOCATION FAILED, of all that it is to write.
TEST(SpareFails, NoRoomBeneath) {
    constexpr unsigned kWrite10 = 0x2a;
    const LoopDevice main_disk(16 << 20);
    ScsiDebug spare({"dev_size_mb=16"});
    if (!spare.can_inject()) {
        GTEST_SKIP() << "scsi_debug of this kernel can't";
    }
    register_spare(spare.path());
    FailingDisk main("main", main_disk.path());
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    const BlockFile mapped(device.path());
    const Buffer buffer(8 * kSector);
    main.fail(1000, 8, Fails::kWrites);
    spare.inject(kWrite10, {.status = 2, .key = 7, .code = 0x27, .qualifier = 7});
    const uint32_t events = device.info().event_nr;
    KernelLog log;
    EXPECT_EQ(mapped.write(1000, buffer.bytes()), EIO);
    EXPECT_TRUE(log.contains("sectors 1000 + 8 are not moved to the spare " +
                                 spare.path().substr(5) + ": the device beneath the spare is full",
                             1000));
    EXPECT_EQ(remap_status(device).values.at("refusing"), "no_room_beneath");
    EXPECT_EQ(remap_status(device).mode, "rw");
    const auto news = [&] { return device.info().event_nr != events; };
    EXPECT_TRUE(within(Stack::kMoment, news));
    EXPECT_EQ(message_error(device, "remap 0 8"), ENOSPC);
    EXPECT_EQ(run({"dm-remapctl", "status", "remap"}).status, 3);
    spare.end_injection(kWrite10);
    EXPECT_EQ(mapped.write(1000, buffer.bytes()), 0);
    EXPECT_EQ(remap_status(device).values.at("refusing"), "no");
    EXPECT_EQ(run({"dm-remapctl", "status", "remap"}).status, 0);
}

// Bad sectors of the spare are retired, and others taken.
TEST(SpareFails, BadSectorsOfTheSpare) {
    Stack stack;
    stack.main.fail({{1000, 1}, {2000, 64}, {3000, 8}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 1, 2), 0);
    const uint64_t next = spare_sector(stack, 0) + 1;
    stack.spare.fail({{next, 3}, {next + 20, 1}, {next + 40, 2}}, Fails::kWrites);
    ASSERT_EQ(stack.write(2000, 64, 2), 0);
    ASSERT_EQ(stack.write(3000, 8, 2), 0);
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_EQ(stack.number("remapped"), 73U);
    EXPECT_GE(stack.number("retired"), 1U);
    EXPECT_TRUE(stack.is_whole());
    const uint64_t retired = stack.number("retired");
    stack.restart();
    EXPECT_EQ(stack.number("retired"), retired);
    EXPECT_TRUE(stack.is_whole());
}

// Of a spare that takes nothing any more no range is to blame.
TEST(SpareFails, AllOfItsWrites) {
    Stack stack;
    stack.main.fail({{1000, 8}, {2000, 8}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    stack.spare.fail_all(Fails::kWrites);
    const uint32_t events = stack.device().info().event_nr;
    EXPECT_EQ(stack.write(2000, 8, 2), EIO);
    EXPECT_EQ(stack.write(2004, 1, 2), EIO);
    EXPECT_EQ(stack.mode(), "ro");
    EXPECT_TRUE(stack.has_event_after(events));
    EXPECT_GE(stack.number("refused"), 1U);
    EXPECT_EQ(stack.number("retired"), 0U);
    EXPECT_EQ(stack.number("remapped"), 8U);
    // What main holds goes on, and what the spare holds is served.
    EXPECT_EQ(stack.write(5000, 1000, 3), 0);
    EXPECT_TRUE(stack.is_whole());

    stack.spare.heal_all();
    stack.device().message("save");
    EXPECT_EQ(stack.mode(), "rw");
    ASSERT_EQ(stack.write(2000, 8, 4), 0);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// The metadata of one end, then of both. A write that succeeds all the same must be found again.
TEST(SpareFails, ItsMetadata) {
    for (const bool both : {false, true}) {
        Stack stack;
        stack.main.fail({{1000, 8}, {2000, 8}}, Fails::kWrites);
        ASSERT_EQ(stack.write(1000, 8, 2), 0);
        const uint64_t data = spare_sector(stack, 0);
        stack.spare.fail(0, data / 8 * 8, Fails::kWrites);
        if (both) {
            stack.spare.fail(stack.spare.sectors() - data, data, Fails::kWrites);
        }
        const int error = stack.write(2000, 8, 2);
        if (both) {
            EXPECT_EQ(error, EIO);
            EXPECT_EQ(stack.mode(), "ro");
        }
        EXPECT_NE(stack.mode(), "rw");
        stack.spare.heal_all();
        stack.device().message("save");
        EXPECT_EQ(stack.mode(), "rw");
        EXPECT_TRUE(stack.is_whole());
        stack.restart();
        EXPECT_TRUE(stack.is_whole());
        ASSERT_EQ(stack.write(2000, 8, 3), 0);
        EXPECT_TRUE(stack.is_whole());
    }
}

// Reads that fail are recorded in memory at least, and nothing else changes.
TEST(SpareFails, WhileReadsFail) {
    Stack stack;
    stack.spare.fail_all(Fails::kWrites);
    stack.main.fail(1000, 4, Fails::kReadsUntilWritten);
    EXPECT_EQ(stack.read(992, 32), EIO);
    EXPECT_TRUE(stack.is_whole({1000, 1001, 1002, 1003}));
    stack.spare.heal_all();
    stack.device().message("save");
    EXPECT_TRUE(stack.is_whole({1000, 1001, 1002, 1003}));
    EXPECT_EQ(stack.write(1000, 4, 2), 0);
    EXPECT_TRUE(stack.is_whole());
}

// Gone for good: main alone goes on, records are errors.
TEST(SpareFails, Altogether) {
    Stack stack;
    stack.main.fail({{1000, 8}, {2000, 8}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    stack.spare.fail_all(Fails::kAll);
    EXPECT_EQ(stack.read(1000, 8), EIO);
    EXPECT_EQ(stack.write(2000, 8, 2), EIO);
    EXPECT_EQ(stack.write(3000, 1000, 2), 0);
    EXPECT_TRUE(stack.is_whole({1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007}));
    EXPECT_EQ(stack.mode(), "ro");
    stack.spare.heal_all();
    stack.device().message("save");
    EXPECT_TRUE(stack.is_whole());
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_EQ(stack.number("remapped"), 8U);
}

}  // namespace
}  // namespace remap::vm

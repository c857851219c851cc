// A write over a range that could not be read: main is tried first.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "harness.h"
#include "stack.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(PendingWrite, CuresTheBlockAndSpendsNoSpare) {
    Stack stack;
    stack.main.fail(1000, 4, Fails::kReadsUntilWritten);
    ASSERT_EQ(stack.read(1000, 4), EIO);
    ASSERT_THAT(stack.records(), ElementsAre("1000 4 pending read_error"));
    ASSERT_EQ(stack.write(1001, 2, 2), 0);
    EXPECT_THAT(stack.records(),
                ElementsAre("1000 1 pending read_error", "1003 1 pending read_error"));
    EXPECT_TRUE(stack.is_whole({1000, 1003}));
    // Over both edges.
    ASSERT_EQ(stack.write(990, 20, 3), 0);
    EXPECT_THAT(stack.records(), IsEmpty());
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total"));
    EXPECT_EQ(stack.number("pending"), 0U);
    EXPECT_TRUE(stack.is_whole());
    EXPECT_TRUE(verify_pattern(BlockFile(stack.main.plain()), 990, 20, 3));
    stack.restart();
    EXPECT_THAT(stack.records(), IsEmpty());
    EXPECT_TRUE(stack.is_whole());
}

TEST(PendingWrite, GoesToTheSpareIfMainRefusesIt) {
    Stack stack;
    stack.main.fail(1000, 4, Fails::kAll);
    ASSERT_EQ(stack.read(1000, 4), EIO);
    ASSERT_EQ(stack.write(1001, 2, 2), 0);
    EXPECT_THAT(stack.records(),
                ElementsAre("1000 1 pending read_error", "1001 2 mapped pending_write",
                            "1003 1 pending read_error"));
    EXPECT_TRUE(stack.is_whole({1000, 1003}));
    stack.restart();
    EXPECT_TRUE(stack.is_whole({1000, 1003}));
    ASSERT_EQ(stack.write(990, 20, 3), 0);
    EXPECT_EQ(stack.number("pending"), 0U);
    EXPECT_EQ(stack.number("remapped"), 4U);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// What main takes and then cannot read goes to the spare too.
TEST(PendingWrite, GoesToTheSpareIfItCannotBeReadBack) {
    for (const unsigned block : {1U, 8U}) {
        ScsiDebug main({"dev_size_mb=16", "sector_size=" + std::to_string(block * 512)});
        const LoopDevice spare(16 << 20);
        register_spare(spare.path());
        write_pattern(BlockFile(main.path()), 0, 32768, 1);
        main.fail_reads(1600 / block, 2);
        {
            DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
            const BlockFile mapped(device.path());
            const Buffer buffer(64 * kSector);
            ASSERT_EQ(mapped.read(1600 - 32, buffer.bytes()), EIO);
            write_pattern(mapped, 1600 - 8, 64, 2);
            EXPECT_THAT(remap_brief(device),
                        ElementsAre("1600 " + std::to_string(2 * block) + " mapped pending_write"));
            EXPECT_EQ(remap_status(device).number("pending"), 0U);
        }
        {
            const DmDevice device("remap", remap_table(main.path(), spare.path()));
            const BlockFile mapped(device.path());
            EXPECT_TRUE(verify_pattern(mapped, 0, 1592, 1));
            EXPECT_TRUE(verify_pattern(mapped, 1592, 64, 2));
            EXPECT_TRUE(verify_pattern(mapped, 1656, 32768 - 1656, 1));
        }
        main.fail_reads(0, 0);
    }
}

// A record that was made by hand.
TEST(PendingWrite, AfterRemapByHand) {
    Stack stack;
    stack.main.fail(1000, 4, Fails::kReadsUntilWritten);
    ASSERT_EQ(stack.device().message("remap 1000 4"), "moved=0 pending=4");
    ASSERT_EQ(stack.write(1000, 4, 2), 0);
    EXPECT_THAT(stack.records(), IsEmpty());
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// What can be read again is no longer pending for long.
TEST(PendingWrite, OverAPartThatMainTakesAgain) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kAll);
    ASSERT_EQ(stack.read(1000, 8), EIO);
    stack.main.heal(1004, 4);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    EXPECT_THAT(stack.records(), ElementsAre("1000 4 mapped pending_write"));
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

}  // namespace
}  // namespace remap::vm

// Flushes go where there is something to make durable, and fail if that fails.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include "backing.h"
#include "block.h"
#include "dm_device.h"
#include "failing.h"
#include "harness.h"
#include "remap.h"
#include "stack.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;

constexpr uint64_t kSize = 16 << 20;

TEST(Flush, ADeadSpareThatHoldsNothingIsNotAsked) {
    Stack stack;
    stack.spare.fail_all(Fails::kAll);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    EXPECT_EQ(stack.mapped().flush(), 0);
    EXPECT_EQ(stack.write(1000, 8, 3, RWF_DSYNC), 0);
    EXPECT_TRUE(stack.is_whole());
}

// A relocated write was durable when it succeeded.
TEST(Flush, ADeadSpareWithoutNewDataIsNotAsked) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    ASSERT_EQ(stack.mapped().flush(), 0);
    stack.spare.fail_all(Fails::kAll);
    ASSERT_EQ(stack.write(2000, 8, 2), 0);
    EXPECT_EQ(stack.mapped().flush(), 0);
    stack.spare.heal_all();
    EXPECT_TRUE(stack.is_whole());
}

TEST(Flush, DataOnADeadSpareIsNotDurable) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    ASSERT_EQ(stack.write(1000, 8, 3), 0);  // on the spare, and in its cache for all we know
    stack.spare.fail_all(Fails::kWritesAndFlushes);
    EXPECT_EQ(stack.mapped().flush(), EIO);
    stack.spare.heal_all();
    EXPECT_EQ(stack.mapped().flush(), 0);
    EXPECT_TRUE(stack.is_whole());
}

TEST(Flush, AFailedFlushOfMainIsNoBadSector) {
    Stack stack;
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    stack.main.fail_all(Fails::kWritesAndFlushes);
    EXPECT_EQ(stack.mapped().flush(), EIO);
    EXPECT_THAT(stack.records(), ElementsAre());
    stack.main.heal_all();
    EXPECT_EQ(stack.mapped().flush(), 0);
    EXPECT_TRUE(stack.is_whole());
}

// A disk says once that it could not make a write durable. If it says so to a flush of the
// target's own, who flushes next has to hear it.

TEST(Flush, WhatTheSpareToldASaveTheNextFlushTells) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    ASSERT_EQ(stack.write(1000, 8, 3), 0);  // in the cache of the spare
    // The superblock at its end: the table before it is written, then flushed.
    stack.spare.fail(stack.spare.sectors() - 8, 8, Fails::kWritesAndFlushes);
    EXPECT_THROW(stack.device().message("save"), DmError);
    stack.spare.heal_all();
    EXPECT_EQ(stack.mapped().flush(), EIO);
    EXPECT_EQ(stack.mapped().flush(), 0);
    EXPECT_TRUE(stack.is_whole());
}

// Nobody has anything in the cache of the spare, so nobody has lost anything.
TEST(Flush, WhatConcernsNobodyIsNotTold) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);  // durable on the spare
    stack.spare.fail(stack.spare.sectors() - 8, 8, Fails::kWritesAndFlushes);
    EXPECT_THROW(stack.device().message("save"), DmError);
    EXPECT_EQ(stack.mapped().flush(), 0);
    stack.spare.heal_all();
    EXPECT_EQ(stack.mapped().flush(), 0);
    EXPECT_TRUE(stack.is_whole());
}

// Nor does such a disk spend the spare: while no flush works, no block is known to be bad.
TEST(Flush, WhatADiskWithoutFuaToldAWriteOfOursTheNextFlushTells) {
    const LoopDevice disk(kSize);
    const LoopDevice spare(kSize);
    register_spare(spare.path());
    FailingDisk under("under", disk.path());
    const LoopDevice main(under.path());
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    const BlockFile mapped(device.path());
    const Buffer buffer(8 * kSector);
    under.fail(1000, 8, Fails::kReadsUntilWritten);
    ASSERT_EQ(mapped.read(1000, buffer.bytes()), EIO);
    write_pattern(mapped, 5000, 8, 2);  // in the cache of main
    under.fail(9000, 8, Fails::kWritesAndFlushes);
    // It is to be durable, and the flush behind it fails, here and elsewhere.
    EXPECT_EQ(mapped.write(1000, buffer.bytes()), EIO);
    EXPECT_THAT(remap_brief(device), ElementsAre("1000 8 pending read_error"));
    under.heal(9000, 8);
    EXPECT_EQ(mapped.flush(), EIO);
    EXPECT_EQ(mapped.flush(), 0);
    write_pattern(mapped, 1000, 8, 3);
    EXPECT_TRUE(remap_brief(device).empty());
    EXPECT_TRUE(verify_pattern(mapped, 1000, 8, 3));
    EXPECT_TRUE(verify_pattern(mapped, 5000, 8, 2));
}

}  // namespace
}  // namespace remap::vm

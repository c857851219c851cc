// A write that fails on a bad sector of main succeeds all the same, and is found again.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include <thread>

#include "backing.h"
#include "block.h"
#include "harness.h"
#include "kernel_log.h"
#include "stack.h"

namespace remap::vm {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// That it went well, now and after a restart.
void expect_kept(Stack& stack, const std::vector<uint64_t>& unreadable = {}) {
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_EQ(stack.value("breaker"), "closed");
    EXPECT_TRUE(stack.is_whole(unreadable));
    stack.restart();
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_TRUE(stack.is_whole(unreadable));
}

TEST(FailedWrite, OneBadSectorInAWrite) {
    Stack stack;
    stack.main.fail(1003, 1, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    EXPECT_THAT(stack.records(), ElementsAre("1003 1 mapped write_error"));
    EXPECT_EQ(stack.number("remapped"), 1U);
    EXPECT_EQ(stack.number("relocated"), 1U);
    EXPECT_GE(stack.number("write_errors"), 1U);
    EXPECT_EQ(stack.number("read_errors"), 0U);
    EXPECT_EQ(stack.number("rescued"), 0U);
    EXPECT_EQ(stack.number("refused"), 0U);
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total") - 1);
    // Its neighbours went to main.
    const BlockFile plain(stack.main.plain());
    EXPECT_TRUE(verify_pattern(plain, 1000, 3, 2));
    EXPECT_TRUE(verify_pattern(plain, 1003, 1, 1));
    EXPECT_TRUE(verify_pattern(plain, 1004, 4, 2));
    expect_kept(stack);
    // The next one goes straight to the spare.
    const uint64_t errors = stack.number("write_errors");
    ASSERT_EQ(stack.write(1003, 1, 3), 0);
    EXPECT_EQ(stack.number("write_errors"), errors);
    EXPECT_TRUE(stack.is_whole());
}

TEST(FailedWrite, AtEachPlaceOfAWrite) {
    Stack stack;
    stack.main.fail({{1000, 1}, {1031, 2}, {1063, 1}}, Fails::kWrites);
    stack.main.fail({{2000, 1}, {2031, 2}, {2063, 1}}, Fails::kAll);
    ASSERT_EQ(stack.write(1000, 64, 2), 0);
    ASSERT_EQ(stack.write(2000, 64, 2), 0);
    EXPECT_THAT(stack.records(),
                ElementsAre("1000 1 mapped write_error", "1031 2 mapped write_error",
                            "1063 1 mapped write_error", "2000 1 mapped write_error",
                            "2031 2 mapped write_error", "2063 1 mapped write_error"));
    expect_kept(stack);
}

// There is nothing in the write that main takes: its neighbours must tell that main lives.
TEST(FailedWrite, AllOfAWriteIsBad) {
    Stack stack;
    stack.main.fail(1000, 64, Fails::kWrites);
    stack.main.fail(2000, 1, Fails::kAll);
    stack.main.fail(stack.sectors() - 8, 8, Fails::kWrites);
    stack.main.fail(0, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 64, 2), 0);
    ASSERT_EQ(stack.write(2000, 1, 2), 0);
    ASSERT_EQ(stack.write(0, 8, 2), 0);
    ASSERT_EQ(stack.write(stack.sectors() - 8, 8, 2), 0);
    EXPECT_THAT(stack.records(),
                ElementsAre("0 8 mapped write_error", "1000 64 mapped write_error",
                            "2000 1 mapped write_error", "32760 8 mapped write_error"));
    expect_kept(stack);
}

TEST(FailedWrite, ManyInOneLargeWrite) {
    Stack stack;
    stack.main.fail(scattered_ranges(2048, 100, 4, 1), Fails::kWrites);
    ASSERT_EQ(stack.write(0, 2048, 2), 0);
    EXPECT_THAT(stack.records(), SizeIs(100));
    EXPECT_EQ(stack.number("remapped"), stack.number("spare_total") - stack.number("spare_free"));
    expect_kept(stack);
}

// A record a write, and another where main was asked for a sign of life.
TEST(FailedWrite, ALongRunIsOneRecord) {
    Stack stack;
    stack.main.fail(1000, 4096, Fails::kWrites);
    for (uint64_t at = 1000; at < 1000 + 4096; at += 512) {
        ASSERT_EQ(stack.write(at, 512, 2), 0);
    }
    EXPECT_THAT(stack.records(), ElementsAre("1000 4096 mapped write_error"));
    EXPECT_EQ(stack.number("remapped"), 4096U);
    expect_kept(stack);
}

TEST(FailedWrite, WithFuaAndThroughThePageCache) {
    Stack stack;
    stack.main.fail({{1003, 1}, {2003, 1}}, Fails::kAll);
    stack.main.fail({{3003, 2}, {4000, 8}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2, RWF_DSYNC), 0);
    ASSERT_EQ(stack.write(2003, 1, 2, RWF_DSYNC), 0);
    {
        const BlockFile cached(stack.device().path(), O_RDWR);
        write_pattern(cached, 3000, 2000, 1);  // what is there
        EXPECT_EQ(cached.flush(), 0);
    }
    EXPECT_THAT(stack.records(),
                ElementsAre("1003 1 mapped write_error", "2003 1 mapped write_error",
                            "3003 2 mapped write_error", "4000 8 mapped write_error"));
    expect_kept(stack);
}

TEST(FailedWrite, ZeroesAreKeptAsZeroes) {
    Stack stack;
    stack.main.fail(1003, 2, Fails::kWrites);
    ASSERT_EQ(stack.mapped().write_zeroes(1000, 16), 0);
    EXPECT_TRUE(verify_zeroes(stack.mapped(), 1000, 16));
    EXPECT_THAT(stack.records(), ElementsAre("1003 2 mapped write_error"));
    ASSERT_EQ(stack.write(1000, 16, 2), 0);
    expect_kept(stack);
}

TEST(FailedWrite, LogicalBlocksOf4096) {
    Stack stack({.block_size = 4096});
    stack.main.fail({{1000, 8}, {1064, 16}}, Fails::kWrites);
    stack.main.fail({{2000, 8}, {2064, 16}}, Fails::kAll);
    ASSERT_EQ(stack.write(800, 800, 2), 0);
    ASSERT_EQ(stack.write(1960, 800, 2), 0);
    EXPECT_THAT(stack.records(),
                ElementsAre("1000 8 mapped write_error", "1064 16 mapped write_error",
                            "2000 8 mapped write_error", "2064 16 mapped write_error"));
    expect_kept(stack);
}

// null_blk fails a request whole, however many good writes were merged into it.
TEST(FailedWrite, RequestsThatFailWhole) {
    for (const unsigned block_size : {512U, 4096U}) {
        NullBlk main({.size_mb = 64, .block_size = block_size});
        const LoopDevice spare(16 << 20);
        register_spare(spare.path());
        write_pattern(BlockFile(main.path()), 0, 8192, 1);
        main.add_bad(1000, 8);
        main.add_bad(1040, 16);
        const Table table = remap_table(main.path(), spare.path());
        {
            DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
            write_pattern(BlockFile(device.path()), 960, 4096, 2);
            EXPECT_THAT(remap_brief(device),
                        ElementsAre("1000 8 mapped write_error", "1040 16 mapped write_error"));
        }
        const DmDevice device("remap", table);
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 0, 960, 1));
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 960, 4096, 2));
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 5056, 8192 - 5056, 1));
    }
}

TEST(FailedWrite, ByManyAtOnce) {
    Stack stack;
    stack.main.fail(scattered_ranges(stack.sectors(), 120, 1, 7), Fails::kWrites);
    std::vector<std::jthread> writers;
    for (unsigned w = 0; w < 8; w++) {
        writers.emplace_back([&stack, w] {
            const uint64_t share = stack.sectors() / 8;
            for (uint64_t at = w * share; at < (w + 1) * share; at += 64) {
                EXPECT_EQ(stack.write(at, 64, 2 + w), 0) << at;
            }
        });
    }
    writers.clear();
    EXPECT_THAT(stack.records(), SizeIs(120));
    expect_kept(stack);
}

// A disk that writes again what it could not at first has no bad sector.
// At once of the first, and of all others when the device is suspended: that is within the minute.
TEST(FailedWrite, LogTellsWhatWasMoved) {
    Stack stack;
    for (uint64_t at = 1000; at < 4000; at += 100) {
        stack.main.fail(at, 1, Fails::kWrites);
    }
    KernelLog log;
    for (uint64_t at = 1000; at < 4000; at += 100) {
        ASSERT_EQ(stack.write(at, 1, 2), 0);
    }
    EXPECT_TRUE(log.contains("1 sector moved to the spare, first 1000", 1000));
    stack.device().reload(stack.device().table());
    EXPECT_TRUE(log.contains("29 sectors moved to the spare", 1000));
    EXPECT_THAT(log.lines(), Contains(HasSubstr("moved to the spare")).Times(2));
    EXPECT_THAT(log.lines(), Contains(HasSubstr("first 1100")));
}

TEST(FailedWrite, AndHomeAgain) {
    Stack stack;
    stack.main.fail(1003, 2, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    EXPECT_NE(message_error(stack.device(), "unremap 1003 2"), 0);
    EXPECT_TRUE(stack.is_whole());
    stack.main.heal_all();
    EXPECT_EQ(stack.device().message("unremap 1003 2"), "moved=2 refused=0");
    EXPECT_THAT(stack.records(), IsEmpty());
    EXPECT_TRUE(verify_pattern(BlockFile(stack.main.plain()), 1000, 8, 2));
    expect_kept(stack);
}

}  // namespace
}  // namespace remap::vm

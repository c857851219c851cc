// Spares that say yes and keep something else. With dm-flakey, which drops writes, and a table that
// has the first half of a disk twice.

#include "harness.h"
#include "kernel_log.h"
#include "stack.h"

namespace remap::vm {
namespace {

constexpr uint64_t kSize = 16 << 20;
constexpr uint64_t kSectors = kSize / kSector;
constexpr uint64_t kHalf = kSectors / 2;

uint64_t spare_sector(Stack& stack, size_t record) {
    return std::stoull(remap_list(stack.device()).at(record).spare);
}

// The format at the first resume fails, and says why.
void expect_told(const std::string& main, const std::string& spare) {
    DmDevice device("remap");
    device.load(remap_table(main, spare, {"format"}));
    KernelLog log;
    EXPECT_THROW(device.resume(), DmError);
    EXPECT_TRUE(log.contains("spare does not keep what is written", 1000));
    EXPECT_NE(create_error(remap_table(main, spare)), 0);
}

TEST(LyingSpare, FormatTellsOneThatDropsWrites) {
    const LoopDevice main(kSize);
    for (const uint64_t from : {uint64_t{0}, kHalf, kSectors - 8}) {
        const LoopDevice disk(kSize);
        FailingDisk spare("spare", disk.path());
        spare.fail(from, kSectors - from, Fails::kDropsWrites);
        expect_told(main.path(), spare.path());
    }
}

TEST(LyingSpare, FormatTellsASecondHalfThatIsTheFirst) {
    const LoopDevice main(kSize);
    const LoopDevice disk(kSize);
    const DmDevice spare("spare", {{0, kHalf, "linear", disk.path() + " 0"},
                                   {kHalf, kHalf, "linear", disk.path() + " 0"}});
    expect_told(main.path(), spare.path());
}

// A place that does not hold is retired, and another is taken.
TEST(LyingSpare, PlaceThatDropsWritesIsRetired) {
    Stack stack;
    stack.main.fail({{1000, 1}, {2000, 8}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 1, 2), 0);
    stack.spare.fail(spare_sector(stack, 0) + 3, 2, Fails::kDropsWrites);
    ASSERT_EQ(stack.write(2000, 8, 2), 0);
    EXPECT_EQ(stack.number("retired"), 2U);
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// Eight writes that no place holds: each is an error, and main goes on.
TEST(LyingSpare, ThatBeginsToDropWritesFailsThemAndServes) {
    Stack stack;
    stack.main.fail({{1000, 8}, {2000, 128}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    stack.spare.fail_all(Fails::kDropsWrites);
    for (uint64_t i = 0; i < 8; i++) {
        EXPECT_EQ(stack.write(2000 + 16 * i, 8, 3), EIO) << i;
    }
    EXPECT_EQ(stack.mode(), "ro");
    EXPECT_EQ(stack.number("retired"), 0U);
    EXPECT_EQ(stack.write(5000, 100, 4), 0);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
    stack.spare.heal_all();
    stack.device().message("save");
    EXPECT_EQ(stack.mode(), "rw");
    ASSERT_EQ(stack.write(2000, 8, 5), 0);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// From a time on its second half drops writes: what was acknowledged is there, and it loads.
TEST(LyingSpare, SecondHalfThatBeginsToDropWritesLosesNothing) {
    for (uint64_t before = 0; before < 6; before++) {
        Stack stack;
        stack.main.fail(1000, 1000, Fails::kWrites);
        for (uint64_t i = 0; i < before; i++) {
            ASSERT_EQ(stack.write(1000 + 16 * i, 8, 2 + i), 0);
            if (i == 2) {
                stack.device().message("save");
            }
        }
        stack.spare.fail(kHalf, kHalf, Fails::kDropsWrites);
        for (uint64_t i = before; i < 10; i++) {
            EXPECT_EQ(stack.write(1000 + 16 * i, 8, 2 + i), EIO) << i;
        }
        EXPECT_NE(message_error(stack.device(), "save"), 0);
        // The commit that fails comes before that of a copy for a control: it has no record.
        EXPECT_TRUE(stack.is_whole());
        stack.restart();
        EXPECT_TRUE(stack.is_whole());
        EXPECT_EQ(stack.mode(), "ro");
    }
}

// A spare that is there already, formatted, and whose end drops writes by now.
TEST(LyingSpare, EndThatDropsWritesMeansReadOnly) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    stack.remove();
    stack.spare.fail(kHalf, kHalf, Fails::kDropsWrites);
    DmDevice device("remap", remap_table(stack.main.path(), stack.spare.path()));
    EXPECT_EQ(remap_status(device).mode, "ro");
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 1000, 8, 2));
    device.remove();
}

// Writes to what is mapped already go on unread, unless that is asked for.
TEST(LyingSpare, VerifySpareWritesMovesWhatDoesNotHold) {
    Stack stack({.features = {"verify_spare_writes"}});
    stack.main.fail(1000, 64, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 64, 2), 0);
    stack.spare.fail(spare_sector(stack, 0) + 8, 8, Fails::kDropsWrites);
    ASSERT_EQ(stack.write(1000, 64, 3), 0);
    ASSERT_EQ(stack.write(1004, 8, 4), 0);
    EXPECT_EQ(stack.number("retired"), 8U);
    EXPECT_TRUE(stack.is_whole());
    EXPECT_EQ(stack.mapped().write_zeroes(1000, 32), 0);
    EXPECT_TRUE(verify_zeroes(stack.mapped(), 1000, 32));
    ASSERT_EQ(stack.write(1000, 32, 5), 0);
    stack.spare.fail_all(Fails::kDropsWrites);
    EXPECT_EQ(stack.write(1000, 8, 6), EIO);
    stack.spare.heal_all();
    stack.device().message("save");
    ASSERT_EQ(stack.write(1000, 8, 7), 0);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

}  // namespace
}  // namespace remap::vm

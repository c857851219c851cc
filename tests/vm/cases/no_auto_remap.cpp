// With no_auto_remap errors are recorded and reported, and nothing is moved.

#include <gmock/gmock.h>

#include "block.h"
#include "stack.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;

TEST(NoAutoRemap, ErrorsAreRecordedAndPass) {
    Stack stack({.features = {"no_auto_remap"}});
    stack.main.fail(1000, 4, Fails::kWrites);
    stack.main.fail(2000, 4, Fails::kReadsUntilWritten);
    EXPECT_EQ(stack.write(992, 32, 2), EIO);
    EXPECT_EQ(stack.read(1992, 32), EIO);
    EXPECT_THAT(stack.records(),
                ElementsAre("1000 4 pending write_error", "2000 4 pending read_error"));
    EXPECT_EQ(stack.number("relocated"), 0U);
    EXPECT_EQ(stack.number("remapped"), 0U);
    EXPECT_GE(stack.number("write_errors"), 1U);
    EXPECT_GE(stack.number("read_errors"), 1U);
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total"));
    EXPECT_TRUE(stack.is_whole({2000, 2001, 2002, 2003}));
    stack.restart();
    EXPECT_EQ(stack.number("pending"), 8U);
    EXPECT_TRUE(stack.is_whole({2000, 2001, 2002, 2003}));
}

TEST(NoAutoRemap, CanBeSwitchedAtRunTime) {
    Stack stack;
    stack.main.fail({{1000, 4}, {2000, 4}}, Fails::kWrites);
    stack.device().message("set no_auto_remap 1");
    EXPECT_EQ(stack.write(1000, 8, 2), EIO);
    EXPECT_THAT(stack.records(), ElementsAre("1000 4 pending write_error"));
    stack.device().message("set no_auto_remap 0");
    ASSERT_EQ(stack.write(1000, 8, 3), 0);
    ASSERT_EQ(stack.write(2000, 8, 3), 0);
    EXPECT_THAT(stack.records(),
                ElementsAre("1000 4 mapped pending_write", "2000 4 mapped write_error"));
    EXPECT_TRUE(stack.is_whole());
    // What is remapped is served, whatever the feature says.
    stack.device().message("set no_auto_remap 1");
    ASSERT_EQ(stack.write(1000, 8, 4), 0);
    EXPECT_TRUE(stack.is_whole());
}

// A write to a pending range: main cures it, or the write fails.
TEST(NoAutoRemap, PendingRangesAreWrittenToMain) {
    Stack stack({.features = {"no_auto_remap"}});
    stack.main.fail(1000, 4, Fails::kReadsUntilWritten);
    stack.main.fail(2000, 4, Fails::kAll);
    EXPECT_EQ(stack.read(1000, 4), EIO);
    EXPECT_EQ(stack.read(2000, 4), EIO);
    EXPECT_EQ(stack.write(1000, 4, 2), 0);
    EXPECT_EQ(stack.write(2000, 4, 2), EIO);
    EXPECT_EQ(stack.number("remapped"), 0U);
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total"));
    EXPECT_TRUE(stack.is_whole({2000, 2001, 2002, 2003}));
}

}  // namespace
}  // namespace remap::vm

// What the outside hears of relocation: dm events and tracepoints.

#include <gmock/gmock.h>

#include "stack.h"
#include "trace.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

uint32_t events(Stack& stack) {
    return stack.device().info().event_nr;
}

TEST(Events, ForEachNewRecordAndForNothingElse) {
    Stack stack;
    stack.main.fail(1000, 4, Fails::kWrites);
    stack.main.fail(2000, 4, Fails::kReadsUntilWritten);
    uint32_t before = events(stack);
    ASSERT_EQ(stack.write(3000, 100, 2), 0);
    EXPECT_FALSE(stack.has_event_after(before, 500ms));
    ASSERT_EQ(stack.write(1000, 4, 2), 0);
    EXPECT_TRUE(stack.has_event_after(before));
    before = events(stack);
    ASSERT_EQ(stack.write(1000, 4, 3), 0);
    EXPECT_FALSE(stack.has_event_after(before, 500ms));
    EXPECT_EQ(stack.read(2000, 4), EIO);
    EXPECT_TRUE(stack.has_event_after(before));
    before = events(stack);
    EXPECT_EQ(stack.read(2000, 4), EIO);
    EXPECT_FALSE(stack.has_event_after(before, 500ms)) << "of a record that is known";
}

TEST(Events, GoToTheTableThatIsLive) {
    Stack stack;
    stack.main.fail(1000, 4, Fails::kWrites);
    stack.device().reload(stack.device().table());
    const uint32_t before = events(stack);
    ASSERT_EQ(stack.write(1000, 4, 2), 0);
    EXPECT_TRUE(stack.has_event_after(before));
}

TEST(Events, TracepointsTellOfEachDecision) {
    Stack stack;
    stack.main.fail(1000, 4, Fails::kWrites);
    stack.main.fail(2000, 4, Fails::kReadsUntilWritten);
    const Trace trace("dm_remap");
    ASSERT_EQ(stack.write(5000, 100, 2), 0);
    EXPECT_THAT(trace.text(), Not(HasSubstr("dm_remap_")));
    ASSERT_EQ(stack.write(992, 32, 2), 0);
    EXPECT_THAT(trace.text(), HasSubstr("dm_remap_"));
    EXPECT_THAT(trace.text(), HasSubstr("1000"));
    EXPECT_EQ(stack.read(2000, 4), EIO);
    EXPECT_THAT(trace.text(), HasSubstr("2000"));
    std::cout << trace.text();
}

}  // namespace
}  // namespace remap::vm

// Another system uses the spare: its superblocks say so, and a machine that would hibernate is
// told to leave it.

#include <fcntl.h>

#include <filesystem>
#include <system_error>

#include "command.h"
#include "core.h"
#include "harness.h"
#include "kernel_log.h"
#include "stack.h"

namespace remap::vm {
namespace {

// 0, or the errno that hibernation is refused with. It ends when all processes are frozen.
int try_hibernation() {
    write_value("/sys/power/pm_test", "freezer");
    try {
        write_value("/sys/power/state", "disk");
    } catch (const std::system_error& error) {
        return error.code().value();
    }
    return 0;
}

TEST(OtherSystem, HibernationIsRefusedWhileADeviceIsActive) {
    if (!std::filesystem::exists("/sys/power/state") ||
        read_value("/sys/power/state").find("disk") == std::string::npos) {
        GTEST_SKIP() << "this kernel does not hibernate";
    }
    {
        Stack stack;
        KernelLog log;
        EXPECT_EQ(try_hibernation(), EBUSY);
        EXPECT_TRUE(log.contains("hibernation is refused while the device is active", 1000));
        ASSERT_EQ(stack.write(1000, 8, 2), 0);
        stack.device().suspend();
        EXPECT_EQ(try_hibernation(), 0);
        stack.device().resume();
        EXPECT_TRUE(stack.is_whole());
    }
    EXPECT_EQ(try_hibernation(), 0);
}

// /dev/snapshot begins hibernation when it is opened, and ends it when it is closed. Tasks run on.
TEST(OtherSystem, NoDeviceIsResumedWhileTheMachineHibernates) {
    if (!std::filesystem::exists("/dev/snapshot")) {
        GTEST_SKIP() << "this kernel does not hibernate";
    }
    Stack stack;
    stack.device().suspend();
    {
        const File snapshot("/dev/snapshot", O_RDONLY);
        KernelLog log;
        EXPECT_THROW(stack.device().resume(), DmError);
        EXPECT_TRUE(log.contains("not resumed while the machine hibernates", 1000));
    }
    stack.device().resume();
    EXPECT_EQ(stack.write(1000, 8, 2), 0);
    EXPECT_TRUE(stack.is_whole());
}

// The superblock of an activation that came later, as another host would have written it.
void take_over(const std::string& spare) {
    const BlockFile disk(spare);
    const Buffer block(DM_REMAP_BLOCK_SIZE);
    ASSERT_EQ(disk.read(0, block.bytes()), 0);
    dm_remap_super sb{};
    ASSERT_EQ(dm_remap_super_decode(&sb, block.bytes().data(), 0), DM_REMAP_VALID);
    sb.generation++;
    sb.activation++;
    sb.nonce = ~sb.nonce;
    for (const int replica : {1, 0}) {
        dm_remap_super_encode(block.bytes().data(), &sb, replica);
        const uint64_t at = dm_remap_superblock_at(&sb.layout, replica);
        ASSERT_EQ(disk.write(at * DM_REMAP_BLOCK_SECTORS, block.bytes()), 0);
    }
}

TEST(OtherSystem, FailsAllIoAndWritesNothingMore) {
    Stack stack;
    stack.main.fail({{1000, 8}, {2000, 8}}, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    take_over(stack.spare.path());
    const uint32_t events = stack.device().info().event_nr;
    KernelLog log;
    EXPECT_EQ(stack.write(2000, 8, 2), EIO);
    EXPECT_TRUE(log.contains("another system uses the spare", 1000));
    EXPECT_EQ(stack.mode(), "fail");
    EXPECT_TRUE(stack.has_event_after(events));
    const std::string before = run_ok({"sha256sum", stack.spare.plain()});
    EXPECT_EQ(stack.write(5000, 8, 2), EIO);
    EXPECT_EQ(stack.read(5000, 8), EIO);
    EXPECT_EQ(stack.read(1000, 8), EIO);
    EXPECT_NE(stack.mapped().flush(), 0);
    EXPECT_EQ(message_error(stack.device(), "save"), ESTALE);
    EXPECT_EQ(message_error(stack.device(), "remap 4000 8"), EROFS);
    EXPECT_TRUE(log.contains("save: another system uses the spare: remove the device here", 1000));
    EXPECT_TRUE(log.contains("remap: another system uses the spare: remove the device here", 1000));
    // It can be suspended and resumed, and removed.
    stack.device().suspend();
    stack.device().resume();
    EXPECT_EQ(stack.mode(), "fail");
    EXPECT_EQ(stack.read(5000, 8), EIO);
    stack.remove();
    EXPECT_EQ(run_ok({"sha256sum", stack.spare.plain()}), before);
    forget_spare(stack.spare.plain());
}

// Ten warnings in five seconds are enough of what repeats itself. That all I/O fails from now on is
// said once, and then.
TEST(OtherSystem, IsToldOfAfterAnyNumberOfWarnings) {
    Stack stack;
    stack.spare.fail(0, 8, Fails::kWrites);
    for (int i = 0; i < 15; i++) {
        message_error(stack.device(), "save");
    }
    stack.spare.heal_all();
    take_over(stack.spare.path());
    KernelLog log;
    EXPECT_NE(message_error(stack.device(), "save"), 0);
    EXPECT_TRUE(log.contains("another system uses the spare", 1000));
    stack.remove();
    forget_spare(stack.spare.plain());
}

}  // namespace
}  // namespace remap::vm

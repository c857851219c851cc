// What the harness must notice. Each of these does something that a case must not do, and the
// runner expects each to be found out: see run.sh.

#include <gtest/gtest.h>

#include "backing.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "kernel_log.h"

namespace remap::vm {
namespace {

TEST(SelftestFails, Expectation) {
    EXPECT_EQ(1, 2);
}

TEST(SelftestFails, Exception) {
    write_value("/sys/block/no-such", "1");
}

TEST(SelftestFails, KernelWarning) {
    note_in_kernel_log("WARNING: CPU: 0 PID: 1 at drivers/md/dm.c:1 dm_selftest+0x0/0x0");
}

TEST(SelftestFails, KernelLogOverrun) {
    for (int i = 0; i < 8000; i++) {  // the buffer is of 4 MiB
        note_in_kernel_log(std::string(900, 'x'));
    }
}

TEST(SelftestFails, DeviceLeftBehind) {
    static_cast<void>(new DmDevice("left", {{0, 2048, "zero", ""}}));
}

TEST(SelftestFails, SpareNotClean) {
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());  // but never formatted
}

TEST(SelftestFails, SpareOfTheMachineNotClean) {
    register_spare(machine_disk("extra"));
}

TEST(SelftestFails, CutPowerAfterAFailure) {
    ADD_FAILURE();
    cut_power();
}

TEST(SelftestFails, ProgramCrash) {
    std::abort();
}

TEST(SelftestFails, KernelCrash) {
    write_value("/proc/sysrq-trigger", "c");
}

TEST(SelftestFails, ExitInTheMiddle) {
    std::_Exit(0);
}

}  // namespace
}  // namespace remap::vm

// The ground that the other cases stand on: device-mapper, and disks that fail as told.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "dm_device.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Smoke, MediumErrorFailsThereAndOnlyThere) {
    ScsiDebug disk({"dev_size_mb=16"});
    const DmDevice mapped("smoke", {{0, 16384, "linear", disk.path() + " 8192"}});
    const BlockFile device(mapped.path());
    ASSERT_EQ(device.sectors(), 16384U);

    write_pattern(device, 0, device.sectors(), 1);
    EXPECT_TRUE(verify_pattern(device, 0, device.sectors(), 1));

    disk.fail_reads(8192 + 1000, 3);
    EXPECT_THAT(unreadable(device, 0, 2048), ElementsAre(1000, 1001, 1002));
    EXPECT_FALSE(verify_pattern(device, 0, 2048, 1));
    EXPECT_TRUE(verify_pattern(device, 0, 1000, 1));
    EXPECT_TRUE(verify_pattern(device, 1003, device.sectors() - 1003, 1));

    disk.fail_reads(0, 0);
    EXPECT_TRUE(verify_pattern(device, 0, device.sectors(), 1));
    EXPECT_FALSE(verify_pattern(device, 0, device.sectors(), 2));
}

TEST(Smoke, ScsiDebugDisksOf4096ByteSectors) {
    const ScsiDebug disks({"dev_size_mb=16", "sector_size=4096"}, 2);
    const BlockFile first(disks.path(0));
    const BlockFile second(disks.path(1));
    EXPECT_EQ(first.logical_block_size(), 4096U);
    write_pattern(first, 0, first.sectors(), 1);
    EXPECT_TRUE(verify_zeroes(second, 0, second.sectors()));
}

TEST(Smoke, NullBlkFailsWritesToo) {
    NullBlk disk({.size_mb = 16, .block_size = 512, .discard = true});
    const BlockFile device(disk.path());
    const Buffer block(kSector);
    write_pattern(device, 0, 2048, 1);
    disk.add_bad(100, 2);
    EXPECT_EQ(device.write(101, block.bytes()), EIO);
    EXPECT_EQ(device.write(102, block.bytes()), 0);
    EXPECT_THAT(unreadable(device, 0, 256), ElementsAre(100, 101));
    disk.remove_bad(100, 2);
    EXPECT_THAT(unreadable(device, 0, 256), IsEmpty());
    EXPECT_EQ(device.discard(0, 2048), 0);
}

TEST(Smoke, LoopDeviceGrows) {
    LoopDevice disk(1 << 20, 4096);
    EXPECT_EQ(BlockFile(disk.path()).logical_block_size(), 4096U);
    disk.resize(2 << 20);
    EXPECT_EQ(BlockFile(disk.path()).sectors(), 4096U);
}

TEST(Smoke, DmDeviceVerbs) {
    DmDevice device("smoke", {{0, 2048, "zero", ""}}, "SMOKE-1");
    EXPECT_EQ(device.table(), (Table{{0, 2048, "zero", ""}}));
    EXPECT_THAT(dm_device_names(), ElementsAre("smoke"));

    const Table mapped = {{0, 1024, "linear", machine_disk("main") + " 0"},
                          {1024, 1024, "error", ""}};
    device.load(mapped);
    EXPECT_TRUE(device.info().inactive_table);
    device.suspend();
    EXPECT_TRUE(device.info().suspended);
    device.resume();
    EXPECT_EQ(device.table().size(), 2U);
    EXPECT_EQ(device.dependencies().size(), 1U);

    device.rename("smoke2");
    EXPECT_EQ(BlockFile(device.path()).sectors(), 2048U);
    EXPECT_THROW(device.message("no such message"), DmError);
    EXPECT_THROW(device.load({{0, 2048, "no-such-target", ""}}), DmError);
}

}  // namespace
}  // namespace remap::vm

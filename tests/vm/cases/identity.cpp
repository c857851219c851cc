// Main devices that a spare accepts. It knows a disk by its id, a volume by its DM UUID, and any other
// by its size.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "kernel_log.h"
#include "offline.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kDisk = 64 * kMiB / kSector;  // sectors
constexpr uint64_t kVolume = kDisk / 4;
constexpr const char* kHome =
    "LVM-nXk2b7bK1mJ0rQx3pVt5wZy8aBc4dEf6homehomehomehomehomehomehomehome";
constexpr const char* kRoot =
    "LVM-nXk2b7bK1mJ0rQx3pVt5wZy8aBc4dEf6rootrootrootrootrootrootrootroot";

// Disks of one size, told apart by the id that they give themselves.
TEST(Identity, AnotherMainIsRefused) {
    const ScsiDebug disks({"dev_size_mb=16"}, 2);
    const LoopDevice spare(16 * kMiB);
    register_spare(spare.path());
    { const DmDevice device("remap", remap_table(disks.path(0), spare.path(), {"format"})); }
    EXPECT_TRUE(refused(remap_table(disks.path(1), spare.path()), "another main device"));
    const DmDevice device("remap", remap_table(disks.path(0), spare.path()));
    EXPECT_EQ(remap_status(device).mode, "rw");
}

// Volumes on a disk that has an id, as LVM would make them.
class Volume : public testing::Test {
  protected:
    void SetUp() override { register_spare(spare.path()); }

    Table part(uint64_t start, uint64_t length) const {
        return {{.start = 0,
                 .length = length,
                 .type = "linear",
                 .text = disk.path() + " " + std::to_string(start)}};
    }
    Table remap(const DmDevice& main, const std::vector<std::string>& features = {}) const {
        return remap_table(main.path(), spare.path(), features);
    }
    // A spare with a record, for this main.
    void make_spare(const DmDevice& main) const {
        DmDevice device("remap", remap(main, {"format"}));
        device.message("remap 1000 8");
    }
    testing::AssertionResult serves(const DmDevice& main) const {
        DmDevice device("remap", remap(main));
        if (remap_status(device).mode != "rw" || remap_list(device).size() != 1) {
            return testing::AssertionFailure() << device.status()[0].text;
        }
        return testing::AssertionSuccess();
    }

    ScsiDebug disk{{"dev_size_mb=64"}};
    LoopDevice spare{16 * kMiB};
};

TEST_F(Volume, IsToldFromItsNeighbour) {
    const DmDevice home("home", part(0, kVolume), kHome);
    const DmDevice root("root", part(kVolume, kVolume), kRoot);
    make_spare(home);
    EXPECT_EQ(known_main(spare.path()).id_type, DM_REMAP_MAIN_ID_DM_UUID);
    EXPECT_EQ(std::string(kHome).substr(5), known_main(spare.path()).name);
    EXPECT_TRUE(refused(remap(root), "another main device"));
    EXPECT_TRUE(refused(remap_table(disk.path(), spare.path()), "another main device"));
    EXPECT_TRUE(serves(home));
}

TEST_F(Volume, MayGrowShrinkAndMove) {
    DmDevice home("home", part(0, kVolume), kHome);
    make_spare(home);
    for (const uint64_t length : {2 * kVolume, kVolume / 2}) {
        home.reload(part(kVolume, length));
        EXPECT_TRUE(serves(home));
        EXPECT_EQ(known_main(spare.path()).sectors, length);
    }
    // The record would lie beyond its end.
    home.reload(part(0, 1000));
    EXPECT_TRUE(refused(remap(home), "record that is not possible"));
}

TEST_F(Volume, WithoutADmUuidMustHaveItsSize) {
    DmDevice plain("plain", part(0, kVolume));
    make_spare(plain);
    EXPECT_TRUE(serves(plain));
    for (const uint64_t length : {2 * kVolume, kVolume / 2}) {
        plain.reload(part(0, length));
        EXPECT_TRUE(refused(remap(plain), "main device of another size"));
    }
    EXPECT_NE(create_error(remap_table(disk.path(), spare.path())), 0);
}

// So does an older module know a volume: by the id of the disk, if its device-mapper hands that on.
TEST_F(Volume, IsTakenOverFromTheDisksIdIfItsSizeFits) {
    {
        DmDevice device("remap", remap_table(disk.path(), spare.path(), {"format"}));
        device.message("remap 1000 8");
    }
    EXPECT_EQ(known_main(spare.path()).id_type, DM_REMAP_MAIN_ID_NAA);
    DmDevice home("home", part(0, kVolume), kHome);
    EXPECT_TRUE(refused(remap(home), "main device of another size"));
    home.reload(part(0, kDisk));
    KernelLog log;
    EXPECT_TRUE(serves(home));
    EXPECT_TRUE(log.contains("the spare knows main by its DM UUID from now on"));
    EXPECT_EQ(known_main(spare.path()).id_type, DM_REMAP_MAIN_ID_DM_UUID);
    home.reload(part(0, kVolume));
    EXPECT_TRUE(serves(home));
}

// Or by nothing but its size.
TEST_F(Volume, IsTakenOverFromNoIdIfItsSizeFits) {
    const LoopDevice loop(kVolume * kSector);
    {
        DmDevice device("remap", remap_table(loop.path(), spare.path(), {"format"}));
        device.message("remap 1000 8");
    }
    EXPECT_EQ(known_main(spare.path()).id_type, DM_REMAP_MAIN_ID_NONE);
    DmDevice home("home", part(0, 2 * kVolume), kHome);
    EXPECT_TRUE(refused(remap(home), "main device of another size"));
    home.reload(part(0, kVolume));
    EXPECT_TRUE(serves(home));
    EXPECT_EQ(known_main(spare.path()).id_type, DM_REMAP_MAIN_ID_DM_UUID);
}

TEST_F(Volume, ThatTheToolFormatsForIsTheOneThatTheKernelKnows) {
    const DmDevice home("home", part(0, kVolume), kHome);
    const DmDevice root("root", part(kVolume, kVolume), kRoot);
    run_ok({"dm-remapctl", "format", "--yes", home.path(), spare.path()});
    EXPECT_EQ(known_main(spare.path()).id_type, DM_REMAP_MAIN_ID_DM_UUID);
    EXPECT_TRUE(refused(remap(root), "another main device"));
    const CommandResult wrong = run({"dm-remapctl", "create", "disk", root.path(), spare.path()});
    EXPECT_NE(wrong.status, 0);
    EXPECT_THAT(wrong.output, HasSubstr("another main device"));
    KernelLog log;
    run_ok({"dm-remapctl", "create", "disk", home.path(), spare.path()});
    EXPECT_FALSE(log.contains("the spare knows main by"));
    run_ok({"dm-remapctl", "remove", "disk"});
}

// The mapped device is main, so it has no id where main has none, and not the spare's.
TEST(Identity, OfAMappedDeviceIsNotTheSpares) {
    const ScsiDebug disks({"dev_size_mb=16"}, 2);
    const LoopDevice main(16 * kMiB);
    const LoopDevice other_spare(16 * kMiB);
    register_spare(disks.path(1));
    register_spare(other_spare.path());
    // A spare that knows a disk accepts a device of the same size without any id, and no other
    // disk.
    { const DmDevice other("other", remap_table(disks.path(0), other_spare.path(), {"format"})); }
    const DmDevice device("remap", remap_table(main.path(), disks.path(1), {"format"}));
    { const DmDevice other("other", remap_table(device.path(), other_spare.path())); }
    EXPECT_EQ(known_main(other_spare.path()).id_type, DM_REMAP_MAIN_ID_NONE);
}

}  // namespace
}  // namespace remap::vm

// Main devices that a spare accepts. It knows a disk by its id, a volume by its DM UUID, and any
// other by its size.

#include <fcntl.h>
#include <gmock/gmock.h>

#include <cstring>

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

// ---- rebind ----

// The disk behind another adapter: another id before the same sectors.
class Rebind : public testing::Test {
  protected:
    void SetUp() override {
        register_spare(spare.path());
        DmDevice device("remap", remap_table(disks.path(0), spare.path(), {"format"}));
        const BlockFile mapped(device.path());
        write_pattern(mapped, 0, kSectors, 1);
        device.message("remap 1000 8");
        write_pattern(mapped, 1000, 8, 2);
        const std::string text = device.table()[0].text;
        const auto at = text.find("uuid ") + 5;
        uuid = text.substr(at, text.find(' ', at) - at);
        run_ok({"dd", "if=" + disks.path(0), "of=" + disks.path(1), "bs=1M", "iflag=direct",
                "oflag=direct"});
    }
    Table plain() const { return remap_table(disks.path(1), spare.path(), {"uuid", uuid}); }
    Table rebind() const {
        return remap_table(disks.path(1), spare.path(), {"uuid", uuid, "rebind"});
    }
    static testing::AssertionResult is_whole(const BlockFile& mapped) {
        return verify_pattern(mapped, 0, 1000, 1) && verify_pattern(mapped, 1000, 8, 2) &&
                       verify_pattern(mapped, 1008, kSectors - 1008, 1)
                   ? testing::AssertionSuccess()
                   : testing::AssertionFailure();
    }
    std::string spare_now() const {
        return run_ok(
            {"sh", "-c", "dd if=" + spare.path() + " bs=1M iflag=direct 2>/dev/null | sha256sum"});
    }

    static constexpr uint64_t kSectors = 16 * kMiB / kSector;
    ScsiDebug disks{{"dev_size_mb=16"}, 2};
    LoopDevice spare{16 * kMiB};
    std::string uuid;
};

TEST_F(Rebind, IsWrittenByTheFirstResumeAndNotPrinted) {
    const dm_remap_main_id before = known_main(spare.path());
    EXPECT_TRUE(refused(plain(), "another main device"));
    {
        const DmDevice device("remap", rebind());
        EXPECT_EQ(remap_status(device).mode, "rw");
        EXPECT_EQ(device.table()[0].text.find("rebind"), std::string::npos);
        EXPECT_TRUE(is_whole(BlockFile(device.path())));
    }
    EXPECT_NE(std::memcmp(before.id, known_main(spare.path()).id, sizeof(before.id)), 0);
    EXPECT_TRUE(refused(remap_table(disks.path(0), spare.path()), "another main device"));
    const DmDevice device("remap", plain());
    EXPECT_TRUE(is_whole(BlockFile(device.path())));
}

TEST_F(Rebind, OnlyLooksIfReadOnly) {
    const std::string before = spare_now();
    run_ok({"dmsetup", "create", "--readonly", "remap", "--table",
            "0 " + std::to_string(kSectors) + " remap " + rebind()[0].text});
    EXPECT_TRUE(is_whole(BlockFile("/dev/mapper/remap", O_RDONLY | O_DIRECT)));
    EXPECT_EQ(spare_now(), before);
    // That it was looked at has proved nothing.
    const auto load = [](const Table& table) {
        return run({"dmsetup", "reload", "remap", "--table",
                    "0 " + std::to_string(kSectors) + " remap " + table[0].text})
            .status;
    };
    EXPECT_NE(load(plain()), 0);
    EXPECT_EQ(load(rebind()), 0);
    EXPECT_EQ(spare_now(), before);
    run_ok({"dmsetup", "resume", "remap"});
    EXPECT_EQ(load(plain()), 0);
    dm_remove("remap");
    EXPECT_NE(spare_now(), before);
    const DmDevice device("remap", plain());
    EXPECT_EQ(remap_status(device).mode, "rw");
}

TEST_F(Rebind, WithOtherBlocksIsRefused) {
    const LoopDevice large(16 * kMiB, 4096);
    KernelLog log;
    EXPECT_TRUE(
        refused(remap_table(large.path(), spare.path(), {"uuid", uuid, "rebind"}),
                "another logical block size of main: use the adapter from before, or one that"));
    EXPECT_TRUE(log.contains("start 0, blocks of 512 bytes"));
    EXPECT_TRUE(log.contains("start 0, blocks of 4096 bytes"));
}

TEST_F(Rebind, ByTheTool) {
    const std::vector<std::string> create = {"dm-remapctl", "create", "remap", disks.path(1),
                                             spare.path()};
    EXPECT_NE(run(create).status, 0);
    std::vector<std::string> words = create;
    words.emplace_back("--rebind");
    run_ok(words);
    EXPECT_TRUE(is_whole(BlockFile("/dev/mapper/remap")));
    run_ok({"dm-remapctl", "remove", "remap"});
    run_ok(create);
    run_ok({"dm-remapctl", "remove", "remap"});
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

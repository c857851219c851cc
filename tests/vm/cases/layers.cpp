// Between other layers of device-mapper, as people stack them.

#include <gmock/gmock.h>

#include <future>
#include <optional>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "file_work.h"
#include "harness.h"
#include "stack.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::Gt;
using testing::SizeIs;

// All of some disks as one logical volume.
class Volume {
  public:
    explicit Volume(const std::vector<std::string>& disks) : disks_(disks) {
        std::vector<std::string> create = {"vgcreate", "-y", "-s", "1m", "group"};
        create.insert(create.end(), disks.begin(), disks.end());
        lvm(create);
        lvm({"lvcreate", "-y", "-Z", "n", "-W", "n", "-l", "100%VG", "-n", "volume", "group"});
        active_ = true;
    }
    ~Volume() { deactivate(); }
    Volume(const Volume&) = delete;
    Volume& operator=(const Volume&) = delete;

    static std::string path() { return "/dev/mapper/group-volume"; }
    void deactivate() {
        if (active_) {
            active_ = false;
            lvm({"vgchange", "-a", "n", "group"});
        }
    }
    void activate() {
        lvm({"vgchange", "-a", "y", "group"});
        active_ = true;
    }

  private:
    void lvm(std::vector<std::string> words) const {
        // What is on these disks can be seen on those below as well, and there is no udev here.
        std::string filter;
        for (const auto& disk : disks_) {
            filter += "\"a|^" + disk + "$|\", ";
        }
        words.insert(words.begin(), "lvm");
        words.insert(words.end(),
                     {"--quiet", "--config",
                      "devices { use_devicesfile=0 obtain_device_list_from_udev=0 "
                      "external_device_info_source=\"none\" filter=[" +
                          filter + "\"r|.*|\"] } activation { udev_sync=0 udev_rules=0 }"});
        run_ok(words);
    }

    std::vector<std::string> disks_;
    bool active_ = false;
};

void mount_volume() {
    run_ok({"mount", "-t", "ext4", Volume::path(), "/mnt"});
}

void unmount_and_check() {
    run_ok({"umount", "/mnt"});
    run_ok({"e2fsck", "-f", "-n", Volume::path()});
}

TEST(Layers, LvmAbove) {
    Stack stack({.main_mb = 64});
    // Beyond the first MiB, where LVM keeps its own.
    auto bad = scattered_ranges(stack.sectors() - 4096, 400, 4, 1);
    for (auto& range : bad) {
        range.first += 4096;
    }
    stack.main.fail(bad, Fails::kWrites);
    Volume volume({stack.device().path()});
    run_ok({"mkfs.ext4", "-q", Volume::path()});
    mount_volume();
    const auto files = work_on_files({.directory = "/mnt", .time = 6s, .megabytes = 4});
    unmount_and_check();
    EXPECT_GT(stack.number("relocated"), 20U);
    EXPECT_EQ(stack.value("breaker"), "closed");
    volume.deactivate();
    stack.restart();
    volume.activate();
    mount_volume();
    EXPECT_TRUE(verify_files(files));
    unmount_and_check();
}

// Main is a volume that goes over two disks, one of which fails.
TEST(Layers, LvmBelow) {
    LoopDevice first(24 << 20);
    LoopDevice second(24 << 20);
    LoopDevice spare(16 << 20);
    register_spare(spare.path());
    FailingDisk failing("failing", second.path());
    const Volume volume({first.path(), failing.path()});
    const uint64_t sectors = BlockFile(Volume::path(), O_RDONLY).sectors();
    write_pattern(BlockFile(Volume::path()), 0, sectors, 1);
    // The volume's second half is the second disk, behind what LVM keeps there.
    const uint64_t bad = sectors / 2 + 20000 - 2048;
    const auto table = [&](const std::vector<std::string>& features) {
        return remap_table(Volume::path(), spare.path(), features);
    };
    std::optional<DmDevice> device(std::in_place, "remap", table({"format"}));
    failing.fail(10000, 3, Fails::kWrites);
    failing.fail(20000, 2, Fails::kAll);
    {
        const BlockFile mapped(device->path());
        write_pattern(mapped, 0, sectors / 2, 2);
        EXPECT_THAT(unreadable(mapped, bad - 16, 32), ElementsAre(bad, bad + 1));
        write_pattern(mapped, sectors / 2, sectors - sectors / 2, 2);
    }
    EXPECT_THAT(remap_list(*device), SizeIs(2));
    EXPECT_EQ(remap_status(*device).number("remapped"), 5U);
    device->remove();
    device.emplace("remap", table({}));
    EXPECT_TRUE(verify_pattern(BlockFile(device->path()), 0, sectors, 2));
    device->remove();
}

TEST(Layers, CryptAbove) {
    const Module module("dm-crypt");
    Stack stack;
    const auto table = [&]() -> Table {
        const std::string key(128, '7');
        return {{0, stack.sectors(), "crypt",
                 "aes-xts-plain64 " + key + " 0 " + stack.device().path() + " 0"}};
    };
    std::optional<DmDevice> crypt(std::in_place, "crypt", table());
    stack.main.fail(scattered_ranges(16384, 100, 4, 1), Fails::kWrites);
    stack.main.fail(20000, 2, Fails::kAll);
    {
        const BlockFile plain(crypt->path());
        write_pattern(plain, 0, 20000, 1);
        write_pattern(plain, 20008, stack.sectors() - 20008, 1);
        EXPECT_THAT(unreadable(plain, 20000, 8), ElementsAre(20000, 20001));
        EXPECT_TRUE(verify_pattern(plain, 0, 20000, 1));
    }
    EXPECT_THAT(stack.records(), SizeIs(Gt(100U)));
    crypt->remove();
    stack.restart();
    crypt.emplace("crypt", table());
    const BlockFile plain(crypt->path());
    write_pattern(plain, 20000, 8, 1);
    EXPECT_EQ(stack.number("pending"), 0U);
    EXPECT_TRUE(verify_pattern(plain, 0, stack.sectors(), 1));
}

// A spare that lies on another remap device, which is suspended while the spare is read: who
// resumes that one need not wait for it.
TEST(Layers, SpareOnADeviceThatIsSuspended) {
    const LoopDevice disk(16 << 20);
    const LoopDevice spare(16 << 20);
    DmDevice below("below", remap_table(disk.path(), spare.path(), {"format"}));
    register_spare(spare.path());
    const LoopDevice main(4 << 20);
    const Table table = remap_table(main.path(), below.path());
    { const DmDevice above("above", remap_table(main.path(), below.path(), {"format"})); }
    below.suspend();
    auto made = std::async(std::launch::async, [&] { return create_error(table); });
    EXPECT_EQ(made.wait_for(2s), std::future_status::timeout);
    below.resume();
    ASSERT_EQ(made.wait_for(20s), std::future_status::ready);
    EXPECT_EQ(made.get(), 0);
}

}  // namespace
}  // namespace remap::vm

// Whose I/O it is: a cgroup's use of the disks under the mapped device, and of that itself.

#include <gmock/gmock.h>
#include <sys/sysmacros.h>

#include <fstream>
#include <sstream>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = 1 << 20;

dev_t number_of(const std::string& disk) {
    const auto number = read_value("/sys/block" / fs::path(disk).filename() / "dev");
    const auto colon = number.find(':');
    return makedev(std::stoul(number), std::stoul(number.substr(colon + 1)));
}

// A cgroup that this process is in, for a scope.
class Cgroup {
  public:
    Cgroup() {
        if (!fs::exists(kRoot / "cgroup.procs")) {
            fs::create_directories(kRoot);
            run_ok({"mount", "-t", "cgroup2", "cgroup2", kRoot});
        }
        write_value(kRoot / "cgroup.subtree_control", "+io");
        fs::create_directory(path_);
        write_value(path_ / "cgroup.procs", "0");
    }
    ~Cgroup() {
        write_value(kRoot / "cgroup.procs", "0");
        fs::remove(path_);
    }
    Cgroup(const Cgroup&) = delete;
    Cgroup& operator=(const Cgroup&) = delete;

    // Of the line of this device in io.stat, "8:0 rbytes=1 wbytes=2 ...".
    [[nodiscard]] uint64_t number(dev_t device, const std::string& key) const {
        const auto name = std::to_string(major(device)) + ":" + std::to_string(minor(device));
        std::ifstream stat(path_ / "io.stat");
        for (std::string line; std::getline(stat, line);) {
            std::istringstream words(line);
            std::string word;
            words >> word;
            while (word == name && words >> word) {
                if (word.starts_with(key + "=")) {
                    return std::stoull(word.substr(key.size() + 1));
                }
                word = name;
            }
        }
        return 0;
    }

  private:
    inline static const fs::path kRoot = "/tmp/cgroup";
    const fs::path path_ = kRoot / "remap";
};

TEST(Accounting, EachDiskIsChargedToWhoUsesIt) {
    const ScsiDebug disks({"dev_size_mb=32"}, 2);
    register_spare(disks.path(1));
    DmDevice device("remap", remap_table(disks.path(0), disks.path(1), {"format"}));
    const dev_t main = number_of(disks.path(0));
    const dev_t spare = number_of(disks.path(1));
    const dev_t mapped = device.info().device;
    const Cgroup cgroup;
    const BlockFile file(device.path());

    // Nothing is remapped.
    write_pattern(file, 0, 4096, 1);
    EXPECT_TRUE(verify_pattern(file, 0, 2048, 1));
    EXPECT_EQ(cgroup.number(mapped, "wbytes"), 2 * kMiB);
    EXPECT_EQ(cgroup.number(main, "wbytes"), 2 * kMiB);
    EXPECT_EQ(cgroup.number(mapped, "rbytes"), kMiB);
    EXPECT_EQ(cgroup.number(main, "rbytes"), kMiB);
    EXPECT_EQ(cgroup.number(spare, "wbytes"), 0U);

    // A quarter of what is written is.
    device.message("remap 1024 1024");
    const uint64_t copied = cgroup.number(spare, "wbytes");
    write_pattern(file, 0, 4096, 2);
    EXPECT_EQ(cgroup.number(mapped, "wbytes"), 4 * kMiB);
    EXPECT_EQ(cgroup.number(main, "wbytes"), 2 * kMiB + 2 * kMiB * 3 / 4);
    EXPECT_EQ(cgroup.number(spare, "wbytes") - copied, kMiB / 2);
    EXPECT_TRUE(verify_pattern(file, 0, 4096, 2));
}

}  // namespace
}  // namespace remap::vm

// File systems over a disk with bad sectors everywhere: no file minds, no checker finds anything,
// also after the power was cut.
//
// The Long ones (make test-vm KERNEL=all CASE='RebootLong*') are for those who can wait; the others
// are the same in short.

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <regex>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "failing.h"
#include "file_work.h"
#include "harness.h"
#include "keep.h"
#include "kernel_log.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::AnyOf;

struct Filesystem {
    std::string name;
    std::vector<std::string> make;   // and the device
    std::vector<std::string> check;  // and the device, not mounted
};

const Filesystem kExt4 = {"ext4", {"mkfs.ext4", "-q", "-F"}, {"e2fsck", "-f", "-n"}};
const Filesystem kXfs = {"xfs", {"mkfs.xfs", "-q", "-f"}, {"xfs_repair", "-n"}};
const Filesystem kBtrfs = {"btrfs", {"mkfs.btrfs", "-q", "-f"}, {"btrfs", "check"}};

bool known(const Filesystem& filesystem) {
    run({"modprobe", "-q", filesystem.name});
    return read_value("/proc/filesystems").find("\t" + filesystem.name) != std::string::npos;
}

struct Load {
    uint64_t sectors;
    unsigned failing_writes;
    unsigned failing_reads;
    std::chrono::seconds time;
};

const Load kShort = {320 << 11, 800, 80, std::chrono::seconds(12)};
const Load kLong = {512 << 11, 2000, 200, std::chrono::seconds(180)};

std::vector<std::string> with(std::vector<std::string> argv, const std::string& last) {
    argv.push_back(last);
    return argv;
}

// The machine's main disk, whose bad sectors are the same at each boot, and a remap device over it.
class BadDisk {
  public:
    explicit BadDisk(const Load& load) : length_(load.sectors) {
        const auto all =
            scattered_ranges(load.sectors, load.failing_writes + load.failing_reads, 1, 42);
        for (size_t i = 0; i < all.size(); i++) {
            const bool fails_reads =
                i * load.failing_reads / all.size() != (i + 1) * load.failing_reads / all.size();
            (fails_reads ? reads_ : writes_).push_back(all[i]);
        }
        main_.fail(writes_, Fails::kWrites);
    }

    // Those that no write has cured, which after a boot nobody knows.
    void fail_reads() { main_.fail(reads_, Fails::kReadsUntilWritten); }

    [[nodiscard]] Table table(const std::vector<std::string>& features = {}) const {
        return remap_table(main_.path(), machine_disk("spare"), features, length_);
    }

  private:
    // A flush would go to each of the thousands of pieces, one by one. What matters here survives
    // in the host's page cache.
    static std::string without_cache(const std::string& disk) {
        write_value("/sys/block/" + disk.substr(5) + "/queue/write_cache", "write through");
        return disk;
    }

    uint64_t length_;
    std::vector<Range> writes_;
    std::vector<Range> reads_;
    FailingDisk main_{"main", without_cache(machine_disk("main"))};
};

class Mounted {
  public:
    Mounted(const Filesystem& filesystem, const std::string& device) {
        run_ok({"mount", "-t", filesystem.name, device, "/mnt"});
    }
    ~Mounted() {
        if (mounted_) {
            run({"umount", "/mnt"});
        }
    }
    Mounted(const Mounted&) = delete;
    Mounted& operator=(const Mounted&) = delete;
    void unmount() {
        run_ok({"umount", "/mnt"});
        mounted_ = false;
    }

  private:
    bool mounted_ = true;
};

void check(const Filesystem& filesystem, const DmDevice& device) {
    const auto result = run(with(filesystem.check, device.path()));
    EXPECT_EQ(result.status, 0) << result.output;
}

void scrub(const Filesystem& filesystem) {
    if (filesystem.name == "btrfs") {
        const auto result = run({"btrfs", "scrub", "start", "-B", "/mnt"});
        EXPECT_EQ(result.status, 0) << result.output;
        EXPECT_THAT(result.output, testing::HasSubstr("no errors found"));
    }
}

void expect_no_complaint(KernelLog& log) {
    static const std::regex complaint(
        "(EXT4-fs|BTRFS|XFS).*(error|corrupt|shut)|lost (a?sync )?page write|Remounting");
    for (const auto& line : log.lines()) {
        EXPECT_FALSE(std::regex_search(line, complaint)) << line;
    }
}

void expect_sound(const DmDevice& device) {
    const auto status = remap_status(device);
    EXPECT_THAT(status.mode, AnyOf("rw"));
    EXPECT_EQ(status.values.at("breaker"), "closed");
    EXPECT_EQ(status.number("refused"), 0U);
    std::cout << device.status().at(0).text << std::endl;
}

// For one more round of work.
bool has_room() {
    const auto space = std::filesystem::space("/mnt");
    return space.available > space.capacity / 3 * 2;
}

FileWork work(const Load& load, unsigned seed, std::chrono::seconds time) {
    return {.directory = "/mnt",
            .workers = 4,
            .time = time,
            .megabytes = load.sectors / 2048 / 4 / 3,
            .seed = seed};
}

void work_and_lose_power(const Filesystem& filesystem, const Load& load) {
    if (!known(filesystem)) {
        GTEST_SKIP() << "this kernel has no " << filesystem.name;
    }
    KernelLog log;
    BadDisk disk(load);
    disk.fail_reads();
    const DmDevice device("remap", disk.table({"format"}));
    run_ok(with(filesystem.make, device.path()));
    {
        Mounted mounted(filesystem, device.path());
        std::string files;
        // In pieces: whoever watches the log sees that it lives. And longer, where a slow kernel
        // has not met enough of the bad sectors.
        constexpr std::chrono::seconds kPiece{60};
        const auto enough = [&] {
            return remap_status(device).number("relocated") > load.failing_writes / 10;
        };
        auto left = load.time;
        for (unsigned round = 0; left.count() > 0 || (!enough() && round < 20); round++) {
            if (left.count() <= 0) {
                left = std::min(load.time, kPiece);
            }
            files += work_on_files(work(load, 100 * round + static_cast<unsigned>(left.count()),
                                        std::min(left, kPiece)));
            expect_sound(device);
            run_ok({"sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"});
            EXPECT_TRUE(verify_files(files));
            left -= std::min(left, kPiece);
            // Where the files lay, there is nothing new to meet, as long as there is room
            // elsewhere.
            if ((left.count() > 0 || !enough()) && !has_room()) {
                run_ok({"sh", "-c", "rm -rf /mnt/[0-9]*"});
                files.clear();
            }
        }
        scrub(filesystem);
        mounted.unmount();
        check(filesystem, device);
        EXPECT_TRUE(enough());
    }
    Mounted again(filesystem, device.path());
    run_ok({"sh", "-c", "rm -rf /mnt/[0-9]*"});
    const auto files = work_on_files(work(load, 1000, std::chrono::seconds(4)));
    run_ok({"sync"});
    keep(files);
    expect_no_complaint(log);
    expect_sound(device);
    cut_power();
}

void find_all(const Filesystem& filesystem, const Load& load) {
    if (!known(filesystem)) {
        GTEST_SKIP() << "this kernel has no " << filesystem.name;
    }
    KernelLog log;
    BadDisk disk(load);
    DmDevice device("remap", disk.table());
    {
        Mounted mounted(filesystem, device.path());
        EXPECT_TRUE(verify_files(kept()));
        scrub(filesystem);
        mounted.unmount();
    }
    check(filesystem, device);
    expect_no_complaint(log);
    expect_sound(device);
    device.remove();
    register_spare(machine_disk("spare"));
}

TEST(RebootExt4, Phase1WorkAndLosePower) {
    work_and_lose_power(kExt4, kShort);
}
TEST(RebootExt4, Phase2FindAll) {
    find_all(kExt4, kShort);
}

TEST(RebootXfs, Phase1WorkAndLosePower) {
    work_and_lose_power(kXfs, kShort);
}
TEST(RebootXfs, Phase2FindAll) {
    find_all(kXfs, kShort);
}

TEST(RebootBtrfs, Phase1WorkAndLosePower) {
    work_and_lose_power(kBtrfs, kShort);
}
TEST(RebootBtrfs, Phase2FindAll) {
    find_all(kBtrfs, kShort);
}

TEST(RebootLongExt4, Phase1WorkAndLosePower) {
    work_and_lose_power(kExt4, kLong);
}
TEST(RebootLongExt4, Phase2FindAll) {
    find_all(kExt4, kLong);
}

TEST(RebootLongXfs, Phase1WorkAndLosePower) {
    work_and_lose_power(kXfs, kLong);
}
TEST(RebootLongXfs, Phase2FindAll) {
    find_all(kXfs, kLong);
}

TEST(RebootLongBtrfs, Phase1WorkAndLosePower) {
    work_and_lose_power(kBtrfs, kLong);
}
TEST(RebootLongBtrfs, Phase2FindAll) {
    find_all(kBtrfs, kLong);
}

}  // namespace
}  // namespace remap::vm

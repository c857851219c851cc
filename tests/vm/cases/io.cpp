// I/O through records: splitting, flags, discard, and others' programs with their own checks.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include <atomic>
#include <random>
#include <thread>

#include "backing.h"
#include "block.h"
#include "bulk.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

constexpr uint64_t kMiB = 1 << 20;

// More records than a thousand, all over a device of 64 MiB: single sectors, made at once, and
// longer ones by messages, some of which fall on sectors that are taken.
constexpr uint64_t kSingles = 1100;
constexpr uint64_t kStride = 119;

void scatter(DmDevice& device, uint64_t sectors, unsigned count, unsigned seed) {
    std::mt19937_64 random(seed);
    for (unsigned i = 0; i < count; i++) {
        const uint64_t length = 1 + random() % 24;
        message_error(device, "remap " + std::to_string(random() % (sectors - length)) + " " +
                                  std::to_string(length));
    }
}

std::vector<std::string> fio(const std::string& path, const std::vector<std::string>& options) {
    std::vector<std::string> argv = {"fio",         "--name=verify",    "--filename=" + path,
                                     "--direct=1",  "--verify=crc32c",  "--verify_fatal=1",
                                     "--minimal",   "--ioengine=psync", "--thread",
                                     "--randseed=1"};
    argv.insert(argv.end(), options.begin(), options.end());
    return argv;
}

class Scattered : public testing::Test {
  protected:
    void SetUp() override {
        scatter(device, 131072, 60, 1);
        ASSERT_GE(remap_status(device).number("records"), 1100U);
    }

    // With its records.
    static std::string made(const std::string& main, const std::string& spare) {
        register_spare(spare);
        { const DmDevice device("remap", remap_table(main, spare, {"format"})); }
        map_sectors(spare, 7, kStride, kSingles, 1);
        return spare;
    }

    LoopDevice main{64 * kMiB};
    LoopDevice spare{32 * kMiB};
    DmDevice device{"remap", remap_table(main.path(), made(main.path(), spare.path()))};
};

using RacesScattered = Scattered;

TEST_F(Scattered, FioVerifiesRandomWritesOfManySizes) {
    const struct {
        const char* sizes;
        const char* amount;
    } loads[] = {{"512-512", "1m"}, {"4k-4k", "6m"}, {"1k-24k", "16m"}};
    for (const auto& [sizes, amount] : loads) {
        run_ok(fio(device.path(), {"--rw=randwrite", "--bsrange=" + std::string(sizes),
                                   "--io_size=" + std::string(amount), "--verify_backlog=256"}));
    }
}

TEST_F(Scattered, FioVerifiesSequentialWritesThatStraddleEdges) {
    for (const char* bs : {"64k", "1m"}) {
        run_ok(fio(device.path(), {"--rw=write", "--bs=" + std::string(bs)}));
    }
    run_ok(fio(device.path(), {"--rw=randrw", "--bs=17k", "--blockalign=512", "--io_size=16m",
                               "--verify_backlog=64"}));
}

TEST_F(Scattered, PatternsOfAnySizeLandWhereTheyBelong) {
    const BlockFile mapped(device.path());
    std::mt19937_64 random(2);
    write_pattern(mapped, 0, 131072, 1);
    for (int i = 0; i < 500; i++) {
        const uint64_t length = 1 + random() % 600;
        const uint64_t sector = random() % (131072 - length);
        write_pattern(mapped, sector, length, 1);
    }
    EXPECT_TRUE(verify_pattern(mapped, 0, 131072, 1));
    // All of it comes home.
    device.message("unremap 0 131072");
    EXPECT_EQ(remap_status(device).number("records"), 0U);
    EXPECT_TRUE(verify_pattern(mapped, 0, 131072, 1));
    EXPECT_TRUE(verify_pattern(BlockFile(main.path()), 0, 131072, 1));
}

TEST_F(RacesScattered, SuspendResumeAndReloadUnderLoad) {
    const Table table = device.table();
    std::atomic<int> status{-1};
    std::string output;
    std::jthread load([&] {
        const auto result =
            run(fio(device.path(), {"--rw=randrw", "--bsrange=512-64k", "--time_based",
                                    "--runtime=25", "--verify_backlog=256", "--numjobs=2",
                                    "--size=32m", "--offset_increment=32m"}));
        output = result.output;
        status = result.status;
    });
    for (int i = 0; i < 50; i++) {
        if (i % 2 == 0) {
            device.reload(table);
        } else {
            device.suspend();
            device.resume();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    load.join();
    EXPECT_EQ(status, 0) << output;
    EXPECT_EQ(device.table(), table);
}

TEST_F(RacesScattered, RemapAndUnremapUnderLoad) {
    std::atomic<int> status{-1};
    std::string output;
    std::jthread load([&] {
        const auto result =
            run(fio(device.path(),
                    {"--rw=randrw", "--bsrange=512-32k", "--time_based", "--runtime=15",
                     "--verify_backlog=128", "--numjobs=2", "--size=4m", "--offset_increment=4m"}));
        output = result.output;
        status = result.status;
    });
    std::mt19937_64 random(3);
    while (status < 0) {
        const std::string range =
            std::to_string(random() % 16000) + " " + std::to_string(1 + random() % 384);
        // Either may find its range the wrong way round; data must not mind.
        message_error(device, (random() % 2 ? "remap " : "unremap ") + range);
        if (random() % 16 == 0) {
            device.message(random() % 2 ? "save" : "restore");
        }
    }
    load.join();
    EXPECT_EQ(status, 0) << output;
}

TEST_F(Scattered, Ext4IsSoundAfterwards) {
    run_ok({"mkfs.ext4", "-q", device.path()});
    run_ok({"mount", "-t", "ext4", device.path(), "/mnt"});
    run_ok({"sh", "-c",
            "cd /mnt && for i in $(seq 1 40); do dd if=/dev/urandom of=f$i bs=64k count=12 "
            "2>/dev/null; done && sha256sum f* > /tmp/sums && sync && rm f7 f9 && "
            "echo 3 > /proc/sys/vm/drop_caches && grep -v 'f7$\\|f9$' /tmp/sums | sha256sum -c"});
    run_ok({"umount", "/mnt"});
    run_ok({"e2fsck", "-f", "-n", device.path()});
}

TEST_F(Scattered, TwoDevicesInOneStack) {
    const LoopDevice upper_spare(16 * kMiB);
    register_spare(upper_spare.path());
    DmDevice upper("upper", remap_table(device.path(), upper_spare.path(), {"format"}));
    scatter(upper, 131072, 100, 9);
    write_pattern(BlockFile(upper.path()), 0, 131072, 5);
    EXPECT_TRUE(verify_pattern(BlockFile(upper.path()), 0, 131072, 5));
}

// null_blk keeps what was discarded out of its memory, so a discard shows as zeros.
TEST(Discard, NeverGoesToTheSpare) {
    NullBlk main({.size_mb = 64, .block_size = 512, .discard = true});
    NullBlk spare({.size_mb = 16, .block_size = 512, .discard = true});
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 4096, 1);
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    const BlockFile mapped(device.path());
    device.message("remap 1000 100");
    write_pattern(mapped, 1000, 100, 2);
    ASSERT_EQ(mapped.discard(990, 20), 0);
    ASSERT_EQ(mapped.discard(1050, 100), 0);
    EXPECT_TRUE(verify_pattern(mapped, 0, 990, 1));
    EXPECT_TRUE(verify_zeroes(mapped, 990, 10));
    EXPECT_TRUE(verify_pattern(mapped, 1000, 100, 2));
    EXPECT_TRUE(verify_zeroes(mapped, 1100, 50));
    EXPECT_TRUE(verify_pattern(BlockFile(main.path()), 1000, 100, 1)) << "main under the record";
}

// It is no write that the spare would have to be flushed for.
TEST(Discard, OfAMappedRangeLeavesFsyncToMain) {
    NullBlk main({.size_mb = 64, .block_size = 512, .discard = true});
    const LoopDevice spare(16 * kMiB);
    DmDevice under("under", {{0, 32768, "linear", spare.path() + " 0"}});
    {
        DmDevice device("remap", remap_table(main.path(), under.path(), {"format"}));
        const BlockFile mapped(device.path());
        device.message("remap 1000 100");
        ASSERT_EQ(mapped.flush(), 0);
        under.reload({{0, 32768, "flakey", spare.path() + " 0 0 60 1 error_writes"}});
        EXPECT_EQ(mapped.discard(1000, 100), 0);
        EXPECT_EQ(mapped.flush(), 0);
        under.reload({{0, 32768, "linear", spare.path() + " 0"}});
    }
    register_spare(spare.path());
}

TEST(Discard, ASpareWithoutItDoesNotTakeItFromMain) {
    NullBlk main({.size_mb = 64, .block_size = 512, .discard = true});
    const ScsiDebug spare({"dev_size_mb=16"});
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 4096, 1);
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    const BlockFile mapped(device.path());
    device.message("remap 1000 100");
    ASSERT_EQ(mapped.discard(900, 300), 0);
    EXPECT_TRUE(verify_zeroes(mapped, 900, 100));
    EXPECT_TRUE(verify_pattern(mapped, 1000, 100, 1));
    EXPECT_TRUE(verify_zeroes(mapped, 1100, 100));
}

TEST(WriteZeroes, FollowsTheMap) {
    const ScsiDebug disks({"dev_size_mb=32", "lbpws=1", "lbpws10=1", "lbpu=1"}, 2);
    register_spare(disks.path(1));
    DmDevice device("remap", remap_table(disks.path(0), disks.path(1), {"format"}));
    const BlockFile mapped(device.path());
    write_pattern(mapped, 0, 4096, 1);
    device.message("remap 1000 100");
    ASSERT_EQ(mapped.write_zeroes(950, 100), 0);
    EXPECT_TRUE(verify_pattern(mapped, 0, 950, 1));
    EXPECT_TRUE(verify_zeroes(mapped, 950, 100));
    EXPECT_TRUE(verify_pattern(mapped, 1050, 1000, 1));
    EXPECT_TRUE(verify_pattern(BlockFile(disks.path(0)), 1000, 100, 1)) << "main under the record";
}

// Flush and FUA must reach the device where the data is: what dm-flakey drops shows.
TEST(Flush, ADeadButUnusedSpareFailsNoFsync) {
    const LoopDevice main(64 * kMiB);
    const LoopDevice spare(16 * kMiB);
    DmDevice under("under", {{0, 32768, "linear", spare.path() + " 0"}});
    {
        DmDevice device("remap", remap_table(main.path(), under.path(), {"format"}));
        const BlockFile mapped(device.path());
        write_pattern(mapped, 0, 8, 1);
        under.reload({{0, 32768, "error", ""}});
        EXPECT_EQ(mapped.flush(), 0);
        write_pattern(mapped, 8, 8, 1);
        EXPECT_EQ(mapped.flush(), 0);
        under.reload({{0, 32768, "linear", spare.path() + " 0"}});
        device.message("remap 0 8");
        write_pattern(mapped, 0, 8, 2);
        under.reload({{0, 32768, "flakey", spare.path() + " 0 0 60 1 error_writes"}});
        // Now there is a write on the spare that no flush has covered.
        EXPECT_EQ(mapped.flush(), EIO);
        under.reload({{0, 32768, "linear", spare.path() + " 0"}});
        EXPECT_EQ(mapped.flush(), 0);
        EXPECT_TRUE(verify_pattern(mapped, 0, 8, 2));
    }
    register_spare(spare.path());
}

TEST(NoWait, IsHonoured) {
    const ScsiDebug main({"dev_size_mb=16"});
    const ScsiDebug* disk = &main;
    const LoopDevice spare(16 * kMiB);
    register_spare(spare.path());
    DmDevice device("remap", remap_table(disk->path(), spare.path(), {"format"}));
    const BlockFile mapped(device.path());
    const Buffer block(kSector);
    const int answer = mapped.read(0, block.bytes(), RWF_NOWAIT);
    EXPECT_TRUE(answer == 0 || answer == EAGAIN || answer == EOPNOTSUPP) << answer;
}

}  // namespace
}  // namespace remap::vm

// The mapped device is main to all that look at it. Its queue is compared with that of a linear
// device over the same main. The two differ only where the spare has to have a say.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <linux/falloc.h>
#include <sys/uio.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "backing.h"
#include "block.h"
#include "cache_disk.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "kernel_log.h"
#include "remap.h"

namespace remap::vm {
namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

constexpr size_t kPage = 4096;
constexpr uint64_t kSize = 16 << 20;
constexpr uint64_t kMapped = 1024;  // the sectors that are mapped, where any are
constexpr uint64_t kCount = 2048;

// Each file of /sys/block/<disk>/queue gives the answer of one of these.
enum class Whose {
    kMain,
    kPair,  // pair_says() knows which
    kDm,    // device-mapper's own: the disks beneath have no part in it
};

// All files that Linux 6.1 and 6.12 have. Another one fails the test, until somebody has said whose
// answer it gives.
const std::map<std::string, Whose> kFiles = {
    {"add_random", Whose::kMain},
    {"atomic_write_boundary_bytes", Whose::kMain},
    {"atomic_write_max_bytes", Whose::kMain},
    {"atomic_write_unit_max_bytes", Whose::kMain},
    {"atomic_write_unit_min_bytes", Whose::kMain},
    {"chunk_sectors", Whose::kMain},
    {"dax", Whose::kDm},
    {"discard_granularity", Whose::kMain},
    {"discard_max_bytes", Whose::kMain},
    {"discard_max_hw_bytes", Whose::kMain},
    {"discard_zeroes_data", Whose::kMain},
    {"dma_alignment", Whose::kPair},
    {"fua", Whose::kPair},
    {"hw_sector_size", Whose::kMain},
    {"io_poll", Whose::kMain},
    {"io_poll_delay", Whose::kDm},
    {"io_timeout", Whose::kDm},
    {"iostats", Whose::kDm},
    {"iostats_passthrough", Whose::kDm},
    // A spare with a larger one is refused.
    {"logical_block_size", Whose::kMain},
    {"max_active_zones", Whose::kMain},
    {"max_discard_segments", Whose::kMain},
    {"max_hw_sectors_kb", Whose::kMain},
    {"max_integrity_segments", Whose::kMain},
    {"max_open_zones", Whose::kMain},
    {"max_sectors_kb", Whose::kMain},
    {"max_segment_size", Whose::kMain},
    {"max_segments", Whose::kMain},
    {"max_write_streams", Whose::kMain},
    {"minimum_io_size", Whose::kMain},
    {"nomerges", Whose::kDm},
    {"nr_requests", Whose::kDm},
    {"nr_zones", Whose::kMain},
    {"optimal_io_size", Whose::kMain},
    {"physical_block_size", Whose::kMain},
    {"read_ahead_kb", Whose::kMain},
    {"rotational", Whose::kMain},
    {"rq_affinity", Whose::kDm},
    {"scheduler", Whose::kDm},
    {"stable_writes", Whose::kPair},
    {"throttle_sample_time", Whose::kDm},
    {"virt_boundary_mask", Whose::kMain},
    {"wbt_lat_usec", Whose::kDm},
    {"write_cache", Whose::kPair},
    {"write_same_max_bytes", Whose::kMain},
    {"write_stream_granularity", Whose::kMain},
    {"write_zeroes_max_bytes", Whose::kMain},
    {"write_zeroes_unmap_max_bytes", Whose::kMain},
    {"write_zeroes_unmap_max_hw_bytes", Whose::kMain},
    {"zone_append_max_bytes", Whose::kMain},
    {"zone_write_granularity", Whose::kMain},
    {"zoned", Whose::kMain},
};

fs::path queue_of(const std::string& path) {
    return sys_block(path) / "queue";
}

std::string queue_value(const std::string& path, const std::string& file) {
    try {
        return read_value(queue_of(path) / file);
    } catch (const std::system_error& error) {
        return error.code().message();
    }
}

void set_queue(const std::string& path, const std::string& file, const std::string& value) {
    write_value(queue_of(path) / file, value);
}

bool has_cache(const std::string& path) {
    return queue_value(path, "write_cache") == "write back";
}

// By the queue's flag, or by a checksum of each sector.
bool needs_stable_pages(const std::string& path) {
    const auto integrity = sys_block(path) / "integrity" / "format";
    return queue_value(path, "stable_writes") == "1" ||
           (fs::exists(integrity) && read_value(integrity).find("T10") != std::string::npos);
}

std::string pair_says(const std::string& file, const std::string& main, const std::string& spare,
                      const std::string& linear) {
    if (file == "write_cache") {
        return has_cache(main) || has_cache(spare) ? "write back" : "write through";
    }
    if (file == "fua") {
        // A write to a main without a cache is durable in any case.
        return !has_cache(main) && has_cache(spare) ? "1" : queue_value(linear, file);
    }
    if (file == "stable_writes") {
        return needs_stable_pages(main) || needs_stable_pages(spare) ? "1" : "0";
    }
    return std::to_string(
        std::max(std::stoul(queue_value(linear, file)), std::stoul(queue_value(spare, file))));
}

// All that `lsblk -t` and `lsblk -D` say of a disk.
std::string lsblk(const std::string& path) {
    return run_ok({"lsblk", "-dno",
                   "ALIGNMENT,MIN-IO,OPT-IO,PHY-SEC,LOG-SEC,ROTA,SCHED,RQ-SIZE,RA,WSAME,DISC-ALN,"
                   "DISC-GRAN,DISC-MAX,DISC-ZERO",
                   path});
}

Table made(const std::string& main, const std::string& spare) {
    if (!spare.starts_with("/dev/mapper/")) {
        register_spare(spare);  // of another device, delay() has registered the disk
    }
    return remap_table(main, spare, {"format"});
}

Table delay(const std::string& disk) {
    register_spare(disk);
    return {{0, kSize / kSector, "delay", disk + " 0 0"}};
}

// A remap device over main and spare, and a linear one over main.
class Beside {
  public:
    Beside(const std::string& main, const std::string& spare)
        : main_(main),
          spare_(spare),
          device_("remap", made(main, spare)),
          linear_("linear", {{0, BlockFile(main).sectors(), "linear", main + " 0"}}) {}

    DmDevice& device() { return device_; }
    [[nodiscard]] std::string linear() const { return linear_.path(); }

    // The files that do not say what they should: "<file>: <what>, not <what>".
    [[nodiscard]] std::vector<std::string> wrong() const {
        std::vector<std::string> wrong;
        for (const auto& entry : fs::directory_iterator(queue_of(device_.path()))) {
            const std::string file = entry.path().filename().string();
            if (!kFiles.contains(file)) {
                wrong.push_back(file + ": whose is it?");
                continue;
            }
            const std::string is = queue_value(device_.path(), file);
            const std::string should = kFiles.at(file) == Whose::kPair
                                           ? pair_says(file, main_, spare_, linear_.path())
                                           : queue_value(linear_.path(), file);
            if (is != should) {
                wrong.push_back(fmt::format("{}: {}, not {}", file, is, should));
            }
        }
        const std::string is = lsblk(device_.path());
        const std::string should = lsblk(linear_.path());
        if (is != should) {
            wrong.push_back(fmt::format("lsblk: {}, not {}", is, should));
        }
        return wrong;
    }

  private:
    std::string main_;
    std::string spare_;
    DmDevice device_;
    DmDevice linear_;
};

// ---- odd spares ----

TEST(Limits, BesideASpareOfItsKind) {
    const LoopDevice main(kSize);
    const LoopDevice spare(kSize);
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

// A bridge that reports 65,535 blocks as its best size, and a medium that turns.
TEST(Limits, BesideAUsbBridge) {
    const LoopDevice main(kSize);
    const ScsiDebug spare({"dev_size_mb=64", "opt_blks=65535"});
    set_queue(spare.path(), "rotational", "1");
    ASSERT_EQ(queue_value(spare.path(), "optimal_io_size"), std::to_string(65535 * kSector));
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

// Its blocks of 4096 bytes begin a sector early.
TEST(Limits, BesideASpareAskew) {
    const NullBlk main;
    const ScsiDebug spare({"dev_size_mb=16", "physblk_exp=3", "lowest_aligned=7"});
    ASSERT_EQ(read_value(sys_block(spare.path()) / "alignment_offset"), "3584");
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

// It discards by the MiB, and is askew in that, too.
TEST(Limits, BesideASpareOfCoarseDiscards) {
    const NullBlk main({.block_size = 4096, .discard = true});
    const ScsiDebug spare({"dev_size_mb=16", "lbpu=1", "unmap_granularity=2048",
                           "unmap_alignment=1", "unmap_max_blocks=8192"});
    ASSERT_EQ(queue_value(spare.path(), "discard_granularity"), std::to_string(1 << 20));
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

// It takes a page a request, and wants it at a page's edge.
TEST(Limits, BesideASpareOfSmallRequests) {
    const ScsiDebug main({"dev_size_mb=16"});
    const NullBlk spare({.size_mb = 16, .max_sectors = 8, .virt_boundary = true});
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

// dm-crypt with sectors of 4096 bytes takes no buffer that is not aligned to as much.
TEST(Limits, BesideASpareOfStrictBuffers) {
    const Module module("dm-crypt");
    const NullBlk main({.size_mb = 16, .block_size = 4096});
    const LoopDevice disk(kSize, 4096);
    const DmDevice spare("spare", {{0, kSize / kSector, "crypt",
                                    "aes-xts-plain64 " + std::string(128, '7') + " 0 " +
                                        disk.path() + " 0 1 sector_size:4096"}});
    ASSERT_EQ(queue_value(spare.path(), "dma_alignment"), "4095");
    ASSERT_EQ(BlockFile(spare.path()).write(0, Buffer(kSize).bytes()), 0);  // a blank spare
    Beside beside(main.path(), spare.path());
    EXPECT_THAT(beside.wrong(), IsEmpty());
    beside.device().message("remap 1024 1024");
    const BlockFile mapped(beside.device().path());
    const Buffer buffer(2 * kPage);
    EXPECT_EQ(mapped.write(kMapped, buffer.bytes().first(kPage)), 0);
    EXPECT_EQ(mapped.write(kMapped, buffer.bytes().subspan(kSector, kPage)), EINVAL);
    EXPECT_EQ(remap_status(beside.device()).number("write_errors"), 0U);
}

// It has neither discards, nor zeroes, nor NOWAIT, nor polling, nor a cache.
TEST(Limits, BesideASpareThatCanDoNothing) {
    const NullBlk disk({.size_mb = 16});
    const DmDevice spare("spare", delay(disk.path()));
    const NullBlk main({.size_mb = 16, .discard = true, .poll_queues = 1});
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

// It has all that main lacks.
TEST(Limits, BesideASpareThatCanDoMore) {
    const NullBlk main({.size_mb = 16});
    const ScsiDebug spare(
        {"dev_size_mb=16", "lbpws=1", "lbpws10=1", "lbpu=1", "dif=1", "dix=1", "physblk_exp=3"});
    ASSERT_TRUE(has_cache(spare.path()));
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

TEST(Limits, BesideASpareWithACache) {
    const NullBlk main({.size_mb = 16});
    const CacheDisk spare(kSize);
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

// Main has properties, and keeps them over a plain spare.
TEST(Limits, OfAMainWithProperties) {
    const ScsiDebug main({"dev_size_mb=16", "lbpws=1", "lbpws10=1", "lbpu=1", "dif=1", "dix=1",
                          "physblk_exp=3", "lowest_aligned=7", "opt_blks=4096",
                          "unmap_granularity=64"});
    set_queue(main.path(), "rotational", "1");
    const NullBlk spare({.size_mb = 16});
    EXPECT_THAT(Beside(main.path(), spare.path()).wrong(), IsEmpty());
}

TEST(Limits, OfAMainAndASpareWithPi) {
    const ScsiDebug disks({"dev_size_mb=16", "dif=1", "dix=1"}, 2);
    EXPECT_THAT(Beside(disks.path(0), disks.path(1)).wrong(), IsEmpty());
}

// ---- where main can do more than the spare ----

// A remap device with a range on the spare, and data of seed 1.
class Mapped {
  public:
    Mapped(const std::string& main, const std::string& spare)
        : device("remap", made(main, spare)), file(device.path()) {
        write_pattern(file, 0, 2 * kMapped + kCount, 1);
        device.message("remap " + std::to_string(kMapped) + " " + std::to_string(kCount));
    }

    // Requests of 1 MiB, each page of which lies by itself.
    [[nodiscard]] int scattered(bool write, const Buffer& buffer) const {
        std::vector<iovec> pages;
        for (size_t at = 0; at < buffer.bytes().size(); at += 2 * kPage) {
            pages.push_back({buffer.bytes().data() + at, kPage});
        }
        const auto offset = static_cast<off_t>(kMapped * kSector);
        const auto n = static_cast<int>(pages.size());
        const ssize_t done = write ? pwritev(file.fd(), pages.data(), n, offset)
                                   : preadv(file.fd(), pages.data(), n, offset);
        return done == static_cast<ssize_t>(pages.size() * kPage) ? 0 : errno;
    }

    void expect_large_requests() const {
        const Buffer written(2 * kCount * kSector);
        const Buffer read(2 * kCount * kSector);
        fill_pattern(written.bytes(), 0, 7);
        ASSERT_EQ(scattered(true, written), 0);
        ASSERT_EQ(scattered(false, read), 0);
        for (size_t at = 0; at < read.bytes().size(); at += 2 * kPage) {
            EXPECT_TRUE(std::ranges::equal(read.bytes().subspan(at, kPage),
                                           written.bytes().subspan(at, kPage)))
                << at;
        }
        EXPECT_EQ(remap_status(device).number("write_errors"), 0U);
    }

    DmDevice device;
    BlockFile file;
};

TEST(OddSpare, OfSmallRequestsIsGivenLargeOnes) {
    const ScsiDebug main({"dev_size_mb=16"});
    const NullBlk spare({.size_mb = 16, .max_sectors = 8});
    const Mapped mapped(main.path(), spare.path());
    ASSERT_GT(std::stoul(queue_value(mapped.device.path(), "max_sectors_kb")), 4U);
    mapped.expect_large_requests();
}

TEST(OddSpare, OfFewSegmentsIsGivenMany) {
    const ScsiDebug main({"dev_size_mb=16"});
    const NullBlk spare({.size_mb = 16, .virt_boundary = true});
    const Mapped mapped(main.path(), spare.path());
    ASSERT_GT(std::stoul(queue_value(mapped.device.path(), "max_segments")),
              std::stoul(queue_value(spare.path(), "max_segments")));
    mapped.expect_large_requests();
}

TEST(OddSpare, WithoutNowaitAnswersThatItWouldBlock) {
    const NullBlk main({.size_mb = 16});
    const NullBlk disk({.size_mb = 16});
    const DmDevice spare("spare", delay(disk.path()));
    const Mapped mapped(main.path(), spare.path());
    const Buffer block(8 * kSector);
    EXPECT_EQ(mapped.file.read(0, block.bytes(), RWF_NOWAIT), 0);
    EXPECT_EQ(mapped.file.write(0, block.bytes(), RWF_NOWAIT), 0);
    EXPECT_EQ(mapped.file.read(kMapped, block.bytes(), RWF_NOWAIT), EAGAIN);
    EXPECT_EQ(mapped.file.write(kMapped, block.bytes(), RWF_NOWAIT), EAGAIN);
    EXPECT_EQ(mapped.file.read(kMapped, block.bytes()), 0);
    EXPECT_EQ(remap_status(mapped.device).number("read_errors"), 0U);
}

// By io_uring, as nothing else polls. Requests of 20 KiB lie across both edges of the range as
// well.
void poll_all_over(const std::string& path) {
    ASSERT_EQ(queue_value(path, "io_poll"), "1");
    run_ok({"fio", "--name=poll", "--filename=" + path, "--ioengine=io_uring", "--hipri",
            "--direct=1", "--rw=randwrite", "--bs=20k", "--iodepth=8", "--size=3m",
            "--verify=crc32c", "--verify_fatal=1", "--minimal", "--thread", "--randseed=1"});
}

TEST(OddSpare, WithoutPollingIsReadAndWrittenByThoseWhoPoll) {
    if (has_lockdep()) {
        GTEST_SKIP() << "null_blk allocates memory that may sleep while it is polled, under RCU";
    }
    const NullBlk main({.size_mb = 16, .poll_queues = 1});
    const NullBlk disk({.size_mb = 16});
    const DmDevice spare("spare", delay(disk.path()));
    const Mapped mapped(main.path(), spare.path());
    poll_all_over(mapped.device.path());
}

// dm marks a polled request that it cuts, and hands that mark to the rest. Another dm device below
// would take it for its own.
TEST(OddSpare, BesideADmDeviceIsReadAndWrittenByThoseWhoPoll) {
    if (has_lockdep()) {
        GTEST_SKIP() << "null_blk allocates memory that may sleep while it is polled, under RCU";
    }
    const NullBlk disk({.size_mb = 16, .poll_queues = 1});
    const DmDevice main("main", {{0, 32768, "linear", disk.path() + " 0"}});
    const NullBlk spare({.size_mb = 16});
    const Mapped mapped(main.path(), spare.path());
    poll_all_over(mapped.device.path());
}

// The worker does it as a whole, and waits for all that is on its way, but not for this one.
TEST(OddSpare, PolledWriteAcrossItsEdgeIsMoved) {
    if (has_lockdep()) {
        GTEST_SKIP() << "null_blk allocates memory that may sleep while it is polled, under RCU";
    }
    NullBlk main({.size_mb = 16, .poll_queues = 1});
    const NullBlk spare({.size_mb = 16});
    const Mapped mapped(main.path(), spare.path());
    main.add_bad(kMapped - 16, 16);  // no block of it that main takes: another is asked, and held
    run_ok({"fio", "--name=poll", "--filename=" + mapped.device.path(), "--ioengine=io_uring",
            "--hipri", "--direct=1", "--rw=write", "--bs=20k", "--size=20k",
            "--offset=" + std::to_string((kMapped - 16) * kSector), "--verify=crc32c",
            "--verify_fatal=1", "--minimal", "--thread"});
    EXPECT_EQ(remap_status(mapped.device).number("remapped"), kCount + 16);
}

TEST(OddSpare, WithoutWriteZeroesIsWrittenZeros) {
    const ScsiDebug main({"dev_size_mb=16", "lbpws=1", "lbpws10=1", "lbpu=1"});
    const NullBlk spare({.size_mb = 16});
    const Mapped mapped(main.path(), spare.path());
    const std::string most = queue_value(mapped.device.path(), "write_zeroes_max_bytes");
    ASSERT_NE(most, "0");
    ASSERT_EQ(mapped.file.punch_hole(kMapped + 8, 64), 0);
    ASSERT_EQ(mapped.file.punch_hole(kMapped - 16, 24), 0);
    EXPECT_TRUE(verify_zeroes(mapped.file, kMapped - 16, 24));
    EXPECT_TRUE(verify_zeroes(mapped.file, kMapped + 8, 64));
    EXPECT_TRUE(verify_pattern(mapped.file, kMapped + 72, kCount - 72, 1));
    EXPECT_EQ(queue_value(mapped.device.path(), "write_zeroes_max_bytes"), most);
    EXPECT_EQ(remap_status(mapped.device).number("write_errors"), 0U);
}

// It offers discards, and would refuse the first as a command that it does not know. dm would take
// that for an answer of the whole mapped device.
TEST(OddSpare, ThatHasNoDiscardsAfterAllIsNotAskedForOne) {
    ScsiDebug spare({"dev_size_mb=16", "lbpu=1"});
    if (!spare.can_inject()) {
        GTEST_SKIP() << "scsi_debug of this kernel can't";
    }
    const NullBlk main({.size_mb = 16, .discard = true});
    const Mapped mapped(main.path(), spare.path());
    constexpr unsigned kUnmap = 0x42;
    spare.inject(kUnmap, {.status = 2, .key = 5, .code = 0x20});
    const std::string most = queue_value(mapped.device.path(), "discard_max_bytes");
    const std::string most_of_spare = queue_value(spare.path(), "discard_max_bytes");
    ASSERT_NE(most_of_spare, "0");
    EXPECT_EQ(mapped.file.discard(kMapped - 64, 128), 0);
    EXPECT_EQ(queue_value(spare.path(), "discard_max_bytes"), most_of_spare);
    EXPECT_EQ(queue_value(mapped.device.path(), "discard_max_bytes"), most);
    EXPECT_EQ(mapped.file.discard(0, kMapped + kCount), 0);
    EXPECT_TRUE(verify_zeroes(mapped.file, 0, kMapped));
    EXPECT_TRUE(verify_pattern(mapped.file, kMapped, kCount, 1));
    spare.end_injection(kUnmap);
}

// ---- a spare with a cache, under a main without one ----

TEST(OddSpare, WithACacheIsFlushed) {
    const NullBlk main({.size_mb = 16});
    CacheDisk spare(kSize);
    const Mapped mapped(main.path(), spare.path());
    ASSERT_FALSE(has_cache(main.path()));
    write_pattern(mapped.file, kMapped, 64, 2);
    ASSERT_EQ(mapped.file.flush(), 0);
    write_pattern(mapped.file, 0, 64, 3);
    spare.lose_cache();
    EXPECT_TRUE(verify_pattern(mapped.file, kMapped, 64, 2));
    EXPECT_TRUE(verify_pattern(mapped.file, 0, 64, 3));
}

// Nobody flushes a mapped device that has said it has no cache. So each write to the spare has to
// be durable by itself.
TEST(OddSpare, WithACacheSwitchedOnLaterLosesNothing) {
    const ScsiDebug main({"dev_size_mb=16", "lbpws=1", "lbpws10=1", "lbpu=1"});
    const auto scsi_disk = sys_block(main.path()) / "device" / "scsi_disk";
    write_value(fs::directory_iterator(scsi_disk)->path() / "cache_type", "write through");
    CacheDisk spare(kSize);
    set_queue(spare.path(), "write_cache", "write through");
    const Mapped mapped(main.path(), spare.path());
    ASSERT_FALSE(has_cache(mapped.device.path()));
    set_queue(spare.path(), "write_cache", "write back");
    write_pattern(mapped.file, kMapped, 64, 2);
    ASSERT_EQ(mapped.file.flush(), 0);
    ASSERT_EQ(mapped.file.write_zeroes(kMapped + 64, 64), 0);
    ASSERT_EQ(mapped.file.flush(), 0);
    spare.lose_cache();
    EXPECT_TRUE(verify_pattern(mapped.file, kMapped, 64, 2));
    EXPECT_TRUE(verify_zeroes(mapped.file, kMapped + 64, 64));
}

// ---- a spare that changes ----

TEST(Limits, ASpareWhoseLogicalBlockHasGrownIsNotResumed) {
    const LoopDevice main(kSize);
    const LoopDevice disk(kSize);
    const LoopDevice other(kSize, 4096);
    const auto linear = [](const LoopDevice& on) -> Table {
        return {{0, kSize / kSector, "linear", on.path() + " 0"}};
    };
    register_spare(disk.path());
    DmDevice spare("spare", linear(disk));
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    device.suspend();
    spare.reload(linear(other));
    EXPECT_THROW(device.resume(), DmError);
    spare.reload(linear(disk));
    device.resume();
    EXPECT_EQ(remap_status(device).mode, "rw");
}

}  // namespace
}  // namespace remap::vm

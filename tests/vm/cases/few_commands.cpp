// Commands that fail take a disk many seconds. How many does it cost until what is bad in a request
// is known? Counted where the block layer tells of them.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <optional>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"
#include "trace.h"
#include "within.h"

namespace remap::vm {
namespace {

struct Request {
    uint64_t sectors = 0;  // 0: one block of the media
    unsigned bad = 0;      // blocks of it
    unsigned read_retries = 0;
};
constexpr Request kRequests[] = {{0, 1, 3}, {2048, 1, 0}, {128, 2, 3}, {2048, 40, 0}};

// The places of that many bad blocks. The machine's own bad disks have just these (boot.sh).
constexpr uint64_t kStep = 16;
uint64_t first_bad(unsigned bad) {
    return bad == 1 ? 10248 : bad == 2 ? 18440 : 26632;
}

uint64_t media_block(const std::string& disk) {
    return std::stoull(read_value(sys_block(disk) / "queue/physical_block_size")) / kSector;
}

class FewCommands : public testing::Test {
  protected:
    // `main` is the disk, or something above it. One command more may fail for each further request
    // that the queue makes of one. As many are made of one that is good.
    static void expect_few(const std::string& main, const std::string& disk, const Request& request,
                           bool writes) {
        const uint64_t unit = media_block(main);
        const unsigned most = writes ? 3 : 1 + std::max(2U, 1 + request.read_retries);
        const Buffer buffer((request.sectors == 0 ? unit : request.sectors) * kSector);
        const LoopDevice spare(4 << 20);
        register_spare(spare.path());
        const DmDevice device(
            "remap", remap_table(main, spare.path(),
                                 {"format", "read_retries", std::to_string(request.read_retries)}));
        const BlockFile mapped(device.path());
        const auto ask = [&](uint64_t sector) {
            return writes ? mapped.write(sector, buffer.bytes())
                          : mapped.read(sector, buffer.bytes());
        };
        unsigned requests = 0;
        {
            const Trace issued("block/block_rq_issue", disk);
            ASSERT_EQ(ask(0), 0);
            requests = issued.count();
        }
        const Trace errors("block/block_rq_error", disk);
        EXPECT_EQ(ask(first_bad(request.bad) - request.sectors / 4), writes ? 0 : EIO);
        const unsigned failed = errors.count();
        const std::string what =
            fmt::format("{}: {} of {} sectors, {} bad, in {} requests: {} failed", disk,
                        writes ? "write" : "read", buffer.sectors(), request.bad, requests, failed);
        std::cout << what << '\n';
        EXPECT_GE(failed, request.bad + 1) << what;
        EXPECT_LE(failed, most * request.bad + requests - 1) << what;
        EXPECT_EQ(remap_status(device).number(writes ? "remapped" : "pending"), request.bad * unit)
            << what;
    }
    static void expect_few(const std::string& main, const std::string& disk) {
        for (const auto& request : kRequests) {
            expect_few(main, disk, request, false);
            expect_few(main, disk, request, true);
        }
    }
};

// scsi_debug has one range that fails, and writes to it never do.
TEST_F(FewCommands, OfScsiDebug) {
    for (const char* kind : {"sector_size=512", "physblk_exp=3", "sector_size=4096"}) {
        ScsiDebug main({"dev_size_mb=16", kind});
        const uint64_t block = BlockFile(main.path()).logical_block_size() / kSector;
        for (const auto& request : kRequests) {
            main.fail_reads(first_bad(request.bad) / block,
                            request.bad * media_block(main.path()) / block);
            expect_few(main.path(), main.path(), request, false);
        }
        main.fail_reads(0, 0);
    }
}

class BadNullBlk : public NullBlk {
  public:
    explicit BadNullBlk(unsigned block_size) : NullBlk({.size_mb = 16, .block_size = block_size}) {
        for (const unsigned bad : {1U, 2U, 40U}) {
            for (unsigned i = 0; i < bad; i++) {
                add_bad(first_bad(bad) + i * kStep, 1);
            }
        }
    }
};

TEST_F(FewCommands, OfNullBlk) {
    for (const unsigned block_size : {512U, 4096U}) {
        const BadNullBlk main(block_size);
        expect_few(main.path(), main.path());
    }
}

TEST_F(FewCommands, BelowAnotherDevice) {
    const BadNullBlk disk(512);
    const DmDevice main("main", {{0, 32768, "linear", disk.path() + " 0"}});
    expect_few(main.path(), disk.path());
}

TEST_F(FewCommands, OfVirtio) {
    for (const char* disk : {"bad-512n", "bad-512e", "bad-4Kn"}) {
        if (!std::filesystem::exists(std::string("/dev/disk/") + disk)) {
            GTEST_SKIP() << "the machine has no such disks";
        }
        expect_few(machine_disk(disk), machine_disk(disk));
    }
}

TEST_F(FewCommands, OfNvme) {
    if (!std::filesystem::exists("/dev/disk/bad-512n")) {
        GTEST_SKIP() << "the machine has no such disks";
    }
    if (run({"modprobe", "nvme"}).status != 0) {
        GTEST_SKIP() << "the kernel has no driver";
    }
    for (const char* disk : {"/dev/nvme0n1", "/dev/nvme0n2"}) {
        ASSERT_TRUE(
            within(std::chrono::seconds(10), [&] { return std::filesystem::exists(disk); }));
        expect_few(disk, disk);
    }
}

}  // namespace
}  // namespace remap::vm

// Pages that must not change while they are written. On a disk with T10 PI the kernel gives each
// sector a checksum, and the disk refuses a sector that has changed since. So a program that
// rewrites a page has to wait until the page is written, whichever of the two disks has PI.

#include <gmock/gmock.h>
#include <sys/mman.h>

#include <cstring>
#include <filesystem>
#include <stop_token>
#include <thread>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

constexpr size_t kPage = 4096;
constexpr size_t kBytes = 64 * kPage;
constexpr uint64_t kSize = 16 << 20;
// Such a disk takes a while, so that pages are on their way to it most of the time.
const std::vector<std::string> kProtected = {"dev_size_mb=16", "dif=1", "dix=1", "delay=1"};

struct Syncs {
    unsigned all = 0;
    unsigned failed = 0;
};

// Writes a device's first pages by fdatasync, again and again, while a thread rewrites them.
Syncs sync_while_rewritten(const std::string& path, std::chrono::seconds time) {
    const File device(path, O_RDWR);
    void* pages = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd(), 0);
    if (pages == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(), "mmap " + path);
    }
    Syncs syncs;
    {
        const std::jthread writer([pages](const std::stop_token& stop) {
            for (int value = 0; !stop.stop_requested(); value++) {
                std::memset(pages, value, kBytes);
            }
        });
        const auto end = std::chrono::steady_clock::now() + time;
        while (std::chrono::steady_clock::now() < end) {
            syncs.all++;
            syncs.failed += fdatasync(device.fd()) == 0 ? 0 : 1;
        }
    }
    munmap(pages, kBytes);
    return syncs;
}

void expect_stable_pages(const std::string& path) {
    const Syncs syncs = sync_while_rewritten(path, 4s);
    EXPECT_GT(syncs.all, 10U);
    EXPECT_EQ(syncs.failed, 0U) << "of " << syncs.all;
    testing::Test::RecordProperty("syncs", static_cast<int>(syncs.all));
}

// The mapped device takes no checksums from above: a request that came with some could end on a
// disk that has no room for them.
void expect_no_profile(const DmDevice& device) {
    const auto format = sys_block(device.path()) / "integrity" / "format";
    if (std::filesystem::exists(format)) {
        EXPECT_THAT(read_value(format), Not(HasSubstr("T10")));
    }
}

TEST(StablePages, OfMain) {
    const ScsiDebug main(kProtected);
    const LoopDevice spare(kSize);
    register_spare(spare.path());
    const DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    expect_no_profile(device);
    expect_stable_pages(device.path());
}

TEST(StablePages, OfTheSpare) {
    const LoopDevice main(kSize);
    const ScsiDebug spare(kProtected);
    register_spare(spare.path());
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    device.message("remap 0 " + std::to_string(kBytes / kSector));
    expect_no_profile(device);
    expect_stable_pages(device.path());
}

// Half of the pages are on either.
TEST(StablePages, OfBoth) {
    const ScsiDebug disks(kProtected, 2);
    register_spare(disks.path(1));
    DmDevice device("remap", remap_table(disks.path(0), disks.path(1), {"format"}));
    device.message("remap 0 " + std::to_string(kBytes / kSector / 2));
    expect_no_profile(device);
    expect_stable_pages(device.path());
}

// The test's own measure: the disk itself fails none, nor does a linear device over it.
TEST(StablePages, WithoutTheTarget) {
    const ScsiDebug disk(kProtected);
    expect_stable_pages(disk.path());
    const DmDevice linear("linear", {{0, kSize / kSector, "linear", disk.path() + " 0"}});
    expect_stable_pages(linear.path());
}

}  // namespace
}  // namespace remap::vm

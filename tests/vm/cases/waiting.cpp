// Nobody waits for somebody else's bad sector.

#include <gmock/gmock.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "backing.h"
#include "block.h"
#include "cache_disk.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"
#include "within.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;
using Answer = CacheDisk::Answer;
using Request = CacheDisk::Request;

constexpr uint64_t kSize = 64 << 20;
constexpr uint64_t kBlock = 8;
constexpr uint64_t kPending = 1000;
constexpr uint64_t kBad = 5000;
constexpr uint64_t kAlsoBad = 9000;
constexpr uint64_t kRegion = 8192;  // sectors: who waits for I/O waits for that of a region
// Of a disk whose commands fail slowly, one after the other.
constexpr auto kSlow = 1000ms;
// For all that is not the disk.
constexpr auto kRest = 700ms;

steady_clock::duration time_of(const std::function<void()>& what) {
    const auto begin = steady_clock::now();
    what();
    return steady_clock::now() - begin;
}

class Waiting : public testing::Test {
  protected:
    Waiting() { register_spare(spare_.path()); }
    ~Waiting() override { main_.release(); }

    // 0 or the errno.
    int write(uint64_t sector, uint64_t seed = 1) const {
        const Buffer buffer(kBlock * kSector);
        fill_pattern(buffer.bytes(), sector, seed);
        return mapped_.write(sector, buffer.bytes());
    }
    int read(uint64_t sector) const {
        const Buffer buffer(kBlock * kSector);
        return mapped_.read(sector, buffer.bytes());
    }

    CacheDisk main_{kSize};
    LoopDevice spare_{16 << 20};
    DmDevice device_{"remap", remap_table(main_.path(), spare_.path(), {"format"})};
    BlockFile mapped_{device_.path()};
};

// Of 32 readers one at a time asks main, and gives way to writes.
TEST_F(Waiting, WriteWaitsOnceForTheReadersOfAPendingSector) {
    main_.fail_slowly({kPending, kBad, kAlsoBad}, kSlow);
    ASSERT_EQ(read(kPending), EIO);
    const auto alone = time_of([&] { EXPECT_EQ(write(kAlsoBad), 0); });
    EXPECT_GE(alone, kSlow);
    std::vector<std::jthread> readers;
    std::atomic<unsigned> reads = 0;
    for (unsigned i = 0; i < 32; i++) {
        readers.emplace_back([&](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                EXPECT_EQ(read(kPending), EIO);
                reads++;
                std::this_thread::sleep_for(10ms);
            }
        });
    }
    std::this_thread::sleep_for(kSlow / 2);
    const auto beside = time_of([&] { EXPECT_EQ(write(kBad), 0); });
    EXPECT_LE(beside, 2 * alone + kRest);
    EXPECT_TRUE(within(10s, [&] { return reads >= 64; })) << "the answer of one serves the others";
    readers.clear();
    EXPECT_TRUE(verify_pattern(mapped_, kBad, kBlock, 1));
}

// Writes that wait are given back to dm, and done after the resume.
TEST_F(Waiting, SuspendWithoutFlushTakesOneCommand) {
    constexpr unsigned kWrites = 12;
    std::set<uint64_t> bad;
    for (unsigned i = 0; i < kWrites; i++) {
        bad.insert(kBad + 100 * i);
    }
    main_.fail_slowly(bad, kSlow / 4);
    std::vector<std::future<int>> writes;
    for (const uint64_t sector : bad) {
        writes.push_back(std::async(std::launch::async, [&, sector] { return write(sector); }));
    }
    // Each has failed, and main has nothing to do but for us.
    ASSERT_TRUE(within(30s, [&] { return main_.slow_failures() >= kWrites; }));
    main_.fail_slowly(bad, kSlow);
    const auto took = time_of([&] { device_.suspend(DmDevice::Suspend::kNoFlush); });
    EXPECT_LE(took, 4 * kSlow + 1s);  // each worker has a command on the way, one after the other
    main_.fail_slowly({}, {});
    device_.resume();
    for (auto& w : writes) {
        EXPECT_EQ(w.get(), 0);
    }
    for (const uint64_t sector : bad) {
        EXPECT_TRUE(verify_pattern(mapped_, sector, kBlock, 1));
    }
}

// The place of a file's first block on its device, in sectors.
uint64_t place_of(const BlockFile& file) {
    alignas(fiemap) std::array<std::byte, sizeof(fiemap) + sizeof(fiemap_extent)> memory{};
    auto* map = new (memory.data()) fiemap{};
    map->fm_length = kBlock * kSector;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = 1;
    if (ioctl(file.fd(), FS_IOC_FIEMAP, map) != 0 || map->fm_mapped_extents != 1) {
        throw std::system_error(errno, std::generic_category(), "fiemap");
    }
    return map->fm_extents[0].fe_physical / kSector;
}

// Dirty pages of a file system whose blocks are bad: a suspend without flush, another table, and no
// file minds.
TEST_F(Waiting, PagesOfAFileSystemAreWrittenAfterTheResume) {
    constexpr unsigned kFiles = 12;
    run({"modprobe", "-q", "ext4"});
    if (read_value("/proc/filesystems").find("\text4") == std::string::npos) {
        GTEST_SKIP() << "this kernel has no ext4";
    }
    run_ok({"mkfs.ext4", "-q", "-F", "-b", "4096", device_.path()});
    run_ok({"mount", "-t", "ext4", device_.path(), "/mnt"});
    std::vector<BlockFile> files;
    std::set<uint64_t> bad;
    for (unsigned i = 0; i < kFiles; i++) {
        files.emplace_back("/mnt/" + std::to_string(i), O_RDWR | O_CREAT);
        const Buffer old(kBlock * kSector);
        ASSERT_EQ(files[i].write(0, old.bytes()), 0);
        ASSERT_EQ(files[i].flush(), 0);
        bad.insert(place_of(files[i]));
    }
    ASSERT_EQ(bad.size(), kFiles);
    main_.fail_slowly(bad, kSlow / 4);
    const Buffer data(kBlock * kSector);
    for (unsigned i = 0; i < kFiles; i++) {
        fill_pattern(data.bytes(), i, 2);
        ASSERT_EQ(files[i].write(0, data.bytes()), 0);
    }
    auto synced = std::async(std::launch::async, [&] { return syncfs(files[0].fd()); });
    ASSERT_TRUE(within(30s, [&] { return main_.slow_failures() >= kFiles; }));
    device_.suspend(DmDevice::Suspend::kNoFlush);
    device_.load(remap_table(main_.path(), spare_.path()));
    device_.resume();
    EXPECT_EQ(synced.get(), 0);
    for (const BlockFile& file : files) {
        EXPECT_EQ(file.flush(), 0) << file.path();
    }
    EXPECT_EQ(remap_status(device_).number("remapped"), kFiles);
    write_value("/proc/sys/vm/drop_caches", "3");
    const Buffer got(kBlock * kSector);
    for (unsigned i = 0; i < kFiles; i++) {
        EXPECT_EQ(files[i].read(0, got.bytes()), 0);
        fill_pattern(data.bytes(), i, 2);
        EXPECT_TRUE(std::ranges::equal(got.bytes(), data.bytes())) << i;
    }
    files.clear();
    run_ok({"umount", "/mnt"});
    run_ok({"e2fsck", "-f", "-n", device_.path()});
    main_.fail_slowly({}, {});
}

// Reads of what is bad are given up, writes are done.
TEST_F(Waiting, SuspendWithFlushDoesTheWrites) {
    main_.fail_slowly({kPending, kBad}, kSlow / 2);
    ASSERT_EQ(read(kPending), EIO);
    std::this_thread::sleep_for(3s);
    std::vector<std::future<int>> reads;
    for (unsigned i = 0; i < 8; i++) {
        reads.push_back(std::async(std::launch::async, [&] { return read(kPending); }));
    }
    auto bad = std::async(std::launch::async, [&] { return write(kBad); });
    std::this_thread::sleep_for(kSlow / 4);
    const auto took = time_of([&] { device_.suspend(DmDevice::Suspend::kFlush); });
    EXPECT_LE(took, 3 * kSlow + 1s);
    EXPECT_EQ(bad.get(), 0);
    for (auto& r : reads) {
        EXPECT_EQ(r.get(), EIO);
    }
    main_.fail_slowly({}, {});
    device_.resume();
    EXPECT_TRUE(verify_pattern(mapped_, kBad, kBlock, 1));
}

// A write is on its way that main does not end, as if it were parked in a queue.
TEST_F(Waiting, OtherRangesDoNotWaitForAWriteThatIsParked) {
    constexpr uint64_t kParked = 3 * kRegion + 800;
    main_.direct([](const Request& r) {
        return r.flush                ? Answer::kDo
               : r.sector == kParked  ? Answer::kHold
               : r.sector == kBad     ? Answer::kFail
               : r.sector == kAlsoBad ? Answer::kFail
                                      : Answer::kDo;
    });
    auto parked = std::async(std::launch::async, [&] { return write(kParked); });
    main_.wait_for_held(1);
    const std::string range = "remap " + std::to_string(kParked) + " 8";
    const pid_t child = fork();
    if (child == 0) {
        _exit(message_error(device_, range));
    }
    std::this_thread::sleep_for(300ms);
    EXPECT_LE(time_of([&] { EXPECT_EQ(write(kBad), 0); }), 2s);
    EXPECT_LE(time_of([&] { EXPECT_EQ(message_error(device_, "remap 70000 8"), 0); }), 2s);
    EXPECT_LE(time_of([&] { EXPECT_EQ(write(kAlsoBad), 0); }), 2s);
    EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "it waits for the write";
    kill(child, SIGKILL);
    EXPECT_TRUE(within(2s, [&] { return waitpid(child, nullptr, WNOHANG) == child; }));
    main_.release();
    EXPECT_EQ(parked.get(), 0);
    EXPECT_EQ(message_error(device_, range), 0);
    EXPECT_TRUE(verify_pattern(mapped_, kParked, kBlock, 1));
}

// The spare takes I/O and does not answer, as a thin pool that waits for room. Writes that need it
// keep two workers, and a save has its lock.
TEST(WaitingForTheSpare, IsForThatWhichGoesThere) {
    const std::set<uint64_t> bad{kPending, kBad, kBad + 100, kBad + 200, kAlsoBad};
    const LoopDevice disk(16 << 20);
    DmDevice below("below", {{0, 32768, "linear", disk.path() + " 0"}});
    CacheDisk main(kSize);
    register_spare(disk.path());
    DmDevice device("remap", remap_table(main.path(), below.path(), {"format"}));
    const BlockFile mapped(device.path());
    const auto write = [&](uint64_t sector) {
        const Buffer buffer(kBlock * kSector);
        fill_pattern(buffer.bytes(), sector, 1);
        return mapped.write(sector, buffer.bytes());
    };
    const auto read = [&](uint64_t sector) {
        const Buffer buffer(kBlock * kSector);
        return mapped.read(sector, buffer.bytes());
    };
    main.fail_slowly(bad, 10ms);
    ASSERT_EQ(write(kBad), 0);
    below.suspend();
    std::vector<std::future<int>> parked;
    for (const uint64_t sector : {kBad + 100, kBad + 200}) {
        parked.push_back(std::async(std::launch::async, [&, sector] { return write(sector); }));
    }
    parked.push_back(std::async(std::launch::async, [&] { return read(kBad); }));
    parked.push_back(std::async(std::launch::async, [&] { return message_error(device, "save"); }));
    std::this_thread::sleep_for(1s);
    for (const uint64_t sector : {kPending, kAlsoBad, kPending, kAlsoBad}) {
        auto answer = std::async(std::launch::async, [&, sector] { return read(sector); });
        EXPECT_EQ(answer.wait_for(5s), std::future_status::ready) << sector;
        parked.push_back(std::move(answer));
    }
    EXPECT_LE(time_of([&] { EXPECT_EQ(read(20000), 0); }), 2s);
    EXPECT_LE(time_of([&] { EXPECT_EQ(write(20000), 0); }), 2s);
    below.resume();
    for (size_t i = 0; i < parked.size(); i++) {
        EXPECT_EQ(parked[i].get(), i < 4 ? 0 : EIO) << i;
    }
    EXPECT_TRUE(within(10s, [&] { return remap_status(device).number("pending") == 2; }));
    main.fail_slowly({}, {});
    EXPECT_TRUE(verify_pattern(mapped, kBad + 100, kBlock, 1));
}

}  // namespace
}  // namespace remap::vm

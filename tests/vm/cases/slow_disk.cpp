// A write that fails, and takes long to: is it one that timed out? Not because it waited for
// others.

#include <gmock/gmock.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <future>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "backing.h"
#include "block.h"
#include "cache_disk.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "kernel_log.h"
#include "remap.h"
#include "within.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using Answer = CacheDisk::Answer;
using Request = CacheDisk::Request;

constexpr uint64_t kSize = 16 << 20;
constexpr uint64_t kBad = 1000;
constexpr uint64_t kOther = 5000;
constexpr uint64_t kBlock = 8;

// Of the disk, and of its queue.
constexpr const char* kInFlight = "/sys/block/nbd0/inflight";
constexpr const char* kLargest = "/sys/block/nbd0/queue/max_sectors_kb";
constexpr const char* kCache = "/sys/block/nbd0/queue/write_cache";
constexpr const char* kDepth = "/sys/block/nbd0/queue/nr_requests";
constexpr const char* kIoTimeout = "/sys/block/nbd0/queue/io_timeout";  // in ms

constexpr std::chrono::milliseconds kTimeout = 6s;
constexpr auto kLong = kTimeout / 2;  // more than the third of it
constexpr auto kTooLong = kTimeout * 4 / 3;

// Why a case that changes nr_requests has to be skipped where there is lockdep.
constexpr const char* kLockedOut =
    "a change of nr_requests and nbd's socket lock each other out, says lockdep";

// A file of sysfs that has another value for a while.
class Setting {
  public:
    Setting(std::string path, const std::string& value)
        : path_(std::move(path)), before_(read_value(path_)) {
        write_value(path_, value);
    }
    ~Setting() { write_value(path_, before_); }
    Setting(const Setting&) = delete;
    Setting& operator=(const Setting&) = delete;

  private:
    std::string path_;
    std::string before_;
};

// Holds up all that is new to the queue, until it has nothing to do any more.
class FrozenQueue {
  public:
    FrozenQueue()
        : thread_([this] {
              thread_id_ = gettid();
              const Setting freezes(kDepth, "16");
          }) {
        within(10s, [this] { return waits(); });
    }
    ~FrozenQueue() { thread_.join(); }
    FrozenQueue(const FrozenQueue&) = delete;
    FrozenQueue& operator=(const FrozenQueue&) = delete;

  private:
    bool waits() const {
        std::ifstream file("/proc/self/task/" + std::to_string(thread_id_) + "/stat");
        const std::string line{std::istreambuf_iterator<char>(file), {}};
        const size_t name = line.rfind(") ");
        return name != std::string::npos && line[name + 2] == 'D';
    }

    std::atomic<pid_t> thread_id_ = 0;
    std::thread thread_;
};

// The main or the spare is one that a case directs, and its commands have a shorter time-out.
class SlowDisk : public testing::Test {
  protected:
    void map(const std::string& main, const std::string& spare) {
        register_spare(spare);
        device_.emplace("remap", remap_table(main, spare, {"format"}));
    }
    // 0 or the errno.
    std::future<int> write(uint64_t sector, uint64_t count) const {
        return std::async(std::launch::async, [this, sector, count] {
            const Buffer buffer(count * kSector);
            fill_pattern(buffer.bytes(), sector, 1);
            return BlockFile(device_->path()).write(sector, buffer.bytes());
        });
    }
    void expect_moved() {
        EXPECT_THAT(remap_brief(*device_), ElementsAre("1000 1 mapped write_error"));
        EXPECT_TRUE(verify_pattern(BlockFile(device_->path()), kBad, kBlock, 1));
    }

    CacheDisk disk_{kSize};
    const Setting timeout_{kIoTimeout, std::to_string(kTimeout.count())};
    std::optional<DmDevice> device_;
};

class SlowMain : public SlowDisk {
  protected:
    SlowMain() { map(disk_.path(), spare_.path()); }
    ~SlowMain() override {
        device_.reset();
        disk_.release();
    }

    // Writes to the bad sector fail, the first one at once, the next `slow` after some time.
    void fail(std::chrono::milliseconds time, unsigned slow) {
        disk_.direct([this, time, slow](const Request& request) {
            if (request.sector != kBad) {
                return Answer::kDo;
            }
            if (request.number > 1 && request.number <= 1 + slow) {
                std::this_thread::sleep_for(time);
            }
            writes_ = request.number;
            return Answer::kFail;
        });
    }
    void expect_nothing_after(unsigned writes) {
        EXPECT_EQ(writes_, writes);
        EXPECT_THAT(remap_brief(*device_), ElementsAre());
    }

    LoopDevice spare_{kSize};
    std::atomic<unsigned> writes_ = 0;  // to the bad sector
};

// The time that it takes until there is room in the queue is not the disk's.
TEST_F(SlowMain, WaitsForItsQueue) {
    if (has_lockdep()) {
        GTEST_SKIP() << kLockedOut;
    }
    std::future<int> other;
    std::optional<FrozenQueue> frozen;
    disk_.direct([&](const Request& request) {
        if (request.sector == kBad && request.number == 1) {
            other = write(kOther, kBlock);
            within(10s, [] { return read_value(kInFlight).ends_with(" 2"); });
            frozen.emplace();
        }
        if (request.sector == kOther) {
            std::this_thread::sleep_for(kTooLong);
        }
        return request.sector == kBad ? Answer::kFail : Answer::kDo;
    });
    EXPECT_EQ(write(kBad, kBlock).get(), 0);
    EXPECT_EQ(other.get(), 0);
    frozen.reset();
    disk_.release();
    expect_moved();
}

// One try may take long, if it ends before a command would time out.
TEST_F(SlowMain, WaitsOnceInTheDisk) {
    fail(kLong, 1);
    EXPECT_EQ(write(kBad, kBlock).get(), 0);
    disk_.release();
    expect_moved();
}

TEST_F(SlowMain, TakesLongEachTime) {
    fail(kLong, 100);
    EXPECT_EQ(write(kBad, kBlock).get(), ETIMEDOUT);
    expect_nothing_after(3);
}

TEST_F(SlowMain, TimesOut) {
    fail(kTooLong, 1);
    EXPECT_EQ(write(kBad, kBlock).get(), ETIMEDOUT);
    expect_nothing_after(2);
}

// The queue has no room for all its parts, of which the first one times out.
TEST_F(SlowMain, TimesOutInParts) {
    if (has_lockdep()) {
        GTEST_SKIP() << kLockedOut;
    }
    const Setting few(kDepth, "4");
    const Setting small(kLargest, "16");
    fail(kTooLong, 1);
    EXPECT_EQ(write(kBad, 8 * 32).get(), ETIMEDOUT);
    expect_nothing_after(2);
}

// What goes there is written with FUA, which is no flush on a disk without a cache. What waits is
// tried once more, as a whole and by the block.
TEST_F(SlowDisk, IsTheSpare) {
    const Setting no_cache(kCache, "write through");
    NullBlk main;
    main.add_bad(kBad, 1);
    map(main.path(), disk_.path());
    std::atomic<unsigned> requests = 0;
    disk_.direct([&](const Request&) {
        if (++requests > 2) {
            return Answer::kDo;
        }
        std::this_thread::sleep_for(kLong);
        return Answer::kFail;
    });
    EXPECT_EQ(write(kBad, kBlock).get(), 0);
    disk_.release();
    expect_moved();
    device_.reset();
}

}  // namespace
}  // namespace remap::vm

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
#include "remap.h"

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
constexpr const char* kDepth = "/sys/block/nbd0/queue/nr_requests";
constexpr const char* kIoTimeout = "/sys/block/nbd0/queue/io_timeout";  // in ms

constexpr std::chrono::milliseconds kTimeout = 3s;
constexpr auto kLong = kTimeout / 2;  // more than the third of it
constexpr auto kTooLong = kTimeout * 4 / 3;

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
        while (!waits()) {
            std::this_thread::sleep_for(10ms);
        }
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

class SlowMain : public testing::Test {
  protected:
    SlowMain() { register_spare(spare_.path()); }

    std::future<int> write(uint64_t sector) {
        return std::async(std::launch::async, [this, sector] {
            const Buffer buffer(kBlock * kSector);
            fill_pattern(buffer.bytes(), sector, 1);
            return BlockFile(device_.path()).write(sector, buffer.bytes());
        });
    }
    void expect_moved() {
        EXPECT_THAT(remap_brief(device_), ElementsAre("1000 1 mapped write_error"));
        EXPECT_TRUE(verify_pattern(BlockFile(device_.path()), kBad, kBlock, 1));
    }

    CacheDisk main_{kSize};
    LoopDevice spare_{kSize};
    const Setting timeout_{kIoTimeout, std::to_string(kTimeout.count())};
    DmDevice device_{"remap", remap_table(main_.path(), spare_.path(), {"format"})};
};

// The time that it takes until there is room in the queue is not the disk's.
TEST_F(SlowMain, WaitsForItsQueue) {
    std::future<int> other;
    std::optional<FrozenQueue> frozen;
    main_.direct([&](const Request& request) {
        if (request.sector == kBad && request.number == 1) {
            other = write(kOther);
            while (read_value(kInFlight).back() != '2') {
                std::this_thread::sleep_for(10ms);
            }
            frozen.emplace();
        }
        if (request.sector == kOther) {
            std::this_thread::sleep_for(kTooLong);
        }
        return request.sector == kBad ? Answer::kFail : Answer::kDo;
    });
    EXPECT_EQ(write(kBad).get(), 0);
    EXPECT_EQ(other.get(), 0);
    frozen.reset();
    main_.release();
    expect_moved();
}

// Nor is one try that takes long; if it ends before a command would time out.
TEST_F(SlowMain, WaitsOnceInTheDisk) {
    main_.direct([](const Request& request) {
        if (request.sector != kBad) {
            return Answer::kDo;
        }
        if (request.number == 2) {
            std::this_thread::sleep_for(kLong);
        }
        return Answer::kFail;
    });
    EXPECT_EQ(write(kBad).get(), 0);
    main_.release();
    expect_moved();
}

TEST_F(SlowMain, TakesLongEachTime) {
    main_.direct([](const Request& request) {
        if (request.sector != kBad) {
            return Answer::kDo;
        }
        if (request.number > 1) {
            std::this_thread::sleep_for(kLong);
        }
        return Answer::kFail;
    });
    EXPECT_EQ(write(kBad).get(), ETIMEDOUT);
    main_.wait_for_writes(kBad, 3);
    main_.release();
    EXPECT_THAT(remap_brief(device_), ElementsAre());
}

}  // namespace
}  // namespace remap::vm

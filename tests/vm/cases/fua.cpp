// On a disk without FUA a write that has it is one with a flush behind it, and a flush is of all
// that is in the cache. What is lost then is told once, to whichever flush that was.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include <future>
#include <optional>
#include <string>

#include "backing.h"
#include "block.h"
#include "cache_disk.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;
using Answer = CacheDisk::Answer;
using Request = CacheDisk::Request;

constexpr uint64_t kSize = 16 << 20;
constexpr uint64_t kA = 1000;
constexpr uint64_t kB = 5000;
constexpr uint64_t kBlock = 8;

// Of the writes of A the first fails, which brings it to the worker; flushes are held.
auto hold_flushes(Answer second_a = Answer::kDo) {
    return [second_a](const Request& request) {
        if (request.sector == kA) {
            return request.number == 1 ? Answer::kFail : second_a;
        }
        return request.flush ? Answer::kHold : Answer::kDo;
    };
}

class Fua : public testing::Test {
  protected:
    Fua() { register_spare(spare_.path()); }

    void map_over_linear() {
        linear_.emplace("linear", Table{{0, kSize / kSector, "linear", disk_.path() + " 0"}});
        map(linear_->path());
    }
    void map(const std::string& main) {
        device_.emplace("remap", remap_table(main, spare_.path(), {"format"}));
        mapped_.emplace(device_->path());
        write_pattern(*mapped_, kA, kBlock, 1);
        write_pattern(*mapped_, kB, kBlock, 1);
        ASSERT_EQ(mapped_->flush(), 0);
    }

    // A write with FUA, in a thread of its own: 0 or the errno.
    std::future<int> write(uint64_t sector, uint64_t seed) {
        return std::async(std::launch::async, [this, sector, seed] {
            const Buffer buffer(kBlock * kSector);
            fill_pattern(buffer.bytes(), sector, seed);
            return mapped_->write(sector, buffer.bytes(), RWF_DSYNC);
        });
    }

    // Both writes are on the disk itself, and main was not given up for any of it.
    void expect_both_durable(uint64_t seed) {
        disk_.lose_cache();
        EXPECT_TRUE(verify_pattern(*mapped_, kA, kBlock, seed));
        EXPECT_TRUE(verify_pattern(*mapped_, kB, kBlock, seed));
        EXPECT_THAT(remap_brief(*device_), ElementsAre());
    }

    CacheDisk disk_{kSize};
    LoopDevice spare_{kSize};
    std::optional<DmDevice> linear_;
    std::optional<DmDevice> device_;
    std::optional<BlockFile> mapped_;
};

// A is being done over, without FUA and to be flushed. Before that flush another one, behind B,
// finds that A cannot be kept, and tells B.
TEST_F(Fua, LossOfAWriteOfOursIsToldToAnother) {
    map(disk_.path());
    disk_.direct(hold_flushes(Answer::kHold));
    auto a = write(kA, 2);
    disk_.wait_for_held(1);
    auto b = write(kB, 2);
    disk_.wait_for_held(2);
    disk_.lose(kA);
    disk_.release();
    EXPECT_EQ(a.get(), 0);
    EXPECT_EQ(b.get(), 0);
    expect_both_durable(2);
}

// The same through a device that is made of others, where the write keeps its FUA, and the flush
// behind it is one that nobody sees.
TEST_F(Fua, LossOfAWriteOfOursBeneathAnotherDevice) {
    map_over_linear();
    disk_.direct(hold_flushes());
    auto b = write(kB, 2);
    disk_.wait_for_held(1);
    auto a = write(kA, 2);
    disk_.wait_for_writes(kA, 2);
    disk_.lose(kA);
    disk_.release();
    EXPECT_EQ(a.get(), 0);
    EXPECT_EQ(b.get(), 0);
    expect_both_durable(2);
}

// A flush of ours finds that B cannot be kept. The one behind B has nothing to find any more. And
// A, for which ours was, is not to blame.
TEST_F(Fua, LossOfAWriteIsToldToAFlushOfOurs) {
    map(disk_.path());
    disk_.direct(hold_flushes());
    auto a = write(kA, 2);
    disk_.wait_for_held(1);
    auto b = write(kB, 2);
    disk_.wait_for_writes(kB, 1);
    disk_.lose(kB);
    disk_.release();
    // After a write with FUA to a block device comes a flush from above; the first hears of it.
    a.get();
    b.get();
    expect_both_durable(2);
}

}  // namespace
}  // namespace remap::vm

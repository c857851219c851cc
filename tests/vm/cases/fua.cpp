// A flush is of all that is in a disk's cache. What is lost then is told once, to whichever flush
// that was; and on a disk without FUA a write that has it is one with a flush behind it.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include <future>
#include <optional>
#include <string>
#include <vector>

#include "backing.h"
#include "block.h"
#include "cache_disk.h"
#include "core.h"
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

class FuaOfTheSpare : public testing::Test {
  protected:
    FuaOfTheSpare() {
        register_spare(spare_.path());
        device_.emplace("remap", remap_table(main_.path(), spare_.path(), {"format"}));
        mapped_.emplace(device_->path());
        device_->message("remap " + std::to_string(kA) + " " + std::to_string(kBlock));
        spare_sector_ = std::stoull(remap_list(*device_).at(0).spare);
    }

    std::future<int> write(uint64_t seed, int flags) {
        return std::async(std::launch::async, [this, seed, flags] {
            const Buffer buffer(kBlock * kSector);
            fill_pattern(buffer.bytes(), kA, seed);
            return mapped_->write(kA, buffer.bytes(), flags);
        });
    }

    std::future<int> save() {
        return std::async(std::launch::async, [this] { return message_error(*device_, "save"); });
    }

    // Where the next save will write the table: of each copy the first sector.
    std::vector<uint64_t> next_tables() {
        const Buffer block(DM_REMAP_BLOCK_SIZE);
        dm_remap_super super{};
        EXPECT_EQ(BlockFile(spare_.path()).read(0, block.bytes()), 0);
        EXPECT_EQ(dm_remap_super_decode(&super, block.bytes().data(), 0), DM_REMAP_VALID);
        std::vector<uint64_t> sectors;
        for (int replica = 0; replica < DM_REMAP_REPLICAS; replica++) {
            sectors.push_back(dm_remap_table_at(&super.layout, replica, !super.active_table) *
                              DM_REMAP_BLOCK_SECTORS);
        }
        return sectors;
    }

    const LoopDevice main_{kSize};
    CacheDisk spare_{kSize};
    std::optional<DmDevice> device_;
    std::optional<BlockFile> mapped_;
    uint64_t spare_sector_ = 0;
};

// The flush of a save finds that A, which the disk has taken and not said so, cannot be kept.
TEST_F(FuaOfTheSpare, LossBeforeAWriteIsAnsweredIsToldToTheNextFlush) {
    spare_.direct([this](const Request& request) {
        return request.sector == spare_sector_ ? Answer::kDoAndHold : Answer::kDo;
    });
    auto a = write(2, 0);
    spare_.wait_for_held(1);
    spare_.lose(spare_sector_);
    EXPECT_EQ(message_error(*device_, "save"), 0);  // at its second try
    spare_.release();
    EXPECT_EQ(a.get(), 0);
    EXPECT_EQ(mapped_->flush(), EIO);
    EXPECT_EQ(mapped_->flush(), 0);
}

// The flush of a save finds that A cannot be kept. The one behind A has nothing to find any more.
TEST_F(FuaOfTheSpare, LossOfAWriteIsToldToASave) {
    spare_.direct(
        [](const Request& request) { return request.flush ? Answer::kHold : Answer::kDo; });
    auto saved = save();
    spare_.wait_for_held(1);
    auto a = write(2, RWF_DSYNC);
    spare_.wait_for_writes(spare_sector_, 1);
    spare_.lose(spare_sector_);
    spare_.release();
    EXPECT_EQ(saved.get(), 0);
    EXPECT_EQ(a.get(), 0);
    spare_.lose_cache();
    EXPECT_TRUE(verify_pattern(*mapped_, kA, kBlock, 2));
}

// The flush behind A finds that a block of the table, which a save has just written, cannot be kept
// in either copy. The one of the save has nothing to find any more.
TEST_F(FuaOfTheSpare, LossOfTheTableIsToldToAWrite) {
    const std::vector<uint64_t> tables = next_tables();
    spare_.direct(
        [](const Request& request) { return request.flush ? Answer::kHold : Answer::kDo; });
    auto a = write(2, RWF_DSYNC);
    spare_.wait_for_held(1);
    auto saved = save();
    for (const uint64_t table : tables) {
        spare_.wait_for_writes(table, 1);
        spare_.lose(table);
    }
    spare_.release();
    EXPECT_EQ(saved.get(), 0);
    EXPECT_EQ(a.get(), 0);
    spare_.lose_cache();
    // It goes without another save.
    spare_.direct([](const Request&) { return Answer::kFail; });
    mapped_.reset();
    device_.reset();
    spare_.direct(nullptr);
    device_.emplace("remap", remap_table(main_.path(), spare_.path()));
    mapped_.emplace(device_->path());
    EXPECT_TRUE(verify_pattern(*mapped_, kA, kBlock, 2));
}

}  // namespace
}  // namespace remap::vm

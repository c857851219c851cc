// Pending ranges that main reads again.
#include <gtest/gtest.h>

#include <cerrno>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kAt = 1024;
constexpr std::uint32_t kPause = 60;

class Recheck : public ::testing::Test {
  protected:
    void SetUp() override {
        world_ = formatted();
        md_ = open(*world_);
        (*md_)->policy.recheck_pause = kPause;
        mover_ = std::make_unique<Mover>(*md_);
        free_ = free_sectors();
        world_->main.on_read = [this](auto, auto) { reads_++; };
    }
    std::uint64_t free_sectors() { return dm_remap_alloc_free_sectors(&(*md_)->alloc); }
    void pend(std::uint64_t start, std::uint32_t length = 8,
              std::uint8_t reason = DM_REMAP_REASON_READ_ERROR) {
        dm_remap_record r = pending(start, length);
        r.reason = reason;
        ASSERT_EQ(md_->commit({r}), 0);
    }
    // Somebody reads it. Perhaps main has failed that once.
    void hint(std::uint64_t start = kAt, std::uint32_t length = 8, std::uint64_t failure = 0) {
        reads_ = 0;
        dm_remap_tried tried{failure, length};
        std::vector<std::uint8_t> data(length * kSector);
        dm_remap_redo_begin(mover_->get());
        result_ = dm_remap_redo_read(mover_->get(), start, length, data.data(), &tried);
        EXPECT_EQ(dm_remap_redo_end(mover_->get()), 0);
    }
    std::uint32_t recheck(std::uint64_t after) {
        world_->uptime += after;
        reads_ = 0;
        return dm_remap_recheck(mover_->get());
    }
    bool waits() { return dm_remap_later_any(md_->get()); }
    unsigned kind(std::uint64_t at = kAt) { return md_->lookup(at).kind; }
    std::uint64_t recovered() { return atomic64_read(&(*md_)->counter[DM_REMAP_RECOVERED]); }

    std::unique_ptr<World> world_;
    std::unique_ptr<Metadata> md_;
    std::unique_ptr<Mover> mover_;
    std::uint64_t free_ = 0;
    unsigned reads_ = 0;
    int result_ = 0;
};

TEST_F(Recheck, EndsTheRecordAfterThreeReadsAndAPause) {
    pend(kAt);
    hint();
    EXPECT_EQ(reads_, 1U);
    EXPECT_EQ(recheck(0), kPause);
    EXPECT_EQ(recheck(kPause - 1), 1U);
    EXPECT_EQ(reads_, 0U);
    EXPECT_EQ(kind(), DM_REMAP_PENDING);
    EXPECT_EQ(recheck(1), 0U);
    EXPECT_EQ(reads_, 2U);
    EXPECT_TRUE(md_->records().empty());
    EXPECT_TRUE(try_load(*world_).records.empty()) << "durable before it is shown";
    EXPECT_EQ(free_sectors(), free_);
    EXPECT_EQ(recovered(), 1U);
    ASSERT_FALSE(world_->notes.empty());
    EXPECT_EQ(world_->notes.back().what, DM_REMAP_NOTE_CLEARED);
    EXPECT_FALSE(waits());
}

TEST_F(Recheck, LeavesARecordThatFailsOneOfTheReads) {
    for (const unsigned fails : {1U, 2U}) {
        SetUp();
        pend(kAt);
        unsigned n = 0;
        world_->main.fail_read = [&](auto, auto) { return n++ == fails ? -EIO : 0; };
        hint();
        recheck(kPause);
        EXPECT_EQ(kind(), DM_REMAP_PENDING) << fails;
        EXPECT_FALSE(waits());
        // The next read from above begins anew.
        hint();
        EXPECT_EQ(recheck(kPause), 0U);
        EXPECT_EQ(kind(), DM_REMAP_NONE);
    }
}

// The reads are those since its last failure.
TEST_F(Recheck, BeginsAnewAfterAFailureBetweenThem) {
    pend(kAt);
    hint();
    EXPECT_TRUE(waits());
    hint(kAt + 7, 1, dm_remap_main_failed(md_->get(), DM_REMAP_READ));
    EXPECT_EQ(result_, 0);
    EXPECT_FALSE(waits());
    EXPECT_EQ(recheck(kPause), 0U);
    EXPECT_EQ(kind(), DM_REMAP_PENDING);
}

// Main took a write badly there: it holds something older.
TEST_F(Recheck, IsNotForFailedWrites) {
    pend(kAt, 8, DM_REMAP_REASON_WRITE_ERROR);
    hint();
    EXPECT_FALSE(waits());
}

TEST_F(Recheck, EndsWhatIsPendingOfTheRangeAlone) {
    pend(kAt, 64);
    ASSERT_EQ(md_->remap(kAt + 16, 8), 0);
    pend(kAt + 32, 8, DM_REMAP_REASON_WRITE_ERROR);
    for (std::uint64_t at = kAt + 16; at < kAt + 24; at++) {
        world_->main.bad_read.insert(at);
    }
    hint(kAt + 8, 48);
    EXPECT_EQ(recheck(kPause), 1U);
    EXPECT_EQ(recheck(0), 1U);
    EXPECT_EQ(recheck(0), 0U);
    EXPECT_EQ(md_->records(), (Records{{DM_REMAP_PENDING, kAt, 0, 8},
                                       {DM_REMAP_MAPPED, kAt + 16, md_->lookup(kAt + 16).spare, 8},
                                       {DM_REMAP_PENDING, kAt + 32, 0, 8},
                                       {DM_REMAP_PENDING, kAt + 56, 0, 8}}));
    EXPECT_EQ(recovered(), 3U);
}

TEST_F(Recheck, LooksAtOneRangeAtATime) {
    for (const std::uint64_t at : {kAt, 2 * kAt}) {
        pend(at);
        hint(at);
    }
    hint(kAt);  // it waits already
    EXPECT_EQ(recheck(kPause), 1U);
    EXPECT_EQ(md_->records().size(), 1U);
    EXPECT_EQ(recheck(0), 0U);
    EXPECT_TRUE(md_->records().empty());
}

TEST_F(Recheck, RemembersNoMoreThanItHasRoomFor) {
    for (unsigned i = 0; i <= DM_REMAP_LATER; i++) {
        pend(kAt + 16ULL * i);
        hint(kAt + 16ULL * i);
    }
    while (recheck(kPause) != 0) {
    }
    EXPECT_EQ(md_->records().size(), 1U);
}

TEST_F(Recheck, NeedsASpareThatTakesTheCommit) {
    pend(kAt);
    hint();
    world_->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_EQ(recheck(kPause), 0U);
    EXPECT_EQ(recovered(), 0U);
    EXPECT_EQ((*md_)->mode, DM_REMAP_MODE_RO);
    hint();
    EXPECT_FALSE(waits());
    world_->spare.on_write = nullptr;
    ASSERT_EQ(md_->checkpoint(), 0);
    EXPECT_EQ(try_load(*world_).records, md_->records());
}

}  // namespace
}  // namespace remap

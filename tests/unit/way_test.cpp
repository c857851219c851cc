// The way of I/O from above: dm-remap-way.h.

#include <gtest/gtest.h>

#include <array>
#include <memory>

#include "rig.h"

namespace remap {
namespace {

constexpr std::array kNoAdvice = {DM_REMAP_IO_READ, DM_REMAP_IO_WRITE, DM_REMAP_IO_ZEROES};
constexpr std::array kKinds = {DM_REMAP_IO_READ, DM_REMAP_IO_WRITE, DM_REMAP_IO_ZEROES,
                               DM_REMAP_IO_DISCARD};

// Sectors 100 + 8 live on the spare, 200 + 8 are pending.
class Way : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(md_->remap(100, 8), 0);
        ASSERT_EQ(md_->commit({pending(200, 8)}), 0);
    }

    dm_remap_way way(dm_remap_kind_of_io kind, std::uint64_t sector, std::uint64_t sectors = 8) {
        return dm_remap_find_way(md_->get(), kind, sector, sectors, &extent_);
    }

    void mark(unsigned flags, std::uint64_t sector, std::uint64_t sectors) {
        dm_remap_update u{};
        dm_remap_update_init(&u);
        ASSERT_EQ(
            dm_remap_update_flags(&(*md_)->table, &u, sector, sectors, static_cast<u16>(flags), 0),
            0);
        dm_remap_update_publish(&(*md_)->table, &u);
    }

    std::unique_ptr<World> world_ = formatted();
    std::unique_ptr<Metadata> md_ = open(*world_);
    dm_remap_extent extent_{};
};

TEST_F(Way, WithoutARecordIsMain) {
    for (const auto kind : kKinds) {
        EXPECT_EQ(way(kind, 3000), DM_REMAP_WAY_MAIN);
        EXPECT_EQ(extent_.length, 8);
    }
}

TEST_F(Way, EndsWhereTheAnswerChanges) {
    EXPECT_EQ(way(DM_REMAP_IO_READ, 96, 16), DM_REMAP_WAY_MAIN);
    EXPECT_EQ(extent_.length, 4);
    EXPECT_EQ(way(DM_REMAP_IO_READ, 100, 16), DM_REMAP_WAY_SPARE);
    EXPECT_EQ(extent_.length, 8);
    EXPECT_EQ(extent_.spare, md_->lookup(100).spare);
}

TEST_F(Way, OfARecordIsTheSpareButForZeros) {
    EXPECT_EQ(way(DM_REMAP_IO_READ, 100), DM_REMAP_WAY_SPARE);
    EXPECT_EQ(way(DM_REMAP_IO_WRITE, 100), DM_REMAP_WAY_SPARE);
    EXPECT_EQ(way(DM_REMAP_IO_ZEROES, 100), DM_REMAP_WAY_WORKER);
}

// Held, in doubt, or on a spare that is not trusted. The rest of it, without a record, goes to
// main.
TEST_F(Way, OfADiscardIsNeverTheSpareNorTheWorker) {
    const auto answered_at_once = [&](std::uint64_t sector) {
        const bool answered = way(DM_REMAP_IO_DISCARD, sector) == DM_REMAP_WAY_ANSWERED;
        return answered && !dm_remap_way_counts(DM_REMAP_WAY_ANSWERED, DM_REMAP_IO_DISCARD);
    };
    EXPECT_TRUE(answered_at_once(100));
    (*md_)->policy.verify_spare_writes = true;
    EXPECT_TRUE(answered_at_once(100));
    EXPECT_EQ(way(DM_REMAP_IO_DISCARD, 96, 16), DM_REMAP_WAY_MAIN);
    EXPECT_EQ(extent_.length, 4);
    EXPECT_EQ(way(DM_REMAP_IO_DISCARD, 100, 16), DM_REMAP_WAY_ANSWERED);
    EXPECT_EQ(extent_.length, 8);
    mark(DM_REMAP_F_HELD, 100, 8);
    mark(DM_REMAP_F_HELD, 300, 8);
    mark(DM_REMAP_F_DOUBT, 400, 8);
    EXPECT_TRUE(answered_at_once(100));
    EXPECT_TRUE(answered_at_once(300));
    EXPECT_TRUE(answered_at_once(400));
}

TEST_F(Way, OfWritesToASpareThatIsNotTrustedIsTheWorker) {
    (*md_)->policy.verify_spare_writes = true;
    EXPECT_EQ(way(DM_REMAP_IO_READ, 100), DM_REMAP_WAY_SPARE);
    EXPECT_EQ(way(DM_REMAP_IO_WRITE, 100), DM_REMAP_WAY_WORKER);
    EXPECT_EQ(way(DM_REMAP_IO_ZEROES, 100), DM_REMAP_WAY_WORKER);
}

// In mode `ro`, too: a write that does not hold is an error then.
TEST_F(Way, OfWritesToAPlaceThatCouldNotBeReadIsTheWorker) {
    mark(DM_REMAP_F_UNREADABLE, 102, 2);
    for (const auto mode : {DM_REMAP_MODE_RW, DM_REMAP_MODE_RO}) {
        (*md_)->mode = mode;
        EXPECT_EQ(way(DM_REMAP_IO_WRITE, 100), DM_REMAP_WAY_SPARE);
        EXPECT_EQ(extent_.length, 2);
        EXPECT_EQ(way(DM_REMAP_IO_WRITE, 102), DM_REMAP_WAY_WORKER);
        EXPECT_EQ(extent_.length, 2);
        EXPECT_EQ(way(DM_REMAP_IO_READ, 102), DM_REMAP_WAY_SPARE);
        EXPECT_EQ(way(DM_REMAP_IO_DISCARD, 102), DM_REMAP_WAY_ANSWERED);
    }
}

TEST_F(Way, OfAPendingRangeIsTheWorkerForReadsAndForWritesThatCanSettleIt) {
    const auto ways = [&] {
        EXPECT_EQ(way(DM_REMAP_IO_READ, 200), DM_REMAP_WAY_WORKER);
        EXPECT_EQ(way(DM_REMAP_IO_DISCARD, 200), DM_REMAP_WAY_MAIN);
        EXPECT_EQ(way(DM_REMAP_IO_WRITE, 200), way(DM_REMAP_IO_ZEROES, 200));
        return way(DM_REMAP_IO_WRITE, 200);
    };
    EXPECT_EQ(ways(), DM_REMAP_WAY_WORKER);
    (*md_)->policy.no_auto_remap = true;
    EXPECT_EQ(ways(), DM_REMAP_WAY_MAIN);
    (*md_)->policy.no_auto_remap = false;
    (*md_)->mode = DM_REMAP_MODE_RO;
    EXPECT_EQ(ways(), DM_REMAP_WAY_MAIN);
}

TEST_F(Way, OfWhatIsNoAdviceIsTheWorkerWhileTheRangeIsHeld) {
    mark(DM_REMAP_F_HELD, 100, 8);
    mark(DM_REMAP_F_HELD, 300, 8);
    for (const auto kind : kNoAdvice) {
        EXPECT_EQ(way(kind, 100), DM_REMAP_WAY_WORKER);
        EXPECT_EQ(way(kind, 300), DM_REMAP_WAY_WORKER);
    }
}

TEST_F(Way, IsNowhereInDoubt) {
    mark(DM_REMAP_F_DOUBT, 100, 8);
    mark(DM_REMAP_F_DOUBT, 300, 8);
    for (const auto kind : kNoAdvice) {
        EXPECT_EQ(way(kind, 100), DM_REMAP_WAY_NOWHERE);
        EXPECT_EQ(way(kind, 300), DM_REMAP_WAY_NOWHERE);
    }
    // Held as well: the worker will find the doubt.
    mark(DM_REMAP_F_HELD, 300, 8);
    EXPECT_EQ(way(DM_REMAP_IO_READ, 300), DM_REMAP_WAY_WORKER);
}

TEST_F(Way, IsNowhereWhenAnotherSystemHasTheSpare) {
    (*md_)->mode = DM_REMAP_MODE_FAIL;
    for (const auto kind : kKinds) {
        EXPECT_EQ(way(kind, 100), DM_REMAP_WAY_NOWHERE);
        EXPECT_EQ(way(kind, 3000), DM_REMAP_WAY_NOWHERE);
    }
}

TEST_F(Way, CountsWritesToMainAndAllThatGoesToTheSpare) {
    for (const auto kind : kKinds) {
        EXPECT_EQ(dm_remap_way_counts(DM_REMAP_WAY_MAIN, kind), kind != DM_REMAP_IO_READ);
        EXPECT_TRUE(dm_remap_way_counts(DM_REMAP_WAY_SPARE, kind));
        EXPECT_FALSE(dm_remap_way_counts(DM_REMAP_WAY_WORKER, kind));
        EXPECT_FALSE(dm_remap_way_counts(DM_REMAP_WAY_NOWHERE, kind));
    }
}

TEST_F(Way, IsPlainOnlyFarFromAnyRecord) {
    for (std::uint64_t s = 0; s < world_->main.sectors(); s += 4) {
        if (dm_remap_way_is_plain(md_->get(), s, 8)) {
            EXPECT_EQ(way(DM_REMAP_IO_ZEROES, s), DM_REMAP_WAY_MAIN) << s;
            EXPECT_EQ(extent_.length, 8) << s;
        }
    }
    EXPECT_TRUE(dm_remap_way_is_plain(md_->get(), 30000, 8));
    EXPECT_FALSE(dm_remap_way_is_plain(md_->get(), 100, 8));
}

TEST(WayOfFailedIo, IsTheWorkerWhereTheMediaMayBeAtFault) {
    for (const int error : {-EIO, -ENODATA, -EREMOTEIO}) {
        EXPECT_TRUE(dm_remap_fails_for_worker(DM_REMAP_IO_READ, error));
        EXPECT_TRUE(dm_remap_fails_for_worker(DM_REMAP_IO_WRITE, error));
        EXPECT_TRUE(dm_remap_fails_for_worker(DM_REMAP_IO_ZEROES, error));
        // Advice.
        EXPECT_FALSE(dm_remap_fails_for_worker(DM_REMAP_IO_DISCARD, error));
    }
    for (const int error : {-ETIMEDOUT, -ENOLINK, -EAGAIN, -ENOSPC}) {
        EXPECT_FALSE(dm_remap_fails_for_worker(DM_REMAP_IO_WRITE, error)) << error;
    }
}

}  // namespace
}  // namespace remap

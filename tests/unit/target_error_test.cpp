// Target errors of main: some drives say so of a bad sector, some of what they refuse.
#include <gtest/gtest.h>

#include <array>
#include <cerrno>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kMain = 1 << 18;  // 128 MiB
constexpr std::uint64_t kRange = 64 << 11;
constexpr std::uint64_t kAt = kMain - 4096;  // behind all places of a control but the last block
constexpr std::uint64_t kLast = kMain - 8;
constexpr std::uint32_t kBlock = 8;

class TargetError : public ::testing::TestWithParam<dm_remap_direction> {
  protected:
    void SetUp() override { make(kBlock); }
    void make(std::uint32_t granularity) {
        world_ = formatted({.main_sectors = kMain, .granularity = granularity});
        md_ = open(*world_);
        world_->main.fail_read = [this](std::uint64_t at, std::uint32_t n) {
            return answer(at, n, DM_REMAP_READ);
        };
        world_->main.on_write = [this](auto, std::uint64_t at, std::uint32_t n) {
            return answer(at, n, DM_REMAP_WRITE);
        };
    }
    // The answer of main to I/O in the direction under test.
    int answer(std::uint64_t at, std::uint32_t n, dm_remap_direction direction) {
        if (direction != GetParam()) {
            return 0;
        }
        asked_++;
        asked_last_ += at <= kLast && kLast < at + n ? 1 : 0;
        for (const auto& f : failing_) {
            if (at < f.end && f.start < at + n) {
                return f.error;
            }
        }
        return 0;
    }
    void fail(std::uint64_t start, std::uint64_t end, int error = -EREMOTEIO) {
        failing_.push_back({start, end, error});
    }
    // A request that main has failed.
    int redo(std::uint64_t start, std::uint32_t n) {
        std::vector<std::uint8_t> data(std::size_t{n} * kSector);
        dm_remap_tried tried{dm_remap_main_failed(md_->get(), GetParam()), n};
        Mover m(*md_);
        dm_remap_redo_begin(m.get());
        const int error = GetParam() == DM_REMAP_READ
                              ? dm_remap_redo_read(m.get(), start, n, data.data(), &tried)
                              : dm_remap_redo_write(m.get(), start, n, data.data(), &tried);
        EXPECT_EQ(dm_remap_redo_end(m.get()), 0);
        return error;
    }
    // A read is EIO then, a write has moved.
    void expect_bad_media(std::uint64_t start, std::uint32_t n = kBlock) {
        const bool read = GetParam() == DM_REMAP_READ;
        EXPECT_EQ(redo(start, n), read ? -EIO : 0);
        EXPECT_EQ(md_->lookup(kAt).kind, read ? DM_REMAP_PENDING : DM_REMAP_MAPPED);
        EXPECT_EQ(md_->records().size(), 1U);
    }
    void expect_no_record(std::uint64_t start) {
        const Records before = md_->records();
        EXPECT_EQ(redo(start, kBlock), -EREMOTEIO);
        EXPECT_EQ(md_->records(), before);
    }

    struct Failing {
        std::uint64_t start;
        std::uint64_t end;
        int error;
    };
    std::unique_ptr<World> world_;
    std::unique_ptr<Metadata> md_;
    std::vector<Failing> failing_;
    unsigned asked_ = 0;
    unsigned asked_last_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Direction, TargetError, ::testing::Values(DM_REMAP_READ, DM_REMAP_WRITE));

TEST_P(TargetError, OfOneBlockIsBadMedia) {
    fail(kAt, kAt + kBlock);
    expect_bad_media(kAt);
    EXPECT_EQ(asked_last_, 1U);
}

// The rest of the request lies behind it.
TEST_P(TargetError, BeforeGoodBlocksIsBadMediaAtNoCost) {
    fail(kAt, kAt + kBlock);
    expect_bad_media(kAt - kBlock, 4 * kBlock);
    EXPECT_EQ(asked_last_, 0U);
}

TEST_P(TargetError, FromThereToTheEndLeavesNoRecord) {
    fail(kAt, kMain);
    expect_no_record(kAt);
    expect_no_record(kLast);
    EXPECT_NE(world_->log.back().find("its last block"), std::string::npos) << world_->log.back();
    EXPECT_FALSE(dm_remap_breaker_open(md_->get()));
}

// The second one finds out no more than the first, and costs one command. Later it is asked again.
TEST_P(TargetError, BehindARefusedPlacePassesForSomeTime) {
    fail(kAt, kMain);
    expect_no_record(kAt);
    asked_last_ = 0;
    asked_ = 0;
    expect_no_record(kAt + kBlock);
    EXPECT_EQ(asked_, 1U);
    EXPECT_EQ(asked_last_, 0U);
    // A failure before that place is looked into.
    fail(kAt - 2 * kBlock, kAt - kBlock);
    expect_no_record(kAt - 2 * kBlock);
    EXPECT_EQ(asked_last_, 1U);
    world_->uptime += DM_REMAP_BREAKER_PAUSE;
    asked_last_ = 0;
    expect_no_record(kAt + kBlock);
    EXPECT_EQ(asked_last_, 1U);
}

// A pending block is known to be bad.
TEST_P(TargetError, OfAWriteToAPendingRangeMovesIt) {
    std::vector<std::uint8_t> data(std::size_t{kBlock} * kSector, 7);
    fail(kAt, kMain);
    expect_no_record(kAt);
    ASSERT_EQ(md_->commit({pending(kAt, kBlock)}), 0);
    Mover m(*md_);
    dm_remap_redo_begin(m.get());
    // The write itself fails, or it is not read back.
    EXPECT_EQ(dm_remap_redo_write(m.get(), kAt, kBlock, data.data(), nullptr), 0);
    EXPECT_EQ(dm_remap_redo_end(m.get()), 0);
    EXPECT_EQ(md_->lookup(kAt).kind, DM_REMAP_MAPPED);
}

TEST_P(TargetError, OfAllOfMainLeavesNoRecord) {
    fail(0, kMain);
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(redo(kAt + i * 32 * kBlock, kBlock), -EIO);
    }
    EXPECT_TRUE(md_->records().empty());
    EXPECT_TRUE(dm_remap_breaker_open(md_->get()));
}

// The last block is bad by itself, and says so.
TEST_P(TargetError, IsBadMediaIfTheLastBlockFailsOtherwise) {
    fail(kAt, kAt + kBlock);
    fail(kLast, kMain, -ENODATA);
    expect_bad_media(kAt);
}

TEST_P(TargetError, LeavesNoRecordIfTheLastBlockDoesNotAnswer) {
    fail(kAt, kAt + kBlock);
    fail(kLast, kMain, -ETIMEDOUT);
    expect_no_record(kAt);
}

// The last block that has no record is asked.
TEST_P(TargetError, AsksNoBlockWithARecord) {
    ASSERT_EQ(md_->commit({pending(kLast - 64 * kBlock, 65 * kBlock)}), 0);
    fail(kAt, kAt + kBlock);
    EXPECT_EQ(redo(kAt, kBlock), GetParam() == DM_REMAP_READ ? -EIO : 0);
    EXPECT_EQ(md_->records().size(), 2U);
    EXPECT_EQ(asked_last_, 0U);
    // The blocks before those fail, too.
    fail(kAt + 100 * kBlock, kLast - 64 * kBlock);
    expect_no_record(kAt + 200 * kBlock);
}

// The last block of main cannot be written with its neighbour, which lives on the spare.
TEST_P(TargetError, AtTheEndBesideARecordLeavesNone) {
    make(1);
    (*md_)->main_block = kBlock;
    ASSERT_EQ(md_->remap(kLast, 1), 0);
    fail(kMain - 4, kMain);
    const Records before = md_->records();
    EXPECT_EQ(redo(kMain - 4, 1), -EREMOTEIO);
    EXPECT_EQ(md_->records(), before);
}

// Somebody's I/O behind it, which began after the failure, is enough; one before it is not.
TEST_P(TargetError, OthersMayShowThatMainGoesOnBehindIt) {
    for (const bool behind : {true, false}) {
        SetUp();
        failing_.clear();
        asked_last_ = 0;
        unsigned tries = 0;
        const auto others = [&](std::uint64_t at, dm_remap_direction direction) {
            if (at == kAt && direction == GetParam() && ++tries == 2) {
                dm_remap_main_worked_at(md_->get(), direction,
                                        dm_remap_main_failures(md_->get(), direction),
                                        behind ? kAt + kBlock : kAt - kBlock);
            }
        };
        world_->main.fail_read = [&, this](std::uint64_t at, std::uint32_t n) {
            others(at, DM_REMAP_READ);
            return answer(at, n, DM_REMAP_READ);
        };
        world_->main.on_write = [&, this](auto, std::uint64_t at, std::uint32_t n) {
            others(at, DM_REMAP_WRITE);
            return answer(at, n, DM_REMAP_WRITE);
        };
        fail(kAt, kAt + kBlock);
        expect_bad_media(kAt);
        EXPECT_EQ(asked_last_, behind ? 0U : 1U);
    }
}

// A range of 64 MiB is no scratch.
TEST_P(TargetError, BesideManyRecordsLeavesNone) {
    constexpr std::uint64_t kFrom = 1024;
    fail(kFrom, kFrom + kRange + kBlock);
    ASSERT_EQ(md_->commit({pending(kFrom + kBlock, kRange - 2 * kBlock)}), 0);
    EXPECT_EQ(redo(kFrom, kBlock), GetParam() == DM_REMAP_READ ? -EIO : 0) << "one less";
    world_->log.clear();
    expect_no_record(kFrom + kRange - kBlock);
    EXPECT_STREQ(dm_remap_refusal_name((*md_)->refusal), "main_refuses");
    ASSERT_EQ(world_->log.size(), 1U);
    EXPECT_NE(world_->log[0].find("64 MiB side by side"), std::string::npos) << world_->log[0];
    // Elsewhere it is as ever.
    fail(kMain / 4 * 3, kMain / 4 * 3 + kBlock);
    EXPECT_EQ(redo(kMain / 4 * 3, kBlock), GetParam() == DM_REMAP_READ ? -EIO : 0);
}

TEST_P(TargetError, OfTheSpareRetiresThePlace) {
    if (GetParam() == DM_REMAP_READ) {
        GTEST_SKIP() << "nothing is retired by a read";
    }
    fail(kAt, kAt + kBlock);
    std::uint64_t first = 0;
    world_->spare.on_write = [&](auto, std::uint64_t at, auto) {
        const bool data = at >= dm_remap_data_start(&(*md_)->sb.layout);
        first = first == 0 && data ? at : first;
        return data && at == first ? -EREMOTEIO : 0;
    };
    EXPECT_EQ(redo(kAt, kBlock), 0);
    EXPECT_EQ(md_->lookup(kAt).kind, DM_REMAP_MAPPED);
    EXPECT_EQ((*md_)->retired.totals.retired, kBlock);
}

}  // namespace
}  // namespace remap

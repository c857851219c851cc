#include <gtest/gtest.h>

#include <algorithm>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kMain = 1 << 14;

// Main is full of known data. What a reader of the mapped device gets is compared with it.
class Relocate : public ::testing::TestWithParam<std::uint32_t> {
  protected:
    const std::uint32_t g = GetParam();

    void SetUp() override {
        world = formatted({.main_sectors = kMain,
                           .spare_sectors = 1 << 14,
                           .granularity = g,
                           .max_records = 5000});
        for (std::uint64_t at = 0; at < kMain; at += 2048) {
            world->main.poke(at, pattern(at, 2048));
        }
        content = world->main.image();
        md = open(*world);
        free_at_start = free_sectors();
    }

    void TearDown() override {
        expect_nothing_held();
        // What a crash leaves now is the same.
        EXPECT_EQ(try_load(*world).records, md->records());
    }

    std::uint64_t free_sectors() { return dm_remap_alloc_free_sectors(&(*md)->alloc); }

    int remap(std::uint64_t start, std::uint64_t length, unsigned retries = 0) {
        (*md)->policy.read_retries = retries;
        return dm_remap_remap(md->get(), start, length, &moved);
    }
    int unremap(std::uint64_t start, std::uint64_t length) {
        return dm_remap_unremap(md->get(), start, length, &moved);
    }
    int forget(std::uint64_t start, std::uint64_t length) {
        return dm_remap_forget(md->get(), start, length, &moved);
    }
    // A batch of one request.
    int redo_write(std::uint64_t start, const std::vector<std::uint8_t>& data) {
        Mover mover(*md);
        dm_remap_redo_begin(mover.get());
        const int error =
            dm_remap_redo_write(mover.get(), start, data.size() / kSector, data.data(), nullptr);
        const int committed = dm_remap_redo_end(mover.get());
        return error != 0 ? error : committed;
    }

    void make_unreadable(std::uint64_t start, std::uint64_t length) {
        for (std::uint64_t i = 0; i < length; i++) {
            world->main.bad_read.insert(start + i);
        }
    }

    void expect_nothing_held() {
        for (std::uint64_t at = 0; at < kMain;) {
            const dm_remap_extent e = md->lookup(at, kMain - at);
            EXPECT_EQ(e.flags & DM_REMAP_F_HELD, 0) << at;
            at += e.length;
        }
    }

    // A read of the mapped device: every sector that is not pending is as it should be.
    void expect_content() {
        std::vector<std::uint8_t> sector(kSector);
        for (std::uint64_t at = 0; at < kMain; at++) {
            const dm_remap_extent e = md->lookup(at);
            if (e.kind == DM_REMAP_PENDING || (e.flags & DM_REMAP_F_DOUBT) != 0) {
                continue;
            }
            const int error = e.kind == DM_REMAP_MAPPED
                                  ? world->spare.read(e.spare, 1, sector.data())
                                  : world->main.read(at, 1, sector.data());
            if (error == 0) {
                ASSERT_TRUE(
                    std::equal(sector.begin(), sector.end(), content.begin() + at * kSector))
                    << at;
            }
        }
    }
    void set_content(std::uint64_t start, const std::vector<std::uint8_t>& data) {
        std::copy(data.begin(), data.end(), content.begin() + start * kSector);
    }

    std::unique_ptr<World> world;
    std::unique_ptr<Metadata> md;
    Image content;
    std::uint64_t free_at_start = 0;
    dm_remap_moved moved{};
    std::uint32_t done = 0;
};

INSTANTIATE_TEST_SUITE_P(Granularity, Relocate, ::testing::Values(1U, 8U));

// ---- remap ----

TEST_P(Relocate, RemapCopiesWhatCanBeRead) {
    // Across regions, and more than is copied at once.
    ASSERT_EQ(remap(8192 - 1600, 5000 / g * g), 0);
    EXPECT_EQ(moved.moved, 5000 / g * g);
    EXPECT_EQ(moved.pending, 0U);
    EXPECT_EQ(md->records().size(), 1U);
    EXPECT_EQ(world->drains, 3U);
    // Main is not needed there any more.
    world->main.poke(8192 - 1600, Image(5000 / g * g * kSector, 0xEE));
    expect_content();
}

TEST_P(Relocate, RemapRecordsWhatCannotBeReadAsPending) {
    make_unreadable(1000 + 16, 1);
    make_unreadable(1000 + 32, 8);
    ASSERT_EQ(remap(1000, 80), 0);
    EXPECT_EQ(moved.pending, g == 1 ? 9U : 16U);
    EXPECT_EQ(moved.moved, 80 - moved.pending);
    EXPECT_EQ(md->lookup(1016).kind, DM_REMAP_PENDING);
    EXPECT_EQ(md->lookup(1000 + 32).kind, DM_REMAP_PENDING);
    EXPECT_EQ(md->lookup(1000).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(md->lookup(1079).kind, DM_REMAP_MAPPED);
    EXPECT_GT(atomic64_read(&(*md)->counter[DM_REMAP_READ_ERRORS]), 0);
    expect_content();
}

TEST_P(Relocate, RemapOfManyHolesTakesSeveralCommits) {
    for (std::uint64_t at = 0; at < 2048; at += 2 * g) {
        make_unreadable(at, 1);
    }
    ASSERT_EQ(remap(0, 2048), 0);
    EXPECT_EQ(moved.moved, 1024U);
    EXPECT_EQ(moved.pending, 1024U);
    EXPECT_EQ(md->records().size(), 2048 / g);
    expect_content();
}

// A block that fails may take a drive many seconds: a few at a time are tried, and what waits for
// the range or for the lock goes on in between.
TEST_P(Relocate, OthersGetTheirTurnBetweenBlocksThatFail) {
    unsigned failed = 0;
    unsigned most = 0;
    make_unreadable(0, 2048 - 16);
    world->on_drain = [&] { failed = 0; };
    world->main.on_read = [&](std::uint64_t sector, std::uint32_t n) {
        if (world->main.bad_read.any(sector, n)) {
            most = std::max(most, ++failed);
        }
    };
    ASSERT_EQ(remap(0, 4096, 2), 0);
    EXPECT_EQ(moved.pending, 2048U - 16);
    EXPECT_EQ(moved.moved, 2048U + 16);
    // Eight sectors, each block of them three times, and what holds several blocks once.
    EXPECT_LE(most, 4 * 8 / g);
    EXPECT_EQ(md->records().size(), 2U);
    expect_content();
}

TEST_P(Relocate, OthersGetTheirTurnBetweenBlocksThatMainDoesNotTake) {
    ASSERT_EQ(remap(0, 4096), 0);
    unsigned failed = 0;
    unsigned most = 0;
    world->on_drain = [&] { failed = 0; };
    world->main.on_write = [&](auto, std::uint64_t sector, auto) {
        if (sector >= 2048) {
            return 0;
        }
        most = std::max(most, ++failed);
        return -EIO;
    };
    ASSERT_EQ(unremap(0, 4096), -EIO);
    EXPECT_EQ(moved.refused, 2048U);
    EXPECT_EQ(moved.moved, 2048U);
    EXPECT_LE(most, 1 + 8 / g);
    EXPECT_EQ(md->records().size(), 1U);
    world->main.on_write = nullptr;
    expect_content();
}

TEST_P(Relocate, RemapTriesAgain) {
    make_unreadable(1000, 8);
    unsigned reads = 0;
    // The sector comes back at the third try of its block.
    world->main.on_read = [&](std::uint64_t sector, std::uint32_t) {
        if (sector == 1000 && ++reads == 4) {
            world->main.bad_read.clear();
        }
    };
    ASSERT_EQ(remap(1000, 8, 5), 0);
    EXPECT_EQ(moved.moved, 8U);
    EXPECT_EQ(moved.pending, 0U);
    expect_content();
}

TEST_P(Relocate, RemapOfPendingThatIsReadableAgainMovesIt) {
    make_unreadable(1000, 8);
    ASSERT_EQ(remap(1000, 8), 0);
    EXPECT_EQ(moved.pending, 8U);
    ASSERT_EQ(remap(1000, 8), 0);
    EXPECT_EQ(moved.pending, 8U);
    world->main.bad_read.clear();
    ASSERT_EQ(remap(1000, 8), 0);
    EXPECT_EQ(moved.moved, 8U);
    EXPECT_EQ(md->records().size(), 1U);
    expect_content();
}

TEST_P(Relocate, RemapOfWhatIsRemappedDoesNothing) {
    ASSERT_EQ(remap(5000 / 8 * 8, 8), 0);
    const Records before = md->records();
    EXPECT_EQ(remap(0, 8192), -EEXIST);
    EXPECT_NE(moved.why, nullptr);
    EXPECT_EQ(moved.moved, 0U);
    EXPECT_EQ(md->records(), before);
}

// A write that failed in the range before all of it was held has a record by now.
TEST_P(Relocate, RemapLeavesAloneWhatWasMovedMeanwhile) {
    world->on_drain = [&] {
        ASSERT_EQ(md->remap(1016, g), 0);
        set_content(1016, pattern(1016, g));
    };
    EXPECT_EQ(remap(1000, 64), 0);
    world->on_drain = nullptr;
    EXPECT_EQ(moved.moved, 64U - g);
    EXPECT_EQ(free_sectors(), free_at_start - 64);
    expect_content();
}

TEST_P(Relocate, SpareThatFailsIsRetiredAndAnotherPlaceTaken) {
    const std::uint64_t start = dm_remap_data_start(&(*md)->sb.layout);
    world->spare.bad_write.insert(start + 8);
    world->spare.bad_write.insert(start + 24);
    ASSERT_EQ(remap(1000, 64), 0);
    EXPECT_EQ(moved.moved, 64U);
    Records retired;
    for (const Record& r : md->records()) {
        if (r.kind == DM_REMAP_RETIRED) {
            retired.push_back(r);
        }
    }
    EXPECT_EQ(retired,
              (Records{{DM_REMAP_RETIRED, 0, start + 8, g}, {DM_REMAP_RETIRED, 0, start + 24, g}}));
    EXPECT_EQ(free_sectors(), free_at_start - 64 - 2 * g);
    expect_content();
    // Retired for good.
    EXPECT_EQ(try_load(*world).records, md->records());
    ASSERT_EQ(unremap(1000, 64), 0);
    EXPECT_EQ(free_sectors(), free_at_start - 2 * g);
}

TEST_P(Relocate, SpareThatFailsEverywhereIsNotRetired) {
    world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
        return sector >= dm_remap_data_start(&(*md)->sb.layout) &&
                       sector < dm_remap_data_end(&(*md)->sb.layout)
                   ? -EIO
                   : 0;
    };
    EXPECT_EQ(remap(1000, 64), -EIO);
    world->spare.on_write = nullptr;
    EXPECT_TRUE(md->records().empty());
    EXPECT_EQ(free_sectors(), free_at_start);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    expect_content();
    ASSERT_EQ(remap(1000, 64), 0);
}

TEST_P(Relocate, SpareFullKeepsWhatWasDone) {
    int ret = 0;
    std::uint64_t at = 0;
    std::uint64_t done_sectors = 0;
    while ((ret = remap(at, 4096)) == 0 && at < kMain) {
        done_sectors += moved.moved;
        at += 4096;
    }
    EXPECT_EQ(ret, -ENOSPC);
    done_sectors += moved.moved;
    EXPECT_EQ(free_sectors(), 0U);
    EXPECT_EQ(done_sectors, free_at_start);
    dm_remap_totals totals{};
    dm_remap_table_totals(&(*md)->table, &totals);
    EXPECT_EQ(totals.mapped, done_sectors);
    expect_content();
}

TEST_P(Relocate, FailedCommitLeavesDoubtAndNothingHeld) {
    std::uint64_t begun = world->spare.writes() + 2;
    world->spare.on_write = [&](auto n, auto, auto) { return n >= begun ? -EIO : 0; };
    EXPECT_EQ(remap(1000, 64), -EUCLEAN);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 1000));
    expect_nothing_held();
    EXPECT_EQ(remap(1000, 64), -EUCLEAN);
    EXPECT_NE(moved.why, nullptr);
    EXPECT_EQ(unremap(1000, 64), -ENOENT);
    EXPECT_EQ(redo_write(1000, pattern(1, 8)), -EIO);
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(free_sectors(), free_at_start);
    expect_content();
    ASSERT_EQ(remap(1000, 64), 0);
    expect_content();
}

TEST_P(Relocate, RemapEndsWhereACommitFailsMeanwhile) {
    world->on_drain = [&] {
        world->spare.on_write = [](auto, auto, auto) { return -EIO; };
        EXPECT_EQ(md->remap(1000, g), -EUCLEAN);
        world->spare.on_write = nullptr;
    };
    EXPECT_EQ(remap(1000, 64), -EUCLEAN);
    EXPECT_NE(moved.why, nullptr);
    expect_nothing_held();
    world->on_drain = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(remap(1000, 64), 0);
    expect_content();
}

TEST_P(Relocate, StopIsAskedBetweenTheSteps) {
    unsigned asked = 0;
    // Twice for each piece: before it is held, and before it is read.
    world->on_stop = [&] { return ++asked == 5 ? -EAGAIN : 0; };
    EXPECT_EQ(remap(0, 8192), -EAGAIN);
    EXPECT_EQ(moved.moved, 4096U);
    world->on_stop = nullptr;
    ASSERT_EQ(unremap(0, 4096), 0);
}

// While the drain waits the range is held, and the old place is still what a lookup says.
TEST_P(Relocate, RangeIsHeldWhileItIsCopied) {
    world->on_drain = [&] {
        EXPECT_TRUE(md->flagged(DM_REMAP_F_HELD, 1000));
        EXPECT_TRUE(md->flagged(DM_REMAP_F_HELD, 1063));
        EXPECT_FALSE(md->flagged(DM_REMAP_F_HELD, 999));
        EXPECT_FALSE(md->flagged(DM_REMAP_F_HELD, 1064));
        // The last write on its way lands now; the copy has it.
        world->main.poke(1008, pattern(777, 8));
        set_content(1008, pattern(777, 8));
    };
    ASSERT_EQ(remap(1000, 64), 0);
    expect_content();
}

TEST_P(Relocate, NoMemoryAnywhere) {
    for (std::uint64_t n = 0;; n++) {
        const Records before = md->records();
        const std::uint64_t free = free_sectors();
        int ret = 0;
        bool happened = false;
        {
            FailAllocation fail(n);
            ret = remap(8192 - 16, 32);
            happened = fail.happened();
        }
        if (ret != 0) {
            ASSERT_EQ(ret, -ENOMEM);
            // Two chunks: the first may be done.
            if (moved.moved != 0) {
                ASSERT_EQ(unremap(8192 - 16, 16), 0);
            }
            EXPECT_EQ(md->records(), before);
            EXPECT_EQ(free_sectors(), free);
            expect_nothing_held();
            continue;
        }
        {
            FailAllocation fail(n);
            ret = unremap(8192 - 16, 32);
            happened = happened || fail.happened();
        }
        if (ret != 0) {
            EXPECT_EQ(ret, -ENOMEM);
            expect_nothing_held();
            ASSERT_EQ(unremap(8192 - 16, 32), 0);
        }
        EXPECT_EQ(free_sectors(), free);
        if (!happened) {
            break;
        }
    }
    expect_content();
}

// ---- unremap ----

TEST_P(Relocate, UnremapBringsTheDataHome) {
    ASSERT_EQ(remap(1000, 4000), 0);
    // Written since, on the spare.
    const dm_remap_extent e = md->lookup(2000, 16);
    ASSERT_EQ(e.length, 16U);
    world->spare.write(e.spare, 16, pattern(999, 16).data(), 0);
    set_content(2000, pattern(999, 16));
    ASSERT_EQ(unremap(0, kMain), 0);
    EXPECT_EQ(moved.moved, 4000U);
    EXPECT_TRUE(md->records().empty());
    EXPECT_EQ(free_sectors(), free_at_start);
    EXPECT_TRUE(world->main.image() == content);
    // Durable on main before the record went.
    world->main.power_off();
    world->main.power_on([](auto, auto) { return false; });
    EXPECT_TRUE(world->main.image() == content);
}

// Of all of a disk only what is remapped is looked at: of the rest there are millions of pieces.
TEST_P(Relocate, UnremapHoldsNothingWhereNothingIs) {
    for (const std::uint64_t at : {1000, 1064, 9000}) {
        ASSERT_EQ(remap(at, 16), 0);
    }
    world->drains = 0;
    ASSERT_EQ(unremap(0, kMain), 0);
    EXPECT_EQ(moved.moved, 48U);
    EXPECT_EQ(world->drains, 2U);
    EXPECT_TRUE(md->records().empty());
}

TEST_P(Relocate, UnremapOfAPart) {
    ASSERT_EQ(remap(1000, 64), 0);
    ASSERT_EQ(unremap(1016, 16), 0);
    EXPECT_EQ(md->records().size(), 2U);
    EXPECT_EQ(free_sectors(), free_at_start - 48);
    expect_content();
}

TEST_P(Relocate, SectorsThatMainRefusesKeepTheirRecords) {
    ASSERT_EQ(remap(1000, 64), 0);
    world->main.bad_write.insert(1016);
    EXPECT_EQ(unremap(1000, 64), -EIO);
    EXPECT_EQ(moved.refused, g);
    EXPECT_EQ(moved.moved, 64 - g);
    EXPECT_NE(moved.why, nullptr);
    EXPECT_EQ(md->lookup(1016).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(md->records().size(), 1U);
    EXPECT_EQ(free_sectors(), free_at_start - g);
    expect_content();
}

TEST_P(Relocate, MainThatTakesTheDataAndReturnsOtherKeepsTheRecord) {
    ASSERT_EQ(remap(1000, 64), 0);
    // What is written to sector 1016 reads back changed.
    world->main.after_write = [&](std::uint64_t sector, std::uint32_t n) {
        if (sector <= 1016 && sector + n > 1016) {
            world->main.flip(1016 * kSector, 0);
        }
    };
    EXPECT_EQ(unremap(1000, 64), -EIO);
    EXPECT_EQ(moved.refused, g);
    EXPECT_EQ(md->lookup(1016).kind, DM_REMAP_MAPPED);
    expect_content();
}

TEST_P(Relocate, SpareThatCannotBeReadKeepsTheRecord) {
    ASSERT_EQ(remap(1000, 64), 0);
    world->spare.bad_read.insert(md->lookup(1016).spare);
    EXPECT_EQ(unremap(1000, 64), -EIO);
    EXPECT_EQ(moved.refused, g);
    EXPECT_EQ(md->lookup(1016).kind, DM_REMAP_MAPPED);
}

TEST_P(Relocate, UnremapOfNothing) {
    EXPECT_EQ(unremap(0, 800), -ENOENT);
    make_unreadable(1000, 8);
    ASSERT_EQ(remap(1000, 8), 0);
    EXPECT_EQ(unremap(1000, 8), -ENOENT);
}

// The removal that fails leaves the record, and its place on the spare is not given away.
TEST_P(Relocate, UnremapThatCannotBeCommittedKeepsTheSparePlace) {
    ASSERT_EQ(remap(1000, 64), 0);
    const Records before = md->records();
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_EQ(unremap(1000, 64), -EUCLEAN);
    EXPECT_EQ(md->records(), before);
    EXPECT_EQ(free_sectors(), free_at_start - 64);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 1000));
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(md->records(), before);
    expect_content();
    ASSERT_EQ(unremap(1000, 64), 0);
    EXPECT_EQ(free_sectors(), free_at_start);
    expect_content();
}

// ---- forget ----

TEST_P(Relocate, ForgetDropsPendingRecordsAlone) {
    make_unreadable(1000, 24);
    ASSERT_EQ(remap(1000, 64), 0);
    const std::uint64_t writes = world->main.writes();
    ASSERT_EQ(forget(1008, 8), 0);
    EXPECT_EQ(moved.dropped, 8U);
    EXPECT_EQ(md->lookup(1008).kind, DM_REMAP_NONE);
    EXPECT_EQ(md->lookup(1000).kind, DM_REMAP_PENDING);
    ASSERT_EQ(forget(0, kMain), 0);
    EXPECT_EQ(moved.dropped, 16U);
    EXPECT_EQ(md->lookup(1024).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(forget(0, kMain), -ENOENT);
    EXPECT_EQ(world->main.writes(), writes);
    EXPECT_EQ(free_sectors(), free_at_start - 40);
}

TEST_P(Relocate, ForgetOfMoreThanABlockOfEntries) {
    for (std::uint64_t at = 0; at < 8192; at += 2 * g) {
        make_unreadable(at, g);
    }
    ASSERT_EQ(remap(0, 4096), 0);
    ASSERT_EQ(forget(0, 4096), 0);
    EXPECT_EQ(moved.dropped, 2048U);
    dm_remap_totals totals{};
    dm_remap_table_totals(&(*md)->table, &totals);
    EXPECT_EQ(totals.pending, 0U);
}

// Some of many could not be dropped: all of those stay.
TEST_P(Relocate, ForgetThatCannotBeCommittedDropsNothing) {
    for (std::uint64_t at = 0; at < 4096; at += 2 * g) {
        make_unreadable(at, g);
    }
    ASSERT_EQ(remap(0, 4096), 0);
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    const Records before = md->records();
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_EQ(forget(0, 4096), -EUCLEAN);
    EXPECT_EQ(moved.dropped, 0U);
    world->spare.on_write = nullptr;
    EXPECT_EQ(md->records(), before);
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    ASSERT_EQ(forget(0, 4096), 0);
    EXPECT_EQ(moved.dropped, 2048U);
}

// ---- writes to pending ranges ----

TEST_P(Relocate, WriteToAPendingRangeGoesToTheSpare) {
    make_unreadable(1000, 64);
    ASSERT_EQ(remap(1000, 64), 0);
    ASSERT_EQ(redo_write(1016, pattern(555, 16)), 0);
    set_content(1016, pattern(555, 16));
    EXPECT_EQ(md->lookup(1016, 16).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(md->lookup(1008).kind, DM_REMAP_PENDING);
    EXPECT_EQ(md->lookup(1032).kind, DM_REMAP_PENDING);
    EXPECT_EQ(atomic64_read(&(*md)->counter[DM_REMAP_RELOCATED]), 1);
    expect_content();
    // Durable, data and record.
    world->spare.power_off();
    world->spare.power_on([](auto, auto) { return false; });
    expect_content();
}

TEST_P(Relocate, WriteBeyondThePendingRangeLandsOnMainThere) {
    make_unreadable(1000, 16);
    ASSERT_EQ(remap(1000, 16), 0);
    ASSERT_EQ(redo_write(1000, pattern(555, 32)), 0);
    set_content(1000, pattern(555, 32));
    EXPECT_EQ(md->lookup(1000, 16).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(md->lookup(1016, 16).kind, DM_REMAP_NONE);
    expect_content();
}

TEST_P(Relocate, WriteToAPendingRangeThatMainHoldsEndsTheRecord) {
    world->main.rewrite_heals = true;
    make_unreadable(1000, 16);
    ASSERT_EQ(remap(1000, 16), 0);
    ASSERT_EQ(redo_write(1000, pattern(555, 16)), 0);
    set_content(1000, pattern(555, 16));
    EXPECT_EQ(md->lookup(1000, 16).kind, DM_REMAP_NONE);
    EXPECT_EQ(free_sectors(), free_at_start);
    expect_content();
    // It was flushed before it was read back.
    world->main.power_off();
    world->main.power_on([](auto, auto) { return false; });
    expect_content();
}

TEST_P(Relocate, WriteToAPendingRangeRetiresBadSpare) {
    make_unreadable(1000, 16);
    ASSERT_EQ(remap(1000, 16), 0);
    world->spare.bad_write.insert(dm_remap_data_start(&(*md)->sb.layout));
    ASSERT_EQ(redo_write(1000, pattern(555, 16)), 0);
    set_content(1000, pattern(555, 16));
    expect_content();
    EXPECT_EQ(free_sectors(), free_at_start - 16 - g);
}

TEST_P(Relocate, WriteToAPendingRangeThatFailsLeavesItPending) {
    make_unreadable(1000, 16);
    ASSERT_EQ(remap(1000, 16), 0);
    world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
        return sector >= dm_remap_data_start(&(*md)->sb.layout) ? -EIO : 0;
    };
    EXPECT_EQ(redo_write(1000, pattern(555, 16)), -EIO);
    world->spare.on_write = nullptr;
    EXPECT_EQ(md->lookup(1000, 16).kind, DM_REMAP_PENDING);
    EXPECT_EQ(free_sectors(), free_at_start);
    EXPECT_EQ(atomic64_read(&(*md)->counter[DM_REMAP_REFUSED]), 1);
}

}  // namespace
}  // namespace remap

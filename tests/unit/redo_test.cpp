// What becomes of I/O that failed: the rows of the tables in docs/outcomes.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>
#include <utility>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kMain = 4096;
constexpr std::uint64_t kAt = 1024;  // where most requests go
constexpr std::uint32_t kLength = 64;
constexpr std::uint64_t kFar = 3072;

class Redo : public ::testing::TestWithParam<std::uint32_t> {
  protected:
    const std::uint32_t g = GetParam();
    // Where main is asked first whether it does anything.
    const std::uint64_t kControl = kMain / 16;
    // A block in the middle of the request.
    const std::uint64_t bad = kAt + 24;

    void SetUp() override { make(1 << 12); }

    void make(std::uint64_t spare_sectors, std::uint64_t max_records = 1000) {
        md.reset();
        world = formatted({.main_sectors = kMain,
                           .spare_sectors = spare_sectors,
                           .granularity = g,
                           .max_records = max_records});
        world->main.poke(0, pattern(0, kMain));
        content = world->main.image();
        md = open(*world);
        (*md)->policy.read_retries = 2;
        mover = std::make_unique<Mover>(*md);
        free_at_start = free_sectors();
        main_writes = world->main.writes();
    }

    // Of two blocks, and what is kept back for clearing.
    void make_small_table() { make(1 << 12, 1); }

    // Whatever happened: nothing is held, what is read is right, and a crash changes none of it.
    void TearDown() override {
        world->main.fail_read = nullptr;
        expect_content();
        for (std::uint64_t at = 0; at < kMain; at += g) {
            EXPECT_EQ(md->lookup(at).flags & DM_REMAP_F_HELD, 0) << at;
        }
        if ((*md)->mode == DM_REMAP_MODE_RW) {
            EXPECT_EQ(dm_remap_soft_commit(md->get()), 0);
            EXPECT_EQ(try_load(*world).records, md->records());
        }
    }

    // ---- a batch ----

    int write(std::uint64_t start, const Image& data) {
        dm_remap_redo_begin(mover->get());
        int error = redo_write(start, data, true);
        const int committed = dm_remap_redo_end(mover->get());
        error = error != 0 ? error : committed;
        if (error == 0) {
            set_content(start, data);
        }
        return error;
    }
    // @failed: main has just failed it.
    int redo_write(std::uint64_t start, const Image& data, bool failed = false) {
        const std::uint32_t n = data.size() / kSector;
        dm_remap_tried tried = tried_before(DM_REMAP_WRITE, n, failed);
        return dm_remap_redo_write(mover->get(), start, n, data.data(), &tried);
    }
    int redo_read(std::uint64_t start, std::uint32_t n, void* data, bool failed = false) {
        dm_remap_tried tried = tried_before(DM_REMAP_READ, n, failed);
        return dm_remap_redo_read(mover->get(), start, n, data, &tried);
    }
    // A request from sector 0 on that main has failed, in parts.
    void redo_all(bool writes, std::uint32_t sectors) {
        const dm_remap_direction direction = writes ? DM_REMAP_WRITE : DM_REMAP_READ;
        dm_remap_tried tried = tried_before(direction, sectors, true);
        Image data = writes ? pattern(7, sectors) : Image(std::size_t{sectors} * kSector);
        dm_remap_redo_begin(mover->get());
        for (std::uint32_t at = 0; at < sectors; at += DM_REMAP_REDO_SECTORS) {
            std::uint8_t* part = data.data() + std::size_t{at} * kSector;
            if (writes) {
                EXPECT_EQ(
                    dm_remap_redo_write(mover->get(), at, DM_REMAP_REDO_SECTORS, part, &tried), 0);
            } else {
                (void)dm_remap_redo_read(mover->get(), at, DM_REMAP_REDO_SECTORS, part, &tried);
            }
        }
        EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
        if (writes) {
            set_content(0, data);
        }
    }
    dm_remap_tried tried_before(dm_remap_direction direction, std::uint32_t n, bool failed) {
        return {failed ? dm_remap_main_failed(md->get(), direction) : 0, n};
    }
    // The next write of a batch, which looks like done; and what it is to be completed with.
    unsigned next_write(std::uint64_t start, const Image& data) {
        const unsigned number = dm_remap_redo_next(mover->get());
        EXPECT_EQ(redo_write(start, data), 0);
        return number;
    }
    // A part of a write that main fails once needs a control, before which all is committed.
    int commit_now() {
        unsigned left = 1;
        world->main.on_write = [&](auto, std::uint64_t sector, auto) {
            return sector == kFar && left != 0 && left-- != 0 ? -EIO : 0;
        };
        const int error = redo_write(kFar, pattern(9, g), true);
        world->main.on_write = nullptr;
        set_content(kFar, pattern(9, g));
        return error;
    }
    int result(unsigned number) { return dm_remap_redo_result(mover->get(), number); }
    int read(std::uint64_t start, std::uint32_t sectors) {
        got.assign(std::size_t{sectors} * kSector, 0);
        dm_remap_redo_begin(mover->get());
        const int error = redo_read(start, sectors, got.data(), true);
        EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
        dm_remap_rescue_again(mover->get());
        return error;
    }
    void expect_got(std::uint64_t start, std::uint64_t at, std::uint32_t sectors) {
        EXPECT_TRUE(std::equal(got.begin() + (at - start) * kSector,
                               got.begin() + (at - start + sectors) * kSector,
                               content.begin() + at * kSector))
            << at;
    }

    // ---- what there is ----

    std::uint64_t free_sectors() { return dm_remap_alloc_free_sectors(&(*md)->alloc); }
    std::uint64_t counter(dm_remap_counter c) { return atomic64_read(&(*md)->counter[c]); }
    std::uint64_t data_start() { return dm_remap_data_start(&(*md)->sb.layout); }
    std::uint64_t data_end() { return dm_remap_data_end(&(*md)->sb.layout); }
    unsigned kind(std::uint64_t sector) { return md->lookup(sector).kind; }
    unsigned reason(std::uint64_t sector) {
        dm_remap_record r{};
        EXPECT_TRUE(dm_remap_table_next(&(*md)->table, sector, &r));
        return r.main <= sector ? r.reason : 0;
    }
    unsigned notes(dm_remap_note what) {
        return std::count_if(world->notes.begin(), world->notes.end(),
                             [&](const Note& n) { return n.what == what; });
    }
    void expect_nothing_spent() {
        EXPECT_TRUE(md->records().empty());
        EXPECT_EQ(free_sectors(), free_at_start);
    }
    void expect_content() {
        Sector sector;
        for (std::uint64_t at = 0; at < kMain; at++) {
            const dm_remap_extent e = md->lookup(at);
            SimDisk& disk = e.kind == DM_REMAP_MAPPED ? world->spare : world->main;
            const std::uint64_t where = e.kind == DM_REMAP_MAPPED ? e.spare : at;
            if ((e.flags & DM_REMAP_F_DOUBT) == 0 && unknown != at / g &&
                disk.read(where, 1, sector.data()) == 0) {
                ASSERT_TRUE(
                    std::equal(sector.begin(), sector.end(), content.begin() + at * kSector))
                    << at;
            }
        }
    }
    void set_content(std::uint64_t start, const Image& data) {
        std::copy(data.begin(), data.end(), content.begin() + start * kSector);
    }

    // ---- faults ----

    void bad_block(SectorSet& set, std::uint64_t block) {
        for (std::uint32_t i = 0; i < g; i++) {
            set.insert(block + i);
        }
    }
    // Reads that touch @block fail, the first @times.
    void fail_reads(std::uint64_t block, unsigned times) {
        world->main.fail_read = [block, times](std::uint64_t sector, std::uint32_t n) mutable {
            if (sector > block || block >= sector + n || times == 0) {
                return 0;
            }
            times--;
            return -EIO;
        };
    }
    void pend(std::uint64_t block) {
        bad_block(world->main.bad_read, block);
        ASSERT_EQ(read(block, g), -EIO);
        ASSERT_EQ(kind(block), DM_REMAP_PENDING);
    }
    void shorten_main(std::uint64_t end) {
        world->main_end = end;
        world->main.fail_read = [end](std::uint64_t sector, std::uint32_t n) {
            return sector + n > end ? -EIO : 0;
        };
        world->main.on_write = [end](auto, std::uint64_t sector, std::uint32_t n) {
            return sector + n > end ? -EIO : 0;
        };
    }
    // Main refuses a write of nothing but these sectors, or some of them, and has lost them all
    // then.
    void refuse_and_lose(std::uint64_t at, std::uint32_t count) {
        world->main.on_write = [=, this](auto, std::uint64_t sector, std::uint32_t sectors) {
            if (sector < at || sector + sectors > at + count) {
                return 0;
            }
            for (std::uint64_t i = at; i < at + count; i++) {
                world->main.bad_read.insert(i);
            }
            return -EIO;
        };
    }
    // No data block of the spare takes a write.
    void spare_refuses_data() {
        world->spare.on_write = [this](auto, std::uint64_t sector, auto) {
            return sector >= data_start() && sector < data_end() ? -EIO : 0;
        };
    }
    void spare_is_dead() {
        world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    }
    void fill_spare() {
        std::uint64_t spare = 0;
        std::uint32_t taken = 0;
        while (dm_remap_alloc_take(&(*md)->alloc, 1 << 12, &spare, &taken) == 0) {
        }
    }

    // Records of one block each, away from the request and from the control, until no more fit.
    void fill_table() {
        std::uint64_t at = kMain;
        int error = 0;
        while (error == 0) {
            at = at == kAt + 2ULL * kLength ? kAt - kLength : at - g;
            ASSERT_GT(at, 2 * kControl);
            dm_remap_record r = pending(at, g);
            r.reason = at / g % 2 == 0 ? DM_REMAP_REASON_READ_ERROR : DM_REMAP_REASON_WRITE_ERROR;
            error = md->commit({r});
        }
        ASSERT_EQ(error, -ENOSPC);
        ASSERT_EQ(dm_remap_room(md->get()), 0U);
    }

    std::unique_ptr<World> world;
    std::unique_ptr<Metadata> md;
    std::unique_ptr<Mover> mover;
    Image content;
    Image got;
    std::uint64_t free_at_start = 0;
    std::uint64_t main_writes = 0;
    bool fail_commit = false;
    std::uint64_t unknown = UINT64_MAX;  // a block whose write failed: it may hold either
};

INSTANTIATE_TEST_SUITE_P(Granularity, Redo, ::testing::Values(1U, 8U));

// ---- writes to main ----

TEST_P(Redo, WriteThatWorksAgainLeavesNoRecord) {
    ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_EQ(world->main.writes(), main_writes + kLength / g);
    expect_nothing_spent();
}

TEST_P(Redo, WriteIsNarrowedToTheBlocksThatFail) {
    unsigned failed = 0;
    world->main.on_write = [&](auto, std::uint64_t sector, std::uint32_t n) {
        const bool fails = sector <= bad && bad < sector + n;
        failed += fails;
        return fails ? -EIO : 0;
    };
    ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_EQ(md->records().size(), 1U);
    EXPECT_EQ(md->lookup(bad, kLength).length, g);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ(reason(bad), DM_REMAP_REASON_WRITE_ERROR);
    EXPECT_EQ(free_sectors(), free_at_start - g);
    EXPECT_EQ(counter(DM_REMAP_RELOCATED), 1U);
    EXPECT_EQ(notes(DM_REMAP_NOTE_BAD), 1U);
    EXPECT_EQ(notes(DM_REMAP_NOTE_RELOCATED), 1U);
    // After the request itself: the block, and the block again.
    EXPECT_EQ(failed, 2U);
    // Durable, data and record.
    world->spare.power_off();
    world->spare.power_on([](auto, auto) { return false; });
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST_P(Redo, LoneBadBlockIsProvedByRewritingAGoodOne) {
    bad_block(world->main.bad_write, bad);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ(world->drains, 1U);
    EXPECT_EQ(world->main.writes(), main_writes + 3);
    // The copy of the good one was for a moment.
    EXPECT_EQ(md->records().size(), 1U);
    EXPECT_EQ(free_sectors(), free_at_start - g);
    EXPECT_EQ(counter(DM_REMAP_RELOCATED), 1U);
    EXPECT_EQ(counter(DM_REMAP_RESCUED), 0U);
    EXPECT_EQ(notes(DM_REMAP_NOTE_CLEARED), 0U);
}

// All have failed before main works for the first. It is asked twice: for the first, and after the
// last, whether it still works.
TEST_P(Redo, WritesThatFailTogetherShareTheEvidence) {
    constexpr unsigned kWrites = 16;
    for (const bool goes : {false, true}) {
        make(1 << 12);
        std::vector<dm_remap_tried> tried;
        for (unsigned i = 0; i < kWrites; i++) {
            bad_block(world->main.bad_write, bad + 2ULL * i * g);
            tried.push_back(tried_before(DM_REMAP_WRITE, g, true));
        }
        dm_remap_redo_begin(mover->get());
        unsigned spare_writes = 0;
        for (unsigned i = 0; i < kWrites; i++) {
            const Image data = pattern(7 + i, g);
            const unsigned number = dm_remap_redo_next(mover->get());
            EXPECT_EQ(number, i);
            EXPECT_EQ(
                dm_remap_redo_write(mover->get(), bad + 2ULL * i * g, g, data.data(), &tried[i]),
                0);
            spare_writes = i == 0 ? world->spare.writes() : spare_writes;
            if (i == 0 || !goes) {
                set_content(bad + 2ULL * i * g, data);
            }
        }
        EXPECT_EQ(world->drains, 1U);
        EXPECT_EQ(world->spare.writes(), spare_writes + 2 + kWrites - 1)
            << "the record of the first, and the data of the others";
        if (goes) {
            world->main.on_write = [](auto, auto, auto) { return -EIO; };
        }
        EXPECT_EQ(dm_remap_redo_end(mover->get()), goes ? -EIO : 0);
        EXPECT_EQ(md->records().size(), goes ? 1U : kWrites);
        EXPECT_EQ(free_sectors(), free_at_start - g * (goes ? 1 : kWrites));
        EXPECT_EQ(result(0), 0);
        EXPECT_EQ(result(kWrites - 1), goes ? -EIO : 0);
        world->main.on_write = nullptr;
    }
}

// A block of the same write that was good, once more: nobody else's is needed.
TEST_P(Redo, GoodBlocksOfTheWriteAreControlEnough) {
    bad_block(world->main.bad_write, kAt + kLength - g);
    ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_EQ(kind(kAt + kLength - g), DM_REMAP_MAPPED);
    EXPECT_EQ(world->drains, 0U);
}

// The block that is rewritten is held, and a write on its way to it is not lost.
TEST_P(Redo, ControlTakesCareOfWritesOnTheirWay) {
    bad_block(world->main.bad_write, bad);
    world->on_drain = [this] {
        EXPECT_TRUE(md->flagged(DM_REMAP_F_HELD, kControl));
        world->main.poke(kControl, pattern(99, g));
        set_content(kControl, pattern(99, g));
    };
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(world->drains, 1U);
}

TEST_P(Redo, ControlThatFailsAndLosesNothingStays) {
    bad_block(world->main.bad_write, bad);
    bad_block(world->main.bad_write, kControl);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ(kind(kControl), DM_REMAP_NONE);
}

TEST_P(Redo, ControlThatIsLostByItIsSaved) {
    for (const bool dead : {false, true}) {
        make(1 << 12);
        bad_block(world->main.bad_write, bad);
        world->main.on_write = [this, dead](auto, std::uint64_t sector, auto) {
            if (sector == kControl) {
                bad_block(world->main.bad_read, kControl);
            }
            return dead || sector == kControl ? -EIO : 0;
        };
        EXPECT_EQ(write(bad, pattern(7, g)), dead ? -EIO : 0);
        EXPECT_EQ(kind(kControl), DM_REMAP_MAPPED);
        expect_content();
    }
}

// So is one that it left with neither what was there nor what was written.
TEST_P(Redo, ControlThatIsTornByItIsSaved) {
    bad_block(world->main.bad_write, bad);
    world->main.on_write = [this](auto, std::uint64_t sector, auto) {
        if (sector != kControl) {
            return 0;
        }
        world->main.poke(kControl, pattern(99, g));
        return -EIO;
    };
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(kControl), DM_REMAP_MAPPED);
    expect_content();
}

// A drive with blocks of 4096 bytes loses all of one where it fails to write a part of it.
TEST_P(Redo, ControlIsAWholeBlockOfTheMedia) {
    (*md)->main_block = 8;
    bad_block(world->main.bad_write, bad);
    refuse_and_lose(kControl, 8);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(md->lookup(kControl, 8).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(md->lookup(kControl, 8).length, 8U);
}

// Main's copy of what is remapped is old: a block of the media that has some of it is no control.
TEST_P(Redo, ControlHoldsNothingThatIsRemapped) {
    if (g == 8) {
        GTEST_SKIP() << "a block of the media is one of ours";
    }
    (*md)->main_block = 8;
    ASSERT_EQ(md->remap(kControl + 3), 0);
    set_content(kControl + 3, pattern(kControl + 3, 1));
    bad_block(world->main.bad_write, bad);
    refuse_and_lose(kControl, 8);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(kControl), DM_REMAP_NONE);
    EXPECT_EQ(md->lookup(kControl + 3, 8).length, 1U);
}

// Nor does a control beside the range begin, or end, within a block of the media.
TEST_P(Redo, ControlBesideTheRangeIsAWholeBlockOfTheMedia) {
    if (g == 8) {
        GTEST_SKIP() << "a block of the media is one of ours";
    }
    (*md)->main_block = 8;
    const std::uint64_t at = bad + 3;
    for (unsigned i = 0; i < 8; i++) {
        ASSERT_EQ(md->commit({pending(kMain * (2 * i + 1) / 16, 8)}), 0);
        world->main.fail_read = nullptr;
    }
    for (unsigned i = 0; i < 8; i++) {
        bad_block(world->main.bad_read, kMain * (2 * i + 1) / 16);
    }
    for (const std::uint64_t beside : {bad + 8, bad - 8}) {
        std::set<std::pair<std::uint64_t, std::uint32_t>> written;
        world->main.on_write = [&](auto, std::uint64_t sector, std::uint32_t n) {
            if (sector <= at && at < sector + n) {
                return -EIO;
            }
            written.emplace(sector, n);
            return 0;
        };
        EXPECT_EQ(write(at, pattern(7, 1)), 0);
        EXPECT_EQ(written, (std::set<std::pair<std::uint64_t, std::uint32_t>>{{beside, 8}}));
        dm_remap_moved moved{};
        world->main.on_write = nullptr;
        ASSERT_EQ(dm_remap_unremap(md->get(), at, 1, &moved), 0);
        // The next time that is none.
        world->main.bad_read.insert(beside);
    }
}

// The same of a good part of the request itself: what lies beside it in a block is not at risk.
TEST_P(Redo, OwnControlIsAWholeBlockOfTheMedia) {
    if (g == 8) {
        GTEST_SKIP() << "a block of the media is one of ours";
    }
    (*md)->main_block = 8;
    for (std::uint64_t at = kAt + 56; at < kAt + 60; at++) {
        bad_block(world->main.bad_write, at);
    }
    std::pair<std::uint64_t, std::uint32_t> last;
    world->main.after_write = [&](std::uint64_t sector, std::uint32_t n) { last = {sector, n}; };
    ASSERT_EQ(write(kAt + 4, pattern(7, 56)), 0);
    EXPECT_EQ(last, std::make_pair(kAt + 8, 8U));
    EXPECT_EQ(world->drains, 0U);
    EXPECT_EQ(kind(kAt + 56), DM_REMAP_MAPPED);
}

// What main had taken of the same request, and lost when it was asked to take it once more.
TEST_P(Redo, GoodBlocksOfTheWriteThatAreLostByBeingAskedAreMoved) {
    for (const std::uint32_t media : {0U, 8U}) {
        make(1 << 12);
        (*md)->main_block = media;
        const std::uint32_t asked = std::max(media, g);
        bad_block(world->main.bad_write, kAt + kLength - g);
        refuse_and_lose(kAt, asked);
        ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
        EXPECT_EQ(md->lookup(kAt, kLength).kind, DM_REMAP_MAPPED);
        EXPECT_EQ(md->lookup(kAt, kLength).length, asked);
        EXPECT_EQ(kind(kAt + kLength - g), DM_REMAP_MAPPED);
    }
}

// A write that begins and ends within blocks of the media: what it has of one that fails in part
// goes to the spare, and no part of the other is asked for more, with what lies beside it.
TEST_P(Redo, PartsOfABlockOfTheMediaFailTogether) {
    if (g == 8) {
        GTEST_SKIP() << "there are no parts";
    }
    (*md)->main_block = 8;
    bad_block(world->main.bad_write, kAt + 10);
    std::set<std::uint64_t> starts;
    world->main.on_write = [&](auto, std::uint64_t sector, auto) {
        starts.insert(sector);
        return 0;
    };
    ASSERT_EQ(write(kAt + 4, pattern(7, 7)), 0);
    ASSERT_EQ(md->records().size(), 1U);
    EXPECT_EQ(md->records()[0].main, kAt + 8);
    EXPECT_EQ(md->records()[0].length, 3U);
    EXPECT_TRUE(starts.contains(kControl));
}

// A control that fails otherwise says that it is not the media: nobody else is asked.
TEST_P(Redo, ControlThatCannotBeReachedIsNoneAndTheLast) {
    unsigned asked = 0;
    const auto verdict = [&](std::uint64_t sector) {
        asked += sector != bad;
        return sector == bad ? -EIO : -ENOLINK;
    };
    world->main.fail_read = [&](std::uint64_t sector, auto) { return verdict(sector); };
    EXPECT_EQ(read(bad, g), -EIO);
    EXPECT_EQ(asked, 1U);
    world->main.fail_read = nullptr;
    world->main.on_write = [&](auto, std::uint64_t sector, auto) { return verdict(sector); };
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ(asked, 2U);
    expect_nothing_spent();
}

// Few good blocks are put at risk, with any error of main.
TEST_P(Redo, ControlsThatFailAreFew) {
    for (const int error : {-EIO, -ENODATA}) {
        std::set<std::uint64_t> asked;
        world->main.on_write = [&](auto, std::uint64_t sector, auto) {
            asked.insert(sector);
            return error;
        };
        EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
        asked.erase(bad);
        EXPECT_EQ(asked.size(), 3U) << error;
    }
    expect_nothing_spent();
}

// Nor does the person wait who closes the breaker in the midst of a batch.
TEST_P(Redo, BreakerIsClosedWhileABatchIsRedone) {
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    }
    ASSERT_TRUE(dm_remap_breaker_open(md->get()));
    dm_remap_redo_begin(mover->get());
    dm_remap_breaker_reset(md->get());
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
}

// Main is not asked where others write, and nobody waits for them: that says nothing of main.
TEST_P(Redo, ControlThatCannotBeHeldSaysNothingOfMain) {
    bad_block(world->main.bad_write, bad);
    world->busy = true;
    for (unsigned i = 0; i < 2 * DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    }
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
    // One place is idle again.
    unsigned asked = 0;
    world->on_drain = [&] { world->busy = ++asked < 5; };
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(asked, 5U);
}

// Nor without the memory to hold a block.
TEST_P(Redo, ControlIsTakenElsewhereWhereMemoryIsShort) {
    bad_block(world->main.bad_write, bad);
    const FailAllocation first(0);
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_TRUE(first.happened());
}

// Where nothing could be moved no good block is put at risk for it.
TEST_P(Redo, NoControlWithoutRoomOnTheSpare) {
    fill_spare();
    bad_block(world->main.bad_write, bad);
    for (unsigned i = 0; i < 2 * DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    }
    EXPECT_EQ(world->drains, 0U);
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
    unknown = bad / g;
}

// Main did something before it went: that is no control.
TEST_P(Redo, MainThatGoesInTheMiddleOfABatchSpendsNothing) {
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(redo_write(kAt, pattern(7, kLength), true), 0);
    set_content(kAt, pattern(7, kLength));
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    world->main.fail_read = [](auto, auto) { return -EIO; };
    EXPECT_EQ(redo_write(2048, pattern(8, kLength), true), -EIO);
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
    world->main.on_write = nullptr;
    expect_nothing_spent();
}

// A record that is about to be committed holds newer data than main.
TEST_P(Redo, ControlLeavesAloneWhatTheBatchHasMoved) {
    bad_block(world->main.bad_write, kControl);
    bad_block(world->main.bad_write, bad);
    dm_remap_redo_begin(mover->get());
    ASSERT_EQ(redo_write(kControl, pattern(8, g), true), 0);
    set_content(kControl, pattern(8, g));
    world->main.on_write = [this](auto, std::uint64_t sector, auto) {
        if (sector == kControl) {
            bad_block(world->main.bad_read, kControl);
        }
        return 0;
    };
    ASSERT_EQ(redo_write(bad, pattern(7, g), true), 0);
    ASSERT_EQ(dm_remap_redo_end(mover->get()), 0);
    set_content(bad, pattern(7, g));
    expect_content();
}

TEST_P(Redo, WriteProtectedMainSpendsNothing) {
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_FALSE(dm_remap_breaker_open(md->get()));
        EXPECT_EQ(write(kAt + i * 64, pattern(7, kLength)), -EIO);
    }
    EXPECT_TRUE(dm_remap_breaker_open(md->get()));
    EXPECT_EQ(notes(DM_REMAP_NOTE_BREAKER), 1U);
    expect_nothing_spent();
    // While it is open nothing is tried.
    const std::uint64_t writes = world->main.writes();
    EXPECT_EQ(write(kAt, pattern(7, kLength)), -EIO);
    EXPECT_EQ(world->main.writes(), writes);
}

TEST_P(Redo, BreakerClosesWhenMainWorksAgain) {
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(kAt, pattern(7, g)), -EIO);
    }
    world->main.on_write = nullptr;
    bad_block(world->main.bad_write, bad);
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    world->uptime += DM_REMAP_BREAKER_PAUSE;
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
}

TEST_P(Redo, ClockThatWasSetBackDoesNotKeepTheBreakerOpen) {
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(kAt, pattern(7, g)), -EIO);
    }
    ASSERT_TRUE(dm_remap_breaker_open(md->get()));
    world->main.on_write = nullptr;
    world->time -= 86'400;
    world->uptime += DM_REMAP_BREAKER_PAUSE;
    EXPECT_EQ(write(kAt, pattern(7, g)), 0);
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
}

// What waited for a range, or goes to a pending one, has not been tried yet.
TEST_P(Redo, OpenBreakerLetsThroughWhatHasNotFailed) {
    world->main.fail_read = [](auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(read(kAt, g), -EIO);
    }
    ASSERT_TRUE(dm_remap_breaker_open(md->get()));
    world->main.fail_read = nullptr;
    EXPECT_EQ(read(kAt, g), -EIO);
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(redo_read(kAt, g, got.data()), 0);
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
}

TEST_P(Redo, ReadsThatWorkDoNotCloseTheBreakerOfWrites) {
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(kAt, pattern(7, g)), -EIO);
        EXPECT_EQ(read(kAt, g), 0);
    }
    EXPECT_TRUE(dm_remap_breaker_open(md->get()));
    EXPECT_EQ(read(kAt, g), 0);
    EXPECT_TRUE(dm_remap_breaker_open(md->get()));
}

// The spare's I/O says nothing of main.
TEST_P(Redo, WritesToTheSpareDoNotCloseTheBreaker) {
    ASSERT_EQ(md->remap(bad, g), 0);
    set_content(bad, pattern(bad, g));
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(kAt + kLength, pattern(7, g)), -EIO);
    }
    ASSERT_TRUE((*md)->breaker[DM_REMAP_WRITE].open);
    EXPECT_EQ(write(bad, pattern(8, g)), 0);
    EXPECT_TRUE((*md)->breaker[DM_REMAP_WRITE].open);
}

TEST_P(Redo, BreakerOpensForTimeOuts) {
    world->main.on_write = [](auto, auto, auto) { return -ETIMEDOUT; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(kAt, pattern(7, g)), -ETIMEDOUT);
    }
    EXPECT_TRUE(dm_remap_breaker_open(md->get()));
    expect_nothing_spent();
}

// The breaker is main's: a spare that takes too long says nothing of it.
TEST_P(Redo, TimeOutsOfTheSpareOpenNoBreaker) {
    ASSERT_EQ(md->remap(bad, g), 0);
    set_content(bad, pattern(bad, g));
    const Records before = md->records();
    world->spare.on_write = [](auto, auto, auto) { return -ETIMEDOUT; };
    for (unsigned i = 0; i < 2 * DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(bad, pattern(7, g)), -ETIMEDOUT);
        ASSERT_FALSE(world->log.empty());
        EXPECT_NE(world->log.back().find("write of the spare at sector"), std::string::npos);
    }
    world->spare.on_write = nullptr;
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
    EXPECT_EQ(md->records(), before);
}

// A drive that takes seconds for each bad block does not hold up everything for hours.
TEST_P(Redo, TimeIsLimited) {
    for (const bool gets_slower : {false, true}) {
        const std::uint64_t begin = world->uptime;
        world->main.fail_read = [this, begin, gets_slower](auto, auto) {
            const bool late = world->uptime - begin >= DM_REMAP_REDO_HURRY;
            world->uptime += gets_slower && late ? 40 : 10;
            return -EIO;
        };
        EXPECT_EQ(read(kAt, DM_REMAP_REDO_SECTORS), -EIO);
        // At its end main may be asked whether it does anything.
        EXPECT_LT(world->uptime - begin, DM_REMAP_REDO_BUDGET + 10 * 11);
        EXPECT_TRUE(md->records().empty());
    }
}

// A drive that takes half a minute for each command that fails. What is bad is found as far as
// there is time, and that main was slow is no reason not to believe it.
TEST_P(Redo, SlowMainIsNarrowedAsFarAsTimeAllows) {
    const std::uint64_t begin = world->uptime;
    const auto slow = [this](std::uint64_t sector, std::uint32_t n) {
        if (sector > bad || bad >= sector + n) {
            return 0;
        }
        world->uptime += 25;
        return -EIO;
    };
    world->main.fail_read = slow;
    EXPECT_EQ(read(kAt, 256), -EIO);
    EXPECT_LE(world->uptime - begin, DM_REMAP_REDO_BUDGET);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_EQ(kind(kAt + 128), DM_REMAP_NONE);
    EXPECT_EQ((*md)->breaker[DM_REMAP_READ].failures, 0U);

    world->main.on_write = [slow](auto, auto sector, auto n) { return slow(sector, n); };
    EXPECT_EQ(write(kAt + 256, pattern(7, 64)), 0);
    EXPECT_EQ(write(kAt, pattern(7, 256)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ((*md)->breaker[DM_REMAP_WRITE].failures, 0U);
}

// Of a disk with physical blocks of 4096 bytes and logical ones of 512, eight fail together: who
// looked for the one that is bad would need 31 commands.
TEST_P(Redo, NarrowingEndsAtTheMediasBlock) {
    (*md)->main_block = 8;
    unsigned failed = 0;
    world->main.fail_read = [&](std::uint64_t sector, std::uint32_t n) {
        const bool fails = sector < bad + 8 && bad < sector + n;
        failed += fails;
        return fails ? -EIO : 0;
    };
    EXPECT_EQ(read(kAt, 64), -EIO);
    EXPECT_EQ(md->records(), (Records{{DM_REMAP_PENDING, bad, 0, 8}}));
    EXPECT_LE(failed, 4U + 2U);  // 64, 32, 16 and 8 sectors, and what the policy adds
    // A request that begins within one of them is looked at block by block.
    failed = 0;
    EXPECT_EQ(read(bad + 8 - g, 8), -EIO);
    EXPECT_GT(failed, 0U);
}

// Whoever sets the clock does not make a drive slow.
TEST_P(Redo, ClockThatIsSetForwardFailsNothing) {
    bad_block(world->main.bad_write, bad);
    world->main.on_write = [this](auto, auto, auto) {
        world->time += 1000;
        return 0;
    };
    ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
}

TEST_P(Redo, BreakerClosesWhenAPersonSaysSo) {
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(write(kAt, pattern(7, g)), -EIO);
    }
    world->main.on_write = nullptr;
    dm_remap_breaker_reset(md->get());
    EXPECT_EQ(write(kAt, pattern(7, g)), 0);
}

TEST_P(Redo, ErrorThatIsNotTheMediasPasses) {
    // All that the block layer makes of a status, and what nobody knows.
    for (int error :
         {-ETIMEDOUT, -ENODEV, -ENOLINK, -EBADE, -ENOSPC, -EILSEQ, -EOPNOTSUPP, -ENOMEM, -EBUSY,
          -EREMCHG, -EAGAIN, -ETOOMANYREFS, -EOVERFLOW, -ETIME, -EINVAL, -EXFULL}) {
        const std::string why = error == -ETIMEDOUT ? "took too long" : "not the media's error";
        world->main.on_write = [=](auto, auto, auto) { return error; };
        EXPECT_EQ(write(kAt, pattern(7, kLength)), error);
        ASSERT_FALSE(world->log.empty());
        EXPECT_NE(world->log.back().find("write of main at sector"), std::string::npos);
        EXPECT_NE(world->log.back().find(why), std::string::npos) << world->log.back();
        world->main.fail_read = [=](auto, auto) { return error; };
        EXPECT_EQ(read(kAt, kLength), error);
        EXPECT_NE(world->log.back().find("read of main at sector"), std::string::npos);
        EXPECT_NE(world->log.back().find(why), std::string::npos) << world->log.back();
        world->main.on_write = nullptr;
        world->main.fail_read = nullptr;
    }
    expect_nothing_spent();
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
}

// A main that was made shorter fails what lies behind its end. So do its reads there, and the
// controls; the range may be pending, and the request may begin before the end.
TEST_P(Redo, MainThatBecameShorterLeavesNoRecord) {
    pend(kAt + kLength);
    const Records before = md->records();
    world->main.bad_read.clear();
    world->log.clear();
    shorten_main(kAt + g);
    EXPECT_EQ(write(bad, pattern(7, g)), -ENXIO);
    EXPECT_EQ(write(kAt, pattern(7, kLength)), -ENXIO);
    EXPECT_EQ(read(kAt, kLength), -ENXIO);
    EXPECT_EQ(write(kAt + kLength, pattern(7, g)), -ENXIO);
    EXPECT_EQ(md->records(), before);
    EXPECT_EQ(world->main.writes(), main_writes);
    EXPECT_EQ(notes(DM_REMAP_NOTE_BAD), 1U);
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
    ASSERT_EQ(world->log.size(), 1U);
    EXPECT_NE(world->log[0].find("main has only " + std::to_string(kAt + g) + " sectors now"),
              std::string::npos)
        << world->log[0];
    // Before its end it is a disk like any other, and what it does not reach is served by the
    // spare.
    ASSERT_EQ(write(kAt, pattern(8, g)), 0);
    // It gets still shorter, and is made longer again.
    shorten_main(kAt);
    EXPECT_EQ(read(kAt, g), -ENXIO);
    EXPECT_EQ(world->log.size(), 2U);
    shorten_main(UINT64_MAX);
    ASSERT_EQ(read(kAt, g), 0);
    expect_got(kAt, kAt, g);
    EXPECT_EQ(write(bad, pattern(9, g)), 0);
}

TEST_P(Redo, RecordsBehindTheEndOfMainAreServed) {
    ASSERT_EQ(md->remap(bad, g), 0);
    set_content(bad, pattern(bad, g));
    shorten_main(kAt);
    ASSERT_EQ(read(bad, g), 0);
    expect_got(bad, bad, g);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_TRUE(world->log.empty());
}

// It becomes shorter while a request is redone.
TEST_P(Redo, MainThatBecomesShorterMeanwhileLeavesNoRecord) {
    world->main.on_write = [this](auto, std::uint64_t sector, std::uint32_t sectors) {
        if (sector <= bad && bad < sector + sectors) {
            world->main_end = kAt;
            return -EIO;
        }
        return 0;
    };
    EXPECT_EQ(write(kAt, pattern(7, kLength)), -ENXIO);
    world->main.on_write = nullptr;
    world->main_end = UINT64_MAX;
    expect_nothing_spent();
    // As far as that it was written.
    const Image data = pattern(7, kLength);
    set_content(kAt, Image(data.begin(), data.begin() + (bad - kAt) * kSector));
}

TEST_P(Redo, WritesAreDurable) {
    bad_block(world->main.bad_write, bad);
    ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
    world->main.power_off();
    world->main.power_on([](auto, auto) { return false; });
    expect_content();
}

TEST_P(Redo, NoAutoRemapRecordsAndMovesNothing) {
    (*md)->policy.no_auto_remap = true;
    bad_block(world->main.bad_write, bad);
    EXPECT_EQ(write(kAt, pattern(7, kLength)), -EIO);
    for (std::uint64_t at = kAt; at < kAt + kLength; at++) {
        if (at < bad || at >= bad + g) {
            std::copy_n(pattern(7, kLength).begin() + (at - kAt) * kSector, kSector,
                        content.begin() + at * kSector);
        }
    }
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_EQ(reason(bad), DM_REMAP_REASON_WRITE_ERROR);
    EXPECT_EQ(free_sectors(), free_at_start);
}

// Nobody else's block is rewritten, so there is no telling: many bad ones, or one alone.
TEST_P(Redo, NoAutoRemapWritesNoControl) {
    (*md)->policy.no_auto_remap = true;
    for (std::uint32_t at = 0; at < kLength; at += g) {
        bad_block(world->main.bad_write, kAt + at);
    }
    EXPECT_EQ(write(kAt, pattern(7, kLength)), -EIO);
    EXPECT_EQ(write(kAt, pattern(7, g)), -EIO);
    EXPECT_EQ(world->drains, 0U);
    expect_nothing_spent();
    EXPECT_FALSE(dm_remap_breaker_open(md->get()));
}

TEST_P(Redo, ManyBadBlocksInOneWrite) {
    for (std::uint32_t at = 0; at < DM_REMAP_REDO_SECTORS; at += 2 * g) {
        bad_block(world->main.bad_write, kAt + at);
    }
    ASSERT_EQ(write(kAt, pattern(7, DM_REMAP_REDO_SECTORS)), 0);
    EXPECT_EQ(free_sectors(), free_at_start - DM_REMAP_REDO_SECTORS / 2);
}

TEST_P(Redo, LogTellsOfRelocationsOnceAMinute) {
    const auto told = [this] {
        const std::string line = world->log.empty() ? "" : world->log.back();
        world->log.clear();
        return line;
    };
    const std::string n = g == 1 ? "1 sector" : "8 sectors";
    EXPECT_EQ(dm_remap_moves_tell(md->get(), true), 0U);
    EXPECT_EQ(told(), "");
    for (unsigned i = 0; i < 5; i++) {
        bad_block(world->main.bad_write, kAt + i * 16ULL);
    }
    ASSERT_EQ(write(kAt, pattern(7, g)), 0);
    EXPECT_EQ(dm_remap_moves_tell(md->get(), false), 0U);
    EXPECT_EQ(told(), n + " moved to the spare, first " + std::to_string(kAt));
    // Within the minute nothing is told; then all at once, with the first of them.
    world->uptime += 10;
    ASSERT_EQ(write(kAt + 48, pattern(8, g)), 0);
    EXPECT_EQ(dm_remap_moves_tell(md->get(), false), DM_REMAP_MOVES_PAUSE - 10);
    world->uptime += 20;
    ASSERT_EQ(write(kAt + 16, pattern(8, g)), 0);
    EXPECT_EQ(dm_remap_moves_tell(md->get(), false), DM_REMAP_MOVES_PAUSE - 30);
    EXPECT_EQ(told(), "");
    world->uptime += DM_REMAP_MOVES_PAUSE - 30;
    EXPECT_EQ(dm_remap_moves_tell(md->get(), false), 0U);
    EXPECT_EQ(told(), std::to_string(2 * g) +
                          " sectors moved to the spare in the last 50 seconds, "
                          "first " +
                          std::to_string(kAt + 48));
    // A suspend does not wait for that.
    ASSERT_EQ(write(kAt + 32, pattern(8, g)), 0);
    EXPECT_EQ(dm_remap_moves_tell(md->get(), true), 0U);
    EXPECT_EQ(told(), n + " moved to the spare, first " + std::to_string(kAt + 32));
    // A move by hand is told of in the answer to the message.
    dm_remap_moved moved{};
    ASSERT_EQ(dm_remap_remap(md->get(), 0, g, &moved), 0);
    EXPECT_EQ(dm_remap_moves_tell(md->get(), true), 0U);
    EXPECT_EQ(told(), "");
}

// Behind the bad block nothing is known to fail: it is one command.
TEST_P(Redo, RestOfARequestIsOneCommand) {
    bad_block(world->main.bad_write, kAt);
    ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
    // The block, the next one, the block again, and the rest.
    EXPECT_EQ(world->main.writes(), main_writes + 4);
}

// ---- blackouts ----

// Main fails so many commands in a row, the request among them, and is well then: nothing of that
// is its media's.
TEST_P(Redo, BlackoutLeavesNoRecord) {
    unsigned left = 0;
    const auto fails = [&] { return left != 0 && left-- != 0 ? -EIO : 0; };
    world->main.fail_read = [&](auto, auto) { return fails(); };
    world->main.on_write = [&](auto, auto, auto) { return fails(); };
    for (const std::uint32_t length : {g, 8U, kLength, DM_REMAP_REDO_SECTORS}) {
        for (unsigned k = 0; k <= 40; k++) {
            left = k;
            (void)read(kAt, length);
            left = k;
            (void)write(kAt, pattern(k, length));
            left = 0;
            ASSERT_EQ(write(kAt, pattern(k, length)), 0);
            ASSERT_TRUE(md->records().empty()) << length << " sectors, " << k << " fail";
            dm_remap_breaker_reset(md->get());
        }
    }
    EXPECT_EQ(free_sectors(), free_at_start);
}

// Wherever it begins, beside a block that is bad.
TEST_P(Redo, BlackoutBesideABadBlockLeavesNoOtherRecord) {
    for (const bool writes : {false, true}) {
        for (unsigned begin = 0; begin < 40; begin++) {
            for (unsigned k = 1; k < 12; k++) {
                make(1 << 12);
                unsigned n = 0;
                const auto fails = [&](std::uint64_t sector, std::uint32_t sectors) {
                    const unsigned now = n++;
                    const bool hit = sector < bad + g && bad < sector + sectors;
                    return hit || (now >= begin && now < begin + k) ? -EIO : 0;
                };
                world->main.fail_read = [&](auto s, auto c) { return writes ? 0 : fails(s, c); };
                world->main.on_write = [&](auto, auto s, auto c) {
                    return writes ? fails(s, c) : 0;
                };
                const int error = writes ? write(kAt, pattern(7, 32)) : read(kAt, 32);
                world->main.fail_read = nullptr;
                world->main.on_write = nullptr;
                const Records records = md->records();
                ASSERT_LE(records.size(), 1U);
                ASSERT_TRUE(records.empty() || (records[0].main == bad && records[0].length == g))
                    << "from " << begin << ", " << k << " fail";
                if (error != 0 && writes) {
                    ASSERT_EQ(write(kAt, pattern(7, 32)), 0);
                }
            }
        }
    }
}

// ---- what it costs ----

// Commands that fail take a disk many seconds. A bad block costs three of them in a write. In a
// read it costs one, and the tries that the owner wants. The request's own failure is among them.
TEST_P(Redo, FewCommandsFailForABadBlock) {
    for (const std::uint32_t media : {0U, 8U}) {
        const std::uint32_t unit = std::max(media, g);
        for (const bool writes : {false, true}) {
            for (const unsigned n : {1U, 2U, 40U}) {
                for (const unsigned apart : {1U, 2U, 3U}) {
                    for (const unsigned first : {0U, 1U, 7U, 24U}) {
                        make(1 << 12);
                        (*md)->main_block = media;
                        unsigned failed = 1;  // the request itself
                        const auto fails = [&](std::uint64_t sector, std::uint32_t count) {
                            for (unsigned i = 0; i < n; i++) {
                                const std::uint64_t at = (first + std::uint64_t{i} * apart) * unit;
                                if (sector < at + unit && at < sector + count) {
                                    failed++;
                                    return -EIO;
                                }
                            }
                            return 0;
                        };
                        world->main.fail_read = [&](auto s, auto c) {
                            return writes ? 0 : fails(s, c);
                        };
                        world->main.on_write = [&](auto, auto s, auto c) {
                            return writes ? fails(s, c) : 0;
                        };
                        redo_all(writes, 2048);
                        world->main.fail_read = nullptr;
                        world->main.on_write = nullptr;
                        const unsigned most =
                            writes ? 3 : 1 + std::max(2U, 1 + (*md)->policy.read_retries);
                        EXPECT_LE(failed, most * n)
                            << (writes ? "write, " : "read, ") << n << " bad, " << apart
                            << " apart, from block " << first << " of " << unit;
                        dm_remap_totals totals{};
                        dm_remap_table_totals(&(*md)->table, &totals);
                        EXPECT_EQ(writes ? totals.mapped : totals.pending, n * unit);
                    }
                }
            }
        }
    }
}

// ---- the spare, when a write is to go there ----

TEST_P(Redo, FullSpareFailsTheWrite) {
    fill_spare();
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_TRUE(md->records().empty());
    EXPECT_EQ(counter(DM_REMAP_REFUSED), 1U);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
}

// No good block is put at risk for it, either: there would be no record to save it by.
TEST_P(Redo, FullTableFailsTheWrite) {
    make_small_table();
    fill_table();
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    world->log.clear();
    main_writes = world->main.writes();
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    EXPECT_EQ(free_sectors(), free_at_start);
    EXPECT_EQ(counter(DM_REMAP_REFUSED), 1U);
    EXPECT_EQ(world->main.writes(), main_writes + 1);
    ASSERT_EQ(world->log.size(), 1U);
    EXPECT_NE(world->log[0].find("the table is full"), std::string::npos) << world->log[0];
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_TABLE_FULL);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
}

// There is room for one record more, and two are wanted: known before, or when the run has been
// placed piece by piece.
TEST_P(Redo, TableThatBecomesFullFailsTheWrite) {
    for (bool in_pieces : {false, true}) {
        make_small_table();
        fill_table();
        for (std::uint64_t at = kMain - g; dm_remap_room(md->get()) == 0; at -= g) {
            ASSERT_EQ(md->commit({clear(at, g)}), 0);
        }
        ASSERT_EQ(dm_remap_room(md->get()), 1U);
        if (in_pieces) {
            fill_spare();
            dm_remap_alloc_release(&(*md)->alloc, data_start(), g);
            dm_remap_alloc_release(&(*md)->alloc, data_start() + 2 * g, g);
        }
        for (std::uint32_t i = 0; i < 2; i++) {
            bad_block(world->main.bad_write, bad + (in_pieces ? 1 : 2) * i * g);
        }
        world->log.clear();
        const Image data = pattern(7, kLength);
        // What the batch ends with is for those that look like done.
        EXPECT_EQ(write(kAt, data), in_pieces ? -ENOSPC : -EIO);
        for (std::uint32_t i = 0; i < kLength; i++) {
            const bool failed =
                world->main.bad_write.any(kAt + i, 1) && kind(kAt + i) == DM_REMAP_NONE;
            if (!failed) {
                set_content(kAt + i,
                            {data.begin() + i * kSector, data.begin() + (i + 1) * kSector});
            }
        }
        EXPECT_EQ(kind(bad), in_pieces ? DM_REMAP_NONE : DM_REMAP_MAPPED);
        EXPECT_EQ(counter(DM_REMAP_REFUSED), 1U);
        EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_TABLE_FULL);
        ASSERT_EQ(world->log.size(), 1U);
        EXPECT_NE(world->log[0].find("the table is full"), std::string::npos) << world->log[0];
        expect_content();
    }
}

// A thin volume whose pool is full. It has room for records, and so has the table.
TEST_P(Redo, SpareWithoutRoomBeneathSaysSo) {
    std::strcpy((*md)->spare_name, "dm-7");
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    world->spare.on_write = [this](auto, std::uint64_t sector, auto) {
        return sector >= data_start() && sector < data_end() ? -ENOSPC : 0;
    };
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    expect_nothing_spent();
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_NO_ROOM_BENEATH);
    EXPECT_EQ(counter(DM_REMAP_REFUSED), 1U);
    ASSERT_EQ(world->log.size(), 1U);
    EXPECT_EQ(world->log[0],
              "sectors " + std::to_string(bad) + " + " + std::to_string(g) +
                  " are not moved to the spare dm-7: the device beneath the spare is full, make "
                  "room there (-28)");
    dm_remap_moved moved{};
    EXPECT_EQ(dm_remap_remap(md->get(), 0, g, &moved), -ENOSPC);
    EXPECT_STREQ(moved.why, "the device beneath the spare is full, make room there");
    // Room was made: it goes on until the next relocation.
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_NO_ROOM_BENEATH);
    EXPECT_EQ(write(bad, pattern(8, g)), 0);
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_NONE);
}

// There was room for the data, as something was there before, and is none for the record.
TEST_P(Redo, CommitWithoutRoomBeneathSaysSo) {
    std::strcpy((*md)->spare_name, "dm-7");
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    world->spare.on_write = [this](auto, std::uint64_t sector, auto) {
        return sector < data_start() || sector >= data_end() ? -ENOSPC : 0;
    };
    EXPECT_NE(write(bad, pattern(7, g)), 0);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(world->log[0],
              "the spare dm-7 takes no metadata: the device beneath it is full, make room there");
    for (const std::string& line : world->log) {
        EXPECT_EQ(line.find("the table is full"), std::string::npos) << line;
    }
    // The mode tells of it, and a save ends it.
    EXPECT_EQ(write(kAt + kLength, pattern(7, g)), 0);
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_NONE);
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
}

// Status tells why, until a relocation succeeds.
TEST_P(Redo, RefusalIsRememberedUntilARelocationSucceeds) {
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    fill_spare();
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_SPARE_FULL);
    dm_remap_alloc_release(&(*md)->alloc, data_start(), 1024);
    spare_refuses_data();
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_SPARE_FAILS);
    EXPECT_STREQ(dm_remap_refusal_name((*md)->refusal), "spare_fails");
    world->spare.on_write = nullptr;
    EXPECT_EQ(write(bad, pattern(8, g)), 0);
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_NONE);
}

TEST_P(Redo, BadSpareBlocksAreRetired) {
    bad_block(world->spare.bad_write, data_start());
    bad_block(world->spare.bad_write, data_start() + 2 * g);
    for (unsigned i = 0; i < 3; i++) {
        bad_block(world->main.bad_write, bad + i * g);
    }
    ASSERT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_EQ(free_sectors(), free_at_start - 5 * g);
    EXPECT_EQ(notes(DM_REMAP_NOTE_RETIRED), 2U);
}

TEST_P(Redo, SpareThatTakesNoDataFailsTheWriteAndRetiresNothing) {
    spare_refuses_data();
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    world->spare.on_write = nullptr;
    expect_nothing_spent();
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
}

// A time-out says nothing of the media. The place is free again, and no other is tried.
TEST_P(Redo, SpareThatTimesOutRetiresNothing) {
    bad_block(world->main.bad_write, bad);
    unsigned failures = 0;
    world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
        const bool data = sector >= data_start() && sector < data_end();
        return data && failures++ < 2 ? -ETIMEDOUT : 0;
    };
    EXPECT_EQ(write(kAt, pattern(7, kLength)), -EIO);
    world->spare.on_write = nullptr;
    unknown = bad / g;
    EXPECT_EQ(failures, 2U);
    expect_nothing_spent();
    set_content(kAt, pattern(7, kLength));
}

TEST_P(Redo, DeadSpareFailsTheWriteAndMakesItReadOnly) {
    spare_is_dead();
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(notes(DM_REMAP_NOTE_MODE), 1U);
    EXPECT_EQ(free_sectors(), free_at_start);
    // From then on nothing is sent there.
    const std::uint64_t writes = world->spare.writes();
    EXPECT_EQ(write(bad, pattern(8, g)), -EIO);
    EXPECT_EQ(world->spare.writes(), writes);
    world->spare.on_write = nullptr;
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(write(bad, pattern(9, g)), 0);
}

TEST_P(Redo, SlotThatFailsIsPassedAndTheWriteAcknowledged) {
    const std::uint64_t slot = journal_at(*world, 1, (*md)->next_sequence) * kBlockSectors;
    world->spare.on_write = [=](auto, std::uint64_t sector, auto) {
        return sector == slot ? -EIO : 0;
    };
    bad_block(world->main.bad_write, bad);
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ((*md)->doubt, nullptr);
}

TEST_P(Redo, CommitThatFailsLeavesDoubt) {
    world->spare.on_write = [this](auto, std::uint64_t sector, auto) {
        return sector < data_start() || sector >= data_end() ? -EIO : 0;
    };
    bad_block(world->main.bad_write, bad);
    EXPECT_EQ(write(bad, pattern(7, 2 * g)), -EUCLEAN);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, bad));
    const Image data = pattern(7, 2 * g);
    set_content(bad + g, {data.begin() + std::ptrdiff_t{g} * kSector, data.end()});
    EXPECT_EQ(write(bad, pattern(8, g)), -EIO);
    EXPECT_EQ(read(bad, g), -EIO);
    // The drive has repaired it meanwhile: that changes nothing before the doubt is settled.
    world->main.bad_write.clear();
    EXPECT_EQ(write(bad, pattern(9, g)), -EIO);
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(write(bad, pattern(10, g)), 0);
    expect_nothing_spent();
}

// ---- batches ----

TEST_P(Redo, BatchSharesOneCommit) {
    const std::uint64_t sequence = (*md)->next_sequence;
    const std::uint64_t writes = world->spare.writes();
    dm_remap_redo_begin(mover->get());
    for (unsigned i = 0; i < 8; i++) {
        bad_block(world->main.bad_write, i * 256);
        set_content(i * 256, pattern(i, 2 * g));
        EXPECT_EQ(redo_write(i * 256, pattern(i, 2 * g)), 0);
    }
    EXPECT_EQ((*md)->next_sequence, sequence);
    ASSERT_EQ(dm_remap_redo_end(mover->get()), 0);
    EXPECT_EQ((*md)->next_sequence, sequence + 1);
    // Eight times data, and one journal block on each replica.
    EXPECT_EQ(world->spare.writes(), writes + 8 + 2);
    EXPECT_EQ(md->records().size(), 8U);
}

// Whatever else it does would fail with that commit.
TEST_P(Redo, BatchWithAFailedCommitSaysSo) {
    bad_block(world->main.bad_write, bad);
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(redo_write(bad, pattern(7, g)), 0);
    EXPECT_FALSE(dm_remap_redo_failed(mover->get()));
    spare_is_dead();
    EXPECT_NE(redo_write(bad, pattern(8, g)), 0);
    EXPECT_TRUE(dm_remap_redo_failed(mover->get()));
    EXPECT_NE(dm_remap_redo_end(mover->get()), 0);
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    dm_remap_redo_begin(mover->get());
    EXPECT_FALSE(dm_remap_redo_failed(mover->get()));
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
}

// A write that needs no record does not depend on the commit: neither before nor behind it.
TEST_P(Redo, CommitThatFailsFailsOnlyTheWritesThatNeedIt) {
    bad_block(world->main.bad_write, bad);
    dm_remap_redo_begin(mover->get());
    const unsigned before = next_write(kAt - kLength, pattern(6, g));
    const unsigned moved = next_write(kAt, pattern(7, kLength));
    const unsigned behind = next_write(kAt + kLength, pattern(8, kLength));
    spare_is_dead();
    EXPECT_EQ(dm_remap_redo_end(mover->get()), -EUCLEAN);
    EXPECT_EQ(result(before), 0);
    EXPECT_EQ(result(moved), -EIO);
    EXPECT_EQ(result(behind), 0);
    world->spare.on_write = nullptr;
    unknown = bad / g;
    set_content(kAt - kLength, pattern(6, g));
    set_content(kAt, pattern(7, kLength));
    set_content(kAt + kLength, pattern(8, kLength));
    world->main.power_off();
    world->main.power_on([](auto, auto) { return false; });
    expect_content();
}

TEST_P(Redo, CommitThatFailsFailsAllThatShareIt) {
    bad_block(world->main.bad_write, bad);
    bad_block(world->main.bad_write, kAt + kLength);
    dm_remap_redo_begin(mover->get());
    // A good block of each says that main works: a control would commit the first.
    const unsigned first = next_write(bad, pattern(6, 2 * g));
    const unsigned second = next_write(kAt + kLength, pattern(7, 2 * g));
    set_content(bad, pattern(6, 2 * g));
    set_content(kAt + kLength, pattern(7, 2 * g));
    spare_is_dead();
    EXPECT_EQ(dm_remap_redo_end(mover->get()), -EUCLEAN);
    world->spare.on_write = nullptr;
    EXPECT_EQ(result(first), -EIO);
    EXPECT_EQ(result(second), -EIO);
}

// One part of the write was committed well, as another write needed a control; the other not.
TEST_P(Redo, WriteWithOnePartInACommitThatFailsFails) {
    for (const bool first_part_fails : {false, true}) {
        make(1 << 12);
        const std::uint64_t other = kAt + kLength + 24;
        bad_block(world->main.bad_write, bad);
        bad_block(world->main.bad_write, other);
        dm_remap_redo_begin(mover->get());
        const unsigned both = next_write(kAt, pattern(7, kLength));
        {
            std::optional<FailAllocation> fail;
            if (first_part_fails) {
                fail.emplace(0);
            }
            EXPECT_EQ(commit_now(), first_part_fails ? -EIO : 0);
            ASSERT_TRUE(!fail || fail->happened());
        }
        EXPECT_EQ(redo_write(kAt + kLength, pattern(8, kLength)), first_part_fails ? -EIO : 0);
        const unsigned neither = next_write(kAt - kLength, pattern(6, g));
        if (!first_part_fails) {
            spare_is_dead();
        }
        EXPECT_NE(dm_remap_redo_end(mover->get()), 0);
        EXPECT_EQ(result(both), -EIO);
        EXPECT_EQ(result(neither), 0);
        world->spare.on_write = nullptr;
        EXPECT_EQ(kind(first_part_fails ? other : bad), DM_REMAP_MAPPED);
        EXPECT_EQ(kind(first_part_fails ? bad : other), DM_REMAP_NONE);
        set_content(kAt - kLength, pattern(6, g));
        set_content(kAt, pattern(7, kLength));
        set_content(kAt + kLength, pattern(8, kLength));
        unknown = (first_part_fails ? bad : other) / g;
        expect_content();
    }
}

// Main may have another reason than the spare.
TEST_P(Redo, WriteKeepsItsOwnErrorBesideACommitThatFails) {
    bad_block(world->main.bad_write, bad);
    dm_remap_redo_begin(mover->get());
    const unsigned moved = next_write(bad, pattern(7, g));
    world->main.on_write = [](auto, auto, auto) { return -ENOLINK; };
    dm_remap_redo_next(mover->get());
    EXPECT_EQ(redo_write(kAt + kLength, pattern(8, g)), -ENOLINK);
    world->main.on_write = nullptr;
    FailAllocation fail(0);
    EXPECT_EQ(dm_remap_redo_end(mover->get()), -ENOMEM);
    EXPECT_EQ(result(moved), -EIO);
}

// ---- what a read of a pending range tells others ----

TEST_P(Redo, AnswerOfAReadServesOthersForAsLongAsItTook) {
    bad_block(world->main.bad_read, bad);
    world->main.on_read = [this](std::uint64_t sector, std::uint32_t n) {
        world->uptime += sector <= bad && bad < sector + n;
    };
    EXPECT_EQ(read(bad, g), -EIO);
    unsigned reads = 0;
    world->main.on_read = [&](auto, auto) { reads++; };
    EXPECT_EQ(read(bad, g), -EIO);
    EXPECT_EQ(reads, 0U);
    // Of a longer one main is asked for the rest.
    EXPECT_EQ(read(bad - g, 3 * g), -EIO);
    expect_got(bad - g, bad - g, g);
    expect_got(bad - g, bad + g, g);
    EXPECT_EQ(reads, 2U);
    world->uptime += DM_REMAP_UNREAD_PAUSE;
    EXPECT_EQ(read(bad, g), -EIO);
    EXPECT_GT(reads, 2U);
}

TEST_P(Redo, AnswerOfAReadEndsWithTheRecord) {
    bad_block(world->main.bad_read, bad);
    world->main.on_read = [this](auto, auto) { world->uptime++; };
    EXPECT_EQ(read(bad, g), -EIO);
    world->main.on_read = nullptr;
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(read(bad, g), 0);
    expect_got(bad, bad, g);
}

TEST_P(Redo, OnlyReadsOfPendingRangesGiveWay) {
    unsigned ways = 0;
    world->on_give_way = [&] { ways++; };
    bad_block(world->main.bad_read, bad);
    EXPECT_EQ(read(bad, g), -EIO);
    bad_block(world->main.bad_write, kAt);
    EXPECT_EQ(write(kAt, pattern(7, g)), 0);
    EXPECT_EQ(ways, 0U);
    EXPECT_EQ(read(bad, g), -EIO);
    EXPECT_GE(ways, 3U) << "before each command";
    bad_block(world->main.bad_write, bad);
    world->main.bad_read.clear();
    world->on_give_way = nullptr;
}

// A read of a pending range gives way to a write while that has commands on main.
TEST_P(Redo, WriteUsesMainUntilItGoesToTheSpare) {
    dm_remap_schedule* schedule = &(*md)->schedule;
    const auto used = [&] { return dm_remap_writes_use_main(schedule, world->uptime); };
    dm_remap_job job{};
    dm_remap_job_add(schedule, &job, DM_REMAP_JOB_WRITE, kAt, kLength);
    ASSERT_EQ(dm_remap_job_next(schedule, DM_REMAP_FOR_WRITES), &job);
    bad_block(world->main.bad_write, bad);
    unsigned commands = 0;
    world->main.on_write = [&](auto, auto, auto) {
        EXPECT_TRUE(used());
        commands++;
        return 0;
    };
    world->uptime += 100;
    world->spare.on_write = [&](auto, auto, auto) {
        world->uptime += 2;
        EXPECT_FALSE(used());
        return 0;
    };
    EXPECT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_GT(commands, 1U);
    world->main.on_write = nullptr;
    world->spare.on_write = nullptr;
    dm_remap_job_done(schedule, &job);
}

// ---- reads of main while the spare keeps others ----

// A commit waits for the spare, with its lock. The reader does not.
TEST_P(Redo, ReadThatComesBackLateDoesNotWaitForTheSpare) {
    fail_reads(bad, 2);
    const std::uint64_t writes = world->spare.writes();
    world->spare.on_read = [](auto...) { ADD_FAILURE(); };
    mutex_lock(&(*md)->commit_lock);
    got.assign(std::size_t{kLength} * kSector, 0);
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(redo_read(kAt, kLength, got.data(), true), 0);
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
    mutex_unlock(&(*md)->commit_lock);
    expect_got(kAt, kAt, kLength);
    EXPECT_EQ(world->spare.writes(), writes);
    EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    world->spare.on_read = nullptr;
    dm_remap_do_later(mover->get());
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ(counter(DM_REMAP_RESCUED), 1U);
    expect_content();
}

TEST_P(Redo, ReadThatFailsDoesNotWaitForTheSpare) {
    bad_block(world->main.bad_read, bad);
    const auto fail = [&] {
        mutex_lock(&(*md)->commit_lock);
        dm_remap_redo_begin(mover->get());
        EXPECT_EQ(redo_read(kAt, kLength, got.data(), true), -EIO);
        EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
        mutex_unlock(&(*md)->commit_lock);
        EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    };
    got.assign(std::size_t{kLength} * kSector, 0);
    // A write from above comes first, which is watched for that.
    fail();
    EXPECT_FALSE(dm_remap_schedule_is_idle(&(*md)->schedule));
    dm_remap_unread_forget(&(*md)->schedule, bad, g);
    EXPECT_TRUE(dm_remap_schedule_is_idle(&(*md)->schedule));
    EXPECT_EQ(dm_remap_record_unread(md->get()), 0U);
    EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    // Or one that is done over.
    fail();
    world->main.bad_read.clear();
    EXPECT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_EQ(dm_remap_record_unread(md->get()), 0U);
    EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    // Or somebody works on it.
    bad_block(world->main.bad_read, bad);
    fail();
    dm_remap_job job{};
    dm_remap_job_claim(&(*md)->schedule, &job, bad, g);
    EXPECT_EQ(dm_remap_record_unread(md->get()), 1U);
    EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    dm_remap_job_done(&(*md)->schedule, &job);
    // Or main becomes shorter.
    world->main_end = bad;
    EXPECT_EQ(dm_remap_record_unread(md->get()), 0U);
    EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    world->main_end = UINT64_MAX;
    fail();
    EXPECT_EQ(dm_remap_record_unread(md->get()), 0U);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
}

TEST_P(Redo, RecordsThatWaitAreMadeByAnOrderlyStop) {
    bad_block(world->main.bad_read, bad);
    mutex_lock(&(*md)->commit_lock);
    EXPECT_EQ(read(kAt, kLength), -EIO);
    mutex_unlock(&(*md)->commit_lock);
    ASSERT_EQ(kind(bad), DM_REMAP_NONE);
    ASSERT_EQ(dm_remap_deactivate(md->get()), 0);
    const Loaded loaded = try_load(*world);
    ASSERT_EQ(loaded.records.size(), 1U);
    EXPECT_EQ(loaded.records[0].kind, DM_REMAP_PENDING);
    ASSERT_EQ(md->activate(), 0);
}

// There is room for one more when a commit has carried the others.
TEST_P(Redo, ReadThatFailsDoesNotWaitForRoomForItsRecord) {
    for (std::uint64_t i = 0; i < DM_REMAP_SOFT_RANGES; i++) {
        ASSERT_EQ(dm_remap_pending_add(md->get(), kFar + 2 * i * g, g, DM_REMAP_REASON_READ_ERROR),
                  0);
    }
    bad_block(world->main.bad_read, bad);
    const std::uint64_t writes = world->spare.writes();
    EXPECT_EQ(read(kAt, kLength), -EIO);
    EXPECT_EQ(world->spare.writes(), writes);
    EXPECT_EQ(dm_remap_record_unread(md->get()), 0U);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_GT(world->spare.writes(), writes);
}

// A range was moved while a read of it waited. The mover for reads leaves it to another.
TEST_P(Redo, ReadThatTheSpareServesIsForAMoverThatMayWaitForIt) {
    dm_remap_schedule* schedule = &(*md)->schedule;
    for (const auto kind : {DM_REMAP_JOB_READ, DM_REMAP_JOB_PENDING}) {
        dm_remap_job job{};
        dm_remap_job_add(schedule, &job, kind, kAt, kLength);
        EXPECT_EQ(dm_remap_job_next(schedule, DM_REMAP_FOR_READS), &job);
        EXPECT_FALSE(dm_remap_job_put_back(md->get(), &job));
        dm_remap_job_done(schedule, &job);
    }
    bad_block(world->main.bad_write, bad);
    EXPECT_EQ(write(kAt, pattern(7, kLength)), 0);
    ASSERT_EQ(this->kind(bad), DM_REMAP_MAPPED);
    for (const auto kind : {DM_REMAP_JOB_READ, DM_REMAP_JOB_PENDING}) {
        dm_remap_job job{};
        dm_remap_job_add(schedule, &job, kind, kAt, kLength);
        ASSERT_EQ(dm_remap_job_next(schedule, DM_REMAP_FOR_READS), &job);
        EXPECT_TRUE(dm_remap_job_put_back(md->get(), &job));
        EXPECT_EQ(dm_remap_job_next(schedule, DM_REMAP_FOR_READS), nullptr);
        EXPECT_EQ(dm_remap_job_next(schedule, DM_REMAP_FOR_WRITES), nullptr);
        ASSERT_EQ(dm_remap_job_next(schedule, DM_REMAP_FOR_ANY), &job);
        EXPECT_FALSE(dm_remap_job_put_back(md->get(), &job));
        dm_remap_job_done(schedule, &job);
        EXPECT_TRUE(dm_remap_schedule_is_idle(schedule));
    }
}

// ---- rescues that have to wait ----

TEST_P(Redo, RescueThatHasToWaitIsDoneLater) {
    fail_reads(bad, 2);
    world->busy = true;
    EXPECT_EQ(read(kAt, kLength), 0);
    expect_got(kAt, kAt, kLength);
    EXPECT_EQ(kind(bad), DM_REMAP_NONE);
    EXPECT_TRUE(dm_remap_later_any(md->get()));
    // Less and less often, as long as writes are on their way.
    for (const std::uint32_t pause : {2U, 4U, 8U}) {
        world->uptime += pause / 2;
        EXPECT_EQ(dm_remap_rescue_again(mover->get()), pause);
    }
    // A range that somebody else works on is left alone.
    world->busy = false;
    dm_remap_job job{};
    dm_remap_job_claim(&(*md)->schedule, &job, bad, g);
    world->uptime += 8;
    EXPECT_EQ(dm_remap_rescue_again(mover->get()), 16U);
    dm_remap_job_done(&(*md)->schedule, &job);
    world->uptime += 16;
    EXPECT_EQ(dm_remap_rescue_again(mover->get()), 0U);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ(counter(DM_REMAP_RESCUED), 1U);
    expect_content();
}

TEST_P(Redo, RescueThatHasToWaitIsNotForWhatHasMovedMeanwhile) {
    fail_reads(bad, 2);
    world->busy = true;
    EXPECT_EQ(read(kAt, kLength), 0);
    world->busy = false;
    bad_block(world->main.bad_write, bad);
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    const std::uint64_t free = free_sectors();
    world->uptime += 1;
    EXPECT_EQ(dm_remap_rescue_again(mover->get()), 0U);
    EXPECT_EQ(free_sectors(), free);
    EXPECT_EQ(counter(DM_REMAP_RESCUED), 0U);
}

// ---- what a suspend ends ----

TEST_P(Redo, SuspendWithoutFlushEndsARedoBetweenTwoCommands) {
    bad_block(world->main.bad_write, bad);
    bad_block(world->main.bad_read, bad);
    unsigned commands = 0;
    world->main.on_write = [&](auto, auto, auto) {
        commands++;
        (*md)->give_up = DM_REMAP_GIVE_UP_ALL;
        return 0;
    };
    EXPECT_EQ(write(kAt, pattern(7, kLength)), DM_REMAP_GIVEN_UP);
    EXPECT_EQ(commands, 1U);
    world->main.on_write = nullptr;
    EXPECT_EQ(read(bad, g), DM_REMAP_GIVEN_UP);
    EXPECT_TRUE(md->records().empty());
    // Done after the resume.
    (*md)->give_up = DM_REMAP_GIVE_UP_NOTHING;
    EXPECT_EQ(write(kAt, pattern(7, kLength)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
}

TEST_P(Redo, SuspendWithFlushEndsReadsThatFailAndNoWrites) {
    bad_block(world->main.bad_read, bad);
    (*md)->give_up = DM_REMAP_GIVE_UP_READS;
    EXPECT_EQ(read(bad, g), DM_REMAP_GIVEN_UP);
    EXPECT_TRUE(md->records().empty());
    // One that waited for its range alone.
    got.assign(std::size_t{g} * kSector, 0);
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(redo_read(kAt, g, got.data()), 0);
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
    bad_block(world->main.bad_write, bad);
    EXPECT_EQ(write(bad, pattern(7, g)), 0);
    (*md)->give_up = DM_REMAP_GIVE_UP_NOTHING;
}

// ---- writes to pending ranges ----

TEST_P(Redo, PendingWriteThatMainHoldsEndsTheRecord) {
    world->main.rewrite_heals = true;
    pend(bad);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    expect_nothing_spent();
    EXPECT_EQ(notes(DM_REMAP_NOTE_CLEARED), 1U);
    world->main.power_off();
    world->main.power_on([](auto, auto) { return false; });
    expect_content();
}

TEST_P(Redo, PendingWriteThatFailsGoesToTheSpare) {
    pend(bad);
    bad_block(world->main.bad_write, bad);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ(reason(bad), DM_REMAP_REASON_PENDING_WRITE);
}

TEST_P(Redo, PendingWriteThatDoesNotReadBackGoesToTheSpare) {
    pend(bad);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
}

TEST_P(Redo, PendingWriteThatReadsBackOtherwiseGoesToTheSpare) {
    pend(bad);
    world->main.bad_read.clear();
    world->main.after_write = [this](std::uint64_t sector, std::uint32_t) {
        if (sector == bad) {
            world->main.poke(bad, Image(kSector, 0xEE));
        }
    };
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
}

TEST_P(Redo, PendingWriteToADeadMainLeavesItPending) {
    pend(bad);
    world->main.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_EQ(free_sectors(), free_at_start);
}

// A block that does not read back is bad only if main reads something else: here it takes writes
// alone.
TEST_P(Redo, PendingWriteToAMainThatReadsNothingLeavesItPending) {
    pend(bad);
    world->main.bad_read.clear();
    world->main.fail_read = [](auto, auto) { return -EIO; };
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_EQ(free_sectors(), free_at_start);
    unknown = bad / g;
}

// What was not tried before, and fails once, is tried again.
TEST_P(Redo, PendingWriteThatFailsOnceSpendsNothing) {
    pend(bad);
    world->main.bad_read.clear();
    unsigned failures = 0;
    world->main.on_write = [&](auto, auto, auto) { return failures++ == 0 ? -EIO : 0; };
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(redo_write(bad, pattern(7, g)), 0);
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
    set_content(bad, pattern(7, g));
    expect_nothing_spent();
}

TEST_P(Redo, WriteToTheSpareThatFailsOnceSpendsNothing) {
    ASSERT_EQ(md->remap(bad, g), 0);
    const Records before = md->records();
    (*md)->policy.verify_spare_writes = true;
    unsigned failures = 0;
    world->spare.on_write = [&](auto, auto, auto) { return failures++ == 0 ? -EIO : 0; };
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(redo_write(bad, pattern(7, g)), 0);
    EXPECT_EQ(dm_remap_redo_end(mover->get()), 0);
    world->spare.on_write = nullptr;
    set_content(bad, pattern(7, g));
    EXPECT_EQ(md->records(), before);
}

// It was written, but whether it reads back is not known.
TEST_P(Redo, PendingWriteThatCannotBeReadBackInTimeLeavesItPending) {
    pend(bad);
    world->main.bad_read.clear();
    world->main.fail_read = [](auto, auto) { return -ETIMEDOUT; };
    EXPECT_EQ(write(bad, pattern(7, g)), -ETIMEDOUT);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_EQ(free_sectors(), free_at_start);
    unknown = bad / g;
}

// ---- writes to what lives on the spare ----

TEST_P(Redo, LiveRecordMovesWhenItsPlaceFails) {
    ASSERT_EQ(md->remap(bad, g), 0);
    set_content(bad, pattern(bad, g));
    const std::uint64_t place = md->lookup(bad).spare;
    bad_block(world->spare.bad_write, place);
    ASSERT_EQ(write(bad, pattern(7, g)), 0);
    EXPECT_NE(md->lookup(bad).spare, place);
    EXPECT_EQ(notes(DM_REMAP_NOTE_RETIRED), 1U);
    EXPECT_EQ(free_sectors(), free_at_start - 2 * g);
}

TEST_P(Redo, LiveRecordStaysWhenTheSpareIsDead) {
    ASSERT_EQ(md->remap(bad, g), 0);
    set_content(bad, pattern(bad, g));
    const Records before = md->records();
    spare_is_dead();
    EXPECT_EQ(write(bad, pattern(7, g)), -EIO);
    EXPECT_EQ(md->records(), before);
    EXPECT_EQ(free_sectors(), free_at_start - g);
}

TEST_P(Redo, LiveRecordThatCannotBeReadStays) {
    ASSERT_EQ(md->remap(bad, g), 0);
    set_content(bad, pattern(bad, g));
    const Records before = md->records();
    bad_block(world->spare.bad_read, md->lookup(bad).spare);
    EXPECT_EQ(read(kAt, kLength), -EIO);
    EXPECT_EQ(md->records(), before);
    expect_got(kAt, kAt, bad - kAt);
    expect_got(kAt, bad + g, kAt + kLength - bad - g);
}

// ---- reads of main ----

TEST_P(Redo, ReadThatWorksAgainLeavesNoRecord) {
    EXPECT_EQ(read(kAt, kLength), 0);
    expect_got(kAt, kAt, kLength);
    expect_nothing_spent();
}

TEST_P(Redo, ReadThatComesBackIsRescued) {
    // By itself, and again after others were read: then it comes.
    fail_reads(bad, 2);
    EXPECT_EQ(read(kAt, kLength), 0);
    expect_got(kAt, kAt, kLength);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
    EXPECT_EQ(reason(bad), DM_REMAP_REASON_RESCUED);
    EXPECT_EQ(md->lookup(bad, kLength).length, g);
    EXPECT_EQ(counter(DM_REMAP_RESCUED), 1U);
    EXPECT_EQ(world->drains, 1U);
}

TEST_P(Redo, RescueTakesWhatWasWrittenLast) {
    fail_reads(bad, 2);
    world->on_drain = [this] {
        EXPECT_TRUE(md->flagged(DM_REMAP_F_HELD, bad));
        world->main.poke(bad, pattern(99, g));
        set_content(bad, pattern(99, g));
    };
    EXPECT_EQ(read(kAt, kLength), 0);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
}

TEST_P(Redo, RescueThatTheSpareRefusesStillDelivers) {
    fill_spare();
    fail_reads(bad, 2);
    EXPECT_EQ(read(kAt, kLength), 0);
    expect_got(kAt, kAt, kLength);
    EXPECT_TRUE(md->records().empty());
    EXPECT_EQ(counter(DM_REMAP_REFUSED), 1U);
}

TEST_P(Redo, RescueThatMainRefusesSaysNothingOfTheSpare) {
    unsigned left = 2;
    world->main.fail_read = [&](std::uint64_t sector, std::uint32_t n) {
        if (sector > bad || bad >= sector + n) {
            return 0;
        }
        if (md->flagged(DM_REMAP_F_HELD, bad)) {
            return -ENOLINK;
        }
        return left != 0 && left-- != 0 ? -EIO : 0;
    };
    EXPECT_EQ(read(kAt, kLength), 0);
    EXPECT_EQ(counter(DM_REMAP_REFUSED), 1U);
    EXPECT_EQ((*md)->refusal, DM_REMAP_REFUSAL_NONE);
}

// It came once, and not when it was to be moved: who reads gets it, and it is known to be bad.
TEST_P(Redo, RescueOfWhatComesOnlyOnceLeavesItPending) {
    unsigned left = 2;
    world->main.fail_read = [&](std::uint64_t sector, std::uint32_t n) {
        if (sector > bad || bad >= sector + n) {
            return 0;
        }
        if (md->flagged(DM_REMAP_F_HELD, bad)) {
            return -EIO;
        }
        return left != 0 && left-- != 0 ? -EIO : 0;
    };
    EXPECT_EQ(read(kAt, kLength), 0);
    expect_got(kAt, kAt, kLength);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_EQ(reason(bad), DM_REMAP_REASON_READ_ERROR);
    EXPECT_EQ(counter(DM_REMAP_RESCUED), 0U);
    EXPECT_EQ(free_sectors(), free_at_start);
}

TEST_P(Redo, UnreadableBlockFailsAloneAndBecomesPending) {
    bad_block(world->main.bad_read, bad);
    EXPECT_EQ(read(kAt, kLength), -EIO);
    expect_got(kAt, kAt, bad - kAt);
    expect_got(kAt, bad + g, kAt + kLength - bad - g);
    EXPECT_EQ(kind(bad), DM_REMAP_PENDING);
    EXPECT_EQ(md->lookup(bad, kLength).length, g);
    EXPECT_EQ(free_sectors(), free_at_start);
    EXPECT_EQ(notes(DM_REMAP_NOTE_PENDING), 1U);
    // Soft: the next commit takes it along.
    EXPECT_TRUE(dm_remap_dirty(md->get()));
    EXPECT_TRUE(try_load(*world).records.empty());
    ASSERT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST_P(Redo, ReadRetriesAreAsManyAsWasAskedFor) {
    for (unsigned retries : {0U, 1U, 5U}) {
        (*md)->policy.read_retries = retries;
        unsigned reads = 0;
        world->main.fail_read = [&](std::uint64_t sector, std::uint32_t n) {
            const bool hit = sector == bad && n == g;
            reads += hit;
            return hit ? -EIO : 0;
        };
        EXPECT_EQ(read(bad, g), -EIO);
        EXPECT_EQ(reads, 1 + std::max(retries, 1U));
        world->main.fail_read = nullptr;
    }
}

TEST_P(Redo, DeadMainLeavesNoRecordOfReads) {
    world->main.fail_read = [](auto, auto) { return -EIO; };
    for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
        EXPECT_EQ(read(kAt, kLength), -EIO);
    }
    EXPECT_TRUE(dm_remap_breaker_open(md->get()));
    expect_nothing_spent();
}

TEST_P(Redo, NoAutoRemapRescuesNothing) {
    (*md)->policy.no_auto_remap = true;
    fail_reads(bad, 2);
    EXPECT_EQ(read(kAt, kLength), 0);
    expect_got(kAt, kAt, kLength);
    expect_nothing_spent();
}

TEST_P(Redo, PendingBlockThatComesBackIsRescued) {
    pend(bad);
    world->main.bad_read.clear();
    fail_reads(bad, 2);
    EXPECT_EQ(read(bad, g), 0);
    expect_got(bad, bad, g);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);
}

TEST_P(Redo, ReadOnlyModeMakesNoRecordOfReads) {
    spare_is_dead();
    EXPECT_NE(dm_remap_save(md->get()), 0);
    ASSERT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    bad_block(world->main.bad_read, bad);
    EXPECT_EQ(read(kAt, kLength), -EIO);
    expect_got(kAt, kAt, bad - kAt);
    expect_nothing_spent();
}

// ---- what is not whole blocks ----

// No device takes it, so it comes here. Nothing of it was done, and nobody must think so.
TEST_P(Redo, PartOfABlockFails) {
    for (std::uint32_t part = 1; part < g; part++) {
        EXPECT_EQ(write(kAt, pattern(7, part)), -EIO);
        EXPECT_EQ(write(kAt + part, pattern(7, g)), -EIO);
        EXPECT_EQ(read(kAt, part), -EIO);
        EXPECT_EQ(read(kAt + part, g), -EIO);
    }
    EXPECT_EQ(world->main.writes(), main_writes);
    expect_nothing_spent();
}

// ---- the mover's own buffer ----

// It is as long as a request may be, and what goes on in one does not touch it.
TEST_P(Redo, BufferHoldsARequest) {
    const Image data = pattern(7, DM_REMAP_REDO_SECTORS);
    auto* buffer = static_cast<std::uint8_t*>(dm_remap_mover_buffer(mover->get()));
    bad_block(world->main.bad_write, bad);
    std::copy(data.begin(), data.end(), buffer);
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(dm_remap_redo_write(mover->get(), kAt, DM_REMAP_REDO_SECTORS, buffer, nullptr), 0);
    ASSERT_EQ(dm_remap_redo_end(mover->get()), 0);
    set_content(kAt, data);
    EXPECT_EQ(kind(bad), DM_REMAP_MAPPED);

    // All of it, the block by itself, and once more; then it comes, and is rescued.
    fail_reads(bad + g, 3);
    std::fill_n(buffer, data.size(), 0);
    dm_remap_redo_begin(mover->get());
    EXPECT_EQ(dm_remap_redo_read(mover->get(), kAt, DM_REMAP_REDO_SECTORS, buffer, nullptr), 0);
    ASSERT_EQ(dm_remap_redo_end(mover->get()), 0);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), buffer));
    dm_remap_do_later(mover->get());
    EXPECT_EQ(counter(DM_REMAP_RESCUED), 1U);
}

// ---- memory ----

TEST_P(Redo, NoMemoryAnywhere) {
    bad_block(world->main.bad_write, bad);
    unknown = bad / g;
    for (std::uint64_t n = 0;; n++) {
        bool happened = false;
        int error = 0;
        {
            FailAllocation fail(n);
            error = write(bad, pattern(n, g));
            happened = fail.happened();
        }
        if (!happened) {
            EXPECT_EQ(error, 0);
            break;
        }
        if (error != 0) {
            expect_nothing_spent();
        } else {
            ASSERT_EQ(kind(bad), DM_REMAP_MAPPED);
            make(1 << 12);
            bad_block(world->main.bad_write, bad);
        }
    }
}

}  // namespace
}  // namespace remap

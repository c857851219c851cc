#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "rig.h"

namespace remap {
namespace {

std::uint64_t counter(Metadata& md, dm_remap_counter c) {
    return atomic64_read(&md->counter[c]);
}

// ---- format ----

TEST(Format, LoadsEmpty) {
    auto world = formatted();
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_TRUE(loaded.records.empty());
    EXPECT_EQ(loaded.report.replica[0].superblock, DM_REMAP_VALID);
    EXPECT_EQ(loaded.report.replica[1].superblock, DM_REMAP_VALID);
}

TEST(Format, EveryJournalSlotHoldsAValidBlock) {
    auto world = formatted();
    const dm_remap_super sb = super_at(*world, 0);
    for (int r : {0, 1}) {
        for (unsigned i = 0; i < sb.layout.journal_blocks; i++) {
            const std::uint64_t at = dm_remap_journal_at(&sb.layout, r, i);
            const dm_remap_disk_block block = block_at(*world, at);
            EXPECT_EQ(dm_remap_block_verdict(&block, DM_REMAP_JOURNAL, &sb, at), DM_REMAP_VALID);
        }
    }
}

struct Check {
    int error;
    std::string why;
};

Check format_blank_only(World& world, const Shape& shape) {
    dm_remap_format_params p = format_params(shape, 0x22);
    p.blank_only = true;
    dm_remap_report report{};
    const Image before = world.spare.image();
    const int checked = dm_remap_format_check(&World::kOps, &world, &p, &report);
    EXPECT_EQ(world.spare.image(), before);
    const int error = dm_remap_format(&World::kOps, &world, &p, &report);
    EXPECT_EQ(error, checked);
    if (error != 0) {
        EXPECT_EQ(world.spare.image(), before);
    }
    return {error, report.refusal != nullptr ? report.refusal : ""};
}

TEST(Format, BlankOnlyTakesABlankSpare) {
    auto world = make_world();
    EXPECT_EQ(format_blank_only(*world, {}).error, 0);
    EXPECT_EQ(try_load(*world).error, 0);
}

TEST(Format, WithoutMemoryWritesNothing) {
    bool failed = true;
    for (std::uint64_t n = 0; failed; n++) {
        auto world = make_world();
        FailAllocation fail(n);
        const int error = format(*world, {});
        failed = fail.happened();
        EXPECT_EQ(error, failed ? -ENOMEM : 0);
        EXPECT_EQ(world->spare.writes() == 0, failed);
    }
}

TEST(Format, BlankOnlyRefusesWhatIsFormattedAlready) {
    auto world = formatted();
    const Check check = format_blank_only(*world, {});
    EXPECT_EQ(check.error, -EEXIST);
    EXPECT_NE(check.why.find("formatted already"), std::string::npos);
}

// One byte is enough in any place where metadata will be, and in any place where format tries
// whether the spare keeps a block. On a small spare that is everywhere.
TEST(Format, BlankOnlyLooksAtEveryBlockOfASmallSpare) {
    const Shape small{.spare_sectors = 480};
    const dm_remap_layout l = super_at(*formatted(small), 0).layout;
    for (std::uint64_t at = 0; at < l.device_blocks; at++) {
        auto world = make_world(small);
        world->spare.flip(at * kBlock + 4095, 3);
        EXPECT_EQ(format_blank_only(*world, small).error, -EEXIST) << at;
    }
}

// So it does where they are more than it reads at once.
TEST(Format, BlankOnlyLooksAtLongAreas) {
    const Shape large{.spare_sectors = 8192, .journal_blocks = 200};
    const dm_remap_layout l = super_at(*formatted(large), 0).layout;
    for (std::uint64_t at : {dm_remap_journal_at(&l, 0, 199), dm_remap_table_at(&l, 1, 1)}) {
        auto world = make_world(large);
        EXPECT_EQ(format_blank_only(*world, large).error, 0);
        world = make_world(large);
        world->spare.flip(at * kBlock + 4095, 3);
        EXPECT_EQ(format_blank_only(*world, large).error, -EEXIST) << at;
    }
}

TEST(Format, BlankOnlySaysWhatIsThere) {
    auto world = formatted();
    dm_remap_super sb = super_at(*world, 0);
    sb.state = DM_REMAP_STATE_FORMATTING;
    put_super(*world, sb, 0);
    Check check = format_blank_only(*world, {});
    EXPECT_EQ(check.error, -EUCLEAN);
    EXPECT_NE(check.why.find("half formatted"), std::string::npos) << check.why;

    world->spare.flip(100, 0);
    check = format_blank_only(*world, {});
    EXPECT_EQ(check.error, -EEXIST);
    EXPECT_NE(check.why.find("damaged or newer"), std::string::npos) << check.why;

    dm_remap_disk_block newer = block_at(*world, 0);
    newer.header.version = 2;
    newer.header.crc = dm_remap_block_crc(&newer, kSector);
    world->spare.poke(0, {reinterpret_cast<std::uint8_t*>(&newer), kBlock});
    check = format_blank_only(*world, {});
    EXPECT_EQ(check.error, -EEXIST);
    EXPECT_NE(check.why.find("damaged or newer"), std::string::npos) << check.why;
}

// What cannot be read is not blank.
TEST(Format, BlankOnlyRefusesWhatCannotBeRead) {
    const dm_remap_layout l = super_at(*formatted(), 0).layout;
    for (std::uint64_t at : {dm_remap_superblock_at(&l, 1), dm_remap_table_at(&l, 0, 1)}) {
        auto world = make_world();
        unreadable_block(*world, at);
        const Check check = format_blank_only(*world, {});
        EXPECT_EQ(check.error, -EIO);
        EXPECT_NE(check.why.find("cannot be read"), std::string::npos) << check.why;
    }
}

// Who may overwrite what is there asks for the numbers alone.
TEST(Format, CheckOfTheNumbersAlone) {
    auto world = formatted();
    dm_remap_format_params p = format_params({});
    dm_remap_report report{};
    EXPECT_EQ(dm_remap_format_check(&World::kOps, world.get(), &p, &report), 0);
    p.granularity = 3;
    EXPECT_EQ(dm_remap_format_check(&World::kOps, world.get(), &p, &report), -EINVAL);
    EXPECT_NE(report.refusal, nullptr);
    EXPECT_EQ(try_load(*world).error, 0);
}

TEST(Format, RefusesNumbersItCouldNotLoad) {
    auto world = make_world();
    const std::vector<std::function<void(dm_remap_format_params&)>> changes = {
        [](auto& p) { p.granularity = 3; },
        [](auto& p) { p.journal_blocks = 1; },
        [](auto& p) { p.main.start = p.main.sectors + 1; },
        [](auto& p) { p.main.sectors = UINT64_MAX; },
        [](auto& p) { p.spare_sectors = 64; },
    };
    for (const auto& change : changes) {
        dm_remap_format_params p = format_params({});
        change(p);
        dm_remap_report report{};
        EXPECT_NE(dm_remap_format(&World::kOps, world.get(), &p, &report), 0);
        EXPECT_NE(report.refusal, nullptr);
        EXPECT_EQ(world->spare.writes(), 0U);
    }
}

// But for the blocks of which format only wants to know whether they are there: one that fails is
// bad, and others can be used.
TEST(Format, WriteErrorAnywhereIsReported) {
    auto dry = make_world();
    // The superblocks are first, the probes next, and then the journal.
    std::uint64_t journal = 0;
    dry->spare.on_write = [&](auto number, std::uint64_t sector, std::uint32_t n) {
        journal = sector == kBlockSectors && n == 16 * kBlockSectors ? number : journal;
        return 0;
    };
    ASSERT_EQ(format(*dry, {}), 0);
    ASSERT_GT(journal, 20U);
    for (std::uint64_t n = 0; n < dry->spare.writes(); n++) {
        const bool probe = n >= 2 && n < journal;
        auto world = make_world();
        world->spare.on_write = [n](auto number, auto, auto) { return number == n ? -ENXIO : 0; };
        EXPECT_EQ(format(*world, {}), -ENXIO) << n;
        world = make_world();
        world->spare.on_write = [n](auto number, auto, auto) { return number == n ? -EIO : 0; };
        EXPECT_EQ(format(*world, {}), probe ? 0 : -EIO) << n;
        world->spare.on_write = nullptr;
        // The very last write is superblock 0's: by then all is whole.
        EXPECT_EQ(try_load(*world).error == 0, probe || n + 1 == dry->spare.writes()) << n;
    }
}

// ---- round trips ----

TEST(Metadata, CommitsComeBackWithoutACheckpoint) {
    auto world = formatted();
    Records expected;
    {
        auto md = open(*world);
        for (unsigned i = 0; i < 10; i++) {
            ASSERT_EQ(md->remap(100 * i), 0);
        }
        ASSERT_EQ(md->commit({pending(5000, 8), retired(md->take())}), 0);
        expected = md->records();
    }
    EXPECT_EQ(expected.size(), 12U);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.records, expected);
    EXPECT_EQ(loaded.report.replayed, 11U);
}

TEST(Metadata, OrderlyStopLeavesCleanAndAnEmptyJournal) {
    auto world = formatted();
    {
        auto md = open(*world);
        EXPECT_EQ(super_at(*world, 0).state, static_cast<unsigned>(DM_REMAP_STATE_DIRTY));
        ASSERT_EQ(md->remap(7), 0);
        ASSERT_EQ(md->deactivate(), 0);
        EXPECT_EQ(md->remap(8), -EROFS);
    }
    EXPECT_EQ(super_at(*world, 0).state, static_cast<unsigned>(DM_REMAP_STATE_CLEAN));
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.records.size(), 1U);
    EXPECT_EQ(loaded.report.replayed, 0U);
}

TEST(Metadata, StopWithoutChangesWritesNoTable) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t writes = world->spare.writes();
    ASSERT_EQ(md->deactivate(), 0);
    EXPECT_EQ(world->spare.writes(), writes + 2);
}

// What a table does not use of its last block is zero, whatever the batch was used for before.
TEST(Metadata, UnusedEntriesOfATableAreZero) {
    auto world = formatted();
    auto md = open(*world);
    for (const std::uint64_t main : {100, 200, 300}) {
        ASSERT_EQ(md->remap(main), 0);
    }
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ(md->commit({clear(100), clear(200)}), 0);
    ASSERT_EQ(md->checkpoint(), 0);
    const dm_remap_super sb = super_at(*world, 0);
    const dm_remap_disk_block block =
        block_at(*world, dm_remap_table_at(&sb.layout, 0, sb.active_table));
    ASSERT_EQ(le16toh(block.header.count), 1);
    for (unsigned i = 1; i < DM_REMAP_ENTRIES_PER_BLOCK; i++) {
        EXPECT_EQ(block.entry[i].kind, 0) << i;
        EXPECT_EQ(block.entry[i].main, 0U) << i;
    }
}

// Where one copy of the table could not be written, the stop writes both anew.
TEST(Metadata, StopLeavesBothCopiesOfTheTable) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    const dm_remap_layout layout = (*md)->sb.layout;
    const std::uint64_t table = dm_remap_table_at(&layout, 1, !(*md)->sb.active_table);
    world->spare.bad_write.insert(table * kBlockSectors);
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_DEGRADED);
    world->spare.bad_write.clear();
    ASSERT_EQ(md->deactivate(), 0);
    const dm_remap_super sb = super_at(*world, 0);
    EXPECT_EQ(sb.state, DM_REMAP_STATE_CLEAN);
    EXPECT_EQ(sb.table_copies, DM_REMAP_ALL_REPLICAS);
}

TEST(Metadata, GoesOnAfterSuspendWithoutAnotherLoad) {
    auto world = formatted();
    auto md = open(*world);
    for (unsigned i = 0; i < 5; i++) {
        ASSERT_EQ(md->remap(i * 10), 0);
        ASSERT_EQ(md->deactivate(), 0);
        ASSERT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(super_at(*world, 0).activation, 2U + i);
    }
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST(Metadata, ClearRemovesAndSplits) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->commit({pending(1000, 100)}), 0);
    ASSERT_EQ(md->commit({clear(1040, 20), pending(2000, 4)}), 0);
    const Records expected = {{DM_REMAP_PENDING, 1000, 0, 40},
                              {DM_REMAP_PENDING, 1060, 0, 40},
                              {DM_REMAP_PENDING, 2000, 0, 4}};
    EXPECT_EQ(md->records(), expected);
    EXPECT_EQ(try_load(*world).records, expected);
}

TEST(Metadata, ReadOnlyLoadWritesNothing) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(7), 0); }
    const Image before = world->spare.image();
    const std::uint64_t writes = world->spare.writes();
    EXPECT_EQ(try_load(*world).error, 0);
    EXPECT_EQ(world->spare.writes(), writes);
    EXPECT_EQ(world->spare.image(), before);
}

TEST(Metadata, EmptyTableIsWrittenWithoutAWriteOfNothing) {
    auto world = formatted();
    auto md = open(*world);
    // SimDisk refuses a write of no sectors.
    EXPECT_EQ(md->checkpoint(), 0);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_EQ(super_at(*world, 0).table_count, 0U);
}

TEST(Metadata, TableOfSeveralBatches) {
    const Shape shape{.main_sectors = 1 << 20, .spare_sectors = 1 << 16, .max_records = 20'000};
    auto world = formatted(shape);
    auto md = open(*world);
    // 16 blocks of 126 are a batch: just that many, one less, one more.
    std::uint64_t at = 0;
    for (unsigned want : {2015U, 2016U, 2017U, 4032U}) {
        while (at < want) {
            std::vector<dm_remap_record> entries;
            while (at < want && entries.size() < DM_REMAP_ENTRIES_PER_BLOCK) {
                entries.push_back(mapped(at++ * 3, md->take()));
            }
            ASSERT_EQ(md->commit(entries), 0);
        }
        ASSERT_EQ(md->checkpoint(), 0);
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.records.size(), want);
        EXPECT_TRUE(loaded.records == md->records());
        EXPECT_EQ(loaded.report.replayed, 0U);
    }
}

// What follows goes to the other copy alone; the next table is whole again.
TEST(Metadata, TableCopyThatFailsInItsFirstBatchIsGivenUp) {
    const Shape shape{.main_sectors = 1 << 20, .spare_sectors = 1 << 16, .max_records = 20'000};
    auto world = formatted(shape);
    auto md = open(*world);
    std::uint64_t at = 0;
    while (at < 10'000) {
        std::vector<dm_remap_record> entries;
        while (entries.size() < 100) {
            entries.push_back(mapped(at++ * 3, md->take()));
        }
        ASSERT_EQ(md->commit(entries), 0);
    }
    for (int replica : {0, 1}) {
        const dm_remap_layout l = (*md)->sb.layout;
        const int table = !(*md)->sb.active_table;
        const std::uint64_t begin = dm_remap_table_at(&l, replica, table) * kBlockSectors;
        unsigned writes = 0;
        world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
            const bool there = sector >= begin && sector < begin + l.table_blocks * kBlockSectors;
            return there && writes++ == 0 ? -EIO : 0;
        };
        ASSERT_EQ(md->checkpoint(), 0);
        world->spare.on_write = nullptr;
        EXPECT_EQ(writes, 1U);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_DEGRADED);
        EXPECT_TRUE(try_load(*world).records == md->records());
        ASSERT_EQ(md->checkpoint(), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    }
}

// A second stop has nothing to save, whatever became of the spare since.
TEST(Metadata, StopOfWhatIsStoppedWritesNothing) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(7), 0);
    ASSERT_EQ(md->deactivate(), 0);
    const std::uint64_t writes = world->spare.writes();
    EXPECT_EQ(md->deactivate(), 0);
    EXPECT_EQ(world->spare.writes(), writes);
}

// Offline the superblock alone says how long main is, and it may say anything.
TEST(Metadata, LengthThatASuperblockClaimsTakesNoMemoryWithoutEnd) {
    auto world = formatted();
    for (int r : {0, 1}) {
        dm_remap_super sb = super_at(*world, r);
        sb.main.sectors = UINT64_MAX >> 10;
        put_super(*world, sb, r);
    }
    static std::size_t most;
    most = 0;
    dm_remap_zalloc_hook = [](size_t size) {
        most = std::max(most, size);
        return size <= (std::size_t{1} << 30);
    };
    Metadata md(*world);
    EXPECT_EQ(dm_remap_load(md.get(), world->spare.sectors(), 0, &md.report), 0);
    dm_remap_zalloc_hook = nullptr;
    EXPECT_LE(most, std::size_t{128} << 20);
}

TEST(Metadata, LoadedSpareSectorsAreTaken) {
    auto world = formatted();
    std::uint64_t free = 0;
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(50, 8), 0);
        ASSERT_EQ(md->commit({retired(md->take(2), 2)}), 0);
        free = dm_remap_alloc_free_sectors(&(*md)->alloc);
    }
    auto md = open(*world);
    EXPECT_EQ(dm_remap_alloc_free_sectors(&(*md)->alloc), free);
    for (const Record& r : md->records()) {
        EXPECT_EQ(dm_remap_alloc_mark(&(*md)->alloc, r.spare, r.length), -EEXIST);
    }
}

// ---- commits that are refused ----

TEST(Commit, WhatLoadWouldRefuseIsNotCommitted) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t spare = md->take();
    dm_remap_record bad = mapped(0, spare);
    bad.reason = 0;
    EXPECT_EQ(md->commit({bad}), -EINVAL);
    EXPECT_EQ(md->commit({mapped(world->main.sectors(), spare)}), -EINVAL);
    EXPECT_EQ(md->commit({mapped(0, 0)}), -EINVAL);
    EXPECT_EQ(md->commit({}), -EINVAL);
    EXPECT_EQ(md->commit(std::vector(127, pending(0))), -EINVAL);
    EXPECT_TRUE(md->records().empty());
    EXPECT_EQ(md->commit({mapped(0, spare)}), 0);
}

TEST(Commit, FullJournalMakesItsOwnCheckpoint) {
    auto world = formatted();
    auto md = open(*world);
    for (unsigned i = 0; i < 16; i++) {
        ASSERT_EQ(md->remap(i * 3), 0);
    }
    EXPECT_EQ(dm_remap_journal_used(md->get()), 16U);
    const std::uint64_t generation = (*md)->sb.generation;
    EXPECT_EQ(try_load(*world).records, md->records());  // a ring that is quite full
    ASSERT_EQ(md->remap(1000), 0);
    EXPECT_EQ((*md)->sb.generation, generation + 1);
    EXPECT_EQ(dm_remap_journal_used(md->get()), 1U);
    for (unsigned i = 0; i < 100; i++) {
        ASSERT_EQ(md->remap(2000 + i * 3), 0);
    }
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST(Commit, FullTableRefusesMoreButAlwaysClears) {
    const Shape shape{.main_sectors = 1 << 16, .max_records = 126};
    auto world = formatted(shape);
    auto md = open(*world);
    const std::uint64_t promised = dm_remap_max_records(&(*md)->sb.layout);
    const std::uint64_t capacity = dm_remap_table_capacity(&(*md)->sb.layout);
    std::uint64_t n = 0;
    int ret = 0;
    while ((ret = md->commit({pending(n * 16, 9)})) == 0) {
        n++;
    }
    EXPECT_EQ(ret, -ENOSPC);
    EXPECT_GE(n, promised);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);

    // Each of these cuts one in two, as long as there is room for it.
    std::uint64_t cut = 0;
    while ((ret = md->commit({clear(cut * 16 + 4)})) == 0) {
        cut++;
    }
    EXPECT_EQ(ret, -ENOSPC);
    EXPECT_EQ(md->records().size(), capacity);
    EXPECT_EQ(dm_remap_room(md->get()), 0U);
    ASSERT_EQ(md->checkpoint(), 0);
    EXPECT_EQ(try_load(*world).records.size(), capacity);
    // What makes no more records still goes: counters, the edge of one, a whole one.
    dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, 1);
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(md->commit({clear((n - 1) * 16, 2)}), 0);
    EXPECT_EQ(md->commit({clear((n - 1) * 16, 16)}), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST(Commit, TableOfASmallSpareHoldsWhatWasAskedFor) {
    const Shape shape{.spare_sectors = 4096, .max_records = 1};
    auto world = formatted(shape);
    EXPECT_EQ(open(*world)->remap(5), 0);
}

// ---- soft state ----

TEST(Autosave, NothingDirtyNothingWritten) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t writes = world->spare.writes();
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(world->spare.writes(), writes);
    EXPECT_EQ((*md)->saves, 0U);
}

TEST(Autosave, CountersTakeOneJournalBlockAndSurvive) {
    auto world = formatted();
    {
        auto md = open(*world);
        dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, 5);
        dm_remap_count(md->get(), DM_REMAP_RELOCATED, 1'000'000'000'000);
        EXPECT_TRUE(dm_remap_dirty(md->get()));
        const std::uint64_t writes = world->spare.writes();
        EXPECT_EQ(dm_remap_autosave(md->get()), 0);
        EXPECT_EQ(world->spare.writes(), writes + 2);
        EXPECT_FALSE(dm_remap_dirty(md->get()));
        EXPECT_EQ((*md)->saves, 1U);
        EXPECT_EQ((*md)->last_save, world->time);
    }
    auto md = open(*world);
    EXPECT_EQ(counter(*md, DM_REMAP_READ_ERRORS), 5U);
    EXPECT_EQ(counter(*md, DM_REMAP_RELOCATED), 1'000'000'000'000U);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, 2);
    ASSERT_EQ(md->deactivate(), 0);
    EXPECT_EQ(super_at(*world, 0).counter[DM_REMAP_READ_ERRORS], 7U);
    EXPECT_EQ(counter(*open(*world), DM_REMAP_READ_ERRORS), 7U);
}

TEST(Autosave, CheckpointsAHalfFullRing) {
    auto world = formatted();
    auto md = open(*world);
    for (unsigned i = 0; i < 7; i++) {
        ASSERT_EQ(md->remap(i * 3), 0);
    }
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(dm_remap_journal_used(md->get()), 7U);
    ASSERT_EQ(md->remap(500), 0);
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(dm_remap_journal_used(md->get()), 0U);
}

TEST(Autosave, FailureIsCountedAndTriedAgain) {
    auto world = formatted();
    auto md = open(*world);
    dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, 5);
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_NE(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ((*md)->save_errors, 1U);
    EXPECT_TRUE((*md)->save_failed);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_NE(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ((*md)->save_errors, 2U);
    world->spare.on_write = nullptr;
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_FALSE((*md)->save_failed);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_EQ(counter(*open(*world), DM_REMAP_READ_ERRORS), 5U);
}

// A shortage of memory is over some time, and then the status says nothing of it any more, though
// there is nothing else to save.
TEST(Autosave, ShortageOfMemoryIsTriedAgain) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    {
        const FailAllocation fail(0);
        EXPECT_EQ(dm_remap_save(md->get()), -ENOMEM);
        ASSERT_TRUE(fail.happened());
    }
    EXPECT_TRUE((*md)->save_failed);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    ASSERT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_FALSE((*md)->save_failed);
}

TEST(Autosave, OutsideOfAnActivationDoesNothing) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->deactivate(), 0);
    dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, 5);
    const std::uint64_t writes = world->spare.writes();
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(dm_remap_save(md->get()), -EROFS);
    EXPECT_EQ(world->spare.writes(), writes);
    EXPECT_NE((*md)->mode, DM_REMAP_MODE_RO);
}

// No memory to take the flags back when the checkpoint has settled the doubt: later, then.
TEST(Autosave, SettlesADoubtThatIsLeftOver) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t free = dm_remap_alloc_free_sectors(&(*md)->alloc);
    world->spare.on_write = [&](auto, auto sector, auto) {
        return sector < dm_remap_data_start(&(*md)->sb.layout) ? -EIO : 0;
    };
    EXPECT_EQ(md->remap(100), -EUCLEAN);
    world->spare.on_write = nullptr;
    // Superblock 0 is the checkpoint's last write.
    std::unique_ptr<FailAllocation> fail;
    world->spare.after_write = [&](auto sector, auto) {
        if (sector == 0 && (*md)->writing) {
            fail = std::make_unique<FailAllocation>(0);
        }
    };
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    world->spare.after_write = nullptr;
    ASSERT_TRUE(fail && fail->happened());
    fail.reset();
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(dm_remap_alloc_free_sectors(&(*md)->alloc), free);
}

// Read without a lock, the two numbers it is made of may be of different moments.
TEST(Metadata, JournalUsedIsNeverAbsurd) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t next = (*md)->next_sequence;
    (*md)->oldest_start = next + 3;
    EXPECT_EQ(dm_remap_journal_used(md->get()), 0U);
    (*md)->oldest_start = next - 16;
    EXPECT_EQ(dm_remap_journal_used(md->get()), 16U);
    (*md)->next_sequence = next + 40;
    EXPECT_EQ(dm_remap_journal_used(md->get()), 16U);
}

// The commits see to it that there is room. Should they fail to, nothing is written that no one
// could load.
TEST(Metadata, TableThatOutgrewItsPlaceIsNotWritten) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(50'000), 0);
    const std::uint64_t capacity = dm_remap_table_capacity(&(*md)->sb.layout);
    for (std::uint64_t i = 0; i < capacity; i++) {
        const dm_remap_record r = pending(2 * i);
        dm_remap_update u{};
        dm_remap_update_init(&u);
        ASSERT_EQ(dm_remap_update_set(&(*md)->table, &u, &r), 0);
        dm_remap_update_publish(&(*md)->table, &u);
    }
    EXPECT_EQ(md->checkpoint(), -ENOSPC);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records.size(), 1U);
}

// ---- healing ----

// Zeroes a block of the table in use in one replica; the other is its fellow.
std::uint64_t damage_table(World& world) {
    const dm_remap_super sb = super_at(world, 0);
    zero_block(world, dm_remap_table_at(&sb.layout, 0, sb.active_table));
    return dm_remap_table_at(&sb.layout, 1, sb.active_table);
}

// Now the fellow goes, too.
void expect_healed(World& world, std::uint64_t fellow, const Records& records) {
    zero_block(world, fellow);
    const Loaded loaded = try_load(world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records, records);
}

// Damage was found, and nothing could be written. Resumed later, what was found then is still to
// be done.
TEST(Heal, IsStillToBeDoneWhereActivationFailed) {
    for (bool resumed : {false, true}) {
        auto world = formatted();
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(7), 0);
            ASSERT_EQ(md->checkpoint(), 0);
        }
        const std::uint64_t fellow = damage_table(*world);
        world->spare.on_write = [](auto, auto, auto) { return -EIO; };
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_NE(md->deactivate(), 0);
        if (resumed) {  // in vain, once more
            ASSERT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
            EXPECT_NE(md->deactivate(), 0);
        }
        world->spare.on_write = nullptr;
        ASSERT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        expect_healed(*world, fellow, md->records());
    }
}

// So it is with what restore found, and could not put right.
TEST(Heal, IsStillToBeDoneWhereRestoreFailed) {
    enum { kNoSpare, kNoMemory, kNoMemoryAndStopped };
    for (auto how : {kNoSpare, kNoMemory, kNoMemoryAndStopped}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(7), 0);
        ASSERT_EQ(md->checkpoint(), 0);
        const std::uint64_t fellow = damage_table(*world);
        bool healed = false;
        if (how != kNoSpare) {
            // The one of the snapshot of the second table: the checkpoint's last.
            std::uint64_t n = 0;
            for (;; n++) {
                FailAllocation fail(n);
                if (dm_remap_restore(md->get(), world->spare.sectors(), &healed) == -ENOMEM &&
                    healed) {
                    break;
                }
                ASSERT_TRUE(fail.happened());
            }
        } else {
            world->spare.on_write = [](auto, auto, auto) { return -EIO; };
            EXPECT_NE(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
            EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
            EXPECT_NE(md->deactivate(), 0);
            world->spare.on_write = nullptr;
            ASSERT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
        }
        EXPECT_EQ(how == kNoMemoryAndStopped ? md->deactivate() : dm_remap_autosave(md->get()), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        expect_healed(*world, fellow, md->records());
    }
}

// A journal that tells of ranges which have come and gone is no news to a longer device. To a
// shorter one it is nonsense, so it is begun anew.
TEST(Resize, JournalOfALongerDeviceIsLeftBehind) {
    for (bool loaded_anew : {false, true}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(7), 0);
        ASSERT_EQ(md->commit({pending(60'000, 8)}), 0);
        ASSERT_EQ(md->commit({clear(60'000, 8)}), 0);
        if (loaded_anew) {
            md = std::make_unique<Metadata>(*world);
            ASSERT_EQ(md->load(), 0);
        } else {
            world->spare.on_write = [](auto, auto, auto) { return -EIO; };
            EXPECT_NE(md->deactivate(), 0);
            world->spare.on_write = nullptr;
        }
        world->main.resize(50'000);
        ASSERT_EQ(dm_remap_metadata_resize(md->get(), 50'000), 0);
        EXPECT_EQ((*md)->main_sectors, 50'000U);
        EXPECT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records, md->records());
        EXPECT_EQ(md->commit({pending(60'000)}), -EINVAL);
    }
}

TEST(Resize, RecordsAreInTheWay) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(60'000), 0);
    ASSERT_EQ(md->deactivate(), 0);
    EXPECT_EQ(dm_remap_metadata_resize(md->get(), 50'000), -EBUSY);
    EXPECT_EQ((*md)->main_sectors, world->main.sectors());
    EXPECT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// ---- restore ----

// On the spare is a commit that failed: whoever loads it next believes it, and memory does not.
TEST(Restore, BurntCommitThatLandedIsNotWhatMemoryHolds) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(7), 0);
    const std::uint64_t begun = world->spare.writes() + 2;
    world->spare.failed_writes_land = true;
    world->spare.on_write = [&](auto n, auto, auto) {
        world->spare.failed_writes_land = n == begun;
        return n >= begun ? -EIO : 0;
    };
    EXPECT_EQ(md->remap(100), -EUCLEAN);
    EXPECT_EQ(try_load(*world).records.size(), 2U);
    bool healed = true;
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), -EUCLEAN);
    EXPECT_FALSE(healed);
    world->spare.on_write = nullptr;
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST(Restore, VerifiesWhatIsWhole) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(7), 0);
    bool healed = true;
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
    EXPECT_FALSE(healed);
}

// Damage in one replica, in any of its parts, is found and put right.
TEST(Restore, HealsEitherReplica) {
    for (int replica : {0, 1}) {
        for (int part : {0, 1, 2}) {
            auto world = formatted();
            auto md = open(*world);
            ASSERT_EQ(md->remap(7), 0);
            ASSERT_EQ(md->checkpoint(), 0);
            ASSERT_EQ(md->remap(9), 0);
            const dm_remap_super sb = (*md)->sb;
            const std::uint64_t at[] = {dm_remap_superblock_at(&sb.layout, replica),
                                        dm_remap_journal_at(&sb.layout, replica, sb.journal_start),
                                        dm_remap_table_at(&sb.layout, replica, sb.active_table)};
            zero_block(*world, at[part]);
            bool healed = false;
            EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
            EXPECT_TRUE(healed) << replica << part;
            EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
            EXPECT_FALSE(healed) << replica << part;
            const Loaded loaded = try_load(*world);
            EXPECT_EQ(loaded.records, md->records());
            EXPECT_EQ(loaded.report.replica[replica].superblock, DM_REMAP_VALID);
        }
    }
}

// One superblock may or may not have taken its last write, and the other one is damaged: no end is
// known to hold the generation that the spare has, and both are written again.
TEST(Restore, HealsWhereNeitherSuperblockIsKnownToBeCurrent) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(7), 0);
    const std::uint64_t tail = dm_remap_superblock_at(&(*md)->sb.layout, 1);
    bool fails = true;
    world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
        return fails && sector == tail * kBlockSectors ? -EIO : 0;
    };
    // Once the journal is looked at.
    world->spare.on_read = [&](std::uint64_t sector, std::uint32_t n) {
        fails = fails && (sector != kBlockSectors || n == kBlockSectors);
    };
    ASSERT_NE(md->checkpoint(), 0);
    zero_block(*world, 0);
    bool healed = false;
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
    EXPECT_TRUE(healed);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.records, md->records());
    EXPECT_FALSE(loaded.report.lagging);
    EXPECT_EQ(loaded.report.replica[0].superblock, DM_REMAP_VALID);
}

TEST(Restore, NeverReplacesMemoryByAnythingOlder) {
    auto world = formatted();
    auto md = open(*world);
    const Image older = world->spare.image();
    ASSERT_EQ(md->remap(7), 0);
    const Records records = md->records();
    bool healed = true;

    world->spare.restore(older);
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), -EUCLEAN);
    EXPECT_FALSE(healed);
    EXPECT_EQ(md->records(), records);
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
    EXPECT_EQ(try_load(*world).records, records);
}

// Of the same spare, as many commits and checkpoints, but other ones.
TEST(Restore, AnotherHistoryIsNotWhatMemoryHolds) {
    auto world = formatted();
    auto md = open(*world);
    auto other_world = formatted();
    auto other = open(*other_world);
    ASSERT_EQ(md->remap(7), 0);
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ(other->remap(9), 0);
    ASSERT_EQ(other->checkpoint(), 0);
    ASSERT_EQ((*md)->sb.generation, (*other)->sb.generation);
    const Records records = md->records();

    world->spare.restore(other_world->spare.image());
    bool healed = true;
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), -EUCLEAN);
    EXPECT_FALSE(healed);
    EXPECT_EQ(md->records(), records);
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, records);
}

// The spare has a commit more than memory.
TEST(Restore, CommitThatMemoryDoesNotKnowIsNotWhatMemoryHolds) {
    auto world = formatted();
    auto md = open(*world);
    auto other_world = formatted();
    auto other = open(*other_world);
    ASSERT_EQ(md->remap(7), 0);
    ASSERT_EQ(other->remap(7), 0);
    world->spare.restore(other_world->spare.image());
    bool healed = true;
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), 0);
    EXPECT_FALSE(healed);
    ASSERT_EQ(other->remap(9), 0);
    world->spare.restore(other_world->spare.image());
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), -EUCLEAN);
    EXPECT_FALSE(healed);
}

TEST(Restore, BothReplicasLostIsPutRightBySave) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(7), 0);
    const dm_remap_layout l = (*md)->sb.layout;
    for (int r : {0, 1}) {
        zero_block(*world, dm_remap_superblock_at(&l, r));
        zero_block(*world, dm_remap_journal_at(&l, r, (*md)->sb.journal_start));
    }
    bool healed = true;
    EXPECT_EQ(dm_remap_restore(md->get(), world->spare.sectors(), &healed), -EUCLEAN);
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// ---- memory ----

// Each allocation in turn fails once. Nothing leaks (the sanitizer looks), what was reported as
// done is done, what was reported as failed left no trace, and a second try succeeds.
void each_allocation_fails(const std::function<int(Metadata&)>& work,
                           const std::function<int(Metadata&)>& prepare = nullptr) {
    for (std::uint64_t n = 0;; n++) {
        SCOPED_TRACE(n);
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(50'000, 3), 0);
        if (prepare) {
            ASSERT_EQ(prepare(*md), 0);
        }
        const Records before = md->records();
        bool happened = false;
        int ret = 0;
        {
            FailAllocation fail(n);
            ret = work(*md);
            happened = fail.happened();
        }
        if (ret != 0) {
            EXPECT_EQ(ret, -ENOMEM);
            EXPECT_EQ(md->records(), before);
            EXPECT_EQ(try_load(*world).records, before);
            EXPECT_EQ(work(*md), 0);
        }
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(try_load(*world).records, md->records());
        if (!happened) {
            break;
        }
    }
}

TEST(NoMemory, Commit) {
    each_allocation_fails([](Metadata& md) {
        const std::uint64_t spare = md.take(20);
        const int ret = md.commit(
            {mapped(8190, spare, 5), pending(20'000, 3), clear(50'001), retired(spare + 10)});
        if (ret != 0) {
            dm_remap_alloc_release(&md->alloc, spare, 20);
        }
        return ret;
    });
}

TEST(NoMemory, CommitIntoAFullJournal) {
    each_allocation_fails([](Metadata& md) { return md.commit({pending(7)}); },
                          [](Metadata& md) {
                              int ret = 0;
                              while (ret == 0 && dm_remap_journal_used(md.get()) < 16) {
                                  ret = md.commit({pending(100 + md->next_sequence)});
                              }
                              return ret;
                          });
}

TEST(NoMemory, Checkpoint) {
    each_allocation_fails([](Metadata& md) { return md.checkpoint(); });
}

TEST(NoMemory, Restore) {
    each_allocation_fails([](Metadata& md) {
        bool healed = false;
        return dm_remap_restore(md.get(), 2048, &healed);
    });
}

TEST(NoMemory, Load) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(20'000, 3), 0);
        ASSERT_EQ(md->remap(50'000, 3), 0);
        ASSERT_EQ(md->commit({retired(md->take())}), 0);
        ASSERT_EQ(md->checkpoint(), 0);
        ASSERT_EQ(md->commit({pending(9), retired(md->take())}), 0);
    }
    // Known to one replica alone: its doubt takes memory too.
    zero_block(*world, journal_at(*world, 1, super_at(*world, 0).journal_start));
    const Records records = try_load(*world).records;
    for (std::uint64_t n = 0;; n++) {
        dm_remap_metadata md{};
        dm_remap_report report{};
        FailAllocation fail(n);
        int ret = dm_remap_metadata_init(&md, &World::kOps, world.get());
        if (ret == 0) {
            ret = dm_remap_load(&md, world->spare.sectors(), world->main.sectors(), &report);
            dm_remap_metadata_exit(&md);
        }
        EXPECT_EQ(ret, fail.happened() ? -ENOMEM : 0) << n;
        if (!fail.happened()) {
            break;
        }
    }
    EXPECT_EQ(try_load(*world).records, records);
}

// A hostile spare can make loading long: it can be ended.
TEST(Metadata, LoadingStopsWhenAsked) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->commit({pending(1), pending(3), pending(5), pending(7)}), 0);
    }
    for (int error : {-EINTR, -EAGAIN}) {
        unsigned left = 3;
        world->on_stop = [&] { return left-- == 0 ? error : 0; };
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, error);
        EXPECT_NE(loaded.why.find("interrupted"), std::string::npos) << loaded.why;
    }
    // Which is nothing that restore could say of the spare.
    world->on_stop = nullptr;
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    ASSERT_EQ(md.activate(), 0);
    world->on_stop = [] { return -EAGAIN; };
    bool healed = false;
    EXPECT_EQ(dm_remap_restore(md.get(), world->spare.sectors(), &healed), -EAGAIN);
    world->on_stop = nullptr;
    EXPECT_EQ(dm_remap_restore(md.get(), world->spare.sectors(), &healed), 0);
}

// So can a device make it that takes its time for each block that it cannot read.
TEST(Metadata, LoadingStopsBetweenTwoBadBlocks) {
    auto world = formatted();
    for (std::uint64_t slot = 0; slot < super_at(*world, 0).layout.journal_blocks; slot++) {
        unreadable_block(*world, journal_at(*world, 0, slot));
    }
    unsigned reads = 0;
    unsigned asked_at = 0;
    world->spare.on_read = [&](auto, auto) { reads++; };
    world->on_stop = [&] { return reads > asked_at ? -EINTR : 0; };
    int error = -EINTR;
    for (; error != 0; asked_at++) {
        reads = 0;
        error = try_load(*world).error;
        if (error != 0) {
            EXPECT_EQ(error, -EINTR);
            EXPECT_LE(reads, asked_at + 2);
        }
    }
    EXPECT_GT(asked_at, 16);
}

// Lack of memory is no fault of the spare, which would be given up for it.
TEST(NoMemory, ActivationThatHeals) {
    for (std::uint64_t n = 0;; n++) {
        SCOPED_TRACE(n);
        auto world = formatted();
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(7), 0);
            ASSERT_EQ(md->checkpoint(), 0);
        }
        damage_table(*world);
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        bool happened = false;
        int ret = 0;
        {
            FailAllocation fail(n);
            ret = md.activate();
            happened = fail.happened();
        }
        if (ret != 0) {
            EXPECT_EQ(ret, -ENOMEM);
            EXPECT_FALSE(md->active);
            EXPECT_EQ(md.activate(), 0);
        }
        EXPECT_EQ(md->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(try_load(*world).records, md.records());
        if (!happened) {
            EXPECT_GT(n, 0U);
            break;
        }
    }
}

TEST(NoMemory, Format) {
    auto world = make_world();
    FailAllocation fail(0);
    EXPECT_EQ(format(*world, {}), -ENOMEM);
}

}  // namespace
}  // namespace remap

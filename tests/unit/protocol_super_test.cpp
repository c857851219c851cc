// The rules of the protocol (docs/on-disk-format.md names these tests): superblocks, and the tables
// that they name.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>

#include "protocol.h"

namespace remap {
namespace {

// ---- superblocks ----

// The older one starts more than a ring before the newer one, which no commit lets happen. What is
// in the slots meanwhile is not looked for twice, and the newer one counts.
TEST(Protocol, OlderSuperblockMayStartMoreThanARingBefore) {
    auto world = formatted();
    Records expected;
    {
        auto md = open(*world);
        for (unsigned i = 0; i < 20; i++) {
            ASSERT_EQ(md->remap(100 + 10 * i), 0);
        }
        ASSERT_EQ(md->checkpoint(), 0);
        expected = md->records();
    }
    ASSERT_GT(super_at(*world, 0).journal_start, kFirst + 16);
    dm_remap_super sb = super_at(*world, 0);
    sb.generation--;
    sb.journal_start = kFirst;
    put_super(*world, sb, 0);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_TRUE(loaded.report.lagging);
    EXPECT_EQ(loaded.records, expected);
}

TEST(Protocol, OfSuperblocksOneApartTheNewerCounts) {
    auto world = formatted();
    Records expected;
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        // The table, superblock 1, and then the power fails.
        cut_power_at(*world, 3, [&] { EXPECT_NE(md->checkpoint(), 0); });
        expected = md->records();
    }
    EXPECT_EQ(super_at(*world, 1).generation, super_at(*world, 0).generation + 1);
    const Loaded loaded = try_load(*world);
    EXPECT_TRUE(loaded.report.lagging);
    EXPECT_EQ(loaded.report.replayed, 0U);
    EXPECT_EQ(loaded.records, expected);
    { open(*world); }
    EXPECT_EQ(super_at(*world, 1).generation, super_at(*world, 0).generation);
}

// A flush on the way was told of a block of somebody else's, or somebody else of the table's.
TEST(Protocol, CheckpointThatFailsIsDoneOnceMoreTableAndAll) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    const dm_remap_super sb = super_at(*world, 1);
    unsigned failed = 0;
    world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
        if (sector != dm_remap_superblock_at(&sb.layout, 1) * kBlockSectors || failed != 0) {
            return 0;
        }
        failed++;
        zero_block(*world, dm_remap_table_at(&sb.layout, 0, sb.active_table == 0));
        zero_block(*world, dm_remap_table_at(&sb.layout, 1, sb.active_table == 0));
        return -EIO;
    };
    EXPECT_EQ(md->checkpoint(), 0);
    EXPECT_EQ(failed, 1U);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records, md->records());
    EXPECT_EQ(loaded.report.replica[0].bad_table_blocks, 0U);
    EXPECT_EQ(loaded.report.replica[1].bad_table_blocks, 0U);
}

// A superblock of a checkpoint is said to have failed, and is there all the same: that is no other
// system's, neither now nor after a stop that fails as well.
TEST(Protocol, SuperblockThatFailedAndLandedIsOurs) {
    for (const bool stops : {false, true}) {
        auto world = formatted();
        auto md = open(*world);
        const std::uint64_t tail = dm_remap_superblock_at(&(*md)->sb.layout, 1) * kBlockSectors;
        ASSERT_EQ(md->remap(100), 0);
        world->spare.failed_writes_land = true;
        const std::uint64_t generation = (*md)->sb.generation;
        world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
            return sector == tail ? -EIO : 0;
        };
        EXPECT_NE(dm_remap_save(md->get()), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        ASSERT_EQ(super_at(*world, 1).generation, generation);  // the second try has equalised
        if (stops) {
            EXPECT_NE(md->deactivate(), 0);
        }
        world->spare.on_write = nullptr;
        dm_remap_super sb = super_at(*world, 1);
        sb.generation = generation + 1;
        put_super(*world, sb, 1);
        if (stops) {
            EXPECT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
        } else {
            EXPECT_EQ(dm_remap_save(md->get()), 0);
        }
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(try_load(*world).records, md->records());
    }
}

// A checkpoint that failed, and was done once more behind another commit, has written the same
// table twice under one generation. Where the spare loses the second write of a block, the first is
// whole, and is not of the table that the superblocks name. The other copy is.
TEST(Protocol, BlockOfAnEarlierTryIsDamaged) {
    for (const int replica : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(md->checkpoint(), 0);
        const std::uint64_t at =
            dm_remap_table_at(&(*md)->sb.layout, replica, (*md)->sb.active_table);
        const Records records = md->records();
        md.reset();
        dm_remap_disk_block block = block_at(*world, at);
        block.entry[0].main = htole64(200);
        put_block(*world, block, at);
        for (const bool healed : {false, true}) {
            const Loaded loaded = try_load(*world);
            EXPECT_EQ(loaded.error, 0) << loaded.why;
            EXPECT_EQ(loaded.records, records);
            EXPECT_EQ(loaded.report.replica[replica].bad_table_blocks, healed ? 0U : 1U);
            EXPECT_EQ(loaded.report.replica[!replica].bad_table_blocks, 0U);
            open(*world);
        }
    }
}

// A spare may lose the write of a table block, and keep the one of an earlier table in its place,
// whole: that is damage like any other.
TEST(Protocol, BlockOfAnEarlierTableIsDamaged) {
    for (const int replica : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(md->checkpoint(), 0);
        const std::uint64_t at =
            dm_remap_table_at(&(*md)->sb.layout, replica, (*md)->sb.active_table);
        const dm_remap_disk_block earlier = block_at(*world, at);
        ASSERT_EQ(md->remap(200), 0);
        ASSERT_EQ(md->checkpoint(), 0);
        ASSERT_EQ(md->checkpoint(), 0);
        ASSERT_EQ(dm_remap_table_at(&(*md)->sb.layout, replica, (*md)->sb.active_table), at);
        const Records records = md->records();
        md.reset();
        put_block(*world, earlier, at);
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records, records);
        EXPECT_EQ(loaded.report.replica[replica].bad_table_blocks, 1U);
    }
}

// Of a table of two blocks each end has lost another one. Neither copy is the whole table, and the
// generation in each block tells which of the two blocks belongs to it.
TEST(Protocol, BlocksOfAnEarlierTableAreDamagedOnBothEnds) {
    auto world = formatted();
    auto md = open(*world);
    for (std::uint64_t i = 0; i < DM_REMAP_ENTRIES_PER_BLOCK + 10; i++) {
        ASSERT_EQ(md->remap(8 * i), 0);
    }
    ASSERT_EQ(md->checkpoint(), 0);
    std::array<std::uint64_t, DM_REMAP_REPLICAS> at{};
    std::array<dm_remap_disk_block, DM_REMAP_REPLICAS> earlier{};
    for (int replica = 0; replica < DM_REMAP_REPLICAS; replica++) {
        at[replica] =
            dm_remap_table_at(&(*md)->sb.layout, replica, (*md)->sb.active_table) + replica;
        earlier[replica] = block_at(*world, at[replica]);
    }
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ(dm_remap_table_at(&(*md)->sb.layout, 0, (*md)->sb.active_table), at[0]);
    const Records records = md->records();
    md.reset();
    for (int replica = 0; replica < DM_REMAP_REPLICAS; replica++) {
        put_block(*world, earlier[replica], at[replica]);
    }
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records, records);
    for (int replica = 0; replica < DM_REMAP_REPLICAS; replica++) {
        EXPECT_EQ(loaded.report.replica[replica].bad_table_blocks, 1U);
    }
}

TEST(Protocol, SuperblocksFurtherApartAreRefused) {
    for (int older : {0, 1}) {
        auto world = formatted();
        const dm_remap_super old = super_at(*world, older);
        { ASSERT_EQ(open(*world)->checkpoint(), 0); }
        put_super(*world, old, older);
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, -EUCLEAN);
        EXPECT_NE(loaded.why.find("different times"), std::string::npos) << loaded.why;
    }
}

TEST(Protocol, SuperblocksOfOneGenerationMustBeTheSame) {
    auto world = formatted();
    dm_remap_super sb = super_at(*world, 1);
    sb.journal_start++;
    put_super(*world, sb, 1);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EUCLEAN);
    EXPECT_NE(loaded.why.find("contradict"), std::string::npos) << loaded.why;
}

// A generation is begun only when both ends hold the one before: or a crash could leave them two
// apart, with the older one's table overwritten.
TEST(Protocol, NextGenerationOnlyWhenBothEndsHoldThisOne) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    world->spare.bad_write.insert(0);
    for (unsigned i = 0; i < 3; i++) {
        EXPECT_NE(md->checkpoint(), 0);
        EXPECT_EQ(super_at(*world, 1).generation, super_at(*world, 0).generation + 1);
        EXPECT_EQ(try_load(*world).records, md->records());
    }
    // The old superblock's table and journal are still whole, too.
    zero_block(*world, dm_remap_superblock_at(&(*md)->sb.layout, 1));
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST(Protocol, EndThatTakesNoSuperblockMeansReadOnly) {
    for (int end : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        world->spare.bad_write.insert(dm_remap_superblock_at(&(*md)->sb.layout, end) *
                                      kBlockSectors);
        EXPECT_EQ(md->checkpoint(), -EIO);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
        EXPECT_EQ(md->remap(200), -EROFS);
        world->spare.bad_write.clear();
        EXPECT_EQ(md->checkpoint(), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(md->remap(200), 0);
        EXPECT_EQ(try_load(*world).records, md->records());
    }
}

// ---- a table copy that cannot be written ----

TEST(Protocol, DegradedTableCopyIsDeclaredAndNotRead) {
    for (int bad : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        const dm_remap_layout l = (*md)->sb.layout;
        world->spare.bad_write.insert(dm_remap_table_at(&l, bad, 1) * kBlockSectors);
        EXPECT_EQ(md->checkpoint(), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_DEGRADED);
        for (int r : {0, 1}) {
            EXPECT_EQ(super_at(*world, r).table_copies, 1U << !bad);
        }
        EXPECT_EQ(md->remap(200), 0);
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.records, md->records());
        EXPECT_EQ(loaded.report.replica[bad].bad_table_blocks, 0U);

        // The good copy is the only one now.
        const dm_remap_disk_block good = block_at(*world, dm_remap_table_at(&l, !bad, 1));
        zero_block(*world, dm_remap_table_at(&l, !bad, 1));
        EXPECT_EQ(try_load(*world).error, -EUCLEAN);
        put_block(*world, good, dm_remap_table_at(&l, !bad, 1));

        // Table A can be written on both ends: whole again. So it is at the next activation.
        {
            auto next = open(*world);
            EXPECT_EQ((*next)->mode, DM_REMAP_MODE_RW);
            EXPECT_EQ(super_at(*world, 0).table_copies, 3U);
        }
    }
}

TEST(Protocol, NoTableCopyAtAllMeansReadOnly) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    const dm_remap_layout l = (*md)->sb.layout;
    for (int r : {0, 1}) {
        world->spare.bad_write.insert(dm_remap_table_at(&l, r, 1) * kBlockSectors);
    }
    EXPECT_EQ(md->checkpoint(), -EIO);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// A table block of an earlier attempt at the same place is not this table's.
TEST(Protocol, TableThatIsNotTheOneNamedIsRefused) {
    auto world = formatted();
    dm_remap_disk_block block{};
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(md->checkpoint(), 0);
    }
    const dm_remap_layout l = super_at(*world, 0).layout;
    for (int r : {0, 1}) {
        block = block_at(*world, dm_remap_table_at(&l, r, 1));
        block.entry[0].main = 101;
        put_block(*world, block, dm_remap_table_at(&l, r, 1));
    }
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

TEST(Protocol, TableWithMoreOrFewerRecordsThanItSaysIsRefused) {
    for (int more : {-1, 1}) {
        auto world = formatted();
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            ASSERT_EQ(md->remap(200), 0);
            ASSERT_EQ(md->checkpoint(), 0);
        }
        for (int r : {0, 1}) {
            dm_remap_super sb = super_at(*world, r);
            sb.records += more;
            put_super(*world, sb, r);
        }
        EXPECT_EQ(try_load(*world).error, -EUCLEAN) << more;
    }
}

// Numbers that only count up, at their end: what is there is served, and nothing is written that
// nobody could load.
TEST(Protocol, NumbersAtTheirEndMeanReadOnly) {
    const std::vector<std::function<void(dm_remap_super&)>> ends = {
        [](auto& sb) { sb.generation = DM_REMAP_MAX_NUMBER; },
        [](auto& sb) { sb.activation = DM_REMAP_MAX_NUMBER; },
        [](auto& sb) { sb.journal_start = sb.activation_sequence = DM_REMAP_MAX_NUMBER; },
    };
    for (std::size_t i = 0; i < ends.size(); i++) {
        auto world = formatted();
        for (int r : {0, 1}) {
            dm_remap_super sb = super_at(*world, r);
            ends[i](sb);
            put_super(*world, sb, r);
        }
        auto md = open(*world);
        EXPECT_EQ(md->remap(100), -EROFS) << i;
        EXPECT_EQ(try_load(*world).error, 0) << i;
    }
}

// Nor is what follows the last of all sequences withdrawn, though nobody can tell what is there.
TEST(Protocol, EndBehindTheLastNumberIsNotWithdrawn) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->commit({pending(100)}), 0);
    }
    for (int r : {0, 1}) {
        dm_remap_disk_block block = block_at(*world, journal_at(*world, r, kFirst));
        block.header.sequence = htole64(DM_REMAP_MAX_NUMBER);
        put_block(*world, block, journal_at(*world, r, DM_REMAP_MAX_NUMBER));
        dm_remap_super sb = super_at(*world, r);
        sb.journal_start = sb.activation_sequence = DM_REMAP_MAX_NUMBER;
        put_super(*world, sb, r);
        if (journal_at(*world, r, kFirst) != journal_at(*world, r, DM_REMAP_MAX_NUMBER)) {
            zero_block(*world, journal_at(*world, r, kFirst));
        }
    }
    const std::uint64_t behind = journal_at(*world, 0, DM_REMAP_MAX_NUMBER + 1);
    unreadable_block(*world, behind);
    const dm_remap_disk_block before = block_at(*world, behind);
    {
        auto md = open(*world);
        EXPECT_TRUE(md->report.end_unread);
        EXPECT_EQ((*md)->next_sequence, DM_REMAP_MAX_NUMBER + 1);
        EXPECT_EQ(md->records().size(), 1U);
        // A checkpoint would start where no load takes it.
        EXPECT_EQ(dm_remap_save(md->get()), -EROFS);
        EXPECT_EQ(md->deactivate(), -EROFS);
    }
    world->spare.bad_read.clear();
    const dm_remap_disk_block after = block_at(*world, behind);
    EXPECT_EQ(std::memcmp(&before, &after, sizeof(before)), 0);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records.size(), 1U);
}

}  // namespace
}  // namespace remap

// The rules of the protocol (docs/on-disk-format.md names these tests): activation numbers, and the
// end of the journal.
#include <gtest/gtest.h>

#include "protocol.h"

namespace remap {
namespace {

// ---- activation number ----

// A crash leaves sequence s on one replica; the next activation does not see it, and uses s again.
// The old block, found later, is not the new one.
TEST(Protocol, SequenceLeftByACrashIsNotMistakenForALaterOne) {
    auto world = formatted();
    std::uint64_t s = 0;
    {
        auto md = open(*world);
        s = (*md)->next_sequence;
        EXPECT_EQ(md->remap(100), 0);
    }
    const std::uint64_t at = journal_at(*world, 1, s);
    const dm_remap_disk_block left = block_at(*world, at);
    const std::uint64_t spare_of_left = try_load(*world).records.at(0).spare;
    // The crash came before either replica had it for good; one write did land, unseen.
    zero_block(*world, journal_at(*world, 0, s));
    zero_block(*world, at);
    auto md = open(*world);
    EXPECT_TRUE(md->records().empty());
    ASSERT_EQ((*md)->next_sequence, s);
    ASSERT_EQ(md->commit({mapped(200, spare_of_left)}), 0);
    put_block(*world, left, at);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records, (Records{{DM_REMAP_MAPPED, 200, spare_of_left, 1}}));
    // Nor is it an activation later, when both numbers are of the past.
    put_block(*world, block_at(*world, journal_at(*world, 0, s)), at);
    { open(*world); }
    put_block(*world, left, at);
    EXPECT_EQ(try_load(*world).records, loaded.records);
}

// The same, and nothing is committed before the next crash. What the second activation did not
// see, all I/O since was done without; it must not come back, however valid.
TEST(Protocol, SequenceThatAnActivationDidNotSeeStaysUnseen) {
    auto world = formatted();
    const std::uint64_t at = journal_at(*world, 0, kFirst);
    {
        auto md = open(*world);
        // Replica 0 has it, replica 1 not.
        cut_power_at(*world, 2, [&] { EXPECT_NE(md->remap(100), 0); });
    }
    unreadable_block(*world, at);
    world->spare.bad_write.insert(at * kBlockSectors);
    {
        auto md = open(*world);
        EXPECT_TRUE(md->records().empty());
        // Here a write to sector 100 goes to main, and is acknowledged.
    }
    world->spare.bad_read.clear();
    world->spare.bad_write.clear();
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_TRUE(loaded.records.empty());
    auto md = open(*world);
    ASSERT_EQ(md->remap(300), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// The number alone is on one superblock, which may be lost. What was not seen is overwritten, so
// that the other end does not find it, either.
TEST(Protocol, UnreadableEndIsWithdrawn) {
    auto world = formatted();
    const dm_remap_layout layout = super_at(*world, 0).layout;
    {
        auto md = open(*world);
        cut_power_at(*world, 2, [&] { EXPECT_NE(md->remap(100), 0); });
    }
    unreadable_block(*world, journal_at(*world, 0, kFirst));
    world->spare.rewrite_heals = true;
    world->spare.bad_write.insert(0);  // superblock 0
    {
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_TRUE(md->records().empty());
        // Here a write to sector 100 goes to main, and is acknowledged.
    }
    world->spare.bad_read.clear();
    zero_block(*world, journal_at(*world, 1, kFirst));
    zero_block(*world, dm_remap_superblock_at(&layout, 1));
    EXPECT_TRUE(try_load(*world).records.empty());
}

// Superblock 0 may be older than a checkpoint that passed a failed commit: whoever has it alone
// comes to an earlier end. That one is no hole, so the two must agree before the end is withdrawn.
TEST(Protocol, EndIsWithdrawnForBothSuperblocks) {
    for (bool stays_bad : {false, true}) {
        auto world = formatted();
        const dm_remap_layout layout = super_at(*world, 0).layout;
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            world->spare.bad_write.insert(journal_at(*world, 1, kFirst + 1) * kBlockSectors);
            world->spare.bad_write.insert(0);  // superblock 0
            EXPECT_NE(md->remap(200), 0);
        }
        ASSERT_EQ(super_at(*world, 1).journal_start, kFirst + 2);
        ASSERT_EQ(super_at(*world, 0).journal_start, kFirst);
        unreadable_block(*world, journal_at(*world, 0, kFirst + 2));
        if (!stays_bad) {
            world->spare.bad_write.erase(0);
        }
        {
            Metadata md(*world);
            ASSERT_EQ(md.load(), 0);
            EXPECT_TRUE(md.report.end_unread);
            EXPECT_EQ(md.activate(), stays_bad ? -EIO : 0);
        }
        world->spare.bad_read.clear();
        zero_block(*world, dm_remap_superblock_at(&layout, 1));
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records.size(), 1U);
    }
}

// The last commit is on one replica alone. Who withdraws what may come after it says that it
// counts, so it must be on the other one first: either of them may be lost then.
TEST(Protocol, LastCommitIsOnBothReplicasBeforeTheEndIsWithdrawn) {
    for (int lost : {0, 1}) {
        auto world = formatted();
        const dm_remap_layout layout = super_at(*world, 0).layout;
        {
            auto md = open(*world);
            cut_power_at(*world, 2, [&] { EXPECT_NE(md->remap(100), 0); });
        }
        world->spare.rewrite_heals = true;
        unreadable_block(*world, journal_at(*world, 0, kFirst + 1));
        {
            Metadata md(*world);
            ASSERT_EQ(md.load(), 0);
            EXPECT_TRUE(md.report.one_sided);
            EXPECT_TRUE(md.report.end_unread);
            world->spare.on_write = [&](auto, auto sector, auto) {
                if (sector == dm_remap_superblock_at(&layout, 1) * kBlockSectors) {
                    world->spare.power_off();
                }
                return 0;
            };
            md.activate();
            world->spare.on_write = nullptr;
            world->spare.power_on([](auto, auto) { return false; });
        }
        zero_block(*world, journal_at(*world, lost, kFirst));
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records.size(), 1U);
    }
}

// It cannot be put there: then nothing is withdrawn, and who cannot note that he was here is
// refused.
TEST(Protocol, EndBehindAOneSidedCommitThatStaysSoIsNotWithdrawn) {
    for (bool superblocks_too : {false, true}) {
        auto world = formatted();
        {
            auto md = open(*world);
            cut_power_at(*world, 2, [&] { EXPECT_NE(md->remap(100), 0); });
        }
        unreadable_block(*world, journal_at(*world, 0, kFirst + 1));
        world->spare.bad_write.insert(journal_at(*world, 1, kFirst) * kBlockSectors);
        if (superblocks_too) {
            world->spare.bad_write.insert(0);  // superblock 0
        }
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        EXPECT_EQ(md.activate(), superblocks_too ? -EIO : 0);
        world->spare.bad_read.clear();
        EXPECT_NE(block_at(*world, journal_at(*world, 0, kFirst + 1)).header.sequence, kFirst + 1);
    }
}

// An activation that was refused may be tried again: with the same metadata, and whatever of it had
// been done.
TEST(Protocol, EndIsWithdrawnAtTheNextTry) {
    for (const int failing : {0, 1}) {
        auto world = formatted();
        {
            auto md = open(*world);
            cut_power_at(*world, 2, [&] { EXPECT_NE(md->remap(100), 0); });
        }
        world->spare.rewrite_heals = true;
        unreadable_block(*world, journal_at(*world, 0, kFirst + 1));
        world->spare.bad_write.insert(0);  // superblock 0
        // The withdrawal, or the last commit's other copy.
        world->spare.bad_write.insert(journal_at(*world, failing, kFirst + 1 - failing) *
                                      kBlockSectors);
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        EXPECT_EQ(md.activate(), -EIO);
        world->spare.bad_write.clear();
        EXPECT_EQ(md.activate(), 0);
        EXPECT_EQ(md->mode, DM_REMAP_MODE_RW);
        for (int r : {0, 1}) {
            const dm_remap_disk_block block = block_at(*world, journal_at(*world, r, kFirst));
            EXPECT_EQ(block.header.sequence, kFirst) << failing << r;
            EXPECT_EQ(block.header.count, 1) << failing << r;
        }
        EXPECT_EQ(try_load(*world).error, 0);
    }
}

// The same, but the activation cannot leave its number: then it must not be.
TEST(Protocol, UnreadableEndAndNoTraceIsRefused) {
    auto world = formatted();
    const std::uint64_t at = journal_at(*world, 0, kFirst);
    {
        auto md = open(*world);
        cut_power_at(*world, 2, [&] { EXPECT_NE(md->remap(100), 0); });
    }
    unreadable_block(*world, at);
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    {
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        EXPECT_TRUE(md.report.end_unread);
        EXPECT_EQ(md.activate(), -EIO);
        // A read-only table writes nothing to main, so there is nothing to lose.
        md->write_nothing = true;
        EXPECT_EQ(md.activate(), 0);
        EXPECT_EQ(md->mode, DM_REMAP_MODE_RO);
    }
    world->spare.on_write = nullptr;
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
}

// Nor is its number on superblock 1 alone a trace: that may be lost, and superblock 0 knows
// nothing.
TEST(Protocol, UnreadableEndAndHalfATraceIsRefused) {
    auto world = formatted();
    const std::uint64_t at = journal_at(*world, 0, kFirst);
    const dm_remap_layout layout = super_at(*world, 0).layout;
    {
        auto md = open(*world);
        cut_power_at(*world, 2, [&] { EXPECT_NE(md->remap(100), 0); });
    }
    unreadable_block(*world, at);
    world->spare.bad_write.insert(at * kBlockSectors);
    world->spare.bad_write.insert(0);  // superblock 0
    {
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        EXPECT_EQ(md.activate(), -EIO);
        // Else a write to sector 100 would go to main now, and be acknowledged.
        EXPECT_FALSE(md->active);
    }
    world->spare.bad_read.clear();
    zero_block(*world, dm_remap_superblock_at(&layout, 1));
    EXPECT_EQ(try_load(*world).records.size(), 1U);
}

// After an orderly stop, and where replica 0 can be read, there is nothing to guess.
TEST(Protocol, NoTraceIsNeededWhereTheEndIsKnown) {
    for (const int replica : {0, 1}) {
        auto world = formatted();
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            if (replica == 0) {
                ASSERT_EQ(md->deactivate(), 0);
            }
        }
        const std::uint64_t next =
            try_load(*world).report.replayed + super_at(*world, 0).journal_start;
        unreadable_block(*world, journal_at(*world, replica, next));
        world->spare.on_write = [](auto, auto, auto) { return -EIO; };
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        EXPECT_FALSE(md.report.end_unread);
        EXPECT_EQ(md.activate(), 0);
        EXPECT_EQ(md->mode, DM_REMAP_MODE_RO);
    }
}

// Without the number durable on both ends there is no commit; the checkpoint that ends the misery
// makes it durable first.
TEST(Protocol, ActivationNumberIsDurableBeforeTheFirstCommit) {
    for (int end : {0, 1}) {
        auto world = formatted();
        { open(*world); }
        const std::uint64_t before = super_at(*world, end).activation;
        const dm_remap_layout l = super_at(*world, 0).layout;
        const std::uint64_t at = dm_remap_superblock_at(&l, end);
        world->spare.bad_write.insert(at * kBlockSectors);
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(md->commit({pending(8)}), -EROFS);
        EXPECT_EQ(super_at(*world, end).activation, before);
        world->spare.bad_write.clear();

        ASSERT_EQ(dm_remap_autosave(md->get()), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(super_at(*world, 0).activation, before + 1);
        EXPECT_EQ(super_at(*world, 1).activation, before + 1);
        const std::uint64_t s = (*md)->next_sequence;
        ASSERT_EQ(md->commit({pending(8)}), 0);
        EXPECT_EQ(block_at(*world, journal_at(*world, 0, s)).header.activation, before + 1);
        EXPECT_EQ(try_load(*world).records, md->records());
    }
}

TEST(Protocol, BlockOfALaterActivationThanTheSuperblocksIsRefused) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(100), 0); }
    for (int r : {0, 1}) {
        const std::uint64_t at = journal_at(*world, r, kFirst);
        dm_remap_disk_block block = block_at(*world, at);
        block.header.activation = 9;
        put_block(*world, block, at);
    }
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

}  // namespace
}  // namespace remap

// Each test plays the history that breaks without one rule of the protocol (docs/on-disk-format.md
// names them by it).
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <functional>
#include <random>
#include <utility>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kFirst = 16;  // the first sequence of a ring of 16

// Lets writes of metadata through up to the @n-th from now on, which the power failure interrupts.
// What was not flushed is lost.
void cut_power_at(World& world, std::uint64_t n, const std::function<void()>& work) {
    world.spare.power_off_at_write(world.spare.writes() + n);
    work();
    world.spare.power_off();
    world.spare.power_on([](auto, auto) { return false; });
}

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

// ---- chain ----

// A block that does not continue its predecessor is not of this history.
TEST(Protocol, BrokenChainIsRefused) {
    for (std::uint64_t broken : {kFirst, kFirst + 1, kFirst + 2}) {
        auto world = formatted();
        {
            auto md = open(*world);
            for (unsigned i = 0; i < 3; i++) {
                ASSERT_EQ(md->remap(i * 10), 0);
            }
        }
        for (int r : {0, 1}) {
            const std::uint64_t at = journal_at(*world, r, broken);
            dm_remap_disk_block block = block_at(*world, at);
            block.header.chain = block.header.chain + 1;
            put_block(*world, block, at);
        }
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, -EUCLEAN);
        EXPECT_NE(loaded.why.find("chain"), std::string::npos) << loaded.why;
    }
}

// Both copies valid, of one activation, but not the same: neither can be believed.
TEST(Protocol, ContradictingCopiesAreRefused) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(100), 0); }
    const std::uint64_t at = journal_at(*world, 1, kFirst);
    dm_remap_disk_block block = block_at(*world, at);
    block.entry[0].main = 101;
    put_block(*world, block, at);
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

// ---- SET and CLEAR ----

// A record that was cleared, and whose spare range another one got, does not come back.
TEST(Protocol, ClearedRecordDoesNotComeBack) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100, 4), 0);
        const std::uint64_t spare = md->records().at(0).spare;
        ASSERT_EQ(md->checkpoint(), 0);  // in the table, and cleared in the journal
        ASSERT_EQ(md->commit({clear(100, 4)}), 0);
        ASSERT_EQ(md->commit({mapped(500, spare, 4)}), 0);
    }
    const Loaded loaded = try_load(*world);
    ASSERT_EQ(loaded.error, 0) << loaded.why;
    ASSERT_EQ(loaded.records.size(), 1U);
    EXPECT_EQ(loaded.records[0].main, 500U);
}

TEST(Protocol, BlockIsOneTransaction) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->commit({pending(100, 50)}), 0);
    const Records before = md->records();
    const std::uint64_t spare = md->take(50);
    cut_power_at(*world, 0, [&] {
        EXPECT_EQ(md->commit({clear(100, 20), mapped(130, spare, 20)}), -EUCLEAN);
    });
    EXPECT_EQ(try_load(*world).records, before);
}

// ---- acknowledgement ----

// Right after a commit returns 0, either replica may be lost.
TEST(Protocol, AcknowledgedIsOnBothReplicas) {
    for (int lost : {0, 1}) {
        auto world = formatted();
        Records expected;
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            ASSERT_EQ(md->remap(200), 0);
            expected = md->records();
        }
        world->spare.power_off();
        world->spare.power_on([](auto, auto) { return false; });
        const dm_remap_layout l = super_at(*world, 0).layout;
        for (std::uint64_t s = 0; s < l.journal_blocks; s++) {
            zero_block(*world, dm_remap_journal_at(&l, lost, s));
        }
        EXPECT_EQ(try_load(*world).records, expected);
    }
}

// The data is durable before the record that leads to it, by its own write: a flush that came with
// the record might not hear of a block that was lost, because somebody else's flush had.
TEST(Protocol, DataIsDurableBeforeItsRecord) {
    auto world = formatted();
    auto md = open(*world);
    world->main.poke(100, pattern(100, 8));
    const std::uint64_t journal = journal_at(*world, 0, kFirst) * kBlockSectors;
    unsigned records = 0;
    world->spare.on_write = [&](auto, auto sector, auto) {
        if (sector == journal) {
            EXPECT_EQ(world->spare.unflushed(), 0U);
            records++;
        }
        return 0;
    };
    dm_remap_moved moved{};
    ASSERT_EQ(dm_remap_remap(md->get(), 100, 8, &moved), 0);
    EXPECT_EQ(records, 1U);
    world->spare.power_off();
    world->spare.power_on([](auto, auto) { return false; });
    const Loaded loaded = try_load(*world);
    ASSERT_EQ(loaded.records.size(), 1U);
    const auto data = world->spare.peek(loaded.records[0].spare, 8);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), pattern(100, 8).begin()));
}

TEST(Protocol, OneReplicaIsNotEnoughToAcknowledge) {
    for (int refusing : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        const dm_remap_layout l = super_at(*world, 0).layout;
        for (std::uint64_t s = 0; s < l.journal_blocks; s++) {
            world->spare.bad_write.insert(dm_remap_journal_at(&l, refusing, s) * kBlockSectors);
        }
        EXPECT_EQ(md->remap(100), -EUCLEAN);
        EXPECT_TRUE(md->records().empty());
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    }
}

// ---- in doubt ----

TEST(Protocol, FailedCommitIsInDoubtUntilACheckpoint) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t free = dm_remap_alloc_free_sectors(&(*md)->alloc);
    std::uint64_t begun = world->spare.writes() + 2;  // the data, replica 0, and from then on ...
    world->spare.on_write = [&](auto n, auto, auto) { return n >= begun ? -EIO : 0; };
    EXPECT_EQ(md->remap(100, 8), -EUCLEAN);

    // It may be on the disk: no I/O there, and its place on the spare is nobody else's.
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 107));
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 108));
    EXPECT_EQ(dm_remap_alloc_free_sectors(&(*md)->alloc), free - 8);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(try_load(*world).records.size(), 1U);  // indeed
    EXPECT_NE(dm_remap_save(md->get()), 0);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));

    world->spare.on_write = nullptr;
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(dm_remap_table_empty(&(*md)->table));
    EXPECT_EQ(dm_remap_alloc_free_sectors(&(*md)->alloc), free);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_TRUE(try_load(*world).records.empty());
    ASSERT_EQ(md->remap(100, 8), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// While the checkpoint that passes it is being written, a failed commit is in doubt already.
TEST(Protocol, FailedCommitIsInDoubtAtOnce) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t failing = world->spare.writes() + 1;
    unsigned seen = 0;
    world->spare.on_write = [&](auto n, auto, auto) {
        if ((*md)->writing) {
            EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
            EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 101));
            seen++;
        }
        return n == failing ? -EIO : 0;
    };
    EXPECT_EQ(md->remap(100), 0);
    EXPECT_GT(seen, 0U);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
}

// Sectors 100 to 107: the @commit fails on replica 1, and lands there all the same. Its withdrawal
// reaches the replicas that @withdrawn says, and of the checkpoint superblock 1 alone.
void fail_landing_commit(
    World& world, const std::array<bool, 2>& withdrawn,
    const std::function<int(Metadata&)>& commit = [](auto& md) { return md.remap(100, 8); }) {
    auto md = open(world);
    std::array<std::uint64_t, 2> slot{};
    std::array<bool, 2> committed{};
    for (int r : {0, 1}) {
        slot.at(r) = journal_at(world, r, kFirst) * kBlockSectors;
    }
    world.spare.on_write = [&](auto, auto sector, auto) {
        world.spare.failed_writes_land = false;
        for (int r : {0, 1}) {
            if (sector == slot.at(r) && !std::exchange(committed.at(r), true)) {
                world.spare.failed_writes_land = true;
                return r == 1 ? -EIO : 0;
            }
            if (sector == slot.at(r) && !withdrawn.at(r)) {
                return -EIO;
            }
        }
        return sector == 0 ? -EIO : 0;
    };
    EXPECT_EQ(commit(*md), -EUCLEAN);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    world.spare.on_write = nullptr;
}

// A checkpoint that only one end has heard of settles nothing: the other end still leads to it.
TEST(Protocol, DoubtStandsUntilBothEndsStartBehindIt) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t slot = journal_at(*world, 0, kFirst) * kBlockSectors;
    world->spare.bad_write.insert(0);  // superblock 0
    world->spare.bad_write.insert(journal_at(*world, 1, kFirst) * kBlockSectors);
    world->spare.after_write = [&](auto sector, auto) {
        if (sector == slot) {
            world->spare.bad_write.insert(slot);
        }
    };
    EXPECT_EQ(md->remap(100), -EUCLEAN);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(super_at(*world, 1).journal_start, kFirst);
    world->spare.bad_write.erase(journal_at(*world, 1, kFirst) * kBlockSectors);
    EXPECT_NE(dm_remap_save(md->get()), 0);
    EXPECT_EQ(super_at(*world, 1).journal_start, kFirst + 1);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    // Superblock 1 is lost now: the older one finds the commit.
    zero_block(*world, dm_remap_superblock_at(&(*md)->sb.layout, 1));
    EXPECT_EQ(try_load(*world).records.size(), 1U);
    world->spare.after_write = nullptr;
    world->spare.bad_write.clear();
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(try_load(*world).records.empty());
}

// The same with a restart in between: the newer superblock does not know the commit, the older one
// would find it. It is told apart from a commit that is in the table.
TEST(Protocol, DoubtOutlivesARestartBetweenTheTwoEnds) {
    for (int withdrawn : {0, 1}) {
        auto world = formatted();
        fail_landing_commit(*world, {withdrawn == 0, withdrawn == 1});
        world->spare.bad_write.insert(0);
        auto md = open(*world);
        EXPECT_TRUE(md->records().empty());
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 107));
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 108));
        // Superblock 1 is lost now: indeed.
        const Image image = world->spare.image();
        zero_block(*world, dm_remap_superblock_at(&(*md)->sb.layout, 1));
        EXPECT_EQ(try_load(*world).records.size(), 1U);
        world->spare.restore(image);

        world->spare.bad_write.clear();
        EXPECT_EQ(dm_remap_save(md->get()), 0);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_TRUE(dm_remap_table_empty(&(*md)->table));
        EXPECT_TRUE(try_load(*world).records.empty());
    }
}

// The same, but after the restart the newer superblock can be neither read nor written. The older
// one finds the commit, and when the newer can be read again, it is gone. So nothing may be
// acknowledged in its range meanwhile.
TEST(Protocol, FailedCommitThatLandedIsNotTakenForAnAcknowledgedOne) {
    for (int withdrawn : {0, 1}) {
        auto world = formatted();
        const dm_remap_layout layout = super_at(*world, 0).layout;
        const std::uint64_t tail = dm_remap_superblock_at(&layout, 1);
        fail_landing_commit(*world, {withdrawn == 0, withdrawn == 1});
        EXPECT_EQ(super_at(*world, 1).journal_start, kFirst + 1);
        unreadable_block(*world, tail);
        world->spare.bad_write.insert(tail * kBlockSectors);
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 107));
        world->spare.bad_read.clear();
        EXPECT_TRUE(try_load(*world).records.empty());
        // From now on it counts, on both ends.
        world->spare.bad_write.clear();
        EXPECT_EQ(dm_remap_save(md->get()), 0);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_EQ(try_load(*world).records, md->records());
        EXPECT_EQ(md->records().size(), 1U);
    }
}

// Withdrawn on both, it never was: whichever end counts.
TEST(Protocol, CommitThatBothReplicasWithdrewIsNone) {
    auto world = formatted();
    const dm_remap_layout layout = super_at(*world, 0).layout;
    fail_landing_commit(*world, {true, true});
    const Image image = world->spare.image();
    for (int lost : {0, 1}) {
        world->spare.restore(image);
        zero_block(*world, dm_remap_superblock_at(&layout, lost));
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_TRUE(dm_remap_table_empty(&(*md)->table));
        ASSERT_EQ(md->remap(200), 0);
        EXPECT_EQ(try_load(*world).records, md->records());
    }
}

// A withdrawal tells what came before it: in the place of that nothing else is believed.
TEST(Protocol, PredecessorOfAWithdrawalIsKnown) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    // The commit reaches replica 0 alone, is withdrawn, and no checkpoint succeeds.
    const dm_remap_layout& layout = (*md)->sb.layout;
    const std::uint64_t failing = journal_at(*world, 1, kFirst + 1) * kBlockSectors;
    const std::uint64_t tail = dm_remap_superblock_at(&layout, 1) * kBlockSectors;
    world->spare.bad_write.insert(failing);
    world->spare.bad_write.insert(tail);
    EXPECT_EQ(md->remap(200), -EUCLEAN);
    EXPECT_EQ(try_load(*world).records.size(), 1U);
    for (int r : {0, 1}) {
        dm_remap_disk_block block = block_at(*world, journal_at(*world, r, kFirst));
        block.entry[0].main = htole64(50);
        put_block(*world, block, journal_at(*world, r, kFirst));
    }
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EUCLEAN);
    EXPECT_NE(loaded.why.find("chain is broken"), std::string::npos) << loaded.why;
}

// Where the other replica cannot be read beside a withdrawal, the commit may be there, and turn up
// again. What it says is known, and in doubt; nothing else suffers, also where all of that end of
// the spare is dead, of which a commit that fails is the first that one hears.
TEST(Protocol, UnreadableFellowOfAWithdrawalIsInDoubt) {
    for (bool all_of_it : {false, true}) {
        auto world = formatted();
        const dm_remap_layout layout = super_at(*world, 0).layout;
        const std::uint64_t tail = dm_remap_superblock_at(&layout, 1);
        const std::uint64_t slot = journal_at(*world, 1, kFirst);
        fail_landing_commit(*world, {true, false});
        for (std::uint64_t at = dm_remap_journal_at(&layout, 1, 0); at <= tail; at++) {
            if (all_of_it || at == slot || at == tail) {
                unreadable_block(*world, at);
                world->spare.bad_write.insert(at * kBlockSectors);
            }
        }
        {
            auto md = open(*world);
            EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
            EXPECT_TRUE(md->records().empty());
            EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
            EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 107));
            EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 108));
            // It can be read again: indeed.
            const SectorSet before = world->spare.bad_read;
            world->spare.bad_read.clear();
            unreadable_block(*world, tail);
            EXPECT_EQ(try_load(*world).records.size(), 1U);
            world->spare.bad_read = before;
        }
        // A checkpoint's activation number hides it.
        world->spare.bad_write.clear();
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
        world->spare.bad_read.clear();
        EXPECT_TRUE(try_load(*world).records.empty());
    }
}

// So it is if the block has no room for one more entry.
TEST(Protocol, UnreadableFellowOfAFullWithdrawalIsInDoubt) {
    auto world = formatted();
    fail_landing_commit(*world, {true, false}, [](auto& md) {
        std::vector<dm_remap_record> entries;
        for (unsigned i = 0; i < DM_REMAP_ENTRIES_PER_BLOCK; i++) {
            entries.push_back(pending(100 + 2ULL * i));
        }
        return md.commit(entries);
    });
    const dm_remap_layout layout = super_at(*world, 0).layout;
    unreadable_block(*world, journal_at(*world, 1, kFirst));
    unreadable_block(*world, dm_remap_superblock_at(&layout, 1));
    world->spare.bad_write.insert(dm_remap_superblock_at(&layout, 1) * kBlockSectors);
    auto md = open(*world);
    for (unsigned i = 0; i < DM_REMAP_ENTRIES_PER_BLOCK; i++) {
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100 + 2ULL * i)) << i;
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 101 + 2ULL * i)) << i;
    }
}

// What is in doubt takes memory: without it there is no load.
TEST(Protocol, UnreadableFellowOfAWithdrawalTakesMemory) {
    for (int withdrawn : {0, 1}) {
        auto world = formatted();
        const dm_remap_layout layout = super_at(*world, 0).layout;
        fail_landing_commit(*world, {withdrawn == 0, withdrawn == 1});
        unreadable_block(*world, journal_at(*world, !withdrawn, kFirst));
        unreadable_block(*world, dm_remap_superblock_at(&layout, !withdrawn));
        Metadata md(*world);
        for (std::uint64_t n = 0;; n++) {
            md.unload();
            const FailAllocation fail(n);
            const int error = md.load();
            EXPECT_EQ(error, fail.happened() ? -ENOMEM : 0) << withdrawn << ", " << n;
            if (!fail.happened()) {
                EXPECT_NE(md->doubt, nullptr) << withdrawn;
                break;
            }
        }
    }
}

// The same behind the start of the one end that is known to pass the commit: the other end would
// find it, if its slot can be read again.
TEST(Protocol, UnreadableFellowOfAWithdrawalBehindTheStartIsInDoubt) {
    auto world = formatted();
    const dm_remap_layout layout = super_at(*world, 0).layout;
    fail_landing_commit(*world, {false, true});
    EXPECT_EQ(super_at(*world, 1).journal_start, kFirst + 1);
    unreadable_block(*world, journal_at(*world, 0, kFirst));
    world->spare.bad_write.insert(0);
    {
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_TRUE(md->records().empty());
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 107));
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 108));
    }
    // It can be read again, and superblock 1 is lost: indeed.
    const Image image = world->spare.image();
    world->spare.bad_read.clear();
    zero_block(*world, dm_remap_superblock_at(&layout, 1));
    EXPECT_EQ(try_load(*world).records.size(), 1U);
    world->spare.restore(image);
    // When both ends start behind it, nothing leads there.
    world->spare.bad_write.clear();
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(try_load(*world).records.empty());
}

// Not once both ends started behind it, though the other one and the slot beside it are lost: no
// commit comes before that, and no other generation.
TEST(Protocol, WithdrawalThatBothEndsPassedIsNotInDoubt) {
    for (bool commit_follows : {false, true}) {
        auto world = formatted();
        const dm_remap_layout layout = super_at(*world, 0).layout;
        const std::uint64_t tail = dm_remap_superblock_at(&layout, 1);
        fail_landing_commit(*world, {true, true});
        {
            auto md = open(*world);
            ASSERT_EQ((*md)->mode, DM_REMAP_MODE_RW);
            ASSERT_EQ(commit_follows ? md->remap(100, 8) : md->deactivate(), 0);
        }
        unreadable_block(*world, tail);
        unreadable_block(*world, journal_at(*world, 1, kFirst));
        world->spare.bad_write.insert(tail * kBlockSectors);
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_EQ(md->records().size(), commit_follows ? 1U : 0U);
    }
}

// A device may be shorter than when the commit behind the start was withdrawn.
TEST(Protocol, WithdrawalBehindTheStartMayLieBeyondTheEnd) {
    auto world = formatted();
    fail_landing_commit(*world, {false, true});
    dm_remap_disk_block block = block_at(*world, journal_at(*world, 1, kFirst));
    block.entry[0].main = htole64(std::uint64_t{1} << 40);
    put_block(*world, block, journal_at(*world, 1, kFirst));
    unreadable_block(*world, journal_at(*world, 0, kFirst));
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
}

// What it says must be possible.
TEST(Protocol, WithdrawalOfAnImpossibleEntryIsRefusedWhereItCounts) {
    auto world = formatted();
    fail_landing_commit(*world, {true, false});
    const std::uint64_t at = journal_at(*world, 0, kFirst);
    const std::uint64_t fellow = journal_at(*world, 1, kFirst);
    const dm_remap_layout layout = super_at(*world, 0).layout;
    zero_block(*world, dm_remap_superblock_at(&layout, 1));
    dm_remap_disk_block block = block_at(*world, at);
    block.entry[0].kind = 99;
    put_block(*world, block, at);
    EXPECT_EQ(try_load(*world).error, 0);
    unreadable_block(*world, fellow);
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

// Both copies of the last commit rot, and the one behind it was withdrawn.
TEST(Protocol, WithdrawalBehindALostCommitIsRefused) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    world->spare.bad_write.insert(journal_at(*world, 1, kFirst + 1) * kBlockSectors);
    world->spare.bad_write.insert(dm_remap_superblock_at(&(*md)->sb.layout, 1) * kBlockSectors);
    EXPECT_EQ(md->remap(200), -EUCLEAN);
    for (int r : {0, 1}) {
        zero_block(*world, journal_at(*world, r, kFirst));
    }
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

// What is in the table of the newer superblock, and is found by the older one in one replica alone,
// is no surer than before the restart.
TEST(Protocol, OneSidedCommitIsInDoubtBetweenTheTwoEndsToo) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(100), 0); }
    zero_block(*world, journal_at(*world, 0, kFirst));
    world->spare.bad_write.insert(0);
    // One more superblock 1 at the first: the doubt is loaded again, and so it is at the second.
    for (unsigned restart = 0; restart < 2; restart++) {
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(md->report.lagging, restart == 1);
        EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    }
    world->spare.bad_write.clear();
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
}

// The commit of sectors 100 to 107 is on replica 1 alone, and was not acknowledged: that replica
// said no to it, and the power failed in its withdrawal.
void land_on_replica_1_alone(World& world) {
    auto md = open(world);
    const std::uint64_t slot = journal_at(world, 1, kFirst) * kBlockSectors;
    world.spare.on_write = [&](auto, auto sector, auto) {
        world.spare.failed_writes_land = true;
        return sector == slot ? -EIO : 0;
    };
    // Twice the journal, and once the withdrawal.
    cut_power_at(world, 4, [&] { EXPECT_NE(md->remap(100, 8), 0); });
    world.spare.on_write = nullptr;
    world.spare.failed_writes_land = false;
    EXPECT_EQ(block_at(world, journal_at(world, 0, kFirst)).header.count, 0);
    EXPECT_EQ(block_at(world, journal_at(world, 1, kFirst)).header.count, 1);
}

// It is taken, and a checkpoint has it in its table, of which superblock 0 does not hear. That one
// can be neither read nor written then: who has it alone later does not know the commit.
TEST(Protocol, OneSidedCommitInTheTableIsInDoubtWithoutSuperblock0) {
    auto world = formatted();
    land_on_replica_1_alone(*world);
    world->spare.bad_write.insert(0);  // superblock 0
    { EXPECT_EQ(open(*world)->records().size(), 1U); }
    ASSERT_EQ(super_at(*world, 1).journal_start, kFirst + 1);
    ASSERT_EQ(super_at(*world, 0).journal_start, kFirst);
    unreadable_block(*world, 0);
    {
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
        // Else a write to it would go to the spare now, and be acknowledged.
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 107));
    }
    world->spare.bad_read.clear();
    const dm_remap_layout layout = super_at(*world, 0).layout;
    for (std::uint64_t at = dm_remap_journal_at(&layout, 1, 0);
         at <= dm_remap_superblock_at(&layout, 1); at++) {
        zero_block(*world, at);
    }
    EXPECT_TRUE(try_load(*world).records.empty());
}

// A superblock that came after that of the checkpoint says that both ends start behind the commit:
// what becomes of its block counts no more.
TEST(Protocol, CommitThatBothEndsPassedIsNotInDoubt) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(dm_remap_save(md->get()), 0);
    }
    world->spare.bad_write.insert(0);  // superblock 0
    zero_block(*world, journal_at(*world, 0, kFirst));
    for (int restarts = 0; restarts < 3; restarts++) {
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100)) << restarts;
    }
}

// What was acknowledged is served all the same, and takes writes.
TEST(Protocol, AcknowledgedCommitIsNotInDoubtWithoutSuperblock1) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(100), 0); }
    const dm_remap_layout layout = super_at(*world, 0).layout;
    const std::uint64_t tail = dm_remap_superblock_at(&layout, 1);
    unreadable_block(*world, tail);
    world->spare.bad_write.insert(tail * kBlockSectors);
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
}

// No checkpoint passes a failed commit that neither replica lets be withdrawn.
TEST(Protocol, FailedCommitIsNotPassedUnlessItIsWithdrawn) {
    auto world = formatted();
    const std::uint64_t generation = super_at(*world, 0).generation + 1;
    auto md = open(*world);
    const std::uint64_t slots[] = {journal_at(*world, 0, kFirst) * kBlockSectors,
                                   journal_at(*world, 1, kFirst) * kBlockSectors};
    world->spare.bad_write.insert(slots[1]);
    world->spare.after_write = [&](auto sector, auto) {
        if (sector == slots[0]) {
            world->spare.bad_write.insert(sector);
        }
    };
    EXPECT_EQ(md->remap(100), -EUCLEAN);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_NE(dm_remap_save(md->get()), 0);
    EXPECT_EQ(super_at(*world, 0).generation, generation);
    EXPECT_EQ(super_at(*world, 1).generation, generation);
    world->spare.bad_write.erase(slots[1]);
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(try_load(*world).records.empty());
}

// Superblocks one apart are no reason to doubt what both ends lead to.
TEST(Protocol, CommitThatBothEndsHoldIsNotInDoubtBetweenThem) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        world->spare.bad_write.insert(0);
        EXPECT_NE(md->checkpoint(), 0);
    }
    auto md = open(*world);
    EXPECT_TRUE(md->report.lagging);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
}

// The slot of a failed commit is passed by a checkpoint, and its sequence is not used again.
TEST(Protocol, SlotThatAReplicaRefusesIsPassed) {
    for (int refusing : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        world->spare.bad_write.insert(journal_at(*world, refusing, kFirst + 1) * kBlockSectors);
        ASSERT_EQ(md->remap(200), 0);
        EXPECT_EQ((*md)->sb.journal_start, kFirst + 2);
        EXPECT_EQ((*md)->next_sequence, kFirst + 3);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 200));
        EXPECT_EQ(try_load(*world).records, md->records());
        // Round the ring, and past it once more.
        for (unsigned i = 0; i < 40; i++) {
            ASSERT_EQ(md->remap(1000 + 2 * i), 0);
        }
        EXPECT_EQ(try_load(*world).records, md->records());
    }
}

// A write that failed and did reach the disk, with a crash on top: found again, and it may be, for
// its data is there.
TEST(Protocol, FailedCommitThatLandedIsWhole) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t journal = world->spare.writes() + 1;
    world->spare.failed_writes_land = true;
    world->spare.on_write = [&](auto n, auto, auto) { return n == journal ? -EIO : 0; };
    cut_power_at(*world, 2, [&] { EXPECT_EQ(md->remap(100, 8), -EUCLEAN); });
    world->spare.on_write = nullptr;
    auto next = open(*world);
    ASSERT_EQ(next->records().size(), 1U);
    const auto data = world->spare.peek(next->records()[0].spare, 8);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), pattern(100, 8).begin()));
}

// The last commit before a crash is on one replica alone, and now the spare takes no writes. Should
// that replica fail next time, it would not have been: so its range is in doubt until it is safe.
TEST(Protocol, OneSidedCommitIsInDoubtWhereItCannotBeMadeSafe) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(50), 0);
        cut_power_at(*world, 2, [&] { EXPECT_EQ(md->remap(100), -EUCLEAN); });
    }
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    auto md = open(*world);
    EXPECT_TRUE(md->report.one_sided);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 50));
    EXPECT_EQ(md->records().size(), 2U);
    world->spare.on_write = nullptr;
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(try_load(*world).records.size(), 2U);
}

// Before anything could be written, a table is loaded that ends before that range: there is nothing
// to doubt then.
TEST(Protocol, OneSidedCommitBeyondAShorterEndIsLeftAlone) {
    constexpr std::uint64_t kFar = 4ULL * DM_REMAP_REGION_SECTORS * DM_REMAP_CHUNK_REGIONS;
    auto world = formatted({.main_sectors = kFar + 100});
    {
        auto md = open(*world);
        ASSERT_EQ(md->commit({pending(kFar + 8)}), 0);
        cut_power_at(*world, 1, [&] { EXPECT_EQ(md->commit({clear(kFar + 8)}), -EUCLEAN); });
    }
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    EXPECT_TRUE(md.report.one_sided);
    ASSERT_EQ(dm_remap_metadata_resize(md.get(), 1000), 0);
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_EQ(md.activate(), 0);
    EXPECT_EQ(md->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(dm_remap_table_empty(&md->table));
}

// ---- replay ----

TEST(Protocol, ValidInEitherIsTakenAndMadeSafe) {
    for (int lost : {0, 1}) {
        auto world = formatted();
        Records expected;
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            ASSERT_EQ(md->remap(200), 0);
            expected = md->records();
        }
        zero_block(*world, journal_at(*world, lost, kFirst + 1));
        {
            auto md = open(*world);
            EXPECT_EQ(md->records(), expected);
            EXPECT_TRUE(md->report.one_sided);
            EXPECT_EQ(md->report.replica[lost].bad_journal_blocks, 1U);
        }
        // The other one may go now.
        zero_block(*world, journal_at(*world, !lost, kFirst + 1));
        EXPECT_EQ(try_load(*world).records, expected);
    }
}

// Valid in neither, though one can be read: it was never acknowledged. The journal ends there.
TEST(Protocol, ReadableInOneAndValidInNeitherIsTheEnd) {
    for (int unreadable : {0, 1}) {
        auto world = formatted();
        Records expected;
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            expected = md->records();
        }
        unreadable_block(*world, journal_at(*world, unreadable, kFirst + 1));
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records, expected);
    }
}

// Unreadable in both, it may have been acknowledged. To go on would be to guess.
TEST(Protocol, UnreadableInBothIsRefused) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(100), 0); }
    unreadable_block(*world, journal_at(*world, 0, kFirst + 1));
    unreadable_block(*world, journal_at(*world, 1, kFirst + 1));
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EIO);
    EXPECT_NE(loaded.why.find("neither"), std::string::npos) << loaded.why;
}

TEST(Protocol, HoleBehindTheEndIsRefused) {
    auto world = formatted();
    {
        auto md = open(*world);
        for (unsigned i = 0; i < 3; i++) {
            ASSERT_EQ(md->remap(i * 10), 0);
        }
    }
    zero_block(*world, journal_at(*world, 0, kFirst + 1));
    zero_block(*world, journal_at(*world, 1, kFirst + 1));
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EUCLEAN);
    EXPECT_NE(loaded.why.find("lost in both"), std::string::npos) << loaded.why;
}

// So does a withdrawal: what it withdraws came after an acknowledged commit. Even one that claims
// to follow what was found, for the commits to come would make that a lie.
TEST(Protocol, WithdrawalBehindTheEndIsAHole) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(md->remap(200), 0);
    }
    for (int r : {0, 1}) {
        dm_remap_disk_block block = block_at(*world, journal_at(*world, r, kFirst));
        const std::uint32_t follows = dm_remap_chain_value(&block, journal_at(*world, 0, kFirst));
        block = block_at(*world, journal_at(*world, r, kFirst + 1));
        block.header.sequence = htole64(kFirst + 2);
        block.header.chain = htole32(follows);
        block.header.count = 0;
        put_block(*world, block, journal_at(*world, r, kFirst + 2));
        zero_block(*world, journal_at(*world, r, kFirst + 1));
    }
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EUCLEAN);
    EXPECT_NE(loaded.why.find("lost in both"), std::string::npos) << loaded.why;
}

// What was there when this activation began is known to be more than what is found now.
TEST(Protocol, FewerSequencesThanTheActivationFoundIsRefused) {
    auto world = formatted();
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(md->remap(200), 0);
    }
    { open(*world); }
    zero_block(*world, journal_at(*world, 0, kFirst + 1));
    zero_block(*world, journal_at(*world, 1, kFirst + 1));
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EUCLEAN);
    EXPECT_NE(loaded.why.find("lost in both"), std::string::npos) << loaded.why;
}

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

// ---- checkpoints and crashes ----

// Plays @work with the power failing at each of its writes in turn, and with each set of unflushed
// writes surviving (of many: a sample), whole or torn by sectors. @check judges what is left.
void crash_everywhere(const std::function<std::unique_ptr<World>()>& make,
                      const std::function<std::function<void()>(World&)>& prepare,
                      const std::function<void(World&)>& check) {
    std::mt19937 random(42);
    for (std::uint64_t n = 0;; n++) {
        auto world = make();
        std::function<void()> work = prepare(*world);
        const std::uint64_t from = world->spare.writes();
        world->spare.power_off_at_write(from + n);
        work();
        const bool crashed = !world->spare.is_on();
        work = nullptr;
        world->spare.power_off();
        const std::vector<std::uint64_t> writes = world->spare.unflushed_writes();
        const SimDisk at_crash = world->spare;
        const bool all = writes.size() <= 5;
        for (unsigned mask = 0; mask < (all ? 1U << writes.size() : 64U); mask++) {
            SCOPED_TRACE(testing::Message() << "write " << n << ", set " << mask);
            world->spare = at_crash;
            world->spare.power_on([&](std::uint64_t write, std::uint64_t) {
                const auto i = std::find(writes.begin(), writes.end(), write) - writes.begin();
                return all ? (mask >> i & 1) != 0 : random() % 2 != 0;
            });
            check(*world);
            world->spare = at_crash;
            world->spare.power_on([&](auto, auto) { return random() % 2 != 0; });
            check(*world);
            if (testing::Test::HasFailure()) {
                return;
            }
        }
        if (!crashed) {
            break;
        }
    }
}

std::unique_ptr<World> world_with_records() {
    auto world = formatted({.spare_sectors = 1024});
    auto md = open(*world);
    EXPECT_EQ(md->remap(100, 8), 0);
    EXPECT_EQ(md->checkpoint(), 0);
    EXPECT_EQ(md->remap(200, 8), 0);
    EXPECT_EQ(md->commit({clear(102, 2), retired(md->take())}), 0);
    return world;
}

// Loads, activates, commits once more, and loads again.
void expect_alive(World& world, const Records& expected) {
    const Loaded loaded = try_load(world);
    ASSERT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records, expected);
    auto md = open(world);
    ASSERT_EQ(md->remap(60'000), 0);
    EXPECT_EQ(try_load(world).records, md->records());
}

// @work, begun right after a commit, loses nothing wherever it stops.
void expect_to_lose_nothing(int (Metadata::*work)()) {
    Records expected;
    crash_everywhere(
        world_with_records,
        [&](World& world) -> std::function<void()> {
            std::shared_ptr<Metadata> md = open(world);
            EXPECT_EQ(md->remap(300), 0);
            expected = md->records();
            return [md, work] { ((*md).*work)(); };
        },
        [&](World& world) { expect_alive(world, expected); });
}

TEST(ProtocolCrash, CheckpointLosesNothingWhereverItStops) {
    expect_to_lose_nothing(&Metadata::checkpoint);
}

TEST(ProtocolCrash, OrderlyStopLosesNothingWhereverItStops) {
    expect_to_lose_nothing(&Metadata::deactivate);
}

// Commits that come while the checkpoint writes its table: start and snapshot are of one moment.
TEST(ProtocolCrash, CommitsDuringACheckpointAreNotLost) {
    Records expected;
    std::shared_ptr<Metadata> md;
    crash_everywhere(
        world_with_records,
        [&](World& world) -> std::function<void()> {
            md = open(world);
            expected = md->records();
            return [&world, &md] {
                bool inside = false;
                std::uint64_t main = 1000;
                // Before each write of the checkpoint; only such commits as need no checkpoint
                // themselves, which would wait for this one.
                world.spare.on_write = [&](auto, auto, auto) {
                    if (!inside && world.spare.writes_until_power_off() > 2) {
                        inside = true;
                        EXPECT_EQ(md->commit({pending(main += 2)}), 0);
                        inside = false;
                    }
                    return 0;
                };
                md->checkpoint();
                world.spare.on_write = nullptr;
            };
        },
        [&](World& world) {
            // What was published is there; one more may have been on its way.
            const Loaded loaded = try_load(world);
            ASSERT_EQ(loaded.error, 0) << loaded.why;
            for (const Record& r : md->records()) {
                EXPECT_TRUE(std::count(loaded.records.begin(), loaded.records.end(), r)) << r;
            }
            EXPECT_LE(loaded.records.size(), md->records().size() + 1);
        });
    md.reset();
}

TEST(ProtocolCrash, ActivationLosesNothingWhereverItStops) {
    Records expected;
    for (bool damaged : {false, true}) {
        crash_everywhere(
            [&] {
                auto world = world_with_records();
                expected = try_load(*world).records;
                if (damaged) {  // then it writes a table, too
                    zero_block(*world, journal_at(*world, 1, kFirst + 1));
                    zero_block(*world, 0);
                }
                return world;
            },
            [&](World& world) -> std::function<void()> {
                auto md = std::make_shared<Metadata>(world);
                EXPECT_EQ(md->load(), 0);
                return [md] { md->activate(); };
            },
            [&](World& world) { expect_alive(world, expected); });
    }
}

TEST(ProtocolCrash, CommitIsThereOrNotWhereverItStops) {
    Records before;
    bool acknowledged = false;
    std::uint64_t spare = 0;
    crash_everywhere(
        world_with_records,
        [&](World& world) -> std::function<void()> {
            std::shared_ptr<Metadata> md = open(world);
            before = md->records();
            acknowledged = false;
            return [&, md] { acknowledged = md->remap(300) == 0; };
        },
        [&](World& world) {
            const Loaded loaded = try_load(world);
            ASSERT_EQ(loaded.error, 0) << loaded.why;
            const bool there = loaded.records != before;
            EXPECT_TRUE(there || !acknowledged);
            for (const Record& r : loaded.records) {
                if (r.main == 300) {
                    spare = r.spare;
                    const auto data = world.spare.peek(spare, 1);
                    EXPECT_TRUE(std::equal(data.begin(), data.end(), pattern(300, 1).begin()));
                }
            }
            // And from then on it is what it was found to be.
            { open(world); }
            EXPECT_EQ(try_load(world).records, loaded.records);
        });
}

// A crash in the middle of a format leaves what is refused, or a spare that is formatted: never
// one that would start afresh in silence, and never the old table with parts of it gone.
TEST(ProtocolCrash, HalfFinishedFormatIsRefused) {
    Records old;
    for (bool over_another : {false, true}) {
        const Shape shape{.spare_sectors = 1024};
        crash_everywhere(
            [&] {
                auto world = over_another ? world_with_records() : make_world(shape);
                old = over_another ? try_load(*world).records : Records{};
                return world;
            },
            [&](World& world) -> std::function<void()> {
                return [&] { format(world, shape, 0x77); };
            },
            [&](World& world) {
                const Loaded loaded = try_load(world);
                if (loaded.error == 0) {
                    const bool is_new = super_at(world, 1).uuid[0] == 0x77;
                    EXPECT_EQ(loaded.records, is_new ? Records{} : old);
                    EXPECT_TRUE(!is_new || super_at(world, 1).generation == 1);
                } else if (over_another) {
                    EXPECT_NE(loaded.why.find("half formatted"), std::string::npos) << loaded.why;
                }
            });
    }
    auto world = make_world();
    cut_power_at(*world, 4, [&] { EXPECT_NE(format(*world, {}), 0); });
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EUCLEAN);
    EXPECT_NE(loaded.why.find("format --force"), std::string::npos) << loaded.why;
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

// ---- devices that are not what they were ----

TEST(Protocol, GrownDeviceFindsItsTail) {
    for (int lost : {-1, 0, 1}) {
        auto world = world_with_records();
        const Records expected = try_load(*world).records;
        const dm_remap_layout l = super_at(*world, 0).layout;
        if (lost >= 0) {
            zero_block(*world, dm_remap_superblock_at(&l, lost));
        }
        if (lost == 0) {  // the journal tells, even if its first block is lost as well
            zero_block(*world, 1);
        }
        world->spare.resize(5000);
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records, expected);
        { open(*world); }
        EXPECT_EQ(super_at(*world, 1).layout.device_blocks, l.device_blocks);
        EXPECT_EQ(try_load(*world).report.replica[0].superblock, DM_REMAP_VALID);
        EXPECT_EQ(try_load(*world).report.replica[1].superblock, DM_REMAP_VALID);
    }
}

// Formatted at one size, formatted at another, and back at the first: where the device ends now
// there is a superblock that nothing has overwritten. Superblock 0 is damaged, so the journal next
// to it has to tell which end is meant.
TEST(Protocol, TailOfAnEarlierFormatIsNotBelieved) {
    for (std::uint64_t size : {1024U, 3072U}) {
        const Shape earlier{.spare_sectors = 2048};
        const Shape later{.spare_sectors = size};
        auto world = formatted(earlier);
        { ASSERT_EQ(open(*world)->remap(100), 0); }
        const std::uint64_t tail = 2048 - kBlockSectors;
        const auto left = world->spare.peek(tail, kBlockSectors);
        const std::vector<std::uint8_t> stale(left.begin(), left.end());
        world->spare.resize(size);
        ASSERT_EQ(format(*world, later, 0x99), 0);
        { ASSERT_EQ(open(*world)->remap(300), 0); }
        world->spare.resize(2048);
        world->spare.poke(tail, stale);
        zero_block(*world, 0);
        const Loaded loaded = try_load(*world);
        if (size > 2048) {  // its tail is missing
            EXPECT_NE(loaded.error, 0);
        } else {
            EXPECT_EQ(loaded.error, 0) << loaded.why;
            ASSERT_EQ(loaded.records.size(), 1U);
            EXPECT_EQ(loaded.records[0].main, 300U);
        }
    }
}

TEST(Protocol, TruncatedDeviceIsRefused) {
    for (std::uint64_t sectors : {1016U, 512U, 8U}) {
        auto world = world_with_records();
        world->spare.resize(sectors);
        EXPECT_NE(try_load(*world).error, 0) << sectors;
    }
    auto world = world_with_records();
    world->spare.resize(1016);
    EXPECT_NE(try_load(*world).why.find("smaller"), std::string::npos);
}

TEST(Protocol, BlankDeviceIsRefused) {
    auto world = make_world();
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -ENODATA);
    EXPECT_NE(loaded.why.find("blank"), std::string::npos);
}

TEST(Protocol, OtherContentIsRefused) {
    auto world = make_world();
    for (std::uint64_t at = 0; at < world->spare.sectors(); at += 512) {
        world->spare.poke(at, pattern(at, 512));
    }
    EXPECT_EQ(try_load(*world).error, -EINVAL);
}

TEST(Protocol, BothSuperblocksLostIsRefused) {
    auto world = world_with_records();
    world->spare.flip(100, 1);
    world->spare.flip((world->spare.sectors() - kBlockSectors) * kSector + 100, 1);
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

TEST(Protocol, EndsOfDifferentSparesAreRefused) {
    auto world = world_with_records();
    dm_remap_super sb = super_at(*world, 1);
    sb.uuid[0] ^= 1;
    put_super(*world, sb, 1);
    EXPECT_NE(try_load(*world).why.find("UUID"), std::string::npos);
}

// Sequences and tables of an earlier life, under another UUID, count for nothing.
TEST(Protocol, BlocksOfAnEarlierFormatAreNotBelieved) {
    auto world = world_with_records();
    const std::uint64_t at = journal_at(*world, 0, kFirst);
    const dm_remap_disk_block old = block_at(*world, at);
    ASSERT_EQ(format(*world, {.spare_sectors = 1024}, 0x99), 0);
    put_block(*world, old, at);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_TRUE(loaded.records.empty());
}

TEST(Protocol, UnknownVersionIsRefused) {
    for (int end : {0, 1}) {
        auto world = world_with_records();
        const dm_remap_layout l = super_at(*world, 0).layout;
        const std::uint64_t at = dm_remap_superblock_at(&l, end);
        dm_remap_disk_block block = block_at(*world, at);
        block.header.version = 2;
        block.header.crc = dm_remap_block_crc(&block, kSector);
        world->spare.poke(at * kBlockSectors, {reinterpret_cast<std::uint8_t*>(&block), kBlock});
        EXPECT_EQ(try_load(*world).error, -EPROTONOSUPPORT);
    }
}

// Wherever it is in the ring: what is no valid block becomes the journal's end one day.
TEST(Protocol, JournalBlockOfAnUnknownVersionIsRefused) {
    for (int replica : {0, 1}) {
        for (std::uint64_t s = 0; s < kFirst; s++) {
            auto world = formatted();
            const std::uint64_t at = journal_at(*world, replica, s);
            dm_remap_disk_block block = block_at(*world, at);
            block.header.version = 2;
            put_block(*world, block, at);
            EXPECT_EQ(try_load(*world).error, -EPROTONOSUPPORT) << replica << ", " << s;
        }
    }
}

TEST(Protocol, UnknownIncompatFlagIsRefused) {
    auto world = world_with_records();
    for (int end : {0, 1}) {
        dm_remap_super sb = super_at(*world, end);
        sb.incompat = 1 << 7;
        put_super(*world, sb, end);
    }
    EXPECT_EQ(try_load(*world).error, -EPROTONOSUPPORT);
}

TEST(Protocol, UnknownCompatRoFlagMeansThatNothingIsWritten) {
    auto world = world_with_records();
    for (int end : {0, 1}) {
        dm_remap_super sb = super_at(*world, end);
        sb.compat_ro = 1 << 7;
        put_super(*world, sb, end);
    }
    const Image before = world->spare.image();
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(md->lookup(200).kind, DM_REMAP_MAPPED);
    EXPECT_EQ(md->commit({pending(9)}), -EROFS);
    EXPECT_EQ(dm_remap_save(md->get()), -EROFS);
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    md->deactivate();
    EXPECT_EQ(world->spare.image(), before);
}

TEST(Protocol, UnknownCompatFlagIsKept) {
    auto world = world_with_records();
    for (int end : {0, 1}) {
        dm_remap_super sb = super_at(*world, end);
        sb.compat = 1 << 7;
        put_super(*world, sb, end);
    }
    { ASSERT_EQ(open(*world)->checkpoint(), 0); }
    EXPECT_EQ(super_at(*world, 0).compat, 1U << 7);
}

// ---- bytes that mean harm ----

// Every field may hold anything under a right CRC. Whatever load says, it must come back.
TEST(Protocol, NoBytesCrashTheLoader) {
    std::mt19937 random(7);
    auto world = world_with_records();
    const Image good = world->spare.image();
    const dm_remap_super sb = super_at(*world, 0);
    const std::uint64_t table = dm_remap_table_at(&sb.layout, 0, sb.active_table);
    const std::uint64_t journal = dm_remap_journal_at(&sb.layout, 0, sb.journal_start);
    for (unsigned round = 0; round < 800; round++) {
        world->spare.restore(good);
        for (unsigned changes = 1 + random() % 3; changes > 0; changes--) {
            const std::uint64_t at = std::array{std::uint64_t{0}, table, journal}[random() % 3];
            dm_remap_disk_block block = block_at(*world, at);
            auto* bytes = reinterpret_cast<std::uint8_t*>(&block);
            const std::size_t size = at == 0 ? kSector : 64 + 3 * 32;
            const std::size_t width = std::array{1, 2, 4, 8}[random() % 4];
            const std::size_t field = random() % (size / width) * width;
            const int fill = std::array{0, 1, 0x7F, 0x80, 0xFF}[random() % 5];
            std::memset(bytes + field, fill, width);
            if (random() % 2 != 0) {
                bytes[field] = random();
            }
            block.header.crc = dm_remap_block_crc(&block, at == 0 ? kSector : kBlock);
            // Both ends of it, so that neither is just passed over.
            world->spare.poke(at * kBlockSectors, {bytes, kBlock});
            if (at != 0) {
                const std::uint64_t tail =
                    at == table ? dm_remap_table_at(&sb.layout, 1, sb.active_table)
                                : dm_remap_journal_at(&sb.layout, 1, sb.journal_start);
                put_block(*world, block, tail);
            } else {
                zero_block(*world, sb.layout.device_blocks - 1);
            }
        }
        Metadata md(*world);
        if (md.load() == 0) {
            md.activate();
            md.checkpoint();
        } else {
            EXPECT_NE(md.report.refusal, nullptr);
        }
    }
}

}  // namespace
}  // namespace remap

// The rules of the protocol (docs/on-disk-format.md names these tests): commits that failed, and
// may be on the disk all the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include "protocol.h"

namespace remap {
namespace {

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
        fail_landing_commit(*world, {withdrawn == 0, withdrawn == 1});
        EXPECT_EQ(super_at(*world, 1).journal_start, kFirst + 1);
        superblock_1_fails(*world);
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

// Where it cannot be told whether the other replica has it, its chain tells that it is not in the
// table.
TEST(Protocol, BurntCommitIsToldByItsChain) {
    auto world = formatted();
    fail_landing_commit(*world, {false, true});
    unreadable_block(*world, journal_at(*world, 1, kFirst));
    unreadable_block(*world, 0);
    world->spare.bad_write.insert(0);  // superblock 0
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(md->records().empty());
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
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
        world->spare.rewrite_heals = true;
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

// One load may find two of them. A commit in the table is on replica 0 alone, and superblock 1
// cannot be read; and what failed after that was withdrawn, and may be on replica 1.
TEST(Protocol, TwoDoubtsOfOneLoadStand) {
    auto world = formatted();
    const dm_remap_layout layout = super_at(*world, 0).layout;
    const std::uint64_t tail = dm_remap_superblock_at(&layout, 1);
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(dm_remap_save(md->get()), 0);
        const std::uint64_t slot = journal_at(*world, 1, kFirst + 1) * kBlockSectors;
        world->spare.on_write = [&](auto, auto sector, auto) {
            return sector == slot || sector == 0 || sector == tail * kBlockSectors ? -EIO : 0;
        };
        EXPECT_EQ(md->remap(200), -EUCLEAN);
        world->spare.on_write = nullptr;
    }
    zero_block(*world, journal_at(*world, 1, kFirst));
    unreadable_block(*world, dm_remap_journal_at(&layout, 1, kFirst + 1));
    superblock_1_fails(*world);
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 200));
    EXPECT_EQ(md->records().size(), 1U);
    world->spare.bad_write.clear();
    world->spare.rewrite_heals = true;
    EXPECT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ((*md)->doubt, nullptr);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 200));
    EXPECT_EQ(try_load(*world).records, md->records());
}

// An activation that succeeds ends all doubt. A spare that dies afterwards brings none of it back.
TEST(Protocol, DoubtEndsWithAnActivation) {
    for (int withdrawn : {0, 1}) {
        auto world = formatted();
        fail_landing_commit(*world, {withdrawn == 0, withdrawn == 1});
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ((*md)->doubt, nullptr);
        world->spare.on_write = [](auto, auto, auto) { return -EIO; };
        EXPECT_NE(dm_remap_save(md->get()), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
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
        fail_landing_commit(*world, {true, true});
        {
            auto md = open(*world);
            ASSERT_EQ((*md)->mode, DM_REMAP_MODE_RW);
            ASSERT_EQ(commit_follows ? md->remap(100, 8) : md->deactivate(), 0);
        }
        superblock_1_fails(*world);
        unreadable_block(*world, journal_at(*world, 1, kFirst));
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

// It may say what no commit can: half a block of a main that has blocks of eight sectors.
TEST(Protocol, NothingImpossibleIsInDoubt) {
    auto world = formatted({.granularity = 8});
    const auto commit = [](Metadata& md) { return md.remap(96, 16); };
    fail_landing_commit(*world, {false, true}, commit);
    unreadable_block(*world, journal_at(*world, 0, kFirst));
    world->spare.bad_write.insert(0);
    const std::uint64_t at = journal_at(*world, 1, kFirst);
    dm_remap_disk_block block = block_at(*world, at);
    {
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    }
    block.entry[0].main = htole64(100);
    put_block(*world, block, at);
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(dm_remap_table_empty(&(*md)->table));
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

// The claim of the next activation, and nothing after it.
void take_one_write_of_superblock_0(World& world) {
    world.spare.on_write = [writes = 0](auto, auto sector, auto) mutable {
        return sector == 0 && writes++ != 0 ? -EIO : 0;
    };
}

// What is in the table of the newer superblock, and is found by the older one in one replica alone,
// is no surer than before the restart. Nor is it if the other copy cannot be read any more: the
// older superblock can be, and may lead to that copy.
TEST(Protocol, OneSidedCommitIsInDoubtBetweenTheTwoEndsToo) {
    for (const bool unreadable : {false, true}) {
        auto world = formatted();
        { ASSERT_EQ(open(*world)->remap(100), 0); }
        zero_block(*world, journal_at(*world, 0, kFirst));
        take_one_write_of_superblock_0(*world);
        // One more superblock 1 at the first: the doubt is loaded again, and so it is at the
        // second.
        for (unsigned restart = 0; restart < 2; restart++) {
            if (restart == 1 && unreadable) {
                unreadable_block(*world, journal_at(*world, 0, kFirst));
            }
            auto md = open(*world);
            EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
            EXPECT_EQ(md->report.lagging, restart == 1);
            EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
            EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100)) << unreadable << restart;
        }
        world->spare.on_write = nullptr;
        auto md = open(*world);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    }
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
    take_one_write_of_superblock_0(*world);
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
    take_one_write_of_superblock_0(*world);
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
    superblock_1_fails(*world);
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
}

// No checkpoint passes a failed commit that neither replica lets be withdrawn.
TEST(Protocol, FailedCommitIsNotPassedUnlessItIsWithdrawn) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t generation = super_at(*world, 0).generation;
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

}  // namespace
}  // namespace remap

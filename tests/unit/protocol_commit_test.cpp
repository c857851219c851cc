// The rules of the protocol (docs/on-disk-format.md names these tests): commits, and their replay.
#include <gtest/gtest.h>

#include <algorithm>

#include "protocol.h"

namespace remap {
namespace {

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
        const Records expected = two_commits(*world);
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

// ---- replay ----

TEST(Protocol, ValidInEitherIsTakenAndMadeSafe) {
    for (int lost : {0, 1}) {
        auto world = formatted();
        const Records expected = two_commits(*world);
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

// One copy of the later commit is enough to tell, on either replica, wherever in the ring.
TEST(Protocol, HoleBehindTheEndIsToldByOneCopy) {
    for (const unsigned commits : {3, 16}) {
        for (const int kept : {0, 1}) {
            auto world = formatted();
            {
                auto md = open(*world);
                for (unsigned i = 0; i < commits; i++) {
                    ASSERT_EQ(md->remap(i * 10), 0);
                }
            }
            const std::uint64_t last = kFirst + commits - 1;
            zero_block(*world, journal_at(*world, 0, last - 1));
            zero_block(*world, journal_at(*world, 1, last - 1));
            zero_block(*world, journal_at(*world, !kept, last));
            const Loaded loaded = try_load(*world);
            EXPECT_EQ(loaded.error, -EUCLEAN) << commits << " " << kept;
            EXPECT_NE(loaded.why.find("lost in both"), std::string::npos) << loaded.why;
        }
    }
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

}  // namespace
}  // namespace remap

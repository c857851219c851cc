// Damage in one replica, wherever it is, loses nothing; and an activation heals it, so that the
// same damage in the other replica, later, loses nothing either.
//
// The image: a table with records of every kind, and a journal of several commits after it. Blocks
// of metadata: 2 * (superblock, 16 of journal, 2 * 5 of tables) = 54, which is the smallest there
// can be. Each of their 1.8 million bits is flipped, with a load each time (EveryBit).
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "rig.h"

namespace remap {
namespace {

constexpr unsigned kBlockBits = kBlock * 8;
constexpr unsigned kHeaderBits = sizeof(dm_remap_disk_header) * 8;
constexpr std::size_t kReplicaBlocks = 27;
constexpr unsigned kCommits = 3;  // since the last checkpoint
constexpr std::uint64_t kReadErrors = 3;

class Damage : public ::testing::Test {
  protected:
    void SetUp() override {
        const Shape shape{.main_sectors = 8192, .spare_sectors = 512, .max_records = 100};
        world = formatted(shape);
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(900), 0);
            ASSERT_EQ(md->checkpoint(), 0);  // in the table that is the inactive one later
            for (unsigned i = 0; i < 3; i++) {
                ASSERT_EQ(md->remap(1000 + 8 * i, 3), 0);
            }
            ASSERT_EQ(md->commit({retired(md->take()), retired(md->take(2), 2), pending(7, 5)}), 0);
            ASSERT_EQ(md->checkpoint(), 0);
            ASSERT_EQ(md->remap(5000, 2), 0);
            dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, kReadErrors);
            ASSERT_EQ(dm_remap_autosave(md->get()), 0);
            ASSERT_EQ(md->commit({retired(md->take()), clear(1000, 3), clear(8, 1)}), 0);
            expected = md->records();
        }
        image = world->spare.image();
        layout = super_at(*world, 0).layout;
        sb = super_at(*world, 0);
        for (int r : {0, 1}) {
            blocks[r].push_back(dm_remap_superblock_at(&layout, r));
            for (unsigned i = 0; i < layout.journal_blocks; i++) {
                blocks[r].push_back(dm_remap_journal_at(&layout, r, i));
            }
            for (unsigned i = 0; i < 2 * layout.table_blocks; i++) {
                blocks[r].push_back(dm_remap_table_at(&layout, r, 0) + i);
            }
        }
        ASSERT_EQ(blocks[0].size(), kReplicaBlocks);
        ASSERT_EQ(blocks[1].size(), kReplicaBlocks);
        ASSERT_EQ(try_load(*world).report.replayed, kCommits);
    }

    void expect_whole(const std::string& what) {
        const Loaded loaded = try_load(*world);
        ASSERT_EQ(loaded.error, 0) << what << ": " << loaded.why;
        ASSERT_EQ(loaded.records, expected) << what;
    }

    void flip(std::uint64_t block, unsigned bit) {
        world->spare.flip(block * kBlock + bit / 8, bit % 8);
    }

    // @damage to each block of either replica; load; activate; the same to its fellow in the other
    // replica; load again.
    void in_one_then_the_other(const std::function<void(std::uint64_t block)>& damage) {
        for (int r : {0, 1}) {
            for (std::size_t i = 0; i < blocks[r].size(); i++) {
                world->spare.restore(image);
                world->spare.bad_read.clear();
                damage(blocks[r][i]);
                const std::string what = "block " + std::to_string(blocks[r][i]);
                expect_whole(what);
                { open(*world); }
                expect_whole(what + ", healed");
                damage(blocks[!r][i]);
                expect_whole(what + ", then " + std::to_string(blocks[!r][i]));
                if (HasFatalFailure()) {
                    return;
                }
            }
        }
    }

    std::unique_ptr<World> world;
    Records expected;
    Image image;
    dm_remap_layout layout{};
    dm_remap_super sb{};
    std::vector<std::uint64_t> blocks[2];
    std::mt19937 random{20240229};
};

// One test for each block of either replica, so that they can run side by side.
class EveryBit : public Damage, public ::testing::WithParamInterface<std::size_t> {};

TEST_P(EveryBit, OfTheBlock) {
    const std::size_t i = GetParam();
    const std::uint64_t block = blocks[i / kReplicaBlocks].at(i % kReplicaBlocks);
    Metadata md(*world);
    for (unsigned bit = 0; bit < kBlockBits; bit++) {
        flip(block, bit);
        ASSERT_EQ(md.load(), 0) << "block " << block << " bit " << bit << ": " << md.report.refusal;
        ASSERT_EQ(md.records(), expected) << "block " << block << " bit " << bit;
        ASSERT_EQ(atomic64_read(&md->counter[DM_REMAP_READ_ERRORS]), kReadErrors);
        md.unload();
        flip(block, bit);
    }
}

INSTANTIATE_TEST_SUITE_P(Damage, EveryBit, ::testing::Range<std::size_t>(0, 2 * kReplicaBlocks));

TEST_F(Damage, BitOfOneReplicaThenOfTheOther) {
    for (unsigned round = 0; round < 3; round++) {
        const unsigned bit = round == 0 ? random() % kHeaderBits : random() % (8 * kSector);
        in_one_then_the_other([&](std::uint64_t block) { flip(block, bit); });
    }
}

TEST_F(Damage, BlockOfZeros) {
    in_one_then_the_other([&](std::uint64_t block) { zero_block(*world, block); });
}

TEST_F(Damage, BlockOfGarbage) {
    in_one_then_the_other([&](std::uint64_t block) {
        Image garbage(kBlock);
        for (std::uint8_t& byte : garbage) {
            byte = random();
        }
        world->spare.poke(block * kBlockSectors, garbage);
    });
}

TEST_F(Damage, BlockOfAnotherPlace) {
    in_one_then_the_other([&](std::uint64_t block) {
        const std::uint64_t other = blocks[0][random() % blocks[0].size()];
        if (other != block) {
            const auto from = world->spare.peek(other * kBlockSectors, kBlockSectors);
            world->spare.poke(block * kBlockSectors, Image(from.begin(), from.end()));
        }
    });
}

// A block that cannot be read, and is good again once it has been written. Where it is not written
// (an unused slot, the inactive table) it stays bad, and its fellow must not matter either: but for
// the slot where the journal ends, which is the one place where both are needed.
TEST_F(Damage, BlockThatCannotBeRead) {
    world->spare.rewrite_heals = true;
    const std::uint64_t end = dm_remap_journal_at(&layout, 0, sb.journal_start + kCommits);
    for (int r : {0, 1}) {
        for (std::size_t i = 0; i < blocks[r].size() && !HasFatalFailure(); i++) {
            world->spare.restore(image);
            world->spare.bad_read.clear();
            unreadable_block(*world, blocks[r][i]);
            const std::string what = "block " + std::to_string(blocks[r][i]);
            expect_whole(what);
            { open(*world); }
            expect_whole(what + ", healed");
            if (blocks[0][i] != end) {
                unreadable_block(*world, blocks[!r][i]);
                expect_whole(what + " and its fellow");
            }
        }
    }
}

TEST_F(Damage, LossOfAWholeEnd) {
    for (int lost : {0, 1}) {
        for (bool unreadable : {false, true}) {
            world->spare.restore(image);
            world->spare.bad_read.clear();
            world->spare.rewrite_heals = true;
            for (std::uint64_t block : blocks[lost]) {
                unreadable ? unreadable_block(*world, block) : zero_block(*world, block);
            }
            expect_whole("end " + std::to_string(lost));
            { open(*world); }
            expect_whole("end " + std::to_string(lost) + " healed");
        }
    }
}

// The head of a spare that has grown since, too: the tail is not at the end any more.
TEST_F(Damage, OfAnEndOfAGrownSpare) {
    for (int r : {0, 1}) {
        for (std::uint64_t block : blocks[r]) {
            world->spare.restore(image);
            world->spare.resize(2048);
            zero_block(*world, block);
            expect_whole("block " + std::to_string(block));
        }
    }
}

}  // namespace
}  // namespace remap

// A spare whose two ends are from different times. Its data sectors are as old as the end they lie
// beside, and there is one copy of each: so it is no help that the newer end has the whole table.
#include <gtest/gtest.h>

#include <random>

#include "rig.h"

namespace remap {
namespace {

// What was on the spare at some time, and how many commits and generations it had seen.
struct Moment {
    Image image;
    Records records;
    std::uint64_t commits;
    std::uint64_t generation;
};

Moment now(World& world, Metadata& md, std::uint64_t commits) {
    return {world.spare.image(), md.records(), commits, md->sb.generation};
}

// One half of the spare from one moment, the other from another.
void put(World& world, const Moment& head, const Moment& tail) {
    Image image = head.image;
    const auto half = static_cast<std::ptrdiff_t>(image.size() / 2);
    std::copy(tail.image.begin() + half, tail.image.end(), image.begin() + half);
    world.spare.restore(image);
}

// Both ways round.
void expect_refused(World& world, const Moment& older, const Moment& newer) {
    for (const bool head_is_older : {true, false}) {
        put(world, head_is_older ? older : newer, head_is_older ? newer : older);
        const Loaded loaded = try_load(world);
        EXPECT_EQ(loaded.error, -EUCLEAN) << (head_is_older ? "older head" : "older tail");
        EXPECT_NE(loaded.why.find("different times"), std::string::npos) << loaded.why;
    }
}

void expect_served_as(World& world, const Moment& older, const Moment& newer) {
    for (const bool head_is_older : {true, false}) {
        put(world, head_is_older ? older : newer, head_is_older ? newer : older);
        const Loaded loaded = try_load(world);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records, newer.records);
    }
}

TEST(TwoTimes, TwoCommitsApartAreRefused) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    const Moment older = now(*world, *md, 1);
    ASSERT_EQ(md->remap(200), 0);
    ASSERT_EQ(md->remap(300), 0);
    expect_refused(*world, older, now(*world, *md, 3));
}

TEST(TwoTimes, OneCommitAndASaveApartAreRefused) {
    auto world = formatted();
    auto md = open(*world);
    const Moment older = now(*world, *md, 0);
    ASSERT_EQ(md->remap(100), 0);
    ASSERT_EQ(md->checkpoint(), 0);
    expect_refused(*world, older, now(*world, *md, 1));
}

TEST(TwoTimes, AnActivationAndACommitApartAreRefused) {
    auto world = formatted();
    Moment older;
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        ASSERT_EQ(md->deactivate(), 0);
        older = now(*world, *md, 1);
    }
    auto md = open(*world);
    ASSERT_EQ(md->remap(200), 0);
    expect_refused(*world, older, now(*world, *md, 2));
}

// Here the two ends are what a power cut leaves, to the bit: of a commit, and of an activation.
TEST(TwoTimes, OneStepApartCannotBeSeen) {
    auto world = formatted();
    {
        auto md = open(*world);
        const Moment older = now(*world, *md, 0);
        ASSERT_EQ(md->remap(100), 0);
        const Moment newer = now(*world, *md, 1);
        expect_served_as(*world, older, newer);
        world->spare.restore(newer.image);
        ASSERT_EQ(md->deactivate(), 0);
    }
    const Image stopped = world->spare.image();
    auto md = open(*world);
    const Moment newer = now(*world, *md, 1);
    expect_served_as(*world, {stopped, newer.records, 1, newer.generation - 1}, newer);
}

// A disk that loses one write is no spare of two times: the other replica serves, and heals it.
TEST(TwoTimes, OneLostWriteIsHealed) {
    for (const int replica : {0, 1}) {
        auto world = formatted();
        const std::uint64_t journal =
            journal_at(*world, replica, super_at(*world, 0).journal_start + 1);
        const dm_remap_disk_block old = block_at(*world, journal);
        Records expected;
        {
            auto md = open(*world);
            for (const std::uint64_t sector : {100, 200, 300}) {
                ASSERT_EQ(md->remap(sector), 0);
            }
            expected = md->records();
        }
        put_block(*world, old, journal);
        auto md = open(*world);
        EXPECT_EQ(md->report.replica[replica].bad_journal_blocks, 1U);
        EXPECT_EQ(md->records(), expected);
    }
}

// Where a failed commit belonged replica 0 takes nothing, so it keeps an older block there, and the
// checkpoint that passes it reaches superblock 1 alone: an ordinary life.
TEST(TwoTimes, FailedCommitIsNotMissed) {
    auto world = formatted();
    const std::uint64_t slot = journal_at(*world, 0, super_at(*world, 0).journal_start + 1);
    {
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        world->spare.bad_write.insert(slot * kBlockSectors);
        world->spare.bad_write.insert(0);
        EXPECT_NE(md->remap(200), 0);
    }
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_TRUE(loaded.report.lagging);
}

// Any two moments of a random life: what is not refused is read as the newer one, and no more than
// one commit was made between them.
class TwoTimesOfALife : public ::testing::TestWithParam<unsigned> {};

TEST_P(TwoTimesOfALife, AreRefusedOrAStepApart) {
    std::mt19937 random(GetParam());
    auto world = formatted();
    std::vector<Moment> moments;
    auto md = open(*world);
    std::uint64_t commits = 0;
    for (unsigned i = 0; i < 24; i++) {
        switch (random() % 6) {
            case 0:
                ASSERT_EQ(md->checkpoint(), 0);
                break;
            case 1:
                ASSERT_EQ(md->deactivate(), 0);
                md = open(*world);
                break;
            case 2:
                md = open(*world);  // after a crash
                break;
            default:
                ASSERT_EQ(md->remap(100 + 3 * i), 0);
                commits++;
        }
        moments.push_back(now(*world, *md, commits));
    }
    unsigned accepted = 0;
    for (std::size_t i = 0; i < moments.size(); i++) {
        for (std::size_t k = i + 1; k < moments.size(); k++) {
            for (const bool head_is_older : {true, false}) {
                const Moment& older = moments[i];
                const Moment& newer = moments[k];
                put(*world, head_is_older ? older : newer, head_is_older ? newer : older);
                const Loaded loaded = try_load(*world);
                if (loaded.error != 0) {
                    EXPECT_EQ(loaded.error, -EUCLEAN) << loaded.why;
                    continue;
                }
                accepted++;
                EXPECT_EQ(loaded.records, newer.records) << i << " and " << k;
                EXPECT_LE(newer.commits - older.commits, 1U) << i << " and " << k;
                EXPECT_LE(newer.commits - older.commits + newer.generation - older.generation, 1U)
                    << i << " and " << k;
            }
        }
    }
    EXPECT_GT(accepted, 0U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, TwoTimesOfALife, ::testing::Range(0U, 4U));

}  // namespace
}  // namespace remap

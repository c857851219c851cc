// The witness: numbers that tell a spare from an older copy of itself. They must be such that no
// ordinary life, power cuts and the loss of one end included, leads to a load that does not reach
// them.
#include <gtest/gtest.h>

#include "rig.h"

namespace remap {
namespace {

dm_remap_witness later(dm_remap_witness w, std::uint64_t generations, std::uint64_t sequences) {
    return {w.generation + generations, w.sequence + sequences};
}

bool reaches(Metadata& md, const dm_remap_witness& least) {
    dm_remap_report report{};
    const int error = dm_remap_check_witness(md.get(), &least, &report);
    EXPECT_EQ(error, report.refusal == nullptr ? 0 : -ESTALE);
    return error == 0;
}

// All the metadata of one end.
void lose_end(World& world, int replica) {
    const dm_remap_layout layout = super_at(world, 0).layout;
    const std::uint64_t head_end = dm_remap_data_start(&layout) / kBlockSectors;
    const std::uint64_t tail = dm_remap_data_end(&layout) / kBlockSectors;
    const std::uint64_t end = replica == 0 ? head_end : layout.device_blocks;
    for (std::uint64_t at = replica == 0 ? 0 : tail; at < end; at++) {
        zero_block(world, at);
    }
}

// Activation, commits, a checkpoint in the midst of them, an orderly stop: whatever of it can be
// done. The witness at its end, when it has not gone back at any time.
dm_remap_witness live(World& world) {
    Metadata md(world);
    EXPECT_EQ(md.load(), 0) << md.report.refusal;
    dm_remap_witness last = md->witness;
    const auto seen = [&] {
        EXPECT_GE(md->witness.generation, last.generation);
        EXPECT_GE(md->witness.sequence, last.sequence);
        last = md->witness;
    };
    md.activate();
    seen();
    for (const std::uint64_t sector : {100, 200, 300}) {
        md.remap(sector);
        seen();
        if (sector == 200) {
            dm_remap_save(md.get());
            seen();
        }
    }
    dm_remap_save(md.get());
    seen();
    md.deactivate();
    seen();
    return last;
}

void expect_to_be_reached(World& world, const dm_remap_witness& witness) {
    const Image image = world.spare.image();
    const unsigned copies = super_at(world, 1).table_copies;
    for (const int lost : {-1, 0, 1}) {
        if (lost >= 0) {
            if (copies == 1U << lost) {
                continue;  // the table's only copy would go, too
            }
            lose_end(world, lost);
        }
        Metadata md(world);
        ASSERT_EQ(md.load(), 0) << md.report.refusal << ", end " << lost << " lost";
        EXPECT_TRUE(reaches(md, witness))
            << "without end " << lost << ": " << md->sb.generation << ":" << md->next_sequence
            << " of " << witness.generation << ":" << witness.sequence;
        world.spare.restore(image);
    }
}

constexpr std::uint64_t kMoreWrites = 24;  // than that life has

TEST(Witness, IsReachedWhateverWriteThePowerFailsIn) {
    for (std::uint64_t n = 0; n < kMoreWrites; n++) {
        SCOPED_TRACE(n);
        auto world = formatted();
        world->spare.power_off_at_write(world->spare.writes() + n);
        const dm_remap_witness witness = live(*world);
        EXPECT_EQ(world->spare.is_on(), n == kMoreWrites - 1) << "else too few, or many";
        world->spare.power_off();
        world->spare.power_on([](auto, auto) { return false; });
        expect_to_be_reached(*world, witness);
    }
}

TEST(Witness, IsReachedWhateverWritesFail) {
    for (const unsigned failures : {1U, 3U, 1000U}) {
        for (const bool land : {false, true}) {
            for (std::uint64_t n = 0; n < kMoreWrites; n++) {
                SCOPED_TRACE(testing::Message() << n << ", " << failures << " times, " << land);
                auto world = formatted();
                const std::uint64_t first = world->spare.writes() + n;
                world->spare.failed_writes_land = land;
                world->spare.on_write = [&](auto number, auto, auto) {
                    return number >= first && number < first + failures ? -EIO : 0;
                };
                const dm_remap_witness witness = live(*world);
                world->spare.on_write = nullptr;
                expect_to_be_reached(*world, witness);
            }
        }
    }
}

// A start after a crash, on a spare that takes no writes: nothing is mended, so what one end alone
// has is not counted on.
TEST(Witness, CountsOnNothingThatOneEndAloneHas) {
    for (std::uint64_t n = 0; n < kMoreWrites; n++) {
        SCOPED_TRACE(n);
        auto world = formatted();
        world->spare.power_off_at_write(world->spare.writes() + n);
        live(*world);
        world->spare.power_off();
        world->spare.power_on([](auto, auto) { return false; });
        world->spare.on_write = [](auto, auto, auto) { return -EIO; };
        const dm_remap_witness witness = live(*world);
        world->spare.on_write = nullptr;
        expect_to_be_reached(*world, witness);
    }
}

// A commit failed and is nowhere, and the checkpoint that passes its sequence is on one end alone.
TEST(Witness, DoesNotCountASequenceThatFailed) {
    auto world = formatted();
    const std::uint64_t journal = journal_at(*world, 0, super_at(*world, 0).journal_start);
    {
        auto md = open(*world);
        world->spare.bad_write.insert(journal * kBlockSectors);
        world->spare.bad_write.insert(0);
        EXPECT_EQ(md->remap(100), -EUCLEAN);
    }
    EXPECT_EQ(super_at(*world, 1).generation, super_at(*world, 0).generation + 1);
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    expect_to_be_reached(*world, (*md)->witness);
}

// On a spare in good order it lags behind nothing.
TEST(Witness, IsExactOnAWholeSpare) {
    auto world = formatted();
    auto md = open(*world);
    for (const std::uint64_t sector : {100, 200}) {
        ASSERT_EQ(md->remap(sector), 0);
        EXPECT_EQ((*md)->witness.generation, (*md)->sb.generation);
        EXPECT_EQ((*md)->witness.sequence, (*md)->next_sequence);
        ASSERT_EQ(md->checkpoint(), 0);
    }
    EXPECT_FALSE(reaches(*md, later((*md)->witness, 1, 0)));
    EXPECT_FALSE(reaches(*md, later((*md)->witness, 0, 1)));
}

// What load alone cannot see, for the copy is whole: here each step after it is told by the
// witness.
TEST(Witness, TellsAnOlderCopyByWhateverCameAfterIt) {
    const std::function<void(World&)> steps[] = {
        [](World& world) { open(world); },
        [](World& world) { EXPECT_EQ(open(world)->remap(100), 0); },
        [](World& world) { EXPECT_EQ(open(world)->checkpoint(), 0); },
        [](World& world) { EXPECT_EQ(open(world)->deactivate(), 0); },
    };
    for (const auto& step : steps) {
        auto world = formatted();
        const Image older = world->spare.image();
        step(*world);
        Metadata newer(*world);
        ASSERT_EQ(newer.load(), 0);
        EXPECT_TRUE(reaches(newer, newer->witness));
        world->spare.restore(older);
        Metadata copy(*world);
        ASSERT_EQ(copy.load(), 0) << "it is whole";
        EXPECT_FALSE(reaches(copy, newer->witness));
    }
}

// Between two saves each commit alone.
TEST(Witness, TellsACopyFromBeforeTheLastCommit) {
    auto world = formatted();
    auto md = open(*world);
    const Image older = world->spare.image();
    ASSERT_EQ(md->remap(100), 0);
    const dm_remap_witness witness = (*md)->witness;
    world->spare.restore(older);
    Metadata copy(*world);
    ASSERT_EQ(copy.load(), 0);
    EXPECT_EQ(copy->sb.generation, witness.generation);
    dm_remap_report report{};
    EXPECT_EQ(dm_remap_check_witness(copy.get(), &witness, &report), -ESTALE);
    EXPECT_NE(std::string(report.refusal).find("older than its witness"), std::string::npos);
}

// The journal's last block lost in both copies: without a witness nobody could know that it was.
TEST(Witness, TellsThatTheLastCommitIsLostInBothCopies) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(100), 0);
    const dm_remap_witness witness = (*md)->witness;
    for (const int replica : {0, 1}) {
        zero_block(*world, journal_at(*world, replica, witness.sequence - 1));
    }
    Metadata lost(*world);
    ASSERT_EQ(lost.load(), 0);
    EXPECT_FALSE(reaches(lost, witness));
}

// One end alone has the first generation of all: there is none before it to be counted on.
TEST(Witness, OfTheFirstGenerationOnOneEndIsZero) {
    auto world = formatted();
    for (const int replica : {0, 1}) {
        dm_remap_super sb = super_at(*world, replica);
        sb.generation = 0;
        sb.table_generation = 0;
        put_super(*world, sb, replica);
    }
    lose_end(*world, 1);
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0) << md.report.refusal;
    EXPECT_EQ(md->witness.generation, 0U);
    EXPECT_TRUE(reaches(md, md->witness));
}

TEST(Witness, OfZerosAsksNothing) {
    auto world = formatted();
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    EXPECT_TRUE(reaches(md, {}));
}

}  // namespace
}  // namespace remap

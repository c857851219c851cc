// Spares that could only come of damage or of another program: refused, and with the right reason.
#include <gtest/gtest.h>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kFirst = 16;  // sequence of the first commit: the ring's size

void expect_refused(World& world, int error, const std::string& why) {
    const Loaded loaded = try_load(world);
    EXPECT_EQ(loaded.error, error);
    EXPECT_NE(loaded.why.find(why), std::string::npos) << loaded.why;
}

// Nothing is looked for beyond its end.
TEST(Refusal, DeviceOfTwoBlocksIsBlank) {
    World world(1 << 16, 2 * kBlockSectors);
    world.spare.on_read = [](std::uint64_t sector, std::uint32_t n) {
        EXPECT_LE(sector + n, 2 * kBlockSectors);
    };
    expect_refused(world, -ENODATA, "blank");
}

// Said rather than what is lost: the one thing that helps is another version of this.
TEST(Refusal, NewerTailOfALostHead) {
    auto world = formatted();
    const dm_remap_super sb = super_at(*world, 0);
    const std::uint64_t tail = dm_remap_superblock_at(&sb.layout, 1);
    dm_remap_disk_block block = block_at(*world, tail);
    block.header.version = 2;
    block.header.crc = dm_remap_block_crc(&block, kSector);
    world->spare.poke(tail * kBlockSectors, {reinterpret_cast<std::uint8_t*>(&block), kBlock});
    zero_block(*world, 0);
    expect_refused(*world, -EPROTONOSUPPORT, "newer metadata version");
}

TEST(Refusal, HalfFormattedEndBesideAnotherSpares) {
    for (int end : {0, 1}) {
        auto world = formatted();
        dm_remap_super sb = super_at(*world, end);
        sb.uuid[0] ^= 1;
        put_super(*world, sb, end);
        expect_refused(*world, -EUCLEAN, "different UUIDs");
        sb.state = DM_REMAP_STATE_FORMATTING;
        put_super(*world, sb, end);
        expect_refused(*world, -EUCLEAN, "half formatted");
    }
}

TEST(Refusal, EndsThatLayTheSpareOutDifferently) {
    auto world = formatted();
    dm_remap_super sb = super_at(*world, 1);
    sb.layout.journal_blocks++;
    sb.journal_start++;
    sb.activation_sequence++;
    put_super(*world, sb, 1);
    expect_refused(*world, -EUCLEAN, "different times");
}

// A chain that is whole, but tells of an activation after a later one.
TEST(Refusal, ActivationsThatGoBack) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(10), 0); }
    { ASSERT_EQ(open(*world)->remap(20), 0); }
    { open(*world); }
    const auto rewrite = [&](std::uint64_t first_activation, std::uint64_t second_activation) {
        for (int r : {0, 1}) {
            dm_remap_disk_block first = block_at(*world, journal_at(*world, r, kFirst));
            first.header.activation = first_activation;
            put_block(*world, first, journal_at(*world, r, kFirst));
            dm_remap_disk_block second = block_at(*world, journal_at(*world, r, kFirst + 1));
            second.header.activation = second_activation;
            second.header.chain = dm_remap_chain_value(&first, journal_at(*world, 0, kFirst));
            put_block(*world, second, journal_at(*world, r, kFirst + 1));
        }
    };
    const std::uint64_t last = super_at(*world, 0).activation;
    rewrite(last - 2, last - 1);
    EXPECT_EQ(try_load(*world).records.size(), 2U);
    rewrite(last - 1, last - 2);
    expect_refused(*world, -EUCLEAN, "chain");
}

// No checkpoint could write them.
TEST(Refusal, MoreRecordsThanTheTableHolds) {
    auto world = formatted();
    std::uint64_t sequence = 0;
    std::uint64_t fits = 0;
    {
        auto md = open(*world);
        std::uint64_t n = 0;
        while (md->commit({pending(n * 16, 9)}) == 0) {
            n++;
        }
        for (std::uint64_t i = 0; md->commit({clear(i * 16 + 4)}) == 0; i++) {
        }
        fits = md->records().size();
        ASSERT_EQ(fits, dm_remap_table_capacity(&(*md)->sb.layout));
        ASSERT_EQ(md->checkpoint(), 0);
        // A block of counters, of which one becomes the record too many.
        sequence = (*md)->next_sequence;
        ASSERT_EQ(dm_remap_soft_commit(md->get()), 0);
    }
    EXPECT_EQ(try_load(*world).records.size(), fits);
    const dm_remap_record more = pending(60'000);
    for (int r : {0, 1}) {
        dm_remap_disk_block block = block_at(*world, journal_at(*world, r, sequence));
        dm_remap_entry_encode(&block.entry[0], &more);
        put_block(*world, block, journal_at(*world, r, sequence));
    }
    expect_refused(*world, -EUCLEAN, "more records than fit");
}

}  // namespace
}  // namespace remap

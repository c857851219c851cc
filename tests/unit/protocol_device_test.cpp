// The rules of the protocol (docs/on-disk-format.md names these tests): devices that are not what
// they were, and bytes that mean harm.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>

#include "protocol.h"

namespace remap {
namespace {

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

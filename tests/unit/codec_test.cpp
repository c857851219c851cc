#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

#include "rig.h"

namespace remap {
namespace {

dm_remap_layout layout_for(std::uint64_t sectors, std::uint32_t granularity = 1,
                           std::uint32_t journal = 0, std::uint64_t records = 0) {
    dm_remap_layout l{};
    EXPECT_EQ(dm_remap_layout_choose(&l, sectors, granularity, journal, records), 0);
    return l;
}

// Every block of metadata and the data area: on the device, in order, none shared.
void expect_sound(const dm_remap_layout& l) {
    EXPECT_TRUE(dm_remap_layout_valid(&l));
    const std::uint64_t j = l.journal_blocks;
    const std::uint64_t t = l.table_blocks;
    EXPECT_EQ(dm_remap_superblock_at(&l, 0), 0U);
    EXPECT_EQ(dm_remap_journal_at(&l, 0, 0), 1U);
    EXPECT_EQ(dm_remap_table_at(&l, 0, 0), 1 + j);
    EXPECT_EQ(dm_remap_table_at(&l, 0, 1), 1 + j + t);
    EXPECT_EQ(dm_remap_data_start(&l), (1 + j + 2 * t) * kBlockSectors);
    EXPECT_LT(dm_remap_data_start(&l), dm_remap_data_end(&l));
    EXPECT_EQ(dm_remap_data_end(&l), dm_remap_journal_at(&l, 1, 0) * kBlockSectors);
    EXPECT_EQ(dm_remap_table_at(&l, 1, 0), dm_remap_journal_at(&l, 1, 0) + j);
    EXPECT_EQ(dm_remap_table_at(&l, 1, 1) + t, dm_remap_superblock_at(&l, 1));
    EXPECT_EQ(dm_remap_superblock_at(&l, 1), l.device_blocks - 1);
}

TEST(Layout, SmallestSpare) {
    dm_remap_layout l{};
    const std::uint64_t metadata =
        2 * (1 + DM_REMAP_MIN_JOURNAL_BLOCKS + 2 * (1 + DM_REMAP_RESERVE_BLOCKS));
    EXPECT_EQ(
        dm_remap_layout_choose(&l, metadata * kBlockSectors, 1, DM_REMAP_MIN_JOURNAL_BLOCKS, 1),
        -ENOSPC);
    EXPECT_EQ(dm_remap_layout_choose(&l, (metadata + 1) * kBlockSectors, 1,
                                     DM_REMAP_MIN_JOURNAL_BLOCKS, 1),
              0);
    expect_sound(l);
    EXPECT_EQ(dm_remap_data_end(&l) - dm_remap_data_start(&l), kBlockSectors);
    EXPECT_GE(dm_remap_max_records(&l), 1U);
}

TEST(Layout, TailThatIsNoWholeBlockIsLeftOut) {
    EXPECT_EQ(layout_for(8000 + 7).device_blocks, 1000U);
}

TEST(Layout, MoreThanFourMillionRecords) {
    const std::uint64_t sectors = 200ULL << 21;  // 200 GiB
    dm_remap_layout l = layout_for(sectors, 8);
    expect_sound(l);
    EXPECT_GE(dm_remap_max_records(&l), 4'000'000U);

    l = layout_for(sectors, 1, 0, DM_REMAP_MAX_RECORDS);
    expect_sound(l);
    EXPECT_GE(dm_remap_max_records(&l), std::uint64_t{DM_REMAP_MAX_RECORDS});
    EXPECT_EQ(dm_remap_layout_choose(&l, sectors, 1, 0, DM_REMAP_MAX_RECORDS + 1), -EINVAL);
}

TEST(Layout, NumbersOutOfRange) {
    dm_remap_layout l{};
    const std::uint64_t sectors = 1 << 20;
    for (std::uint32_t g : {0, 3, 5, 6, 7, 9, 16}) {
        EXPECT_EQ(dm_remap_layout_choose(&l, sectors, g, 0, 0), -EINVAL) << g;
    }
    EXPECT_EQ(dm_remap_layout_choose(&l, sectors, 1, DM_REMAP_MIN_JOURNAL_BLOCKS - 1, 0), -EINVAL);
    EXPECT_EQ(dm_remap_layout_choose(&l, sectors, 1, DM_REMAP_MAX_JOURNAL_BLOCKS + 1, 0), -EINVAL);
    for (std::uint64_t tiny : {0, 1, 7, 8, 16, 100}) {
        EXPECT_EQ(dm_remap_layout_choose(&l, tiny, 1, 0, 0), -ENOSPC) << tiny;
    }
}

TEST(Layout, InvalidOnesAreRecognised) {
    const dm_remap_layout good = layout_for(1 << 20);
    auto broken = [&](auto change) {
        dm_remap_layout l = good;
        change(l);
        return !dm_remap_layout_valid(&l);
    };
    EXPECT_TRUE(broken([](auto& l) { l.granularity = 0; }));
    EXPECT_TRUE(broken([](auto& l) { l.granularity = 3; }));
    EXPECT_TRUE(broken([](auto& l) { l.journal_blocks = 0; }));
    EXPECT_TRUE(broken([](auto& l) { l.table_blocks = 0; }));
    EXPECT_TRUE(broken([](auto& l) { l.table_blocks = UINT32_MAX; }));
    EXPECT_TRUE(broken([](auto& l) { l.device_blocks = 10; }));
    EXPECT_TRUE(broken([](auto& l) { l.device_blocks = UINT64_MAX; }));
}

RC_GTEST_PROP(Layout, AnyChosenOneIsSound, ()) {
    const auto sectors = *rc::gen::inRange<std::uint64_t>(0, 1ULL << 34);
    const auto granularity = 1U << *rc::gen::inRange(0, 4);
    const auto journal = *rc::gen::element(0U, 16U, 17U, 4096U);
    const auto records = *rc::gen::element<std::uint64_t>(0, 1, 126, 127, 1'000'000, 8U << 20);
    dm_remap_layout l{};
    int ret = dm_remap_layout_choose(&l, sectors, granularity, journal, records);
    RC_ASSERT(ret == 0 || ret == -ENOSPC);
    if (ret == 0) {
        expect_sound(l);
        RC_ASSERT(dm_remap_max_records(&l) >= records);
        RC_ASSERT(dm_remap_table_capacity(&l) > dm_remap_max_records(&l));
    }
}

TEST(Layout, SequenceLivesAtItsRemainder) {
    const dm_remap_layout l = layout_for(1 << 20, 1, 16);
    EXPECT_EQ(dm_remap_journal_at(&l, 0, 16), dm_remap_journal_at(&l, 0, 0));
    EXPECT_EQ(dm_remap_journal_at(&l, 0, 31), dm_remap_journal_at(&l, 0, 0) + 15);
    EXPECT_EQ(dm_remap_journal_at(&l, 1, 16 * 1'000'000'007ULL + 5),
              dm_remap_journal_at(&l, 1, 0) + 5);
}

// ---- CRC ----

// The same vector is tested in the kernel's world: both are CRC-32 of IEEE 802.3.
TEST(Crc, TestVector) {
    EXPECT_EQ(dm_remap_crc32(0, "123456789", 9), 0xCBF43926U);
    EXPECT_EQ(dm_remap_crc32(dm_remap_crc32(0, "1234", 4), "56789", 5), 0xCBF43926U);
}

// What the kernel computes: crc32_le(), the bare shift register, with both inversions outside.
TEST(Crc, KernelFormulaGivesTheSame) {
    auto crc32_le = [](std::uint32_t crc, const char* p, std::size_t n) {
        for (; n != 0; n--) {
            crc ^= static_cast<std::uint8_t>(*p++);
            for (int bit = 0; bit < 8; bit++) {
                crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320U : 0);
            }
        }
        return crc;
    };
    EXPECT_EQ(~crc32_le(~0U, "123456789", 9), 0xCBF43926U);
    const std::uint32_t half = ~crc32_le(~0U, "1234", 4);
    EXPECT_EQ(~crc32_le(~half, "56789", 5), 0xCBF43926U);
}

TEST(Crc, OwnFieldCountsAsZero) {
    dm_remap_disk_block block{};
    block.header.magic = DM_REMAP_MAGIC;
    const std::uint32_t crc = dm_remap_block_crc(&block, sizeof(block));
    block.header.crc = 0x12345678;
    EXPECT_EQ(dm_remap_block_crc(&block, sizeof(block)), crc);
    EXPECT_EQ(dm_remap_crc32(0, Image(kBlock).data(), kBlock),
              dm_remap_block_crc(Image(kBlock).data(), kBlock));
}

// ---- superblock ----

dm_remap_super sample_super() {
    dm_remap_super sb{};
    for (unsigned i = 0; i < sizeof(sb.uuid); i++) {
        sb.uuid[i] = 0xA0 + i;
    }
    sb.generation = 0x1122334455667788;
    sb.activation = 77;
    sb.activation_sequence = 5000;
    sb.nonce = 0x8877665544332211;
    sb.layout = layout_for(1 << 20, 8, 32);
    sb.compat = 5;
    sb.compat_ro = 6;
    sb.state = DM_REMAP_STATE_DIRTY;
    sb.active_table = 1;
    sb.table_copies = 2;
    sb.records = 127;
    sb.table_count = 2;
    sb.table_crc = 0xDEADBEEF;
    sb.table_generation = sb.generation - 3;
    sb.journal_start = 4321;
    sb.journal_chain = 0xCAFEBABE;
    sb.main.sectors = 1ULL << 32;
    sb.main.start = 2048;
    sb.main.partition = 34;
    sb.main.id_type = 3;
    std::memset(sb.main.id, 0x77, sizeof(sb.main.id));
    std::strcpy(sb.main.name, "wwn-0x5000c500a1b2c3d4");
    sb.formatted_time = 1'600'000'000;
    sb.written_time = 1'700'000'000;
    for (unsigned i = 0; i < DM_REMAP_NR_COUNTERS; i++) {
        sb.counter[i] = 1000 + i;
    }
    return sb;
}

struct SuperBlock {
    Image bytes = Image(kBlock);
    std::uint64_t at = 0;
    dm_remap_super out{};

    explicit SuperBlock(const dm_remap_super& sb, int replica = 0)
        : at(dm_remap_superblock_at(&sb.layout, replica)) {
        dm_remap_super_encode(bytes.data(), &sb, replica);
    }
    dm_remap_disk_superblock& disk() {
        return *reinterpret_cast<dm_remap_disk_superblock*>(bytes.data());
    }
    void reseal() { disk().header.crc = dm_remap_block_crc(bytes.data(), kSector); }
    dm_remap_verdict verdict() { return dm_remap_super_decode(&out, bytes.data(), at); }
};

TEST(Superblock, RoundTripOnBothEnds) {
    const dm_remap_super sb = sample_super();
    for (int replica : {0, 1}) {
        SuperBlock block(sb, replica);
        ASSERT_EQ(block.verdict(), DM_REMAP_VALID);
        EXPECT_EQ(SuperBlock(block.out, replica).bytes, block.bytes);
        EXPECT_EQ(block.out.journal_chain, sb.journal_chain);
        EXPECT_EQ(block.out.activation_sequence, sb.activation_sequence);
        EXPECT_EQ(block.out.nonce, sb.nonce);
    }
}

TEST(Superblock, AllOfItIsInTheFirstSector) {
    SuperBlock block(sample_super());
    EXPECT_TRUE(dm_remap_is_zero(block.bytes.data() + kSector, kBlock - kSector));
}

TEST(Superblock, OffsetsAreThoseOfTheDocument) {
    SuperBlock block(sample_super());
    auto le = [&](std::size_t at, std::size_t n) {
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < n; i++) {
            value |= std::uint64_t{block.bytes[at + i]} << (8 * i);
        }
        return value;
    };
    EXPECT_EQ(std::memcmp(block.bytes.data(), "dmRM", 4), 0);
    EXPECT_EQ(block.bytes[8], 0xA0);
    EXPECT_EQ(le(24, 8), 0U);
    EXPECT_EQ(le(32, 8), 0x1122334455667788U);
    EXPECT_EQ(le(40, 8), 77U);
    EXPECT_EQ(le(48, 4), 0xCAFEBABEU);
    EXPECT_EQ(le(54, 1), static_cast<unsigned>(DM_REMAP_SUPERBLOCK));
    EXPECT_EQ(le(55, 1), static_cast<unsigned>(DM_REMAP_VERSION));
    EXPECT_EQ(le(56, 8), (1U << 20) / 8);
    EXPECT_EQ(le(76, 4), static_cast<unsigned>(DM_REMAP_STATE_DIRTY));
    EXPECT_EQ(le(80, 4), 32U);
    EXPECT_EQ(le(88, 4), 8U);
    EXPECT_EQ(le(112, 8), 4321U);
    EXPECT_EQ(le(120, 8), 1ULL << 32);
    EXPECT_EQ(le(248, 8), 1000U);
    EXPECT_EQ(le(352, 8), 5000U);
}

TEST(Superblock, EveryBitIsUnderTheCrc) {
    const dm_remap_super sb = sample_super();
    for (unsigned bit = 0; bit < kSector * 8; bit++) {
        SuperBlock block(sb);
        block.bytes[bit / 8] ^= 1U << bit % 8;
        EXPECT_NE(block.verdict(), DM_REMAP_VALID) << "bit " << bit;
    }
}

TEST(Superblock, BehindTheFirstSectorNothingIsLookedAt) {
    SuperBlock block(sample_super());
    std::fill(block.bytes.begin() + kSector, block.bytes.end(), 0xFF);
    EXPECT_EQ(block.verdict(), DM_REMAP_VALID);
}

TEST(Superblock, Verdicts) {
    dm_remap_super out{};
    EXPECT_EQ(dm_remap_super_decode(&out, Image(kBlock).data(), 0), DM_REMAP_BLANK);
    EXPECT_EQ(dm_remap_super_decode(&out, Image(kBlock, 0x5A).data(), 0), DM_REMAP_FOREIGN);

    SuperBlock version(sample_super());
    version.disk().header.version = DM_REMAP_VERSION + 1;
    EXPECT_EQ(version.verdict(), DM_REMAP_DAMAGED);  // not under the old CRC
    version.reseal();
    EXPECT_EQ(version.verdict(), DM_REMAP_NEWER);

    SuperBlock place(sample_super());
    place.at = 1;
    EXPECT_EQ(place.verdict(), DM_REMAP_MISPLACED);

    SuperBlock type(sample_super());
    type.disk().header.type = DM_REMAP_TABLE;
    type.reseal();
    EXPECT_EQ(type.verdict(), DM_REMAP_MISPLACED);
}

// Bytes can carry a right CRC and still be nonsense: whoever wrote them wants harm.
TEST(Superblock, NonsenseUnderARightCrcIsDamage) {
    const std::vector<std::function<void(dm_remap_disk_superblock&)>> changes = {
        [](auto& d) { d.granularity = 3; },
        [](auto& d) { d.journal_blocks = 1; },
        [](auto& d) { d.journal_blocks = UINT32_MAX; },
        [](auto& d) { d.table_blocks = UINT32_MAX; },
        [](auto& d) { d.table_blocks = 0; },
        [](auto& d) { d.header.device_blocks = 3; },
        [](auto& d) { d.header.device_blocks = UINT64_MAX; },
        [](auto& d) { d.active_table = 2; },
        [](auto& d) { d.table_copies = 0; },
        [](auto& d) { d.table_copies = 4; },
        [](auto& d) { d.table_count = 3; },
        [](auto& d) { d.records = UINT64_MAX; },
        [](auto& d) {
            d.records = UINT64_MAX - 125;
            d.table_count = 0;
        },
        [](auto& d) { d.journal_start = 0; },
        [](auto& d) { d.journal_start = UINT64_MAX; },
        [](auto& d) { d.header.sequence = UINT64_MAX; },
        [](auto& d) { d.header.activation = UINT64_MAX; },
        [](auto& d) { d.main_sectors = UINT64_MAX; },
        [](auto& d) { d.main_start = 1ULL << 33; },
    };
    for (std::size_t i = 0; i < changes.size(); i++) {
        SuperBlock block(sample_super());
        changes[i](block.disk());
        block.reseal();
        EXPECT_EQ(block.verdict(), DM_REMAP_DAMAGED) << "change " << i;
    }
}

TEST(Superblock, UnknownIncompatFlagIsLeftToTheCaller) {
    dm_remap_super sb = sample_super();
    sb.incompat = 0x80;
    SuperBlock block(sb);
    block.disk().granularity = 3;  // a meaning that this version does not know
    block.reseal();
    EXPECT_EQ(block.verdict(), DM_REMAP_VALID);
    EXPECT_EQ(block.out.incompat, 0x80U);
}

// A flag that this version knows is no excuse for the other fields.
TEST(Superblock, KnownIncompatFlagExcusesNothing) {
    dm_remap_super sb = sample_super();
    sb.incompat = DM_REMAP_INCOMPAT_KNOWN;
    SuperBlock block(sb);
    EXPECT_EQ(block.verdict(), DM_REMAP_VALID);
    block.disk().granularity = 3;
    block.reseal();
    EXPECT_EQ(block.verdict(), DM_REMAP_DAMAGED);
}

TEST(Superblock, NameIsAlwaysTerminated) {
    SuperBlock block(sample_super());
    std::memset(block.disk().main_name, 'x', sizeof(block.disk().main_name));
    block.reseal();
    ASSERT_EQ(block.verdict(), DM_REMAP_VALID);
    EXPECT_EQ(std::strlen(block.out.main.name), sizeof(block.out.main.name) - 1);
}

// ---- entries ----

RC_GTEST_PROP(Entry, RoundTrip, (std::uint64_t main, std::uint64_t spare, std::uint32_t length)) {
    dm_remap_record r{};
    r.main = main;
    r.spare = spare;
    r.length = length;
    r.kind = *rc::gen::arbitrary<std::uint8_t>();
    r.reason = *rc::gen::arbitrary<std::uint8_t>();
    r.first_time = *rc::gen::arbitrary<std::uint32_t>();
    r.last_time = *rc::gen::arbitrary<std::uint32_t>();
    dm_remap_disk_entry disk{};
    dm_remap_record back{};
    dm_remap_entry_encode(&disk, &r);
    dm_remap_entry_decode(&back, &disk);
    RC_ASSERT(std::memcmp(&r, &back, sizeof(r)) == 0);

    // What is known only in memory stays there.
    r.flags = DM_REMAP_F_HELD;
    dm_remap_entry_encode(&disk, &r);
    RC_ASSERT(disk.flags == 0);
    r.flags = DM_REMAP_F_HELD | DM_REMAP_F_DOUBT | DM_REMAP_F_UNREADABLE;
    dm_remap_entry_encode(&disk, &r);
    RC_ASSERT(disk.flags == cpu_to_le16(DM_REMAP_ENTRY_UNREADABLE));
    dm_remap_entry_decode(&back, &disk);
    RC_ASSERT(back.flags == DM_REMAP_F_UNREADABLE);
}

class RecordWrong : public ::testing::Test {
  protected:
    const dm_remap_layout layout = layout_for(1 << 16, 8);
    const std::uint64_t data = dm_remap_data_start(&layout);
    const std::uint64_t data_end = dm_remap_data_end(&layout);
    const std::uint64_t main_sectors = 100'000;

    bool wrong(const dm_remap_record& r, bool journal = false) {
        return dm_remap_record_wrong(&r, &layout, main_sectors, journal) != nullptr;
    }
};

TEST_F(RecordWrong, GoodOnes) {
    EXPECT_FALSE(wrong(mapped(0, data, 8)));
    EXPECT_FALSE(wrong(mapped(main_sectors - 8, data_end - 8, 8)));
    EXPECT_FALSE(wrong(pending(8, 16)));
    EXPECT_FALSE(wrong(retired(data, 8)));
    EXPECT_FALSE(wrong(clear(0, main_sectors), true));
    dm_remap_record counter{};
    counter.kind = DM_REMAP_COUNTER;
    counter.main = UINT64_MAX;
    counter.length = 200;  // a counter that a later version adds
    EXPECT_FALSE(wrong(counter, true));
}

TEST_F(RecordWrong, OnlyTheJournalClears) {
    EXPECT_TRUE(wrong(clear(0, 8)));
    dm_remap_record counter{};
    counter.kind = DM_REMAP_COUNTER;
    EXPECT_TRUE(wrong(counter));
}

TEST_F(RecordWrong, RangesThatDoNotFit) {
    EXPECT_TRUE(wrong(mapped(0, data, 0)));
    EXPECT_TRUE(wrong(mapped(1, data, 8)));
    EXPECT_TRUE(wrong(mapped(0, data + 4, 8)));
    EXPECT_TRUE(wrong(mapped(0, data, 7)));
    EXPECT_TRUE(wrong(mapped(main_sectors, data, 8)));
    EXPECT_TRUE(wrong(mapped(main_sectors - 8, data, 16)));
    EXPECT_TRUE(wrong(mapped(UINT64_MAX - 7, data, 8)));
    EXPECT_TRUE(wrong(mapped(0, data - 8, 8)));
    EXPECT_TRUE(wrong(mapped(0, data_end, 8)));
    EXPECT_TRUE(wrong(mapped(0, data_end - 8, 16)));
    EXPECT_TRUE(wrong(mapped(0, UINT64_MAX - 7, 8)));
    EXPECT_TRUE(wrong(retired(0, 8)));
    EXPECT_TRUE(wrong(pending(0, 0xFFFFFFF8)));
}

TEST_F(RecordWrong, FieldsThatMustBeSomethingElse) {
    auto changed = [](dm_remap_record r, auto change) {
        change(r);
        return r;
    };
    EXPECT_TRUE(wrong(changed(pending(8, 8), [](auto& r) { r.spare = 8; })));
    EXPECT_TRUE(wrong(changed(retired(data, 8), [](auto& r) { r.main = 8; })));
    for (unsigned bit = 0; bit < 16; bit++) {
        const auto flagged = [bit](auto& r) { r.flags = static_cast<u16>(1U << bit); };
        EXPECT_EQ(wrong(changed(mapped(0, data, 8), flagged)), bit != 0) << bit;
        EXPECT_TRUE(wrong(changed(pending(8, 8), flagged))) << bit;
        EXPECT_TRUE(wrong(changed(retired(data, 8), flagged))) << bit;
        EXPECT_TRUE(wrong(changed(clear(8, 8), flagged), true)) << bit;
    }
    EXPECT_TRUE(wrong(changed(mapped(0, data, 8), [](auto& r) { r.reason = 0; })));
    EXPECT_TRUE(wrong(changed(mapped(0, data, 8), [](auto& r) { r.reason = 200; })));
    EXPECT_TRUE(wrong(changed(mapped(0, data, 8), [](auto& r) { r.kind = DM_REMAP_NONE; })));
    EXPECT_TRUE(wrong(changed(mapped(0, data, 8), [](auto& r) { r.kind = 99; })));
    EXPECT_TRUE(wrong(changed(clear(0, 8), [](auto& r) { r.reason = 1; }), true));
}

// ---- journal and table blocks ----

class BlockVerdict : public ::testing::Test {
  protected:
    BlockVerdict() {
        dm_remap_header_fill(&block.header, DM_REMAP_JOURNAL, &sb, 4321, 0xABCD, 2);
        dm_remap_block_seal(&block, 100);
    }
    dm_remap_verdict verdict() {
        return dm_remap_block_verdict(&block, DM_REMAP_JOURNAL, &sb, 100);
    }

    dm_remap_super sb = sample_super();
    dm_remap_disk_block block{};
};

TEST_F(BlockVerdict, Valid) {
    EXPECT_EQ(verdict(), DM_REMAP_VALID);
}

TEST_F(BlockVerdict, EveryBitIsUnderTheCrc) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(&block);
    for (unsigned bit = 0; bit < kBlock * 8; bit++) {
        bytes[bit / 8] ^= 1U << bit % 8;
        EXPECT_NE(verdict(), DM_REMAP_VALID) << "bit " << bit;
        bytes[bit / 8] ^= 1U << bit % 8;
    }
}

TEST_F(BlockVerdict, BlankForeignDamaged) {
    dm_remap_disk_block zero{};
    EXPECT_EQ(dm_remap_block_verdict(&zero, DM_REMAP_JOURNAL, &sb, 100), DM_REMAP_BLANK);
    block.header.magic ^= 1;
    EXPECT_EQ(verdict(), DM_REMAP_FOREIGN);
    block.header.magic ^= 1;
    block.entry[125].last_time ^= 1;
    EXPECT_EQ(verdict(), DM_REMAP_DAMAGED);
}

TEST_F(BlockVerdict, OfAnotherPlaceTypeOrSpare) {
    EXPECT_EQ(dm_remap_block_verdict(&block, DM_REMAP_JOURNAL, &sb, 101), DM_REMAP_MISPLACED);
    EXPECT_EQ(dm_remap_block_verdict(&block, DM_REMAP_TABLE, &sb, 100), DM_REMAP_MISPLACED);
    sb.uuid[15] ^= 1;
    EXPECT_EQ(verdict(), DM_REMAP_MISPLACED);
}

TEST_F(BlockVerdict, NewerOrNonsense) {
    block.header.version = 2;
    dm_remap_block_seal(&block, 100);
    EXPECT_EQ(verdict(), DM_REMAP_NEWER);
    block.header.version = DM_REMAP_VERSION;
    block.header.count = DM_REMAP_ENTRIES_PER_BLOCK + 1;
    dm_remap_block_seal(&block, 100);
    EXPECT_EQ(verdict(), DM_REMAP_DAMAGED);
    block.header.count = 1;
    block.header.device_blocks = 5;
    dm_remap_block_seal(&block, 100);
    EXPECT_EQ(verdict(), DM_REMAP_DAMAGED);
}

// Both replicas' copies of a block give one chain value: their places differ, nothing else.
TEST_F(BlockVerdict, ChainValueIsThatOfReplicaZero) {
    dm_remap_block_seal(&block, 100);
    const std::uint32_t crc = block.header.crc;
    EXPECT_EQ(dm_remap_chain_value(&block, 100), crc);
    dm_remap_block_seal(&block, 90'000);
    EXPECT_NE(block.header.crc, crc);
    EXPECT_EQ(dm_remap_chain_value(&block, 100), crc);
    block.entry[3].main ^= 1;
    EXPECT_NE(dm_remap_chain_value(&block, 100), crc);
}

TEST(Names, AreThere) {
    EXPECT_STREQ(dm_remap_verdict_name(DM_REMAP_NEWER), "newer");
    EXPECT_STREQ(dm_remap_kind_name(DM_REMAP_PENDING), "pending");
    EXPECT_STREQ(dm_remap_kind_name(200), "none");
    EXPECT_STREQ(dm_remap_reason_name(DM_REMAP_REASON_RESCUED), "rescued");
    EXPECT_STREQ(dm_remap_reason_name(200), "unknown");
    EXPECT_STREQ(dm_remap_counter_name(DM_REMAP_REFUSED), "refused");
    EXPECT_STREQ(dm_remap_counter_name(200), "unknown");
    EXPECT_STREQ(dm_remap_mode_name(DM_REMAP_MODE_DEGRADED), "degraded");
}

}  // namespace
}  // namespace remap

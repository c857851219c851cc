// Spares that say yes and keep something else: worn out, write-protected inside, or smaller than
// they claim. The kernel's part is played by the tests' disks (sim_disk.h).
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "protocol.h"

namespace remap {
namespace {

// ---- format ----

constexpr std::uint64_t kSizes[] = {1000, 2000, 2048, 4096, 5000, 140'000};

struct Tried {
    int error;
    std::string why;
};

Tried try_format(World& world, const Shape& shape, std::uint8_t uuid = 0x11) {
    dm_remap_report report{};
    dm_remap_format_params p = format_params(shape, uuid);
    const int error = dm_remap_format(&World::kOps, &world, &p, &report);
    return {error, report.refusal != nullptr ? report.refusal : ""};
}

void expect_told(const Tried& tried, const std::string& what) {
    EXPECT_EQ(tried.error, -EIO) << what;
    EXPECT_NE(tried.why.find("does not keep"), std::string::npos) << what << ": " << tried.why;
}

TEST(LyingSpare, FormatTellsOneThatKeepsNothing) {
    auto world = make_world();
    world->spare.drops = [](auto) { return true; };
    expect_told(try_format(*world, {}), "all");
}

// Nor is one taken that has what an earlier format wrote.
TEST(LyingSpare, FormatTellsOneThatKeepsWhatItHad) {
    for (const bool all : {false, true}) {
        auto world = formatted();
        world->spare.drops = [&](auto sector) { return all || sector >= 1024; };
        expect_told(try_format(*world, {}, 0x22), all ? "all" : "half");
    }
}

TEST(LyingSpare, FormatTellsAPartThatIsMissing) {
    for (const std::uint64_t sectors : kSizes) {
        const Shape shape{.spare_sectors = sectors};
        const std::uint64_t blocks = sectors / kBlockSectors;
        for (const std::uint64_t real : {blocks / 2, blocks / 4, blocks * 3 / 4, blocks - 1}) {
            auto world = make_world(shape);
            world->spare.drops = [=](auto sector) { return sector >= real * kBlockSectors; };
            expect_told(try_format(*world, shape), std::to_string(real));
        }
    }
}

// An address that is too large loses its upper bits, or what is beyond begins anew.
TEST(LyingSpare, FormatTellsAPartThatIsAnotherOnceMore) {
    for (const std::uint64_t sectors : kSizes) {
        const Shape shape{.spare_sectors = sectors};
        const std::uint64_t blocks = sectors / kBlockSectors;
        std::uint64_t power = 1;
        while (power * 2 < blocks) {
            power *= 2;
        }
        for (const std::uint64_t real : {blocks / 2, blocks / 4, power, power / 2}) {
            auto world = make_world(shape);
            world->spare.place = [=](auto sector) { return sector % (real * kBlockSectors); };
            expect_told(try_format(*world, shape),
                        std::to_string(real) + " of " + std::to_string(blocks));
        }
    }
}

// It answers from its memory for blocks that it cannot keep, until so many sectors are written.
TEST(LyingSpare, FormatTellsOneThatAnswersFromItsMemory) {
    constexpr std::uint64_t kMemory = 60'000;
    for (const std::uint64_t half : {70'000, 150'000}) {
        const Shape shape{.spare_sectors = 2 * half};
        auto world = make_world(shape);
        std::deque<std::pair<std::uint64_t, std::uint64_t>>
            memory;  // sector, and when it is forgotten
        std::uint64_t now = 0;
        world->spare.after_write = [&](std::uint64_t sector, std::uint32_t n) {
            for (std::uint64_t s = sector; s < sector + n; s++) {
                now++;
                if (s >= half) {
                    memory.emplace_back(s, now + kMemory);
                }
            }
            for (; !memory.empty() && memory.front().second <= now; memory.pop_front()) {
                world->spare.poke(memory.front().first, Image(kSector));
            }
        };
        expect_told(try_format(*world, shape), "half");
    }
}

// Bad blocks are no lie: the spare is taken, and they are retired when they are met.
TEST(LyingSpare, FormatTakesOneWithBadDataBlocks) {
    const Shape shape{.spare_sectors = 8192};
    const dm_remap_layout l = super_at(*formatted(shape), 0).layout;
    for (const bool writes : {false, true}) {
        auto world = make_world(shape);
        SectorSet& bad = writes ? world->spare.bad_write : world->spare.bad_read;
        for (std::uint64_t s = dm_remap_data_start(&l); s < dm_remap_data_end(&l); s += 16) {
            bad.insert(s);
        }
        EXPECT_EQ(try_format(*world, shape).error, 0);
        EXPECT_EQ(try_load(*world).error, 0);
    }
}

// ---- in use ----

// A main all of whose writes to [0, 1000) fail, and which works otherwise.
std::unique_ptr<World> with_bad_main() {
    auto world = formatted({.main_sectors = 4096});
    for (std::uint64_t s = 0; s < 1000; s++) {
        world->main.bad_write.insert(s);
    }
    return world;
}

// A write that main has failed, and it does others well all the time.
int redo_write(Metadata& md, std::uint64_t sector, std::uint64_t seed, std::uint32_t n = 1) {
    Mover mover(md);
    const auto data = pattern(seed, n);
    dm_remap_tried tried{dm_remap_main_failed(md.get(), DM_REMAP_WRITE), n};
    dm_remap_main_worked(md.get(), DM_REMAP_WRITE, INT64_MAX);
    dm_remap_redo_begin(mover.get());
    const int error = dm_remap_redo_write(mover.get(), sector, n, data.data(), &tried);
    const int committed = dm_remap_redo_end(mover.get());
    return error != 0 ? error : committed;
}

bool holds(World& world, Metadata& md, std::uint64_t sector, std::uint64_t seed,
           std::uint32_t n = 1) {
    const auto data = pattern(seed, n);
    for (std::uint32_t i = 0; i < n; i++) {
        const dm_remap_extent e = md.lookup(sector + i);
        if (e.kind != DM_REMAP_MAPPED ||
            std::memcmp(world.spare.peek(e.spare, 1).data(), &data[std::size_t{i} * kSector],
                        kSector) != 0) {
            return false;
        }
    }
    return true;
}

TEST(LyingSpare, PlaceThatDoesNotHoldIsRetired) {
    auto world = with_bad_main();
    auto md = open(*world);
    const std::uint64_t start = dm_remap_data_start(&(*md)->sb.layout);
    world->spare.drops = [=](auto sector) { return sector == start + 1 || sector == start + 4; };
    EXPECT_EQ(redo_write(*md, 100, 7, 4), 0);
    EXPECT_TRUE(holds(*world, *md, 100, 7, 4));
    dm_remap_totals totals{};
    dm_remap_table_totals(&(*md)->retired, &totals);
    EXPECT_EQ(totals.retired, 2U);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    auto again = open(*world);
    EXPECT_TRUE(holds(*world, *again, 100, 7, 4));
}

TEST(LyingSpare, ThatKeepsNothingFailsTheWriteAndMainGoesOn) {
    auto world = with_bad_main();
    auto md = open(*world);
    ASSERT_EQ(redo_write(*md, 100, 7), 0);
    world->spare.drops = [](auto) { return true; };
    EXPECT_EQ(redo_write(*md, 200, 8, 8), -EIO);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(holds(*world, *md, 100, 7));
    dm_remap_totals totals{};
    dm_remap_table_totals(&(*md)->retired, &totals);
    EXPECT_EQ(totals.retired, 0U);
    // A write that main takes when it is asked again.
    world->main.bad_write.erase(300);
    EXPECT_EQ(redo_write(*md, 300, 9), 0);
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records.size(), 1U);
}

TEST(LyingSpare, JournalBlockThatDoesNotHoldIsNoCommit) {
    for (const int end : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        const std::uint64_t at = journal_at(*world, end, (*md)->next_sequence);
        world->spare.drops = [=](auto sector) { return sector / kBlockSectors == at; };
        // Passed by a checkpoint, as a slot that cannot be written is.
        EXPECT_EQ(md->remap(100), 0);
        EXPECT_GT((*md)->sb.journal_start, kFirst);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        const Loaded loaded = try_load(*world);
        EXPECT_EQ(loaded.records, md->records());
        EXPECT_FALSE(loaded.report.one_sided);
    }
}

TEST(LyingSpare, SuperblockThatDoesNotHoldMeansReadOnly) {
    for (const int end : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(100), 0);
        const std::uint64_t at = dm_remap_superblock_at(&(*md)->sb.layout, end);
        world->spare.drops = [=](auto sector) { return sector / kBlockSectors == at; };
        EXPECT_EQ(md->checkpoint(), -EIO);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(try_load(*world).records, md->records());
        world->spare.drops = nullptr;
        EXPECT_EQ(md->checkpoint(), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        EXPECT_FALSE(try_load(*world).report.lagging);
    }
}

TEST(LyingSpare, TableCopyThatDoesNotHoldIsNotNamed) {
    for (const int end : {0, 1}) {
        auto world = formatted();
        auto md = open(*world);
        for (std::uint64_t s = 0; s < 300; s += 2) {
            ASSERT_EQ(md->remap(s), 0);
        }
        // The second block of two.
        const std::uint64_t at =
            dm_remap_table_at(&(*md)->sb.layout, end, (*md)->sb.active_table == 0 ? 1 : 0) + 1;
        world->spare.drops = [=](auto sector) { return sector / kBlockSectors == at; };
        EXPECT_EQ(md->checkpoint(), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_DEGRADED);
        EXPECT_EQ(super_at(*world, 0).table_copies, 1U << (1 - end));
        EXPECT_EQ(try_load(*world).records, md->records());
        // Neither: the one before stays.
        world->spare.drops = [](auto sector) { return sector >= kBlockSectors; };
        EXPECT_NE(md->checkpoint(), 0);
        EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
        EXPECT_EQ(try_load(*world).records, md->records());
    }
}

// The second half begins to drop writes, at each write of some work in turn. All acknowledged
// records are there, and the spare can be loaded, now and when it is used further.
TEST(LyingSpare, HalfThatBeginsToDropWritesLosesNothing) {
    bool finished = false;
    for (std::uint64_t from = 0; !finished; from++) {
        auto world = with_bad_main();
        std::uint64_t done = 0;
        finished = true;
        auto md = open(*world);
        world->spare.after_write = [&](auto, auto) { done++; };
        world->spare.drops = [&](auto sector) {
            const bool drop = done >= from && sector >= 1024;
            finished = finished && !drop;
            return drop;
        };
        std::vector<std::uint64_t> acknowledged;
        const auto write = [&](std::uint64_t sector) {
            if (redo_write(*md, sector, sector) == 0) {
                acknowledged.push_back(sector);
            }
        };
        for (unsigned i = 0; i < 6; i++) {
            write(100 + 10 * i);
            if (i % 2 == 1) {
                dm_remap_save(md->get());
            }
        }
        md->deactivate();
        for (unsigned use = 0; use < 2; use++) {
            md = std::make_unique<Metadata>(*world);
            ASSERT_EQ(md->load(), 0) << from << ": " << md->report.refusal;
            ASSERT_EQ(md->activate(), 0) << from;
            for (const std::uint64_t sector : acknowledged) {
                EXPECT_TRUE(holds(*world, *md, sector, sector)) << from << ", " << sector;
            }
            write(500 + use);
        }
    }
}

// Nobody else's I/O says that main works: a good block is copied, and written with what it holds.
TEST(LyingSpare, ControlCostsACopyAndThreeCommits) {
    auto world = formatted();
    for (std::uint64_t s = 104; s < 112; s++) {
        world->main.bad_write.insert(s);
    }
    auto md = open(*world);
    (*md)->main_block = 8;
    const std::uint64_t writes = world->spare.writes();
    const auto data = pattern(7, 8);
    dm_remap_tried tried{dm_remap_main_failed(md->get(), DM_REMAP_WRITE), 8};
    Mover mover(*md);
    dm_remap_redo_begin(mover.get());
    EXPECT_EQ(dm_remap_redo_write(mover.get(), 104, 8, data.data(), &tried), 0);
    EXPECT_EQ(dm_remap_redo_end(mover.get()), 0);
    // Its own data and record, as always; the copy, a commit before, its record, and its end.
    EXPECT_EQ(world->spare.writes() - writes, 3U + 7U);
}

// The data is read once. A commit reads four blocks, two of them superblocks.
TEST(LyingSpare, ReadBackCostsOneReadOfTheDataAndFourBlocks) {
    auto world = with_bad_main();
    auto md = open(*world);
    (*md)->main_block = 8;
    std::map<std::uint64_t, unsigned> reads;
    std::uint64_t sectors = 0;
    world->spare.on_read = [&](std::uint64_t sector, std::uint32_t n) {
        reads[sector]++;
        sectors += n;
    };
    const std::uint64_t writes = world->spare.writes();
    const std::uint64_t sequence = (*md)->next_sequence;
    ASSERT_EQ(redo_write(*md, 100, 7, 8), 0);
    world->spare.on_read = nullptr;
    EXPECT_EQ(world->spare.writes() - writes, 3U);
    EXPECT_EQ(sectors, 8 + 4 * kBlockSectors);
    const dm_remap_layout& l = (*md)->sb.layout;
    EXPECT_EQ(reads, (std::map<std::uint64_t, unsigned>{
                         {md->lookup(100).spare, 1},
                         {journal_at(*world, 0, sequence) * kBlockSectors, 1},
                         {journal_at(*world, 1, sequence) * kBlockSectors, 1},
                         {dm_remap_superblock_at(&l, 0) * kBlockSectors, 1},
                         {dm_remap_superblock_at(&l, 1) * kBlockSectors, 1},
                     }));
}

// ---- ranges that are mapped already ----

TEST(LyingSpare, WritesToMappedRangesAreReadBackOnDemand) {
    auto world = with_bad_main();
    auto md = open(*world);
    ASSERT_EQ(redo_write(*md, 100, 7, 8), 0);
    const std::uint64_t place = md->lookup(100).spare;
    world->spare.drops = [=](auto sector) { return sector == place + 2; };
    dm_remap_extent e{};
    const auto way = [&] { return dm_remap_find_way(md->get(), DM_REMAP_IO_WRITE, 100, 8, &e); };
    EXPECT_EQ(way(), DM_REMAP_WAY_SPARE);
    (*md)->policy.verify_spare_writes = true;
    EXPECT_EQ(way(), DM_REMAP_WAY_WORKER);
    Mover mover(*md);
    const auto data = pattern(8, 8);
    dm_remap_redo_begin(mover.get());
    EXPECT_EQ(dm_remap_redo_write(mover.get(), 100, 8, data.data(), nullptr), 0);
    EXPECT_EQ(dm_remap_redo_end(mover.get()), 0);
    EXPECT_TRUE(holds(*world, *md, 100, 8, 8));
    dm_remap_totals totals{};
    dm_remap_table_totals(&(*md)->retired, &totals);
    EXPECT_EQ(totals.retired, 1U);
    auto again = open(*world);
    EXPECT_TRUE(holds(*world, *again, 100, 8, 8));
}

// No other place holds it, either: an error, and what is recorded stays.
TEST(LyingSpare, WriteToAMappedRangeThatHoldsNowhereFails) {
    auto world = with_bad_main();
    auto md = open(*world);
    ASSERT_EQ(redo_write(*md, 100, 7, 8), 0);
    (*md)->policy.verify_spare_writes = true;
    world->spare.drops = [](auto) { return true; };
    EXPECT_EQ(redo_write(*md, 100, 8, 8), -EIO);
    EXPECT_TRUE(holds(*world, *md, 100, 7, 8));
    EXPECT_EQ(try_load(*world).records, md->records());
}

// The same bytes once more are what the spare has.
TEST(LyingSpare, WriteOfWhatIsThereAlreadyHolds) {
    auto world = with_bad_main();
    auto md = open(*world);
    ASSERT_EQ(redo_write(*md, 100, 7, 8), 0);
    (*md)->policy.verify_spare_writes = true;
    world->spare.drops = [](auto) { return true; };
    EXPECT_EQ(redo_write(*md, 100, 7, 8), 0);
}

}  // namespace
}  // namespace remap

// Soft pending records: known in memory, and on the disk with the next commit.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <map>

#include "rig.h"

namespace remap {
namespace {

int add(Metadata& md, std::uint64_t start, std::uint64_t length = 1) {
    return dm_remap_pending_add(md.get(), start, length, DM_REMAP_REASON_READ_ERROR);
}

Record pending_at(std::uint64_t start, std::uint64_t length = 1) {
    return {DM_REMAP_PENDING, start, 0, length};
}

// @n entries that the rest of a test does not care about.
std::vector<dm_remap_record> filling(unsigned n) {
    std::vector<dm_remap_record> entries;
    for (unsigned i = 0; i < n; i++) {
        entries.push_back(pending(40'000 + 2 * i));
    }
    return entries;
}

// Records and counters in the block of the last commit.
std::size_t last_count(World& world, Metadata& md) {
    return block_at(world, journal_at(world, 0, md->next_sequence - 1)).header.count;
}

// ---- how they get to the disk ----

TEST(Soft, RideInTheNextCommit) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t writes = world->spare.writes();
    ASSERT_EQ(add(*md, 1000, 8), 0);
    ASSERT_EQ(add(*md, 2000), 0);
    EXPECT_EQ(world->spare.writes(), writes);
    EXPECT_EQ(md->records(), (Records{pending_at(1000, 8), pending_at(2000)}));
    EXPECT_TRUE(dm_remap_dirty(md->get()));

    ASSERT_EQ(md->remap(5), 0);
    EXPECT_EQ(world->spare.writes(), writes + 3);  // the data, and one block on both replicas
    EXPECT_EQ(last_count(*world, *md), 3U);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(try_load(*world).records, md->records());
    // Once.
    ASSERT_EQ(md->remap(7), 0);
    EXPECT_EQ(last_count(*world, *md), 1U);
}

TEST(Soft, AreLostAtACrashBeforeThat) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(5), 0);
    const Records durable = md->records();
    ASSERT_EQ(add(*md, 1000, 8), 0);
    EXPECT_EQ(try_load(*world).records, durable);
}

TEST(Soft, TakeOneJournalBlockOfAnAutosave) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000, 8), 0);
    const std::uint64_t writes = world->spare.writes();
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(world->spare.writes(), writes + 2);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(try_load(*world).records, md->records());
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(world->spare.writes(), writes + 2);
}

// What comes while the checkpoint is written is not in its table, and is still to be saved.
TEST(Soft, AreKeptByACheckpointAsFarAsItsTableHasThem) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000, 8), 0);
    world->spare.after_write = [&](auto, auto) {
        if ((*md)->writing) {
            ASSERT_EQ(add(*md, 2000), 0);
            world->spare.after_write = nullptr;
        }
    };
    ASSERT_EQ(md->checkpoint(), 0);
    EXPECT_EQ(md->records().size(), 2U);
    EXPECT_EQ(try_load(*world).records, (Records{pending_at(1000, 8)}));
    EXPECT_TRUE(dm_remap_dirty(md->get()));
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
    EXPECT_EQ(last_count(*world, *md), DM_REMAP_NR_COUNTERS + 1U);
}

// A commit during the checkpoint carries them further than the snapshot did.
TEST(Soft, ACheckpointTakesNothingBackThatACommitMadeDurable) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000), 0);
    world->spare.after_write = [&](auto, auto) {
        if ((*md)->writing) {
            world->spare.after_write = nullptr;
            ASSERT_EQ(add(*md, 2000), 0);
            ASSERT_EQ(md->remap(5), 0);
        }
    };
    ASSERT_EQ(md->checkpoint(), 0);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST(Soft, AreKeptByAnOrderlyStop) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000, 8), 0);
    ASSERT_EQ(md->deactivate(), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST(Soft, OutliveAStopThatFailed) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000, 8), 0);
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_NE(md->deactivate(), 0);
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
    EXPECT_EQ(md->records().size(), 1U);
    EXPECT_EQ(dm_remap_autosave(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// Whether they got there with a commit that failed is not known: they stay soft.
TEST(Soft, StaySoftWhenTheirCommitFails) {
    for (bool for_good : {false, true}) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(add(*md, 1000, 8), 0);
        const std::uint64_t failing = world->spare.writes() + 1;
        world->spare.on_write = [&](auto n, auto, auto) {
            return n == failing || (for_good && n > failing) ? -EIO : 0;
        };
        EXPECT_EQ(md->commit({pending(5)}) == 0, !for_good);
        world->spare.on_write = nullptr;
        EXPECT_EQ(dm_remap_dirty(md->get()), for_good);
        EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 1000));
        EXPECT_EQ(dm_remap_autosave(md->get()), 0);
        EXPECT_FALSE(dm_remap_dirty(md->get()));
        EXPECT_EQ(try_load(*world).records, md->records());
    }
}

// ---- beside the entries of a commit ----

TEST(Soft, WhatTheCommitSaysHolds) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000, 16), 0);
    const std::uint64_t spare = md->take(4);
    ASSERT_EQ(md->commit({mapped(1004, spare, 4), clear(1010, 2)}), 0);
    const Records expected = {pending_at(1000, 4),
                              {DM_REMAP_MAPPED, 1004, spare, 4},
                              pending_at(1008, 2),
                              pending_at(1012, 4)};
    EXPECT_EQ(md->records(), expected);
    EXPECT_EQ(try_load(*world).records, expected);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
}

// No room beside the entries, so what was soft before them is carried by a later block: only what
// of it is pending still. Later is too late for a record that has been replaced, or dropped.
TEST(Soft, StaleOnesNeverOverrideWhatCameLater) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000, 16), 0);
    const std::uint64_t spare = md->take(4);
    std::vector<dm_remap_record> full = filling(124);
    full.push_back(mapped(1004, spare, 4));
    full.push_back(clear(1010, 2));
    ASSERT_EQ(md->commit(full), 0);
    EXPECT_TRUE(dm_remap_dirty(md->get()));
    // A crash here loses what is soft, and nothing else.
    Records durable = try_load(*world).records;
    EXPECT_EQ(durable.size(), 125U);
    EXPECT_EQ(durable[0], (Record{DM_REMAP_MAPPED, 1004, spare, 4}));

    ASSERT_EQ(md->commit({pending(2000)}), 0);
    EXPECT_EQ(last_count(*world, *md), 4U);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    const Records all = try_load(*world).records;
    EXPECT_EQ(all, md->records());
    EXPECT_EQ(Records(all.begin(), all.begin() + 4), (Records{pending_at(1000, 4),
                                                              {DM_REMAP_MAPPED, 1004, spare, 4},
                                                              pending_at(1008, 2),
                                                              pending_at(1012, 4)}));
}

// All of a soft range is something else by now: nothing is written for it.
TEST(Soft, RangeThatIsNotPendingAnyMoreIsPassed) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(add(*md, 1000, 4), 0);
    std::vector<dm_remap_record> full = filling(125);
    full.push_back(clear(1000, 4));
    ASSERT_EQ(md->commit(full), 0);
    EXPECT_TRUE(dm_remap_dirty(md->get()));
    ASSERT_EQ(md->commit({pending(2000)}), 0);
    EXPECT_EQ(last_count(*world, *md), 1U);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(try_load(*world).records, md->records());
}

// More pieces than a block has room for: each commit goes on where the one before had to stop.
TEST(Soft, RangeInManyPiecesTakesSeveralCommits) {
    auto world = formatted();
    auto md = open(*world);
    for (unsigned half : {0U, 1U}) {
        std::vector<dm_remap_record> holes;
        for (unsigned i = 0; i < 75; i++) {
            holes.push_back(mapped(1001 + 2 * (75 * half + i), md->take()));
        }
        ASSERT_EQ(md->commit(holes), 0);
    }
    const std::size_t before = md->records().size();
    ASSERT_EQ(add(*md, 1000, 301), 0);
    ASSERT_EQ(add(*md, 3000), 0);
    EXPECT_EQ(md->records().size(), before + 152);

    constexpr std::size_t kRoom = DM_REMAP_ENTRIES_PER_BLOCK - DM_REMAP_NR_COUNTERS;
    ASSERT_EQ(dm_remap_soft_commit(md->get()), 0);
    EXPECT_EQ(last_count(*world, *md), DM_REMAP_ENTRIES_PER_BLOCK);
    EXPECT_EQ(try_load(*world).records.size(), before + kRoom);
    EXPECT_TRUE(dm_remap_dirty(md->get()));
    ASSERT_EQ(dm_remap_soft_commit(md->get()), 0);
    EXPECT_EQ(last_count(*world, *md), 152 - kRoom + DM_REMAP_NR_COUNTERS);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(try_load(*world).records, md->records());
}

// ---- the ring of ranges ----

TEST(Soft, FullRingIsCommittedFirst) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t writes = world->spare.writes();
    for (unsigned i = 0; i < DM_REMAP_SOFT_RANGES; i++) {
        ASSERT_EQ(add(*md, 1000 + 2 * i), 0);
    }
    EXPECT_EQ(world->spare.writes(), writes);
    ASSERT_EQ(add(*md, 5000), 0);
    EXPECT_EQ(world->spare.writes(), writes + 2);
    EXPECT_EQ(try_load(*world).records.size(), DM_REMAP_SOFT_RANGES + 0U);
    EXPECT_EQ(md->records().size(), DM_REMAP_SOFT_RANGES + 1U);
    // And round it.
    for (unsigned i = 0; i < 3 * DM_REMAP_SOFT_RANGES; i++) {
        ASSERT_EQ(add(*md, 10'000 + 2 * i), 0);
    }
    ASSERT_EQ(dm_remap_soft_commit(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
    EXPECT_EQ(md->records().size(), 4 * DM_REMAP_SOFT_RANGES + 1U);
}

TEST(Soft, FullRingThatCannotBeCommittedTakesNoMore) {
    auto world = formatted();
    auto md = open(*world);
    for (unsigned i = 0; i < DM_REMAP_SOFT_RANGES; i++) {
        ASSERT_EQ(add(*md, 1000 + 2 * i), 0);
    }
    const Records before = md->records();
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_NE(add(*md, 5000), 0);
    EXPECT_EQ(md->records(), before);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, before);
    EXPECT_EQ(add(*md, 5000), 0);
}

// ---- what is recorded, and what not ----

TEST(Soft, WhatHasARecordKeepsIt) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(1004, 4), 0);
    const std::uint64_t spare = md->lookup(1004).spare;
    ASSERT_EQ(add(*md, 1000, 12), 0);
    const Records expected = {
        pending_at(1000, 4), {DM_REMAP_MAPPED, 1004, spare, 4}, pending_at(1008, 4)};
    EXPECT_EQ(md->records(), expected);
    ASSERT_EQ(dm_remap_soft_commit(md->get()), 0);
    EXPECT_EQ(try_load(*world).records, expected);

    // All of it known: nothing to tell, and nothing to write.
    world->notes.clear();
    ASSERT_EQ(add(*md, 1000, 12), 0);
    EXPECT_TRUE(world->notes.empty());
    EXPECT_FALSE(dm_remap_dirty(md->get()));
}

TEST(Soft, ARangeInDoubtIsLeftAlone) {
    auto world = formatted();
    auto md = open(*world);
    dm_remap_update u{};
    dm_remap_update_init(&u);
    ASSERT_EQ(dm_remap_update_flags(&(*md)->table, &u, 1004, 4, DM_REMAP_F_DOUBT, 0), 0);
    dm_remap_update_publish(&(*md)->table, &u);
    ASSERT_EQ(add(*md, 1000, 12), 0);
    EXPECT_EQ(md->records(), (Records{pending_at(1000, 4), pending_at(1008, 4)}));
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 1004));
}

TEST(Soft, WhatLoadWouldRefuseIsNotTaken) {
    auto world = formatted({.granularity = 8});
    auto md = open(*world);
    const std::uint64_t sectors = world->main.sectors();
    EXPECT_EQ(add(*md, 1001, 8), -EINVAL);
    EXPECT_EQ(add(*md, 1000, 4), -EINVAL);
    EXPECT_EQ(add(*md, 1000, 0), -EINVAL);
    EXPECT_EQ(add(*md, sectors, 8), -EINVAL);
    EXPECT_EQ(add(*md, sectors - 8, 16), -EINVAL);
    EXPECT_EQ(add(*md, 1000, (1ULL << 32) + 8), -EINVAL);
    EXPECT_EQ(dm_remap_pending_add(md->get(), 1000, 8, 0), -EINVAL);
    EXPECT_TRUE(md->records().empty());
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    EXPECT_EQ(add(*md, sectors - 8, 8), 0);
}

TEST(Soft, NothingIsTakenWhereNothingCouldBeSaved) {
    auto world = formatted();
    auto md = open(*world);
    ASSERT_EQ(md->remap(5), 0);
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    EXPECT_NE(md->checkpoint(), 0);
    ASSERT_EQ((*md)->mode, DM_REMAP_MODE_RO);
    EXPECT_EQ(add(*md, 1000), -EROFS);
    EXPECT_EQ(dm_remap_soft_commit(md->get()), -EROFS);
    EXPECT_EQ(md->records().size(), 1U);
    EXPECT_FALSE(dm_remap_dirty(md->get()));
    world->spare.on_write = nullptr;
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ(md->deactivate(), 0);
    EXPECT_EQ(add(*md, 1000), -EROFS);
    EXPECT_EQ(md->records().size(), 1U);
}

// All of a range or nothing; and there is always room left for what clearing may split.
TEST(Soft, LeaveRoomInTheTable) {
    auto world = formatted();
    auto md = open(*world);
    const std::uint64_t promised = dm_remap_max_records(&(*md)->sb.layout);
    std::uint64_t n = 0;
    int ret = 0;
    while ((ret = add(*md, 1000 + 16 * n, 3)) == 0) {
        n++;
    }
    EXPECT_EQ(ret, -ENOSPC);
    EXPECT_GE(n, promised);
    EXPECT_EQ(md->records().size(), n);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    // In more pieces than there is room for: none of them. In as many as there is: all.
    for (unsigned i = 0; i < 10; i++) {
        ASSERT_EQ(md->commit({clear(1000 + 16 * i, 3)}), 0);
    }
    const Records before = md->records();
    EXPECT_EQ(add(*md, 1000, 16 * n), -ENOSPC);
    EXPECT_EQ(md->records(), before);
    EXPECT_EQ(add(*md, 1000, 3), 0);

    for (std::uint64_t i = 10; i < 200; i++) {
        ASSERT_EQ(md->commit({clear(1001 + 16 * i)}), 0) << i;
    }
    ASSERT_EQ(md->checkpoint(), 0);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// ---- memory ----

// What is not recorded for want of memory leaves no trace, and goes the next time.
TEST(Soft, NoMemory) {
    for (unsigned full : {0U, 1U}) {
        for (std::uint64_t n = 0;; n++) {
            SCOPED_TRACE(n);
            auto world = formatted();
            auto md = open(*world);
            ASSERT_EQ(md->remap(8190), 0);
            for (unsigned i = 0; i < full * DM_REMAP_SOFT_RANGES; i++) {
                ASSERT_EQ(add(*md, 20'000 + 2 * i), 0);
            }
            const Records before = md->records();
            bool happened = false;
            int ret = 0;
            {
                FailAllocation fail(n);
                ret = add(*md, 8185, 20);  // in three pieces of two regions
                happened = fail.happened();
            }
            EXPECT_EQ(ret, happened ? -ENOMEM : 0);
            if (ret != 0) {
                EXPECT_EQ(md->records(), before);
                EXPECT_EQ(add(*md, 8185, 20), 0);
            }
            EXPECT_EQ(md->records().size(), before.size() + 2);
            EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
            ASSERT_EQ(dm_remap_soft_commit(md->get()), 0);
            EXPECT_EQ(try_load(*world).records, md->records());
            if (!happened) {
                break;
            }
        }
    }
}

TEST(Soft, NoMemoryForTheCommitLeavesThemSoft) {
    for (std::uint64_t n = 0;; n++) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(add(*md, 1000, 8), 0);
        const Records before = md->records();
        bool happened = false;
        int ret = 0;
        {
            FailAllocation fail(n);
            ret = dm_remap_soft_commit(md->get());
            happened = fail.happened();
        }
        EXPECT_EQ(ret, happened ? -ENOMEM : 0);
        EXPECT_EQ(dm_remap_dirty(md->get()), ret != 0);
        EXPECT_EQ(dm_remap_soft_commit(md->get()), 0);
        EXPECT_EQ(try_load(*world).records, before);
        if (!happened) {
            break;
        }
    }
}

// ---- any history ----

constexpr std::uint64_t kBase = 8192 - 150;  // the edge of a region is among what is played with
constexpr std::uint64_t kSpan = 300;

std::map<std::uint64_t, Record> by_sector(const Records& records) {
    std::map<std::uint64_t, Record> all;
    for (const Record& r : records) {
        for (std::uint64_t i = 0; r.kind != DM_REMAP_RETIRED && i < r.length; i++) {
            const std::uint64_t spare = r.kind == DM_REMAP_MAPPED ? r.spare + i : 0;
            all[r.main + i] = {r.kind, r.main + i, spare, 1};
        }
    }
    return all;
}

// What is on the disk is what memory has, but for soft records: those may be missing, and then
// there is nothing in their place.
void expect_only_soft_missing(World& world, Metadata& md) {
    const Loaded loaded = try_load(world);
    RC_ASSERT(loaded.error == 0);
    const auto disk = by_sector(loaded.records);
    const auto memory = by_sector(md.records());
    for (const auto& [sector, r] : disk) {
        RC_ASSERT(memory.contains(sector) && memory.at(sector) == r);
    }
    for (const auto& [sector, r] : memory) {
        RC_ASSERT(disk.contains(sector) || r.kind == DM_REMAP_PENDING);
    }
    RC_ASSERT(disk == memory || dm_remap_dirty(md.get()));
}

std::vector<dm_remap_record> any_entries(Metadata& md) {
    std::vector<dm_remap_record> entries;
    std::uint64_t at = kBase;
    // Some leave no room for soft records, some little.
    const auto fill = *rc::gen::element(0U, 0U, 110U, 118U);
    for (unsigned i = 0; i < fill; i++) {
        entries.push_back(clear(40'000 + 2 * i));
    }
    for (auto n = *rc::gen::inRange(1, 9); n > 0 && at + 20 < kBase + kSpan; n--) {
        at += *rc::gen::inRange(0, 60);
        const auto length = *rc::gen::inRange<std::uint32_t>(1, 5);
        const bool map = *rc::gen::arbitrary<bool>();
        entries.push_back(map ? mapped(at, md.take(length), length) : clear(at, length));
        at += length;
    }
    return entries;
}

RC_GTEST_PROP(SoftModel, DiskMissesSoftRecordsAlone, ()) {
    auto world = formatted({.spare_sectors = 8192});
    auto md = open(*world);
    for (int steps = *rc::gen::inRange(1, 60); steps > 0; steps--) {
        switch (*rc::gen::inRange(0, 10)) {
            case 0:
                RC_ASSERT(dm_remap_soft_commit(md->get()) == 0);
                break;
            case 1:
                RC_ASSERT(md->checkpoint() == 0);
                RC_ASSERT(!dm_remap_dirty(md->get()));
                break;
            case 2:
            case 3:
            case 4:
                RC_ASSERT(md->commit(any_entries(*md)) == 0);
                break;
            default: {
                const auto at = *rc::gen::inRange<std::uint64_t>(0, kSpan);
                const auto length = *rc::gen::inRange<std::uint64_t>(1, 60);
                RC_ASSERT(add(*md, kBase + at, std::min(length, kSpan - at)) == 0);
            }
        }
        expect_only_soft_missing(*world, *md);
    }
    for (unsigned i = 0; i < 4 && dm_remap_dirty(md->get()); i++) {
        RC_ASSERT(dm_remap_soft_commit(md->get()) == 0);
    }
    RC_ASSERT(!dm_remap_dirty(md->get()));
    RC_ASSERT(try_load(*world).records == md->records());
}

}  // namespace
}  // namespace remap

// What becomes of a commit that failed and may be on the disk all the same, where more goes on than
// that: a checkpoint, a stop, lack of memory.
#include <gtest/gtest.h>

#include <optional>

#include "rig.h"

namespace remap {
namespace {

class Doubt : public ::testing::Test {
  protected:
    std::uint64_t free_sectors() { return dm_remap_alloc_free_sectors(&(*md)->alloc); }

    void fail_commit(const std::vector<dm_remap_record>& entries) {
        world->spare.on_write = [](auto, auto, auto) { return -EIO; };
        ASSERT_EQ(md->commit(entries), -EUCLEAN);
        world->spare.on_write = nullptr;
    }
    // The checkpoint has settled it, but there was no memory to take the flags back.
    void leave_over(const std::vector<dm_remap_record>& entries) {
        fail_commit(entries);
        std::optional<FailAllocation> fail;
        world->spare.after_write = [&](std::uint64_t sector, auto) {
            if (sector == 0 && (*md)->writing) {  // superblock 0 is its last write
                fail.emplace(0);
            }
        };
        ASSERT_EQ(dm_remap_save(md->get()), 0);
        world->spare.after_write = nullptr;
        ASSERT_TRUE(fail && fail->happened());
        ASSERT_EQ((*md)->mode, DM_REMAP_MODE_RW);
        ASSERT_TRUE(md->flagged(DM_REMAP_F_DOUBT, entries.front().main));
    }

    std::unique_ptr<World> world = formatted();
    std::unique_ptr<Metadata> md = open(*world);
};

// A record was to get another place, and its old one to be retired. It keeps the old one, which
// nobody else may get; the new one, and a bad place on the way to it, are given back.
TEST_F(Doubt, RecordThatWasToMoveKeepsItsPlace) {
    const std::uint64_t below = md->take(4);
    const std::uint64_t own = md->take(4);
    const std::uint64_t above = md->take(4);
    ASSERT_EQ(md->commit({mapped(50, below, 4), pending(60), mapped(70, above, 4)}), 0);
    ASSERT_EQ(md->commit({mapped(100, own, 4)}), 0);
    const Records before = md->records();
    const std::uint64_t free = free_sectors();

    const std::uint64_t failed = md->take(1);
    fail_commit({retired(failed), mapped(101, md->take(1)), retired(own + 1)});
    EXPECT_EQ(free_sectors(), free - 2);
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(free_sectors(), free);
    EXPECT_EQ(md->records(), before);
    for (std::uint64_t left = free; left != 0; left--) {
        const std::uint64_t place = md->take(1);
        EXPECT_FALSE(place >= below && place < above + 4) << place;
    }
}

// A checkpoint that began before the commit says nothing of it.
TEST_F(Doubt, StandsWhereTheCheckpointBeganBefore) {
    bool begun = false;
    bool failing = false;
    world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
        if (!begun && (*md)->writing) {
            begun = failing = true;
            EXPECT_EQ(md->remap(100), -EUCLEAN);
            failing = false;
        }
        if (failing && sector < dm_remap_data_start(&(*md)->sb.layout)) {
            // Its next try would wait for this checkpoint, and here there is one thread.
            (*md)->mode = DM_REMAP_MODE_RO;
            return -EIO;
        }
        return 0;
    };
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    world->spare.on_write = nullptr;
    ASSERT_TRUE(begun);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(try_load(*world).records, md->records());
}

// Who commits finds that a stop came between two of its tries. That has settled the doubt, so the
// place on the spare is still his to give back.
TEST_F(Doubt, SettledByAStopMeanwhileIsNone) {
    const std::uint64_t free = free_sectors();
    const std::uint64_t journal = journal_at(*world, 0, (*md)->next_sequence) * kBlockSectors;
    world->spare.bad_write.insert(journal);
    world->spare.after_write = [&](std::uint64_t sector, auto) {
        if (sector == 0 && (*md)->writing) {
            (*md)->active = false;
        }
    };
    const std::uint64_t place = md->take();
    EXPECT_EQ(md->commit({mapped(100, place)}), -EROFS);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(free_sectors(), free - 1);
    EXPECT_TRUE(try_load(*world).records.empty());
}

// No memory to take the flags back: the next activation does it, with a checkpoint of its own.
TEST_F(Doubt, LeftOverIsSettledByTheNextActivation) {
    const std::uint64_t free = free_sectors();
    leave_over({mapped(100, md->take())});
    ASSERT_EQ(md->deactivate(), 0);
    ASSERT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_EQ(free_sectors(), free);
}

// Is the record still there, or is it gone on the disk? Until that is known it does not go home.
TEST_F(Doubt, RecordIsNotBroughtHome) {
    ASSERT_EQ(md->remap(100), 0);
    const Records before = md->records();
    leave_over({clear(100)});
    const std::uint64_t writes = world->main.writes();
    dm_remap_moved moved{};
    EXPECT_EQ(dm_remap_unremap(md->get(), 96, 16, &moved), -EUCLEAN);
    ASSERT_NE(moved.why, nullptr);
    EXPECT_NE(std::string(moved.why).find("save must succeed"), std::string::npos);
    EXPECT_EQ(world->main.writes(), writes);
    EXPECT_EQ(md->records(), before);
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(dm_remap_unremap(md->get(), 96, 16, &moved), 0);
    EXPECT_TRUE(md->records().empty());
}

// Where there is no record, there may be one on the spare: not all of the range is home then.
TEST_F(Doubt, RangeIsNotSkippedOnTheWayHome) {
    ASSERT_EQ(md->remap(3000), 0);
    leave_over({mapped(100, md->take())});
    dm_remap_moved moved{};
    EXPECT_EQ(dm_remap_unremap(md->get(), 0, 4096, &moved), -EUCLEAN);
    EXPECT_EQ(moved.moved, 0U);
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_EQ(dm_remap_unremap(md->get(), 0, 4096, &moved), 0);
    EXPECT_EQ(moved.moved, 1U);
}

// What is loaded in doubt takes memory, too: without it there is no load. On either replica.
TEST_F(Doubt, LoadedTakesMemory) {
    for (int holder : {0, 1}) {
        world = formatted();
        md = open(*world);
        const std::uint64_t sequence = (*md)->next_sequence;
        const std::uint64_t journal[] = {journal_at(*world, 0, sequence) * kBlockSectors,
                                         journal_at(*world, 1, sequence) * kBlockSectors};
        // Replica 1 says no to the commit, and has it; one of the two does not take its withdrawal;
        // and superblock 0 does not hear of the checkpoint behind it.
        unsigned writes[] = {0, 0};
        world->spare.on_write = [&](auto, std::uint64_t sector, auto) {
            const bool commit = sector == journal[1] && writes[1] == 0;
            world->spare.failed_writes_land = commit;
            for (int r : {0, 1}) {
                if (sector == journal[r] && writes[r]++ == 1 && r == holder) {
                    return -EIO;
                }
            }
            return commit || sector == 0 ? -EIO : 0;
        };
        ASSERT_EQ(md->remap(100, 8), -EUCLEAN);
        world->spare.on_write = nullptr;
        ASSERT_TRUE(try_load(*world).report.lagging);
        for (std::uint64_t n = 0;; n++) {
            md->unload();
            FailAllocation fail(n);
            const int error = md->load();
            EXPECT_EQ(error, fail.happened() ? -ENOMEM : 0) << holder << ", " << n;
            if (!fail.happened()) {
                EXPECT_NE((*md)->doubt, nullptr) << holder;
                break;
            }
        }
    }
}

// What a load that failed had found in doubt is forgotten with it: the next one finds it again.
TEST_F(Doubt, IsForgottenWithALoadThatFailed) {
    ASSERT_EQ(md->remap(100), 0);
    const std::uint64_t last = (*md)->next_sequence - 1;
    md.reset();
    zero_block(*world, journal_at(*world, 0, last));
    Metadata loaded(*world);
    int error = -ENOMEM;
    for (std::uint64_t n = 0; error != 0; n++) {
        const FailAllocation fail(n);
        error = loaded.load();
        ASSERT_EQ(error, fail.happened() ? -ENOMEM : 0) << n;
        ASSERT_EQ(loaded->doubt == nullptr, error != 0) << n;
    }
    ASSERT_EQ(loaded.activate(), 0);
    EXPECT_EQ(loaded.lookup(100).kind, DM_REMAP_MAPPED);
}

}  // namespace
}  // namespace remap

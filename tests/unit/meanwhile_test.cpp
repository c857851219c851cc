// What comes while a checkpoint is being written, or a commit: commits, those that fail among them,
// and counts.
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "rig.h"

namespace remap {
namespace {

class Meanwhile : public ::testing::Test {
  protected:
    // With a record the table has a block.
    void SetUp() override { ASSERT_EQ(md->remap(50), 0); }

    // Calls @what once, in the midst of the next checkpoint: it writes its table, and no lock that
    // others want is held.
    void during_checkpoint(std::function<void()> what) {
        world->spare.on_write = [this, what = std::move(what)](auto, auto sector, auto) {
            if ((*md)->writing && !(*md)->commit_lock.held && !(*md)->super_lock.held && !begun) {
                begun = true;
                what();
            }
            return fails && fails(sector) ? -EIO : 0;
        };
    }
    // The next commit fails, and does not wait for the checkpoint that it is in the midst of: here
    // there is one thread.
    void fail_commit(const std::function<int()>& commit) {
        fails = [this](auto sector) {
            const bool journal = sector < dm_remap_table_at(&layout, 0, 0) * kBlockSectors;
            (*md)->mode = journal ? DM_REMAP_MODE_RO : (*md)->mode;
            return journal;
        };
        EXPECT_EQ(commit(), -EUCLEAN);
        fails = nullptr;
    }

    std::unique_ptr<World> world = formatted();
    std::unique_ptr<Metadata> md = open(*world);
    const dm_remap_layout layout = (*md)->sb.layout;
    bool begun = false;
    std::function<bool(std::uint64_t)> fails;
};

// A commit failed while the checkpoint was written: that one does not pass it, so the next commit
// waits for another one.
TEST_F(Meanwhile, CommitThatFailedIsPassedByTheNextCheckpoint) {
    during_checkpoint([&] { fail_commit([&] { return md->remap(100); }); });
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    ASSERT_TRUE(begun);
    EXPECT_TRUE((*md)->burnt);
    ASSERT_EQ(md->remap(200), 0);
    EXPECT_FALSE((*md)->burnt);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records, md->records());
    EXPECT_EQ(loaded.records.size(), 2U);
}

// Of two commits that failed both are in doubt until a checkpoint starts behind the later one.
TEST_F(Meanwhile, CommitThatFailedIsInDoubtBesideTheOneBefore) {
    world->spare.on_write = [](auto, auto, auto) { return -EIO; };
    ASSERT_EQ(md->remap(100), -EUCLEAN);
    during_checkpoint([&] {
        // As if there were memory again for the flags, and none before.
        (*md)->mode = DM_REMAP_MODE_RW;
        (*md)->burnt = false;
        fail_commit([&] { return md->remap(200); });
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 100));
        EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 200));
    });
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    ASSERT_TRUE(begun);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 100));
    EXPECT_TRUE(md->flagged(DM_REMAP_F_DOUBT, 200));
    world->spare.on_write = nullptr;
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    EXPECT_FALSE(md->flagged(DM_REMAP_F_DOUBT, 200));
    EXPECT_EQ(dm_remap_alloc_free_sectors(&(*md)->alloc),
              dm_remap_alloc_total_sectors(&(*md)->alloc) - 1);
    EXPECT_EQ(try_load(*world).records.size(), 1U);
}

// The checkpoint's journal start is behind a commit that came meanwhile, and the witness has told
// of that one.
TEST_F(Meanwhile, WitnessIsNotLowered) {
    during_checkpoint([&] {
        ASSERT_EQ(md->remap(100), 0);
        EXPECT_EQ((*md)->witness.sequence, (*md)->next_sequence);
    });
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    ASSERT_TRUE(begun);
    EXPECT_LT((*md)->sb.journal_start, (*md)->next_sequence);
    EXPECT_EQ((*md)->witness.sequence, (*md)->next_sequence);
}

// What is counted while counters are made durable is still to be made durable.
TEST_F(Meanwhile, CountsAreNotTakenForSaved) {
    const std::pair<const char*, std::function<int()>> works[] = {
        {"checkpoint", [this] { return dm_remap_save(md->get()); }},
        {"commit", [this] { return dm_remap_soft_commit(md->get()); }},
    };
    std::uint64_t counted = 0;
    for (const auto& [name, work] : works) {
        SCOPED_TRACE(name);
        bool more = false;
        world->spare.on_write = [&](auto, auto, auto) {
            if (!std::exchange(more, true)) {
                dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, 1);
            }
            return 0;
        };
        dm_remap_count(md->get(), DM_REMAP_READ_ERRORS, 1);
        ASSERT_EQ(work(), 0);
        counted += 2;
        EXPECT_TRUE(dm_remap_dirty(md->get()));
        ASSERT_EQ(dm_remap_autosave(md->get()), 0);
        EXPECT_FALSE(dm_remap_dirty(md->get()));
        Metadata again(*world);
        ASSERT_EQ(again.load(), 0);
        EXPECT_EQ(atomic64_read(&again->counter[DM_REMAP_READ_ERRORS]), counted);
    }
}

// A commit looks at the superblocks, and finds that one of them has gone back to an earlier one.
// Before the checkpoint writes the next generation to the other end it puts that right.
TEST_F(Meanwhile, SuperblockThatACommitFindsOldIsWrittenBeforeTheNext) {
    const Image image = world->spare.image();
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    const std::uint64_t tail = dm_remap_superblock_at(&layout, 1) * kBlockSectors;
    during_checkpoint([&] {
        world->spare.poke(0, std::span(image).first(kBlock));
        world->spare.on_read = [&](std::uint64_t sector, auto) {
            // Its next try would wait for the checkpoint.
            (*md)->mode = sector == tail ? DM_REMAP_MODE_RO : (*md)->mode;
        };
        EXPECT_EQ(md->remap(100), -EUCLEAN);
        world->spare.on_read = nullptr;
        EXPECT_EQ((*md)->sb_holders, 2);
    });
    // The power goes when superblock 1 has the next generation.
    const std::uint64_t generation = (*md)->sb.generation;
    world->spare.after_write = [&](std::uint64_t sector, auto) {
        if (sector == tail && super_at(*world, 1).generation > generation) {
            world->spare.power_off();
        }
    };
    EXPECT_NE(dm_remap_save(md->get()), 0);
    ASSERT_TRUE(begun);
    ASSERT_FALSE(world->spare.is_on());
    world->spare.after_write = nullptr;
    world->spare.on_write = nullptr;
    world->spare.power_on([](auto, auto) { return false; });
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
}

// A removal does not wait for a message, which may ask for more when the spare is CLEAN already.
// That is refused, and leaves no trace.
class AfterClean : public Meanwhile {
  protected:
    void TearDown() override { dm_remap_lock_hook = nullptr; }

    void deactivate_and_look() {
        after_clean(md->get(), [&] {
            clean_ = world->spare.image();
            EXPECT_EQ(md->commit({pending(200, 1)}), -EAGAIN);
            EXPECT_EQ(dm_remap_save(md->get()), -EAGAIN);
            EXPECT_EQ(dm_remap_pending_add(md->get(), 300, 1, DM_REMAP_REASON_READ_ERROR), -EAGAIN);
        });
        ASSERT_EQ(md->deactivate(), 0);
        ASSERT_FALSE(clean_.empty());
        EXPECT_TRUE(world->spare.image() == clean_);
        EXPECT_EQ(try_load(*world).report.replayed, 0U);
        // The next activation takes all of that.
        ASSERT_EQ(dm_remap_activate(md->get(), nullptr, nullptr), 0);
        EXPECT_EQ(md->remap(200), 0);
        EXPECT_EQ(dm_remap_save(md->get()), 0);
    }

  private:
    // Calls @what once, between the superblocks that say CLEAN and the end of deactivate.
    static void after_clean(dm_remap_metadata* md, std::function<void()> what) {
        md_ = md;
        what_ = std::move(what);
        dm_remap_lock_hook = [](mutex* lock) {
            if (lock == &md_->commit_lock && md_->sb.state == DM_REMAP_STATE_CLEAN &&
                md_->checkpoint_lock.held == 0) {
                dm_remap_lock_hook = nullptr;
                what_();
            }
        };
    }

    static inline dm_remap_metadata* md_ = nullptr;
    static inline std::function<void()> what_;
    Image clean_;
};

TEST_F(AfterClean, NothingIsWrittenBehindACheckpoint) {
    deactivate_and_look();
}

TEST_F(AfterClean, NothingIsWrittenBehindTheStateAlone) {
    ASSERT_EQ(dm_remap_save(md->get()), 0);
    deactivate_and_look();
}

// While restore reads the spare others have its locks.
class MeanwhileRestore : public Meanwhile {
  protected:
    // Calls @what once, when restore begins to read the given part of the spare.
    void during_read_of(std::uint64_t block, std::function<void()> what) {
        world->spare.on_read = [this, block, what = std::move(what)](std::uint64_t sector, auto) {
            if (sector == block * kBlockSectors && !(*md)->checkpoint_lock.held && !begun) {
                begun = true;
                what();
            }
        };
    }
    int restore() {
        healed = false;
        const int ret = dm_remap_restore(md->get(), world->spare.sectors(), &healed);
        world->spare.on_read = nullptr;
        return ret;
    }
    std::vector<std::uint64_t> parts() const {
        return {dm_remap_superblock_at(&layout, 0), dm_remap_table_at(&layout, 0, 0),
                dm_remap_journal_at(&layout, 0, 0), dm_remap_journal_at(&layout, 1, 0)};
    }

    bool healed = false;
};

TEST_F(MeanwhileRestore, CommitsWaitForNothing) {
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ((*md)->sb.active_table, 1);
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ((*md)->sb.active_table, 0);
    std::uint64_t at = 100;
    for (const std::uint64_t part : parts()) {
        begun = false;
        during_read_of(part, [&] {
            ASSERT_EQ(md->remap(at), 0);
            ASSERT_EQ(md->remap(at + 10), 0);
        });
        EXPECT_EQ(restore(), 0) << part;
        EXPECT_TRUE(begun) << part;
        EXPECT_FALSE(healed) << part;
        at += 100;
    }
    EXPECT_EQ(try_load(*world).records, md->records());
}

TEST_F(MeanwhileRestore, SaveMakesItReadAgain) {
    for (const std::uint64_t part : parts()) {
        begun = false;
        during_read_of(part, [&] {
            ASSERT_EQ(md->checkpoint(), 0);
            ASSERT_EQ(md->checkpoint(), 0);
        });
        EXPECT_EQ(restore(), 0) << part;
        EXPECT_FALSE(healed) << part;
    }
}

TEST_F(MeanwhileRestore, EndsWhereOneSaveFollowsTheOther) {
    unsigned saves = 0;
    world->spare.on_read = [&](std::uint64_t sector, auto) {
        const bool first = sector == dm_remap_journal_at(&layout, 0, 0) * kBlockSectors;
        if (first && !(*md)->checkpoint_lock.held && !std::exchange(begun, true)) {
            ASSERT_EQ(md->checkpoint(), 0);
            begun = false;
            saves++;
        }
    };
    EXPECT_EQ(restore(), -EAGAIN);
    EXPECT_EQ(saves, 3U);
}

TEST_F(MeanwhileRestore, FindsDamageBesideCommits) {
    ASSERT_EQ(md->checkpoint(), 0);
    ASSERT_EQ(md->remap(60), 0);
    zero_block(*world, dm_remap_journal_at(&layout, 1, (*md)->sb.journal_start));
    during_read_of(dm_remap_journal_at(&layout, 0, 0), [&] { ASSERT_EQ(md->remap(100), 0); });
    EXPECT_EQ(restore(), 0);
    EXPECT_TRUE(healed);
    EXPECT_EQ(try_load(*world).records, md->records());
}

// The spare has gone back to an earlier time, and a commit follows.
TEST_F(MeanwhileRestore, OlderSpareIsNotWhatMemoryHolds) {
    const Image older = world->spare.image();
    ASSERT_EQ(md->remap(60), 0);
    during_read_of(dm_remap_superblock_at(&layout, 0), [&] {
        world->spare.restore(older);
        ASSERT_EQ(md->remap(100), 0);
    });
    EXPECT_EQ(restore(), -EUCLEAN);
    EXPECT_TRUE(begun);
    EXPECT_FALSE(healed);
}

}  // namespace
}  // namespace remap

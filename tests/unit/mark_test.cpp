// Places on the spare that could not be read: they are marked, and what is written there is read
// back. The mark gets to the disk as soft state, behind a flag of the superblocks.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <future>
#include <thread>

#include "protocol.h"

namespace remap {
namespace {

constexpr std::uint64_t kAt = 1000;
constexpr std::uint32_t kLength = 8;

bool marked(const dm_remap_extent& e) {
    return (e.flags & DM_REMAP_F_UNREADABLE) != 0;
}

// An entry of a table or journal block that carries a flag.
bool any_flag(const dm_remap_disk_block& block) {
    return std::any_of(block.entry, block.entry + block.header.count,
                       [](const auto& entry) { return entry.flags != 0; });
}

bool announced(World& world, int replica) {
    return super_at(world, replica).incompat == DM_REMAP_INCOMPAT_UNREADABLE;
}

class Mark : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(md_->remap(kAt, kLength), 0);
        place_ = md_->lookup(kAt).spare;
        (*md_)->policy.read_retries = 2;
    }

    void unreadable(std::uint64_t sector, std::uint32_t n = 1) {
        for (std::uint32_t i = 0; i < n; i++) {
            world_->spare.bad_read.insert(place_ + (sector - kAt) + i);
        }
    }
    int read(std::uint64_t start = kAt, std::uint32_t sectors = kLength) {
        got_.assign(std::size_t{sectors} * kSector, 0);
        dm_remap_redo_begin(mover_->get());
        const int error = dm_remap_redo_read(mover_->get(), start, sectors, got_.data(), nullptr);
        EXPECT_EQ(dm_remap_redo_end(mover_->get()), 0);
        return error;
    }
    // As the worker does it.
    int write(std::uint64_t start, const Image& data) {
        dm_remap_redo_begin(mover_->get());
        const int error =
            dm_remap_redo_write(mover_->get(), start, data.size() / kSector, data.data(), nullptr);
        const int committed = dm_remap_redo_end(mover_->get());
        return error != 0 ? error : committed;
    }
    dm_remap_way way(dm_remap_kind_of_io kind, std::uint64_t sector) {
        dm_remap_extent e{};
        return dm_remap_find_way(md_->get(), kind, sector, 1, &e);
    }
    std::uint64_t retired_sectors() {
        dm_remap_totals totals{};
        dm_remap_table_totals(&(*md_)->retired, &totals);
        return totals.retired;
    }
    std::uint64_t marked_sectors() {
        dm_remap_totals totals{};
        dm_remap_table_totals(&(*md_)->table, &totals);
        return totals.unreadable;
    }
    // As a load finds them now.
    std::vector<bool> marks_on_disk() {
        Metadata md(*world_);
        EXPECT_EQ(md.load(), 0) << (md.report.refusal ? md.report.refusal : "");
        std::vector<bool> marks;
        for (std::uint64_t s = kAt; s < kAt + kLength; s++) {
            marks.push_back(marked(md.lookup(s)));
        }
        return marks;
    }
    static std::vector<bool> none() { return std::vector<bool>(kLength); }
    static std::vector<bool> one(std::uint64_t sector) {
        std::vector<bool> marks = none();
        marks[sector - kAt] = true;
        return marks;
    }

    std::unique_ptr<World> world_ = formatted();
    std::unique_ptr<Metadata> md_ = open(*world_);
    std::unique_ptr<Mover> mover_ = std::make_unique<Mover>(*md_);
    std::uint64_t place_ = 0;
    Image got_;
};

// ---- what becomes of I/O ----

TEST_F(Mark, WriteOverAPlaceThatCannotBeReadGoesElsewhere) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    EXPECT_TRUE(md_->flagged(DM_REMAP_F_UNREADABLE, kAt + 3));
    EXPECT_EQ(marked_sectors(), 1U);
    EXPECT_EQ(way(DM_REMAP_IO_WRITE, kAt + 3), DM_REMAP_WAY_WORKER);
    EXPECT_EQ(way(DM_REMAP_IO_WRITE, kAt + 2), DM_REMAP_WAY_SPARE);

    const Image data = pattern(7, kLength);
    EXPECT_EQ(write(kAt, data), 0);
    EXPECT_NE(md_->lookup(kAt + 3).spare, place_ + 3);
    EXPECT_EQ(md_->lookup(kAt).spare, place_);
    EXPECT_EQ(retired_sectors(), 1U);
    EXPECT_EQ(marked_sectors(), 0U);
    EXPECT_EQ(way(DM_REMAP_IO_WRITE, kAt + 3), DM_REMAP_WAY_SPARE);
    EXPECT_EQ(read(), 0);
    EXPECT_EQ(got_, data);
}

TEST_F(Mark, WriteThatReadsBackStaysAndEndsTheMark) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    world_->spare.rewrite_heals = true;
    const Image data = pattern(7, 1);
    EXPECT_EQ(write(kAt + 3, data), 0);
    EXPECT_EQ(md_->lookup(kAt + 3).spare, place_ + 3);
    EXPECT_EQ(retired_sectors(), 0U);
    EXPECT_EQ(marked_sectors(), 0U);
    EXPECT_EQ(read(kAt + 3, 1), 0);
    EXPECT_EQ(got_, data);
}

TEST_F(Mark, WriteThatFindsNoOtherPlaceFails) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    std::uint64_t spare = 0;
    std::uint32_t taken = 0;
    while (dm_remap_alloc_take(&(*md_)->alloc, 1 << 12, &spare, &taken) == 0) {
    }
    EXPECT_EQ(write(kAt + 3, pattern(7, 1)), -EIO);
    EXPECT_TRUE(md_->flagged(DM_REMAP_F_UNREADABLE, kAt + 3));
    EXPECT_EQ(retired_sectors(), 0U);
}

// Whenever a blackout of the spare ends: no mark is left on a place that can be read.
TEST_F(Mark, BlackoutOfTheSpareMarksNothing) {
    for (unsigned failing = 0; failing < 40; failing++) {
        world_->spare.fail_read = [failing](auto, auto) mutable {
            return failing == 0 ? 0 : (failing--, -EIO);
        };
        read();
        EXPECT_EQ(marked_sectors(), 0U) << failing;
    }
    world_->spare.fail_read = [](auto, auto) { return -EIO; };
    EXPECT_EQ(read(), -EIO);
    EXPECT_EQ(marked_sectors(), 0U);
    EXPECT_FALSE(dm_remap_dirty(md_->get()));
}

TEST_F(Mark, ErrorThatIsNotTheMediasMarksNothing) {
    world_->spare.fail_read = [&](std::uint64_t sector, std::uint32_t n) {
        return sector <= place_ && place_ < sector + n ? -ENOLINK : 0;
    };
    EXPECT_EQ(read(), -ENOLINK);
    EXPECT_EQ(marked_sectors(), 0U);
}

// One superblock is bad as well: the other one shows that the spare reads.
TEST_F(Mark, OneSuperblockIsControlEnough) {
    unreadable_block(*world_, 0);
    unreadable(kAt);
    EXPECT_EQ(read(), -EIO);
    EXPECT_EQ(marked_sectors(), 1U);
}

TEST_F(Mark, UnremapThatCannotReadThePlaceMarksIt) {
    unreadable(kAt + 3);
    dm_remap_moved moved{};
    EXPECT_EQ(dm_remap_unremap(md_->get(), kAt, kLength, &moved), -EIO);
    EXPECT_EQ(moved.refused, 1U);
    EXPECT_TRUE(md_->flagged(DM_REMAP_F_UNREADABLE, kAt + 3));
    EXPECT_EQ(marked_sectors(), 1U);
    EXPECT_EQ(write(kAt + 3, pattern(7, 1)), 0);
    EXPECT_EQ(retired_sectors(), 1U);
}

// ---- to the disk ----

TEST_F(Mark, IsSoftUntilTheNextCommit) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    EXPECT_TRUE(dm_remap_dirty(md_->get()));
    EXPECT_EQ(marks_on_disk(), none());
    ASSERT_EQ(md_->remap(5), 0);
    EXPECT_FALSE(dm_remap_dirty(md_->get()));
    EXPECT_EQ(marks_on_disk(), one(kAt + 3));
    EXPECT_EQ(try_load(*world_).records, md_->records());
}

TEST_F(Mark, GetsThereByAnAutosave) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    EXPECT_EQ(dm_remap_autosave(md_->get()), 0);
    EXPECT_FALSE(dm_remap_dirty(md_->get()));
    EXPECT_EQ(marks_on_disk(), one(kAt + 3));
    // The second one by a journal block: the superblocks announce it already.
    const std::uint64_t generation = (*md_)->sb.generation;
    unreadable(kAt + 5);
    EXPECT_EQ(read(), -EIO);
    EXPECT_EQ(dm_remap_autosave(md_->get()), 0);
    EXPECT_EQ((*md_)->sb.generation, generation);
    std::vector<bool> both = one(kAt + 3);
    both[5] = true;
    EXPECT_EQ(marks_on_disk(), both);
}

// No block with a flag is written before both superblocks announce flags.
TEST_F(Mark, IsAnnouncedByBothSuperblocksBeforeTheFirstCommitWithIt) {
    unsigned commits = 0;
    world_->spare.after_write = [&](std::uint64_t sector, std::uint32_t) {
        const dm_remap_disk_block block = block_at(*world_, sector / kBlockSectors);
        if (block.header.type == DM_REMAP_JOURNAL && any_flag(block)) {
            commits++;
            EXPECT_TRUE(announced(*world_, 0));
            EXPECT_TRUE(announced(*world_, 1));
        }
    };
    for (const std::uint64_t sector : {kAt + 3, kAt + 5}) {
        unreadable(sector);
        EXPECT_EQ(read(), -EIO);
        ASSERT_EQ(md_->remap(2 * (sector - kAt)), 0);
    }
    EXPECT_EQ(commits, 2U);  // the first mark was in the table that announces it
    world_->spare.after_write = nullptr;
}

TEST_F(Mark, EndsOnTheDiskAsSoftStateToo) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    ASSERT_EQ(md_->remap(5), 0);
    world_->spare.rewrite_heals = true;
    EXPECT_EQ(write(kAt + 3, pattern(7, 1)), 0);
    EXPECT_TRUE(dm_remap_dirty(md_->get()));
    EXPECT_EQ(marks_on_disk(), one(kAt + 3));
    EXPECT_EQ(dm_remap_autosave(md_->get()), 0);
    EXPECT_EQ(marks_on_disk(), none());
    EXPECT_EQ(try_load(*world_).records, md_->records());
}

TEST_F(Mark, CheckpointThatHasNoneLeftEndsTheAnnouncement) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    ASSERT_EQ(md_->checkpoint(), 0);
    EXPECT_TRUE(announced(*world_, 0));
    EXPECT_TRUE(announced(*world_, 1));
    EXPECT_EQ(write(kAt + 3, pattern(7, 1)), 0);
    ASSERT_EQ(md_->deactivate(), 0);
    EXPECT_EQ(super_at(*world_, 0).incompat, 0U);
    EXPECT_EQ(super_at(*world_, 1).incompat, 0U);
}

// It comes while the checkpoint that has none left is written: the next commit sees to it.
TEST_F(Mark, DuringTheCheckpointThatEndsTheAnnouncementBeginsItAnew) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    ASSERT_EQ(md_->remap(5), 0);
    world_->spare.rewrite_heals = true;
    EXPECT_EQ(write(kAt + 3, pattern(7, 1)), 0);
    world_->spare.after_write = [&](auto, auto) {
        if ((*md_)->writing) {
            EXPECT_EQ(dm_remap_mark(md_->get(), kAt + 4, 1, true), 0);
            world_->spare.after_write = nullptr;
        }
    };
    ASSERT_EQ(md_->checkpoint(), 0);
    EXPECT_FALSE(announced(*world_, 0));
    EXPECT_EQ(marks_on_disk(), none());
    ASSERT_EQ(md_->remap(7), 0);
    EXPECT_TRUE(announced(*world_, 0));
    EXPECT_TRUE(announced(*world_, 1));
    EXPECT_EQ(marks_on_disk(), one(kAt + 4));
}

// A commit in a thread of its own, begun in the midst of a checkpoint. It has to wait for that. The
// checkpoint goes on when the commit has come so far.
class Waiting {
  public:
    Waiting(World& world, Metadata& md, std::uint64_t main) : world_(world), md_(md) {
        now_ = this;
        world.spare.after_write = [this, main](auto, auto) {
            if (md_->writing && !md_->commit_lock.held && !md_->super_lock.held && !begun_) {
                begun_ = true;
                begin(main);
            }
        };
    }
    // After the checkpoint. Did it wait; and what became of it?
    bool waited() const { return waits_; }
    int end() {
        go_.set_value();
        const int error = result_.get();
        dm_remap_lock_hook = nullptr;
        world_.spare.after_write = nullptr;
        return error;
    }

  private:
    void begin(std::uint64_t main) {
        dm_remap_lock_hook = [](mutex* lock) { now_->before(lock); };
        std::future<void> come = come_.get_future();
        result_ = std::async(std::launch::async, [this, main] {
            thread_ = std::this_thread::get_id();
            const int error = md_.commit({pending(main)});
            if (!waits_) {
                come_.set_value();
            }
            return error;
        });
        come.wait();
    }
    void before(const mutex* lock) {
        if (std::this_thread::get_id() == thread_ && lock == &md_->checkpoint_lock && !waits_) {
            waits_ = true;
            come_.set_value();
            go_.get_future().wait();
        }
    }

    static inline Waiting* now_ = nullptr;
    World& world_;
    Metadata& md_;
    bool begun_ = false;
    std::thread::id thread_;
    std::promise<void> come_;
    std::promise<void> go_;
    std::future<int> result_;
    std::atomic<bool> waits_ = false;
};

TEST_F(Mark, CommitWaitsForTheCheckpointThatAnnounces) {
    ASSERT_EQ(dm_remap_mark(md_->get(), kAt + 3, 1, true), 0);
    Waiting commit(*world_, *md_, 5);
    ASSERT_EQ(md_->checkpoint(), 0);
    EXPECT_TRUE(commit.waited());
    EXPECT_EQ(commit.end(), 0);
    EXPECT_EQ(marks_on_disk(), one(kAt + 3));
}

TEST_F(Mark, CommitWaitsForTheCheckpointThatEndsTheAnnouncement) {
    ASSERT_EQ(dm_remap_mark(md_->get(), kAt + 3, 1, true), 0);
    ASSERT_EQ(md_->checkpoint(), 0);
    ASSERT_EQ(dm_remap_mark(md_->get(), kAt + 3, 1, false), 0);
    bool marked_meanwhile = false;
    world_->spare.on_write = [&](auto, auto, auto) {
        if ((*md_)->writing && !(*md_)->commit_lock.held && !marked_meanwhile) {
            marked_meanwhile = true;
            EXPECT_EQ(dm_remap_mark(md_->get(), kAt + 4, 1, true), 0);
        }
        return 0;
    };
    Waiting commit(*world_, *md_, 5);
    ASSERT_EQ(md_->checkpoint(), 0);
    EXPECT_TRUE(marked_meanwhile);
    EXPECT_TRUE(commit.waited());
    EXPECT_FALSE(announced(*world_, 1));
    EXPECT_EQ(commit.end(), 0);
    EXPECT_TRUE(announced(*world_, 1));
    EXPECT_EQ(marks_on_disk(), one(kAt + 4));
}

TEST_F(Mark, OutlivesARestart) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    ASSERT_EQ(md_->remap(5), 0);
    for (const bool orderly : {false, true}) {
        if (orderly) {
            ASSERT_EQ(md_->deactivate(), 0);
        }
        md_ = open(*world_);
        mover_ = std::make_unique<Mover>(*md_);
        EXPECT_EQ(way(DM_REMAP_IO_WRITE, kAt + 3), DM_REMAP_WAY_WORKER);
        // The next one needs no checkpoint.
        const std::uint64_t generation = (*md_)->sb.generation;
        ASSERT_EQ(dm_remap_mark(md_->get(), kAt + 5 + orderly, 1, true), 0);
        ASSERT_EQ(md_->remap(orderly ? 7 : 9), 0);
        EXPECT_EQ((*md_)->sb.generation, generation);
    }
    EXPECT_EQ(write(kAt + 3, pattern(7, 1)), 0);
    EXPECT_EQ(retired_sectors(), 1U);
}

// A range around the mark that is good is not in doubt with it, if the commit is on one end alone.
TEST_F(Mark, CarriesNoMoreThanItself) {
    for (const bool unreadable : {true, false}) {
        ASSERT_EQ(dm_remap_mark(md_->get(), kAt, kLength, !unreadable), 0);
        ASSERT_EQ(md_->checkpoint(), 0);
        // It continues what is around it.
        ASSERT_EQ(dm_remap_mark(md_->get(), kAt, 3, unreadable), 0);
        ASSERT_EQ(md_->commit({pending(5)}), 0);
        ASSERT_EQ(dm_remap_mark(md_->get(), kAt + 3, 2, unreadable), 0);
        ASSERT_EQ(md_->commit({pending(5)}), 0);
        const dm_remap_disk_block block =
            block_at(*world_, journal_at(*world_, 0, (*md_)->next_sequence - 1));
        EXPECT_EQ(block.entry[0].main, kAt + 3);
        EXPECT_EQ(block.entry[0].spare, place_ + 3);
        EXPECT_EQ(block.entry[0].length, 2U);
        EXPECT_EQ(block.entry[0].flags, unreadable ? DM_REMAP_ENTRY_UNREADABLE : 0);
        std::vector<bool> marks(kLength, !unreadable);
        std::fill_n(marks.begin(), 5, unreadable);
        EXPECT_EQ(marks_on_disk(), marks);
        EXPECT_EQ(try_load(*world_).records, md_->records());
    }
}

// A commit that clears, or moves, what is marked holds.
TEST_F(Mark, WhatTheCommitSaysHolds) {
    ASSERT_EQ(dm_remap_mark(md_->get(), kAt, kLength, true), 0);
    const std::uint64_t spare = md_->take();
    ASSERT_EQ(md_->commit({clear(kAt, 2), mapped(kAt + 4, spare)}), 0);
    EXPECT_EQ(marked_sectors(), 5U);
    EXPECT_EQ(try_load(*world_).records, md_->records());
    EXPECT_EQ(marks_on_disk(),
              (std::vector<bool>{false, false, true, true, false, true, true, true}));
}

TEST_F(Mark, IsAnnouncedOrTheSpareIsDamaged) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    ASSERT_EQ(md_->checkpoint(), 0);
    for (int r = 0; r < 2; r++) {
        dm_remap_super sb = super_at(*world_, r);
        sb.incompat = 0;
        put_super(*world_, sb, r);
    }
    EXPECT_EQ(try_load(*world_).error, -EUCLEAN);
}

TEST_F(Mark, InTheJournalIsAnnouncedOrTheSpareIsDamaged) {
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    ASSERT_EQ(md_->remap(5), 0);
    ASSERT_EQ(dm_remap_mark(md_->get(), kAt + 4, 1, true), 0);
    ASSERT_EQ(dm_remap_mark(md_->get(), kAt + 3, 1, false), 0);
    ASSERT_EQ(md_->remap(7), 0);
    for (int r = 0; r < 2; r++) {
        dm_remap_super sb = super_at(*world_, r);
        sb.incompat = 0;
        put_super(*world_, sb, r);
    }
    EXPECT_EQ(try_load(*world_).error, -EUCLEAN);
}

// ---- where there is no room, or nothing can be written ----

TEST_F(Mark, FullRingIsCommitted) {
    ASSERT_EQ(md_->remap(2000, 2 * DM_REMAP_SOFT_RANGES + 2), 0);
    for (unsigned i = 0; i <= DM_REMAP_SOFT_RANGES; i++) {
        ASSERT_EQ(dm_remap_mark(md_->get(), 2000 + 2 * i, 1, true), 0);
    }
    EXPECT_EQ(marked_sectors(), DM_REMAP_SOFT_RANGES + 1U);
    EXPECT_TRUE(announced(*world_, 1));
    ASSERT_EQ(dm_remap_soft_commit(md_->get()), 0);
    EXPECT_EQ(try_load(*world_).records, md_->records());
}

TEST_F(Mark, NeedsRoomInTheTable) {
    while (md_->commit({pending(2 * (*md_)->next_sequence + 20'000)}) == 0) {
    }
    EXPECT_EQ(dm_remap_mark(md_->get(), kAt + 3, 1, true), -ENOSPC);
    EXPECT_EQ(marked_sectors(), 0U);
    ASSERT_EQ(md_->checkpoint(), 0);
    EXPECT_EQ(try_load(*world_).records, md_->records());
}

TEST_F(Mark, TakesBackWhatLacksMemory) {
    for (unsigned n = 0;; n++) {
        FailAllocation fail(n);
        const int error = dm_remap_mark(md_->get(), kAt + 3, 1, true);
        if (!fail.happened()) {
            EXPECT_EQ(error, 0);
            break;
        }
        EXPECT_EQ(error, -ENOMEM);
        EXPECT_EQ(marked_sectors(), 0U);
        EXPECT_FALSE(dm_remap_dirty(md_->get()));
    }
    EXPECT_EQ(marked_sectors(), 1U);
}

// Mode `ro`: a write that does not hold is an error, and the save that ends the mode keeps the
// mark.
TEST_F(Mark, WhereNothingCanBeCommittedIsKnownInMemory) {
    const dm_remap_layout& layout = (*md_)->sb.layout;
    const auto metadata = [&layout](auto, std::uint64_t sector, auto) {
        return sector < dm_remap_data_start(&layout) || sector >= dm_remap_data_end(&layout) ? -EIO
                                                                                             : 0;
    };
    world_->spare.on_write = metadata;
    EXPECT_NE(md_->checkpoint(), 0);
    ASSERT_EQ((*md_)->mode, DM_REMAP_MODE_RO);
    unreadable(kAt + 3);
    EXPECT_EQ(read(), -EIO);
    EXPECT_EQ(way(DM_REMAP_IO_WRITE, kAt + 3), DM_REMAP_WAY_WORKER);
    EXPECT_EQ(write(kAt + 3, pattern(7, 1)), -EIO);
    // As many as the ring has room for.
    for (unsigned i = 1; i < DM_REMAP_SOFT_RANGES; i++) {
        EXPECT_EQ(dm_remap_mark(md_->get(), kAt + 6, 1, i % 2 == 1), 0);
    }
    EXPECT_EQ(dm_remap_mark(md_->get(), kAt + 5, 1, true), -EROFS);
    world_->spare.on_write = nullptr;
    ASSERT_EQ(md_->checkpoint(), 0);
    std::vector<bool> marks = one(kAt + 3);
    marks[6] = true;
    EXPECT_EQ(marks_on_disk(), marks);
}

TEST_F(Mark, IsOfNoUseWhereAnotherSystemHasTheSpare) {
    (*md_)->mode = DM_REMAP_MODE_FAIL;
    EXPECT_EQ(dm_remap_mark(md_->get(), kAt + 3, 1, true), -EROFS);
    EXPECT_EQ(marked_sectors(), 0U);
}

}  // namespace
}  // namespace remap

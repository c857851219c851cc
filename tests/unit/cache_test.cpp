// The volatile caches of the disks, and the losses that they tell of: dm-remap-cache.h.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rig.h"

namespace remap {
namespace {

using testing::ElementsAre;

// Two disks with caches, and all that the core asks of them.
struct Caches {
    std::unique_ptr<World> world = formatted();
    dm_remap_fua fua = DM_REMAP_FUA_BY_FLUSH;
    std::vector<std::string> asked;
    int flushes_to_fail = 0;
    int writes_to_fail = 0;
    std::function<void()> before_flush = [] {};
};

// The context of the core is the World.
Caches* caches = nullptr;

const char* name_of(dm_remap_dev dev) {
    return dev == DM_REMAP_MAIN ? "main" : "spare";
}

int fails(int& times) {
    return times > 0 && times-- > 0 ? -EIO : 0;
}

dm_remap_ops ops_of_caches() {
    dm_remap_ops ops = World::kOps;
    ops.write = [](void* ctx, dm_remap_dev dev, u64 sector, u32 sectors, const void* buf,
                   unsigned flags) {
        caches->asked.push_back(std::string("write ") + name_of(dev) +
                                ((flags & DM_REMAP_FUA) != 0 ? " FUA" : "") +
                                ((flags & DM_REMAP_PREFLUSH) != 0 ? " PREFLUSH" : ""));
        const int error = fails(caches->writes_to_fail);
        return error != 0 ? error : World::kOps.write(ctx, dev, sector, sectors, buf, flags);
    };
    ops.flush = [](void* ctx, dm_remap_flush* f) {
        caches->before_flush();
        caches->asked.push_back(std::string("flush ") + name_of(f->dev));
        World& world = *static_cast<World*>(ctx);
        const int error = fails(caches->flushes_to_fail);
        if (error == 0) {
            (f->dev == DM_REMAP_MAIN ? world.main : world.spare).flush();
        }
        dm_remap_own_flush_ended(f, error);
        return error;
    };
    ops.fua = [](void*, dm_remap_dev) { return caches->fua; };
    return ops;
}

class Cache : public testing::Test {
  protected:
    void SetUp() override {
        caches = &c_;
        ASSERT_EQ(dm_remap_metadata_init(&md_, &ops_, c_.world.get()), 0);
        dm_remap_report report{};
        ASSERT_EQ(dm_remap_load(&md_, c_.world->spare.sectors(), c_.world->main.sectors(), &report),
                  0);
        ASSERT_EQ(dm_remap_activate(&md_, nullptr, &report), 0);
        c_.asked.clear();
    }
    void TearDown() override {
        dm_remap_metadata_exit(&md_);
        caches = nullptr;
    }

    int write_durable(dm_remap_dev dev = DM_REMAP_MAIN) {
        return dm_remap_dev_write(&md_, dev, 1000, 1, pattern(1, 1).data(), DM_REMAP_FUA);
    }
    // A flush from above that the device answers with @told: what it says.
    int flush(dm_remap_dev dev, int told = 0) {
        return dm_remap_flush_ended(&md_, dev, dm_remap_flush_covers(&md_, dev), told);
    }
    void write_to_spare(bool done = true) {
        dm_remap_spare_write_begins(&md_);
        dm_remap_spare_write_ended(&md_, done);
    }

    Caches c_;
    dm_remap_ops ops_ = ops_of_caches();
    dm_remap_metadata md_{};
};

// ---- is there anything to flush? ----

TEST_F(Cache, SpareIsFlushedOnceForEachWrite) {
    EXPECT_TRUE(dm_remap_spare_is_flushed(&md_));
    write_to_spare();
    EXPECT_FALSE(dm_remap_spare_is_flushed(&md_));
    EXPECT_EQ(flush(DM_REMAP_SPARE, -EIO), -EIO);
    EXPECT_FALSE(dm_remap_spare_is_flushed(&md_));
    EXPECT_EQ(flush(DM_REMAP_SPARE), 0);
    EXPECT_TRUE(dm_remap_spare_is_flushed(&md_));
}

TEST_F(Cache, AWriteThatFailedNeedsNoFlush) {
    write_to_spare(false);
    EXPECT_TRUE(dm_remap_spare_is_flushed(&md_));
}

TEST_F(Cache, AFlushCoversWhatWasWrittenBeforeItBegan) {
    write_to_spare();
    const u64 covers = dm_remap_flush_covers(&md_, DM_REMAP_SPARE);
    write_to_spare();
    EXPECT_EQ(dm_remap_flush_ended(&md_, DM_REMAP_SPARE, covers, 0), 0);
    EXPECT_FALSE(dm_remap_spare_is_flushed(&md_));
}

TEST_F(Cache, FlushesMayEndInAnyOrder) {
    write_to_spare();
    const u64 first = dm_remap_flush_covers(&md_, DM_REMAP_SPARE);
    write_to_spare();
    EXPECT_EQ(flush(DM_REMAP_SPARE), 0);
    EXPECT_EQ(dm_remap_flush_ended(&md_, DM_REMAP_SPARE, first, 0), 0);
    EXPECT_TRUE(dm_remap_spare_is_flushed(&md_));
}

TEST_F(Cache, AFlushOfTheCoreCoversWritesFromAbove) {
    write_to_spare();
    EXPECT_EQ(write_durable(DM_REMAP_SPARE), 0);
    EXPECT_TRUE(dm_remap_spare_is_flushed(&md_));
}

TEST_F(Cache, AWriteThatEndsDuringAFlushIsNotCovered) {
    write_to_spare();
    c_.before_flush = [this] { write_to_spare(); };
    EXPECT_EQ(write_durable(DM_REMAP_SPARE), 0);
    EXPECT_FALSE(dm_remap_spare_is_flushed(&md_));
}

// ---- who hears of a loss? ----

TEST_F(Cache, WhatAFlushOfTheCoreWasToldTheNextFromAboveTells) {
    for (const dm_remap_dev dev : {DM_REMAP_MAIN, DM_REMAP_SPARE}) {
        if (dev == DM_REMAP_SPARE) {
            write_to_spare();
        }
        c_.flushes_to_fail = 1;
        EXPECT_EQ(write_durable(dev), 0) << "done once more";
        EXPECT_EQ(flush(dev), -EIO);
        EXPECT_EQ(flush(dev), 0) << "it is told once";
    }
}

TEST_F(Cache, AFlushThatFailsItselfTellsBoth) {
    c_.flushes_to_fail = 1;
    EXPECT_EQ(write_durable(), 0);
    EXPECT_EQ(flush(DM_REMAP_MAIN, -ENOLINK), -ENOLINK);
    EXPECT_EQ(flush(DM_REMAP_MAIN), 0);
}

TEST_F(Cache, OfASpareThatHoldsNothingOfOthersNobodyIsTold) {
    c_.flushes_to_fail = 1;
    EXPECT_EQ(write_durable(DM_REMAP_SPARE), 0);
    EXPECT_EQ(flush(DM_REMAP_SPARE), 0);
}

TEST_F(Cache, AWriteUnderWayIsOfOthers) {
    dm_remap_spare_write_begins(&md_);
    c_.flushes_to_fail = 1;
    EXPECT_EQ(write_durable(DM_REMAP_SPARE), 0);
    EXPECT_EQ(flush(DM_REMAP_SPARE), -EIO);
    dm_remap_spare_write_ended(&md_, true);
}

TEST_F(Cache, AWriteThatEndsDuringTheFlushIsOfOthers) {
    c_.before_flush = [this] { write_to_spare(); };
    c_.flushes_to_fail = 1;
    EXPECT_EQ(write_durable(DM_REMAP_SPARE), 0);
    EXPECT_EQ(flush(DM_REMAP_SPARE), -EIO);
}

TEST_F(Cache, ALossOfMainIsNoneOfTheSpare) {
    c_.flushes_to_fail = 1;
    EXPECT_EQ(write_durable(DM_REMAP_MAIN), 0);
    write_to_spare();
    EXPECT_EQ(flush(DM_REMAP_SPARE), 0);
    EXPECT_EQ(flush(DM_REMAP_MAIN), -EIO);
}

// ---- writes that are durable by themselves ----

TEST_F(Cache, ADeviceWithFuaIsAskedForIt) {
    c_.fua = DM_REMAP_FUA_OWN;
    EXPECT_EQ(write_durable(), 0);
    EXPECT_THAT(c_.asked, ElementsAre("write main FUA"));
}

TEST_F(Cache, ADeviceWithoutFuaIsFlushedBehindTheWrite) {
    EXPECT_EQ(write_durable(), 0);
    EXPECT_THAT(c_.asked, ElementsAre("write main", "flush main"));
}

TEST_F(Cache, BeneathAnotherDeviceFuaGoesDown) {
    c_.fua = DM_REMAP_FUA_BELOW;
    EXPECT_EQ(write_durable(), 0);
    EXPECT_THAT(c_.asked, ElementsAre("write main FUA"));
}

TEST_F(Cache, AFailedWriteIsNotDoneAgainNorFlushed) {
    c_.writes_to_fail = 1;
    EXPECT_EQ(write_durable(), -EIO);
    EXPECT_THAT(c_.asked, ElementsAre("write main"));
}

TEST_F(Cache, AFlushBehindAWriteThatFailsTwiceIsAnError) {
    c_.flushes_to_fail = 2;
    EXPECT_EQ(write_durable(), -EIO);
    EXPECT_THAT(c_.asked, ElementsAre("write main", "flush main", "write main", "flush main"));
}

TEST_F(Cache, WhatAnotherFlushMayHaveLostIsWrittenOnceMore) {
    for (const dm_remap_fua fua : {DM_REMAP_FUA_BY_FLUSH, DM_REMAP_FUA_BELOW}) {
        c_.fua = fua;
        int others = 1;
        const auto another = [&] {
            if (others-- > 0) {
                EXPECT_EQ(flush(DM_REMAP_MAIN, -EIO), -EIO);
            }
        };
        c_.before_flush = another;
        c_.world->main.after_write = [&](auto, auto) {
            if (fua == DM_REMAP_FUA_BELOW) {
                another();
            }
        };
        c_.asked.clear();
        EXPECT_EQ(write_durable(), 0);
        EXPECT_EQ(c_.asked.size(), fua == DM_REMAP_FUA_BY_FLUSH ? 4 : 2);
        others = 9;
        EXPECT_EQ(write_durable(), 0) << "as beside workers whose writes fail";
        others = 1000;
        EXPECT_EQ(write_durable(), -EIO) << "each time anew";
    }
    c_.world->main.after_write = nullptr;
}

TEST_F(Cache, AFailureBeneathAnotherDeviceMayBeALossOfOthers) {
    c_.fua = DM_REMAP_FUA_BELOW;
    const int told = dm_remap_losses_told(&md_, DM_REMAP_MAIN);
    c_.writes_to_fail = 1;
    EXPECT_EQ(write_durable(), -EIO);
    EXPECT_NE(dm_remap_losses_told(&md_, DM_REMAP_MAIN), told);
}

// ---- FUA from above ----

TEST_F(Cache, AWriteFromAboveIsLostIfSomebodyWasToldMeanwhile) {
    int told = dm_remap_losses_told(&md_, DM_REMAP_MAIN);
    EXPECT_FALSE(dm_remap_fua_lost(&md_, DM_REMAP_MAIN, told, 0));
    EXPECT_EQ(flush(DM_REMAP_SPARE, -EIO), -EIO);
    EXPECT_FALSE(dm_remap_fua_lost(&md_, DM_REMAP_MAIN, told, 0)) << "of the other disk";
    EXPECT_EQ(flush(DM_REMAP_MAIN, -EIO), -EIO);
    EXPECT_TRUE(dm_remap_fua_lost(&md_, DM_REMAP_MAIN, told, 0));
    told = dm_remap_losses_told(&md_, DM_REMAP_MAIN);
    EXPECT_FALSE(dm_remap_fua_lost(&md_, DM_REMAP_MAIN, told, -EIO)) << "it says so itself";
    EXPECT_TRUE(dm_remap_fua_lost(&md_, DM_REMAP_MAIN, told, 0)) << "another one with it";
}

TEST_F(Cache, AWriteThatWasNotSentLosesNothing) {
    const int told = dm_remap_losses_told(&md_, DM_REMAP_MAIN);
    EXPECT_FALSE(dm_remap_fua_lost(&md_, DM_REMAP_MAIN, told, -EAGAIN));
    EXPECT_EQ(dm_remap_losses_told(&md_, DM_REMAP_MAIN), told);
}

// ---- the table ----

TEST_F(Cache, ATableThatAnotherFlushMayHaveLostIsWrittenOnceMore) {
    const dm_remap_record record = pending(500);
    ASSERT_EQ(dm_remap_commit(&md_, &record, 1), 0);
    c_.asked.clear();
    int others = 1;
    c_.before_flush = [&] {
        if (others-- > 0) {
            EXPECT_EQ(flush(DM_REMAP_SPARE, -EIO), -EIO);
        }
    };
    const u64 generation = md_.sb.generation;
    EXPECT_EQ(dm_remap_checkpoint(&md_, DM_REMAP_STATE_DIRTY), 0);
    EXPECT_EQ(md_.sb.generation, generation + 1);
    const auto tables = std::count(c_.asked.begin(), c_.asked.end(), "write spare");
    c_.asked.clear();
    EXPECT_EQ(dm_remap_checkpoint(&md_, DM_REMAP_STATE_DIRTY), 0);
    EXPECT_GT(tables, std::count(c_.asked.begin(), c_.asked.end(), "write spare"));
}

// ---- a device that nobody else uses ----

TEST_F(Cache, WithoutAFlushOfItsOwnTheDeviceGetsTheFlags) {
    ops_.flush = nullptr;
    EXPECT_EQ(dm_remap_dev_write(&md_, DM_REMAP_SPARE, 1000, 1, pattern(1, 1).data(),
                                 DM_REMAP_PREFLUSH | DM_REMAP_FUA),
              0);
    EXPECT_THAT(c_.asked, ElementsAre("write spare FUA PREFLUSH"));
}

}  // namespace
}  // namespace remap

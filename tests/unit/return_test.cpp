// A spare that was unplugged while it was in use, and comes back: dm_remap_take_back().
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <memory>
#include <string>

#include "protocol.h"

namespace remap {
namespace {

using testing::HasSubstr;

// A device with records, a table and a journal, whose spare can be unplugged.
class Returned : public testing::Test {
  protected:
    void SetUp() override { begin(); }

    void begin() {
        world_ = world_with_records();
        md_ = open(*world_);
    }
    void unplug() { world_->spare.power_off(); }
    // The device is suspended without it. Of what no flush had covered, half is there.
    void plug_in() {
        md_->deactivate();
        world_->spare.power_on([](auto, auto sector) { return (sector / kBlockSectors) % 2 == 0; });
    }
    // The reason for a refusal, or nothing.
    std::string take_back() {
        dm_remap_report report{};
        const int error = dm_remap_take_back(md_->get(), world_->spare.sectors(), &report);
        EXPECT_EQ(error != 0, report.refusal != nullptr);
        return report.refusal != nullptr ? report.refusal : "";
    }
    void expect_to_serve_on() {
        const Records before = md_->records();
        ASSERT_EQ(take_back(), "");
        ASSERT_EQ(dm_remap_activate(md_->get(), nullptr, nullptr), 0);
        EXPECT_EQ((*md_)->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ((*md_)->doubt, nullptr);
        EXPECT_EQ(md_->records(), before);
        EXPECT_EQ(md_->remap(9000, 8), 0);
        dm_remap_autosave(md_->get());
        const Loaded loaded = try_load(*world_);
        EXPECT_EQ(loaded.error, 0) << loaded.why;
        EXPECT_EQ(loaded.records, md_->records());
    }
    // It is refused, and the right one is taken.
    void expect_refused(const std::string& why) {
        EXPECT_THAT(take_back(), HasSubstr(why));
        EXPECT_NE((*md_)->mode, DM_REMAP_MODE_FAIL);
    }

    std::unique_ptr<World> world_;
    std::unique_ptr<Metadata> md_;
};

TEST_F(Returned, GoesOnWithNothingChanged) {
    unplug();
    EXPECT_NE(md_->remap(5000), 0);
    EXPECT_EQ((*md_)->mode, DM_REMAP_MODE_RO);
    EXPECT_TRUE(md_->flagged(DM_REMAP_F_DOUBT, 5000));
    plug_in();
    expect_to_serve_on();
    EXPECT_FALSE(md_->flagged(DM_REMAP_F_DOUBT, 5000));
    EXPECT_EQ(md_->remap(5000), 0);
}

TEST_F(Returned, WasNotMissed) {
    unplug();
    plug_in();
    expect_to_serve_on();
}

// It is pulled in any write: all that was acknowledged is served.
TEST_F(Returned, InTheMidstOfAnyWrite) {
    bool pulled = true;
    std::uint64_t n = 0;
    for (; pulled; n++) {
        SCOPED_TRACE(n);
        begin();
        world_->spare.power_off_at_write(world_->spare.writes() + n);
        dm_remap_pending_add(md_->get(), 3000, 8, DM_REMAP_REASON_READ_ERROR);
        md_->remap(300, 8);
        dm_remap_mark(md_->get(), 304, 2, true);
        md_->commit({clear(102, 2), retired(md_->take())});
        dm_remap_save(md_->get());
        md_->commit({clear(200, 4), mapped(600, md_->take())});
        dm_remap_pending_add(md_->get(), 4000, 8, DM_REMAP_REASON_READ_ERROR);
        dm_remap_mark(md_->get(), 204, 2, true);
        dm_remap_autosave(md_->get());
        pulled = !world_->spare.is_on();
        unplug();
        plug_in();
        expect_to_serve_on();
    }
    EXPECT_GT(n, 15U);
}

// An activation that could claim nothing, or half.
TEST_F(Returned, InTheMidstOfAnActivation) {
    bool pulled = true;
    std::uint64_t n = 0;
    for (; pulled; n++) {
        SCOPED_TRACE(n);
        begin();
        md_ = std::make_unique<Metadata>(*world_);
        ASSERT_EQ(md_->load(), 0);
        world_->spare.power_off_at_write(world_->spare.writes() + n);
        ASSERT_EQ(md_->activate(), 0);
        pulled = !world_->spare.is_on();
        unplug();
        plug_in();
        expect_to_serve_on();
    }
    EXPECT_GT(n, 4U);
}

TEST_F(Returned, WithOneEndDamaged) {
    const dm_remap_layout layout = (*md_)->sb.layout;
    for (const int end : {0, 1}) {
        begin();
        EXPECT_EQ(md_->remap(300, 8), 0);
        unplug();
        plug_in();
        zero_block(*world_, journal_at(*world_, end, (*md_)->next_sequence - 1));
        zero_block(*world_, dm_remap_superblock_at(&layout, end));
        expect_to_serve_on();
        EXPECT_EQ(try_load(*world_).report.replica[end].bad_journal_blocks, 0U);
    }
}

TEST_F(Returned, WithSoftStateThatItNeverHad) {
    ASSERT_EQ(dm_remap_pending_add(md_->get(), 3000, 8, DM_REMAP_REASON_READ_ERROR), 0);
    ASSERT_EQ(dm_remap_mark(md_->get(), 204, 2, true), 0);
    unplug();
    plug_in();
    expect_to_serve_on();
    EXPECT_TRUE(md_->flagged(DM_REMAP_F_UNREADABLE, 204));
}

// ---- what is not the same ----

TEST_F(Returned, OlderCopyIsRefused) {
    const std::function<void()> steps[] = {
        [this] { EXPECT_EQ(md_->remap(300), 0); },
        [this] { EXPECT_EQ(md_->commit({clear(200)}), 0); },
        // The records are as they were. Data that was written to them meanwhile may not be.
        [this] {
            EXPECT_EQ(md_->remap(300), 0);
            EXPECT_EQ(md_->commit({clear(300)}), 0);
        },
        [this] { EXPECT_EQ(md_->checkpoint(), 0); },
        [this] {
            md_->deactivate();
            EXPECT_EQ(dm_remap_activate(md_->get(), nullptr, nullptr), 0);
        },
    };
    for (const auto& step : steps) {
        begin();
        const Image older = world_->spare.image();
        step();
        const Image newest = world_->spare.image();
        unplug();
        md_->remap(5000);
        plug_in();
        world_->spare.restore(older);
        expect_refused("an older copy");
        world_->spare.restore(newest);
        expect_to_serve_on();
    }
}

TEST_F(Returned, AnotherSpareIsRefused) {
    auto other = make_world({.spare_sectors = 1024});
    ASSERT_EQ(format(*other, {.spare_sectors = 1024}, 0x22), 0);
    unplug();
    plug_in();
    const Image right = world_->spare.image();
    world_->spare.restore(other->spare.image());
    expect_refused("another spare");
    world_->spare.restore(Image(right.size()));
    expect_refused("blank");
    world_->spare.restore(right);
    expect_to_serve_on();
}

TEST_F(Returned, SpareThatAnotherSystemHasUsedIsRefused) {
    for (const std::uint64_t writes : {1, 2, 3, 100}) {
        SCOPED_TRACE(writes);
        begin();
        unplug();
        plug_in();
        {
            Metadata other(*world_);
            ASSERT_EQ(other.load(), 0);
            world_->spare.power_off_at_write(world_->spare.writes() + writes);
            EXPECT_EQ(other.activate(), 0);
            unplug();
        }
        plug_in();
        expect_refused("another system");
    }
}

TEST_F(Returned, IsRefusedOnceAnotherSystemHasBeenSeen) {
    const Image ours = world_->spare.image();
    auto other = open(*world_);
    EXPECT_NE(md_->remap(300), 0);
    ASSERT_EQ((*md_)->mode, DM_REMAP_MODE_FAIL);
    unplug();
    plug_in();
    world_->spare.restore(ours);
    EXPECT_THAT(take_back(), HasSubstr("another system"));
}

// The same activation went on elsewhere: a machine that was copied while it ran.
TEST_F(Returned, CommitThatMemoryDoesNotHaveIsRefused) {
    EXPECT_EQ(md_->remap(300), 0);
    unplug();
    plug_in();
    const std::uint64_t sequence = (*md_)->next_sequence;
    for (const int end : {0, 1}) {
        dm_remap_disk_block block = block_at(*world_, journal_at(*world_, end, sequence - 1));
        block.header.sequence = sequence;
        block.header.chain = (*md_)->chain;
        put_block(*world_, block, journal_at(*world_, end, sequence));
    }
    EXPECT_EQ(try_load(*world_).why, "");
    expect_refused("does not hold the records in use");
}

TEST_F(Returned, OtherContentOfTheLastCommitIsRefused) {
    EXPECT_EQ(md_->remap(300), 0);
    unplug();
    plug_in();
    for (const int end : {0, 1}) {
        const std::uint64_t at = journal_at(*world_, end, (*md_)->next_sequence - 1);
        dm_remap_disk_block block = block_at(*world_, at);
        block.entry[0].last_time++;
        put_block(*world_, block, at);
    }
    EXPECT_EQ(try_load(*world_).why, "");
    expect_refused("does not hold the records in use");
}

// The commit that failed is on one replica, and is not the one that failed here.
TEST_F(Returned, CommitThatFailedMustBeTheOneInDoubt) {
    const std::function<void(dm_remap_disk_entry&)> changes[] = {
        [](auto& entry) { entry.main++; },
        [](auto& entry) { entry.spare++; },
        [](auto& entry) { entry.length++; },
    };
    for (const auto& change : changes) {
        begin();
        // Its other block does not get there.
        world_->spare.power_off_at_write(world_->spare.writes() + 2);
        EXPECT_NE(md_->remap(300), 0);
        unplug();
        plug_in();
        const std::uint64_t at = journal_at(*world_, 0, (*md_)->next_sequence - 1);
        zero_block(*world_, journal_at(*world_, 1, (*md_)->next_sequence - 1));
        const dm_remap_disk_block right = block_at(*world_, at);
        ASSERT_EQ(right.header.count, 1U);
        dm_remap_disk_block wrong = right;
        change(wrong.entry[0]);
        put_block(*world_, wrong, at);
        EXPECT_EQ(try_load(*world_).why, "");
        expect_refused("does not hold the records in use");
        EXPECT_THAT(world_->log.back(), HasSubstr("differ in the record of main sector 30"));
        put_block(*world_, right, at);
        expect_to_serve_on();
    }
}

TEST_F(Returned, RetiredPlaceMustBeTheOneInDoubt) {
    world_->spare.power_off_at_write(world_->spare.writes() + 1);
    EXPECT_NE(md_->commit({retired(md_->take())}), 0);
    unplug();
    plug_in();
    const std::uint64_t at = journal_at(*world_, 0, (*md_)->next_sequence - 1);
    zero_block(*world_, journal_at(*world_, 1, (*md_)->next_sequence - 1));
    const dm_remap_disk_block right = block_at(*world_, at);
    dm_remap_disk_block wrong = right;
    wrong.entry[0].spare++;
    put_block(*world_, wrong, at);
    EXPECT_EQ(try_load(*world_).why, "");
    expect_refused("does not hold the records in use");
    EXPECT_THAT(world_->log.back(), HasSubstr("differ in the record of spare sector"));
    put_block(*world_, right, at);
    expect_to_serve_on();
}

// ---- all else ----

TEST_F(Returned, WithoutMemoryNothingChanges) {
    unplug();
    md_->remap(5000);
    plug_in();
    md_->deactivate();
    const Records before = md_->records();
    bool failed = true;
    for (std::uint64_t n = 0; failed; n++) {
        dm_remap_report report{};
        const FailAllocation fail(n);
        const int error = dm_remap_take_back(md_->get(), world_->spare.sectors(), &report);
        failed = fail.happened();
        EXPECT_EQ(error, failed ? -ENOMEM : 0);
        EXPECT_EQ(report.refusal != nullptr, failed);
        EXPECT_EQ(md_->records(), before);
    }
}

TEST_F(Returned, NextFlushFailsOnceIfWritesHadNotBeenFlushed) {
    const auto flush = [this](dm_remap_dev dev) {
        return dm_remap_flush_ended(md_->get(), dev, dm_remap_flush_covers(md_->get(), dev), 0);
    };
    for (const bool flushed : {false, true}) {
        begin();
        dm_remap_spare_write_begins(md_->get());
        dm_remap_spare_write_ended(md_->get(), true);
        if (flushed) {
            EXPECT_EQ(flush(DM_REMAP_SPARE), 0);
        }
        unplug();
        plug_in();
        expect_to_serve_on();
        EXPECT_EQ(flush(DM_REMAP_MAIN), 0);
        EXPECT_EQ(flush(DM_REMAP_SPARE), flushed ? 0 : -EIO);
        EXPECT_EQ(flush(DM_REMAP_SPARE), 0);
        EXPECT_TRUE(dm_remap_spare_is_flushed(md_->get()));
    }
}

// One that cannot be taken has no say in what a flush tells.
TEST_F(Returned, RefusalTellsNoFlush) {
    const Image older = world_->spare.image();
    EXPECT_EQ(md_->remap(300), 0);
    dm_remap_spare_write_begins(md_->get());
    dm_remap_spare_write_ended(md_->get(), true);
    unplug();
    plug_in();
    world_->spare.restore(older);
    expect_refused("an older copy");
    EXPECT_EQ(dm_remap_flush_ended(md_->get(), DM_REMAP_SPARE, 0, 0), 0);
}

}  // namespace
}  // namespace remap

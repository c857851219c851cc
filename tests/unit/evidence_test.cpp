// Others' I/O as evidence that main works.
#include <gtest/gtest.h>

#include "rig.h"

namespace remap {
namespace {

class Evidence : public ::testing::Test {
  protected:
    void SetUp() override {
        world_ = formatted();
        md_ = open(*world_);
    }
    bool plain() { return dm_remap_way_is_plain(md_->get(), 0, 8); }
    void open_breaker(dm_remap_direction direction) {
        std::array<std::uint8_t, 8 * kSector> data{};
        world_->main.fail_read = [](auto, auto) { return -EIO; };
        world_->main.on_write = [](auto, auto, auto) { return -EIO; };
        for (unsigned i = 0; i < DM_REMAP_BREAKER_LIMIT; i++) {
            dm_remap_tried tried{dm_remap_main_failed(md_->get(), direction), 8};
            Mover m(*md_);
            dm_remap_redo_begin(m.get());
            EXPECT_EQ(direction == DM_REMAP_READ
                          ? dm_remap_redo_read(m.get(), 0, 8, data.data(), &tried)
                          : dm_remap_redo_write(m.get(), 0, 8, data.data(), &tried),
                      -EIO);
            EXPECT_EQ(dm_remap_redo_end(m.get()), 0);
        }
        ASSERT_TRUE((*md_)->breaker[direction].open);
    }

    std::unique_ptr<World> world_;
    std::unique_ptr<Metadata> md_;
};

TEST_F(Evidence, CountsFromTheFailureOn) {
    const std::uint64_t before = dm_remap_main_failures(md_->get(), DM_REMAP_READ);
    const std::uint64_t failure = dm_remap_main_failed(md_->get(), DM_REMAP_READ);
    dm_remap_main_worked(md_->get(), DM_REMAP_READ, before);
    EXPECT_FALSE(dm_remap_main_works(md_->get(), DM_REMAP_READ, failure));
    dm_remap_main_worked(md_->get(), DM_REMAP_WRITE, failure);
    EXPECT_FALSE(dm_remap_main_works(md_->get(), DM_REMAP_READ, failure));
    dm_remap_main_worked(md_->get(), DM_REMAP_READ, failure);
    EXPECT_TRUE(dm_remap_main_works(md_->get(), DM_REMAP_READ, failure));
    // One that was sent earlier, and ends late, takes nothing back.
    dm_remap_main_worked(md_->get(), DM_REMAP_READ, before);
    EXPECT_TRUE(dm_remap_main_works(md_->get(), DM_REMAP_READ, failure));
}

TEST_F(Evidence, AWriteCountsWhenItIsDurable) {
    const std::uint64_t failure = dm_remap_main_failed(md_->get(), DM_REMAP_WRITE);
    const std::uint64_t early = dm_remap_main_flush_begins(md_->get());
    dm_remap_main_cached(md_->get(), failure);
    EXPECT_FALSE(dm_remap_main_works(md_->get(), DM_REMAP_WRITE, failure));
    // A flush that began before the write ended covers it not.
    dm_remap_main_worked(md_->get(), DM_REMAP_WRITE, early);
    EXPECT_FALSE(dm_remap_main_works(md_->get(), DM_REMAP_WRITE, failure));
    dm_remap_main_worked(md_->get(), DM_REMAP_WRITE, dm_remap_main_flush_begins(md_->get()));
    EXPECT_TRUE(dm_remap_main_works(md_->get(), DM_REMAP_WRITE, failure));
}

// Without I/O main is asked to read, less and less often, and never to write.
TEST_F(Evidence, ABreakerOfReadsClosesWithoutIo) {
    Mover m(*md_);
    open_breaker(DM_REMAP_READ);
    EXPECT_EQ(dm_remap_breaker_probe(m.get()), DM_REMAP_BREAKER_PAUSE);
    unsigned reads = 0;
    world_->main.fail_read = [&](auto, auto) {
        reads++;
        return -EIO;
    };
    std::uint32_t pause = DM_REMAP_BREAKER_PAUSE;
    for (unsigned i = 0; i < 8; i++) {
        world_->uptime += pause - 1;
        reads = 0;
        EXPECT_EQ(dm_remap_breaker_probe(m.get()), 1U);
        EXPECT_EQ(reads, 0U);
        world_->uptime++;
        const std::uint32_t next = dm_remap_breaker_probe(m.get());
        EXPECT_NE(reads, 0U);
        EXPECT_EQ(next, std::min(2 * pause, 320U));
        pause = next;
    }
    world_->main.fail_read = nullptr;
    world_->uptime += pause;
    EXPECT_EQ(dm_remap_breaker_probe(m.get()), 0U);
    EXPECT_FALSE(dm_remap_breaker_open(md_->get()));
    open_breaker(DM_REMAP_WRITE);
    world_->main.on_write = nullptr;
    const std::uint64_t writes = world_->main.writes();
    world_->main.fail_read = nullptr;
    world_->uptime += pause;
    EXPECT_EQ(dm_remap_breaker_probe(m.get()), 0U);
    EXPECT_TRUE(dm_remap_breaker_open(md_->get()));
    EXPECT_EQ(world_->main.writes(), writes);
}

// I/O costs nothing more but while a failure waits to be judged.
TEST_F(Evidence, IsTakenWhileAFailureWaits) {
    EXPECT_TRUE(plain());
    (void)dm_remap_main_failed(md_->get(), DM_REMAP_READ);
    EXPECT_FALSE(plain());
    EXPECT_TRUE(dm_remap_table_watched(&(*md_)->table));
    dm_remap_watch_ends(md_->get());
    EXPECT_TRUE(plain());
    // Records, and a table that is closed, do not get in its way.
    ASSERT_EQ(md_->commit({pending(100)}), 0);
    (void)dm_remap_main_failed(md_->get(), DM_REMAP_READ);
    EXPECT_FALSE(dm_remap_way_is_plain(md_->get(), 1ULL << 14, 8));
    dm_remap_watch_ends(md_->get());
    EXPECT_TRUE(dm_remap_way_is_plain(md_->get(), 1ULL << 14, 8));
    dm_remap_table_close(&(*md_)->table);
    dm_remap_watch_ends(md_->get());
    EXPECT_FALSE(dm_remap_way_is_plain(md_->get(), 1ULL << 14, 8));
}

TEST_F(Evidence, TheBreakerIsWatched) {
    open_breaker(DM_REMAP_READ);
    dm_remap_watch_ends(md_->get());
    EXPECT_FALSE(plain());
    dm_remap_breaker_reset(md_->get());
    dm_remap_watch_ends(md_->get());
    EXPECT_TRUE(plain());
}

// The first thing that main does well, for whomever.
TEST_F(Evidence, OthersCloseTheBreaker) {
    for (const dm_remap_direction direction : {DM_REMAP_READ, DM_REMAP_WRITE}) {
        open_breaker(direction);
        const std::uint64_t failures = dm_remap_main_failures(md_->get(), direction);
        dm_remap_main_worked(md_->get(), direction, failures - 1);
        EXPECT_FALSE(dm_remap_breaker_due(md_->get()));
        dm_remap_main_worked(md_->get(), direction, failures);
        EXPECT_TRUE(dm_remap_breaker_due(md_->get()));
        EXPECT_TRUE(dm_remap_breaker_open(md_->get()));
        dm_remap_breaker_look(md_->get());
        EXPECT_FALSE(dm_remap_breaker_open(md_->get()));
        EXPECT_FALSE(dm_remap_breaker_due(md_->get()));
    }
}

}  // namespace
}  // namespace remap

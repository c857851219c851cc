// What the tests of the protocol share. Each plays the history that breaks without one rule of it.
#pragma once

#include <functional>
#include <memory>

#include "rig.h"

namespace remap {

inline constexpr std::uint64_t kFirst = 16;  // the first sequence of a ring of 16

// Lets writes of metadata through up to the @n-th from now on, which the power failure interrupts.
// What was not flushed is lost.
inline void cut_power_at(World& world, std::uint64_t n, const std::function<void()>& work) {
    world.spare.power_off_at_write(world.spare.writes() + n);
    work();
    world.spare.power_off();
    world.spare.power_on([](auto, auto) { return false; });
}

// A table, and a journal that goes on from it.
inline std::unique_ptr<World> world_with_records() {
    auto world = formatted({.spare_sectors = 1024});
    auto md = open(*world);
    EXPECT_EQ(md->remap(100, 8), 0);
    EXPECT_EQ(md->checkpoint(), 0);
    EXPECT_EQ(md->remap(200, 8), 0);
    EXPECT_EQ(md->commit({clear(102, 2), retired(md->take())}), 0);
    return world;
}

// Two commits in the journal; returns the records.
inline Records two_commits(World& world) {
    auto md = open(world);
    EXPECT_EQ(md->remap(100), 0);
    EXPECT_EQ(md->remap(200), 0);
    return md->records();
}

// The superblock at the end of the spare can be neither read nor written.
inline void superblock_1_fails(World& world) {
    const dm_remap_layout layout = super_at(world, 0).layout;
    const std::uint64_t tail = dm_remap_superblock_at(&layout, 1);
    unreadable_block(world, tail);
    world.spare.bad_write.insert(tail * kBlockSectors);
}

}  // namespace remap

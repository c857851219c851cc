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

}  // namespace remap

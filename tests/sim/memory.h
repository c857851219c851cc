// Memory that runs out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "random.h"
#include "stats.h"

namespace remap::sim {

// What the core allocates fails as the seed has it. One at a time in a process: the core's hook has
// no context.
class Memory {
  public:
    Memory(Random& random, Stats& stats);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // From now on some allocations fail: a few in a row, or one in so many.
    void run_short();
    // From now on none fails.
    void plenty() { ahead_ = row_ = one_in_ = 0; }
    // May the next one fail, or one after it?
    bool is_short() const { return row_ != 0 || one_in_ != 0; }
    // So many have failed.
    std::uint64_t failures() const { return failures_; }

  private:
    bool allocate();

    Random& random_;
    Stats& stats_;
    std::uint64_t ahead_ = 0;   // so many succeed,
    std::uint64_t row_ = 0;     // and then so many fail
    std::uint64_t one_in_ = 0;  // 0: none
    std::uint64_t failures_ = 0;
};

}  // namespace remap::sim

#include "memory.h"

#include "core.h"
#include "trace.h"

namespace remap::sim {

static Memory* current = nullptr;

Memory::Memory(Random& random, Stats& stats) : random_(random), stats_(stats) {
    current = this;
    dm_remap_zalloc_hook = [](std::size_t) { return current->allocate(); };
}

Memory::~Memory() {
    dm_remap_zalloc_hook = nullptr;
    current = nullptr;
}

void Memory::run_short() {
    plenty();
    if (random_.one_in(4)) {
        one_in_ = random_.between(2, 16);
        trace("    memory is short: 1 of %lu fails", one_in_);
    } else {
        ahead_ = random_.below(1UL << random_.below(6));
        row_ = random_.one_in(3) ? random_.between(1, 6) : 1;
        trace("    memory is short: %lu, and then %lu fail", ahead_, row_);
    }
}

bool Memory::allocate() {
    bool fails = false;
    if (one_in_ != 0) {
        fails = random_.one_in(one_in_);
    } else if (ahead_ != 0) {
        ahead_--;
    } else if (row_ != 0) {
        row_--;
        fails = true;
    }
    if (fails) {
        failures_++;
        stats_[kNoMemory]++;
        trace("        no memory");
    }
    return !fails;
}

}  // namespace remap::sim

// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <memory>
#include <new>

#include "core.h"

namespace remap {

struct CoreFree {
    void operator()(void* p) const { dm_remap_free(p); }
};

// One block, zeroed, aligned for direct I/O.
using BlockBuffer = std::unique_ptr<dm_remap_disk_block, CoreFree>;

inline BlockBuffer make_block_buffer() {
    BlockBuffer buffer(static_cast<dm_remap_disk_block*>(dm_remap_zalloc(DM_REMAP_BLOCK_SIZE)));
    if (!buffer) {
        throw std::bad_alloc();
    }
    return buffer;
}

}  // namespace remap

// Valid spares to begin with, made by the core itself.
#pragma once

#include <cstdint>
#include <vector>

#include "memory_disk.h"

namespace remap::fuzz {

struct BaseImage {
    Bytes bytes;
    std::uint64_t main_sectors;
};

// Moments in the life of a spare, in order of time; and then of another one, whose blocks are of
// 4 KiB. All are laid out alike, so that parts of one can be put in another.
const std::vector<BaseImage>& base_images();

}  // namespace remap::fuzz

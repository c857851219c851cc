// Asynchronous I/O to one device at a constant depth, and the time of it by the monotonic clock.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace remap::bench {

struct Load {
    bool write = false;
    uint32_t bytes = 4096;  // of each I/O
    unsigned depth = 1;
};

// Nanoseconds an I/O, over all of these sectors in their order. Throws if one fails.
double time_per_io(const std::string& path, const Load& load, std::span<const uint64_t> sectors);

}  // namespace remap::bench

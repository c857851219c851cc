// Sectors that say what they are: which sector, of which write, in every word of theirs.
#pragma once

#include <cstdint>
#include <cstring>

#include "sim_disk.h"

namespace remap::sim {

// The number of a write. 0 is none.
using WriteId = std::uint32_t;

inline constexpr std::uint64_t kStride = 0x9E3779B97F4A7C15U;

inline void stamp(std::uint8_t* sector, std::uint32_t number, WriteId id) {
    std::uint64_t word = (std::uint64_t{number} << 32) | id;
    for (std::uint32_t i = 0; i < kSector; i += sizeof(word), word += kStride) {
        std::memcpy(sector + i, &word, sizeof(word));
    }
}

// The write that @sector holds whole, of sector @number; 0: it is something else.
inline WriteId identify(const std::uint8_t* sector, std::uint32_t number) {
    std::uint64_t word = 0;
    std::uint64_t difference = 0;
    std::memcpy(&word, sector, sizeof(word));
    const auto id = static_cast<WriteId>(word);
    word = (std::uint64_t{number} << 32) | id;
    for (std::uint32_t i = 0; i < kSector; i += sizeof(word), word += kStride) {
        std::uint64_t found = 0;
        std::memcpy(&found, sector + i, sizeof(found));
        difference |= found ^ word;
    }
    return difference == 0 ? id : 0;
}

}  // namespace remap::sim

// Records by the thousand, and superblocks as a case wants them: made with the core's own code in
// user space, while no device uses the spare.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "core.h"

namespace remap::vm {

// Maps `count` single sectors of the mapped device, first, first + stride, ..., as the kernel
// would: data on the spare (the pattern of those sectors under `seed`), then the record. The spare
// must be formatted.
void map_sectors(const std::string& spare, uint64_t first, uint64_t stride, uint64_t count,
                 uint64_t seed);

// Maps these sectors, ascending, and writes no data: for those who read none.
void map_sectors(const std::string& spare, std::span<const uint64_t> sectors);

// Changes one superblock of a spare (0: head, 1: tail) and gives it a right CRC again.
void edit_superblock(const std::string& spare, int replica,
                     const std::function<void(dm_remap_disk_superblock&)>& edit);

// Where superblock 1 lies, in sectors.
uint64_t tail_superblock(const std::string& spare);

}  // namespace remap::vm

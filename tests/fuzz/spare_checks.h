// What must hold of a spare that the core has accepted.
#pragma once

#include "disk_reader.h"
#include "memory_disk.h"

namespace remap::fuzz {

// Table, totals and allocator hold what @reading says, and each lookup answers so.
void check_memory(Metadata& md, const Reading& reading);

// The spare as it is now can be loaded, and says what @md has in memory.
void check_reload(Metadata& md, const char* when);

// Commits, and a checkpoint, work on it as on any other spare.
void check_use(Metadata& md);

}  // namespace remap::fuzz

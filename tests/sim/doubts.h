// What the core knows of commits that failed, which no header of its own tells others.
#pragma once

#include <vector>

#include "core.h"

namespace remap::sim {

// Entries of such commits with a place on the spare, which nobody else may get while the doubt
// stands.
std::vector<dm_remap_record> doubted_places(const dm_remap_metadata& md);

}  // namespace remap::sim

// From a history that fails to a short one that fails in the same way.
#pragma once

#include "play.h"

namespace remap::sim {

// @outcome: how @plan fails.
Plan shrink(Plan plan, const Outcome& outcome);

}  // namespace remap::sim

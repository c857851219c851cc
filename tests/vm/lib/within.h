// For what comes to be true a little later.
#pragma once

#include <chrono>
#include <functional>

namespace remap::vm {

// Asks again and again; false if it is not true after so long.
bool within(std::chrono::milliseconds time, const std::function<bool()>& condition);

}  // namespace remap::vm

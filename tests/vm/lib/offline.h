// Spares that no device uses, judged in this process: a dm-remapctl a time takes half a second on
// an emulated processor.
#pragma once

#include <string>

#include <gtest/gtest.h>

#include "core.h"

namespace remap::vm {

// Would `dm-remapctl check` call the spare, a device or an image of one, sound?
testing::AssertionResult is_sound(const std::string& spare);

// Main as the spare knows it.
dm_remap_main_id known_main(const std::string& spare);

}  // namespace remap::vm

// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "offline_spare.h"

namespace remap {

enum class Soundness {
    sound,
    damaged,   // whole, but one copy of something is bad
    unusable,  // it cannot be proved whole: activation refuses
};

std::string_view soundness_name(Soundness soundness);

struct SpareHealth {
    Soundness soundness = Soundness::sound;
    std::string refusal = {};           // why it is unusable
    std::vector<std::string> problems;  // what makes it less than sound
    std::vector<std::string> notes;     // what an ordinary life leaves behind, power cuts included
};

// Of a spare that load() was called for.
SpareHealth judge(const OfflineSpare& spare, u64 device_sectors);

std::string_view disk_state_name(u32 state);

}  // namespace remap

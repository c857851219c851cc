// SPDX-License-Identifier: GPL-2.0-only
// What the verbs that send a message have in common.
#pragma once

#include <string>
#include <string_view>

#include "commands.h"
#include "target_spec.h"

namespace remap {

// Sends @text to @name, and parses the key=value reply.
Result<KeyValues> send_message(DmClient& dm, const std::string& name, const std::string& text);

// Sends "<verb> <sector> [<count>]".
Result<KeyValues> send_range_message(DmClient& dm, std::string_view verb,
                                     const RangeOptions& options);

}  // namespace remap

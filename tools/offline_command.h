// SPDX-License-Identifier: GPL-2.0-only
// What check and dump have in common.
#pragma once

#include "block_device.h"
#include "commands.h"
#include "spare_health.h"

namespace remap {

// Opens the spare for reading. One that is in use is refused without --force.
Result<BlockDevice> open_offline(const OfflineOptions& options);

ExitCode exit_code(Soundness soundness);

}  // namespace remap

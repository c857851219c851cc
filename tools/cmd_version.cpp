// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "core.h"

namespace remap {

Result<ExitCode> cmd_version(DmClient& dm) {
    fmt::print("dm-remapctl {}\n", DM_REMAPCTL_VERSION);
    fmt::print("metadata format {}\n", DM_REMAP_VERSION);
    // Asking needs root and device-mapper; the rest is worth knowing without.
    if (const auto version = dm.target_version(); !version) {
        fmt::print("target unknown: {}\n", version.error().what());
    } else if (!*version) {
        fmt::print("target not loaded\n");
    } else {
        fmt::print("target {}\n", fmt::join(**version, "."));
    }
    return ExitCode::done;
}

}  // namespace remap

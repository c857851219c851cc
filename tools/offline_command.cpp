// SPDX-License-Identifier: GPL-2.0-only
#include "offline_command.h"

#include <fmt/format.h>

namespace remap {

Result<BlockDevice> open_offline(const OfflineOptions& options) {
    Result<BlockDevice> spare = BlockDevice::open(options.spare, Access::read, Sharing::exclusive);
    if (spare) {
        return spare;
    }
    Result<BlockDevice> shared = BlockDevice::open(options.spare, Access::read, Sharing::shared);
    if (!shared) {
        return pass_on(shared);
    }
    if (!options.force) {
        return fail(std::move(spare).error().advise(
            "What it holds changes meanwhile. `dm-remapctl restore` checks the spare of a live "
            "device; --force looks at it all the same."));
    }
    fmt::print(stderr, "dm-remapctl: warning: {}; what it holds may change meanwhile\n",
               spare.error().what());
    return shared;
}

ExitCode exit_code(Soundness soundness) {
    switch (soundness) {
        case Soundness::sound:
            return ExitCode::done;
        case Soundness::damaged:
            return ExitCode::attention;
        case Soundness::unusable:
            break;
    }
    return ExitCode::error;
}

}  // namespace remap

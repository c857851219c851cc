// SPDX-License-Identifier: GPL-2.0-only
#include "commands.h"
#include "remap_device.h"

namespace remap {

Result<ExitCode> cmd_remove(DmClient& dm, const RemoveOptions& options) {
    Result<MappedDevice> device = dm.table(options.name);
    if (!device) {
        return pass_on(device);
    }
    if (!is_ours(*device)) {
        return fail(not_ours(*device));
    }
    if (options.force) {
        if (Result<void> replaced = dm.replace_by_error(options.name); !replaced) {
            return pass_on(replaced);
        }
    }
    const Removal removal = options.deferred ? Removal::deferred : Removal::now;
    if (Result<void> removed = dm.remove(options.name, removal); !removed) {
        return pass_on(removed);
    }
    return ExitCode::done;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include <optional>

#include "commands.h"
#include "device_use.h"
#include "offline_spare.h"
#include "remap_device.h"
#include "text.h"
#include "witness.h"

namespace remap {
namespace {

// What the stop, which is a save, has left. Nothing if somebody else has the spare already.
std::optional<Witness> witness_of_stopped(const TableParams& table) {
    const Result<BlockDevice> device =
        BlockDevice::open(device_path(table.spare), Access::read, Sharing::exclusive);
    if (!device) {
        return std::nullopt;
    }
    OfflineSpare spare(*device);
    if (!spare.load() || uuid_text(spare.super().uuid) != table.uuid) {
        return std::nullopt;
    }
    return Witness{.generation = spare.witness().generation, .sequence = spare.witness().sequence};
}

Result<void> keep_last_witness(const TableParams& table, const std::string& path) {
    const std::optional<Witness> last = witness_of_stopped(table);
    return last ? keep_witness(path, table.uuid, *last) : Result<void>();
}

}  // namespace

Result<ExitCode> cmd_remove(DmClient& dm, const RemoveOptions& options) {
    Result<MappedDevice> device = dm.table(options.name);
    if (!device) {
        return pass_on(device);
    }
    if (!is_ours(*device)) {
        return fail(not_ours(*device));
    }
    std::optional<TableParams> table;
    if (!options.witness.empty()) {
        // While it is there, in case that is all that can be had, or the file is no good.
        Result<TableParams> kept = keep_witness_of(dm, options.name, options.witness);
        if (!kept) {
            return pass_on(kept);
        }
        table = std::move(*kept);
    }
    if (options.force) {
        if (Result<void> replaced = dm.replace_by_error(options.name); !replaced) {
            return pass_on(replaced);
        }
    }
    const Removal removal = options.deferred ? Removal::deferred : Removal::now;
    if (Result<void> removed = dm.remove(options.name, removal); !removed) {
        return fail(options.force ? std::move(removed).error().within(
                                        "main and spare are free, and all I/O fails, but it stays")
                                  : std::move(removed).error());
    }
    if (table) {
        if (Result<void> kept = keep_last_witness(*table, options.witness); !kept) {
            return pass_on(kept, options.name + ": is removed, but");
        }
    }
    return ExitCode::done;
}

}  // namespace remap

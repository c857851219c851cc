// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include <optional>

#include "commands.h"
#include "device_use.h"
#include "offline_spare.h"
#include "remap_device.h"
#include "text.h"
#include "witness.h"

namespace remap {
namespace {

// What it maps; nothing: it is let go, and only its name is left, or the module is a newer one.
std::optional<TableParams> read_table(const MappedDevice& device) {
    if (!has_remap_table(device)) {
        return std::nullopt;
    }
    Result<TableParams> table = parse_table_params(device.targets.front().params);
    return table ? std::optional(std::move(*table)) : std::nullopt;
}

// The stop is a save of its own. Looks at what it has left on the spare, and notes it in the
// witness file @path, if there is one.
Result<void> check_stop(const TableParams& table, const std::string& path) {
    const Result<BlockDevice> device =
        BlockDevice::open(device_path(table.spare), Access::read, Sharing::exclusive);
    if (!device) {
        // Somebody else has it already, or it is gone. That is no error of the removal.
        fmt::print(stderr, "dm-remapctl: what the last save has left cannot be looked at{}: {}\n",
                   path.empty() ? "" : ", and the witness is of before", device.error().text());
        return {};
    }
    OfflineSpare spare(*device);
    if (!spare.load()) {
        return fail(fmt::format("{}: {}", device->path(), spare.refusal()));
    }
    if (uuid_text(spare.super().uuid) != table.uuid) {
        return fail(device->path() + ": is another spare by now");
    }
    if (!path.empty()) {
        const dm_remap_witness& reached = spare.witness();
        Result<void> kept = keep_witness(
            path, table.uuid, {.generation = reached.generation, .sequence = reached.sequence});
        if (!kept) {
            return pass_on(kept);
        }
    }
    if (spare.super().state != DM_REMAP_STATE_CLEAN) {
        return fail(Error(device->path() + ": the last save did not reach it")
                        .advise("What was remapped is on it all the same, as after a crash; what "
                                "was only counted, or found unreadable, since the save before is "
                                "not. See `dm-remapctl check`."));
    }
    return {};
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
    const std::optional<TableParams> table = read_table(*device);
    if (has_remap_table(*device) && !options.witness.empty()) {
        // While it is there, in case that is all that can be had, or the file is no good.
        Result<TableParams> kept = keep_witness_of(dm, options.name, options.witness);
        if (!kept) {
            return pass_on(kept);
        }
    }
    if (options.force) {
        if (Result<void> replaced = dm.replace_by_error(options.name); !replaced) {
            return pass_on(replaced);
        }
    }
    Result<void> removed =
        dm.remove(options.name, options.deferred ? Removal::deferred : Removal::now);
    if (removed && options.deferred && is_there(dm, options.name)) {
        if (!options.witness.empty()) {
            fmt::print(stderr,
                       "dm-remapctl: {}: goes when its last user closes it, and {} does not hear "
                       "of that\n",
                       options.name, options.witness);
        }
        return ExitCode::done;
    }
    Result<void> stopped;
    if (table && !device->read_only && (removed || options.force)) {
        stopped = check_stop(*table, options.witness);
    }
    if (!removed) {
        if (!stopped) {
            fmt::print(stderr, "dm-remapctl: {}\n", stopped.error().text());
        }
        return fail(options.force ? std::move(removed).error().within(
                                        "main and spare are free, and all I/O fails, but it stays")
                                  : std::move(removed).error());
    }
    if (!stopped) {
        return pass_on(stopped, options.name + ": is removed, but");
    }
    return ExitCode::done;
}

}  // namespace remap

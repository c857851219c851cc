// SPDX-License-Identifier: GPL-2.0-only
#include "remap_device.h"

#include <fmt/format.h>

#include <algorithm>

namespace remap {
namespace {

Result<RemapDevice> parse_device(const MappedDevice& with_status, const MappedDevice& with_table) {
    const MappedTarget& target = with_status.targets.front();
    Result<TargetStatus> status = parse_status(target.params);
    if (!status) {
        return pass_on(status, with_status.name);
    }
    Result<TableParams> table = parse_table_params(with_table.targets.front().params);
    if (!table) {
        return pass_on(table, with_status.name);
    }
    return RemapDevice{.name = with_status.name,
                       .uuid = with_status.uuid,
                       .sectors = target.length,
                       .suspended = with_status.suspended,
                       .read_only = with_status.read_only,
                       .table = std::move(*table),
                       .status = std::move(*status)};
}

}  // namespace

bool is_there(DmClient& dm, const std::string& name) {
    const Result<std::vector<std::string>> names = dm.names();
    return !names || std::find(names->begin(), names->end(), name) != names->end();
}

bool has_remap_table(const MappedDevice& device) {
    return device.targets.size() == 1 && device.targets.front().type == target_name;
}

bool is_ours(const MappedDevice& device) {
    return has_remap_table(device) || device.uuid.starts_with(device_uuid_prefix);
}

Error not_ours(const MappedDevice& device) {
    const std::string type = device.targets.empty() ? "empty" : device.targets.front().type;
    if (is_ours(device) && device.targets.empty()) {
        return Error(fmt::format("{}: has no table yet", device.name))
            .advise(
                "It is being created. If it stays like this, that was interrupted: "
                "`dm-remapctl remove` takes it away.");
    }
    if (is_ours(device)) {
        return Error(fmt::format("{}: is let go, its table is {}", device.name, type))
            .advise("It has neither main nor spare any more: `dm-remapctl remove` takes it away.");
    }
    return Error(fmt::format("{}: is no remap device, its table is {}", device.name, type))
        .advise("See `dm-remapctl status` for those that there are.");
}

Result<RemapDevice> read_remap_device(DmClient& dm, const std::string& name) {
    Result<MappedDevice> with_status = dm.status(name);
    if (!with_status) {
        return pass_on(with_status);
    }
    Result<MappedDevice> with_table = dm.table(name);
    if (!with_table) {
        return pass_on(with_table);
    }
    if (!has_remap_table(*with_status) || !has_remap_table(*with_table)) {
        return fail(not_ours(*with_status));
    }
    return parse_device(*with_status, *with_table);
}

Result<RemapDevices> read_remap_devices(DmClient& dm) {
    Result<std::vector<std::string>> names = dm.names();
    if (!names) {
        return pass_on(names);
    }
    std::sort(names->begin(), names->end());
    RemapDevices found;
    for (const std::string& name : *names) {
        Result<MappedDevice> with_table = dm.table(name);
        if (with_table && !is_ours(*with_table)) {
            continue;
        }
        Result<RemapDevice> device = read_remap_device(dm, name);
        if (device) {
            found.devices.push_back(std::move(*device));
        } else if (is_there(dm, name)) {
            found.errors.push_back(std::move(device).error());
        }
    }
    return found;
}

// Of the word that the kernel has for it. A newer one may have others.
static std::string refusal_text(const std::string& why) {
    if (why == "spare_full") {
        return "a relocation was refused: the spare is full";
    }
    if (why == "table_full") {
        return "a relocation was refused: the table on the spare is full";
    }
    if (why == "no_room_beneath") {
        return "a relocation was refused: the device beneath the spare, such as a thin pool, is "
               "full; make room there";
    }
    if (why == "spare_fails") {
        return "a relocation was refused: the spare does not take the data, see the kernel's log";
    }
    if (why == "main_refuses") {
        return "main refuses a whole range, which counts as bad no longer: is it locked, or does "
               "the adapter not reach that far?";
    }
    return "a relocation was refused: " + why;
}

std::vector<std::string> needs_attention(const RemapDevice& device) {
    const TargetStatus& status = device.status;
    std::vector<std::string> reasons;
    if (device.suspended) {
        reasons.emplace_back("it is suspended: all its I/O waits");
    }
    switch (status.mode) {
        case Mode::rw:
            break;
        case Mode::degraded:
            reasons.emplace_back("one copy of the table on the spare is bad");
            break;
        case Mode::ro:
            reasons.emplace_back("the spare takes no records: new errors are not remapped");
            break;
        case Mode::fail:
            reasons.emplace_back(
                device.suspended || status.spare_total == 0
                    ? "the table is not loaded"
                    : "another system has taken the spare: all its I/O fails, see recovery.md");
            break;
    }
    if (status.state == State::error) {
        reasons.emplace_back("the last save failed");
    }
    if (status.breaker == "open") {
        reasons.emplace_back("main failed as a whole: sectors that fail are not remapped");
    }
    if (!status.refusing.empty() && status.refusing != "no") {
        reasons.push_back(refusal_text(status.refusing));
    }
    if (status.pending != 0) {
        reasons.push_back(fmt::format("{} sectors cannot be read", status.pending));
    }
    if (status.unreadable != 0) {
        reasons.push_back(fmt::format("{} sectors cannot be read on the spare", status.unreadable));
    }
    if (status.mode == Mode::fail) {
        return reasons;
    }
    // 90 % used.
    if (status.spare_free <= status.spare_total / 10) {
        reasons.push_back(fmt::format("only {} of {} spare sectors are free", status.spare_free,
                                      status.spare_total));
    }
    if (status.records_free <= (status.records + status.records_free) / 10) {
        reasons.push_back(
            fmt::format("the table has room for only {} records more", status.records_free));
    }
    return reasons;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include <algorithm>

#include "commands.h"
#include "device_use.h"
#include "output_json.h"
#include "output_table.h"
#include "remap_device.h"
#include "text.h"

namespace remap {
namespace {

Result<RemapDevices> read_devices(DmClient& dm, const std::string& name) {
    if (name.empty()) {
        return read_remap_devices(dm);
    }
    Result<RemapDevice> device = read_remap_device(dm, name);
    if (!device) {
        return pass_on(device);
    }
    return RemapDevices{.devices = {std::move(*device)}, .errors = {}};
}

void print_overview(const std::vector<RemapDevice>& devices) {
    OutputTable table({{"NAME"},
                       {"MODE"},
                       {"STATE"},
                       {"SIZE", Align::right},
                       {"MAIN"},
                       {"SPARE"},
                       {"RECORDS", Align::right},
                       {"REMAPPED", Align::right},
                       {"PENDING", Align::right},
                       {"SPARE FREE", Align::right}});
    for (const RemapDevice& device : devices) {
        const TargetStatus& status = device.status;
        table.add_row({device.name, std::string(mode_name(status.mode)),
                       std::string(state_name(status.state)), size_text(device.sectors),
                       device_path(device.table.main), device_path(device.table.spare),
                       std::to_string(status.records), size_text(status.remapped),
                       size_text(status.pending), size_text(status.spare_free)});
    }
    table.print();
}

void print_details(const RemapDevice& device) {
    const TargetStatus& status = device.status;
    OutputTable table({{""}, {""}});
    table.add_row({"name", device.name});
    table.add_row({"size", size_text(device.sectors)});
    table.add_row({"main", fmt::format("{} from sector {}", device_path(device.table.main),
                                       device.table.main_start)});
    table.add_row(
        {"spare", fmt::format("{}, UUID {}", device_path(device.table.spare), device.table.uuid)});
    table.add_row({"mode", fmt::format("{}{}", mode_name(status.mode),
                                       device.suspended ? ", suspended" : "")});
    table.add_row(
        {"state", fmt::format("{}, generation {}", state_name(status.state), status.generation)});
    table.add_row(
        {"records", fmt::format("{}, room for {} more", status.records, status.records_free)});
    table.add_row({"remapped", size_text(status.remapped)});
    if (status.unreadable != 0) {
        table.add_row({"unreadable", size_text(status.unreadable)});
    }
    table.add_row({"pending", size_text(status.pending)});
    table.add_row(
        {"spare space", fmt::format("{} free of {}, {} retired", size_text(status.spare_free),
                                    size_text(status.spare_total), size_text(status.retired))});
    table.add_row(
        {"errors", fmt::format("{} reads, {} writes", status.read_errors, status.write_errors)});
    table.add_row({"relocations", fmt::format("{} after writes, {} rescued, {} refused",
                                              status.relocated, status.rescued, status.refused)});
    if (status.recovered != 0) {
        table.add_row({"recovered", fmt::format("{} ranges that were pending", status.recovered)});
    }
    if (!status.breaker.empty()) {
        table.add_row({"breaker", status.breaker});
    }
    if (!status.refusing.empty()) {
        table.add_row({"refusing", status.refusing});
    }
    table.add_row(
        {"journal", fmt::format("{} of {} blocks used", status.journal_used, status.journal_size)});
    table.add_row(
        {"saves", fmt::format("{}, {} failed, last {}; autosave {}", status.saves,
                              status.save_errors, time_text(status.last_save), status.autosave)});
    if (status.witness) {
        table.add_row({"witness", witness_text(*status.witness)});
    }
    for (const auto& [key, value] : status.other) {
        table.add_row({key, value});
    }
    table.print();
}

Json status_json(const RemapDevices& found) {
    Json document = json_document();
    document["devices"] = array_json(found.devices);
    document["errors"] = Json::array();
    for (const Error& error : found.errors) {
        document["errors"].push_back(error.what());
    }
    return document;
}

}  // namespace

Result<ExitCode> cmd_status(DmClient& dm, const StatusOptions& options) {
    Result<RemapDevices> found = read_devices(dm, options.name);
    if (!found) {
        return pass_on(found);
    }
    if (options.json) {
        print_json(status_json(*found));
    } else if (!options.name.empty()) {
        print_details(found->devices.front());
    } else if (!found->devices.empty()) {
        print_overview(found->devices);
    }
    ExitCode code = ExitCode::done;
    for (const RemapDevice& device : found->devices) {
        for (const std::string& reason : needs_attention(device)) {
            code = ExitCode::attention;
            if (!options.json) {
                fmt::print("{}: attention: {}\n", device.name, reason);
            }
        }
    }
    for (const Error& error : found->errors) {
        fmt::print(stderr, "dm-remapctl: {}\n", error.text());
        code = ExitCode::error;
    }
    return code;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include "output_json.h"

#include <fmt/format.h>

#include "device_use.h"
#include "text.h"

namespace remap {
namespace {

constexpr int json_format_version = 1;

Json null_if_empty(const std::string& text) {
    return text.empty() ? Json() : Json(text);
}

// 0 stands for "never".
Json null_if_zero(std::uint64_t number) {
    return number == 0 ? Json() : Json(number);
}

// A value of a key that this version does not know.
Json value_json(const std::string& value) {
    const std::optional<std::uint64_t> number = parse_u64(value);
    return number ? Json(*number) : Json(value);
}

Json to_json(const dm_remap_main_id& main) {
    const std::string id = main.id_type == 0 ? "" : fmt::format("{:02x}", fmt::join(main.id, ""));
    return {{"sectors", main.sectors},           {"start", main.start},
            {"partition_start", main.partition}, {"id_type", main.id_type},
            {"id", null_if_empty(id)},           {"name", null_if_empty(main.name)}};
}

Json counters_json(const dm_remap_super& super) {
    Json counters = Json::object();
    for (unsigned int i = 0; i < DM_REMAP_NR_COUNTERS; i++) {
        counters[dm_remap_counter_name(i)] = super.counter[i];
    }
    return counters;
}

Json to_json(const dm_remap_super& super) {
    return {{"uuid", uuid_text(super.uuid)},
            {"state", disk_state_name(super.state)},
            {"generation", super.generation},
            {"activation", super.activation},
            {"activation_sequence", super.activation_sequence},
            {"nonce", super.nonce},
            {"compat", super.compat},
            {"compat_ro", super.compat_ro},
            {"incompat", super.incompat},
            {"device_blocks", super.layout.device_blocks},
            {"journal_blocks", super.layout.journal_blocks},
            {"table_blocks", super.layout.table_blocks},
            {"granularity", super.layout.granularity},
            {"active_table", super.active_table},
            {"table_copies", super.table_copies},
            {"table_count", super.table_count},
            {"table_crc", super.table_crc},
            {"table_generation", super.table_generation},
            {"records", super.records},
            {"journal_start", super.journal_start},
            {"journal_chain", super.journal_chain},
            {"main", to_json(super.main)},
            {"formatted_time", null_if_zero(super.formatted_time)},
            {"written_time", null_if_zero(super.written_time)},
            {"counters", counters_json(super)}};
}

bool is_on_main(const dm_remap_record& record) {
    return record.kind == DM_REMAP_MAPPED || record.kind == DM_REMAP_PENDING ||
           record.kind == DM_REMAP_CLEAR;
}

bool is_on_spare(const dm_remap_record& record) {
    return record.kind == DM_REMAP_MAPPED || record.kind == DM_REMAP_RETIRED;
}

}  // namespace

Json json_document() {
    return {{"json_format_version", json_format_version}};
}

void print_json(const Json& document) {
    fmt::print("{}\n", document.dump(2, ' ', false, Json::error_handler_t::replace));
}

std::string one_line(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json to_json(const Witness& witness) {
    return {{"generation", witness.generation}, {"sequence", witness.sequence}};
}

Json to_json(const RemapDevice& device) {
    const std::vector<std::string> attention = needs_attention(device);
    Json json = {{"name", device.name},
                 {"uuid", null_if_empty(device.uuid)},
                 {"sectors", device.sectors},
                 {"suspended", device.suspended},
                 {"read_only", device.read_only},
                 {"main", device_path(device.table.main)},
                 {"main_start", device.table.main_start},
                 {"spare", device_path(device.table.spare)},
                 {"spare_uuid", null_if_empty(device.table.uuid)},
                 {"auto_remap", !device.table.no_auto_remap},
                 {"verify_spare_writes", device.table.verify_spare_writes},
                 {"needs_attention", !attention.empty()},
                 {"attention", attention},
                 {"mode", mode_name(device.status.mode)},
                 {"state", state_name(device.status.state)}};
    for (const StatusNumber& number : status_numbers()) {
        json[std::string(number.key)] = device.status.*number.member;
    }
    json["last_save"] = null_if_zero(device.status.last_save);
    json["autosave"] = null_if_empty(device.status.autosave);
    json["breaker"] = null_if_empty(device.status.breaker);
    json["refusing"] = null_if_empty(device.status.refusing);
    json["witness"] = device.status.witness ? to_json(*device.status.witness) : Json();
    Json other = Json::object();
    for (const auto& [key, value] : device.status.other) {
        other[key] = value_json(value);
    }
    json["other"] = std::move(other);
    return json;
}

Json to_json(const ListedRecord& record) {
    return {{"sector", record.sector},
            {"count", record.count},
            {"kind", record_kind_name(record.kind)},
            {"spare", record.spare ? Json(*record.spare) : Json()},
            {"reason", record.reason},
            {"first_time", null_if_zero(record.time)},
            {"unreadable", record.unreadable}};
}

Json to_json(const SpareHealth& health) {
    return {{"verdict", soundness_name(health.soundness)},
            {"refusal", null_if_empty(health.refusal)},
            {"problems", health.problems},
            {"notes", health.notes}};
}

Json to_json(const dm_remap_report& report) {
    Json replicas = Json::array();
    for (const dm_remap_replica_report& replica : report.replica) {
        replicas.push_back({{"superblock", dm_remap_verdict_name(replica.superblock)},
                            {"bad_table_blocks", replica.bad_table_blocks},
                            {"bad_journal_blocks", replica.bad_journal_blocks}});
    }
    return {{"replicas", std::move(replicas)},
            {"lagging", report.lagging},
            {"one_sided", report.one_sided},
            {"end_unread", report.end_unread},
            {"replayed", report.replayed},
            {"refusal", report.refusal != nullptr ? Json(report.refusal) : Json()}};
}

Json to_json(const FoundSuperblock& found) {
    Json json = {{"block", found.block}, {"verdict", dm_remap_verdict_name(found.verdict)}};
    if (found.verdict == DM_REMAP_VALID) {
        json.update(to_json(found.super));
    }
    return json;
}

Json to_json(const dm_remap_record& record) {
    return {{"kind", dm_remap_kind_name(record.kind)},
            {"sector", is_on_main(record) ? Json(record.main) : Json()},
            {"count", record.length},
            {"spare", is_on_spare(record) ? Json(record.spare) : Json()},
            {"reason", dm_remap_reason_name(record.reason)},
            {"first_time", null_if_zero(record.first_time)},
            {"last_time", null_if_zero(record.last_time)},
            {"unreadable", (record.flags & DM_REMAP_F_UNREADABLE) != 0}};
}

Json to_json(const JournalSlot& slot) {
    Json entries = Json::array();
    for (const dm_remap_record& entry : slot.entries) {
        if (entry.kind == DM_REMAP_COUNTER) {
            entries.push_back({{"kind", dm_remap_kind_name(entry.kind)},
                               {"counter", dm_remap_counter_name(entry.length)},
                               {"value", entry.main}});
        } else {
            entries.push_back(to_json(entry));
        }
    }
    return {{"sequence", slot.sequence},
            {"activation", slot.activation},
            {"verdicts",
             {dm_remap_verdict_name(slot.verdict[0]), dm_remap_verdict_name(slot.verdict[1])}},
            {"entries", std::move(entries)}};
}

Json summary_json(OfflineSpare& spare) {
    const dm_remap_super& super = spare.super();
    const dm_remap_totals totals = spare.totals();
    return {{"uuid", uuid_text(super.uuid)},
            {"state", disk_state_name(super.state)},
            {"generation", super.generation},
            {"activation", super.activation},
            {"next_sequence", spare.next_sequence()},
            {"main", to_json(super.main)},
            {"granularity", super.layout.granularity},
            {"records", totals.records},
            {"max_records", dm_remap_max_records(&super.layout)},
            {"remapped", totals.mapped},
            {"unreadable", totals.unreadable},
            {"pending", totals.pending},
            {"retired", totals.retired},
            {"spare_free", spare.spare_free_sectors()},
            {"spare_total", spare.spare_total_sectors()},
            {"formatted_time", null_if_zero(super.formatted_time)},
            {"written_time", null_if_zero(super.written_time)}};
}

}  // namespace remap

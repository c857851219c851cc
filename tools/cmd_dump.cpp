// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "offline_command.h"
#include "output_json.h"
#include "output_table.h"
#include "text.h"

namespace remap {
namespace {

const std::vector<Column> record_columns = {{"KIND"},
                                            {"SECTOR", Align::right},
                                            {"COUNT", Align::right},
                                            {"SPARE", Align::right},
                                            {"REASON"},
                                            {"FIRST"},
                                            {"LAST"}};

std::vector<std::string> record_cells(const dm_remap_record& record) {
    return {dm_remap_kind_name(record.kind),
            record.kind == DM_REMAP_RETIRED ? "-" : std::to_string(record.main),
            std::to_string(record.length),
            record.spare == 0 ? "-" : std::to_string(record.spare),
            std::string(dm_remap_reason_name(record.reason)) +
                ((record.flags & DM_REMAP_F_UNREADABLE) != 0 ? ", unreadable" : ""),
            time_text(record.first_time),
            time_text(record.last_time)};
}

void print_superblock(const FoundSuperblock& found) {
    fmt::print("superblock at block {}: {}\n", found.block, dm_remap_verdict_name(found.verdict));
    if (found.verdict != DM_REMAP_VALID) {
        return;
    }
    // The fields are those of the JSON, a line each.
    OutputTable table({{""}, {""}});
    const Json fields = to_json(found);
    for (const auto& [key, value] : fields.items()) {
        table.add_row({"  " + key, one_line(value)});
    }
    table.print();
}

void print_journal(const std::vector<JournalSlot>& slots) {
    for (const JournalSlot& slot : slots) {
        fmt::print("journal sequence {}, activation {}: {} and {}, {} entries\n", slot.sequence,
                   slot.activation, dm_remap_verdict_name(slot.verdict[0]),
                   dm_remap_verdict_name(slot.verdict[1]), slot.entries.size());
        OutputTable table(record_columns);
        for (const dm_remap_record& entry : slot.entries) {
            if (entry.kind == DM_REMAP_COUNTER) {
                table.add_row({dm_remap_kind_name(entry.kind), std::to_string(entry.main), "", "",
                               dm_remap_counter_name(entry.length), "", ""});
            } else {
                table.add_row(record_cells(entry));
            }
        }
        table.print();
    }
}

void print_text(OfflineSpare& spare) {
    for (const FoundSuperblock& found : spare.superblocks()) {
        print_superblock(found);
    }
    if (!spare.loaded()) {
        return;
    }
    print_journal(spare.journal());
    const std::vector<dm_remap_record> records = spare.records();
    fmt::print("records, journal included: {}\n", records.size());
    if (!records.empty()) {
        OutputTable table(record_columns);
        for (const dm_remap_record& record : records) {
            table.add_row(record_cells(record));
        }
        table.print();
    }
}

Json dump_json(const std::string& path, OfflineSpare& spare) {
    Json document = json_document();
    document["spare"] = path;
    document["report"] = to_json(spare.report());
    document["superblocks"] = array_json(spare.superblocks());
    document["journal"] = spare.loaded() ? array_json(spare.journal()) : Json();
    document["records"] = spare.loaded() ? array_json(spare.records()) : Json();
    return document;
}

}  // namespace

Result<ExitCode> cmd_dump(const OfflineOptions& options) {
    Result<BlockDevice> device = open_offline(options);
    if (!device) {
        return pass_on(device);
    }
    OfflineSpare spare(*device);
    spare.load();
    if (options.json) {
        print_json(dump_json(options.spare, spare));
    } else {
        print_text(spare);
    }
    if (!spare.loaded()) {
        return fail(Error(fmt::format("{}: {}", options.spare, spare.refusal()))
                        .advise("Without a whole table there are no records to show."));
    }
    return exit_code(judge(spare, device->sectors()).soundness);
}

}  // namespace remap

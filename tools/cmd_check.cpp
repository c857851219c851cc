// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "offline_command.h"
#include "output_json.h"
#include "output_table.h"
#include "text.h"
#include "witness.h"

namespace remap {
namespace {

// Does it hold what the record says? What is unusable already is so for a better reason.
void judge_witness(const OfflineSpare& spare, const WitnessRecord& record, SpareHealth& health) {
    if (!spare.loaded()) {
        return;
    }
    if (const Result<void> newest = check_witness(spare, record); !newest) {
        health.soundness = Soundness::unusable;
        health.refusal = newest.error().what();
    } else {
        health.notes.push_back("as new as its witness of " + time_text(record.time));
    }
}

void print_summary(OfflineSpare& spare) {
    const dm_remap_super& super = spare.super();
    const dm_remap_totals totals = spare.totals();
    OutputTable table({{""}, {""}});
    table.add_row({"UUID", uuid_text(super.uuid)});
    table.add_row(
        {"main", fmt::format("{}, {} from sector {}",
                             super.main.name[0] != '\0' ? super.main.name : "unknown disk",
                             size_text(super.main.sectors), super.main.start)});
    table.add_row({"formatted", time_text(super.formatted_time)});
    table.add_row({"last written", time_text(super.written_time)});
    table.add_row({"state", fmt::format("{}, generation {}, activation {}, sequence {}",
                                        disk_state_name(super.state), super.generation,
                                        super.activation, spare.next_sequence())});
    table.add_row({"records", fmt::format("{} of at most {}", totals.records,
                                          dm_remap_max_records(&super.layout))});
    table.add_row({"remapped", size_text(totals.mapped)});
    if (totals.unreadable != 0) {
        table.add_row({"unreadable", size_text(totals.unreadable)});
    }
    table.add_row({"pending", size_text(totals.pending)});
    table.add_row({"spare space",
                   fmt::format("{} free of {}, {} retired", size_text(spare.spare_free_sectors()),
                               size_text(spare.spare_total_sectors()), size_text(totals.retired))});
    table.print();
}

void print_text(const std::string& path, OfflineSpare& spare, const SpareHealth& health) {
    if (spare.loaded()) {
        print_summary(spare);
    }
    for (const std::string& line : spare.log()) {
        fmt::print("{}: {}\n", path, line);
    }
    for (const std::string& note : health.notes) {
        fmt::print("{}: note: {}\n", path, note);
    }
    for (const std::string& problem : health.problems) {
        fmt::print("{}: problem: {}\n", path, problem);
    }
    switch (health.soundness) {
        case Soundness::sound:
            fmt::print("{}: sound\n", path);
            break;
        case Soundness::damaged:
            fmt::print("{}: damaged, and nothing is lost: activation repairs what it can\n", path);
            break;
        case Soundness::unusable:
            fmt::print("{}: unusable: {}\n", path, health.refusal);
            break;
    }
}

Json check_json(const std::string& path, OfflineSpare& spare, const SpareHealth& health) {
    Json document = json_document();
    document["spare"] = path;
    document.update(to_json(health));
    document["report"] = to_json(spare.report());
    document["log"] = spare.log();
    document["summary"] = spare.loaded() ? summary_json(spare) : Json();
    return document;
}

}  // namespace

Result<ExitCode> cmd_check(const OfflineOptions& options) {
    Result<std::optional<WitnessRecord>> witness = std::nullopt;
    if (!options.witness.empty()) {
        witness = read_witness(options.witness);
        if (!witness) {
            return pass_on(witness);
        }
        if (!*witness) {
            return fail(options.witness + ": there is no such file");
        }
    }
    Result<BlockDevice> device = open_offline(options);
    if (!device) {
        return pass_on(device);
    }
    OfflineSpare spare(*device);
    spare.load();
    SpareHealth health = judge(spare, device->sectors());
    if (*witness) {
        judge_witness(spare, **witness, health);
    }
    if (options.json) {
        print_json(check_json(options.spare, spare, health));
    } else {
        print_text(options.spare, spare, health);
    }
    return exit_code(health.soundness);
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "output_json.h"
#include "output_table.h"
#include "target_spec.h"
#include "text.h"

namespace remap {
namespace {

// The kernel gives a page at a time; an empty one is the end.
Result<std::vector<ListedRecord>> read_records(DmClient& dm, const std::string& name) {
    std::vector<ListedRecord> records;
    std::uint64_t from = 0;
    for (;;) {
        Result<std::string> reply = dm.message(name, fmt::format("list {}", from));
        if (!reply) {
            return pass_on(reply);
        }
        Result<std::vector<ListedRecord>> page = parse_list(*reply);
        if (!page) {
            return pass_on(page, name);
        }
        if (page->empty()) {
            return records;
        }
        const std::uint64_t next = page->back().sector + page->back().count;
        if (next <= from) {
            return fail(fmt::format("{}: the list of records goes back from sector {} to {}", name,
                                    from, next));
        }
        from = next;
        records.insert(records.end(), page->begin(), page->end());
    }
}

void print_table(const std::vector<ListedRecord>& records) {
    OutputTable table({{"SECTOR", Align::right},
                       {"COUNT", Align::right},
                       {"KIND"},
                       {"SPARE", Align::right},
                       {"REASON"},
                       {"SINCE"}});
    for (const ListedRecord& record : records) {
        table.add_row({std::to_string(record.sector), std::to_string(record.count),
                       std::string(record_kind_name(record.kind)),
                       record.spare ? std::to_string(*record.spare) : "-",
                       record.unreadable ? record.reason + ", unreadable" : record.reason,
                       time_text(record.time)});
    }
    table.print();
}

Json list_json(const std::string& name, const std::vector<ListedRecord>& records) {
    Json document = json_document();
    document["name"] = name;
    document["records"] = array_json(records);
    return document;
}

}  // namespace

Result<ExitCode> cmd_list(DmClient& dm, const ListOptions& options) {
    Result<std::vector<ListedRecord>> records = read_records(dm, options.name);
    if (!records) {
        return pass_on(records);
    }
    if (options.json) {
        print_json(list_json(options.name, *records));
    } else if (!records->empty()) {
        print_table(*records);
    }
    return ExitCode::done;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
// The JSON that --json prints. Keys stay; new ones may come. Numbers are numbers, unknown is null.
#pragma once

#include <nlohmann/json.hpp>

#include "offline_spare.h"
#include "remap_device.h"
#include "spare_health.h"
#include "target_spec.h"

namespace remap {

// Keeps keys in the order they are written.
using Json = nlohmann::ordered_json;

// With "json_format_version" in it.
Json json_document();
// Text from a device need not be UTF-8: what is not is replaced.
void print_json(const Json& document);
std::string one_line(const Json& value);

Json to_json(const Witness& witness);
Json to_json(const RemapDevice& device);
Json to_json(const ListedRecord& record);
Json to_json(const SpareHealth& health);
Json to_json(const dm_remap_report& report);
Json to_json(const FoundSuperblock& found);
Json to_json(const dm_remap_record& record);
Json to_json(const JournalSlot& slot);

// Of anything that to_json takes.
template <typename Range>
Json array_json(const Range& range) {
    Json array = Json::array();
    for (const auto& element : range) {
        array.push_back(to_json(element));
    }
    return array;
}

// What a loaded spare holds, in numbers.
Json summary_json(OfflineSpare& spare);

}  // namespace remap

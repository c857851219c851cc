// SPDX-License-Identifier: GPL-2.0-only
// The witness file: what a spare had come to, kept where the spare is not. A copy of a spare is as
// whole as the spare, so nothing else tells that it is older.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "dm_client.h"
#include "error.h"
#include "offline_spare.h"
#include "target_spec.h"

namespace remap {

struct WitnessRecord {
    std::string uuid;  // of the spare
    Witness least;
    std::uint64_t time = 0;  // of the record; seconds since 1970 UTC

    bool operator==(const WitnessRecord&) const = default;
};

// JSON, and a line of it.
std::string write_witness(const WitnessRecord& record);
Result<WitnessRecord> parse_witness(std::string_view text);

// Nothing: there is no such file.
Result<std::optional<WitnessRecord>> read_witness(const std::string& path);

// Is the loaded spare the one of @record, and no older? An error: no, or another one.
Result<void> check_witness(const OfflineSpare& spare, const WitnessRecord& record);

// The file says from now on that the spare has come to @reached; what it says already it keeps.
// Refuses a file that is of another spare.
Result<void> keep_witness(const std::string& path, const std::string& uuid, const Witness& reached);

// The same, with what the mapped device @name tells. Returns its table line.
Result<TableParams> keep_witness_of(DmClient& dm, const std::string& name, const std::string& path);

}  // namespace remap

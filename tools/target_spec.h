// SPDX-License-Identifier: GPL-2.0-only
// The texts that the remap target takes and gives, as structures. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "error.h"

namespace remap {

inline constexpr std::string_view target_name = "remap";

// What a spare must reach if it is to be no older copy of itself; both only ever grow.
struct Witness {
    std::uint64_t generation = 0;
    std::uint64_t sequence = 0;

    bool operator==(const Witness&) const = default;
};

// "<generation>:<sequence>", in the table line and in the status.
std::string witness_text(const Witness& witness);
std::optional<Witness> parse_witness_text(std::string_view text);

// Parameters of a table line, after "<start> <length> remap".
struct TableParams {
    std::string main;  // a path or major:minor
    std::uint64_t main_start = 0;
    std::string spare;
    std::string uuid = {};  // of the spare; empty: any
    std::optional<Witness> witness = {};
    bool rebind = false;  // never in a line that the kernel prints
    bool no_auto_remap = false;
    bool verify_spare_writes = false;
    std::optional<std::uint64_t> read_retries = {};
    std::vector<std::string> other = {};  // words of newer modules, as they stand

    bool operator==(const TableParams&) const = default;
};

std::string write_table_params(const TableParams& params);
Result<TableParams> parse_table_params(std::string_view text);

enum class Mode { rw, degraded, ro, fail };
enum class State { clean, dirty, writing, error };

std::string_view mode_name(Mode mode);
std::string_view state_name(State state);

// Words, then key=value pairs, in the order they came.
struct KeyValues {
    std::vector<std::string> words;
    std::vector<std::pair<std::string, std::string>> pairs;

    const std::string* find(std::string_view key) const;
    Result<std::uint64_t> number(std::string_view key) const;
};

Result<KeyValues> parse_key_values(std::string_view text);

// The INFO status. Counts of sectors, unless they say otherwise.
struct TargetStatus {
    Mode mode = Mode::fail;
    State state = State::error;
    std::uint64_t generation = 0;
    std::uint64_t records = 0;  // a count of records
    std::uint64_t remapped = 0;
    std::uint64_t pending = 0;
    std::uint64_t spare_free = 0;
    std::uint64_t spare_total = 0;
    std::uint64_t retired = 0;
    std::uint64_t records_free = 0;  // a count of records
    // Events.
    std::uint64_t read_errors = 0;
    std::uint64_t write_errors = 0;
    std::uint64_t relocated = 0;
    std::uint64_t rescued = 0;
    std::uint64_t refused = 0;
    // Journal blocks.
    std::uint64_t journal_used = 0;
    std::uint64_t journal_size = 0;
    std::uint64_t saves = 0;
    std::uint64_t save_errors = 0;
    std::uint64_t last_save = 0;  // seconds since 1970 UTC; 0: never
    std::string autosave;
    std::string breaker;
    std::string refusing;  // why the last relocation was refused, in one word; or "no"
    std::optional<Witness> witness = {};
    std::uint64_t unreadable = 0;                                 // of those remapped
    std::uint64_t recovered = 0;                                  // events
    std::vector<std::pair<std::string, std::string>> other = {};  // keys of newer modules

    bool operator==(const TargetStatus&) const = default;
};

Result<TargetStatus> parse_status(std::string_view text);

// The numbers of a status with their keys.
struct StatusNumber {
    std::string_view key;
    std::uint64_t TargetStatus::*member;
    bool may_be_missing = false;  // older modules do not say
};
const std::vector<StatusNumber>& status_numbers();

enum class RecordKind { mapped, pending };

std::string_view record_kind_name(RecordKind kind);

// One line of the message `list`.
struct ListedRecord {
    std::uint64_t sector = 0;
    std::uint64_t count = 0;
    RecordKind kind = RecordKind::mapped;
    std::optional<std::uint64_t> spare;  // none for pending
    std::string reason;
    std::uint64_t time = 0;  // seconds since 1970 UTC
    bool unreadable = false;

    bool operator==(const ListedRecord&) const = default;
};

Result<ListedRecord> parse_list_line(std::string_view line);
Result<std::vector<ListedRecord>> parse_list(std::string_view reply);

inline constexpr std::string_view device_uuid_prefix = "REMAP-";
// "REMAP-<spare uuid>-<name>": what a mapped device of ours is known by.
std::string device_uuid(std::string_view spare_uuid, std::string_view name);

// Would device-mapper and udev take @name as it is, and does device_uuid fit? Else says why not.
Result<void> check_device_name(std::string_view name);

}  // namespace remap

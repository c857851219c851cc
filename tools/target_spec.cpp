// SPDX-License-Identifier: GPL-2.0-only
#include "target_spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text.h"

namespace remap {
namespace {

constexpr std::array<std::string_view, 4> mode_names = {"rw", "degraded", "ro", "fail"};
constexpr std::array<std::string_view, 4> state_names = {"CLEAN", "DIRTY", "WRITING", "ERROR"};
constexpr std::array<std::string_view, 2> kind_names = {"mapped", "pending"};

// The enumerator whose name in @names is @word.
template <typename Enum, std::size_t N>
std::optional<Enum> named(const std::array<std::string_view, N>& names, std::string_view word) {
    const auto* found = std::find(names.begin(), names.end(), word);
    if (found == names.end()) {
        return std::nullopt;
    }
    return static_cast<Enum>(found - names.begin());
}

Error malformed(std::string_view what, std::string_view text, std::string_view why) {
    return Error(fmt::format("malformed {} \"{}\": {}", what, text, why))
        .advise("The loaded module and this dm-remapctl do not fit: see `dm-remapctl version`.");
}

// Reads one feature, and its value if it takes one, off the front of @words.
Result<void> take_feature(std::vector<std::string_view>& words, TableParams& params) {
    const std::string_view word = words.front();
    words.erase(words.begin());
    if (word == "rebind") {
        params.rebind = true;
        return {};
    }
    if (word == "no_auto_remap") {
        params.no_auto_remap = true;
        return {};
    }
    if (word == "verify_spare_writes") {
        params.verify_spare_writes = true;
        return {};
    }
    if (word != "uuid" && word != "witness" && word != "read_retries") {
        params.other.emplace_back(word);
        return {};
    }
    if (words.empty()) {
        return fail(fmt::format("\"{}\" without a value", word));
    }
    const std::string_view value = words.front();
    words.erase(words.begin());
    if (word == "read_retries") {
        params.read_retries = parse_u64(value);
        return params.read_retries ? Result<void>()
                                   : fail(fmt::format("\"{}\" is no number", value));
    }
    if (word == "witness") {
        params.witness = parse_witness_text(value);
        return params.witness ? Result<void>() : fail(fmt::format("\"{}\" is no witness", value));
    }
    if (!is_uuid_text(value)) {
        return fail(fmt::format("\"{}\" is no UUID", value));
    }
    params.uuid = value;
    return {};
}

}  // namespace

std::string witness_text(const Witness& witness) {
    return fmt::format("{}:{}", witness.generation, witness.sequence);
}

std::optional<Witness> parse_witness_text(std::string_view text) {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) {
        return std::nullopt;
    }
    const auto generation = parse_u64(text.substr(0, colon));
    const auto sequence = parse_u64(text.substr(colon + 1));
    if (!generation || !sequence) {
        return std::nullopt;
    }
    return Witness{.generation = *generation, .sequence = *sequence};
}

std::string write_table_params(const TableParams& params) {
    std::vector<std::string> features;
    if (!params.uuid.empty()) {
        features.insert(features.end(), {"uuid", params.uuid});
    }
    if (params.witness) {
        features.insert(features.end(), {"witness", witness_text(*params.witness)});
    }
    if (params.rebind) {
        features.emplace_back("rebind");
    }
    if (params.no_auto_remap) {
        features.emplace_back("no_auto_remap");
    }
    if (params.verify_spare_writes) {
        features.emplace_back("verify_spare_writes");
    }
    if (params.read_retries) {
        features.insert(features.end(), {"read_retries", std::to_string(*params.read_retries)});
    }
    features.insert(features.end(), params.other.begin(), params.other.end());

    std::string text = fmt::format("{} {} {}", params.main, params.main_start, params.spare);
    if (!features.empty()) {
        text += fmt::format(" {} {}", features.size(), join(features, " "));
    }
    return text;
}

Result<TableParams> parse_table_params(std::string_view text) {
    std::vector<std::string_view> words = split_words(text);
    if (words.size() < 3) {
        return fail(malformed("table line", text, "main, start and spare are missing"));
    }
    const std::optional<std::uint64_t> start = parse_u64(words[1]);
    if (!start) {
        return fail(malformed("table line", text, "the start is no number"));
    }
    TableParams params;
    params.main = words[0];
    params.main_start = *start;
    params.spare = words[2];
    words.erase(words.begin(), words.begin() + 3);
    if (words.empty()) {
        return params;
    }
    if (parse_u64(words.front()) != words.size() - 1) {
        return fail(malformed("table line", text, "the number of features is wrong"));
    }
    words.erase(words.begin());
    while (!words.empty()) {
        if (const Result<void> taken = take_feature(words, params); !taken) {
            return fail(malformed("table line", text, taken.error().what()));
        }
    }
    return params;
}

std::string_view mode_name(Mode mode) {
    return mode_names.at(static_cast<std::size_t>(mode));
}

std::string_view state_name(State state) {
    return state_names.at(static_cast<std::size_t>(state));
}

std::string_view record_kind_name(RecordKind kind) {
    return kind_names.at(static_cast<std::size_t>(kind));
}

const std::string* KeyValues::find(std::string_view key) const {
    for (const auto& [name, value] : pairs) {
        if (name == key) {
            return &value;
        }
    }
    return nullptr;
}

Result<std::uint64_t> KeyValues::number(std::string_view key) const {
    const std::string* value = find(key);
    if (value == nullptr) {
        return fail(fmt::format("\"{}\" is missing", key));
    }
    const std::optional<std::uint64_t> number = parse_u64(*value);
    if (!number) {
        return fail(fmt::format("\"{}={}\" is no number", key, *value));
    }
    return *number;
}

Result<KeyValues> parse_key_values(std::string_view text) {
    KeyValues result;
    for (const std::string_view word : split_words(text)) {
        const std::size_t equals = word.find('=');
        if (equals == std::string_view::npos) {
            result.words.emplace_back(word);
            continue;
        }
        const std::string_view key = word.substr(0, equals);
        if (key.empty() || result.find(key) != nullptr) {
            return fail(fmt::format("\"{}\" has no key, or one that was there before", word));
        }
        result.pairs.emplace_back(key, word.substr(equals + 1));
    }
    return result;
}

const std::vector<StatusNumber>& status_numbers() {
    static const std::vector<StatusNumber> numbers = {
        {"generation", &TargetStatus::generation},
        {"records", &TargetStatus::records},
        {"remapped", &TargetStatus::remapped},
        {"pending", &TargetStatus::pending},
        {"spare_free", &TargetStatus::spare_free},
        {"spare_total", &TargetStatus::spare_total},
        {"retired", &TargetStatus::retired},
        {"records_free", &TargetStatus::records_free},
        {"read_errors", &TargetStatus::read_errors},
        {"write_errors", &TargetStatus::write_errors},
        {"relocated", &TargetStatus::relocated},
        {"rescued", &TargetStatus::rescued},
        {"refused", &TargetStatus::refused},
        {"journal_used", &TargetStatus::journal_used},
        {"journal_size", &TargetStatus::journal_size},
        {"saves", &TargetStatus::saves},
        {"save_errors", &TargetStatus::save_errors},
        {"last_save", &TargetStatus::last_save},
        {"unreadable", &TargetStatus::unreadable, true},
        {"recovered", &TargetStatus::recovered, true},
    };
    return numbers;
}

Result<TargetStatus> parse_status(std::string_view text) {
    Result<KeyValues> parsed = parse_key_values(text);
    if (!parsed) {
        return fail(malformed("status", text, parsed.error().what()));
    }
    if (parsed->words.size() < 2) {
        return fail(malformed("status", text, "mode or state is missing"));
    }
    const std::optional<Mode> mode = named<Mode>(mode_names, parsed->words[0]);
    const std::optional<State> state = named<State>(state_names, parsed->words[1]);
    if (!mode || !state) {
        return fail(malformed("status", text, "unknown mode or state"));
    }
    TargetStatus status;
    status.mode = *mode;
    status.state = *state;
    // Before the spare was loaded there is nothing more to tell.
    if (status.mode == Mode::fail && parsed->pairs.empty()) {
        return status;
    }
    for (const StatusNumber& number : status_numbers()) {
        if (number.may_be_missing && parsed->find(number.key) == nullptr) {
            continue;
        }
        Result<std::uint64_t> value = parsed->number(number.key);
        if (!value) {
            return fail(malformed("status", text, value.error().what()));
        }
        status.*number.member = *value;
    }
    for (const auto& [key, value] : parsed->pairs) {
        if (key == "autosave") {
            status.autosave = value;
        } else if (key == "breaker") {
            status.breaker = value;
        } else if (key == "refusing") {
            status.refusing = value;
        } else if (key == "witness") {
            status.witness = parse_witness_text(value);
            if (!status.witness) {
                return fail(malformed("status", text, "the witness is no pair of numbers"));
            }
        } else if (std::none_of(status_numbers().begin(), status_numbers().end(),
                                [&key = key](const auto& number) { return number.key == key; })) {
            status.other.emplace_back(key, value);
        }
    }
    return status;
}

Result<ListedRecord> parse_list_line(std::string_view line) {
    const std::vector<std::string_view> words = split_words(line);
    if (words.size() < 6) {
        return fail(malformed("record", line, "fields are missing"));
    }
    const auto sector = parse_u64(words[0]);
    const auto count = parse_u64(words[1]);
    const auto kind = named<RecordKind>(kind_names, words[2]);
    const auto spare = parse_u64(words[3]);
    const auto time = parse_u64(words[5]);
    if (!sector || !count || *count == 0 || *sector + *count < *sector || !time) {
        return fail(malformed("record", line, "sector, count or time is no number or too large"));
    }
    if (!kind) {
        return fail(malformed("record", line, "unknown kind"));
    }
    if (*kind == RecordKind::mapped ? !spare : words[3] != "-") {
        return fail(malformed("record", line, "the spare sector does not fit the kind"));
    }
    return ListedRecord{.sector = *sector,
                        .count = *count,
                        .kind = *kind,
                        .spare = spare,
                        .reason = std::string(words[4]),
                        .time = *time,
                        .unreadable = words.size() > 6 && words[6] == "unreadable"};
}

Result<std::vector<ListedRecord>> parse_list(std::string_view reply) {
    std::vector<ListedRecord> records;
    for (const std::string_view line : split_lines(reply)) {
        Result<ListedRecord> record = parse_list_line(line);
        if (!record) {
            return pass_on(record);
        }
        records.push_back(std::move(*record));
    }
    return records;
}

std::string device_uuid(std::string_view spare_uuid, std::string_view name) {
    return fmt::format("{}{}-{}", device_uuid_prefix, spare_uuid, name);
}

Result<void> check_device_name(std::string_view name) {
    // DM_UUID_LEN is 129 with its NUL; "REMAP-", a UUID and "-" take 43.
    constexpr std::size_t longest = 128 - 43;
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               std::string_view("#+-.:=@_").find(c) != std::string_view::npos;
    };
    if (name.empty() || name == "." || name == ".." || name == "control") {
        return fail(fmt::format("\"{}\" cannot be the name of a mapped device", name));
    }
    if (name.size() > longest) {
        return fail(fmt::format("the name is longer than {} characters", longest));
    }
    if (!std::all_of(name.begin(), name.end(), allowed)) {
        return fail(fmt::format("\"{}\": a name has letters, digits and #+-.:=@_ alone", name));
    }
    return {};
}

}  // namespace remap

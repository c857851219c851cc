// The texts that the tool reads: table lines, status lines, lists of records, replies, witnesses,
// lines of the kernel log. What is read can be written, and then reads the same; what is refused
// has a reason.
#include <fmt/format.h>

#include <string>
#include <string_view>

#include "kernel_log.h"
#include "memory_disk.h"
#include "target_spec.h"
#include "text.h"
#include "witness.h"

namespace remap::fuzz {
namespace {

template <typename T>
void require_reason(const Result<T>& result) {
    require(!result.error().what().empty(), "refused without a reason");
}

void table_line(std::string_view text) {
    const Result<TableParams> params = parse_table_params(text);
    if (!params) {
        require_reason(params);
        return;
    }
    const std::string written = write_table_params(*params);
    const Result<TableParams> again = parse_table_params(written);
    require(again.has_value() && *again == *params, "a table line reads otherwise once written");
    require(write_table_params(*again) == written, "a table line is written in two ways");
}

std::string write_status(const TargetStatus& status) {
    std::string text = fmt::format("{} {}", mode_name(status.mode), state_name(status.state));
    for (const StatusNumber& number : status_numbers()) {
        text += fmt::format(" {}={}", number.key, status.*number.member);
    }
    text += fmt::format(" autosave={} breaker={} refusing={}", status.autosave, status.breaker,
                        status.refusing);
    if (status.witness) {
        text += " witness=" + witness_text(*status.witness);
    }
    for (const auto& [key, value] : status.other) {
        text += fmt::format(" {}={}", key, value);
    }
    return text;
}

void status_line(std::string_view text) {
    const Result<TargetStatus> status = parse_status(text);
    if (!status) {
        require_reason(status);
        return;
    }
    const Result<TargetStatus> again = parse_status(write_status(*status));
    require(again.has_value() && *again == *status, "a status reads otherwise once written");
}

std::string write_record(const ListedRecord& record) {
    return fmt::format(
        "{} {} {} {} {} {}\n", record.sector, record.count, record_kind_name(record.kind),
        record.spare ? std::to_string(*record.spare) : "-", record.reason, record.time);
}

void list(std::string_view text) {
    const Result<std::vector<ListedRecord>> records = parse_list(text);
    if (!records) {
        require_reason(records);
        return;
    }
    std::string written;
    for (const ListedRecord& record : *records) {
        require(record.count != 0 && record.sector + record.count > record.sector,
                "a record that is empty or too long");
        written += write_record(record);
    }
    const Result<std::vector<ListedRecord>> again = parse_list(written);
    require(again.has_value() && *again == *records, "a list reads otherwise once written");
}

// What save, restore and the movers answer.
void reply(std::string_view text) {
    const Result<KeyValues> values = parse_key_values(text);
    if (!values) {
        require_reason(values);
        return;
    }
    std::string written = join(values->words, " ");
    for (const auto& [key, value] : values->pairs) {
        require(values->find(key) != nullptr && *values->find(key) == value, "a key is not found");
        const Result<std::uint64_t> number = values->number(key);
        require(!number || parse_u64(std::to_string(*number)) == *number, "a number");
        written += fmt::format(" {}={}", key, value);
    }
    const Result<KeyValues> again = parse_key_values(written);
    require(again.has_value() && again->words == values->words && again->pairs == values->pairs,
            "a reply reads otherwise once written");
}

void witness_file(std::string_view text) {
    const Result<WitnessRecord> record = parse_witness(text);
    if (!record) {
        require_reason(record);
        return;
    }
    const Result<WitnessRecord> again = parse_witness(write_witness(*record));
    require(again.has_value() && *again == *record, "a witness reads otherwise once written");
}

void small_words(std::string_view text) {
    if (const std::optional<std::uint64_t> number = parse_u64(text)) {
        require(!size_text(*number).empty() && !time_text(*number).empty(), "a number as text");
    }
    if (const std::optional<std::string> line = remap_line_of_kmsg(text)) {
        require(line->find('\n') == std::string::npos, "a line of the kernel log");
    }
    if (is_uuid_text(text)) {
        require(text.size() == 36, "a UUID");
    }
    if (check_device_name(text)) {
        require(device_uuid("f28f3435-da42-4d3f-9bfd-9cb7a12f41e7", text).size() < 129,
                "a name too long for a UUID");
    }
    // Whole lines as words, too.
    require(split_lines(join({std::string(text), "end"}, "\n")).back() == "end", "lines");
}

}  // namespace
}  // namespace remap::fuzz

// The first byte says what the rest is.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace remap::fuzz;
    if (size == 0) {
        return 0;
    }
    const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
    switch (data[0]) {
        case 't':
            table_line(text);
            break;
        case 's':
            status_line(text);
            break;
        case 'l':
            list(text);
            break;
        case 'r':
            reply(text);
            break;
        case 'w':
            witness_file(text);
            break;
        default:
            small_words(text);
    }
    return 0;
}

#include "remap.h"

#include <sstream>
#include <stdexcept>

#include "kernel_log.h"

namespace remap::vm {

Table remap_table(const std::string& main, const std::string& spare,
                  const std::vector<std::string>& features, uint64_t length, uint64_t start) {
    if (length == 0) {
        length = BlockFile(main, O_RDONLY).sectors() - start;
    }
    std::string text = main + " " + std::to_string(start) + " " + spare;
    if (!features.empty()) {
        text += " " + std::to_string(features.size());
        for (const auto& word : features) {
            text += " " + word;
        }
    }
    return {{0, length, "remap", text}};
}

uint64_t RemapStatus::number(const std::string& key) const {
    return std::stoull(values.at(key));
}

RemapStatus remap_status(const DmDevice& device) {
    std::istringstream words(device.status().at(0).text);
    RemapStatus status;
    words >> status.mode >> status.state;
    for (std::string word; words >> word;) {
        const auto equals = word.find('=');
        if (equals == std::string::npos) {
            throw std::runtime_error("status: not key=value: " + word);
        }
        status.values[word.substr(0, equals)] = word.substr(equals + 1);
    }
    return status;
}

std::vector<RemapRecord> parse_list(std::string_view text) {
    std::vector<RemapRecord> records;
    std::istringstream lines{std::string(text)};
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        RemapRecord r;
        std::string mark;
        if (!(words >> r.sector >> r.count >> r.kind >> r.spare >> r.reason >> r.time)) {
            break;
        }
        words >> mark;
        r.unreadable = mark == "unreadable";
        records.push_back(r);
    }
    return records;
}

std::vector<RemapRecord> remap_list(DmDevice& device) {
    std::vector<RemapRecord> records;
    for (uint64_t from = 0;;) {
        const auto page = parse_list(device.message("list " + std::to_string(from)));
        if (page.empty()) {
            return records;
        }
        records.insert(records.end(), page.begin(), page.end());
        from = records.back().sector + records.back().count;
    }
}

std::vector<std::string> remap_brief(DmDevice& device) {
    std::vector<std::string> lines;
    for (const auto& r : remap_list(device)) {
        lines.push_back(std::to_string(r.sector) + " " + std::to_string(r.count) + " " + r.kind +
                        " " + r.reason);
    }
    return lines;
}

int message_error(DmDevice& device, const std::string& message) {
    try {
        device.message(message);
        return 0;
    } catch (const DmError& e) {
        return e.code().value();
    }
}

int create_error(const Table& table) {
    try {
        const DmDevice device("refused", table);
        return 0;
    } catch (const DmError& e) {
        return e.code().value();
    }
}

testing::AssertionResult refused(const Table& table, const std::string& reason) {
    KernelLog log;
    if (create_error(table) == 0) {
        return testing::AssertionFailure() << "accepted: " << table[0].text;
    }
    if (!log.contains(reason, 1000)) {
        return testing::AssertionFailure() << "refused, but not because \"" << reason
                                           << "\": " << testing::PrintToString(log.lines());
    }
    return testing::AssertionSuccess();
}

}  // namespace remap::vm

// A remap device as the cases want it: table line, messages, status in words.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "block.h"
#include "dm_device.h"

namespace remap::vm {

// "0 <length> remap <main> <start> <spare> <#features> <features>"; length 0: all of main.
Table remap_table(const std::string& main, const std::string& spare,
                  const std::vector<std::string>& features = {}, uint64_t length = 0,
                  uint64_t start = 0);

// INFO status, taken apart.
struct RemapStatus {
    std::string mode;
    std::string state;
    std::map<std::string, std::string> values;

    // Throws std::out_of_range if there is no such key.
    [[nodiscard]] uint64_t number(const std::string& key) const;
};
RemapStatus remap_status(const DmDevice& device);

// A line of the message `list`.
struct RemapRecord {
    uint64_t sector = 0;
    uint64_t count = 0;
    std::string kind;
    std::string spare;  // a sector number, or "-"
    std::string reason;
    uint64_t time = 0;
    bool unreadable = false;

    bool operator==(const RemapRecord&) const = default;
};
// As many lines as there are.
std::vector<RemapRecord> parse_list(std::string_view text);
// All pages.
std::vector<RemapRecord> remap_list(DmDevice& device);

// Without what no case can know: "<sector> <count> <kind> <reason>" a record.
std::vector<std::string> remap_brief(DmDevice& device);

// The kernel's errno for what fails; 0 if it does not.
int message_error(DmDevice& device, const std::string& message);
int create_error(const Table& table);
// Creating a device fails, and the kernel log says `reason`.
testing::AssertionResult refused(const Table& table, const std::string& reason);

}  // namespace remap::vm

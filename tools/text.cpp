// SPDX-License-Identifier: GPL-2.0-only
#include "text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <uuid/uuid.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <ctime>

namespace remap {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(separator), text.size());
        if (end != 0) {
            parts.push_back(text.substr(0, end));
        }
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return parts;
}

}  // namespace

std::optional<std::uint64_t> parse_u64(std::string_view text) {
    std::uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stopped != end) {
        return std::nullopt;
    }
    return value;
}

std::vector<std::string_view> split_words(std::string_view text) {
    return split(text, ' ');
}

std::vector<std::string_view> split_lines(std::string_view text) {
    return split(text, '\n');
}

std::string size_text(std::uint64_t sectors) {
    constexpr std::array<std::string_view, 6> unit = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = static_cast<double>(sectors) / 2;
    std::size_t i = 0;
    while (value >= 1024 && i + 1 < unit.size()) {
        value /= 1024;
        i++;
    }
    return fmt::format("{:.4g} {}", value, unit.at(i));
}

std::string time_text(std::uint64_t seconds) {
    // Years of more than four digits come from damaged blocks.
    constexpr std::uint64_t year_10000 = 253402300800;
    if (seconds == 0) {
        return "never";
    }
    if (seconds >= year_10000) {
        return fmt::format("{} s", seconds);
    }
    return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

std::string printf_text(const char* format, std::va_list args) {
    std::array<char, 512> line{};
    const int length = std::vsnprintf(line.data(), line.size(), format, args);
    return length < 0 ? format : line.data();
}

std::string uuid_text(const std::uint8_t* uuid) {
    std::array<char, UUID_STR_LEN> text{};
    uuid_unparse_lower(uuid, text.data());
    return text.data();
}

bool is_uuid_text(std::string_view text) {
    uuid_t uuid;
    return uuid_parse_range(text.data(), text.data() + text.size(), uuid) == 0 &&
           uuid_text(uuid) == text;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
    return fmt::format("{}", fmt::join(parts, separator));
}

}  // namespace remap

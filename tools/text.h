// SPDX-License-Identifier: GPL-2.0-only
// Numbers, sizes, times and words as text.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace remap {

// Decimal digits and nothing else, within 64 bits.
std::optional<std::uint64_t> parse_u64(std::string_view text);

// The parts of @text between runs of spaces.
std::vector<std::string_view> split_words(std::string_view text);
// The lines of @text that are not empty.
std::vector<std::string_view> split_lines(std::string_view text);

// "1.5 MiB"
std::string size_text(std::uint64_t sectors);
// "2024-05-01 12:00:00 UTC"; "never" for 0.
std::string time_text(std::uint64_t seconds);

// As printf would print it.
std::string printf_text(const char* format, std::va_list args);

// 36 characters, lower case.
std::string uuid_text(const std::uint8_t* uuid);
// A UUID as uuid_text writes it?
bool is_uuid_text(std::string_view text);

// "a, b, c" where @separator is ", ".
std::string join(const std::vector<std::string>& parts, std::string_view separator);

}  // namespace remap

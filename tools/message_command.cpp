// SPDX-License-Identifier: GPL-2.0-only
#include "message_command.h"

#include <fmt/format.h>

namespace remap {

Result<KeyValues> send_message(DmClient& dm, const std::string& name, const std::string& text) {
    Result<std::string> reply = dm.message(name, text);
    if (!reply) {
        return pass_on(reply);
    }
    Result<KeyValues> parsed = parse_key_values(*reply);
    if (!parsed) {
        return pass_on(parsed, fmt::format("{}: reply to \"{}\"", name, text));
    }
    return parsed;
}

Result<KeyValues> send_range_message(DmClient& dm, std::string_view verb,
                                     const RangeOptions& options) {
    std::string text = fmt::format("{} {}", verb, options.sector);
    if (options.count) {
        text += fmt::format(" {}", *options.count);
    }
    return send_message(dm, options.name, text);
}

}  // namespace remap

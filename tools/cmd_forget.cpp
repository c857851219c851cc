// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "message_command.h"

namespace remap {

Result<ExitCode> cmd_forget(DmClient& dm, const RangeOptions& options) {
    Result<KeyValues> reply = send_range_message(dm, "forget", options);
    if (!reply) {
        return pass_on(reply);
    }
    Result<std::uint64_t> dropped = reply->number("dropped");
    if (!dropped) {
        return pass_on(dropped, options.name + ": reply to forget");
    }
    fmt::print("{}: {} pending sectors dropped from the table\n", options.name, *dropped);
    return ExitCode::done;
}

}  // namespace remap

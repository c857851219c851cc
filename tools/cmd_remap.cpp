// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "message_command.h"

namespace remap {

Result<ExitCode> cmd_remap(DmClient& dm, const RangeOptions& options) {
    Result<KeyValues> reply = send_range_message(dm, "remap", options);
    if (!reply) {
        return pass_on(reply);
    }
    Result<std::uint64_t> moved = reply->number("moved");
    Result<std::uint64_t> pending = reply->number("pending");
    if (!moved || !pending) {
        return pass_on(!moved ? moved : pending, options.name + ": reply to remap");
    }
    fmt::print("{}: {} sectors moved to the spare\n", options.name, *moved);
    if (*pending != 0) {
        fmt::print(
            "{}: {} sectors cannot be read and are pending: the next write to them settles where "
            "they live; reading them still tries the disk\n",
            options.name, *pending);
    }
    return ExitCode::done;
}

}  // namespace remap

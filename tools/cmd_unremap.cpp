// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "message_command.h"

namespace remap {

Result<ExitCode> cmd_unremap(DmClient& dm, const RangeOptions& options) {
    Result<KeyValues> reply = send_range_message(dm, "unremap", options);
    if (!reply) {
        return pass_on(reply);
    }
    Result<std::uint64_t> moved = reply->number("moved");
    Result<std::uint64_t> refused = reply->number("refused");
    if (!moved || !refused) {
        return pass_on(!moved ? moved : refused, options.name + ": reply to unremap");
    }
    fmt::print("{}: {} sectors moved back to the main device\n", options.name, *moved);
    if (*refused != 0) {
        return fail(
            Error(fmt::format("{}: {} sectors stay on the spare: the main device refuses "
                              "them still",
                              options.name, *refused))
                .advise("They go on being served; see `dm-remapctl list " + options.name + "`."));
    }
    return ExitCode::done;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "message_command.h"

namespace remap {

Result<ExitCode> cmd_reset_breaker(DmClient& dm, const std::string& name) {
    Result<KeyValues> reply = send_message(dm, name, "reset_breaker");
    if (!reply) {
        return pass_on(reply);
    }
    fmt::print("{}: breaker closed, sectors that fail are remapped again\n", name);
    return ExitCode::done;
}

}  // namespace remap

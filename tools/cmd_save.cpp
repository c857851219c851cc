// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "message_command.h"

namespace remap {

Result<ExitCode> cmd_save(DmClient& dm, const std::string& name) {
    Result<KeyValues> reply = send_message(dm, name, "save");
    if (!reply) {
        return pass_on(reply);
    }
    Result<std::uint64_t> generation = reply->number("generation");
    if (!generation) {
        return pass_on(generation, name + ": reply to save");
    }
    fmt::print("{}: table saved, generation {}\n", name, *generation);
    return ExitCode::done;
}

}  // namespace remap

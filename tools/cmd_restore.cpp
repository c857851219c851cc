// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include <algorithm>

#include "commands.h"
#include "message_command.h"

namespace remap {

Result<ExitCode> cmd_restore(DmClient& dm, const std::string& name) {
    Result<KeyValues> reply = send_message(dm, name, "restore");
    if (!reply) {
        return pass_on(reply);
    }
    Result<std::uint64_t> generation = reply->number("generation");
    if (!generation) {
        return pass_on(generation, name + ": reply to restore");
    }
    const bool healed =
        std::find(reply->words.begin(), reply->words.end(), "healed") != reply->words.end();
    fmt::print("{}: the spare holds the table in memory, generation {}{}\n", name, *generation,
               healed ? "; a damaged copy was written anew" : "");
    return ExitCode::done;
}

}  // namespace remap

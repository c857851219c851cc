// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "message_command.h"
#include "witness.h"

namespace remap {

Result<ExitCode> cmd_save(DmClient& dm, const SaveOptions& options) {
    const std::string& name = options.name;
    Result<KeyValues> reply = send_message(dm, name, "save");
    if (!reply) {
        return pass_on(reply);
    }
    Result<std::uint64_t> generation = reply->number("generation");
    if (!generation) {
        return pass_on(generation, name + ": reply to save");
    }
    fmt::print("{}: table saved, generation {}\n", name, *generation);
    if (!options.witness.empty()) {
        if (Result<TableParams> kept = keep_witness_of(dm, name, options.witness); !kept) {
            return pass_on(kept);
        }
    }
    return ExitCode::done;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>
#include <unistd.h>

#include <iostream>

#include "commands.h"
#include "device_identity.h"
#include "device_use.h"
#include "remap_device.h"
#include "spare_format.h"
#include "text.h"

namespace remap {
namespace {

std::string contents_text(const std::vector<std::string>& contents) {
    return contents.empty() ? "nothing known" : join(contents, ", ");
}

void describe(std::string_view role, const BlockDevice& device) {
    fmt::print("{} {}: {}, {}\n", role, device.path(), size_text(device.sectors()),
               identity_text(identify(device)));
}

Result<void> confirm(const BlockDevice& main, const BlockDevice& spare,
                     const std::vector<std::string>& contents) {
    if (isatty(STDIN_FILENO) == 0) {
        return fail(
            Error(spare.path() + ": is not overwritten without somebody to confirm it")
                .advise(
                    "Standard input is no terminal. Add --yes if the device is the right one."));
    }
    describe("main ", main);
    describe("spare", spare);
    fmt::print("On the spare: {}\n", contents_text(contents));
    fmt::print("All data on {} will be lost. Type \"yes\" to go on: ", spare.path());
    (void)std::fflush(stdout);
    std::string answer;
    std::getline(std::cin, answer);
    return answer == "yes" ? Result<void>() : fail(spare.path() + ": not formatted");
}

// What the remap device @name on @main has remapped is on its own spare. With another one in its
// place that would be lost; --force cannot mean that, which is given for old contents of a spare.
Result<void> check_use(DmClient& dm, const BlockDevice& main, const std::string& name, bool force) {
    Error in_use(fmt::format("{}: is in use by the remap device {}", main.path(), name));
    const Result<RemapDevice> device = read_remap_device(dm, name);
    if (!device || device->status.remapped != 0) {
        return fail(
            std::move(in_use).advise(fmt::format("What that has remapped is on its own spare, and "
                                                 "with another one it would be lost. Move it back "
                                                 "first (`dm-remapctl unremap {0} 0 {1}`), or "
                                                 "remove {0}.",
                                                 name, device ? device->sectors : main.sectors())));
    }
    return force ? Result<void>()
                 : fail(std::move(in_use).advise(
                       "Nothing is remapped there yet, but may be at any time. Remove it first; to "
                       "format the spare all the same, add --force."));
}

}  // namespace

Result<ExitCode> cmd_format(DmClient& dm, const FormatOptions& options) {
    // Main is only looked at; it may well be mounted still.
    Result<BlockDevice> main = BlockDevice::open(options.main, Access::read, Sharing::shared);
    if (!main) {
        return pass_on(main);
    }
    Result<BlockDevice> spare = BlockDevice::open(options.spare, Access::write, Sharing::exclusive);
    if (!spare) {
        return pass_on(spare);
    }
    Result<dm_remap_format_params> params = plan_format(*main, *spare,
                                                        {.start = options.start,
                                                         .records = options.records,
                                                         .journal_blocks = options.journal_blocks});
    if (!params) {
        return pass_on(params);
    }
    if (const std::string name = remap_device_on(main->number()); !name.empty()) {
        if (Result<void> free = check_use(dm, *main, name, options.force); !free) {
            return pass_on(free);
        }
    }
    Result<std::vector<std::string>> contents = find_contents(*spare);
    if (!contents) {
        return pass_on(contents);
    }
    Result<bool> blank = is_blank(*spare, *params);
    if (!blank) {
        return pass_on(blank);
    }
    if (contents->empty() && !*blank) {
        contents->emplace_back("data that nobody here knows");
    }
    if (!contents->empty() && !options.force) {
        return fail(Error(fmt::format("{}: is not empty: {}", spare->path(), join(*contents, ", ")))
                        .advise("If none of it is needed any more, add --force."));
    }
    if (!options.yes) {
        if (Result<void> confirmed = confirm(*main, *spare, *contents); !confirmed) {
            return pass_on(confirmed);
        }
    }
    if (!contents->empty()) {
        if (Result<void> wiped = wipe_contents(*spare); !wiped) {
            return pass_on(wiped);
        }
    }
    if (Result<void> written = write_format(*spare, *params); !written) {
        return pass_on(written);
    }
    fmt::print("{}: formatted as spare of {}, UUID {}\n", spare->path(), main->path(),
               uuid_text(params->uuid));
    return ExitCode::done;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "commands.h"
#include "device_identity.h"
#include "offline_spare.h"
#include "remap_device.h"
#include "spare_format.h"
#include "target_spec.h"
#include "text.h"
#include "witness.h"

namespace remap {
namespace {

Result<BlockDevice> open_for_mapping(const std::string& path, bool read_only) {
    // Opened as the kernel will: exclusively, and for writing if it is to write.
    const Access access = read_only ? Access::read : Access::write;
    Result<BlockDevice> device = BlockDevice::open(path, access, Sharing::exclusive);
    if (device && device->is_image()) {
        return fail(Error(path + ": is a file; a mapped device needs block devices")
                        .advise("Make it one with `losetup --find --show " + path + "`."));
    }
    return device;
}

Result<void> format_blank(const BlockDevice& main, const BlockDevice& spare, std::uint64_t start) {
    Result<dm_remap_format_params> params = plan_format(main, spare, {.start = start});
    if (!params) {
        return pass_on(params);
    }
    Result<std::vector<std::string>> contents = find_contents(spare);
    if (!contents) {
        return pass_on(contents);
    }
    if (!contents->empty()) {
        return fail(Error(fmt::format("{}: is not empty: {}", spare.path(), join(*contents, ", ")))
                        .advise("Leave out --format to use the metadata that is there, or see "
                                "`dm-remapctl format --force`."));
    }
    params->blank_only = true;
    return write_format(spare, *params);
}

// The spare's own idea of main against what is there. The kernel compares the id of the disk where
// it knows one; the tool has the name for a spare that was never activated.
Result<void> check_main(const OfflineSpare& offline, const BlockDevice& main,
                        const BlockDevice& spare, std::uint64_t start, bool rebind) {
    const dm_remap_main_id& known = offline.super().main;
    dm_remap_main found = describe_main(main, start);
    found.rebind = rebind;
    if (known.id_type != DM_REMAP_MAIN_ID_NONE && !found.mapped) {
        found.id.sectors = known.sectors;  // a disk that is known by its id may have grown
    }
    if (const std::string name = identify(main).unique_name;
        !rebind && known.id_type == DM_REMAP_MAIN_ID_NONE && !same_name(known.name, name)) {
        // With what the spare holds main is whole; a new format would throw that away.
        return fail(Error(fmt::format("{}: was formatted for the disk {}, but {} is {}",
                                      spare.path(), known.name, main.path(), name))
                        .advise("Name the right main device. Do not format the spare: what was "
                                "remapped is there alone."));
    }
    if (const std::string wrong = offline.wrong_main(found); !wrong.empty()) {
        return fail(Error(fmt::format("{}: {}", spare.path(), wrong))
                        .advise(fmt::format(
                            "It was made for {}, {} sectors from sector {} on, which begins at "
                            "sector {} of its disk; {} has {} sectors, and begins at {}. Do not "
                            "format it: what was remapped is there alone.",
                            known.name[0] != '\0' ? known.name : "a main device", known.sectors,
                            known.start, known.partition, main.path(), main.sectors(),
                            found.id.partition)));
    }
    return {};
}

Result<std::uint64_t> mapped_length(const BlockDevice& main, std::uint64_t start,
                                    std::optional<std::uint64_t> wanted) {
    const std::uint64_t block = main.logical_block_bytes() / DM_REMAP_SECTOR_SIZE;
    const std::uint64_t available = start < main.sectors() ? main.sectors() - start : 0;
    const std::uint64_t length = wanted.value_or(available);
    if (length == 0 || length > available) {
        return fail(fmt::format("{}: has {} sectors from sector {} on; {} are asked for",
                                main.path(), available, start, length));
    }
    if (length % block != 0) {
        return fail(
            fmt::format("{}: a length of {} sectors is not a whole number of its logical "
                        "blocks of {} sectors",
                        main.path(), length, block));
    }
    return length;
}

// What is known of the spare from before.
Result<std::optional<WitnessRecord>> known_witness(const CreateOptions& options) {
    if (options.witness.empty()) {
        return std::nullopt;
    }
    Result<std::optional<WitnessRecord>> known = read_witness(options.witness);
    if (known && *known && options.format) {
        return fail(Error(options.witness + ": is the witness of a spare that is formatted already")
                        .advise("Leave out --format, or name another file."));
    }
    if (known && !*known && !options.format) {
        fmt::print(stderr, "dm-remapctl: {}: is not there yet, so nothing can be compared\n",
                   options.witness);
    }
    return known;
}

// All that can be checked before the kernel is asked, and what to ask it. Devices are closed again
// on return, before the kernel opens them.
Result<NewDevice> prepare(const CreateOptions& options) {
    Result<std::optional<WitnessRecord>> witness = known_witness(options);
    if (!witness) {
        return pass_on(witness);
    }
    Result<BlockDevice> main = open_for_mapping(options.main, options.read_only);
    if (!main) {
        return pass_on(main);
    }
    Result<BlockDevice> spare = open_for_mapping(options.spare, options.read_only);
    if (!spare) {
        return pass_on(spare);
    }
    if (options.format) {
        // Before anything is written.
        const std::uint64_t start = options.start.value_or(0);
        if (Result<std::uint64_t> length = mapped_length(*main, start, options.length); !length) {
            return pass_on(length);
        }
        if (Result<void> formatted = format_blank(*main, *spare, start); !formatted) {
            return pass_on(formatted);
        }
    }
    OfflineSpare offline(*spare);
    if (!offline.load()) {
        return fail(fmt::format("{}: {}", spare->path(), offline.refusal()));
    }
    const std::uint64_t start = options.start.value_or(offline.super().main.start);
    if (Result<void> right = check_main(offline, *main, *spare, start, options.rebind); !right) {
        return pass_on(right);
    }
    if (*witness) {
        if (Result<void> newest = check_witness(offline, **witness); !newest) {
            return pass_on(newest, fmt::format("{}: {}", spare->path(), options.witness));
        }
    }
    Result<std::uint64_t> length = mapped_length(*main, start, options.length);
    if (!length) {
        return pass_on(length);
    }
    const std::string uuid = uuid_text(offline.super().uuid);
    const TableParams params{.main = main->number_text(),
                             .main_start = start,
                             .spare = spare->number_text(),
                             .uuid = uuid,
                             .witness = *witness ? std::optional((*witness)->least) : std::nullopt,
                             .rebind = options.rebind,
                             .no_auto_remap = options.no_auto_remap,
                             .verify_spare_writes = options.verify_spare_writes,
                             .read_retries = options.read_retries};
    return NewDevice{.name = options.name,
                     .uuid = device_uuid(uuid, options.name),
                     .target = {.start = 0,
                                .length = *length,
                                .type = std::string(target_name),
                                .params = write_table_params(params)},
                     .read_only = options.read_only};
}

}  // namespace

Result<ExitCode> cmd_create(DmClient& dm, const CreateOptions& options) {
    if (Result<void> valid = check_device_name(options.name); !valid) {
        return pass_on(valid);
    }
    Result<NewDevice> device = prepare(options);
    if (!device) {
        return pass_on(device, options.name);
    }
    if (Result<void> created = dm.create(*device); !created) {
        return pass_on(created);
    }
    fmt::print("/dev/mapper/{}\n", options.name);
    const std::string but = options.name + ": is there, but";
    if (!options.read_only) {
        // As one whose spare cannot be written, which remaps nothing new. It serves what it has, so
        // a boot goes on.
        Result<RemapDevice> created = read_remap_device(dm, options.name);
        if (!created) {
            return pass_on(created, but);
        }
        for (const std::string& reason : needs_attention(*created)) {
            fmt::print(stderr, "dm-remapctl: {}: attention: {}\n", options.name, reason);
        }
    }
    if (!options.witness.empty()) {
        if (Result<TableParams> kept = keep_witness_of(dm, options.name, options.witness); !kept) {
            return pass_on(kept, but);
        }
    }
    return ExitCode::done;
}

}  // namespace remap

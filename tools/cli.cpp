// SPDX-License-Identifier: GPL-2.0-only
#include "cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <system_error>

#include "text.h"

namespace remap {
namespace {

using Action = std::function<Result<ExitCode>(DmClient&)>;

constexpr const char* exit_codes =
    "Exit codes:\n"
    "  0  done\n"
    "  1  error: nothing was done, or not all of it; the message says what\n"
    "  2  wrong usage\n"
    "  3  done, and the device needs attention (status, check, dump)\n"
    "Sectors are 512 bytes; those of a mapped device count from its start.";

// CLI11's own conversion takes octal, hexadecimal and negative numbers and wraps large ones.
std::uint64_t to_number(const std::string& text) {
    const std::optional<std::uint64_t> number = parse_u64(text);
    if (!number) {
        throw CLI::ValidationError(fmt::format("\"{}\" is no number of 64 bits", text));
    }
    return *number;
}

// @target: a std::uint64_t, or an optional one. @owner keeps it alive.
template <typename Owner, typename Target>
CLI::Option* add_number(CLI::App* verb, const std::string& name, std::shared_ptr<Owner> owner,
                        Target Owner::*target, const std::string& description) {
    return verb
        ->add_option_function<std::string>(
            name,
            [owner = std::move(owner), target](const std::string& text) {
                (*owner).*target = to_number(text);
            },
            description)
        ->type_name("N");
}

// As of a variable of a script that is not set: it names nothing, and is not the same as no word.
std::string no_name(const std::string& text) {
    return text.empty() ? "must not be empty" : "";
}

CLI::Option* add_name(CLI::App* verb, const std::string& name, std::string& target,
                      const std::string& description) {
    return verb->add_option(name, target, description)->type_name("")->check(no_name)->required();
}

void add_json(CLI::App* verb, bool& json) {
    verb->add_flag("--json", json, "Print JSON, with \"json_format_version\": 1");
}

void add_witness(CLI::App* verb, std::string& file, const std::string& description) {
    verb->add_option("--witness", file, description)->type_name("FILE")->check(no_name);
}

void add_format(CLI::App& app, Action& action) {
    auto options = std::make_shared<FormatOptions>();
    CLI::App* verb = app.add_subcommand("format", "Make a device the spare of a main device");
    add_name(verb, "MAIN", options->main, "Device whose bad sectors it will take; only looked at");
    add_name(verb, "SPARE", options->spare, "Device to format");
    add_number(verb, "--start", options, &FormatOptions::start,
               "First sector of MAIN that will be mapped (default 0)");
    add_number(verb, "--records", options, &FormatOptions::records,
               "Room for so many records (default: one for each 4 KiB of the spare)");
    add_number(verb, "--journal-blocks", options, &FormatOptions::journal_blocks,
               "Length of the journal, 16 to 4096 blocks of 4 KiB (default: by size)");
    verb->add_flag("--force", options->force, "Overwrite what is there, wiping every copy of it");
    verb->add_flag("--yes", options->yes, "Do not ask");
    verb->callback([options, &action] {
        action = [options](DmClient& dm) { return cmd_format(dm, *options); };
    });
}

void add_create(CLI::App& app, Action& action) {
    auto options = std::make_shared<CreateOptions>();
    CLI::App* verb = app.add_subcommand("create", "Put a mapped device in front of a main device");
    add_name(verb, "NAME", options->name, "Name of the mapped device, as in /dev/mapper");
    add_name(verb, "MAIN", options->main, "Device to map; nothing on it is changed");
    add_name(verb, "SPARE", options->spare, "Its spare, as formatted for it");
    add_number(verb, "--start", options, &CreateOptions::start,
               "First sector of MAIN that is mapped (default: as formatted)");
    add_number(verb, "--length", options, &CreateOptions::length,
               "Sectors that are mapped (default: to the end of MAIN)");
    add_number(verb, "--read-retries", options, &CreateOptions::read_retries,
               "How often a read that failed is tried again");
    verb->add_flag("--no-auto-remap", options->no_auto_remap,
                   "Record errors, and relocate nothing by itself");
    verb->add_flag("--verify-spare-writes", options->verify_spare_writes,
                   "Read back each write to the spare: slower, for a card or a stick");
    CLI::Option* read_only = verb->add_flag("--readonly", options->read_only,
                                            "Map read-only; nothing is written anywhere");
    CLI::Option* format =
        verb->add_flag("--format", options->format, "Format the spare first, if it is blank");
    format->excludes(read_only);
    verb->add_flag("--rebind", options->rebind,
                   "MAIN is the right one, though SPARE knows another: see recovery.md")
        ->excludes(format);
    add_witness(verb, options->witness,
                "Refuse a spare that is older than FILE says, if there is one; then write FILE");
    verb->callback([options, &action] {
        action = [options](DmClient& dm) { return cmd_create(dm, *options); };
    });
}

void add_remove(CLI::App& app, Action& action) {
    auto options = std::make_shared<RemoveOptions>();
    CLI::App* verb = app.add_subcommand(
        "remove", "Remove a mapped device; if it is open, that is tried again for some seconds");
    add_name(verb, "NAME", options->name, "Mapped device");
    CLI::Option* force = verb->add_flag(
        "--force", options->force,
        "Fail all its I/O from now on, which frees main and spare even while it is in use");
    verb->add_flag("--deferred", options->deferred, "Remove it when its last user closes it")
        ->excludes(force);
    add_witness(verb, options->witness, "Note in FILE what the spare has come to");
    verb->callback([options, &action] {
        action = [options](DmClient& dm) { return cmd_remove(dm, *options); };
    });
}

void add_status(CLI::App& app, Action& action) {
    auto options = std::make_shared<StatusOptions>();
    CLI::App* verb = app.add_subcommand("status", "Show the state of one or all mapped devices");
    add_name(verb, "NAME", options->name, "Mapped device (default: all)")->required(false);
    add_json(verb, options->json);
    verb->footer(
        "Exits with 3 where a device needs attention: its mode is not rw, its state is ERROR,\n"
        "its breaker is open, relocations are refused, sectors are pending or unreadable, 10 % or\n"
        "less of the spare, or of its table, is free, or it is suspended. Exits with 1 where one "
        "of\n"
        "them cannot be read.");
    verb->callback([options, &action] {
        action = [options](DmClient& dm) { return cmd_status(dm, *options); };
    });
}

void add_list(CLI::App& app, Action& action) {
    auto options = std::make_shared<ListOptions>();
    CLI::App* verb = app.add_subcommand("list", "List the records of a mapped device");
    add_name(verb, "NAME", options->name, "Mapped device");
    add_json(verb, options->json);
    verb->callback([options, &action] {
        action = [options](DmClient& dm) { return cmd_list(dm, *options); };
    });
}

using RangeCommand = Result<ExitCode> (*)(DmClient&, const RangeOptions&);

void add_range_verb(CLI::App& app, Action& action, const std::string& name,
                    const std::string& description, RangeCommand command) {
    auto options = std::make_shared<RangeOptions>();
    CLI::App* verb = app.add_subcommand(name, description);
    add_name(verb, "NAME", options->name, "Mapped device");
    add_number(verb, "SECTOR", options, &RangeOptions::sector, "First sector")->required();
    add_number(verb, "COUNT", options, &RangeOptions::count,
               "How many sectors (default: one logical block)");
    verb->callback([options, command, &action] {
        action = [options, command](DmClient& dm) { return command(dm, *options); };
    });
}

using DeviceCommand = Result<ExitCode> (*)(DmClient&, const std::string&);

void add_device_verb(CLI::App& app, Action& action, const std::string& name,
                     const std::string& description, DeviceCommand command) {
    auto device = std::make_shared<std::string>();
    CLI::App* verb = app.add_subcommand(name, description);
    add_name(verb, "NAME", *device, "Mapped device");
    verb->callback([device, command, &action] {
        action = [device, command](DmClient& dm) { return command(dm, *device); };
    });
}

void add_save(CLI::App& app, Action& action) {
    auto options = std::make_shared<SaveOptions>();
    CLI::App* verb = app.add_subcommand("save", "Write the table to the spare now");
    add_name(verb, "NAME", options->name, "Mapped device");
    add_witness(verb, options->witness, "Note in FILE what the spare has come to");
    verb->callback([options, &action] {
        action = [options](DmClient& dm) { return cmd_save(dm, *options); };
    });
}

using OfflineCommand = Result<ExitCode> (*)(const OfflineOptions&);

// Returns the options, for those that only one of the verbs has.
std::shared_ptr<OfflineOptions> add_offline_verb(CLI::App& app, Action& action,
                                                 const std::string& name,
                                                 const std::string& description,
                                                 OfflineCommand command) {
    auto options = std::make_shared<OfflineOptions>();
    CLI::App* verb = app.add_subcommand(name, description);
    add_name(verb, "SPARE", options->spare, "Spare device, or an image file of one; only read");
    add_json(verb, options->json);
    verb->add_flag("--force", options->force, "Look at it although it is in use");
    verb->footer(
        "Exits with 0 where the metadata is sound, with 3 where a copy of something is damaged\n"
        "and nothing is lost, and with 1 where it is unusable.");
    verb->callback([options, command, &action] {
        action = [options, command](DmClient& /*dm*/) { return command(*options); };
    });
    return options;
}

void add_check(CLI::App& app, Action& action) {
    const auto options = add_offline_verb(
        app, action, "check", "Check the metadata of a spare that is not in use", cmd_check);
    add_witness(app.get_subcommand("check"), options->witness,
                "Is it as new as FILE says? If not, it is unusable");
}

void add_version(CLI::App& app, Action& action) {
    app.add_subcommand("version", "Show the versions of tool, metadata format and loaded target")
        ->callback([&action] { action = [](DmClient& dm) { return cmd_version(dm); }; });
}

void add_verbs(CLI::App& app, Action& action) {
    add_format(app, action);
    add_create(app, action);
    add_remove(app, action);
    add_status(app, action);
    add_list(app, action);
    add_range_verb(app, action, "remap", "Move sectors to the spare by hand", cmd_remap);
    add_range_verb(app, action, "unremap", "Move sectors back to the main device", cmd_unremap);
    add_range_verb(app, action, "forget", "Drop records of pending sectors", cmd_forget);
    add_save(app, action);
    add_device_verb(app, action, "restore",
                    "Verify the spare against the table in memory, and heal a damaged copy",
                    cmd_restore);
    add_device_verb(app, action, "reset-breaker",
                    "Remap failing sectors again, after main failed as a whole", cmd_reset_breaker);
    add_check(app, action);
    add_offline_verb(app, action, "dump", "Show all metadata of a spare that is not in use",
                     cmd_dump);
    add_version(app, action);
}

ExitCode run(const Action& action) {
    KernelDmClient dm;
    const Result<ExitCode> code = action(dm);
    if (!code) {
        fmt::print(stderr, "dm-remapctl: {}\n", code.error().text());
    }
    // A full disk below a redirected output is an error too.
    if (std::fflush(stdout) != 0) {
        throw std::system_error(errno, std::generic_category(), "cannot write the output");
    }
    if (!code) {
        return ExitCode::error;
    }
    return *code;
}

}  // namespace

ExitCode run_cli(int argc, const char* const* argv) {
    try {
        CLI::App app("Remap bad sectors of a disk to a spare device", "dm-remapctl");
        app.footer(exit_codes);
        app.require_subcommand(1);
        Action action;
        add_verbs(app, action);
        try {
            app.parse(argc, argv);
        } catch (const CLI::ParseError& error) {
            // Help is a "parse error" of CLI11's with exit code 0.
            return app.exit(error) == 0 ? ExitCode::done : ExitCode::usage;
        }
        return run(action);
    } catch (const std::exception& error) {
        std::cerr << "dm-remapctl: " << error.what() << '\n';
        return ExitCode::error;
    }
}

}  // namespace remap

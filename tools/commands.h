// SPDX-License-Identifier: GPL-2.0-only
// The verbs. Each takes what was parsed, does the work, and prints the result to stdout.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dm_client.h"
#include "error.h"

namespace remap {

enum class ExitCode {
    done = 0,
    error = 1,
    usage = 2,
    attention = 3,
};

struct FormatOptions {
    std::string main;
    std::string spare;
    std::uint64_t start = 0;           // sectors of main before the mapped device
    std::uint64_t records = 0;         // 0: chosen for the size of the spare
    std::uint64_t journal_blocks = 0;  // 0: chosen
    bool force = false;
    bool yes = false;
};
Result<ExitCode> cmd_format(DmClient& dm, const FormatOptions& options);

struct CreateOptions {
    std::string name;
    std::string main;
    std::string spare;
    std::optional<std::uint64_t> start;   // sectors; default: as formatted
    std::optional<std::uint64_t> length;  // sectors; default: to the end of main
    std::optional<std::uint64_t> read_retries;
    bool no_auto_remap = false;
    bool verify_spare_writes = false;
    bool read_only = false;
    bool format = false;
    bool rebind = false;
    std::string witness = {};  // a file; empty: none
};
Result<ExitCode> cmd_create(DmClient& dm, const CreateOptions& options);

struct RemoveOptions {
    std::string name;
    bool force = false;
    bool deferred = false;
    std::string witness = {};  // a file; empty: none
};
Result<ExitCode> cmd_remove(DmClient& dm, const RemoveOptions& options);

struct StatusOptions {
    std::string name;  // empty: all
    bool json = false;
};
Result<ExitCode> cmd_status(DmClient& dm, const StatusOptions& options);

struct ListOptions {
    std::string name;
    bool json = false;
};
Result<ExitCode> cmd_list(DmClient& dm, const ListOptions& options);

struct RangeOptions {
    std::string name;
    std::uint64_t sector = 0;
    std::optional<std::uint64_t> count = {};  // sectors; default: one logical block
};
Result<ExitCode> cmd_remap(DmClient& dm, const RangeOptions& options);
Result<ExitCode> cmd_unremap(DmClient& dm, const RangeOptions& options);
Result<ExitCode> cmd_forget(DmClient& dm, const RangeOptions& options);

struct SaveOptions {
    std::string name;
    std::string witness = {};  // a file; empty: none
};
Result<ExitCode> cmd_save(DmClient& dm, const SaveOptions& options);
Result<ExitCode> cmd_restore(DmClient& dm, const std::string& name);
Result<ExitCode> cmd_reset_breaker(DmClient& dm, const std::string& name);

struct OfflineOptions {
    std::string spare;
    bool json = false;
    bool force = false;        // although a mapped device has it in use
    std::string witness = {};  // a file, of check; empty: none
};
Result<ExitCode> cmd_check(const OfflineOptions& options);
Result<ExitCode> cmd_dump(const OfflineOptions& options);

Result<ExitCode> cmd_version(DmClient& dm);

}  // namespace remap

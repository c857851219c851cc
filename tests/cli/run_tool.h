// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace remap::test {

struct ToolRun {
    int exit_code;  // or -1: it died of a signal
    std::string out;
    std::string err;

    // @out as JSON; throws if it is none.
    nlohmann::json json() const { return nlohmann::json::parse(out); }
};

// Runs dm-remapctl without a terminal.
ToolRun run_tool(const std::vector<std::string>& arguments);

}  // namespace remap::test

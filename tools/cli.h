// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "commands.h"

namespace remap {

// Parses the arguments, runs the verb, and prints the error if there is one.
ExitCode run_cli(int argc, const char* const* argv);

}  // namespace remap

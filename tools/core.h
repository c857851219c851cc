// SPDX-License-Identifier: GPL-2.0-only
// The core (kernel/core), for C++. Its own system headers come first: they may not be seen for the
// first time inside extern "C".
#pragma once

#include <endian.h>
#include <libdeflate.h>

#include <cassert>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
#include "dm-remap-metadata.h"
}

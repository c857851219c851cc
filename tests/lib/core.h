// The core's C headers, for C++. Their own system headers come first: those may not be seen for the
// first time inside extern "C".
#pragma once

#include <endian.h>
#include <libdeflate.h>
#include <linux/types.h>

#include <cassert>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
#include "dm-remap-alloc.h"
#include "dm-remap-cache.h"
#include "dm-remap-codec.h"
#include "dm-remap-evidence.h"
#include "dm-remap-manual.h"
#include "dm-remap-metadata.h"
#include "dm-remap-relocate.h"
#include "dm-remap-schedule.h"
#include "dm-remap-table.h"
#include "dm-remap-way.h"
}

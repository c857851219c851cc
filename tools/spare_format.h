// SPDX-License-Identifier: GPL-2.0-only
// Making a device the spare of a main device: the checks, and the writing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block_device.h"
#include "core.h"
#include "error.h"

namespace remap {

struct FormatRequest {
    std::uint64_t start = 0;           // sectors of main before the mapped device
    std::uint64_t records = 0;         // 0: chosen for the size of the spare
    std::uint64_t journal_blocks = 0;  // 0: chosen
};

// @main as far as it is known here: of a disk only the kernel knows the id.
dm_remap_main describe_main(const BlockDevice& main, std::uint64_t start);

// Can @spare serve @main at all, and with these numbers? Draws its UUID. Writes nothing.
Result<dm_remap_format_params> plan_format(const BlockDevice& main, const BlockDevice& spare,
                                           const FormatRequest& request);

// What lies on @spare that people may want to keep: signatures and dm-remap metadata.
Result<std::vector<std::string>> find_contents(const BlockDevice& spare);

// Is there nothing, known or not, where @params would have the metadata? An error: it cannot be
// read.
Result<bool> is_blank(const BlockDevice& spare, dm_remap_format_params params);

// Wipes what find_contents finds, every copy, durably.
Result<void> wipe_contents(const BlockDevice& spare);

// Writes empty metadata.
Result<void> write_format(const BlockDevice& spare, const dm_remap_format_params& params);

}  // namespace remap

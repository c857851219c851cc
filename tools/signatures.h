// SPDX-License-Identifier: GPL-2.0-only
// What libblkid recognises on a device: filesystems, RAID and LVM members, partition tables.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "block_device.h"
#include "error.h"

namespace remap {

struct Signature {
    std::string type;      // "ext4", "LVM2_member", "gpt"
    std::string label;     // or empty
    std::uint64_t offset;  // bytes
};

// "ext4 'home' at byte 1080"
std::string signature_text(const Signature& signature);

// What shows; a backup copy only where its primary is gone.
Result<std::vector<Signature>> find_signatures(const BlockDevice& device);

// Wipes every copy, durably. @device is open for writing.
Result<void> wipe_signatures(const BlockDevice& device);

}  // namespace remap

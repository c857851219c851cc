// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "block_device.h"

namespace remap {

// Which disk a block device is, or is a partition of. All of it may be unknown: empty.
struct DeviceIdentity {
    // WWN or serial, the same with and without a running udevd; else empty.
    std::string unique_name;
    std::string model;
    std::string serial;
    // Set if device-mapper made it; empty if it gave none.
    std::optional<std::string> dm_uuid = {};
    dev_t disk = 0;                     // the whole disk; 0: unknown, as of an image
    std::uint64_t partition_start = 0;  // sectors; 0 for a whole disk
};

DeviceIdentity identify(const BlockDevice& device);

// Do @a and @b share sectors: the same device, or a disk and its partition?
bool overlap(const BlockDevice& a, const BlockDevice& b);

// May @known, which a spare keeps, be the unique name @found of a disk? One that is not known may
// be any. A spare has room for the head of a name, or for the tail of a DM UUID.
bool same_name(std::string_view known, std::string_view found);

// "model X, serial Y", or "no model or serial known".
std::string identity_text(const DeviceIdentity& identity);

}  // namespace remap

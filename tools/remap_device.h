// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dm_client.h"
#include "target_spec.h"

namespace remap {

// A live mapped device of the target `remap`.
struct RemapDevice {
    std::string name;
    std::string uuid;  // device-mapper's
    std::uint64_t sectors = 0;
    bool suspended = false;
    bool read_only = false;
    TableParams table;
    TargetStatus status;
};

// Is there still a mapped device of that name? It may have been removed since it was named.
bool is_there(DmClient& dm, const std::string& name);

// Does it map with this target, and nothing else?
bool has_remap_table(const MappedDevice& device);

// Does it belong to this target? True too once its table was replaced by errors.
bool is_ours(const MappedDevice& device);

// What to say of a device that is not.
Error not_ours(const MappedDevice& device);

// An error if there is none of that name, or it is of another kind.
Result<RemapDevice> read_remap_device(DmClient& dm, const std::string& name);

struct RemapDevices {
    std::vector<RemapDevice> devices;
    // Of those that are ours, and cannot be read or are let go: one must not hide the others.
    std::vector<Error> errors;
};
// All that there are, by name.
Result<RemapDevices> read_remap_devices(DmClient& dm);

// Why a person should look at the device, a phrase each; empty: all is well.
std::vector<std::string> needs_attention(const RemapDevice& device);

}  // namespace remap

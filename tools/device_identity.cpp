// SPDX-License-Identifier: GPL-2.0-only
#include "device_identity.h"

#include <fmt/format.h>
#include <libudev.h>

#include <initializer_list>
#include <memory>

#include "core.h"
#include "text.h"

namespace remap {
namespace {

using Udev = std::unique_ptr<udev, decltype(&udev_unref)>;
using UdevDevice = std::unique_ptr<udev_device, decltype(&udev_device_unref)>;

// Attributes come padded with spaces to the width of a SCSI or ATA field.
std::string trimmed(const char* text) {
    std::string result;
    for (const std::string_view word : split_words(text != nullptr ? text : "")) {
        result += result.empty() ? "" : " ";
        result += word;
    }
    return result;
}

// The part of a name that stays the same each time the device is set up.
std::string_view lasting(std::string_view name) {
    const std::size_t length = dm_remap_dm_uuid_length(std::string(name).c_str());
    return length != 0 ? name.substr(0, length) : name;
}

std::string first_attribute(udev_device* device, std::initializer_list<const char*> names) {
    for (const char* name : names) {
        if (std::string value = trimmed(udev_device_get_sysattr_value(device, name));
            !value.empty()) {
            return value;
        }
    }
    return {};
}

}  // namespace

DeviceIdentity identify(const BlockDevice& device) {
    DeviceIdentity identity;
    if (device.is_image()) {
        return identity;
    }
    const Udev udev(udev_new(), udev_unref);
    const UdevDevice node(
        udev ? udev_device_new_from_devnum(udev.get(), 'b', device.number()) : nullptr,
        udev_device_unref);
    if (!node) {
        return identity;
    }
    identity.partition_start = parse_u64(first_attribute(node.get(), {"start"})).value_or(0);

    // The parent belongs to its child and is not ours to free.
    udev_device* disk = udev_device_get_parent_with_subsystem_devtype(node.get(), "block", "disk");
    if (disk == nullptr) {
        disk = node.get();
    }
    identity.disk = udev_device_get_devnum(disk);
    if (!first_attribute(disk, {"dm/name"}).empty()) {
        // As it is: the kernel hashes every space of it.
        const char* uuid = udev_device_get_sysattr_value(disk, "dm/uuid");
        identity.dm_uuid = uuid != nullptr ? uuid : "";
    }
    // From sysfs alone, and not from udev's database: what is stored at format is compared in an
    // initramfs too, where there may be none. NVMe, SCSI and ATA, virtio, MMC, device-mapper.
    identity.unique_name =
        first_attribute(disk, {"wwid", "device/wwid", "serial", "device/serial", "dm/uuid"});
    identity.model = first_attribute(disk, {"device/model", "device/name"});
    identity.serial = first_attribute(disk, {"serial", "device/serial"});
    if (identity.serial.empty()) {
        identity.serial = trimmed(udev_device_get_property_value(disk, "ID_SERIAL_SHORT"));
    }
    return identity;
}

bool overlap(const BlockDevice& a, const BlockDevice& b) {
    if (a.same_as(b)) {
        return true;
    }
    const DeviceIdentity id_a = identify(a);
    const DeviceIdentity id_b = identify(b);
    return id_a.disk != 0 && id_a.disk == id_b.disk &&
           id_a.partition_start < id_b.partition_start + b.sectors() &&
           id_b.partition_start < id_a.partition_start + a.sectors();
}

bool same_name(std::string_view known, std::string_view found) {
    constexpr std::size_t room = DM_REMAP_MAIN_NAME_SIZE - 1;
    if (known.empty() || found.empty() || lasting(known) == lasting(found)) {
        return true;
    }
    return known.size() == room && (found.starts_with(known) || found.ends_with(known));
}

std::string identity_text(const DeviceIdentity& identity) {
    std::vector<std::string> parts;
    if (!identity.model.empty()) {
        parts.push_back("model " + identity.model);
    }
    if (!identity.serial.empty()) {
        parts.push_back("serial " + identity.serial);
    } else if (!identity.unique_name.empty()) {
        parts.push_back("id " + identity.unique_name);
    }
    return parts.empty() ? "no model or serial known" : join(parts, ", ");
}

}  // namespace remap

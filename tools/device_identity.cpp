// SPDX-License-Identifier: GPL-2.0-only
#include "device_identity.h"

#include <fmt/format.h>
#include <libudev.h>

#include <initializer_list>
#include <memory>

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

// An encrypted device is called CRYPT-<type>-<UUID>-<name>, and the name is new each time it is
// opened. Types without a UUID (PLAIN, INTEGRITY) have nothing but the name.
std::string_view without_mapped_name(std::string_view name) {
    constexpr std::size_t uuid_digits = 32;
    constexpr std::string_view crypt = "CRYPT-";
    const std::size_t type_end = name.starts_with(crypt) ? name.find('-', crypt.size()) : name.npos;
    if (type_end == name.npos) {
        return name;
    }
    const std::string_view uuid = name.substr(type_end + 1, uuid_digits);
    const std::size_t uuid_end = type_end + 1 + uuid_digits;
    const bool is_uuid = uuid.size() == uuid_digits &&
                         uuid.find_first_not_of("0123456789abcdefABCDEF") == uuid.npos &&
                         name.substr(uuid_end, 1) == "-";
    return is_uuid ? name.substr(0, uuid_end) : name;
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

bool same_name(std::string_view a, std::string_view b) {
    return a.empty() || b.empty() || without_mapped_name(a) == without_mapped_name(b);
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

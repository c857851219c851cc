// SPDX-License-Identifier: GPL-2.0-only
#include "device_use.h"

#include <fmt/format.h>
#include <libmount/libmount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include "target_spec.h"
#include "text.h"

namespace remap {
namespace {

using Table = std::unique_ptr<libmnt_table, decltype(&mnt_unref_table)>;

std::vector<std::filesystem::path> holders(dev_t device) {
    const std::filesystem::path sysfs =
        fmt::format("/sys/dev/block/{}:{}/holders", major(device), minor(device));
    std::vector<std::filesystem::path> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(sysfs, error)) {
        found.push_back(entry.path());
    }
    return found;
}

// What device-mapper says of a holder: its "name", or "uuid"; empty if it is another kind of
// device.
std::string mapped(const std::filesystem::path& holder, const std::string& attribute) {
    std::string text;
    std::ifstream file(holder / "dm" / attribute);
    std::getline(file, text);
    return text;
}

std::string mount_point(dev_t device) {
    const Table table(mnt_new_table(), mnt_unref_table);
    if (!table || mnt_table_parse_mtab(table.get(), nullptr) != 0) {
        return {};
    }
    libmnt_fs* fs = mnt_table_find_devno(table.get(), device, MNT_ITER_BACKWARD);
    const char* target = fs != nullptr ? mnt_fs_get_target(fs) : nullptr;
    return target != nullptr ? target : "";
}

bool is_swap(dev_t device) {
    const Table table(mnt_new_table(), mnt_unref_table);
    const std::unique_ptr<libmnt_iter, decltype(&mnt_free_iter)> iter(
        mnt_new_iter(MNT_ITER_FORWARD), mnt_free_iter);
    if (!table || !iter || mnt_table_parse_swaps(table.get(), nullptr) != 0) {
        return false;
    }
    libmnt_fs* fs = nullptr;
    while (mnt_table_next_fs(table.get(), iter.get(), &fs) == 0) {
        struct stat st {};
        const char* source = mnt_fs_get_source(fs);
        if (source != nullptr && stat(source, &st) == 0 && S_ISBLK(st.st_mode) &&
            st.st_rdev == device) {
            return true;
        }
    }
    return false;
}

// The block device itself, and not its partitions.
std::vector<std::string> uses_of(dev_t device) {
    std::vector<std::string> uses;
    if (std::string target = mount_point(device); !target.empty()) {
        uses.push_back("mounted at " + target);
    }
    if (is_swap(device)) {
        uses.emplace_back("swap");
    }
    for (const std::filesystem::path& holder : holders(device)) {
        const std::string name = mapped(holder, "name");
        uses.push_back(fmt::format("held by {}{}", holder.filename().string(),
                                   name.empty() ? "" : " (" + name + ")"));
    }
    return uses;
}

struct Partition {
    std::string name;  // "sda1"
    dev_t device;
};

std::vector<Partition> partitions(dev_t disk) {
    const std::string sysfs = fmt::format("/sys/dev/block/{}:{}", major(disk), minor(disk));
    std::vector<Partition> found;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(sysfs, error)) {
        unsigned int major_number = 0;
        unsigned int minor_number = 0;
        char colon = 0;
        if (std::filesystem::exists(entry.path() / "partition", error) &&
            std::ifstream(entry.path() / "dev") >> major_number >> colon >> minor_number) {
            found.push_back(
                {entry.path().filename().string(), makedev(major_number, minor_number)});
        }
    }
    std::sort(found.begin(), found.end(),
              [](const Partition& a, const Partition& b) { return a.device < b.device; });
    return found;
}

}  // namespace

std::string remap_device_on(dev_t device) {
    for (const std::filesystem::path& holder : holders(device)) {
        if (mapped(holder, "uuid").starts_with(device_uuid_prefix)) {
            return mapped(holder, "name");
        }
    }
    return {};
}

std::string loop_device_over(dev_t filesystem, ino_t inode) {
    std::error_code error;
    for (const auto& disk : std::filesystem::directory_iterator("/sys/block", error)) {
        std::string backing;
        std::ifstream file(disk.path() / "loop" / "backing_file");
        struct stat st {};
        if (std::getline(file, backing) && stat(backing.c_str(), &st) == 0 &&
            st.st_dev == filesystem && st.st_ino == inode) {
            return "/dev/" + disk.path().filename().string();
        }
    }
    return {};
}

std::string device_path(const std::string& number) {
    std::error_code error;
    std::string name =
        std::filesystem::read_symlink("/sys/dev/block/" + number, error).filename().string();
    std::replace(name.begin(), name.end(), '!', '/');  // sysfs's way to write a slash
    const std::string path = "/dev/" + name;
    return !error && std::filesystem::exists(path, error) ? path : number;
}

std::string describe_use(dev_t device) {
    std::vector<std::string> uses = uses_of(device);
    for (const Partition& partition : partitions(device)) {
        if (const std::string use = join(uses_of(partition.device), ", "); !use.empty()) {
            uses.push_back(fmt::format("its partition {} is {}", partition.name, use));
        }
    }
    return join(uses, ", ");
}

}  // namespace remap

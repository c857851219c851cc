// SPDX-License-Identifier: GPL-2.0-only
#include "block_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "device_use.h"

namespace remap {
namespace {

constexpr std::uint64_t sector_bytes = 512;

Error in_use(const std::string& path, dev_t number) {
    const std::string holder = describe_use(number);
    return Error(fmt::format("{}: is in use{}", path, holder.empty() ? "" : ": " + holder))
        .advise("Unmount or remove what uses it, then try again.");
}

Error cannot_open(const std::string& path, int number) {
    Error error = Error::from_errno(number, "open").within(path);
    switch (number) {
        case ENOENT:
        case ENXIO:
            return std::move(error).advise("Check the name of the device.");
        case EACCES:
        case EPERM:
        case EROFS:
            // A read-only device refuses root too.
            return std::move(error).advise(
                geteuid() != 0 ? "Run this as root." : "It is read-only: see `blockdev --setrw`.");
        default:
            return error;
    }
}

}  // namespace

Result<BlockDevice> BlockDevice::open(const std::string& path, Access access, Sharing sharing) {
    BlockDevice device;
    device.path_ = path;

    struct stat st {};
    if (stat(path.c_str(), &st) != 0) {
        return fail(cannot_open(path, errno));
    }
    if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode)) {
        return fail(Error(fmt::format("{}: is neither a block device nor an image file", path))
                        .advise("Name a device such as /dev/sdb, or a file that holds its copy."));
    }
    device.is_image_ = S_ISREG(st.st_mode);

    int flags = O_CLOEXEC | (access == Access::write ? O_RDWR : O_RDONLY);
    if (!device.is_image_) {
        // The medium and not the page cache; and on a block device O_EXCL claims it.
        flags |= O_DIRECT | (sharing == Sharing::exclusive ? O_EXCL : 0);
    }
    device.fd_ = UniqueFd(::open(path.c_str(), flags));
    if (!device.fd_) {
        return fail(errno == EBUSY ? in_use(path, st.st_rdev) : cannot_open(path, errno));
    }
    if (fstat(device.fd(), &st) != 0) {
        return fail(Error::from_errno(errno, "look at it").within(path));
    }
    if (device.is_image_ ? !S_ISREG(st.st_mode) : !S_ISBLK(st.st_mode)) {
        return fail(path + ": became something else while it was opened");
    }
    if (device.is_image_) {
        device.image_inode_ = st.st_ino;
        device.image_filesystem_ = st.st_dev;
        if (sharing == Sharing::exclusive && flock(device.fd(), LOCK_EX | LOCK_NB) != 0) {
            return fail(Error(fmt::format("{}: another program has locked it", path))
                            .advise("Wait until it has finished, then try again."));
        }
        if (std::string loop = loop_device_over(st.st_dev, st.st_ino);
            sharing == Sharing::exclusive && !loop.empty()) {
            return fail(Error(fmt::format("{}: is in use by {}", path, loop))
                            .advise("Name that device instead, or `losetup --detach` it."));
        }
    } else {
        device.number_ = st.st_rdev;
    }
    if (Result<void> measured = device.measure(); !measured) {
        return pass_on(measured, path);
    }
    return device;
}

Result<void> BlockDevice::measure() {
    if (is_image_) {
        struct stat st {};
        if (fstat(fd(), &st) != 0) {
            return fail(Error::from_errno(errno, "find its size"));
        }
        sectors_ = static_cast<std::uint64_t>(st.st_size) / sector_bytes;
        return {};
    }
    std::uint64_t bytes = 0;
    int logical_block = 0;
    if (ioctl(fd(), BLKGETSIZE64, &bytes) != 0 || ioctl(fd(), BLKSSZGET, &logical_block) != 0) {
        return fail(Error::from_errno(errno, "find its size"));
    }
    sectors_ = bytes / sector_bytes;
    logical_block_bytes_ = static_cast<std::uint32_t>(logical_block);
    return {};
}

std::string BlockDevice::number_text() const {
    return fmt::format("{}:{}", major(number_), minor(number_));
}

bool BlockDevice::same_as(const BlockDevice& other) const {
    return is_image_ == other.is_image_ && number_ == other.number_ &&
           image_inode_ == other.image_inode_ && image_filesystem_ == other.image_filesystem_;
}

}  // namespace remap

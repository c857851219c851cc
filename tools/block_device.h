// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "error.h"
#include "unique_fd.h"

namespace remap {

enum class Access { read, write };
// exclusive: refused while a filesystem, another mapping or a program of this kind has it.
enum class Sharing { exclusive, shared };

// An open block device, or a regular file that stands for one.
class BlockDevice {
  public:
    static Result<BlockDevice> open(const std::string& path, Access access, Sharing sharing);

    const std::string& path() const { return path_; }
    int fd() const { return fd_.get(); }
    bool is_image() const { return is_image_; }
    // Of the device itself, or of nothing: 0 for an image.
    dev_t number() const { return number_; }
    // "8:16", as table lines have it.
    std::string number_text() const;
    std::uint64_t sectors() const { return sectors_; }
    std::uint32_t logical_block_bytes() const { return logical_block_bytes_; }

    bool same_as(const BlockDevice& other) const;

  private:
    BlockDevice() = default;
    Result<void> measure();

    std::string path_;
    UniqueFd fd_;
    bool is_image_ = false;
    dev_t number_ = 0;
    ino_t image_inode_ = 0;
    dev_t image_filesystem_ = 0;
    std::uint64_t sectors_ = 0;
    std::uint32_t logical_block_bytes_ = 512;
};

}  // namespace remap

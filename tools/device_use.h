// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <sys/types.h>

#include <string>

namespace remap {

// Who uses a block device: "mounted at /mnt, swap, held by dm-0 (home), its partition sda1 is
// swap". Empty: nobody that shows.
std::string describe_use(dev_t device);

// The remap device that has it as main or spare; empty: none.
std::string remap_device_on(dev_t device);

// The loop device that makes a block device of this file; empty: none.
std::string loop_device_over(dev_t filesystem, ino_t inode);

// "/dev/sda" for "8:0"; what is no number, or unknown here, stays as it is.
std::string device_path(const std::string& number);

}  // namespace remap

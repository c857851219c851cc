// SPDX-License-Identifier: GPL-2.0-only
// A target that refuses gives its reason in the kernel log alone; the ioctl returns an errno.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "unique_fd.h"

namespace remap {

// The text of a record of /dev/kmsg ("6,339,5140900,-;device-mapper: ...") if it is the
// device-mapper's about this target.
std::optional<std::string> remap_line_of_kmsg(std::string_view record);

// A place in the kernel log: from its construction on.
class KernelLogMark {
  public:
    KernelLogMark();
    // What was logged about this target since. Empty too where the log cannot be read.
    std::vector<std::string> lines() const;

  private:
    UniqueFd kmsg_;
};

}  // namespace remap

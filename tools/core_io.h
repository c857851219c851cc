// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>
#include <vector>

#include "block_device.h"
#include "core.h"

namespace remap {

// The core's operations over an open spare. Main is out of reach: what the tool does offline
// concerns metadata alone.
class CoreIo {
  public:
    // @spare must outlive it.
    explicit CoreIo(const BlockDevice& spare) : spare_(spare) {}

    static const dm_remap_ops& ops();

    // What the core said while it worked, a line each.
    const std::vector<std::string>& log() const { return log_; }

  private:
    static int read(void* ctx, dm_remap_dev dev, u64 sector, u32 sectors, void* buf);
    static int write(void* ctx, dm_remap_dev dev, u64 sector, u32 sectors, const void* buf,
                     unsigned int flags);
    static u64 now(void* ctx);
    static u64 random(void* ctx);
    static void log(void* ctx, dm_remap_level level, const char* fmt, ...) __printf(3, 4);

    const BlockDevice& spare_;
    std::vector<std::string> log_;
};

}  // namespace remap

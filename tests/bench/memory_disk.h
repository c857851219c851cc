// A spare in memory that takes none for what was never written, and a main of which nothing is
// read.
#pragma once

#include <sys/mman.h>

#include <new>

#include "core.h"

namespace remap::bench {

class MemoryDisk {
  public:
    explicit MemoryDisk(u64 sectors)
        : sectors_(sectors),
          data_(mmap(nullptr, bytes(), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
        if (data_ == MAP_FAILED) {
            throw std::bad_alloc();
        }
    }
    ~MemoryDisk() { munmap(data_, bytes()); }
    MemoryDisk(const MemoryDisk&) = delete;
    MemoryDisk& operator=(const MemoryDisk&) = delete;

    [[nodiscard]] u64 sectors() const { return sectors_; }
    static const dm_remap_ops kOps;

  private:
    [[nodiscard]] size_t bytes() const { return sectors_ * DM_REMAP_SECTOR_SIZE; }
    [[nodiscard]] char* at(u64 sector) const {
        return static_cast<char*>(data_) + sector * DM_REMAP_SECTOR_SIZE;
    }

    u64 sectors_;
    void* data_;
};

inline void log_nothing(void*, dm_remap_level, const char*, ...) {}

inline const dm_remap_ops MemoryDisk::kOps = {
    .read =
        [](void* ctx, dm_remap_dev, u64 sector, u32 sectors, void* buf) {
            std::memcpy(buf, static_cast<MemoryDisk*>(ctx)->at(sector),
                        sectors * size_t{DM_REMAP_SECTOR_SIZE});
            return 0;
        },
    .write =
        [](void* ctx, dm_remap_dev, u64 sector, u32 sectors, const void* buf, unsigned) {
            std::memcpy(static_cast<MemoryDisk*>(ctx)->at(sector), buf,
                        sectors * size_t{DM_REMAP_SECTOR_SIZE});
            return 0;
        },
    .now = [](void*) -> u64 { return 1'700'000'000; },
    .uptime = [](void*) -> u64 { return 1000; },
    .random = [](void*) -> u64 { return 4; },
    .log = log_nothing,
    .flush = nullptr,
    .fua = nullptr,
    .drain = nullptr,
    .stop = nullptr,
    .note = nullptr,
    .main_sectors = nullptr,
};

}  // namespace remap::bench

#include "memory_disk.h"

#include <algorithm>
#include <array>

namespace remap::fuzz {
namespace {

MemoryDisk& disk_of(void* ctx) {
    return *static_cast<MemoryDisk*>(ctx);
}

bool inside(const MemoryDisk& disk, dm_remap_dev dev, u64 sector, u32 n) {
    return dev == DM_REMAP_SPARE && sector <= disk.sectors() && n <= disk.sectors() - sector;
}

int disk_read(void* ctx, dm_remap_dev dev, u64 sector, u32 n, void* buf) {
    const MemoryDisk& disk = disk_of(ctx);
    if (!inside(disk, dev, sector, n)) {
        return -EIO;
    }
    const u64 end = (sector + n + DM_REMAP_BLOCK_SECTORS - 1) / DM_REMAP_BLOCK_SECTORS;
    for (u64 block = sector / DM_REMAP_BLOCK_SECTORS; block < end; block++) {
        if (!disk.readable(block)) {
            return -EIO;
        }
    }
    std::memcpy(buf, disk.bytes.data() + sector * kSector, n * kSector);
    return 0;
}

int disk_write(void* ctx, dm_remap_dev dev, u64 sector, u32 n, const void* buf, unsigned flags) {
    MemoryDisk& disk = disk_of(ctx);
    (void)flags;
    if (disk.writes++ >= disk.fail_from || !inside(disk, dev, sector, n)) {
        return -EIO;
    }
    std::memcpy(disk.bytes.data() + sector * kSector, buf, n * kSector);
    // As drives do that have blocks to spare.
    for (u64 block = sector / DM_REMAP_BLOCK_SECTORS;
         block < std::min<u64>((sector + n) / DM_REMAP_BLOCK_SECTORS, disk.unreadable.size());
         block++) {
        disk.unreadable[block] = false;
    }
    return 0;
}

void disk_log(void* ctx, dm_remap_level /*level*/, const char* fmt, ...) {
    std::array<char, 512> line{};
    va_list args;
    va_start(args, fmt);
    (void)std::vsnprintf(line.data(), line.size(), fmt, args);
    va_end(args);
    disk_of(ctx).log.emplace_back(line.data());
}

}  // namespace

const dm_remap_ops MemoryDisk::kOps = {
    .read = disk_read,
    .write = disk_write,
    .now = [](void*) -> u64 { return 1'700'000'000; },
    .uptime = [](void*) -> u64 { return 1000; },
    .random = [](void*) -> u64 { return 4; },
    .log = disk_log,
    .flush = nullptr,
    .fua = nullptr,
    .drain = nullptr,
    .kick = nullptr,
    .wait = nullptr,
    .give_way = nullptr,
    .stop = nullptr,
    .note = nullptr,
    .main_sectors = nullptr,
};

void MemoryDisk::make_unreadable(std::uint64_t block) {
    if (block >= unreadable.size()) {
        unreadable.resize(block + 1);
    }
    unreadable[block] = true;
}

Metadata::Metadata(MemoryDisk& disk) : disk_(disk) {
    require(dm_remap_metadata_init(&md_, &MemoryDisk::kOps, &disk) == 0, "no memory");
}

void wrong(const std::string& what) {
    (void)std::fprintf(stderr, "WRONG: %s\n", what.c_str());
    std::abort();
}

}  // namespace remap::fuzz

// SPDX-License-Identifier: GPL-2.0-only
#include "core_io.h"

#include <unistd.h>

#include <ctime>
#include <random>

#include "text.h"

namespace remap {
namespace {

// Calls @transfer(done) until @size bytes are done. A file that ends early reads as an error.
template <typename Transfer>
int transfer_all(std::size_t size, Transfer transfer) {
    std::size_t done = 0;
    while (done < size) {
        const ssize_t n = transfer(done);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            return -EIO;
        }
        done += n > 0 ? static_cast<std::size_t>(n) : 0;
    }
    return 0;
}

off_t byte_offset(u64 sector, std::size_t done) {
    return static_cast<off_t>(sector * DM_REMAP_SECTOR_SIZE + done);
}

}  // namespace

const dm_remap_ops& CoreIo::ops() {
    static const dm_remap_ops table = {
        .read = &CoreIo::read,
        .write = &CoreIo::write,
        .now = &CoreIo::now,
        .uptime = nullptr,  // moves no data
        .random = &CoreIo::random,
        .log = &CoreIo::log,
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
    return table;
}

int CoreIo::read(void* ctx, dm_remap_dev dev, u64 sector, u32 sectors, void* buf) {
    const CoreIo& io = *static_cast<CoreIo*>(ctx);
    if (dev != DM_REMAP_SPARE) {
        return -ENXIO;
    }
    const std::size_t size = std::size_t{sectors} * DM_REMAP_SECTOR_SIZE;
    return transfer_all(size, [&](std::size_t done) {
        return pread(io.spare_.fd(), static_cast<char*>(buf) + done, size - done,
                     byte_offset(sector, done));
    });
}

int CoreIo::write(void* ctx, dm_remap_dev dev, u64 sector, u32 sectors, const void* buf,
                  unsigned int flags) {
    const CoreIo& io = *static_cast<CoreIo*>(ctx);
    if (dev != DM_REMAP_SPARE) {
        return -ENXIO;
    }
    if ((flags & DM_REMAP_PREFLUSH) != 0 && fdatasync(io.spare_.fd()) != 0) {
        return -errno;
    }
    const std::size_t size = std::size_t{sectors} * DM_REMAP_SECTOR_SIZE;
    const int error = transfer_all(size, [&](std::size_t done) {
        return pwrite(io.spare_.fd(), static_cast<const char*>(buf) + done, size - done,
                      byte_offset(sector, done));
    });
    if (error != 0) {
        return error;
    }
    return (flags & DM_REMAP_FUA) != 0 && fdatasync(io.spare_.fd()) != 0 ? -errno : 0;
}

u64 CoreIo::now(void* /*ctx*/) {
    return static_cast<u64>(std::time(nullptr));
}

u64 CoreIo::random(void* /*ctx*/) {
    std::random_device device;
    return static_cast<u64>(device()) << 32 | device();
}

void CoreIo::log(void* ctx, dm_remap_level /*level*/, const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    static_cast<CoreIo*>(ctx)->log_.push_back(printf_text(fmt, args));
    va_end(args);
}

}  // namespace remap

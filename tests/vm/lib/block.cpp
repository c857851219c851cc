#include "block.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <system_error>

namespace remap::vm {

namespace {

constexpr size_t kAlignment = 4096;
constexpr uint64_t kChunkSectors = 2048;

uint64_t mix(uint64_t value) {  // the finalizer of splitmix64
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

int result(ssize_t done, size_t wanted) {
    if (done < 0) {
        return errno;
    }
    return static_cast<size_t>(done) == wanted ? 0 : EIO;
}

using Expected = std::function<void(std::span<std::byte>, uint64_t first_sector)>;

testing::AssertionResult verify(const BlockFile& device, uint64_t sector, uint64_t count,
                                const Expected& expected) {
    const Buffer found(kChunkSectors * kSector);
    const Buffer wanted(kChunkSectors * kSector);
    const auto failure = [&](uint64_t at, const std::string& what) {
        return testing::AssertionFailure() << device.path() << " sector " << at << ": " << what;
    };
    for (const uint64_t end = sector + count; sector < end;) {
        const uint64_t sectors = std::min(kChunkSectors, end - sector);
        const auto bytes = found.bytes().first(sectors * kSector);
        const auto pattern = wanted.bytes().first(sectors * kSector);
        if (const int error = device.read(sector, bytes); error != 0) {
            const auto bad = unreadable(device, sector, sectors);
            return failure(bad.empty() ? sector : bad.front(), std::strerror(error));
        }
        expected(pattern, sector);
        const auto [at, other] = std::mismatch(bytes.begin(), bytes.end(), pattern.begin());
        if (at != bytes.end()) {
            const auto offset = static_cast<uint64_t>(at - bytes.begin());
            return failure(sector + offset / kSector,
                           "wrong data at byte " + std::to_string(offset % kSector));
        }
        sector += sectors;
    }
    return testing::AssertionSuccess();
}

}  // namespace

Buffer::Buffer(size_t bytes)
    : memory_(static_cast<std::byte*>(
          std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment))),
      size_(bytes) {
    if (memory_ == nullptr) {
        throw std::bad_alloc();
    }
    std::memset(memory_.get(), 0, bytes);
}

void Buffer::Free::operator()(std::byte* memory) const {
    std::free(memory);
}

BlockFile::BlockFile(const std::string& path, int flags) : path_(path), file_(path, flags) {}

uint64_t BlockFile::sectors() const {
    uint64_t bytes = 0;
    if (ioctl(fd(), BLKGETSIZE64, &bytes) != 0) {
        struct stat status {};
        if (errno != ENOTTY || fstat(fd(), &status) != 0) {
            throw std::system_error(errno, std::generic_category(), path_);
        }
        bytes = static_cast<uint64_t>(status.st_size);
    }
    return bytes / kSector;
}

unsigned BlockFile::logical_block_size() const {
    int bytes = 0;
    if (ioctl(fd(), BLKSSZGET, &bytes) != 0) {
        if (errno == ENOTTY) {
            return kSector;
        }
        throw std::system_error(errno, std::generic_category(), path_);
    }
    return static_cast<unsigned>(bytes);
}

int BlockFile::read(uint64_t sector, std::span<std::byte> bytes, int rwf) const {
    const iovec vector = {bytes.data(), bytes.size()};
    return result(preadv2(fd(), &vector, 1, static_cast<off_t>(sector * kSector), rwf),
                  bytes.size());
}

int BlockFile::write(uint64_t sector, std::span<const std::byte> bytes, int rwf) const {
    const iovec vector = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    return result(pwritev2(fd(), &vector, 1, static_cast<off_t>(sector * kSector), rwf),
                  bytes.size());
}

int BlockFile::flush() const {
    return fdatasync(fd()) == 0 ? 0 : errno;
}

int BlockFile::discard(uint64_t sector, uint64_t count) const {
    std::array<uint64_t, 2> range = {sector * kSector, count * kSector};
    return ioctl(fd(), BLKDISCARD, range.data()) == 0 ? 0 : errno;
}

int BlockFile::write_zeroes(uint64_t sector, uint64_t count) const {
    std::array<uint64_t, 2> range = {sector * kSector, count * kSector};
    return ioctl(fd(), BLKZEROOUT, range.data()) == 0 ? 0 : errno;
}

int BlockFile::punch_hole(uint64_t sector, uint64_t count) const {
    return fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(sector * kSector), static_cast<off_t>(count * kSector)) == 0
               ? 0
               : errno;
}

std::filesystem::path sys_block(const std::string& path) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) {
        throw std::system_error(errno, std::generic_category(), path);
    }
    return "/sys/dev/block/" + std::to_string(major(status.st_rdev)) + ":" +
           std::to_string(minor(status.st_rdev));
}

void fill_pattern(std::span<std::byte> bytes, uint64_t first_sector, uint64_t seed) {
    // One mix a sector: an emulated processor does this for gigabytes.
    const uint64_t base = mix(seed + 1);
    for (size_t start = 0; start < bytes.size(); start += kSector) {
        uint64_t word = mix(base ^ mix(first_sector + start / kSector));
        const size_t end = std::min(bytes.size(), start + kSector);
        for (size_t offset = start; offset < end; offset += sizeof(word)) {
            std::memcpy(bytes.data() + offset, &word, sizeof(word));
            word += 0x9e3779b97f4a7c15;
        }
    }
}

void write_pattern(const BlockFile& device, uint64_t sector, uint64_t count, uint64_t seed) {
    const Buffer buffer(std::min(count, kChunkSectors) * kSector);
    for (const uint64_t end = sector + count; sector < end;) {
        const uint64_t sectors = std::min(kChunkSectors, end - sector);
        const auto bytes = buffer.bytes().first(sectors * kSector);
        fill_pattern(bytes, sector, seed);
        if (const int error = device.write(sector, bytes); error != 0) {
            throw std::system_error(error, std::generic_category(),
                                    "write " + device.path() + " sector " + std::to_string(sector) +
                                        "+" + std::to_string(sectors));
        }
        sector += sectors;
    }
}

testing::AssertionResult verify_pattern(const BlockFile& device, uint64_t sector, uint64_t count,
                                        uint64_t seed) {
    return verify(device, sector, count, [seed](std::span<std::byte> bytes, uint64_t first) {
        fill_pattern(bytes, first, seed);
    });
}

testing::AssertionResult verify_zeroes(const BlockFile& device, uint64_t sector, uint64_t count) {
    return verify(device, sector, count, [](std::span<std::byte> bytes, uint64_t) {
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
    });
}

std::vector<uint64_t> unreadable(const BlockFile& device, uint64_t sector, uint64_t count) {
    const Buffer block(device.logical_block_size());
    std::vector<uint64_t> bad;
    for (uint64_t at = sector; at < sector + count; at += block.sectors()) {
        if (device.read(at, block.bytes()) != 0) {
            bad.push_back(at);
        }
    }
    return bad;
}

}  // namespace remap::vm

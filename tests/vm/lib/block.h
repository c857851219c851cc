// Reading and writing block devices past the page cache, with data that tells where it belongs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "file.h"

namespace remap::vm {

constexpr uint64_t kSector = 512;

// Memory that O_DIRECT takes.
class Buffer {
  public:
    explicit Buffer(size_t bytes);

    [[nodiscard]] std::span<std::byte> bytes() const { return {memory_.get(), size_}; }
    [[nodiscard]] uint64_t sectors() const { return size_ / kSector; }

  private:
    struct Free {
        void operator()(std::byte* memory) const;
    };
    std::unique_ptr<std::byte, Free> memory_;
    size_t size_;
};

// An open block device (or file). Sectors are of 512 bytes whatever the device's block size is;
// ranges must be aligned to the latter.
class BlockFile {
  public:
    explicit BlockFile(const std::string& path, int flags = O_RDWR | O_DIRECT);

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] int fd() const { return file_.fd(); }
    [[nodiscard]] uint64_t sectors() const;
    [[nodiscard]] unsigned logical_block_size() const;

    // These give 0 or the errno: that I/O fails is what most cases are about. `rwf` are flags of
    // preadv2 and pwritev2 (RWF_NOWAIT, RWF_DSYNC, which is FUA on a block device).
    int read(uint64_t sector, std::span<std::byte> bytes, int rwf = 0) const;
    int write(uint64_t sector, std::span<const std::byte> bytes, int rwf = 0) const;
    [[nodiscard]] int flush() const;
    [[nodiscard]] int discard(uint64_t sector, uint64_t count) const;
    [[nodiscard]] int write_zeroes(uint64_t sector, uint64_t count) const;
    // Zeros by the device's own command alone: EOPNOTSUPP where it has none.
    int punch_hole(uint64_t sector, uint64_t count) const;

  private:
    std::string path_;
    File file_;
};

// The directory of a block device in /sys.
std::filesystem::path sys_block(const std::string& path);

// The pattern of a sector follows from its number and the seed alone, so any range can be verified
// without a record of what was written, and data that turns up in a wrong place shows.
void fill_pattern(std::span<std::byte> bytes, uint64_t first_sector, uint64_t seed);

// Throws std::system_error if a write fails.
void write_pattern(const BlockFile& device, uint64_t sector, uint64_t count, uint64_t seed);

// Names the first sector that can't be read or differs: EXPECT_TRUE(verify_pattern(...)).
testing::AssertionResult verify_pattern(const BlockFile& device, uint64_t sector, uint64_t count,
                                        uint64_t seed);
testing::AssertionResult verify_zeroes(const BlockFile& device, uint64_t sector, uint64_t count);

// Those logical blocks of the range, by first sector, that fail to read on their own.
std::vector<uint64_t> unreadable(const BlockFile& device, uint64_t sector, uint64_t count);

}  // namespace remap::vm

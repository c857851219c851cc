// A spare in memory, as the core's operations see it: no more than a fuzzer needs, for speed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core.h"

namespace remap::fuzz {

inline constexpr std::size_t kSector = DM_REMAP_SECTOR_SIZE;
inline constexpr std::size_t kBlock = DM_REMAP_BLOCK_SIZE;

using Bytes = std::vector<std::uint8_t>;

struct MemoryDisk {
    Bytes bytes;
    std::vector<bool> unreadable;  // blocks; what is beyond its end can be read
    std::uint64_t writes = 0;
    std::uint64_t fail_from = UINT64_MAX;  // the write with this number fails, and all after it
    std::vector<std::string> log;

    std::uint64_t sectors() const { return bytes.size() / kSector; }
    std::uint64_t blocks() const { return bytes.size() / kBlock; }
    bool readable(std::uint64_t block) const {
        return block >= unreadable.size() || !unreadable[block];
    }
    void make_unreadable(std::uint64_t block);

    // For dm_remap_metadata_init, with the disk as context. Main is out of reach.
    static const dm_remap_ops kOps;
};

// struct dm_remap_metadata with a lifetime.
class Metadata {
  public:
    explicit Metadata(MemoryDisk& disk);
    ~Metadata() { dm_remap_metadata_exit(&md_); }
    Metadata(const Metadata&) = delete;
    Metadata& operator=(const Metadata&) = delete;

    // @main_sectors: as dm_remap_load has it.
    int load(std::uint64_t main_sectors) {
        return dm_remap_load(&md_, disk_.sectors(), main_sectors, &report);
    }
    dm_remap_metadata* operator->() { return &md_; }
    dm_remap_metadata* get() { return &md_; }
    MemoryDisk& disk() { return disk_; }

    dm_remap_report report{};

  private:
    MemoryDisk& disk_;
    dm_remap_metadata md_{};
};

// Says what is wrong, and ends the program so that libFuzzer keeps the input.
[[noreturn]] void wrong(const std::string& what);

inline void require(bool condition, const char* what) {
    if (!condition) {
        wrong(what);
    }
}

}  // namespace remap::fuzz

// A disk in memory that fails, tears writes and loses power as real ones do.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core.h"

namespace remap {

inline constexpr std::uint32_t kSector = DM_REMAP_SECTOR_SIZE;
inline constexpr std::uint32_t kBlock = DM_REMAP_BLOCK_SIZE;
inline constexpr std::uint32_t kBlockSectors = DM_REMAP_BLOCK_SECTORS;

using Sector = std::array<std::uint8_t, kSector>;
using Image = std::vector<std::uint8_t>;

// A set of sectors that is asked on each I/O.
class SectorSet {
  public:
    void insert(std::uint64_t sector) {
        if (sector >= in_.size()) {
            in_.resize(sector + 1);
        }
        count_ += !in_[sector];
        in_[sector] = true;
    }
    void erase(std::uint64_t sector) {
        if (sector < in_.size() && in_[sector]) {
            in_[sector] = false;
            count_--;
        }
    }
    void clear() {
        in_.clear();
        count_ = 0;
    }
    bool any(std::uint64_t sector, std::uint32_t n) const;

  private:
    std::vector<bool> in_;
    std::size_t count_ = 0;
};

class SimDisk {
  public:
    explicit SimDisk(std::uint64_t sectors) : sectors_(sectors) {}

    // What the core's operations call. 0 or a negative errno.
    int read(std::uint64_t sector, std::uint32_t sectors, void* buf);
    int write(std::uint64_t sector, std::uint32_t sectors, const void* buf, unsigned flags);
    int flush();
    // The disk finds that it cannot make these durable, of those that it has not. Until the power
    // goes reads still find them in its cache.
    void lose(const std::function<bool(std::uint64_t sector)>& which);

    std::uint64_t sectors() const { return sectors_; }
    std::uint64_t writes() const { return writes_; }

    // Past the cache and every fault: what a read would return, and a change that is durable.
    std::span<const std::uint8_t> peek(std::uint64_t sector, std::uint64_t sectors) {
        want_memory();
        return {current_.data() + sector * kSector, sectors * kSector};
    }
    void poke(std::uint64_t sector, std::span<const std::uint8_t> bytes);
    void flip(std::uint64_t byte, unsigned bit);
    void resize(std::uint64_t sectors);
    Image image() {
        want_memory();
        return current_;
    }
    void restore(const Image& image);

    // Faults.
    SectorSet bad_read;          // sectors that cannot be read
    SectorSet bad_write;         // sectors that cannot be written
    bool rewrite_heals = false;  // a write to a bad_read sector makes it good
    // Asked at each read and at each write, numbered from 0: an errno makes it fail. What a write
    // that fails leaves on the disk: nothing, or, with failed_writes_land, all of it, or the
    // sectors that lands says.
    std::function<int(std::uint64_t sector, std::uint32_t sectors)> fail_read;
    std::function<int(std::uint64_t number, std::uint64_t sector, std::uint32_t sectors)> on_write;
    bool failed_writes_land = false;
    std::function<bool(std::uint64_t sector)> lands;
    // A disk that lies: a write to a sector that drops says succeeds and changes nothing, and each
    // sector is where place says.
    std::function<bool(std::uint64_t sector)> drops;
    std::function<std::uint64_t(std::uint64_t sector)> place;
    // Told of each read before it is done, and of each write that was: they may change the faults.
    std::function<void(std::uint64_t sector, std::uint32_t sectors)> on_read;
    std::function<void(std::uint64_t sector, std::uint32_t sectors)> after_write;

    // Power. When the write with this number comes (counted from 0), the power fails in the
    // middle of it: from then on every operation fails.
    void power_off_at_write(std::uint64_t number) { power_off_at_ = number; }
    void power_off() { on_ = false; }
    std::uint64_t writes_until_power_off() const { return power_off_at_ - writes_; }
    bool is_on() const { return on_; }
    // Sector writes that no flush has covered, the interrupted one included.
    std::size_t unflushed() const { return unflushed_.size(); }
    // Which write each of them belongs to, ascending.
    std::vector<std::uint64_t> unflushed_writes() const;
    // The power is back. Of the unflushed sector writes those survive that @keep says; if any of an
    // interrupted write with PREFLUSH does, all before it do.
    void power_on(const std::function<bool(std::uint64_t write, std::uint64_t sector)>& keep);

  private:
    struct Unflushed {
        std::uint64_t write;
        std::uint64_t sector;
        Sector data;
    };

    void put(std::uint64_t sector, std::uint32_t sectors, const std::uint8_t* data, bool fua);
    void put_truly(std::uint64_t sector, std::uint32_t sectors, const std::uint8_t* data, bool fua);
    void put_failed(std::uint64_t sector, std::uint32_t sectors, const std::uint8_t* data,
                    bool fua);
    void supersede(std::uint64_t sector, std::uint32_t sectors);
    std::uint8_t* at(Image& image, std::uint64_t sector) { return image.data() + sector * kSector; }
    void make_durable();
    bool survives_preflush(const std::vector<bool>& kept) const;
    // Most tests never touch main, and are faster without its megabytes.
    void want_memory() {
        if (current_.size() != sectors_ * kSector) {
            current_.resize(sectors_ * kSector);
            durable_.resize(sectors_ * kSector);
            unflushed_of_.resize(sectors_);
        }
    }

    std::uint64_t sectors_;
    Image current_;
    Image durable_;
    std::vector<Unflushed> unflushed_;
    std::vector<std::uint32_t> unflushed_of_;  // how many of them each sector has
    std::vector<std::uint64_t> lost_;          // sectors
    std::uint64_t writes_ = 0;
    std::uint64_t power_off_at_ = UINT64_MAX;
    bool preflush_interrupted_ = false;
    bool on_ = true;
};

}  // namespace remap

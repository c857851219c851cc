// A disk of which parts fail, as a case wants them: a device-mapper table over a good one.
//
// What else fails, and how it differs:
//  - ScsiDebug::fail_reads: reads fail with a medium error, and writes don't cure it;
//  - NullBlk: requests fail whole, merged as they are; with a delay, a disk that changes its mind;
//  - ScsiDebug, made offline, write-protected or mute: whole disks.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dm_device.h"

namespace remap::vm {

struct Range {
    uint64_t first = 0;
    uint64_t count = 0;
};

enum class Fails {
    kWrites,  // reads work, and flushes, which no sector is to blame for
    kWritesAndFlushes,
    kAll,                // reads and writes
    kReadsUntilWritten,  // reads; a write cures the block, as disks do that have spare sectors left
    kDropsWrites,        // nothing fails, and a write changes nothing: a disk that lies
};

class FailingDisk {
  public:
    // The device `name` over the disk at this path, which is good as far as anybody knows.
    FailingDisk(const std::string& name, const std::string& disk);

    [[nodiscard]] std::string path() const { return device_.path(); }
    // The disk beneath, where all works.
    [[nodiscard]] const std::string& plain() const { return disk_; }
    [[nodiscard]] uint64_t sectors() const { return sectors_; }

    // From now on; ranges are whole logical blocks. A change, of whatever range, waits for the I/O
    // that is under way, and blocks that writes had cured fail once more.
    void fail(const std::vector<Range>& ranges, Fails how);
    void fail(uint64_t first, uint64_t count, Fails how) { fail({{first, count}}, how); }
    void fail_all(Fails how) { fail(0, sectors_, how); }
    void heal(uint64_t first, uint64_t count);
    void heal_all() { heal(0, sectors_); }

  private:
    struct Part {
        uint64_t count = 0;
        Fails how = Fails::kAll;
    };

    void make_write_failer();
    void mark_bad_blocks();
    void cut(uint64_t first, uint64_t count);
    [[nodiscard]] Target piece(uint64_t first, uint64_t count, const Part* part) const;
    [[nodiscard]] Table table() const;
    void apply();

    std::string disk_;
    uint64_t sectors_;
    unsigned block_size_;
    std::map<uint64_t, Part> parts_;  // by first sector; they don't overlap
    std::optional<DmDevice> write_failer_;
    std::optional<DmDevice> dust_;
    DmDevice device_;
};

// `count` ranges of 1 to `longest` blocks of `block` sectors, anywhere in [0, sectors), none beside
// another. The same for the same seed.
std::vector<Range> scattered_ranges(uint64_t sectors, unsigned count, unsigned longest,
                                    unsigned seed, unsigned block = 1);

}  // namespace remap::vm

// What a spare says, by docs/on-disk-format.md alone: a second reader, naive and with nothing of
// the core's, so that the two can be compared.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "memory_disk.h"

namespace remap::fuzz {

// What lies at a range: of main, or, for retired ones, of the spare. spare: where the first sector
// lives.
struct Piece {
    std::uint64_t end;
    std::uint8_t kind;
    std::uint8_t reason;
    std::uint64_t spare;
    std::uint8_t flags = 0;

    bool operator==(const Piece&) const = default;
};

// By first sector; no two overlap.
class Pieces {
  public:
    void clear(std::uint64_t start, std::uint64_t end);
    void set(std::uint64_t start, const Piece& piece);
    // Neighbours that the format calls one record are one.
    std::map<std::uint64_t, Piece> records() const;
    bool overlaps(std::uint64_t start, std::uint64_t end) const;

  private:
    std::map<std::uint64_t, Piece> at_;
};

struct Reading {
    Pieces main;
    Pieces retired;
    std::uint64_t granularity = 0;
    std::uint64_t main_sectors = 0;
    std::uint64_t data_start = 0;  // sectors of the spare that are data
    std::uint64_t data_end = 0;
    std::uint64_t generation = 0;
    std::uint64_t next_sequence = 0;
    std::string refusal;  // why there is no more to say; empty: all of it could be read
};

// @main_sectors: as dm_remap_load has it.
Reading read_disk(const MemoryDisk& disk, std::uint64_t main_sectors);

}  // namespace remap::fuzz

// What the fuzzer makes up is not an image but a program that edits a valid one: some bytes. CRCs
// and chains are put right after the edits, so that what is tried is behind them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "memory_disk.h"

namespace remap::fuzz {

// A program begins with these; what is not there is 0.
struct ProgramHeader {
    std::uint8_t base;      // which base image
    std::uint8_t lacks;     // kLacks*: what is not put right
    std::uint8_t main;      // the mapped device: 0 as formatted, 1 unknown, 2 shorter, 3 longer
    std::uint8_t fails_at;  // the write of that number, from 1, fails, and all after it; 0: none
};
inline constexpr std::uint8_t kLacksChain = 1;     // of journal blocks to one another
inline constexpr std::uint8_t kLacksTableCrc = 2;  // in superblocks
inline constexpr std::uint8_t kLacksCounts = 4;    // of records, in superblocks

enum class Verb : std::uint8_t {
    super_field,   // of the superblock
    header_field,  // of a journal or table block
    entry_field,   // of an entry in one
    record,        // a whole entry, which makes sense by itself
    commit,        // a journal block behind the last, empty
    fill,          // a block: zeros, garbage, a copy of another, unreadable
    byte,          // of a block
    resize,        // the device
    other_time,    // a part of one replica is as in another base image
    kVerbs,
};

// One edit, as it stands in the program.
struct Edit {
    std::uint8_t verb;   // modulo the number of verbs
    std::uint8_t where;  // bits 0-1: replicas, none is both; 2-3: area; 4: value is added;
                         // 5: the block's CRC is left as it is
    std::uint8_t index;  // block in the area
    std::uint8_t entry;
    std::uint8_t field;
    std::uint8_t value[8];  // little-endian
};
static_assert(sizeof(ProgramHeader) == 4 && sizeof(Edit) == 13);

struct Program {
    MemoryDisk disk;
    std::uint64_t main_sectors;    // for dm_remap_load
    std::uint64_t formatted_main;  // size of main as the base image knows it
    std::uint32_t granularity;     // ... and its logical block, in sectors
};

// What @bytes makes. An incomplete edit at the end is left out.
Program run_program(std::span<const std::uint8_t> bytes);

}  // namespace remap::fuzz

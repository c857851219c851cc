// What the benchmarks of the kernel part share: the disks, tables of many sizes, and how a figure
// is reported.
//
// Each figure is a line of the log, "bench <name> <value>". Names are paths: of an I/O
// "<device>/<records>/<where>/<load>", in nanoseconds; report.py knows them all.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "backing.h"
#include "dm_device.h"

namespace remap::bench {

constexpr uint64_t kDiskMb = 1 << 20;  // a tebibyte
constexpr uint64_t kSectors = kDiskMb << 11;
constexpr uint64_t kSpareSectors = 6 << 21;
constexpr uint64_t kBlock = 8;  // sectors of most I/Os

void report(const std::string& name, double value);

// Requests that a disk has completed since it is there, well or not.
struct Requests {
    uint64_t reads = 0;
    uint64_t writes = 0;
    [[nodiscard]] uint64_t all() const { return reads + writes; }
};
Requests requests(const std::string& disk);

// Records are single sectors, the second of a block each.
enum class Spread {
    kScattered,  // anywhere
    kClustered,  // a thousand here, a thousand there, in every second block
};
std::vector<uint64_t> records(Spread spread, uint64_t count);
// As names have it: "1000-clustered".
std::string name_of(Spread spread, uint64_t count);

// `count` blocks anywhere on the disk.
std::vector<uint64_t> anywhere(size_t count, unsigned seed = 2);

// The disks are blank at the beginning of each test.
class Lab : public testing::Test {
  protected:
    [[nodiscard]] vm::Table line(const std::vector<std::string>& features) const;
    [[nodiscard]] vm::Table linear() const;
    // Formats the spare and maps these sectors, without data.
    void make_records(const std::vector<uint64_t>& at) const;

    // What is written to main is gone: it costs nothing.
    vm::NullBlk main{{.size_mb = kDiskMb, .keeps = false}};
    vm::NullBlk spare{{.size_mb = kSpareSectors >> 11}};
};

}  // namespace remap::bench

// What an I/O through the layer costs, beside the plain disk and dm-linear over it, with tables of
// many sizes. On the machine of io-bench.sh the clock counts instructions, one a nanosecond, so the
// figures are the same whatever else the host does.
//
// Each figure is a line of the log, "bench <device> <records> <spread> <where> <load> <ns>".

#include <gmock/gmock.h>

#include <algorithm>
#include <iostream>
#include <random>

#include "aio.h"
#include "backing.h"
#include "bulk.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::bench {
namespace {

using vm::DmDevice;
using vm::NullBlk;

constexpr uint64_t kDiskMb = 1 << 20;  // a tebibyte
constexpr uint64_t kSectors = kDiskMb << 11;
constexpr uint64_t kSpareSectors = 6 << 21;
constexpr size_t kIos = 20'000;
constexpr uint64_t kBlock = 8;  // sectors of the I/Os

// Records are single sectors, the second of a block each.
enum class Spread {
    kScattered,  // anywhere
    kClustered,  // a thousand here, a thousand there, in every second block
};

std::vector<uint64_t> records(Spread spread, uint64_t count) {
    std::mt19937_64 random(1);
    std::vector<uint64_t> at(count);
    const uint64_t slot = kSectors / kBlock / count;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t block = spread == Spread::kScattered ? i * slot + random() % slot
                                                            : i / 1000 * 1000 * slot + i % 1000 * 2;
        at[i] = block * kBlock + 1;
    }
    return at;
}

std::vector<uint64_t> anywhere() {
    std::mt19937_64 random(2);
    std::vector<uint64_t> at(kIos);
    std::generate(at.begin(), at.end(), [&] { return random() % (kSectors / kBlock) * kBlock; });
    return at;
}

// At a record, or `away` sectors from one.
std::vector<uint64_t> near(const std::vector<uint64_t>& records, uint64_t away) {
    std::mt19937_64 random(3);
    std::vector<uint64_t> at(kIos);
    std::generate(at.begin(), at.end(), [&] { return records[random() % records.size()] + away; });
    return at;
}

struct Named {
    const char* name;
    Load load;
};
constexpr Named kRandom[] = {
    {"read-4k-1", {.write = false, .bytes = 4096, .depth = 1}},
    {"write-4k-1", {.write = true, .bytes = 4096, .depth = 1}},
    {"read-4k-32", {.write = false, .bytes = 4096, .depth = 32}},
    {"write-4k-32", {.write = true, .bytes = 4096, .depth = 32}},
};
constexpr Named kSequential[] = {
    {"read-128k-1", {.write = false, .bytes = 128 << 10, .depth = 1}},
    {"write-128k-1", {.write = true, .bytes = 128 << 10, .depth = 1}},
    {"read-128k-32", {.write = false, .bytes = 128 << 10, .depth = 32}},
    {"write-128k-32", {.write = true, .bytes = 128 << 10, .depth = 32}},
};
constexpr Named kSector[] = {
    {"read-512-1", {.write = false, .bytes = 512, .depth = 1}},
    {"write-512-1", {.write = true, .bytes = 512, .depth = 1}},
};

class Io : public testing::Test {
  protected:
    // `where` names which sectors of the device these are.
    template <size_t N>
    void measure(const std::string& path, const std::string& table, const char* where,
                 const Named (&loads)[N], const std::vector<uint64_t>& sectors) {
        for (const auto& [name, load] : loads) {
            // What they cost once is no part of it: memory of the disk, for one.
            time_per_io(path, load, sectors);
            say(table, where, name, time_per_io(path, load, sectors));
        }
    }
    static void say(const std::string& table, const char* where, const char* load, double time) {
        std::cout << "bench " << table << ' ' << where << ' ' << load << ' ' << std::fixed << time
                  << std::endl;
    }
    static std::vector<uint64_t> one_after_the_other() {
        std::vector<uint64_t> at(kIos);
        for (size_t i = 0; i < at.size(); i++) {
            at[i] = i * 256;
        }
        return at;
    }

    void plain(const std::string& path, const std::string& name) {
        measure(path, name + " 0 -", "anywhere", kRandom, anywhere());
        measure(path, name + " 0 -", "in-order", kSequential, one_after_the_other());
        measure(path, name + " 0 -", "anywhere", kSector, anywhere());
    }

    // Where it is: between records, beside one in the same region, or on it.
    void with_records(Spread spread, uint64_t count) {
        const auto at = records(spread, count);
        const std::string table = "remap " + std::to_string(count) +
                                  (spread == Spread::kScattered ? " scattered" : " clustered");
        { const DmDevice device("remap", line({"format"})); }
        vm::map_sectors(spare.path(), at);
        const auto start = std::chrono::steady_clock::now();
        const DmDevice device("remap", line({}));
        const std::chrono::duration<double, std::nano> activation =
            std::chrono::steady_clock::now() - start;
        say(table, "-", "activation", activation.count());
        ASSERT_EQ(vm::remap_status(device).number("records"), count);
        measure(device.path(), table, "anywhere", kRandom, anywhere());
        measure(device.path(), table, "beside", kRandom, near(at, kBlock - 1));
        measure(device.path(), table, "on", kSector, near(at, 0));
    }

    [[nodiscard]] vm::Table line(const std::vector<std::string>& features) const {
        return vm::remap_table(main.path(), spare.path(), features);
    }

    NullBlk main{{.size_mb = kDiskMb, .keeps = false}};
    NullBlk spare{{.size_mb = kSpareSectors >> 11}};
};

TEST_F(Io, PlainDisk) {
    plain(main.path(), "raw");
}

TEST_F(Io, DmLinear) {
    const DmDevice device("linear", {{0, kSectors, "linear", main.path() + " 0"}});
    plain(device.path(), "linear");
}

// The spare keeps what is written, and that costs: what a hit is to be compared with.
TEST_F(Io, DmLinearOverTheSpare) {
    const DmDevice device("linear", {{0, kSpareSectors, "linear", spare.path() + " 0"}});
    std::vector<uint64_t> at = anywhere();
    std::ranges::for_each(at, [](uint64_t& sector) { sector %= kSpareSectors; });
    measure(device.path(), "linear 0 -", "on-spare", kSector, at);
}

TEST_F(Io, EmptyTable) {
    vm::register_spare(spare.path());
    const DmDevice device("remap", line({"format"}));
    plain(device.path(), "remap");
}

class Records : public Io, public testing::WithParamInterface<std::tuple<Spread, uint64_t>> {};

TEST_P(Records, InTheTable) {
    vm::register_spare(spare.path());
    with_records(std::get<0>(GetParam()), std::get<1>(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Bench, Records,
                         testing::Combine(testing::Values(Spread::kScattered, Spread::kClustered),
                                          testing::Values(1, 1000, 65536, 1'000'000)));

}  // namespace
}  // namespace remap::bench

// What an I/O through the layer costs, beside the plain disk and dm-linear over it, with tables of
// many sizes; and what those tables take to load, and of memory.

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <random>
#include <set>

#include "aio.h"
#include "core.h"
#include "lab.h"
#include "remap.h"

namespace remap::bench {
namespace {

using vm::DmDevice;

constexpr size_t kIos = 20'000;

// At a record, or `away` sectors from one.
std::vector<uint64_t> near(const std::vector<uint64_t>& records, uint64_t away) {
    std::mt19937_64 random(3);
    std::vector<uint64_t> at(kIos);
    std::generate(at.begin(), at.end(), [&] { return records[random() % records.size()] + away; });
    return at;
}

std::vector<uint64_t> one_after_the_other() {
    std::vector<uint64_t> at(kIos);
    for (size_t i = 0; i < at.size(); i++) {
        at[i] = i * 256;
    }
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
// Written first: null_blk reads what was never written in another way.
constexpr Named kOneSector[] = {
    {"write-512-1", {.write = true, .bytes = 512, .depth = 1}},
    {"read-512-1", {.write = false, .bytes = 512, .depth = 1}},
};

// A table of a device, and where it is.
struct Subject {
    std::string name;
    std::string path;
};

// `where` names which sectors these are. The subjects take turns, and the least counts: what
// they cost once is no part of it, memory of the disk, for one, nor what the system does beside
// them now and then.
template <size_t N>
void measure(const std::vector<Subject>& subjects, const char* where, const Named (&loads)[N],
             const std::vector<uint64_t>& sectors) {
    constexpr int kTurns = 4;
    for (const auto& [name, load] : loads) {
        std::vector<double> least(subjects.size(), std::numeric_limits<double>::max());
        for (int turn = 0; turn < kTurns; turn++) {
            for (size_t i = 0; i < subjects.size(); i++) {
                least[i] = std::min(least[i], time_per_io(subjects[i].path, load, sectors));
            }
        }
        for (size_t i = 0; i < subjects.size(); i++) {
            report(subjects[i].name + "/" + where + "/" + name, least[i]);
        }
    }
}

// What the kernel has given out for good, in bytes: of its small objects and of whole pages.
uint64_t kernel_memory() {
    std::ifstream info("/proc/meminfo");
    uint64_t sum = 0;
    std::string key;
    std::string unit;
    for (uint64_t kilobytes = 0; info >> key >> kilobytes; std::getline(info, unit)) {
        if (key == "SUnreclaim:" || key == "VmallocUsed:") {
            sum += kilobytes << 10;
        }
    }
    return sum;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class Io : public Lab {};

TEST_F(Io, WithoutRecords) {
    make_records({});
    const DmDevice plain("linear", linear());
    const auto start = std::chrono::steady_clock::now();
    const DmDevice layer("remap", line({}));
    report("activation/0", seconds_since(start));
    const std::vector<Subject> subjects = {
        {"raw/0", main.path()}, {"linear/0", plain.path()}, {"remap/0", layer.path()}};
    measure(subjects, "anywhere", kRandom, anywhere(kIos));
    measure(subjects, "in-order", kSequential, one_after_the_other());
}

// The spare keeps what is written, and that costs: what a hit is to be compared with.
TEST_F(Io, OnTheSpare) {
    const DmDevice plain("linear", {{0, kSpareSectors, "linear", spare.path() + " 0"}});
    std::vector<uint64_t> at = anywhere(kIos);
    std::ranges::for_each(at, [](uint64_t& sector) { sector %= kSpareSectors; });
    measure({{"raw/0", spare.path()}, {"linear/0", plain.path()}}, "on", kOneSector, at);
}

// Anywhere in regions of the table that have none of these records.
std::vector<uint64_t> apart(const std::vector<uint64_t>& records) {
    std::set<uint64_t> marked;
    for (const uint64_t sector : records) {
        marked.insert(sector / DM_REMAP_REGION_SECTORS);
    }
    std::vector<uint64_t> at = anywhere(100 * kIos);
    std::erase_if(
        at, [&](uint64_t sector) { return marked.contains(sector / DM_REMAP_REGION_SECTORS); });
    at.resize(std::min(at.size(), kIos));
    return at;
}

class Records : public Lab, public testing::WithParamInterface<std::tuple<Spread, uint64_t>> {};

// Where an I/O is: in a region without records, beside a record in its region, or on one.
TEST_P(Records, InTheTable) {
    const auto [spread, count] = GetParam();
    const auto at = records(spread, count);
    const std::string table = "remap/" + name_of(spread, count);
    make_records(at);

    const uint64_t memory = kernel_memory();
    const auto start = std::chrono::steady_clock::now();
    const DmDevice device("remap", line({}));
    report("activation/" + name_of(spread, count), seconds_since(start));
    report("memory/" + name_of(spread, count), static_cast<double>(kernel_memory() - memory));
    ASSERT_EQ(vm::remap_status(device).number("records"), count);

    const std::vector<Subject> subject = {{table, device.path()}};
    measure(subject, "apart", kRandom, apart(at));
    measure(subject, "beside", kRandom, near(at, kBlock - 1));
    measure(subject, "on", kOneSector, near(at, 0));
}

INSTANTIATE_TEST_SUITE_P(Bench, Records,
                         testing::Combine(testing::Values(Spread::kScattered, Spread::kClustered),
                                          testing::Values(1, 1000, 65536, 1'000'000)));

}  // namespace
}  // namespace remap::bench

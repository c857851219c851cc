// What a checkpoint of a large table does to the I/O of others: the longest one that it lets wait.

#include <algorithm>
#include <chrono>
#include <map>
#include <stop_token>
#include <thread>

#include "backing.h"
#include "block.h"
#include "bulk.h"
#include "lab.h"
#include "remap.h"

namespace remap::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;
using vm::DmDevice;

constexpr uint64_t kRecords = 1'000'000;
constexpr int kRounds = 15;

struct Latency {
    double p50 = 0;
    double p99 = 0;
    double longest = 0;
};

// Of one read or write after the other, anywhere, until told to stop; microseconds.
Latency latency(const std::string& path, const std::stop_token& stop) {
    const vm::BlockFile device(path);
    const vm::Buffer block(kBlock * vm::kSector);
    const auto sectors = anywhere(4096);
    std::vector<double> times;
    for (size_t i = 0; !stop.stop_requested(); i++) {
        const uint64_t sector = sectors[i % sectors.size()];
        const auto start = Clock::now();
        const int error =
            i % 2 == 0 ? device.read(sector, block.bytes()) : device.write(sector, block.bytes());
        times.push_back(Microseconds(Clock::now() - start).count());
        EXPECT_EQ(error, 0);
    }
    std::ranges::sort(times);
    return {times[times.size() / 2], times[times.size() * 99 / 100], times.back()};
}

double median(std::vector<double> of) {
    std::ranges::sort(of);
    return of[of.size() / 2];
}

class ParallelCheckpoint : public testing::Test {
  protected:
    // While `work` is done in this thread.
    template <typename Work>
    Latency latency_during(const Work& work) {
        Latency result;
        {
            std::jthread other(
                [&](const std::stop_token& stop) { result = latency("/dev/mapper/remap", stop); });
            work();
        }
        return result;
    }
};

// Disks that take a millisecond, as a quick hard disk does where it need not seek.
TEST_F(ParallelCheckpoint, UnderLoad) {
    const vm::NullBlk main({.size_mb = kDiskMb, .keeps = false, .delay_ms = 1});
    const vm::NullBlk spare({.size_mb = kSpareSectors >> 11, .delay_ms = 1});
    { const DmDevice device("remap", vm::remap_table(main.path(), spare.path(), {"format"})); }
    vm::map_sectors(spare.path(), records(Spread::kClustered, kRecords));
    DmDevice device("remap", vm::remap_table(main.path(), spare.path()));

    std::vector<double> seconds;
    std::map<std::string, std::vector<double>> figures;
    const auto note = [&](const std::string& when, const Latency& latency) {
        figures[when + "/p50"].push_back(latency.p50);
        figures[when + "/p99"].push_back(latency.p99);
        figures[when + "/longest"].push_back(latency.longest);
    };
    for (int round = 0; round < kRounds; round++) {
        const auto start = Clock::now();
        note("during", latency_during([&] { device.message("save"); }));
        const auto took = Clock::now() - start;
        seconds.push_back(std::chrono::duration<double>(took).count());
        note("without", latency_during([&] { std::this_thread::sleep_for(took); }));
    }
    for (const auto& [name, values] : figures) {
        report("checkpoint/" + name, median(values));
    }
    report("checkpoint/seconds", median(seconds));
}

}  // namespace
}  // namespace remap::bench

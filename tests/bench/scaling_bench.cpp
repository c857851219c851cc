// Several jobs at once, on processors that run at once: does the layer hold them up? By the clock
// of the wall, which is noise; hence each figure is a ratio to dm-linear, measured just before.

#include <algorithm>
#include <chrono>
#include <thread>

#include "aio.h"
#include "lab.h"

namespace remap::bench {
namespace {

using vm::DmDevice;

constexpr size_t kIos = 10'000;  // of each job
constexpr int kPairs = 15;
constexpr Load kLoad{.write = false, .bytes = 4096, .depth = 8};

double seconds(const std::string& path, unsigned jobs) {
    const auto start = std::chrono::steady_clock::now();
    {
        std::vector<std::jthread> threads;
        for (unsigned job = 0; job < jobs; job++) {
            threads.emplace_back([&path, job] { time_per_io(path, kLoad, anywhere(kIos, job)); });
        }
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class ParallelJobs : public Lab, public testing::WithParamInterface<uint64_t> {
  protected:
    // Throughput of the layer, if that of dm-linear is 1.
    static double median_ratio(unsigned jobs) {
        std::vector<double> ratios;
        for (int pair = 0; pair < kPairs; pair++) {
            // Which one is first, alternates: what goes on beside may grow or fade.
            const bool linear_first = pair % 2 == 0;
            const double first = seconds(linear_first ? kLinear : kRemap, jobs);
            const double second = seconds(linear_first ? kRemap : kLinear, jobs);
            ratios.push_back(linear_first ? first / second : second / first);
        }
        std::ranges::sort(ratios);
        return ratios[ratios.size() / 2];
    }

    static constexpr const char* kLinear = "/dev/mapper/linear";
    static constexpr const char* kRemap = "/dev/mapper/remap";
};

TEST_P(ParallelJobs, AgainstDmLinear) {
    make_records(GetParam() == 0 ? std::vector<uint64_t>{}
                                 : records(Spread::kClustered, GetParam()));
    const DmDevice plain("linear", linear());
    const DmDevice layer("remap", line({}));
    seconds(kRemap, 1);
    for (const unsigned jobs : {1U, 2U, 4U}) {
        report("scaling/" + std::to_string(GetParam()) + "/" + std::to_string(jobs),
               median_ratio(jobs));
    }
}

INSTANTIATE_TEST_SUITE_P(Bench, ParallelJobs, testing::Values(0, 65536));

}  // namespace
}  // namespace remap::bench

// Several jobs at once, on processors that run at once: does the layer hold them up? By the clock
// of the wall, which is noise; hence each figure is a ratio to dm-linear, measured just before or
// after. Where the kernel has put its code this time makes some per cent, too, on an emulated
// processor: kernel-bench.sh boots several times, and report.py takes the median of all.

#include <chrono>
#include <thread>

#include "aio.h"
#include "lab.h"

namespace remap::bench {
namespace {

using vm::DmDevice;

constexpr size_t kIos = 10'000;  // of each job
constexpr int kPairs = 6;
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
    static double ratio(unsigned jobs, bool linear_first) {
        const double first = seconds(linear_first ? kLinear : kRemap, jobs);
        const double second = seconds(linear_first ? kRemap : kLinear, jobs);
        return linear_first ? first / second : second / first;
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
        const std::string name =
            "scaling/" + std::to_string(GetParam()) + "/" + std::to_string(jobs);
        // Which one is first, alternates: what goes on beside may grow or fade.
        for (int pair = 0; pair < kPairs; pair++) {
            report(name, ratio(jobs, pair % 2 == 0));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Bench, ParallelJobs, testing::Values(0, 65536));

}  // namespace
}  // namespace remap::bench

// sim: plays histories, each from its seed, and stops at the first that breaks a promise: that one
// it makes short.
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <new>
#include <string>
#include <thread>

#include "play.h"
#include "shrink.h"

namespace remap::sim {
namespace {

constexpr unsigned kMaxJobs = 64;
constexpr std::size_t kTailLines = 200;
// So many cuts, and it must all have happened.
constexpr std::uint64_t kCutsToJudge = 5000;

struct Options {
    std::uint64_t first = 1;
    std::uint64_t last = 1000;
    unsigned cuts = 100;
    unsigned jobs = 0;
    bool verbose = false;
    bool brief = false;
    bool one = false;
    std::string turns;
    unsigned without = 0;
};

const char kUsage[] =
    "usage: sim [--seeds A-B] [--cuts N] [--jobs N] [--brief]   N power cuts for each seed\n"
    "       sim --seed N [--cuts N] [--turns LIST] [--without WORDS] [--verbose]\n"
    "                                                           plays one again, or a part of it\n";

// What the processes share.
struct Shared {
    std::atomic<std::uint64_t> next_seed;
    std::atomic<std::uint64_t> failed_seed;  // the smallest
    std::uint64_t seed[kMaxJobs];            // that each is at
    Outcome outcome[kMaxJobs];
    Stats stats[kMaxJobs];
};

// Seeds below the one that failed are played to their end: which is the first is no chance.
void work(Shared& shared, unsigned job, const Options& options) {
    for (;;) {
        const std::uint64_t seed = shared.next_seed++;
        if (seed > options.last || seed > shared.failed_seed) {
            return;
        }
        shared.seed[job] = seed;
        play(whole_plan(seed, options.cuts), shared.stats[job], shared.outcome[job]);
        if (shared.outcome[job].failed) {
            std::_Exit(1);
        }
    }
}

void print_trace(const Plan& plan) {
    std::FILE* file = std::tmpfile();
    if (file == nullptr) {
        std::perror("sim: tmpfile");
        return;
    }
    play_apart(plan, file);
    std::deque<std::string> lines;
    char line[1024];
    std::rewind(file);
    while (std::fgets(line, sizeof(line), file) != nullptr) {
        lines.emplace_back(line);
        if (lines.size() > kTailLines) {
            lines.pop_front();
        }
    }
    for (const std::string& l : lines) {
        (void)std::fputs(l.c_str(), stdout);
    }
    (void)std::fclose(file);
}

void print_failure(std::uint64_t seed, const Outcome& outcome) {
    if (outcome.promise == kService) {
        std::printf("FAILED: seed %lu: service: %s\n", seed, outcome.what);
    } else {
        std::printf("FAILED: seed %lu: promise %d: %s\n", seed, outcome.promise, outcome.what);
    }
}

void explain(std::uint64_t seed, const Outcome& outcome, const Options& options) {
    print_failure(seed, outcome);
    if (options.brief) {
        return;
    }
    std::printf("Again: sim --seed %lu --cuts %u --verbose\n", seed, options.cuts);
    (void)std::fflush(stdout);
    const Plan whole = whole_plan(seed, options.cuts);
    if (!play_apart(whole, nullptr).failed) {
        std::printf("Played alone it does not fail: it uses what an earlier history left.\n");
        return;
    }
    const Plan plan = shrink(whole, outcome);
    print_trace(plan);
    std::printf("Again, %zu turns of %zu: sim --seed %lu --turns %s%s%s --verbose\n",
                plan.turns.size(), whole.turns.size(), seed,
                plan.turns.empty() ? "none" : turns_text(plan.turns).c_str(),
                plan.without != 0 ? " --without " : "", without_text(plan.without).c_str());
}

// Prints what happened. False: something happened too rarely for the run to mean anything.
bool judge(const Stats& stats) {
    const auto cuts = static_cast<double>(stats[kCuts]);
    bool enough = true;
    for (std::size_t i = 0; i < kNrStats; i++) {
        const bool few = stats[kCuts] >= kCutsToJudge &&
                         static_cast<double>(stats[i]) * 1000 < kStats[i].wanted * cuts;
        std::printf("%12lu %s%s\n", stats[i], kStats[i].name, few ? "  <-- too few" : "");
        enough = enough && !few;
    }
    return enough;
}

// Waits for all of them. The job with the smallest seed that failed, or -1.
int wait_for_jobs(Shared& shared, const std::vector<pid_t>& pids) {
    int failed = -1;
    for (std::size_t left = pids.size(); left != 0; left--) {
        int status = 0;
        const pid_t pid = waitpid(-1, &status, 0);
        const auto job = static_cast<int>(std::find(pids.begin(), pids.end(), pid) - pids.begin());
        Outcome& outcome = shared.outcome[job];
        if (status == 0) {
            continue;
        }
        if (!outcome.failed) {
            note_crash(status, outcome);
        }
        if (shared.seed[job] < shared.failed_seed) {
            shared.failed_seed = shared.seed[job];
            failed = job;
        }
    }
    return failed;
}

int run_all(const Options& options) {
    auto& shared = *new (shared_memory(sizeof(Shared))) Shared{};
    shared.next_seed = options.first;
    shared.failed_seed = UINT64_MAX;
    std::vector<pid_t> pids;
    for (unsigned job = 0; job < options.jobs; job++) {
        pids.push_back(start_process([&] { work(shared, job, options); }));
    }
    const int failed = wait_for_jobs(shared, pids);
    if (failed >= 0) {
        explain(shared.seed[failed], shared.outcome[failed], options);
        return 1;
    }
    Stats total{};
    for (const Stats& stats : shared.stats) {
        for (std::size_t i = 0; i < kNrStats; i++) {
            total[i] += stats[i];
        }
    }
    return judge(total) ? 0 : 1;
}

int run_one(const Options& options) {
    if (options.verbose) {
        trace_to = stdout;
        // A crash must not eat the last steps.
        (void)std::setvbuf(stdout, nullptr, _IOLBF, 0);
    }
    Plan plan = whole_plan(options.first, options.cuts);
    plan.without = options.without;
    if (options.turns == "none") {
        plan.turns.clear();
    } else if (!options.turns.empty() && !parse_turns(options.turns, &plan.turns)) {
        (void)std::fputs(kUsage, stderr);
        return 2;
    }
    Stats stats{};
    Outcome outcome{};
    play(plan, stats, outcome);
    if (outcome.failed) {
        print_failure(plan.seed, outcome);
        return 1;
    }
    judge(stats);
    return 0;
}

bool number(const char* text, std::uint64_t* value, const char** end) {
    char* after = nullptr;
    *value = std::strtoull(text, &after, 10);
    *end = after;
    return after != text;
}

bool parse(int argc, char** argv, Options* options) {
    for (int i = 1; i < argc; i++) {
        const std::string word = argv[i];
        const char* text = i + 1 < argc ? argv[i + 1] : "";
        const char* end = text;
        std::uint64_t value = 0;
        if (word == "--verbose") {
            options->verbose = true;
            continue;
        }
        if (word == "--brief") {
            options->brief = true;
            continue;
        }
        if (word == "--turns") {
            options->turns = text;
            i++;
            continue;
        }
        if (word == "--without") {
            if (!parse_without(text, &options->without)) {
                return false;
            }
            i++;
            continue;
        }
        if (!number(text, &value, &end)) {
            return false;
        }
        if (word == "--seeds") {
            options->first = options->last = value;
            if (*end == '-' && !number(end + 1, &options->last, &end)) {
                return false;
            }
        } else if (word == "--seed") {
            options->one = true;
            options->first = value;
        } else if (word == "--cuts") {
            options->cuts = static_cast<unsigned>(value);
        } else if (word == "--jobs") {
            options->jobs = static_cast<unsigned>(value);
        } else {
            return false;
        }
        if (*end != '\0') {
            return false;
        }
        i++;
    }
    const unsigned cpus = std::max(1U, std::thread::hardware_concurrency());
    options->jobs = std::min(options->jobs != 0 ? options->jobs : cpus, kMaxJobs);
    return true;
}

}  // namespace
}  // namespace remap::sim

int main(int argc, char** argv) {
    remap::sim::Options options;
    if (!remap::sim::parse(argc, argv, &options)) {
        (void)std::fputs(remap::sim::kUsage, stderr);
        return 2;
    }
    return options.one ? remap::sim::run_one(options) : remap::sim::run_all(options);
}

// sim: plays histories, each from its seed, and stops at the first that breaks a promise.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "history.h"
#include "trace.h"

namespace remap::sim {
namespace {

constexpr unsigned kMaxJobs = 64;
constexpr std::size_t kTailLines = 120;
// So many cuts, and it must all have happened.
constexpr std::uint64_t kCutsToJudge = 5000;

struct Options {
    std::uint64_t first = 1;
    std::uint64_t last = 1000;
    unsigned cuts = 100;
    unsigned jobs = 0;
    bool verbose = false;
    bool one = false;
};

const char kUsage[] =
    "usage: sim [--seeds A-B] [--cuts N] [--jobs N]   N power cuts for each seed\n"
    "       sim --seed N [--cuts N] [--verbose]       plays one again\n";

// What the processes share.
struct Shared {
    std::atomic<std::uint64_t> next_seed;
    std::atomic<bool> failed;
    std::uint64_t seed[kMaxJobs];  // that each is at
    Stats stats[kMaxJobs];
};

bool play(std::uint64_t seed, const Options& options, Stats& stats) {
    try {
        History(seed, stats).run(options.cuts);
        return true;
    } catch (const Violation& v) {
        trace("VIOLATION: %s", v.what());
        return false;
    }
}

void work(Shared& shared, unsigned job, const Options& options) {
    while (!shared.failed) {
        const std::uint64_t seed = shared.next_seed++;
        if (seed > options.last) {
            return;
        }
        shared.seed[job] = seed;
        if (!play(seed, options, shared.stats[job])) {
            std::_Exit(1);
        }
    }
}

// In a process of its own: it may crash.
pid_t start(const auto& function) {
    const pid_t pid = fork();
    if (pid == 0) {
        function();
        std::_Exit(0);
    }
    return pid;
}

void print_tail(std::FILE* file) {
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
        std::fputs(l.c_str(), stdout);
    }
}

// Plays @seed once more, for its last steps.
void explain(std::uint64_t seed, const Options& options) {
    std::FILE* file = std::tmpfile();
    if (file == nullptr) {
        std::perror("sim: tmpfile");
        return;
    }
    const pid_t pid = start([&] {
        trace_to = file;
        std::setvbuf(file, nullptr, _IOLBF, 0);
        dup2(fileno(file), STDERR_FILENO);
        Stats stats{};
        play(seed, options, stats);
    });
    int status = 0;
    waitpid(pid, &status, 0);
    print_tail(file);
    std::fclose(file);
    std::printf("FAILED: seed %lu%s. Again: sim --seed %lu --cuts %u --verbose\n", seed,
                WIFSIGNALED(status) ? ", it crashed" : "", seed, options.cuts);
}

// Prints what happened. False: something happened too rarely for the run to mean anything.
bool judge(const Stats& stats) {
    const double thousands = static_cast<double>(stats[kCuts]) / 1000;
    bool enough = true;
    for (std::size_t i = 0; i < kNrStats; i++) {
        const bool few = stats[kCuts] >= kCutsToJudge &&
                         static_cast<double>(stats[i]) < kStats[i].wanted * thousands;
        std::printf("%12lu %s%s\n", stats[i], kStats[i].name, few ? "  <-- too few" : "");
        enough = enough && !few;
    }
    return enough;
}

int run_all(const Options& options) {
    void* memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("sim: mmap");
        return 2;
    }
    auto& shared = *new (memory) Shared{};
    shared.next_seed = options.first;
    std::vector<pid_t> pids;
    for (unsigned job = 0; job < options.jobs; job++) {
        pids.push_back(start([&] { work(shared, job, options); }));
    }
    int failures = 0;
    for (unsigned job = 0; job < options.jobs; job++) {
        int status = 0;
        waitpid(pids[job], &status, 0);
        if (status != 0) {
            shared.failed = true;
            explain(shared.seed[job], options);
            failures++;
        }
    }
    Stats total{};
    for (const Stats& stats : shared.stats) {
        for (std::size_t i = 0; i < kNrStats; i++) {
            total[i] += stats[i];
        }
    }
    const bool enough = judge(total);
    return failures != 0 || !enough ? 1 : 0;
}

int run_one(const Options& options) {
    if (options.verbose) {
        trace_to = stdout;
        // A crash must not eat the last steps.
        std::setvbuf(stdout, nullptr, _IOLBF, 0);
    }
    Stats stats{};
    try {
        History(options.first, stats).run(options.cuts);
    } catch (const Violation& v) {
        std::printf("VIOLATION: %s\n", v.what());
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
        std::fputs(remap::sim::kUsage, stderr);
        return 2;
    }
    return options.one ? remap::sim::run_one(options) : remap::sim::run_all(options);
}

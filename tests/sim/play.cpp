#include "play.h"

#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <new>

#include "history.h"

namespace remap::sim {

// CPU seconds: what takes so long does not end. A hundredth of it is usual.
constexpr std::size_t kSeconds = 5;
constexpr std::size_t kTurnsPerSecond = 500;

void Outcome::fail(Promise broken, const char* kind_of_it, const char* text) {
    failed = true;
    promise = broken;
    (void)std::snprintf(kind, sizeof(kind), "%s", kind_of_it);
    (void)std::snprintf(what, sizeof(what), "%s", text);
}

void play(const Plan& plan, Stats& stats, Outcome& outcome) {
    outcome.failed = false;
    outcome.turn = Outcome::kBefore;
    begin_time_limit(plan.turns.size());
    try {
        History(plan, stats).run([&outcome](Turn turn) { outcome.turn = turn; });
    } catch (const Violation& v) {
        trace("VIOLATION: %s", v.what());
        outcome.fail(v.promise, v.kind, v.what());
    }
}

void begin_time_limit(std::size_t turns) {
    itimerval limit{};
    limit.it_value.tv_sec = static_cast<time_t>(kSeconds + turns / kTurnsPerSecond);
    (void)setitimer(ITIMER_PROF, &limit, nullptr);
}

pid_t start_process(const std::function<void()>& function) {
    const pid_t pid = fork();
    if (pid == 0) {
        function();
        std::_Exit(0);
    }
    return pid;
}

void* shared_memory(std::size_t size) {
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        throw std::bad_alloc();
    }
    return memory;
}

void note_crash(int status, Outcome& outcome) {
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF) {
        outcome.fail(kService, "hang", "it does not end");
    } else if (WIFSIGNALED(status)) {
        char text[32];
        (void)std::snprintf(text, sizeof(text), "crash, signal %d", WTERMSIG(status));
        outcome.fail(kNoCrash, "crash", text);
    } else if (status != 0) {
        outcome.fail(kNoCrash, "crash", "a sanitizer ended it");
    }
}

Outcome play_apart(const Plan& plan, std::FILE* trace) {
    static auto& outcome = *new (shared_memory(sizeof(Outcome))) Outcome{};
    const pid_t pid = start_process([&] {
        trace_to = trace;
        // A crash must not eat the last steps, and what a sanitizer says belongs to them.
        if (trace != nullptr) {
            (void)std::setvbuf(trace, nullptr, _IOLBF, 0);
        }
        const int log = trace != nullptr ? fileno(trace) : fileno(std::tmpfile());
        (void)dup2(log, STDERR_FILENO);
        Stats stats{};
        play(plan, stats, outcome);
    });
    int status = 0;
    (void)waitpid(pid, &status, 0);
    note_crash(status, outcome);
    return outcome;
}

}  // namespace remap::sim

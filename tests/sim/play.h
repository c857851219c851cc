// Playing a plan, here or where it may crash.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <functional>

#include "plan.h"
#include "stats.h"
#include "trace.h"

namespace remap::sim {

// How a plan ended. Lives in memory that processes share.
struct Outcome {
    static constexpr Turn kBefore = UINT32_MAX;

    bool failed;
    Promise promise;
    Turn turn;  // taken last; kBefore: none
    char kind[160];
    char what[512];

    void fail(Promise broken, const char* kind_of_it, const char* text);
};

// In this process.
void play(const Plan& plan, Stats& stats, Outcome& outcome);

// In a process of its own. @trace: where the steps are told; NULL: nowhere.
Outcome play_apart(const Plan& plan, std::FILE* trace);

// A process for @function.
pid_t start_process(const std::function<void()>& function);
// Zeroed, and shared with the processes that are started from then on. Throws std::bad_alloc.
void* shared_memory(std::size_t size);
// What a process that ended so tells of what it was playing. Changes nothing if it ended well.
void note_crash(int status, Outcome& outcome);
// A history that uses more CPU time than any should is ended. From now on.
void begin_time_limit(std::size_t turns);

}  // namespace remap::sim

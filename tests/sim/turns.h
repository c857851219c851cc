// Threads of the core's own beside the one that a history goes on in: workers, and an autosave.
// They take turns, one at a time, at each I/O and each lock. The random numbers say whose turn it
// is.
#pragma once

#include <semaphore.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "core.h"
#include "random.h"

namespace remap::sim {

// As std::binary_semaphore, whose waiting thread first gives its processor away time and again. On
// a busy machine each turn then takes milliseconds.
class Gate {
  public:
    Gate() { sem_init(&semaphore_, 0, 0); }
    ~Gate() { sem_destroy(&semaphore_); }
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;

    void acquire() {
        while (sem_wait(&semaphore_) != 0) {
        }
    }
    void release() { sem_post(&semaphore_); }

  private:
    sem_t semaphore_;
};

class Turns {
  public:
    // It outlives this. Locks of the core are taken through it from now on.
    explicit Turns(Random& random);
    ~Turns();
    Turns(const Turns&) = delete;
    Turns& operator=(const Turns&) = delete;

    // Begins one more thread. It has its first turn when another gives it one. @work throws
    // nothing.
    void begin(std::function<void()> work);
    // Perhaps it is another thread's turn now. Any of them calls this.
    void offer();
    // Others have their turns until @done. False: no other can go on.
    bool wait_until(const std::function<bool()>& done);
    // The first thread waits for the end of the others.
    void end();

  private:
    struct Thread {
        std::thread thread;  // of the first: none
        Gate may;
        std::uint64_t one_in = 1;  // offers that are taken
        const mutex* waits_for = nullptr;
        bool waits = false;  // for something that only others can bring
        bool ended = false;
    };

    void wait_for(const mutex* lock);
    // Somebody else who can go on; nullptr: nobody can.
    Thread* other();
    void give(Thread* next);

    Random& random_;
    std::vector<std::unique_ptr<Thread>> threads_;
    Thread* running_;
};

}  // namespace remap::sim

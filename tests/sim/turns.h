// A second thread of the core's own beside the one that a history goes on in: as autosave is,
// beside the worker. The two take turns, one at a time, at each I/O and each lock. The random
// numbers say when.
#pragma once

#include <semaphore.h>

#include <cstdint>
#include <functional>
#include <thread>

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

    // There is a second thread that has not come to its end.
    bool two() const { return second_.joinable(); }
    // Begins one. It has its first turn when the first thread gives it one. @work throws nothing.
    void begin(std::function<void()> work);
    // Perhaps it is the other thread's turn now. Either of the two calls this.
    void offer();
    // The first thread waits for the end of the second.
    void end();

  private:
    void wait_for(const mutex* lock);
    void give();
    bool in_second() const { return std::this_thread::get_id() == second_.get_id(); }

    Random& random_;
    std::thread second_;
    Gate first_may_;
    Gate second_may_;
    std::uint64_t one_in_ = 1;          // offers that are taken
    const mutex* waits_for_ = nullptr;  // the second thread's
    bool ended_ = false;
};

}  // namespace remap::sim

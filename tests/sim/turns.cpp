#include "turns.h"

#include <cstdlib>
#include <utility>

#include "trace.h"

namespace remap::sim {

static Turns* current = nullptr;

Turns::Turns(Random& random) : random_(random) {
    current = this;
    dm_remap_lock_hook = [](mutex* lock) { current->wait_for(lock); };
}

Turns::~Turns() {
    end();
    dm_remap_lock_hook = nullptr;
    current = nullptr;
}

void Turns::begin(std::function<void()> work) {
    one_in_ = random_.between(1, 6);
    ended_ = false;
    second_ = std::thread([this, work = std::move(work)] {
        second_may_.acquire();
        work();
        ended_ = true;
        first_may_.release();
    });
}

// The other one goes on, until it gives the turn back, or ends.
void Turns::give() {
    if (in_second()) {
        first_may_.release();
        second_may_.acquire();
    } else if (!ended_) {
        second_may_.release();
        first_may_.acquire();
    }
}

void Turns::offer() {
    if (two() && random_.one_in(one_in_)) {
        give();
    }
}

// Without a second thread nobody would free the lock: who takes it asserts that it is free.
void Turns::wait_for(const mutex* lock) {
    offer();
    const bool second = two() && in_second();
    while (two() && lock->held != 0 && (second || !ended_)) {
        if (!second && waits_for_ != nullptr && waits_for_->held != 0) {
            trace("each of two threads waits for a lock that the other holds");
            std::abort();
        }
        waits_for_ = second ? lock : waits_for_;
        give();
        waits_for_ = second ? nullptr : waits_for_;
    }
}

void Turns::end() {
    while (two() && !ended_) {
        give();
    }
    if (two()) {
        second_.join();
    }
}

}  // namespace remap::sim

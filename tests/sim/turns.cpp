#include "turns.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "trace.h"

namespace remap::sim {

static Turns* current = nullptr;

Turns::Turns(Random& random) : random_(random) {
    threads_.push_back(std::make_unique<Thread>());
    running_ = threads_.front().get();
    current = this;
    dm_remap_lock_hook = [](mutex* lock) { current->wait_for(lock); };
}

Turns::~Turns() {
    end();
    dm_remap_lock_hook = nullptr;
    current = nullptr;
}

void Turns::begin(std::function<void()> work) {
    threads_.push_back(std::make_unique<Thread>());
    Thread* self = threads_.back().get();
    self->one_in = random_.between(1, 6);
    self->thread = std::thread([this, self, work = std::move(work)] {
        self->may.acquire();
        work();
        self->ended = true;
        running_ = other();
        running_->may.release();
    });
}

Turns::Thread* Turns::other() {
    std::vector<Thread*> may;
    for (const auto& t : threads_) {
        const bool locked_out = t->waits_for != nullptr && t->waits_for->held != 0;
        if (t.get() != running_ && !t->ended && !locked_out && !t->waits) {
            may.push_back(t.get());
        }
    }
    if (may.empty()) {
        // Those that wait for more than a lock look again for themselves.
        for (const auto& t : threads_) {
            if (t.get() != running_ && !t->ended && t->waits) {
                may.push_back(t.get());
            }
        }
    }
    return may.empty() ? nullptr : may[random_.below(may.size())];
}

void Turns::give(Thread* next) {
    Thread* self = running_;
    running_ = next;
    next->may.release();
    self->may.acquire();
}

void Turns::offer() {
    if (threads_.size() > 1) {
        Thread* next = other();
        const std::uint64_t one_in =
            running_->thread.joinable() || next == nullptr ? running_->one_in : next->one_in;
        if (next != nullptr && random_.one_in(one_in)) {
            give(next);
        }
    }
}

// Without another thread nobody would free the lock: who takes it asserts that it is free.
void Turns::wait_for(const mutex* lock) {
    offer();
    while (threads_.size() > 1 && lock->held != 0) {
        running_->waits_for = lock;
        Thread* next = other();
        if (next == nullptr) {
            trace("each thread waits for a lock that another one holds");
            std::abort();
        }
        give(next);
        running_->waits_for = nullptr;
    }
}

bool Turns::wait_until(const std::function<bool()>& done) {
    while (!done()) {
        Thread* next = other();
        if (next == nullptr || next->waits) {
            return false;
        }
        running_->waits = true;
        give(next);
        running_->waits = false;
    }
    return true;
}

void Turns::end() {
    const auto any = [this] {
        return std::any_of(threads_.begin(), threads_.end(),
                           [](const auto& t) { return t->thread.joinable() && !t->ended; });
    };
    while (any()) {
        Thread* next = other();
        if (next == nullptr) {
            trace("no thread can go on");
            std::abort();
        }
        give(next);
    }
    for (const auto& t : threads_) {
        if (t->thread.joinable()) {
            t->thread.join();
        }
    }
    threads_.resize(1);
}

}  // namespace remap::sim

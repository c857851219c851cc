#include "shrink.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace remap::sim {

namespace {

using Clock = std::chrono::steady_clock;
// Short enough to read is enough.
constexpr std::chrono::seconds kPatience{90};

class Shrinker {
  public:
    Shrinker(Plan plan, const Outcome& outcome)
        : plan_(std::move(plan)), outcome_(outcome), deadline_(Clock::now() + kPatience) {}

    Plan run() {
        drop_after_failure();
        do {
            shorter_ = false;
            drop_without();
            for (std::size_t n = std::max<std::size_t>(plan_.turns.size() / 2, 1);; n /= 2) {
                drop_chunks(n);
                if (n <= 1) {
                    break;
                }
            }
        } while (shorter_ && !late());
        return plan_;
    }

  private:
    bool late() const { return Clock::now() > deadline_; }

    // Takes @plan if it fails, too.
    bool try_plan(const Plan& plan) {
        const Outcome outcome = play_apart(plan, nullptr);
        if (!outcome.failed || std::strcmp(outcome.kind, outcome_.kind) != 0) {
            return false;
        }
        plan_ = plan;
        outcome_ = outcome;
        shorter_ = true;
        return true;
    }

    void drop_after_failure() {
        Plan plan = plan_;
        const Turn last = outcome_.turn;
        std::erase_if(plan.turns,
                      [last](Turn turn) { return last == Outcome::kBefore || turn > last; });
        if (plan.turns.size() < plan_.turns.size()) {
            try_plan(plan);
        }
    }

    void drop_without() {
        for (unsigned i = 0; i < kNrWithout && !late(); i++) {
            Plan plan = plan_;
            plan.without |= 1U << i;
            if (plan.without != plan_.without) {
                try_plan(plan);
            }
        }
    }

    // The last ones first: what comes before them is then the same.
    void drop_chunks(std::size_t n) {
        for (std::size_t end = plan_.turns.size(); end != 0 && !late();) {
            const std::size_t begin = end > n ? end - n : 0;
            Plan plan = plan_;
            plan.turns.erase(plan.turns.begin() + static_cast<std::ptrdiff_t>(begin),
                             plan.turns.begin() + static_cast<std::ptrdiff_t>(end));
            if (try_plan(plan)) {
                drop_after_failure();
            }
            end = std::min(begin, plan_.turns.size());
        }
    }

    Plan plan_;
    Outcome outcome_;
    Clock::time_point deadline_;
    bool shorter_ = false;
};

}  // namespace

Plan shrink(Plan plan, const Outcome& outcome) {
    return Shrinker(std::move(plan), outcome).run();
}

}  // namespace remap::sim

// Allocations of the module that fail, by the kernel's fault injection (failslab, fail_page_alloc):
// those that have code of the module in their call chain, and no others. On the debug kernel only.
#pragma once

#include <cstdint>
#include <functional>

namespace remap::vm {

class FailingAllocations {
  public:
    // Does the kernel have fault injection?
    [[nodiscard]] static bool possible();

    // For the module as it is loaded now; it is loaded if it is not. None fails yet.
    FailingAllocations();
    ~FailingAllocations();
    FailingAllocations(const FailingAllocations&) = delete;
    FailingAllocations& operator=(const FailingAllocations&) = delete;

    // Calls it, and the n-th allocation (from 1 on) that this thread comes to meanwhile fails.
    // False if it comes to fewer.
    bool fail_nth(unsigned n, const std::function<void()>& call);
    // From now on so many percent of those in kernel threads fail: redoing I/O, saving.
    void fail_in_workers(unsigned percent);

    // How many have failed since the construction.
    [[nodiscard]] uint64_t count() const;

    // Of all objects that are gone since the call before.
    static uint64_t take_total();
};

}  // namespace remap::vm

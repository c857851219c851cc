// The kernel log from a moment on, read from /dev/kmsg.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "file.h"

namespace remap::vm {

class KernelLog {
  public:
    // Starts at the end of the log as it is now.
    KernelLog();

    // All messages since the construction, without their prefix. Messages that were overwritten
    // before they could be read leave the line "(messages lost)".
    const std::vector<std::string>& lines();

    // Whether a line holds the text; waits up to `milliseconds` for it.
    bool contains(std::string_view text, int milliseconds = 0);

  private:
    File file_;
    std::vector<std::string> lines_;
};

// Whether the kernel says that it is in trouble: a WARNING, BUG, oops, lockdep or KASAN report, a
// hung task, a stall, a leak. Taint messages are none: our module is out of tree and unsigned.
bool is_kernel_trouble(std::string_view line);

// Whether the kernel has lockdep: it reports locks that may wait for one another, and sleep in
// atomic context. It reports its own code, too: a case that only drives such code is skipped.
bool has_lockdep();

// Leaves a line in the kernel log, so that it can be read beside the tests.
void note_in_kernel_log(std::string_view text);

}  // namespace remap::vm

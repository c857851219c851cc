#include "kernel_log.h"

#include <fcntl.h>
#include <unistd.h>
#include <filesystem>

#include <array>
#include <cerrno>
#include <chrono>
#include <regex>
#include <system_error>
#include <thread>

namespace remap::vm {

KernelLog::KernelLog() : file_("/dev/kmsg", O_RDONLY | O_NONBLOCK) {
    if (lseek(file_.fd(), 0, SEEK_END) < 0) {
        throw std::system_error(errno, std::generic_category(), "seek /dev/kmsg");
    }
}

const std::vector<std::string>& KernelLog::lines() {
    // A record is "<prefix>;<text>\n", then lines of properties, each after a space. One read gives
    // one record, whole.
    std::array<char, 8192> record{};
    for (;;) {
        const ssize_t got = read(file_.fd(), record.data(), record.size());
        if (got < 0 && errno == EPIPE) {
            lines_.emplace_back("(messages lost)");
            continue;
        }
        if (got < 0 && errno != EAGAIN) {
            throw std::system_error(errno, std::generic_category(), "read /dev/kmsg");
        }
        if (got <= 0) {
            return lines_;
        }
        std::string_view text(record.data(), static_cast<size_t>(got));
        text.remove_prefix(std::min(text.find(';') + 1, text.size()));
        lines_.emplace_back(text.substr(0, text.find('\n')));
    }
}

bool KernelLog::contains(std::string_view text, int milliseconds) {
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    for (;;) {
        for (const auto& line : lines()) {
            if (line.find(text) != std::string::npos) {
                return true;
            }
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

bool is_kernel_trouble(std::string_view line) {
    static const std::regex trouble(
        "WARNING: |\\bBUG\\b|Oops|general protection|Call Trace|"
        "blocked for more than|soft lockup|hard LOCKUP|self-detected stall|detected stalls|"
        "possible recursive locking|circular locking|lock inversion|lock order detected|"
        "inconsistent lock state|Invalid wait context|lock held when returning|still holding lock|"
        "bad unlock balance|held lock freed|trying to register non-static key|DEBUG_LOCKS_WARN_ON|"
        "locking correctness validator|suspicious RCU|sleeping function called|"
        "scheduling while atomic|KASAN|KCSAN|UBSAN|refcount_t|list_(add|del) corruption|"
        "Bad page state|unreferenced object|suspected memory leak|"
        // It gives up where a case has taken all memory, on a machine of its own.
        "ODEBUG: (?!Out of memory\\. ODEBUG disabled)|"
        // Without a scan area it looks at more, and misses nothing.
        "kmemleak: (?!Cannot allocate a scan area)|"
        "Slab cache still has objects|Objects remaining in|\\(messages lost\\)");
    return std::regex_search(line.begin(), line.end(), trouble);
}

bool has_lockdep() {
    return std::filesystem::exists("/proc/lockdep");
}

void note_in_kernel_log(std::string_view text) {
    const File file("/dev/kmsg", O_WRONLY);
    const std::string line = "<6>vm: " + std::string(text) + "\n";
    if (write(file.fd(), line.data(), line.size()) < 0) {
        throw std::system_error(errno, std::generic_category(), "write /dev/kmsg");
    }
}

}  // namespace remap::vm

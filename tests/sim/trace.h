// What happens, line by line, for who replays a seed.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace remap::sim {

// Where trace() writes; NULL: nowhere.
inline std::FILE* trace_to = nullptr;

[[gnu::format(printf, 1, 2)]] inline void trace(const char* format, ...) {
    if (trace_to == nullptr) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)std::vfprintf(trace_to, format, args);
    va_end(args);
    (void)std::fputc('\n', trace_to);
}

// What is promised, by number; 0: that it works where it can.
enum Promise : int {
    kService = 0,
    kNothingLost = 1,      // an acknowledged write is never lost
    kNothingInvented = 2,  // a read returns what was written last, or an error
    kTableWhole = 3,       // the table is never shortened or guessed, and refused only for a reason
    kMediaOnly = 4,        // only bad media spends the spare
    kExplained = 5,        // each record can be explained and undone
    kNoCrash = 6,
};

// A promise was broken.
class Violation : public std::runtime_error {
  public:
    Violation(Promise promise, const char* kind, const std::string& what)
        : std::runtime_error(what), promise(promise), kind(kind) {}

    Promise promise;
    const char* kind;  // the same for all violations of one check; a literal
};

[[noreturn, gnu::format(printf, 2, 3)]] inline void violated(Promise promise, const char* format,
                                                             ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    (void)std::vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    throw Violation(promise, format, line);
}

}  // namespace remap::sim

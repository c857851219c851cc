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

// A promise was broken.
class Violation : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

[[noreturn, gnu::format(printf, 1, 2)]] inline void violated(const char* format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    (void)std::vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    throw Violation(line);
}

}  // namespace remap::sim

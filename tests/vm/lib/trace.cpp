#include "trace.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <system_error>

#include "command.h"
#include "file.h"

namespace remap::vm {

namespace fs = std::filesystem;

namespace {

const fs::path kRoot = "/sys/kernel/tracing";
constexpr unsigned kMinorBits = 20;  // of the kernel's own dev_t

uint64_t kernel_number(const std::string& disk) {
    struct stat status {};
    if (stat(disk.c_str(), &status) != 0) {
        throw std::system_error(errno, std::generic_category(), disk);
    }
    return uint64_t{major(status.st_rdev)} << kMinorBits | minor(status.st_rdev);
}

// To open it with O_TRUNC empties it.
void empty() {
    const File file(kRoot / "trace", O_WRONLY | O_TRUNC);
}

}  // namespace

Trace::Trace(const std::string& events) : directory_(kRoot / "events" / events) {
    if (!fs::exists(kRoot / "events")) {
        run_ok({"mount", "-t", "tracefs", "trace", kRoot});
    }
    empty();
    write_value(directory_ / "enable", "1");
}

Trace::Trace(const std::string& event, const std::string& disk) : Trace(event) {
    write_value(directory_ / "filter", "dev == " + std::to_string(kernel_number(disk)));
    empty();
}

Trace::~Trace() {
    write_value(directory_ / "enable", "0");
    write_value(directory_ / "filter", "0");
}

std::string Trace::text() const {
    std::ifstream file(kRoot / "trace");
    std::string text;
    for (std::string line; std::getline(file, line);) {
        text += line.starts_with('#') ? "" : line + "\n";
    }
    return text;
}

unsigned Trace::count() const {
    const std::string lines = text();
    return static_cast<unsigned>(std::ranges::count(lines, '\n'));
}

}  // namespace remap::vm

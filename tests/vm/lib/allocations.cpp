#include "allocations.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "command.h"

namespace remap::vm {

namespace fs = std::filesystem;

namespace {

const std::array<fs::path, 2> kAttributes = {"/sys/kernel/debug/failslab",
                                             "/sys/kernel/debug/fail_page_alloc"};
// The kernel counts down from here.
constexpr uint64_t kTimes = 1'000'000'000;

uint64_t total = 0;

struct Text {
    uint64_t start = 0;
    uint64_t end = 0;
};

std::string hex(uint64_t value) {
    std::ostringstream text;
    text << "0x" << std::hex << value;
    return text.str();
}

// Where a module's code is: its functions, to the end of the last one's page.
Text module_text(const std::string& module) {
    constexpr uint64_t kPage = 4096;
    const fs::path start = fs::path("/sys/module") / module / "sections/.text";
    Text text{.start = std::stoull(read_value(start), nullptr, 16)};
    std::ifstream symbols("/proc/kallsyms");
    for (std::string line; std::getline(symbols, line);) {
        if (!line.ends_with("[" + module + "]")) {
            continue;
        }
        std::istringstream words(line);
        uint64_t address = 0;
        char type = 0;
        words >> std::hex >> address >> type;
        if (type == 't' || type == 'T') {
            text.end = std::max(text.end, address / kPage * kPage + kPage);
        }
    }
    if (text.end <= text.start) {
        throw std::runtime_error("/proc/kallsyms has no code of " + module);
    }
    return text;
}

// The code that passes a bio on: from __submit_bio() to submit_bio(), which are side by side.
Text submission_text() {
    Text text{.start = 0, .end = UINT64_MAX};
    uint64_t last = 0;
    std::vector<uint64_t> all;
    std::ifstream symbols("/proc/kallsyms");
    for (std::string line; std::getline(symbols, line);) {
        std::istringstream words(line);
        uint64_t address = 0;
        std::string type;
        std::string name;
        words >> std::hex >> address >> type >> name;
        all.push_back(address);
        text.start = name == "__submit_bio" ? address : text.start;
        last = name == "submit_bio" ? address : last;
    }
    for (const uint64_t address : all) {
        text.end = address > last ? std::min(text.end, address) : text.end;
    }
    if (text.start == 0 || last < text.start) {
        throw std::runtime_error("/proc/kallsyms has no submit_bio as it is expected");
    }
    return text;
}

void set_up(const fs::path& attribute, const Text& text, const Text& not_in) {
    write_value(attribute / "probability", "0");
    write_value(attribute / "interval", "1");
    write_value(attribute / "space", "0");
    write_value(attribute / "times", std::to_string(kTimes));
    write_value(attribute / "verbose", "0");
    write_value(attribute / "task-filter", "Y");
    write_value(attribute / "ignore-gfp-wait", "N");
    write_value(attribute / "require-start", hex(text.start));
    write_value(attribute / "require-end", hex(text.end));
    write_value(attribute / "reject-start", hex(not_in.start));
    write_value(attribute / "reject-end", hex(not_in.end));
    write_value(attribute / "stacktrace-depth", "32");
}

// New ones are copies of kthreadd.
void mark_kernel_threads() {
    for (const auto& entry : fs::directory_iterator("/proc")) {
        try {
            const auto name = read_value(entry.path() / "comm");
            if (name == "kthreadd" || name.starts_with("kworker")) {
                write_value(entry.path() / "make-it-fail", "1");
            }
        } catch (const std::system_error&) {
            continue;  // no process, or no more
        }
    }
}

}  // namespace

bool FailingAllocations::possible() {
    return std::all_of(kAttributes.begin(), kAttributes.end(),
                       [](const fs::path& attribute) { return fs::exists(attribute); });
}

FailingAllocations::FailingAllocations() {
    run_ok({"modprobe", "dm_remap"});
    // Below a bio that the module has submitted the allocations are those of others. Not all can be
    // without: nbd gives its disk up, and the bios that 7.3 keeps for each processor empty dm's
    // pool.
    for (const auto& attribute : kAttributes) {
        set_up(attribute, module_text("dm_remap"), submission_text());
    }
    write_value(kAttributes[1] / "ignore-gfp-highmem", "N");
    write_value(kAttributes[1] / "min-order", "0");
}

FailingAllocations::~FailingAllocations() {
    total += count();
    for (const auto& attribute : kAttributes) {
        write_value(attribute / "probability", "0");
    }
}

bool FailingAllocations::fail_nth(unsigned n, const std::function<void()>& call) {
    const fs::path nth = "/proc/thread-self/fail-nth";
    write_value(nth, std::to_string(n));
    call();
    const bool reached = read_value(nth) == "0";
    write_value(nth, "0");
    return reached;
}

void FailingAllocations::fail_in_workers(unsigned percent) {
    mark_kernel_threads();
    for (const auto& attribute : kAttributes) {
        write_value(attribute / "probability", std::to_string(percent));
    }
}

uint64_t FailingAllocations::count() const {
    uint64_t failed = 0;
    for (const auto& attribute : kAttributes) {
        failed += kTimes - std::stoull(read_value(attribute / "times"));
    }
    return failed;
}

uint64_t FailingAllocations::take_total() {
    return std::exchange(total, 0);
}

}  // namespace remap::vm

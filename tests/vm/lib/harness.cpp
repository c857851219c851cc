#include "harness.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "allocations.h"
#include "command.h"
#include "dm_device.h"
#include "file.h"
#include "kernel_log.h"
#include "offline.h"

namespace remap::vm {

namespace {

std::set<std::string>& spares() {
    static std::set<std::string> registered;
    return registered;
}

// Lines for the runner (run.sh), one write each:
//   start <test> | result <test> PASS|FAIL|SKIP <seconds> | kill <test> <seconds> | end <status>
//   failed-allocations <test> <number>
class Verdict {
  public:
    Verdict() : file_("/dev/host/verdict", O_WRONLY) {}

    void say(const std::string& line) const {
        const std::string text = line + "\n";
        if (write(file_.fd(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
            std::perror("verdict port");
            std::abort();
        }
    }

  private:
    File file_;
};

Verdict& verdict() {
    static Verdict port;
    return port;
}

std::string full_name(const testing::TestInfo& test) {
    return std::string(test.test_suite_name()) + "." + test.name();
}

std::string seconds(int64_t milliseconds) {
    std::string text = std::to_string(milliseconds % 1000);
    text.insert(0, 3 - text.size(), '0');
    return std::to_string(milliseconds / 1000) + "." + text;
}

// Memory that the module has lost, as kmemleak tells it; empty if none.
std::string leaks() {
    using namespace std::chrono_literals;
    const std::string kmemleak = "/sys/kernel/debug/kmemleak";
    // Younger objects than 5 s are none to it, and what one scan finds the next may find
    // referenced.
    std::this_thread::sleep_for(6s);
    write_value(kmemleak, "scan");
    write_value(kmemleak, "scan");
    // An object is a line that is not indented, and those after it that are.
    std::istringstream lines(read_value(kmemleak));
    std::string object;
    std::string found;
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with(' ')) {
            found += object.find("[dm_remap]") != std::string::npos ? object : "";
            object.clear();
        }
        object += line + "\n";
    }
    return found + (object.find("[dm_remap]") != std::string::npos ? object : "");
}

class AfterEachCase : public testing::EmptyTestEventListener {
  public:
    void OnTestStart(const testing::TestInfo& test) override {
        if (const char* percent = std::getenv("FAIL_ALLOCATIONS")) {
            failing_ = std::make_unique<FailingAllocations>();
            failing_->fail_in_workers(static_cast<unsigned>(std::stoul(percent)));
        }
        note_in_kernel_log("start " + full_name(test));
        verdict().say("start " + full_name(test));
    }

    // gtest still counts failures for the case here, and its printer comes after us.
    void OnTestEnd(const testing::TestInfo& test) override {
        failing_.reset();
        if (const uint64_t failed = FailingAllocations::take_total(); failed != 0) {
            verdict().say("failed-allocations " + full_name(test) + " " + std::to_string(failed));
        }
        check();
        const auto& result = *test.result();
        const char* word = result.Failed() ? "FAIL" : result.Skipped() ? "SKIP" : "PASS";
        verdict().say("result " + full_name(test) + " " + word + " " +
                      seconds(result.elapsed_time()));
    }

    void check() {
        try {
            check_devices();
            while (!spares().empty()) {
                check_spare_on(*spares().begin());
            }
            check_kernel_log();
        } catch (const std::exception& error) {
            ADD_FAILURE() << "after the case: " << error.what();
        }
    }

    void check_kernel_log() {
        // A message without a newline can't be read until the next one comes: this one.
        note_in_kernel_log("end");
        const auto lines = log_.lines();
        log_ = KernelLog();
        const auto trouble = std::find_if(lines.begin(), lines.end(), is_kernel_trouble);
        if (trouble != lines.end()) {
            ADD_FAILURE() << "the kernel log: " << *trouble;
        }
        // Whatever it was that failed, the kernel may have said why.
        if (testing::Test::HasFailure()) {
            for (const auto& line : lines) {
                std::cout << "  " << line << '\n';
            }
        }
    }

  private:
    // What is left is removed, so that it fails this case alone.
    static void check_devices() {
        for (const auto& name : dm_device_names()) {
            ADD_FAILURE() << "left behind: device '" << name << "'";
            dm_remove(name, /*force=*/true);
        }
    }

    KernelLog log_;
    std::unique_ptr<FailingAllocations> failing_;
};

// A case for the runner, though none for gtest: it comes when that has ended.
bool check_leaks() {
    const std::string name = "Memory.NothingLeaked";
    if (!std::filesystem::exists("/sys/kernel/debug/kmemleak") ||
        read_value("/proc/cmdline").find("kmemleak=off") != std::string::npos) {
        return true;
    }
    const auto began = std::chrono::steady_clock::now();
    verdict().say("start " + name);
    const auto found = leaks();
    std::cout << "[ RUN      ] " << name << "\n"
              << found << (found.empty() ? "[       OK ] " : "[  FAILED  ] ") << name << "\n";
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - began);
    verdict().say("result " + name + (found.empty() ? " PASS " : " FAIL ") + seconds(took.count()));
    return found.empty();
}

// Says how many accesses of the module KCSAN has watched: without any it has shown nothing.
void report_watched() {
    std::ifstream counters("/sys/kernel/debug/kcsan");
    for (std::string word; counters >> word;) {
        if (word == "setup_watchpoints:" && counters >> word) {
            verdict().say("watched-accesses " + word);
        }
    }
}

AfterEachCase* listener = nullptr;  // gtest owns it

}  // namespace

void register_spare(const std::string& path) {
    spares().insert(path);
}

void forget_spare(const std::string& path) {
    spares().erase(path);
}

void check_spare_on(const std::string& path) {
    if (spares().erase(path) == 0) {
        return;
    }
    try {
        EXPECT_TRUE(is_sound(path));
    } catch (const std::exception& error) {
        ADD_FAILURE() << "check: " << error.what();
    }
}

void cut_power() {
    const auto& test = *testing::UnitTest::GetInstance()->current_test_info();
    listener->check_kernel_log();
    if (test.result()->Failed()) {
        return;
    }
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(now).count() -
                         test.result()->start_timestamp();
    verdict().say("kill " + full_name(test) + " " + seconds(elapsed));
    for (;;) {
        pause();
    }
}

}  // namespace remap::vm

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (testing::GTEST_FLAG(list_tests)) {
        return RUN_ALL_TESTS();  // run.sh asks on the host
    }
    // Memory is kept, big blocks too: to have each zeroed by the kernel takes an emulated processor
    // longer than what the cases do with it.
    constexpr int kNever = 1 << 30;
    mallopt(M_MMAP_THRESHOLD, kNever);
    mallopt(M_TRIM_THRESHOLD, kNever);
    // A crash must not take the log with it.
    if (setvbuf(stdout, nullptr, _IOLBF, BUFSIZ) != 0) {
        return 1;
    }
    remap::vm::listener = new remap::vm::AfterEachCase;
    testing::UnitTest::GetInstance()->listeners().Append(remap::vm::listener);
    const int status = RUN_ALL_TESTS() | (remap::vm::check_leaks() ? 0 : 1);
    remap::vm::report_watched();
    remap::vm::verdict().say("end " + std::to_string(status));
    return status;
}

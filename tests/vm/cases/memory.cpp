// Memory is short, and what would free it has to be written over sectors that fail.

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "failing.h"
#include "harness.h"
#include "remap.h"
#include "within.h"

namespace remap::vm {
namespace {

using testing::Ge;
using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;

uint64_t available_memory() {
    std::ifstream lines("/proc/meminfo");
    for (std::string word; lines >> word;) {
        if (word == "MemAvailable:") {
            uint64_t kilobytes = 0;
            lines >> kilobytes;
            return kilobytes * 1024;
        }
    }
    throw std::runtime_error("/proc/meminfo");
}

// A process that holds all memory but so much.
class Hog {
  public:
    explicit Hog(uint64_t left) : pid_(fork()) {
        if (pid_ == 0) {
            eat(left);
        }
        while (available_memory() > left && waitpid(pid_, nullptr, WNOHANG) == 0) {
            usleep(10000);
        }
    }
    ~Hog() {
        EXPECT_EQ(kill(pid_, SIGKILL), 0);
        EXPECT_EQ(waitpid(pid_, nullptr, 0), pid_) << "it was gone before";
    }
    Hog(const Hog&) = delete;
    Hog& operator=(const Hog&) = delete;

  private:
    [[noreturn]] static void eat(uint64_t left) {
        constexpr size_t kBite = 2 * kMiB;
        while (available_memory() > left) {
            void* bite = mmap(nullptr, kBite, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
            if (bite == MAP_FAILED) {
                _exit(1);
            }
            // Pages of zeros would be put away without being written.
            const std::span<uint64_t> words(static_cast<uint64_t*>(bite), kBite / sizeof(uint64_t));
            std::iota(words.begin(), words.end(), reinterpret_cast<uintptr_t>(bite));
        }
        for (;;) {
            pause();
        }
    }

    pid_t pid_;
};

TEST(RebootShortOfMemory, WritesThroughThePageCacheGoOn) {
    constexpr uint64_t kSectors = 192 * kMiB / kSector;  // more than there is memory
    constexpr unsigned kBad = 150;
    FailingDisk main("main", machine_disk("main"));
    main.fail(scattered_ranges(kSectors, kBad, 8, 1), Fails::kWrites);
    {
        DmDevice device("remap",
                        remap_table(main.path(), machine_disk("spare"), {"format"}, kSectors));
        const Hog hog(80 * kMiB);
        {
            const BlockFile cached(device.path(), O_RDWR);
            write_pattern(cached, 0, kSectors, 1);
            EXPECT_EQ(cached.flush(), 0);
        }
        EXPECT_THAT(remap_list(device), SizeIs(Ge(kBad)));
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 0, kSectors, 1));
    }
    register_spare(machine_disk("spare"));
}

// Fills memory twice, and finds in each page what it has put there. Exit
// status.
int use_memory(uint64_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return 1;
    }
    constexpr uint64_t kWordsOfPage = 4096 / sizeof(uint64_t);
    const std::span<uint64_t> words(static_cast<uint64_t*>(memory), bytes / sizeof(uint64_t));
    for (const uint64_t round : {1, 2}) {
        for (uint64_t i = 0; i < words.size(); i += kWordsOfPage) {
            if (words[i] != (round == 1 ? 0 : i + 1)) {
                return 2;
            }
            words[i] = i + round;
        }
    }
    return 0;
}

// Pages go out to sectors that fail. Meanwhile others read one that main cannot read.
TEST(RebootSwapping, OverSectorsThatFailEnds) {
    using namespace std::chrono_literals;
    constexpr uint64_t kSwap = 192 * kMiB / kSector;
    constexpr uint64_t kUnreadable = kSwap + 1024;
    constexpr unsigned kReaders = 32;
    FailingDisk main("main", machine_disk("main"));
    main.fail(scattered_ranges(kSwap, 300, 1, 1, 8), Fails::kWrites);
    main.fail(kUnreadable, 8, Fails::kReadsUntilWritten);
    {
        DmDevice device("remap",
                        remap_table(main.path(), machine_disk("spare"), {"format"}, kSwap + 4096));
        run_ok({"mkswap", device.path(), std::to_string(kSwap / 2)});
        run_ok({"swapon", device.path()});
        std::atomic<unsigned> reads = 0;
        std::vector<std::jthread> readers;
        for (unsigned i = 0; i < kReaders; i++) {
            readers.emplace_back([&](const std::stop_token& stop) {
                const BlockFile mapped(device.path(), O_RDONLY | O_DIRECT);
                const Buffer buffer(8 * kSector);
                while (!stop.stop_requested()) {
                    EXPECT_EQ(mapped.read(kUnreadable, buffer.bytes()), EIO);
                    reads++;
                    std::this_thread::sleep_for(10ms);
                }
            });
        }
        const Hog hog(32 * kMiB);
        const pid_t user = fork();
        if (user == 0) {
            _exit(use_memory(112 * kMiB));
        }
        int status = -1;
        const bool ended = within(150s, [&] { return waitpid(user, &status, WNOHANG) == user; });
        EXPECT_TRUE(ended);
        if (!ended) {
            kill(user, SIGKILL);
            waitpid(user, nullptr, 0);
        }
        EXPECT_EQ(status, 0);
        readers.clear();
        EXPECT_GE(reads, 2 * kReaders);
        run_ok({"swapoff", device.path()});
        EXPECT_THAT(remap_list(device), SizeIs(Ge(32U)));
    }
    register_spare(machine_disk("spare"));
}

}  // namespace
}  // namespace remap::vm

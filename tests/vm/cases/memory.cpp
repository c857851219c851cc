// Memory is short, and what would free it has to be written over sectors that fail.

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "failing.h"
#include "harness.h"
#include "remap.h"

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

}  // namespace
}  // namespace remap::vm

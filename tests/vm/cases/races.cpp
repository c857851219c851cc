// Everything at once: sectors that fail, and all that a person can do to a device meanwhile.

#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "harness.h"
#include "stack.h"

namespace remap::vm {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

// fio with eight writers side by side, each in its own half megabyte, which verify what they wrote.
class Writers {
  public:
    Writers(const std::string& path, unsigned seconds)
        : thread_([this, path, seconds] {
              const auto result =
                  run({"fio", "--name=race", "--filename=" + path, "--direct=1", "--thread",
                       "--ioengine=psync", "--rw=randwrite", "--bsrange=512-16k", "--size=512k",
                       "--numjobs=8", "--offset_increment=512k", "--time_based",
                       "--runtime=" + std::to_string(seconds), "--verify=crc32c",
                       "--verify_fatal=1", "--verify_backlog=64", "--minimal"});
              output_ = result.output;
              status_ = result.status;
          }) {}
    ~Writers() {
        thread_.join();
        EXPECT_EQ(status_, 0) << output_;
    }
    Writers(const Writers&) = delete;
    Writers& operator=(const Writers&) = delete;

    [[nodiscard]] bool busy() const { return status_ < 0; }

  private:
    std::atomic<int> status_{-1};
    std::string output_;
    std::thread thread_;
};

constexpr uint64_t kRaced = 8192;  // sectors

TEST(Races, EightWritersAndEverythingElse) {
    Stack stack;
    std::mt19937_64 random(1);
    DmDevice& device = stack.device();
    const Table table = device.table();
    const auto range = [&] {
        return std::to_string(random() % kRaced) + " " + std::to_string(1 + random() % 128);
    };
    stack.main.fail(scattered_ranges(kRaced, 200, 4, 0), Fails::kWrites);
    {
        const Writers writers(device.path(), 20);
        for (unsigned i = 1; writers.busy(); i++) {
            switch (random() % 10) {
                case 0:
                    device.suspend(random() % 2 ? DmDevice::Suspend::kFlush
                                                : DmDevice::Suspend::kNoFlush);
                    device.resume();
                    break;
                case 1:
                    device.reload(table);
                    break;
                case 2:
                    message_error(device, random() % 2 ? "save" : "restore");
                    break;
                case 3:  // other sectors are bad now
                    stack.main.heal_all();
                    stack.main.fail(scattered_ranges(kRaced, 200, 4, i), Fails::kWrites);
                    break;
                case 4:
                case 5:
                    message_error(device, "remap " + range());
                    break;
                default:
                    message_error(device, "unremap " + range());
                    break;
            }
        }
    }
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_EQ(stack.value("breaker"), "closed");
    EXPECT_GT(stack.number("relocated"), 100U);
    EXPECT_EQ(device.table(), table);
    // All of it can come home.
    stack.main.heal_all();
    device.message("unremap 0 " + std::to_string(stack.sectors()));
    EXPECT_THAT(stack.records(), IsEmpty());
    EXPECT_EQ(stack.number("spare_free") + stack.number("retired"), stack.number("spare_total"));
}

TEST(Races, SuspendAndReloadWhileWritesFail) {
    Stack stack;
    stack.main.fail(scattered_ranges(stack.sectors(), 200, 1, 2), Fails::kWrites);
    const Table table = stack.device().table();
    std::atomic<bool> done{false};
    std::thread writer([&] {
        for (uint64_t at = 0; at < stack.sectors(); at += 64) {
            EXPECT_EQ(stack.write(at, 64, 2), 0) << at;
        }
        done = true;
    });
    for (unsigned i = 0; !done; i++) {
        if (i % 3 == 0) {
            stack.device().reload(table);
        } else {
            stack.device().suspend(i % 3 == 1 ? DmDevice::Suspend::kFlush
                                              : DmDevice::Suspend::kNoFlush);
            stack.device().resume();
        }
    }
    writer.join();
    EXPECT_THAT(stack.records(), SizeIs(200));
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// Whoever reads a range that could not be read, while it is written, gets an error, the old or the
// new: and nothing but the new once it was written.
TEST(Races, ReadersOfPendingRangesThatAreWritten) {
    constexpr uint64_t kFirst = 1000;
    constexpr uint64_t kCount = 256;
    Stack stack;
    stack.main.fail({{kFirst, kCount / 2}}, Fails::kReadsUntilWritten);
    stack.main.fail({{kFirst + kCount / 2, kCount / 2}}, Fails::kAll);
    std::array<std::atomic<bool>, kCount> written{};
    std::atomic<bool> done{false};
    const auto reader = [&](unsigned seed) {
        std::mt19937_64 random(seed);
        const Buffer found(kSector);
        const Buffer expected(kSector);
        while (!done) {
            const uint64_t i = random() % kCount;
            const bool before = written[i];
            const int error = stack.mapped().read(kFirst + i, found.bytes());
            fill_pattern(expected.bytes(), kFirst + i, 2);
            const bool is_new = error == 0 && std::ranges::equal(found.bytes(), expected.bytes());
            EXPECT_TRUE(is_new || (!before && error != 0)) << kFirst + i << ": " << error;
        }
    };
    std::array<std::thread, 3> readers;
    for (unsigned i = 0; i < readers.size(); i++) {
        readers[i] = std::thread(reader, i);
    }
    for (uint64_t i = 0; i < kCount; i++) {
        EXPECT_EQ(stack.write(kFirst + i, 1, 2), 0) << kFirst + i;
        written[i] = true;
    }
    done = true;
    for (auto& thread : readers) {
        thread.join();
    }
    EXPECT_EQ(stack.number("pending"), 0U);
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

}  // namespace
}  // namespace remap::vm

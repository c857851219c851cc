// Everything at once: sectors that fail, and all that a person can do to a device meanwhile.

#include <gmock/gmock.h>

#include <array>
#include <atomic>
#include <functional>
#include <iostream>
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
    constexpr unsigned kEnough = 100;  // takes a debug kernel some rounds
    for (unsigned i = 1, round = 0; round < 10 && stack.number("relocated") <= kEnough; round++) {
        const Writers writers(device.path(), 12);
        for (; writers.busy(); i++) {
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
    EXPECT_GT(stack.number("relocated"), kEnough);
    EXPECT_EQ(device.table(), table);
    // All of it can come home.
    stack.main.heal_all();
    device.message("unremap 0 " + std::to_string(stack.sectors()));
    EXPECT_THAT(stack.records(), IsEmpty());
    EXPECT_EQ(stack.number("spare_free") + stack.number("retired"), stack.number("spare_total"));
}

TEST(Races, SuspendAndReloadWhileWritesFail) {
    if (std::thread::hardware_concurrency() < 2) {
        GTEST_SKIP() << "on one processor the writer hardly gets its turn";
    }
    Stack stack;
    stack.main.fail(scattered_ranges(kRaced, 100, 1, 2), Fails::kWrites);
    const Table table = stack.device().table();
    std::atomic<bool> done{false};
    std::jthread writer([&] {
        for (uint64_t at = 0; at < kRaced; at += 64) {
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
    EXPECT_THAT(stack.records(), SizeIs(100));
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// Versions of a few sectors, one after the other. Readers must find none that is older than what
// had been acknowledged before they began, and none that nobody wrote.
class Versions {
  public:
    Versions(const BlockFile& device, uint64_t first) : device_(device), first_(first) {
        for (auto& version : acknowledged_) {
            version = 1;
        }
        for (auto& version : begun_) {
            version = 1;
        }
    }

    static constexpr uint64_t kCount = 64;

    // Each sector has one writer.
    void write(uint64_t i) {
        const Buffer data(kSector);
        const uint64_t version = ++begun_[i];
        fill_pattern(data.bytes(), first_ + i, version);
        EXPECT_EQ(device_.write(first_ + i, data.bytes()), 0) << first_ + i;
        acknowledged_[i] = version;
    }

    void read(uint64_t i, bool may_fail) const {
        const Buffer found(kSector);
        const Buffer expected(kSector);
        const uint64_t oldest = acknowledged_[i];
        const int error = device_.read(first_ + i, found.bytes());
        const uint64_t newest = begun_[i];
        bool known = error != 0 && may_fail;
        for (uint64_t version = oldest; error == 0 && !known && version <= newest; version++) {
            fill_pattern(expected.bytes(), first_ + i, version);
            known = std::ranges::equal(found.bytes(), expected.bytes());
        }
        EXPECT_TRUE(known) << "sector " << first_ + i << ", error " << error << ", version "
                           << oldest << " to " << newest;
    }

  private:
    const BlockFile& device_;
    uint64_t first_;
    std::array<std::atomic<uint64_t>, kCount> acknowledged_{};
    std::array<std::atomic<uint64_t>, kCount> begun_{};
};

// Two writers, each of every other sector, and two readers, while `meanwhile` goes on.
void write_and_read(Versions& versions, const std::function<void()>& meanwhile) {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < 2; t++) {
        threads.emplace_back([&, t](const std::stop_token& stop) {
            std::mt19937_64 random(t);
            while (!stop.stop_requested()) {
                versions.write(random() % (Versions::kCount / 2) * 2 + t);
            }
        });
        threads.emplace_back([&, t](const std::stop_token& stop) {
            std::mt19937_64 random(t);
            while (!stop.stop_requested()) {
                versions.read(random() % Versions::kCount, /*may_fail=*/true);
            }
        });
    }
    meanwhile();
}

// Reads fail until a write cures them, or for ever: pending records come and go.
TEST(Races, ReadersAndWritersOfUnreadableSectors) {
    constexpr uint64_t kFirst = 1000;
    Stack stack;
    Versions versions(stack.mapped(), kFirst);
    write_and_read(versions, [&] {
        for (unsigned i = 0; i < 8; i++) {
            stack.main.fail(kFirst, 32, Fails::kReadsUntilWritten);
            stack.main.fail(kFirst + 48, 8, Fails::kAll);
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
            stack.main.heal_all();
            message_error(stack.device(), "unremap 1000 64");
        }
    });
    for (uint64_t i = 0; i < Versions::kCount; i++) {
        versions.read(i, /*may_fail=*/false);
    }
}

// Sectors that fail, and work again in the midst of the retries: what was read in time is moved
// while others write it.
TEST(Races, ADiskThatChangesItsMind) {
    constexpr uint64_t kFirst = 1000;
    NullBlk main({.size_mb = 16, .block_size = 512});
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 8192, 1);
    DmDevice device("remap",
                    remap_table(main.path(), spare.path(), {"format", "read_retries", "20"}));
    const BlockFile mapped(device.path());
    Versions versions(mapped, kFirst);
    std::mt19937_64 random(3);
    write_and_read(versions, [&] {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(6);
        for (unsigned n = 0; std::chrono::steady_clock::now() < end; n++) {
            const uint64_t bad = kFirst + random() % (Versions::kCount - 4);
            const uint64_t count = 1 + random() % 4;
            main.add_bad(bad, count);
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
            main.remove_bad(bad, count);
            if (n % 16 == 0) {
                message_error(device, "unremap 1000 64");
            }
        }
    });
    std::cout << device.status().at(0).text << std::endl;
    EXPECT_EQ(remap_status(device).values.at("breaker"), "closed");
    for (uint64_t i = 0; i < Versions::kCount; i++) {
        versions.read(i, /*may_fail=*/false);
    }
}

}  // namespace
}  // namespace remap::vm

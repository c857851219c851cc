// The inside of kill-storm.sh: writes over failing sectors until the machine is killed, and, at the
// next boot, the proof that none was lost that had been acknowledged.
//
// What happens is told to the host line by line, each before the next thing is done:
//
//   boot <n>                       all is verified, a new storm begins
//   begin <sector> <count> <seed>  a write is about to be made
//   done <sector> <count> <seed>   it was acknowledged; or it was found so after a boot
//
// All lines of all boots before are in /history. Writes of one moment never overlap.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <fstream>
#include <iostream>
#include <optional>
#include <random>
#include <sstream>
#include <thread>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "failing.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

constexpr uint64_t kSectors = 131072;
constexpr unsigned kWriters = 4;
constexpr unsigned kBadRanges = 2000;

// What a sector may hold: the pattern of a seed; of 0, zeros. The disk was blank at first.
struct Sector {
    uint64_t acknowledged = 0;
    uint64_t begun = 0;  // 0: nothing
};

class Acks {
  public:
    Acks() : file_("/dev/host/acks", O_WRONLY) {}

    void say(const std::string& line) const {
        const std::string text = line + "\n";
        if (::write(file_.fd(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
            throw std::runtime_error("the port of the acknowledgements");
        }
    }
    void say(const char* word, uint64_t sector, uint64_t count, uint64_t seed) const {
        std::ostringstream line;
        line << word << ' ' << sector << ' ' << count << ' ' << seed;
        say(line.str());
    }

  private:
    File file_;
};

class Storm {
  public:
    Storm() : sectors_(kSectors) {
        read_history();
        // Other sectors fail at each boot: there is always something to move.
        main_.fail(scattered_ranges(kSectors, kBadRanges, 4, boot_), Fails::kWrites);
        const std::vector<std::string> features =
            boot_ == 0 ? std::vector<std::string>{"format"} : std::vector<std::string>{};
        device_.emplace("remap",
                        remap_table(main_.path(), machine_disk("spare"), features, kSectors));
    }

    void verify() {
        const BlockFile mapped(device_->path());
        const Buffer buffer(1024 * kSector);
        unsigned wrong = 0;
        for (uint64_t at = 0; at < kSectors; at++) {
            if (at % 1024 == 0) {
                ASSERT_EQ(mapped.read(at, buffer.bytes()), 0) << "read from sector " << at;
            }
            const auto found = buffer.bytes().subspan(at % 1024 * kSector, kSector);
            Sector& sector = sectors_[at];
            if (sector.begun != 0 && holds(found, at, sector.begun)) {
                sector.acknowledged = sector.begun;
            } else if (!holds(found, at, sector.acknowledged)) {
                wrong++;
                ADD_FAILURE() << "sector " << at << " lost its write " << sector.acknowledged;
                ASSERT_LT(wrong, 20U);
            }
            if (sector.begun != 0) {
                acks_.say("done", at, 1, sector.acknowledged);
            }
        }
        std::cout << "boot " << boot_ << ": " << writes_ << " writes, "
                  << device_->status().at(0).text << std::endl;
    }

    void rage() {
        acks_.say("boot " + std::to_string(boot_));
        std::vector<std::thread> threads;
        for (unsigned writer = 0; writer < kWriters; writer++) {
            threads.emplace_back([this, writer] { write(writer); });
        }
        threads.emplace_back([this] { disturb(); });
        for (auto& thread : threads) {
            thread.join();
        }
    }

    void stop() {
        device_->remove();
        register_spare(machine_disk("spare"));
    }

  private:
    static bool holds(std::span<const std::byte> bytes, uint64_t sector, uint64_t seed) {
        std::array<std::byte, kSector> expected{};
        if (seed != 0) {
            fill_pattern(expected, sector, seed);
        }
        return std::equal(expected.begin(), expected.end(), bytes.begin());
    }

    void read_history() {
        std::ifstream lines("/history");
        for (std::string line; std::getline(lines, line);) {
            std::istringstream words(line);
            std::string word;
            uint64_t first = 0;
            uint64_t count = 0;
            uint64_t seed = 0;
            words >> word >> first >> count >> seed;
            if (word == "boot") {
                boot_++;
            }
            for (uint64_t at = first; word != "boot" && at < first + count; at++) {
                Sector& sector = sectors_.at(at);
                if (word == "begin") {
                    sector.begun = seed;
                } else {
                    sector = {.acknowledged = seed};
                }
            }
            writes_ += word == "done" ? 1 : 0;
        }
    }

    [[nodiscard]] bool goes_on() const {
        return !failed_ && std::chrono::steady_clock::now() < end_;
    }

    // Each has a part of its own.
    void write(unsigned writer) {
        constexpr uint64_t kShare = kSectors / kWriters;
        std::mt19937_64 random(boot_ * kWriters + writer);
        const BlockFile mapped(device_->path());
        const Buffer buffer(32 * kSector);
        for (uint64_t n = 0; goes_on(); n++) {
            const uint64_t count = 1 + random() % 32;
            const uint64_t sector = writer * kShare + random() % (kShare - count);
            const uint64_t seed = (uint64_t{boot_} << 32) + n * kWriters + writer + 1;
            const auto bytes = buffer.bytes().first(count * kSector);
            fill_pattern(bytes, sector, seed);
            acks_.say("begin", sector, count, seed);
            if (const int error = mapped.write(sector, bytes); error != 0) {
                failed_ = true;
                ADD_FAILURE() << "write " << sector << "+" << count << ": " << error;
                return;
            }
            acks_.say("done", sector, count, seed);
        }
    }

    void disturb() {
        std::mt19937_64 random(boot_);
        while (goes_on()) {
            std::this_thread::sleep_for(std::chrono::milliseconds(random() % 60));
            const std::string range = std::to_string(random() % (kSectors - 64)) + " " +
                                      std::to_string(1 + random() % 64);
            switch (random() % 4) {
                case 0:
                    device_->message("save");
                    break;
                case 1:
                    message_error(*device_, "remap " + range);
                    break;
                default:
                    message_error(*device_, "unremap " + range);
                    break;
            }
        }
    }

    static std::string without_cache(const std::string& disk) {
        write_value("/sys/block/" + disk.substr(5) + "/queue/write_cache", "write through");
        return disk;
    }

    Acks acks_;
    std::vector<Sector> sectors_;
    unsigned boot_ = 0;
    uint64_t writes_ = 0;
    FailingDisk main_{"main", without_cache(machine_disk("main"))};
    std::optional<DmDevice> device_;
    std::atomic<bool> failed_{false};
    // If nobody kills it.
    const std::chrono::steady_clock::time_point end_ =
        std::chrono::steady_clock::now() + std::chrono::seconds(60);
};

TEST(KillStorm, VerifyAndWriteUntilKilled) {
    Storm storm;
    storm.verify();
    if (!HasFailure()) {
        storm.rage();
        ADD_FAILURE() << "nobody killed the machine";
    }
}

TEST(KillStorm, VerifyAndStop) {
    Storm storm;
    storm.verify();
    storm.stop();
}

}  // namespace
}  // namespace remap::vm

// The inside of kill-storm.sh: writes over failing sectors until the machine is killed, and, at the
// next boot, the proof that none was lost that had been acknowledged.
//
// What was acknowledged is told to the host line by line:
//
//   boot <n>                       all is verified, a new storm begins
//   done <sector> <count> <seed>   a write was acknowledged; or it was found so after a boot
//
// All lines of all boots before are in /history. A line may still be on its way to the host when
// the machine dies: nobody was told of that write, then. That it had begun must be known all the
// same, so each writer first notes on a disk of its own what it is about to write. Writes of one
// moment never overlap, and later ones have larger seeds.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>
#include <random>
#include <sstream>
#include <system_error>
#include <thread>
#include <vector>

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
    std::vector<uint64_t> begun = {};  // since then
};

// The last writes that each writer began, on a disk that is not part of the test. So many are not
// on their way to the host at one time.
class Begun {
  public:
    static constexpr uint64_t kNotes = 64;
    struct Write {
        uint64_t sector = 0;
        uint64_t count = 0;
        uint64_t seed = 0;  // 0: no write
    };

    // On the host before it returns.
    void note(unsigned writer, uint64_t n, const Write& write) const {
        const Buffer buffer(kSector);
        std::ranges::fill(buffer.bytes(), std::byte{0});
        std::memcpy(buffer.bytes().data(), &write, sizeof(write));
        must(disk_.write(writer * kNotes + n % kNotes, buffer.bytes()));
    }
    [[nodiscard]] std::vector<Write> all() const {
        const Buffer buffer(kWriters * kNotes * kSector);
        must(disk_.read(0, buffer.bytes()));
        std::vector<Write> writes(kWriters * kNotes);
        for (size_t i = 0; i < writes.size(); i++) {
            std::memcpy(&writes[i], &buffer.bytes()[i * kSector], sizeof(Write));
        }
        return writes;
    }
    void clear() const {
        const Buffer buffer(kWriters * kNotes * kSector);
        std::ranges::fill(buffer.bytes(), std::byte{0});
        must(disk_.write(0, buffer.bytes()));
    }

  private:
    static void must(int error) {
        if (error != 0) {
            throw std::system_error(error, std::generic_category(), "the notes of what has begun");
        }
    }

    BlockFile disk_{machine_disk("extra")};
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

    // What was under way may have landed, sector by sector, or not.
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
            const auto landed = std::ranges::find_if(
                sector.begun, [&](uint64_t seed) { return holds(found, at, seed); });
            if (landed != sector.begun.end()) {
                sector.acknowledged = *landed;
            } else if (!holds(found, at, sector.acknowledged)) {
                wrong++;
                ADD_FAILURE() << "sector " << at << " lost its write " << sector.acknowledged;
                ASSERT_LT(wrong, 20U);
            }
            if (!sector.begun.empty()) {
                acks_.say("done", at, 1, sector.acknowledged);
            }
        }
        begun_.clear();
        std::cout << "boot " << boot_ << ": " << writes_ << " writes, "
                  << device_->status().at(0).text << std::endl;
    }

    void rage() {
        acks_.say("boot " + std::to_string(boot_));
        std::vector<std::jthread> threads;
        for (unsigned writer = 0; writer < kWriters; writer++) {
            threads.emplace_back([this, writer] { write(writer); });
        }
        threads.emplace_back([this] { disturb(); });
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
                sectors_.at(at) = {.acknowledged = seed};
            }
            writes_ += word == "done" ? 1 : 0;
        }
        for (const auto& [first, count, seed] : begun_.all()) {
            for (uint64_t at = first; at < first + count; at++) {
                if (seed > sectors_.at(at).acknowledged) {
                    sectors_.at(at).begun.push_back(seed);
                }
            }
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
            begun_.note(writer, n, {sector, count, seed});
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

    Begun begun_;
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

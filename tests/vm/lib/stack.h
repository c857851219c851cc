// A remap device over a main and a spare that fail as the case wants, with a memory of what was
// written: most cases are a few writes and reads, then is_whole() before and after restart().
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "backing.h"
#include "block.h"
#include "dm_device.h"
#include "failing.h"
#include "remap.h"

namespace remap::vm {

class Stack {
    // Disks in memory, and main full of the pattern of seed 1. These come first: they go last.
    LoopDevice main_disk_;
    LoopDevice spare_disk_;

  public:
    static constexpr std::chrono::milliseconds kMoment{3000};

    struct Options {
        unsigned block_size = 512;
        uint64_t main_mb = 16;
        uint64_t spare_mb = 16;
        std::vector<std::string> features = {};  // `format` comes by itself
    };
    explicit Stack(const Options& options);
    Stack() : Stack(Options{}) {}

    FailingDisk main{"main", main_disk_.path()};
    FailingDisk spare{"spare", spare_disk_.path()};

    DmDevice& device() { return *device_; }
    const BlockFile& mapped() { return *mapped_; }
    [[nodiscard]] uint64_t sectors() const { return seeds_.size(); }

    // 0 or the errno. After a write that failed, what its range holds is anybody's guess.
    int write(uint64_t sector, uint64_t count, uint64_t seed, int rwf = 0);
    int read(uint64_t sector, uint64_t count);

    // Each sector holds what was last written; those that are named can't be read, and no others.
    testing::AssertionResult is_whole(const std::vector<uint64_t>& unreadable = {});

    // "<sector> <count> <kind> <reason>" a record.
    std::vector<std::string> records() { return remap_brief(device()); }
    uint64_t number(const std::string& key) { return remap_status(device()).number(key); }
    std::string value(const std::string& key) { return remap_status(device()).values.at(key); }
    // A dm event since the number was this one; they come within a moment.
    bool has_event_after(uint32_t number, std::chrono::milliseconds moment = kMoment);
    std::string mode() { return remap_status(device()).mode; }

    // Removes the device, for good.
    void remove();
    // Removes the device and creates it again. That the records are the same is expected.
    void restart();

  private:
    void open();
    uint64_t first_wrong(uint64_t sector, uint64_t count, const Buffer& buffer,
                         std::vector<uint64_t>& bad);

    Options options_;
    std::vector<uint64_t> seeds_;  // of each sector; kNone if that is not known
    std::optional<DmDevice> device_;
    std::optional<BlockFile> mapped_;
};

}  // namespace remap::vm

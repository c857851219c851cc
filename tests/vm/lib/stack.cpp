#include "stack.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "harness.h"
#include "within.h"

namespace remap::vm {

namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kNone = UINT64_MAX;
constexpr uint64_t kChunk = 1024;  // sectors

bool holds(std::span<const std::byte> bytes, uint64_t sector, uint64_t seed) {
    std::array<std::byte, kSector> expected{};
    fill_pattern(expected, sector, seed);
    return std::equal(expected.begin(), expected.end(), bytes.begin());
}

}  // namespace

Stack::Stack(const Options& options)
    : main_disk_(options.main_mb * kMiB, options.block_size),
      spare_disk_(options.spare_mb * kMiB, options.block_size),
      options_(options),
      seeds_(options.main_mb * kMiB / kSector, 1) {
    register_spare(spare_disk_.path());
    write_pattern(BlockFile(main_disk_.path()), 0, sectors(), 1);
    options_.features.insert(options_.features.begin(), "format");
    open();
    options_.features.erase(options_.features.begin());
}

void Stack::open() {
    device_.emplace("remap", remap_table(main.path(), spare.path(), options_.features));
    mapped_.emplace(device_->path());
}

int Stack::write(uint64_t sector, uint64_t count, uint64_t seed, int rwf) {
    const Buffer buffer(count * kSector);
    fill_pattern(buffer.bytes(), sector, seed);
    const int error = mapped_->write(sector, buffer.bytes(), rwf);
    std::fill_n(seeds_.begin() + static_cast<ptrdiff_t>(sector), count, error == 0 ? seed : kNone);
    return error;
}

int Stack::read(uint64_t sector, uint64_t count) {
    const Buffer buffer(count * kSector);
    return mapped_->read(sector, buffer.bytes());
}

testing::AssertionResult Stack::is_whole(const std::vector<uint64_t>& unreadable) {
    const Buffer buffer(kChunk * kSector);
    std::vector<uint64_t> bad;
    for (uint64_t at = 0; at < sectors(); at += kChunk) {
        const uint64_t wrong = first_wrong(at, kChunk, buffer, bad);
        if (wrong != kNone) {
            return testing::AssertionFailure() << "sector " << wrong << ": wrong data";
        }
    }
    if (bad != unreadable) {
        return testing::AssertionFailure() << "unreadable: " << testing::PrintToString(bad)
                                           << ", and not " << testing::PrintToString(unreadable);
    }
    return testing::AssertionSuccess();
}

// Reads by halves what fails; blocks that fail on their own are appended to `bad`.
uint64_t Stack::first_wrong(uint64_t sector, uint64_t count, const Buffer& buffer,
                            std::vector<uint64_t>& bad) {
    const auto bytes = buffer.bytes().first(count * kSector);
    if (mapped_->read(sector, bytes) == 0) {
        for (uint64_t i = 0; i < count; i++) {
            const uint64_t seed = seeds_[sector + i];
            if (seed != kNone && !holds(bytes.subspan(i * kSector, kSector), sector + i, seed)) {
                return sector + i;
            }
        }
        return kNone;
    }
    if (count == options_.block_size / kSector) {
        bad.push_back(sector);
        return kNone;
    }
    const uint64_t wrong = first_wrong(sector, count / 2, buffer, bad);
    return wrong != kNone ? wrong : first_wrong(sector + count / 2, count / 2, buffer, bad);
}

bool Stack::has_event_after(uint32_t number, std::chrono::milliseconds moment) {
    return within(moment, [&] { return device().info().event_nr > number; });
}

void Stack::remove() {
    mapped_.reset();
    device_->remove();
    device_.reset();
}

void Stack::restart() {
    const auto before = remap_list(device());
    remove();
    open();
    EXPECT_EQ(remap_list(device()), before);
}

}  // namespace remap::vm

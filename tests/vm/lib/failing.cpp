#include "failing.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <stdexcept>

#include "block.h"
#include "command.h"

namespace remap::vm {

namespace {

// Up for 0 s, down for 60.
constexpr const char* kFailWrites = " 0 60 1 error_writes";
constexpr const char* kDropWrites = " 0 60 1 drop_writes";

}  // namespace

FailingDisk::FailingDisk(const std::string& name, const std::string& disk)
    : disk_(disk),
      sectors_(BlockFile(disk, O_RDONLY).sectors()),
      block_size_(BlockFile(disk, O_RDONLY).logical_block_size()),
      device_(name, table()) {}

void FailingDisk::fail(const std::vector<Range>& ranges, Fails how) {
    if (how == Fails::kWrites && !write_failer_) {
        make_write_failer();
    }
    // All of the disk: whether dm-dust counts blocks from the start of its target or of the disk
    // below depends on the kernel.
    if (how == Fails::kReadsUntilWritten && !dust_) {
        dust_.emplace(device_.name() + "-reads",
                      Table{{0, sectors_, "dust", disk_ + " 0 " + std::to_string(block_size_)}});
        dust_->message("quiet");
        dust_->message("enable");
    }
    for (const auto& range : ranges) {
        cut(range.first, range.count);
        parts_[range.first] = {.count = range.count, .how = how};
    }
    apply();
}

void FailingDisk::heal(uint64_t first, uint64_t count) {
    cut(first, count);
    apply();
}

// dm-flakey fails flushes as it does writes, and device-mapper sends them to each piece of a table.
// They end above a device that says that it has no cache.
void FailingDisk::make_write_failer() {
    write_failer_.emplace(device_.name() + "-writes",
                          Table{{0, sectors_, "flakey", disk_ + " 0" + kFailWrites}});
    write_value("/sys/dev/block/" + std::to_string(major(write_failer_->info().device)) + ":" +
                    std::to_string(minor(write_failer_->info().device)) + "/queue/write_cache",
                "write through");
}

// Takes a range out of the parts.
void FailingDisk::cut(uint64_t first, uint64_t count) {
    const uint64_t end = first + count;
    auto it = parts_.lower_bound(first);
    if (it != parts_.begin() && std::prev(it)->first + std::prev(it)->second.count > first) {
        --it;
    }
    while (it != parts_.end() && it->first < end) {
        const auto [at, part] = *it;
        it = parts_.erase(it);
        if (at < first) {
            parts_[at] = {.count = first - at, .how = part.how};
        }
        if (at + part.count > end) {
            parts_[end] = {.count = at + part.count - end, .how = part.how};
        }
    }
}

Target FailingDisk::piece(uint64_t first, uint64_t count, const Part* part) const {
    const std::string place = disk_ + " " + std::to_string(first);
    if (part == nullptr) {
        return {first, count, "linear", place};
    }
    switch (part->how) {
        case Fails::kWrites:
            return {first, count, "linear", write_failer_->path() + " " + std::to_string(first)};
        case Fails::kWritesAndFlushes:
            return {first, count, "flakey", place + kFailWrites};
        case Fails::kAll:
            return {first, count, "error", ""};
        case Fails::kDropsWrites:
            return {first, count, "flakey", place + kDropWrites};
        case Fails::kReadsUntilWritten:
            return {first, count, "linear", dust_->path() + " " + std::to_string(first)};
    }
    throw std::logic_error("piece");
}

Table FailingDisk::table() const {
    Table table;
    uint64_t at = 0;
    for (const auto& [first, part] : parts_) {
        if (at < first) {
            table.push_back(piece(at, first - at, nullptr));
        }
        table.push_back(piece(first, part.count, &part));
        at = first + part.count;
    }
    if (at < sectors_) {
        table.push_back(piece(at, sectors_ - at, nullptr));
    }
    return table;
}

void FailingDisk::apply() {
    device_.load(table());
    device_.suspend();
    if (dust_) {
        mark_bad_blocks();
    }
    device_.resume();
}

void FailingDisk::mark_bad_blocks() {
    const uint64_t block = block_size_ / kSector;
    dust_->message("clearbadblocks");
    for (const auto& [first, part] : parts_) {
        if (part.how != Fails::kReadsUntilWritten) {
            continue;
        }
        for (uint64_t at = first; at < first + part.count; at += block) {
            dust_->message("addbadblock " + std::to_string(at / block));
        }
    }
}

std::vector<Range> scattered_ranges(uint64_t sectors, unsigned count, unsigned longest,
                                    unsigned seed, unsigned block) {
    // One range in each of `count` slots, somewhere.
    const uint64_t slot = sectors / block / count;
    if (slot < longest + 1) {
        throw std::invalid_argument("scattered_ranges: no room");
    }
    std::mt19937_64 random(seed);
    std::vector<Range> ranges;
    for (unsigned i = 0; i < count; i++) {
        const uint64_t length = 1 + random() % longest;
        const uint64_t first = i * slot + random() % (slot - length);
        ranges.push_back({.first = first * block, .count = length * block});
    }
    return ranges;
}

}  // namespace remap::vm

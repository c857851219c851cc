// A main disk, a spare, and the core over both: what most tests begin with.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "sim_disk.h"

namespace remap {

// A canonical record without its times, for comparisons.
struct Record {
    unsigned kind;
    std::uint64_t main;
    std::uint64_t spare;
    std::uint64_t length;

    auto operator<=>(const Record&) const = default;
};
std::ostream& operator<<(std::ostream& os, const Record& r);

using Records = std::vector<Record>;

dm_remap_record mapped(std::uint64_t main, std::uint64_t spare, std::uint32_t length = 1);
dm_remap_record pending(std::uint64_t main, std::uint32_t length = 1);
dm_remap_record retired(std::uint64_t spare, std::uint32_t length = 1);
dm_remap_record clear(std::uint64_t main, std::uint32_t length = 1);
Record plain(const dm_remap_record& r);

// A decision that the core told of.
struct Note {
    dm_remap_note what;
    std::uint64_t sector;
    std::uint64_t sectors;
    std::int64_t value;
};

// The disks and the operations over them. Outlives every Metadata made on it.
struct World {
    World(std::uint64_t main_sectors, std::uint64_t spare_sectors)
        : main(main_sectors), spare(spare_sectors) {}

    SimDisk main;
    SimDisk spare;
    std::uint64_t time = 1'700'000'000;
    std::uint64_t uptime = 1000;
    std::uint64_t random = 0x9e3779b97f4a7c15;  // the last number drawn
    std::vector<std::string> log;
    std::uint64_t main_end = UINT64_MAX;  // main has become shorter
    unsigned drains = 0;
    std::vector<Note> notes;
    std::function<void()> on_drain;
    bool busy = false;  // something is on its way: who does not wait is told so
    std::function<int()> on_stop;
    unsigned kicks = 0;
    std::function<int(const dm_remap_job*)> on_wait;  // without: each has its turn at once
    std::function<void()> on_give_way;

    static const dm_remap_ops kOps;
};

// struct dm_remap_metadata with a lifetime.
class Metadata {
  public:
    explicit Metadata(World& world);
    ~Metadata() { dm_remap_metadata_exit(&md_); }
    Metadata(const Metadata&) = delete;
    Metadata& operator=(const Metadata&) = delete;

    int load() {
        return dm_remap_load(&md_, world_.spare.sectors(), world_.main.sectors(), &report);
    }
    // Back to before load(), for the next one: a cheap way to many loads.
    void unload();
    int activate() { return dm_remap_activate(&md_, nullptr, &report); }
    int commit(const std::vector<dm_remap_record>& entries) {
        return dm_remap_commit(&md_, entries.data(), entries.size());
    }
    int checkpoint() { return dm_remap_checkpoint(&md_, DM_REMAP_STATE_DIRTY); }
    int deactivate() { return dm_remap_deactivate(&md_); }

    // Takes a place on the spare, writes something there, and commits the record.
    int remap(std::uint64_t main, std::uint32_t length = 1);
    // Just takes a place.
    std::uint64_t take(std::uint32_t length = 1);

    Records records();
    dm_remap_extent lookup(std::uint64_t sector, std::uint64_t sectors = 1);
    bool flagged(unsigned flags, std::uint64_t sector) {
        return (lookup(sector).flags & flags) != 0;
    }
    dm_remap_metadata* operator->() { return &md_; }
    dm_remap_metadata* get() { return &md_; }

    dm_remap_report report{};

  private:
    World& world_;
    dm_remap_metadata md_{};
};

// What redoes requests, with a lifetime.
class Mover {
  public:
    explicit Mover(Metadata& md) : mover_(dm_remap_mover_alloc(md.get(), DM_REMAP_REDO_SECTORS)) {}
    ~Mover() { dm_remap_mover_free(mover_); }
    Mover(const Mover&) = delete;
    Mover& operator=(const Mover&) = delete;

    dm_remap_mover* get() { return mover_; }

  private:
    dm_remap_mover* mover_;
};

struct Shape {
    std::uint64_t main_sectors = 1 << 16;
    std::uint64_t spare_sectors = 2048;
    std::uint32_t granularity = 1;
    std::uint32_t journal_blocks = 16;
    std::uint64_t max_records = 252;
};

dm_remap_format_params format_params(const Shape& shape, std::uint8_t uuid = 0x11);
std::unique_ptr<World> make_world(const Shape& shape = {});
int format(World& world, const Shape& shape, std::uint8_t uuid = 0x11);
// A formatted world.
std::unique_ptr<World> formatted(const Shape& shape = {});

// Loads, and activates. Fails the test if either does.
std::unique_ptr<Metadata> open(World& world);
// Loads alone; the error, and why.
struct Loaded {
    int error;
    std::string why;
    Records records;
    dm_remap_report report;
};
Loaded try_load(World& world);

// The main device that @sb knows: a disk, and no device of device-mapper.
dm_remap_main main_of(const dm_remap_super& sb);

// Superblock @replica as it is on the spare. Fails the test if it is not valid.
dm_remap_super super_at(World& world, int replica);
void put_super(World& world, const dm_remap_super& sb, int replica);
// A journal or table block as it is on the spare, and back, sealed again.
dm_remap_disk_block block_at(World& world, std::uint64_t at);
void put_block(World& world, dm_remap_disk_block block, std::uint64_t at);
std::uint64_t journal_at(World& world, int replica, std::uint64_t sequence);
// A block overwritten with zeros, or made unreadable.
void zero_block(World& world, std::uint64_t at);
void unreadable_block(World& world, std::uint64_t at);
// Recognisable contents.
std::vector<std::uint8_t> pattern(std::uint64_t seed, std::uint32_t sectors);

// While it lives, the allocation number @n (from 0) fails.
class FailAllocation {
  public:
    explicit FailAllocation(std::uint64_t n);
    ~FailAllocation();
    FailAllocation(const FailAllocation&) = delete;
    FailAllocation& operator=(const FailAllocation&) = delete;
    bool happened() const;
};

}  // namespace remap

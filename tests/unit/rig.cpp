#include "rig.h"

#include <gtest/gtest.h>

#include <cstdarg>
#include <cstdio>
#include <random>

namespace remap {

std::ostream& operator<<(std::ostream& os, const Record& r) {
    return os << dm_remap_kind_name(r.kind) << " " << r.main << "+" << r.length << " at "
              << r.spare;
}

// ---- records ----

static dm_remap_record record(unsigned kind, unsigned reason, std::uint64_t main,
                              std::uint64_t spare, std::uint32_t length) {
    dm_remap_record r{};
    r.kind = kind;
    r.reason = reason;
    r.main = main;
    r.spare = spare;
    r.length = length;
    r.first_time = r.last_time = kind == DM_REMAP_CLEAR ? 0 : 1'700'000'000;
    return r;
}

dm_remap_record mapped(std::uint64_t main, std::uint64_t spare, std::uint32_t length) {
    return record(DM_REMAP_MAPPED, DM_REMAP_REASON_MANUAL, main, spare, length);
}

dm_remap_record pending(std::uint64_t main, std::uint32_t length) {
    return record(DM_REMAP_PENDING, DM_REMAP_REASON_READ_ERROR, main, 0, length);
}

dm_remap_record retired(std::uint64_t spare, std::uint32_t length) {
    return record(DM_REMAP_RETIRED, DM_REMAP_REASON_WRITE_ERROR, 0, spare, length);
}

dm_remap_record clear(std::uint64_t main, std::uint32_t length) {
    return record(DM_REMAP_CLEAR, 0, main, 0, length);
}

Record plain(const dm_remap_record& r) {
    return {r.kind, r.main, r.spare, r.length};
}

// ---- operations ----

static World& world_of(void* ctx) {
    return *static_cast<World*>(ctx);
}

static SimDisk& disk_of(void* ctx, dm_remap_dev dev) {
    return dev == DM_REMAP_MAIN ? world_of(ctx).main : world_of(ctx).spare;
}

static void log_line(void* ctx, dm_remap_level /*level*/, const char* fmt, ...) {
    char line[512];
    va_list args;
    va_start(args, fmt);
    const int length = std::vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    ASSERT_GT(length, 0);
    world_of(ctx).log.emplace_back(line);
}

const dm_remap_ops World::kOps = {
    .read = [](void* ctx, dm_remap_dev dev, u64 sector, u32 sectors,
               void* buf) { return disk_of(ctx, dev).read(sector, sectors, buf); },
    .write = [](void* ctx, dm_remap_dev dev, u64 sector, u32 sectors, const void* buf,
                unsigned flags) { return disk_of(ctx, dev).write(sector, sectors, buf, flags); },
    .now = [](void* ctx) -> u64 { return world_of(ctx).time; },
    .uptime = [](void* ctx) -> u64 { return world_of(ctx).uptime; },
    .random = [](void* ctx) -> u64 { return ++world_of(ctx).random; },
    .log = log_line,
    .flush = nullptr,
    .fua = nullptr,
    .drain =
        [](void* ctx, u64, u64, unsigned ms) {
            World& world = world_of(ctx);
            world.drains++;
            if (world.on_drain) {
                world.on_drain();
            }
            return ms == DM_REMAP_NO_END || !world.busy;
        },
    .kick =
        [](void* ctx) {
            World& world = world_of(ctx);
            world.kicks++;
        },
    .wait =
        [](void* ctx, const dm_remap_job* job) {
            World& world = world_of(ctx);
            return world.on_wait ? world.on_wait(job) : 0;
        },
    .give_way =
        [](void* ctx) {
            World& world = world_of(ctx);
            if (world.on_give_way) {
                world.on_give_way();
            }
        },
    .stop =
        [](void* ctx) {
            World& world = world_of(ctx);
            return world.on_stop ? world.on_stop() : 0;
        },
    .note =
        [](void* ctx, dm_remap_note what, u64 sector, u64 sectors, s64 value) {
            world_of(ctx).notes.push_back({what, sector, sectors, value});
        },
    .main_sectors = [](void* ctx) -> u64 { return world_of(ctx).main_end; },
};

// ---- metadata ----

Metadata::Metadata(World& world) : world_(world) {
    EXPECT_EQ(dm_remap_metadata_init(&md_, &World::kOps, &world), 0);
}

void Metadata::unload() {
    if (md_.doubt != nullptr) {
        dm_remap_metadata_exit(&md_);
        EXPECT_EQ(dm_remap_metadata_init(&md_, &World::kOps, &world_), 0);
        return;
    }
    dm_remap_table_exit(&md_.table);
    dm_remap_table_exit(&md_.retired);
    dm_remap_alloc_exit(&md_.alloc);
}

std::uint64_t Metadata::take(std::uint32_t length) {
    std::uint64_t spare = 0;
    std::uint32_t taken = 0;
    EXPECT_EQ(dm_remap_alloc_take(&md_.alloc, length, &spare, &taken), 0);
    EXPECT_EQ(taken, length);
    return spare;
}

int Metadata::remap(std::uint64_t main, std::uint32_t length) {
    std::uint64_t spare = take(length);
    auto data = pattern(main, length);
    world_.spare.write(spare, length, data.data(), DM_REMAP_FUA);
    return commit({mapped(main, spare, length)});
}

Records Metadata::records() {
    Records all;
    all.reserve(16);  // many a test asks for a few records many times
    dm_remap_record r{};
    for (u64 from = 0; dm_remap_table_next(&md_.table, from, &r); from = r.main + r.length) {
        all.push_back(plain(r));
    }
    for (u64 from = 0; dm_remap_table_next(&md_.retired, from, &r); from = r.main + r.length) {
        all.push_back({r.kind, 0, r.main, r.length});
    }
    return all;
}

dm_remap_extent Metadata::lookup(std::uint64_t sector, std::uint64_t sectors) {
    dm_remap_extent e{};
    dm_remap_table_lookup(&md_.table, sector, sectors, &e);
    return e;
}

// ---- worlds ----

dm_remap_format_params format_params(const Shape& shape, std::uint8_t uuid) {
    dm_remap_format_params p{};
    p.spare_sectors = shape.spare_sectors;
    p.granularity = shape.granularity;
    p.journal_blocks = shape.journal_blocks;
    p.max_records = shape.max_records;
    std::memset(p.uuid, uuid, sizeof(p.uuid));
    p.main.sectors = shape.main_sectors;
    p.main.id_type = 1;
    std::memset(p.main.id, 0x42, sizeof(p.main.id));
    std::strcpy(p.main.name, "wwn-0x5000c500");
    return p;
}

std::unique_ptr<World> make_world(const Shape& shape) {
    return std::make_unique<World>(shape.main_sectors, shape.spare_sectors);
}

int format(World& world, const Shape& shape, std::uint8_t uuid) {
    dm_remap_report report{};
    dm_remap_format_params p = format_params(shape, uuid);
    return dm_remap_format(&World::kOps, &world, &p, &report);
}

std::unique_ptr<World> formatted(const Shape& shape) {
    auto world = make_world(shape);
    EXPECT_EQ(format(*world, shape), 0);
    return world;
}

std::unique_ptr<Metadata> open(World& world) {
    auto md = std::make_unique<Metadata>(world);
    EXPECT_EQ(md->load(), 0) << (md->report.refusal ? md->report.refusal : "");
    EXPECT_EQ(md->activate(), 0);
    return md;
}

Loaded try_load(World& world) {
    Metadata md(world);
    int error = md.load();
    Loaded loaded{error, md.report.refusal ? md.report.refusal : "", {}, md.report};
    if (error == 0) {
        loaded.records = md.records();
    }
    return loaded;
}

// ---- blocks ----

static dm_remap_super find_super(World& world, int replica) {
    dm_remap_super sb{};
    // Superblock 0 says where superblock 1 is; without it, the end of the device.
    std::uint64_t at = 0;
    if (replica != 0) {
        bool head = dm_remap_super_decode(&sb, world.spare.peek(0, kBlockSectors).data(), 0) ==
                    DM_REMAP_VALID;
        at = head ? sb.layout.device_blocks - 1 : world.spare.sectors() / kBlockSectors - 1;
    }
    const auto* block = world.spare.peek(at * kBlockSectors, kBlockSectors).data();
    EXPECT_EQ(dm_remap_super_decode(&sb, block, at), DM_REMAP_VALID);
    return sb;
}

dm_remap_main main_of(const dm_remap_super& sb) {
    dm_remap_main main{};
    main.id = sb.main;
    main.granularity = sb.layout.granularity;
    main.disk_type = sb.main.id_type;
    std::memcpy(main.disk_id, sb.main.id, sizeof(main.disk_id));
    return main;
}

dm_remap_super super_at(World& world, int replica) {
    return find_super(world, replica);
}

void put_super(World& world, const dm_remap_super& sb, int replica) {
    std::array<std::uint8_t, kBlock> block{};
    dm_remap_super_encode(block.data(), &sb, replica);
    world.spare.poke(dm_remap_superblock_at(&sb.layout, replica) * kBlockSectors, block);
}

dm_remap_disk_block block_at(World& world, std::uint64_t at) {
    dm_remap_disk_block block{};
    std::memcpy(&block, world.spare.peek(at * kBlockSectors, kBlockSectors).data(), kBlock);
    return block;
}

void put_block(World& world, dm_remap_disk_block block, std::uint64_t at) {
    dm_remap_block_seal(&block, at);
    world.spare.poke(at * kBlockSectors, {reinterpret_cast<std::uint8_t*>(&block), kBlock});
}

std::uint64_t journal_at(World& world, int replica, std::uint64_t sequence) {
    dm_remap_super sb = super_at(world, 1);
    return dm_remap_journal_at(&sb.layout, replica, sequence);
}

void zero_block(World& world, std::uint64_t at) {
    world.spare.poke(at * kBlockSectors, Image(kBlock));
}

void unreadable_block(World& world, std::uint64_t at) {
    for (unsigned i = 0; i < kBlockSectors; i++) {
        world.spare.bad_read.insert(at * kBlockSectors + i);
    }
}

std::vector<std::uint8_t> pattern(std::uint64_t seed, std::uint32_t sectors) {
    std::vector<std::uint8_t> data(std::size_t{sectors} * kSector);
    for (std::uint32_t i = 0; i < sectors; i++) {
        std::minstd_rand random(static_cast<unsigned>((seed + i) * 2654435761U + 1));
        for (std::uint32_t k = 0; k < kSector; k++) {
            data[std::size_t{i} * kSector + k] = static_cast<std::uint8_t>(random());
        }
    }
    return data;
}

// ---- allocations ----

static std::uint64_t allocations_left;

FailAllocation::FailAllocation(std::uint64_t n) {
    allocations_left = n + 1;
    dm_remap_zalloc_hook = [](size_t) { return allocations_left == 0 || --allocations_left != 0; };
}

FailAllocation::~FailAllocation() {
    dm_remap_zalloc_hook = nullptr;
}

bool FailAllocation::happened() const {
    return allocations_left == 0;
}

}  // namespace remap

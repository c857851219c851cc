#include "machine.h"

#include <cerrno>
#include <utility>

#include "plan.h"
#include "trace.h"

namespace remap::sim {

Machine::Machine(std::uint64_t main_sectors, std::uint64_t spare_sectors, Random& random,
                 Stats& stats)
    : main_end(main_sectors),
      main(main_sectors),
      spare(spare_sectors),
      main_faults(main, random),
      spare_faults(spare, random),
      memory(random, stats),
      random_(random),
      stats_(stats) {}

void Machine::io_of(bool other) {
    if (interjection_.what && interjection_.of_other == other && interjection_.left-- == 0) {
        std::exchange(interjection_.what, nullptr)();
    }
}

static const char* name_of(dm_remap_dev dev) {
    return dev == DM_REMAP_MAIN ? "main" : "spare";
}

bool Machine::survives() {
    return cut_in_ == 0 || --cut_in_ != 0;
}

// As a device that is asked for sectors behind its end.
bool Machine::reaches(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n) const {
    return dev == DM_REMAP_SPARE || sector + n <= main_end;
}

int Machine::read(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n, void* buf) {
    const int error = on_ && reaches(dev, sector, n) ? disk(dev).read(sector, n, buf) : -EIO;
    time += error != 0 && slow && dev == DM_REMAP_MAIN;
    trace("        read %s %lu+%u: %d", name_of(dev), sector, n, error);
    return error;
}

void Machine::keep_before(std::uint64_t sector, std::uint32_t n) {
    for (std::uint64_t s = sector; s < sector + n; s += kBlockSectors) {
        const auto now = spare.peek(s, kBlockSectors);
        before[s / kBlockSectors].assign(now.begin(), now.end());
    }
}

int Machine::write(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n, const void* buf,
                   unsigned flags) {
    if (!on_ || !reaches(dev, sector, n)) {
        return -EIO;
    }
    // Metadata is written in whole blocks.
    if (dev == DM_REMAP_SPARE && (sector | n) % kBlockSectors == 0) {
        keep_before(sector, n);
    }
    if (!survives()) {
        trace("        write %s %lu+%u flags %u: the power fails", name_of(dev), sector, n, flags);
        disk(dev).power_off_at_write(disk(dev).writes());
        disk(dev).write(sector, n, buf, flags);
        stats_[kTornCuts]++;
        cut_power();
        interrupted = {dev, sector, n};
        if (core_writes_ && dev == DM_REMAP_MAIN && on_its_own(sector, n)) {
            destroyed = interrupted;
        }
        return -EIO;
    }
    const int error = disk(dev).write(sector, n, buf, flags);
    trace("        write %s %lu+%u flags %u: %d", name_of(dev), sector, n, flags, error);
    return error;
}

int Machine::write_fua(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n, const void* buf) {
    if (fua(dev) == DM_REMAP_FUA_OWN) {
        return write(dev, sector, n, buf, DM_REMAP_FUA);
    }
    const int error = write(dev, sector, n, buf, 0);
    return error != 0 || fua(dev) == DM_REMAP_FUA_BY_FLUSH ? error : flush_behind(dev, sector, n);
}

int Machine::flush_behind(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n) {
    return flush_device(
        dev, [&](std::uint64_t s) { return (s >= sector && s < sector + n) || may_lose(dev, s); });
}

int Machine::flush(dm_remap_dev dev) {
    return flush_device(dev, [](std::uint64_t) { return true; });
}

int Machine::flush_device(dm_remap_dev dev, const std::function<bool(std::uint64_t)>& may_lose) {
    if (!on_) {
        return -EIO;
    }
    if (!survives()) {
        trace("        flush %s: the power fails", name_of(dev));
        stats_[kTornCuts]++;
        cut_power();
        return -EIO;
    }
    int error = faults(dev).flush_error(may_lose);
    error = error != 0 ? error : disk(dev).flush();
    if (error != 0) {
        stats_[kFailedFlushes]++;
        flush_failed();
    }
    trace("        flush %s: %d", name_of(dev), error);
    return error;
}

void Machine::cut_power() {
    interrupted = on_ ? Interrupted{} : interrupted;
    main.power_off();
    spare.power_off();
    on_ = false;
}

void Machine::switch_on(SimDisk& disk) {
    // Of 8 sector writes so many survive.
    const std::uint64_t share[] = {0, 0, 1, 4, 4, 7, 8, 8};
    const std::uint64_t drawn = share[random_.below(8)];
    const std::uint64_t survive = (without & kNoLoss) != 0 ? 8 : drawn;
    std::uint64_t last = UINT64_MAX;
    bool keep = false;
    disk.power_on([&](std::uint64_t write, std::uint64_t /*sector*/) {
        const bool kept = random_.below(8) < survive;
        keep = (without & kNoTear) != 0 && write == last ? keep : kept;
        last = write;
        return keep;
    });
}

void Machine::plug_in_spare() {
    spare.power_off();
    switch_on(spare);
    spare_faults.fail_flushes(0);
    spare_faults.set_outage(Outage::none, 0);
}

void Machine::power_on() {
    for (SimDisk* disk : {&main, &spare}) {
        switch_on(*disk);
    }
    if (destroyed.length != 0) {
        stats_[kDestroyed]++;
        main.poke(destroyed.sector, Image(std::size_t{destroyed.length} * kSector, 0xDB));
        destroyed = {};
    }
    main_faults.fail_flushes(0);
    spare_faults.fail_flushes(0);
    for (dm_remap_fua& fua : fua_) {
        fua = static_cast<dm_remap_fua>(random_.below(3));
    }
    cut_in_ = 0;
    on_ = true;
}

// ---- the core's operations ----

static Machine& machine_of(void* ctx) {
    return *static_cast<Machine*>(ctx);
}

static void log_line(void* /*ctx*/, dm_remap_level /*level*/, const char* format, ...) {
    if (trace_to == nullptr) {
        return;
    }
    char line[512];
    va_list args;
    va_start(args, format);
    (void)std::vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    trace("      core: %s", line);
}

const dm_remap_ops Machine::kOps = {
    .read =
        [](void* ctx, dm_remap_dev dev, u64 sector, u32 n, void* buf) {
            machine_of(ctx).meanwhile();
            machine_of(ctx).io_of(false);
            return machine_of(ctx).read(dev, sector, n, buf);
        },
    .write =
        [](void* ctx, dm_remap_dev dev, u64 sector, u32 n, const void* buf, unsigned flags) {
            Machine& m = machine_of(ctx);
            m.meanwhile();
            m.io_of(false);
            m.core_writes_ = true;
            const int error = (flags & DM_REMAP_FUA) != 0 ? m.write_fua(dev, sector, n, buf)
                                                          : m.write(dev, sector, n, buf, flags);
            m.core_writes_ = false;
            return error;
        },
    .now = [](void* ctx) -> u64 { return machine_of(ctx).time; },
    .uptime = [](void* ctx) -> u64 { return machine_of(ctx).time; },
    .random = [](void* ctx) -> u64 { return machine_of(ctx).random_.next(); },
    .log = log_line,
    .flush =
        [](void* ctx, dm_remap_flush* f) {
            machine_of(ctx).meanwhile();
            machine_of(ctx).io_of(false);
            const int error = machine_of(ctx).flush(f->dev);
            dm_remap_own_flush_ended(f, error);
            return error;
        },
    .fua = [](void* ctx, dm_remap_dev dev) { return machine_of(ctx).fua(dev); },
    .drain =
        [](void* ctx, u64 start, u64 length, unsigned ms) {
            return machine_of(ctx).drain(start, length, ms == DM_REMAP_NO_END);
        },
    .kick = nullptr,
    .wait = [](void* ctx,
               const dm_remap_job* claim) { return machine_of(ctx).wait_for_claim(claim); },
    .give_way = [](void* ctx) { machine_of(ctx).give_way(); },
    .stop =
        [](void* ctx) {
            Machine& m = machine_of(ctx);
            return !m.patient && (m.without & kNoStop) == 0 && m.random_.one_in(300)
                       ? (m.random_.coin() ? -EINTR : -EAGAIN)
                       : 0;
        },
    .note = [](void* ctx, dm_remap_note note, u64 sector, u64 sectors,
               s64 value) { machine_of(ctx).note(note, sector, sectors, value); },
    .main_sectors = [](void* ctx) -> u64 { return machine_of(ctx).main_end; },
};

const dm_remap_ops Machine::kOtherOps = {
    .read =
        [](void* ctx, dm_remap_dev dev, u64 sector, u32 n, void* buf) {
            machine_of(ctx).io_of(true);
            return machine_of(ctx).read(dev, sector, n, buf);
        },
    .write =
        [](void* ctx, dm_remap_dev dev, u64 sector, u32 n, const void* buf, unsigned flags) {
            machine_of(ctx).io_of(true);
            return machine_of(ctx).write(dev, sector, n, buf, flags);
        },
    .now = [](void* ctx) -> u64 { return machine_of(ctx).time; },
    .uptime = [](void* ctx) -> u64 { return machine_of(ctx).time; },
    .random = [](void* ctx) -> u64 { return machine_of(ctx).random_.next(); },
    .log = log_line,
    .flush = nullptr,
    .fua = nullptr,
    .drain = nullptr,
    .kick = nullptr,
    .wait = nullptr,
    .give_way = nullptr,
    .stop = nullptr,
    .note = nullptr,
    .main_sectors = nullptr,
};

}  // namespace remap::sim

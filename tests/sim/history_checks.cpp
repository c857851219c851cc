// Were the promises kept?
#include <cerrno>

#include "contents.h"
#include "doubts.h"
#include "history.h"
#include "trace.h"

namespace remap::sim {

void History::note(dm_remap_note what, std::uint64_t sector, std::uint64_t sectors,
                   std::int64_t value) {
    static constexpr const char* kNames[] = {"bad",     "relocated", "rescued",
                                             "pending", "cleared",   "retired",
                                             "mode",    "breaker",   "unreadable"};
    trace("      note %s %lu+%lu %ld", kNames[what], sector, sectors, value);
    if ((what == DM_REMAP_NOTE_BAD || what == DM_REMAP_NOTE_PENDING) &&
        sector + sectors > machine_.main_end) {
        behind_end_ = sector;
    }
    switch (what) {
        case DM_REMAP_NOTE_RELOCATED:
            stats_[kRelocated]++;
            break;
        case DM_REMAP_NOTE_RESCUED:
            stats_[kRescued]++;
            break;
        case DM_REMAP_NOTE_PENDING:
            stats_[kPending]++;
            break;
        case DM_REMAP_NOTE_CLEARED:
            stats_[kHeldByMain] += value == 0 && !forgetting_;
            for (std::uint64_t s = sector; s < sector + sectors && !forgetting_; s++) {
                unreadable_ = machine_.main_faults.readable(s) ? unreadable_ : s;
            }
            break;
        case DM_REMAP_NOTE_RETIRED:
            stats_[kRetired]++;
            std::fill_n(retired_.begin() + static_cast<std::ptrdiff_t>(sector), sectors, true);
            for (std::uint64_t s = sector; s < sector + sectors; s += g_) {
                good_retired_ = failed_on_spare(s) ? good_retired_ : s;
            }
            return;
        case DM_REMAP_NOTE_MODE:
            if (!machine_.on()) {
                return;  // of course
            }
            stats_[kDegraded] += value == DM_REMAP_MODE_DEGRADED;
            stats_[kReadOnly] += value == DM_REMAP_MODE_RO;
            return;
        case DM_REMAP_NOTE_BREAKER:
            stats_[kBreakerOpened] += value != 0;
            stats_[kBreakerClosed] += value == 0;
            return;
        case DM_REMAP_NOTE_UNREADABLE:
            stats_[kUnreadable]++;
            std::fill_n(layer_.known_unreadable.begin() + static_cast<std::ptrdiff_t>(sector),
                        sectors, stats_[kUnreadable]);
            return;
        default:
            return;
    }
    std::fill_n(layer_.known_unreadable.begin() + static_cast<std::ptrdiff_t>(sector), sectors, 0);
    // A durable pending record may have gone, or has become another one.
    for (std::uint64_t s = sector; s < sector + sectors; s += g_) {
        saved_pending_[s / g_] = false;
        pended_[s / g_] = times_pended_ + 1;
    }
    times_pended_++;
}

// Of any sector of the block.
bool History::failed_on_spare(std::uint64_t block) const {
    bool any = false;
    for (std::uint64_t s = block; s < block + g_; s++) {
        any = any || machine_.spare_faults.failed(s);
    }
    return any;
}

// ---- what was published stays ----

std::vector<History::Known> History::published() {
    std::vector<Known> all(blocks_);
    for (std::uint64_t b = 0; b < blocks_; b++) {
        const dm_remap_extent e = layer_.lookup(b * g_, g_);
        all[b] = {e.kind, e.flags, e.spare};
    }
    return all;
}

std::vector<bool> History::retired_sectors() {
    std::vector<bool> all(machine_.spare.sectors());
    dm_remap_record r{};
    for (std::uint64_t from = 0; dm_remap_table_next(&layer_.md()->retired, from, &r);
         from = r.main + r.length) {
        std::fill_n(all.begin() + static_cast<std::ptrdiff_t>(r.main), r.length, true);
    }
    return all;
}

void History::check_published() {
    for (std::uint64_t b = 0; b < blocks_; b++) {
        const dm_remap_extent e = layer_.lookup(b * g_, g_);
        if ((published_[b].flags & DM_REMAP_F_DOUBT) != 0) {
            continue;
        }
        const bool was_mapped = published_[b].kind == DM_REMAP_MAPPED;
        const bool is_mapped = e.kind == DM_REMAP_MAPPED;
        if (was_mapped != is_mapped || (was_mapped && published_[b].spare != e.spare)) {
            violated(
                kTableWhole,
                "sector %lu was %s at %lu (flags %u), and is %s at %lu when it is loaded again",
                b * g_, dm_remap_kind_name(published_[b].kind), published_[b].spare,
                published_[b].flags, dm_remap_kind_name(e.kind), e.spare);
        }
        if (saved_pending_[b] && published_[b].kind == DM_REMAP_PENDING &&
            e.kind != DM_REMAP_PENDING) {
            violated(kTableWhole,
                     "sector %lu was pending, which had been saved, and is not any more", b * g_);
        }
    }
    check_marks();
    // What was loaded is on the spare; on both its ends, if they could be written.
    const bool safe = layer_.activated() && layer_.md()->mode < DM_REMAP_MODE_RO;
    for (std::uint64_t b = 0; b < blocks_; b++) {
        const dm_remap_extent e = layer_.lookup(b * g_, g_);
        saved_pending_[b] =
            e.kind == DM_REMAP_PENDING && e.flags == 0 && (safe || saved_pending_[b]);
    }
    const std::vector<bool> now = retired_sectors();
    for (std::uint64_t s = 0; s < now.size(); s++) {
        if (retired_[s] && !now[s]) {
            violated(kTableWhole, "sector %lu of the spare was retired, and is not any more", s);
        }
    }
    if (safe) {
        retired_ = now;
    }
}

// A write over it may have ended the mark, and the power went before it was acknowledged.
void History::forget_written_over() {
    for (std::uint64_t s = 0; s < geometry_.main_sectors; s++) {
        if ((layer_.lookup(s, 1).flags & DM_REMAP_F_UNREADABLE) == 0) {
            layer_.known_unreadable[s] = 0;
        }
    }
}

// A mark that was saved is there. Others may have been forgotten.
void History::check_marks() {
    for (std::uint64_t s = 0; s < geometry_.main_sectors; s++) {
        const Known& before = published_[s / g_];
        const std::uint64_t number = layer_.known_unreadable[s];
        const bool known = number != 0 && saved_unreadable_[s] == number &&
                           before.kind == DM_REMAP_MAPPED && (before.flags & DM_REMAP_F_DOUBT) == 0;
        const bool marked = (layer_.lookup(s, 1).flags & DM_REMAP_F_UNREADABLE) != 0;
        if (known && !marked) {
            violated(kTableWhole,
                     "sector %lu was known to be unreadable, which had been saved, and is not any "
                     "more",
                     s);
        }
        layer_.known_unreadable[s] = saved_unreadable_[s] = known ? number : 0;
        stats_[kStillMarked] += known;
    }
}

// ---- power ----

void History::power_cut() {
    trace("  power cut");
    machine_.cut_power();
    // What was loaded and not activated was served to nobody.
    if (layer_.activated()) {
        published_ = published();
        forget_written_over();
    }
    layer_.drop();
    model_.power_cut();
    machine_.power_on();
    machine_.main_end = geometry_.main_sectors;
    stats_[kCuts]++;
    // Cables are seen to before the machine is switched on again. That writes fail is no reason not
    // to load.
    for (const dm_remap_dev dev : {DM_REMAP_MAIN, DM_REMAP_SPARE}) {
        Faults& faults = machine_.faults(dev);
        if (faults.outage() == Outage::gone || !faults.steady()) {
            faults.set_outage(Outage::none, 0);
        }
    }
    if (random_.one_in(6)) {
        machine_.cut_power_in(1 + static_cast<unsigned>(random_.below(12)));
    }
    if (random_.one_in(40)) {
        machine_.spare_faults.set_outage(Outage::write_protected, -EIO);
    } else if (random_.coin()) {
        machine_.spare_faults.set_outage(Outage::none, 0);
    }
    damage();
    memory_may_run_short();
    open();
    machine_.memory.plenty();
    check_published();
    if (!machine_.on()) {
        return;
    }
    note_mended();
    check_records();
    check_data(true);
}

void History::open() {
    layer_.hopeless = 0;
    was_in_doubt_ = false;
    layer_.open();
}

// ---- data ----

// What a reader would get from each sector, were all I/O to succeed.
void History::check_data(bool after_cut) {
    const std::uint64_t now = model_.now();
    for (std::uint32_t s = 0; s < geometry_.main_sectors;) {
        const dm_remap_extent e = layer_.lookup(s, geometry_.main_sectors - s);
        if ((e.flags & DM_REMAP_F_HELD) != 0) {
            violated(kService, "sector %u is still held", s);
        }
        const bool doubt = (e.flags & DM_REMAP_F_DOUBT) != 0;
        const auto data = e.kind == DM_REMAP_MAPPED ? machine_.spare.peek(e.spare, e.length)
                                                    : machine_.main.peek(s, e.length);
        for (std::uint64_t i = 0; i < e.length && !doubt; i++, s++) {
            const WriteId id = identify(&data[i * kSector], s);
            if (id == 0 || !(after_cut ? model_.seen_durable(s, id) : model_.seen(s, id, now))) {
                violated(id == 0 ? kNothingInvented : kNothingLost,
                         "sector %u (%s) holds write %u (0: none); it may be%s", s,
                         dm_remap_kind_name(e.kind), id, model_.candidates(s).c_str());
            }
        }
        s += doubt ? static_cast<std::uint32_t>(e.length) : 0;
        stats_[kSectorsChecked] += e.length;
    }
}

// ---- records ----

// Each can be explained; no sector of the spare belongs to two, and none is lost.
void History::check_records() {
    if (unreadable_ != kNone) {
        violated(kNothingLost, "the record of sector %lu was cleared, and main cannot read it",
                 unreadable_);
    }
    if (good_retired_ != kNone) {
        violated(kMediaOnly, "sector %lu of the spare was retired, and its media has not failed",
                 good_retired_);
    }
    if (behind_end_ != kNone) {
        violated(kMediaOnly, "sector %lu counts as bad, and main ends before it", behind_end_);
    }
    dm_remap_metadata* md = layer_.md();
    std::vector<bool> taken(machine_.spare.sectors());
    std::uint64_t used = 0;
    const auto take = [&](std::uint64_t start, std::uint64_t length) {
        for (std::uint64_t s = start; s < start + length; s++) {
            if (taken[s]) {
                violated(kTableWhole, "sector %lu of the spare is in two records", s);
            }
            taken[s] = true;
        }
        used += length;
    };
    const auto explained = [&](const dm_remap_record& r) {
        if (r.reason < 1 || r.reason > DM_REMAP_REASON_MAX || r.first_time < 1'700'000'000 ||
            r.last_time < r.first_time || r.last_time > machine_.time) {
            violated(kExplained, "record at %lu: reason %u, times %u and %u", r.main, r.reason,
                     r.first_time, r.last_time);
        }
    };
    dm_remap_record r{};
    for (std::uint64_t from = 0; dm_remap_table_next(&md->table, from, &r);
         from = r.main + r.length) {
        explained(r);
        if (r.kind == DM_REMAP_MAPPED) {
            take(r.spare, r.length);
        }
    }
    for (std::uint64_t from = 0; dm_remap_table_next(&md->retired, from, &r);
         from = r.main + r.length) {
        explained(r);
        take(r.main, r.length);
    }
    // What a commit that failed may have given to its records stays theirs while it is in doubt.
    for (const dm_remap_record& place : doubted_places(*md)) {
        for (std::uint64_t s = place.spare; s < place.spare + place.length; s++) {
            used += !taken[s];
            taken[s] = true;
        }
    }
    const std::uint64_t allocated =
        dm_remap_alloc_total_sectors(&md->alloc) - dm_remap_alloc_free_sectors(&md->alloc);
    if (allocated != used) {
        violated(kTableWhole, "records and doubts hold %lu sectors of the spare, %lu are taken",
                 used, allocated);
    }
    stats_[kDoubts] += md->doubt != nullptr && !was_in_doubt_;
    was_in_doubt_ = md->doubt != nullptr;
}

}  // namespace remap::sim

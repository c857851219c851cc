// What may happen, one thing at a time.
#include <algorithm>
#include <cerrno>

#include "history.h"
#include "trace.h"

namespace remap::sim {

// ---- ranges ----

// Whole blocks; mostly few.
Range History::any_range() {
    const std::uint64_t start = random_.below(blocks_);
    const std::uint64_t most =
        std::min<std::uint64_t>(blocks_ - start, random_.one_in(16) ? 64 : 6);
    return {static_cast<std::uint32_t>(start * g_),
            static_cast<std::uint32_t>((1 + random_.below(most)) * g_)};
}

// A range at one of the latest faults.
Range History::near_fault() {
    const std::vector<std::uint64_t>& faulty = machine_.main_faults.faulty();
    if (faulty.empty()) {
        return any_range();
    }
    const std::uint64_t last = std::min<std::uint64_t>(faulty.size(), 12);
    const std::uint64_t block = faulty[faulty.size() - 1 - random_.below(last)] / g_;
    const std::uint64_t before = std::min<std::uint64_t>(block, random_.below(3));
    const std::uint64_t start = block - before;
    const std::uint64_t most = std::min<std::uint64_t>(blocks_ - start, before + 3);
    return {static_cast<std::uint32_t>(start * g_),
            static_cast<std::uint32_t>((before + 1 + random_.below(most - before)) * g_)};
}

// Where something was going on lately.
Range History::recent_range() {
    return recent_.empty() ? any_range() : recent_[random_.below(recent_.size())];
}

Range History::interesting_range() {
    Range range{};
    switch (random_.below(6)) {
        case 0:
            range = any_range();
            break;
        case 1:
        case 2:
            range = recent_range();
            break;
        default:
            range = near_fault();
    }
    if (recent_.size() < 6) {
        recent_.push_back(range);
    } else {
        recent_[random_.below(recent_.size())] = range;
    }
    return range;
}

// ---- I/O ----

void History::step_requests() {
    const std::uint64_t n = random_.one_in(3) ? random_.between(2, 5) : 1;
    trace("  step requests");
    for (std::uint64_t i = 0; i < n; i++) {
        layer_.submit(!random_.one_in(3), interesting_range(), random_.one_in(6));
    }
    if (!random_.one_in(4)) {
        layer_.run();
    }
    while (layer_.io_waits() && machine_.on() && !random_.one_in(3)) {
        layer_.redo();
    }
}

void History::step_flush() {
    trace("  step flush");
    layer_.run(random_.below(4));
    layer_.flush();
}

void History::step_run() {
    trace("  step run");
    layer_.run();
    layer_.redo();
}

// ---- faults ----

void History::step_main_fault() {
    Faults& faults = machine_.main_faults;
    // Of a disk that is all bad there is not much to learn.
    if (faults.faulty().size() > blocks_ / 6) {
        step_heal();
        return;
    }
    if (geometry_.many_records && random_.one_in(4)) {
        scatter_faults();
        return;
    }
    const std::uint64_t n = random_.one_in(4) ? random_.between(2, 6UL * g_) : 1;
    const std::uint64_t start = random_.below(geometry_.main_sectors);
    const std::uint64_t end = std::min<std::uint64_t>(start + n, geometry_.main_sectors);
    const std::uint64_t kind = random_.below(7);
    const auto times = static_cast<Times>(1 + random_.below(6));
    const int error = random_.one_in(3) ? faults.media_error() : -EIO;
    trace("  step main fault: kind %lu times %u at %lu+%lu (%d)", kind, times, start, end - start,
          error);
    for (std::uint64_t s = start; s < end; s++) {
        switch (kind) {
            case 0:
                faults.fail_writes(s, kForGood, 0, error);
                break;
            case 1:
                faults.fail_reads(s, kForGood);
                break;
            case 2:
                faults.fail_reads(s, kForGood);
                faults.fail_writes(s, kForGood, 0, error);
                break;
            case 3:
                faults.fail_reads(s, times);
                break;
            case 4:
                faults.fail_writes(s, times, 0, error);
                break;
            case 5:
                faults.fail_reads(s, kForGood);
                faults.fail_writes(s, times, 0, error);
                break;
            default:
                faults.spoil(s);
        }
    }
}

// No room for a record more, but for what clearing needs.
bool History::table_is_full() {
    dm_remap_totals records{};
    dm_remap_totals retired{};
    dm_remap_table_totals(&layer_.md()->table, &records);
    dm_remap_table_totals(&layer_.md()->retired, &retired);
    return records.records + retired.records + 2 + 2UL * DM_REMAP_ENTRIES_PER_BLOCK >
           dm_remap_table_capacity(&layer_.md()->sb.layout);
}

// So many records that the table is full.
void History::scatter_faults() {
    trace("  step scattered faults");
    machine_.cut_power_in(0);
    for (std::uint32_t s = 0; s < geometry_.main_sectors; s += 2) {
        machine_.main_faults.fail_reads(s, kForGood);
        layer_.submit(false, {s, 1}, false);
        layer_.run();
        layer_.redo();
    }
    stats_[kFullTable] += table_is_full();
    for (std::uint32_t s = 0; s < geometry_.main_sectors; s += 2) {
        machine_.main_faults.heal(s, random_.one_in(8) ? 0 : 1);
    }
}

// It cannot be read any more, whatever is written there; or only until then. Somebody reads it, and
// somebody writes over it, now or later.
void History::spoil_place(std::uint64_t place, std::uint32_t block) {
    Faults& faults = machine_.spare_faults;
    const bool for_good = !random_.one_in(3);
    trace("  it cannot be read%s", for_good ? ", whatever is written there" : "");
    faults.fail_reads(place, kForGood);
    if (for_good) {
        faults.spoil(place);
    }
    layer_.submit(false, {block, g_}, false);
    layer_.finish();
    if (!machine_.on()) {
        return;
    }
    if (random_.coin()) {
        step_autosave();
    } else if (random_.one_in(3)) {
        step_save();
    }
    if (machine_.on() && random_.coin()) {
        layer_.submit(true, {block, g_}, random_.one_in(6));
        layer_.run();
        layer_.redo();
    }
    // Another one: the superblocks know of marks by now.
    dm_remap_record r{};
    if (machine_.on() && random_.coin() &&
        dm_remap_table_next(&layer_.md()->table, any_block(), &r) && r.kind == DM_REMAP_MAPPED) {
        spoil_place(r.spare, static_cast<std::uint32_t>(r.main));
    }
}

void History::step_spare_fault() {
    Faults& faults = machine_.spare_faults;
    const dm_remap_layout& layout = layer_.md()->sb.layout;
    const std::uint64_t start = dm_remap_data_start(&layout);
    const std::uint64_t end = dm_remap_data_end(&layout);
    dm_remap_totals retired{};
    dm_remap_table_totals(&layer_.md()->retired, &retired);
    if (retired.retired * 2 > end - start) {
        return;
    }
    std::uint64_t s = random_.between(start, end - 1);
    // Where a record lives; its next write is near, and may be the spare's last for some time.
    dm_remap_record r{};
    if (random_.coin() && dm_remap_table_next(&layer_.md()->table, any_block(), &r) &&
        r.kind == DM_REMAP_MAPPED) {
        s = r.spare + random_.below(r.length);
        const auto block = static_cast<std::uint32_t>((r.main + s - r.spare) / g_ * g_);
        trace("  step spare fault where sector %u lives", block);
        if (random_.one_in(3)) {
            spoil_place(s, block);
            return;
        }
        layer_.submit(true, {block, g_}, random_.one_in(6));
        if (random_.one_in(3)) {
            faults.set_outage(Outage::write_protected, -EIO,
                              3 + static_cast<unsigned>(random_.below(12)));
            stats_[kSpareOutages]++;
        }
    }
    const bool writes = !random_.one_in(4);
    const Times times = random_.coin() ? kForGood : static_cast<Times>(1 + random_.below(3));
    const int error = random_.one_in(4) ? faults.other_error() : -EIO;
    trace("  step spare fault: %s of %lu, times %u (%d)", writes ? "writes" : "reads", s, times,
          error);
    if (writes) {
        stats_[kOtherErrors] += error != -EIO;
        faults.fail_writes(s, times, 0, error);
    } else {
        faults.fail_reads(s, times);
    }
}

// The next commit does not get to the one end, or is said not to; perhaps it cannot be withdrawn
// on the other; nor does one of the superblocks hear of the checkpoint that is to pass it.
void History::spoil_next_commit() {
    Faults& faults = machine_.spare_faults;
    const auto side = static_cast<int>(random_.below(2));
    const auto slot = [&](int replica) {
        return dm_remap_journal_at(&layout_, replica, layer_.md()->next_sequence) * kBlockSectors;
    };
    const int super = random_.one_in(4) ? 1 : 0;
    trace("  step metadata fault: journal slot on end %d and superblock %d cannot be written", side,
          super);
    faults.fail_writes(slot(side), random_.coin() ? 1 : kForGood);
    if (random_.coin()) {
        trace("  nor the slot on the other end, after the next time");
        faults.fail_writes(slot(!side), random_.coin() ? 1 : kForGood, 1);
    }
    faults.fail_writes(dm_remap_superblock_at(&layout_, super) * kBlockSectors,
                       random_.one_in(4) ? 2 : kForGood);
}

// Of both replicas never more than one cannot be read: what is lost in both is lost.
void History::step_metadata_fault() {
    Faults& faults = machine_.spare_faults;
    if (random_.one_in(8)) {
        spoil_next_commit();
        return;
    }
    const std::uint64_t kind = random_.below(3);
    const auto side = static_cast<int>(kind == 1 ? random_.below(2) : metadata_side_);
    std::uint64_t block = 0;
    switch (random_.below(4)) {
        case 0:
            block = dm_remap_superblock_at(&layout_, side);
            break;
        case 1:
            block =
                dm_remap_journal_at(&layout_, side, layer_.md()->next_sequence + random_.below(3));
            break;
        case 2:
            block = any_metadata_block(side);
            break;
        default:
            block = dm_remap_table_at(&layout_, side, static_cast<int>(random_.below(2)));
    }
    const std::uint64_t s = block * kBlockSectors + random_.below(kBlockSectors);
    const Times times = random_.one_in(3) ? kForGood : static_cast<Times>(1 + random_.below(3));
    if (kind != 1 && !may_lose(side)) {
        return;
    }
    const int error = random_.one_in(4) ? faults.other_error() : -EIO;
    trace("  step metadata fault: block %lu kind %lu times %u (%d)", block, kind, times, error);
    if (kind != 0) {
        faults.fail_writes(s, times, 0, error);
    }
    if (kind != 1) {
        faults.fail_reads(s, times);
    }
}

void History::step_flush_fault() {
    Faults& faults = random_.coin() ? machine_.main_faults : machine_.spare_faults;
    const auto times = static_cast<unsigned>(random_.between(1, 3));
    trace("  step flush fault: %u of %s", times,
          &faults == &machine_.main_faults ? "main" : "the spare");
    faults.fail_flushes(times);
}

void History::step_heal() {
    Faults& faults = machine_.main_faults;
    trace("  step heal");
    for (std::uint64_t n = random_.between(1, 8); n != 0 && !faults.faulty().empty(); n--) {
        faults.heal(faults.faulty()[random_.below(faults.faulty().size())], 1);
    }
    if (random_.coin() && !machine_.spare_faults.faulty().empty()) {
        Faults& spare = machine_.spare_faults;
        spare.heal(spare.faulty()[random_.below(spare.faulty().size())], 1);
    }
}

void History::step_main_outage() {
    Faults& faults = machine_.main_faults;
    layer_.hopeless = 0;
    if (random_.one_in(4)) {
        const bool refuses = faults.refused_from() == UINT64_MAX;
        faults.refuse_from(refuses ? any_block() : UINT64_MAX);
        trace("  step main refuses all from sector %lu on", faults.refused_from());
        stats_[kMainRefuses] += refuses;
        return;
    }
    const unsigned in = random_.one_in(3) ? 1 + static_cast<unsigned>(random_.below(12)) : 0;
    if (faults.outage() != Outage::none) {
        trace("  step main is back, in %u", in);
        faults.set_outage(Outage::none, 0, in);
        return;
    }
    if (random_.coin()) {
        return;
    }
    static constexpr int kErrors[] = {-EIO, -EIO, -ENODEV, -ETIMEDOUT};
    const bool gone = random_.coin();
    const int error = gone ? kErrors[random_.below(4)] : -EIO;
    trace("  step main is %s (%d), in %u", gone ? "gone" : "write-protected", error, in);
    faults.set_outage(gone ? Outage::gone : Outage::write_protected, error, in);
    stats_[kMainOutages]++;
}

// Somebody makes it shorter, or as long as it was.
void History::step_main_size() {
    const bool shorter = machine_.main_end == geometry_.main_sectors;
    machine_.main_end = shorter ? any_block() : geometry_.main_sectors;
    trace("  step main has %lu sectors", machine_.main_end);
    layer_.hopeless = 0;
    stats_[kMainShorter] += shorter;
}

void History::step_spare_outage() {
    Faults& faults = machine_.spare_faults;
    const unsigned in = random_.coin() ? 1 + static_cast<unsigned>(random_.below(12)) : 0;
    if (faults.outage() != Outage::none) {
        trace("  step spare is back, in %u", in);
        faults.set_outage(Outage::none, 0, in);
        return;
    }
    if (random_.coin()) {
        return;
    }
    const bool gone = random_.coin();
    const int error = random_.coin() ? -EIO : faults.other_error();
    trace("  step spare is %s (%d), in %u", gone ? "gone" : "write-protected", error, in);
    faults.set_outage(gone ? Outage::gone : Outage::write_protected, error, in);
    stats_[kSpareOutages]++;
}

// ---- messages ----

void History::step_remap() {
    const Range range = random_.coin() ? any_range() : near_fault();
    dm_remap_moved moved{};
    trace("  step remap %u+%u", range.start, range.length);
    // What main answers here counts.
    layer_.hopeless = 0;
    const int error =
        layer_.core([&] { return dm_remap_remap(layer_.md(), range.start, range.length, &moved); });
    trace("  remap: %d, %lu moved, %lu pending", error, moved.moved, moved.pending);
    stats_[kRemapped] += moved.moved != 0;
}

void History::step_unremap() {
    // Where something is.
    Range range = any_range();
    dm_remap_record r{};
    if (dm_remap_table_next(&layer_.md()->table, range.start, &r) && random_.coin()) {
        range = {static_cast<std::uint32_t>(r.main), r.length};
    }
    dm_remap_moved moved{};
    trace("  step unremap %u+%u", range.start, range.length);
    const int error = layer_.core(
        [&] { return dm_remap_unremap(layer_.md(), range.start, range.length, &moved); });
    trace("  unremap: %d, %lu moved, %lu refused", error, moved.moved, moved.refused);
    stats_[kBroughtHome] += moved.moved != 0;
}

void History::step_forget() {
    const Range range = near_fault();
    dm_remap_moved moved{};
    trace("  step forget %u+%u", range.start, range.length);
    forgetting_ = true;
    const int error = layer_.core(
        [&] { return dm_remap_forget(layer_.md(), range.start, range.length, &moved); });
    forgetting_ = false;
    trace("  forget: %d, %lu dropped", error, moved.dropped);
    stats_[kForgotten] += moved.dropped != 0;
}

// All that was pending before, so many times ago, and is now, is durable.
void History::saved(std::uint64_t pended) {
    if (!machine_.on()) {
        return;
    }
    stats_[kSaves]++;
    for (std::uint64_t b = 0; b < blocks_; b++) {
        const bool is = layer_.lookup(b * g_, g_).kind == DM_REMAP_PENDING;
        saved_pending_[b] = is && (saved_pending_[b] || pended_[b] <= pended);
    }
    // As far as one block had room for.
    if (!dm_remap_dirty(layer_.md())) {
        saved_unreadable_ = layer_.known_unreadable;
    }
}

void History::step_save() {
    trace("  step save");
    int error = -EINTR;
    std::uint64_t before = 0;
    while ((error == -EINTR || error == -EAGAIN) && machine_.on()) {
        before = times_pended_;
        error = layer_.core([&] { return dm_remap_save(layer_.md()); });
    }
    trace("  save: %d", error);
    if (error == 0) {
        saved(before);
    }
}

void History::step_autosave() {
    trace("  step autosave");
    const std::uint64_t before = times_pended_;
    const int error = layer_.core([&] { return dm_remap_autosave(layer_.md()); });
    trace("  autosave: %d", error);
    if (error == 0) {
        saved(before);
    }
}

void History::step_restore() {
    bool healed = false;
    trace("  step restore");
    const int error = layer_.core(
        [&] { return dm_remap_restore(layer_.md(), geometry_.params.spare_sectors, &healed); });
    trace("  restore: %d", error);
    stats_[kHealedMetadata] += healed;
}

// ---- life cycle ----

void History::spare_comes_back() {
    machine_.plug_in_spare();
    model_.cache_lost();
    stats_[kSparesReturned]++;
    stats_[kReturnedUnflushed] += !dm_remap_spare_is_flushed(layer_.md());
    dm_remap_report report{};
    if (layer_.take_back(report) == 0) {
        layer_.activate(nullptr);
        return;
    }
    // It may be that a copy cannot be read, and the other was not written.
    trace("  refused: %s", report.refusal);
    machine_.spare_faults.heal(0, machine_.spare.sectors());
    if (layer_.take_back(report) == 0) {
        layer_.activate(nullptr);
        return;
    }
    // Rightly, if one end was out of reach when memory was loaded, and no write has come there
    // since: it may know more. The device is created anew.
    if (layer_.md()->owned) {
        violated(kTableWhole, "the spare comes back, and is refused: %s", report.refusal);
    }
    stats_[kReturnedRefused]++;
    power_cut();
}

// Out, perhaps in the midst of something, and in again under another name.
void History::pull_spare() {
    trace("  step suspend: the spare is pulled before");
    machine_.spare_faults.unplug(static_cast<unsigned>(random_.below(12)));
    for (std::uint64_t n = random_.below(4); n != 0 && machine_.on(); n--) {
        step_requests();
    }
    layer_.finish();
    if (!machine_.on() || layer_.md()->taken) {
        return;
    }
    if (machine_.spare_faults.outage() != Outage::gone) {
        machine_.spare_faults.unplug(0);
    }
    layer_.core_alone([&] { return dm_remap_deactivate(layer_.md()); });
    if (!machine_.on()) {
        return;
    }
    spare_comes_back();
}

void History::step_suspend() {
    layer_.hopeless = 0;
    if (random_.coin()) {
        pull_spare();
        return;
    }
    trace("  step suspend and resume");
    layer_.finish();
    const int error = layer_.core_alone([&] { return dm_remap_deactivate(layer_.md()); });
    trace("  deactivate: %d", error);
    if (machine_.on() && error == 0) {
        saved(times_pended_);
    }
    layer_.activate(nullptr);
}

void History::step_reload() {
    trace("  step stop and load again");
    layer_.finish();
    const int error = layer_.core_alone([&] { return dm_remap_deactivate(layer_.md()); });
    trace("  deactivate: %d", error);
    if (!machine_.on()) {
        return;
    }
    // Who pulls the spare out has it back when it is loaded.
    if (machine_.spare_faults.outage() == Outage::gone || !machine_.spare_faults.steady()) {
        machine_.spare_faults.set_outage(Outage::none, 0);
    }
    published_ = published();
    stats_[kCleanStops] += error == 0;
    if (error == 0) {
        saved(times_pended_);
    }
    layer_.drop();
    damage();
    open();
    if (machine_.on()) {
        check_published();
        note_mended();
    }
}

void History::step_policy() {
    dm_remap_policy& policy = layer_.md()->policy;
    policy.read_retries = static_cast<unsigned>(random_.below(4));
    policy.no_auto_remap = random_.one_in(6);
    trace("  step policy: read_retries %u no_auto_remap %d", policy.read_retries,
          policy.no_auto_remap);
}

void History::step_breaker() {
    trace("  step breaker reset");
    layer_.hopeless = 0;
    dm_remap_breaker_reset(layer_.md());
}

// So many that the ring is full, and nobody saves.
void History::step_many_commits() {
    const auto block = static_cast<std::uint32_t>(any_block());
    trace("  step many commits");
    dm_remap_moved moved{};
    layer_.hopeless = 0;
    layer_.core_alone([&] {
        int error = 0;
        for (std::uint64_t n = random_.between(8, 12); n != 0 && machine_.on(); n--) {
            error = dm_remap_remap(layer_.md(), block, g_, &moved);
            stats_[kRemapped] += moved.moved != 0;
            error = dm_remap_unremap(layer_.md(), block, g_, &moved);
            stats_[kBroughtHome] += moved.moved != 0;
        }
        return error;
    });
}

void History::step_time() {
    const std::uint64_t seconds = random_.below(12);
    trace("  step %lu seconds later", seconds);
    machine_.time += seconds;
    machine_.slow = random_.one_in(3);
    layer_.read_by_time();
}

// ---- all is well ----

void History::all_faults_off() {
    machine_.memory.plenty();
    layer_.hopeless = 0;
    machine_.main_end = geometry_.main_sectors;
    machine_.main_faults.set_outage(Outage::none, 0);
    machine_.spare_faults.set_outage(Outage::none, 0);
    machine_.main_faults.heal(0, machine_.main.sectors());
    machine_.spare_faults.heal(0, machine_.spare.sectors());
}

// With both disks in order again nothing may stay broken: the breaker closes, a bad sector is
// relocated, saving works, and all data can be brought home.
void History::step_all_well() {
    trace("  step all is well");
    all_faults_off();
    layer_.finish();
    step_save();
    if (!machine_.on()) {
        return;
    }
    if (layer_.md()->mode != DM_REMAP_MODE_RW || layer_.md()->doubt != nullptr) {
        violated(kService, "saved on a good spare, and the mode is %s%s",
                 dm_remap_mode_name(layer_.md()->mode),
                 layer_.md()->doubt != nullptr ? ", in doubt" : "");
    }
    // Both replicas are whole again: the other one may fail from now on.
    metadata_side_ = static_cast<unsigned>(random_.below(2));
    bring_all_home();
    if (machine_.on()) {
        must_relocate();
    }
}

void History::bring_all_home() {
    dm_remap_moved moved{};
    int error = -EINTR;
    while ((error == -EINTR || error == -EAGAIN) && machine_.on()) {
        error = layer_.core(
            [&] { return dm_remap_unremap(layer_.md(), 0, geometry_.main_sectors, &moved); });
    }
    if (!machine_.on()) {
        return;
    }
    stats_[kBroughtHome] += moved.moved != 0;
    dm_remap_totals totals{};
    dm_remap_table_totals(&layer_.md()->table, &totals);
    if ((error != 0 && error != -ENOENT) || totals.mapped != 0) {
        violated(kExplained, "main is good again, and %lu sectors cannot be brought home: %d (%s)",
                 totals.mapped, error, moved.why != nullptr ? moved.why : "");
    }
    check_data(false);
}

void History::must_relocate() {
    // Of a disk this small with larger ones there may be no whole good one to ask.
    if (geometry_.media_block > g_) {
        return;
    }
    layer_.finish();
    // One for the sector, one for the copy of a block that main is asked to write.
    if (dm_remap_alloc_free_sectors(&layer_.md()->alloc) < std::uint64_t{g_} * 8 ||
        dm_remap_room(layer_.md()) < 2) {
        return;
    }
    layer_.md()->policy.no_auto_remap = false;
    machine_.time += DM_REMAP_BREAKER_PAUSE;
    const std::uint64_t block = any_block();
    // A place beside it may be asked, where all others have records.
    const std::uint64_t other = block == 0 ? g_ : block - g_;
    if (!machine_.on() || layer_.lookup(block, g_).kind != DM_REMAP_NONE ||
        layer_.lookup(other, g_).kind != DM_REMAP_NONE) {
        return;
    }
    machine_.main_faults.fail_writes(block, kForGood);
    layer_.submit(true, {static_cast<std::uint32_t>(block), g_}, false);
    layer_.finish();
    if (!machine_.on()) {
        return;
    }
    if (layer_.md()->breaker[DM_REMAP_WRITE].open) {
        violated(kMediaOnly, "main works again, and the breaker is open");
    }
    if (layer_.lookup(block, g_).kind != DM_REMAP_MAPPED) {
        violated(kService, "a bad sector of a good disk was not relocated");
    }
}

}  // namespace remap::sim

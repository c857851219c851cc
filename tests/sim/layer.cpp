#include "layer.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "batch.h"
#include "contents.h"
#include "plan.h"
#include "trace.h"

namespace remap::sim {

Layer::Layer(Machine& machine, Model& model, Random& random, Stats& stats)
    : machine_(machine), model_(model), random_(random), stats_(stats), turns_(random) {
    machine.drain = [this] {
        stats_[kDrainedIo] += on_the_way_.size();
        guarded([this] { run(); });
    };
    machine.meanwhile = [this] {
        if (in_core_ && !alone_) {
            guarded([this] { meanwhile(); });
            turns_.offer();
        }
    };
    machine.note = [this](auto note, auto sector, auto sectors, auto value) {
        hopeless = note == DM_REMAP_NOTE_BREAKER ? 0 : hopeless;
        mode_changed = mode_changed || note == DM_REMAP_NOTE_MODE;
        on_note(note, sector, sectors, value);
    };
}

Layer::~Layer() {
    drop();
}

// ---- life ----

// Where memory is short, once more: nothing of the first try may be left.
int Layer::load(dm_remap_report& report) {
    const std::uint64_t failures = machine_.memory.failures();
    const auto was_short = [&] { return machine_.memory.failures() != failures; };
    md_.emplace();
    if (dm_remap_metadata_init(&*md_, &Machine::kOps, &machine_) != 0) {
        machine_.memory.plenty();
        if (!was_short() || dm_remap_metadata_init(&*md_, &Machine::kOps, &machine_) != 0) {
            md_.reset();
            violated(kService, "no memory");
        }
    }
    machine_.patient = true;
    const auto once = [&] {
        return dm_remap_load(&*md_, machine_.spare.sectors(), machine_.main.sectors(), &report);
    };
    int error = once();
    if (error == -ENOMEM && was_short()) {
        machine_.memory.plenty();
        error = once();
    }
    machine_.patient = false;
    md_->main_block = media_block;
    return error;
}

int Layer::activate(const dm_remap_report* report) {
    const std::uint64_t failures = machine_.memory.failures();
    int error = -EINTR;
    while (error == -EINTR || error == -EAGAIN ||
           (error == -ENOMEM && machine_.memory.failures() != failures)) {
        if (error == -ENOMEM) {
            machine_.memory.plenty();
        }
        error = core_alone([&] { return dm_remap_activate(&*md_, nullptr, report); });
    }
    return error;
}

void Layer::open() {
    dm_remap_report report{};
    const int error = load(report);
    if (error != 0) {
        reopen_after(report, error);
        return;
    }
    for (const dm_remap_replica_report& r : report.replica) {
        stats_[kHealedMetadata] += r.bad_table_blocks != 0 || r.bad_journal_blocks != 0;
    }
    md_->policy.read_retries = static_cast<unsigned>(random_.below(4));
    activated_ = activate(&report) == 0;
    if (!activated_ && machine_.on()) {
        if (!report.end_unread) {
            violated(kService, "activate fails");
        }
        // Rightly: somebody sees to the spare.
        stats_[kRefusedActivations]++;
        drop();
        machine_.spare_faults.set_outage(Outage::none, 0);
        machine_.spare_faults.heal(0, machine_.spare.sectors());
        open();
        return;
    }
    while ((mover_ = dm_remap_mover_alloc(&*md_, DM_REMAP_REDO_SECTORS)) == nullptr) {
        machine_.memory.plenty();
    }
    trace("  open: mode %s, read_retries %u%s", dm_remap_mode_name(md_->mode),
          md_->policy.read_retries, md_->doubt != nullptr ? ", in doubt" : "");
}

// The load refuses. That is right where a copy of the table that could not be written left one
// alone, and that one cannot be read: when it can be, nothing is lost.
void Layer::reopen_after(const dm_remap_report& report, int error) {
    const std::string refusal = report.refusal;
    drop();
    machine_.spare_faults.heal(0, machine_.spare.sectors());
    md_.emplace();
    dm_remap_report again{};
    const bool good =
        dm_remap_metadata_init(&*md_, &Machine::kOps, &machine_) == 0 &&
        dm_remap_load(&*md_, machine_.spare.sectors(), machine_.main.sectors(), &again) == 0;
    const bool two_faults = good && md_->sb.table_copies != 3;
    drop();
    if (!two_faults) {
        violated(kTableWhole, "load refuses: %s (%d)", refusal.c_str(), error);
    }
    stats_[kRefusedLoads]++;
    open();
}

void Layer::drop() {
    on_the_way_.clear();
    held_back_.clear();
    failed_.clear();
    violation_.reset();
    in_core_ = alone_ = false;
    if (md_) {
        dm_remap_mover_free(mover_);
        mover_ = nullptr;
        dm_remap_metadata_exit(&*md_);
        md_.reset();
    }
}

dm_remap_extent Layer::lookup(std::uint64_t sector, std::uint64_t sectors) {
    dm_remap_extent e{};
    dm_remap_table_lookup(&md_->table, sector, sectors, &e);
    return e;
}

// ---- requests ----

void Layer::submit(bool is_write, Range range, bool fua) {
    auto request = std::make_shared<Request>();
    request->is_write = is_write;
    request->fua = fua;
    request->start = range.start;
    request->length = range.length;
    request->data.resize(std::size_t{range.length} * kSector);
    request->relocated.resize(range.length);
    if (is_write) {
        request->id = model_.begin(range.start, range.length);
        for (std::uint32_t i = 0; i < range.length; i++) {
            stamp(&request->data[std::size_t{i} * kSector], range.start + i, request->id);
        }
    }
    request->begun = model_.now();
    request->open = 1;
    stats_[kRequests]++;
    trace("    %s %u+%u%s id %u%s", is_write ? "write" : "read", range.start, range.length,
          fua ? " FUA" : "", request->id, in_core_ ? " meanwhile" : "");
    map(request, range.start, range.length);
    done(Piece{.request = request}, 0);
}

void Layer::map(const std::shared_ptr<Request>& request, std::uint32_t start,
                std::uint32_t length) {
    while (length != 0) {
        const dm_remap_extent e = lookup(start, length);
        const auto n = static_cast<std::uint32_t>(e.length);
        request->open++;
        map_piece({request, start, n, DM_REMAP_MAIN, start}, e);
        start += n;
        length -= n;
    }
}

void Layer::map_piece(Piece piece, const dm_remap_extent& e) {
    if ((e.flags & DM_REMAP_F_HELD) != 0) {
        stats_[kHeldBack]++;
        trace("    %u+%u is held", piece.start, piece.length);
        held_back_.push_back(piece);
    } else if ((e.flags & DM_REMAP_F_DOUBT) != 0 || md_->mode == DM_REMAP_MODE_FAIL) {
        done(piece, -EIO);
    } else if (piece.request->is_write && dm_remap_write_needs_redo(&*md_, &e)) {
        failed_.push_back(piece);
    } else {
        if (e.kind == DM_REMAP_MAPPED) {
            piece.dev = DM_REMAP_SPARE;
            piece.sector = e.spare;
        }
        on_the_way_.push_back(piece);
    }
}

void Layer::run(std::size_t pieces) {
    for (; pieces != 0 && !on_the_way_.empty() && machine_.on(); pieces--) {
        const Piece piece = on_the_way_.front();
        on_the_way_.pop_front();
        run_one(piece);
    }
}

void Layer::run_one(const Piece& piece) {
    const int error =
        piece.request->is_write
            ? machine_.write(piece.dev, piece.sector, piece.length, piece.data(), piece.flags())
            : machine_.read(piece.dev, piece.sector, piece.length, piece.data());
    if (!machine_.on()) {
        return;
    }
    if (error == -EIO || error == -ENODATA) {
        failed_.push_back(piece);
        failed_.back().failed = true;
        return;
    }
    if (error == 0 && !piece.request->is_write) {
        verify(piece, piece.start, piece.length);
    }
    done(piece, error);
}

// A read of these sectors has succeeded.
void Layer::verify(const Piece& piece, std::uint32_t start, std::uint32_t length) {
    const std::uint8_t* sector = piece.data() + std::size_t{start - piece.start} * kSector;
    for (std::uint32_t s = start; s < start + length; s++, sector += kSector) {
        const WriteId id = identify(sector, s);
        if (id == 0 || !model_.seen(s, id, piece.request->begun)) {
            violated(kNothingInvented,
                     "a read of sector %u returns write %u (0: none); it may be%s", s, id,
                     model_.candidates(s).c_str());
        }
    }
}

void Layer::done(const Piece& piece, int error) {
    Request& request = *piece.request;
    request.error = request.error != 0 ? request.error : error;
    if (--request.open == 0) {
        complete(request);
    }
}

void Layer::complete(const Request& request) {
    stats_[kFailedRequests] += request.error != 0;
    trace("    %s %u+%u id %u completes: %d", request.is_write ? "write" : "read", request.start,
          request.length, request.id, request.error);
    for (std::uint32_t i = 0; request.is_write && i < request.length; i++) {
        if (request.error == 0) {
            model_.acknowledge(request.start + i, request.id, request.fua || request.relocated[i]);
        } else {
            model_.fail(request.start + i, request.id);
        }
    }
}

void Layer::flush() {
    const std::uint64_t since = model_.now();
    int error = machine_.flush(DM_REMAP_MAIN);
    if (error == 0 && machine_.spare_unflushed) {
        error = machine_.flush(DM_REMAP_SPARE);
    }
    trace("    flush: %d", error);
    if (error == 0) {
        model_.flushed(since);
    }
    model_.forget_before(oldest_read());
}

std::uint64_t Layer::oldest_read() const {
    std::uint64_t oldest = UINT64_MAX;
    for (const Piece& p : on_the_way_) {
        oldest = std::min(oldest, p.request->begun);
    }
    for (const std::vector<Piece>* pieces : {&held_back_, &failed_}) {
        for (const Piece& p : *pieces) {
            oldest = std::min(oldest, p.request->begun);
        }
    }
    return in_core_ ? 0 : oldest;
}

void Layer::redo() {
    if (!failed_.empty() && machine_.on()) {
        Batch(*this).run();
    }
}

void Layer::finish() {
    while (machine_.on() && (!on_the_way_.empty() || !failed_.empty())) {
        run();
        redo();
    }
}

// ---- while the core is at work ----

// What waited for a range looks again.
void Layer::retry_held() {
    for (const Piece& piece : std::exchange(held_back_, {})) {
        if ((lookup(piece.start, 1).flags & DM_REMAP_F_HELD) != 0) {
            held_back_.push_back(piece);
        } else {
            map(piece.request, piece.start, piece.length);
            done(piece, 0);
        }
    }
}

// Autosave, or a person, in a thread of its own.
void Layer::begin_save() {
    const std::uint64_t what = random_.below(4);
    trace("    autosave, save, save or restore meanwhile: %lu", what);
    stats_[kSavedMeanwhile]++;
    turns_.begin([this, what] {
        bool healed = false;
        const int error = what == 0   ? dm_remap_autosave(&*md_)
                          : what == 3 ? dm_remap_restore(&*md_, machine_.spare.sectors(), &healed)
                                      : dm_remap_save(&*md_);
        trace("    meanwhile: %d", error);
    });
}

void Layer::meanwhile() {
    retry_held();
    if (!machine_.on() || !random_.one_in(12) || (machine_.without & kNoMeanwhile) != 0) {
        return;
    }
    if (random_.one_in(8)) {
        flush();
        return;
    }
    if (!turns_.two() && random_.one_in(6)) {
        begin_save();
        return;
    }
    stats_[kMeanwhile]++;
    const bool here = !busy.empty() && random_.coin();
    const Range range = here ? busy[random_.below(busy.size())] : pick();
    submit(!random_.one_in(3), range, random_.one_in(here ? 2 : 6));
    if (random_.coin()) {
        run(here ? SIZE_MAX : 1 + random_.below(2));
    }
}

void Layer::guarded(const std::function<void()>& function) {
    if (violation_) {
        return;
    }
    const bool in_core = std::exchange(in_core_, true);
    try {
        function();
    } catch (const Violation& v) {
        violation_ = v;
    }
    in_core_ = in_core;
}

void Layer::rethrow() {
    if (violation_) {
        throw Violation(*violation_);
    }
}

}  // namespace remap::sim

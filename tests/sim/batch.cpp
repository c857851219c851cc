#include "batch.h"

#include <algorithm>
#include <cerrno>

#include "contents.h"
#include "trace.h"

namespace remap::sim {

Batch::Batch(Layer& layer, std::size_t worker)
    : l_(layer),
      mover_(layer.mover_[worker]),
      role_(dm_remap_role_of(static_cast<unsigned>(worker))),
      begun_(++layer.begun_),
      alone_(l_.redoes_ && std::count(l_.works_.begin(), l_.works_.end(), true) == 1),
      md_(layer.md()),
      machine_(layer.machine_),
      g_(md_->sb.layout.granularity) {
    take_pieces();
    look_before();
}

// As the schedule says. A read has a batch of its own.
bool Batch::take(dm_remap_mover_role role) {
    dm_remap_job* job = nullptr;
    do {
        job = dm_remap_job_next(&md_->schedule, role);
        if (job == nullptr) {
            return false;
        }
    } while (dm_remap_job_put_back(md_, job));
    const auto it = std::find_if(l_.waiting_.begin(), l_.waiting_.end(),
                                 [job](const Waiting& w) { return &w.job == job; });
    waiting_.push_back(it);
    pieces_.push_back(it->piece);
    l_.busy.push_back({it->piece.start, it->piece.length});
    busy_ranges_.push_back(std::prev(l_.busy.end()));
    return true;
}

void Batch::take_pieces() {
    const std::uint64_t n = 1 + l_.random_.below(6);
    take(role_);
    while (!pieces_.empty() && pieces_[0].request->is_write && pieces_.size() < n &&
           take(DM_REMAP_FOR_WRITES)) {
    }
    error_.resize(pieces_.size());
    number_.resize(pieces_.size());
    l_.stats_[kBatches] += !pieces_.empty();
}

// Nobody else did anything meanwhile: then it is known what must become of it.
bool Batch::was_alone() const {
    return alone_ && begun_ == l_.begun_;
}

// Others may have their turns, and find what the batch has left.
void Batch::release() {
    for (const auto& it : busy_ranges_) {
        l_.busy.erase(it);
    }
    for (const auto& it : waiting_) {
        dm_remap_job_done(&md_->schedule, &it->job);
        l_.waiting_.erase(it);
    }
}

void Batch::look_before() {
    const Faults& main = machine_.main_faults;
    outage_ = main.outage();
    breaker_was_open_ = dm_remap_breaker_open(md_);
    was_read_only_ = md_->mode >= DM_REMAP_MODE_RO;
    l_.mode_changed = false;
    steady_ = main.steady() && machine_.main_end == machine_.main.sectors() &&
              machine_.spare_faults.steady() && !machine_.memory.is_short();
    free_ = dm_remap_alloc_free_sectors(&md_->alloc);
    retired_ = retired_sectors();
    busy_ = l_.stats_[kBusyControls];
    refused_ = refused();
    room_ = dm_remap_room(md_);
    dm_remap_table_totals(&md_->table, &totals_);
    l_.stats_[kFullSpare] += free_ == 0;
    for (const Piece& p : pieces_) {
        for (std::uint32_t s = p.start; s < p.start + p.length; s += g_) {
            const dm_remap_extent e = l_.lookup(s, g_);
            before_.push_back({s, p.request->is_write, e.kind});
        }
        no_record_.push_back(needs_no_record(p));
        must_.push_back(!l_.other_present && must_succeed(p));
        if (must_.back()) {
            l_.stats_[p.request->is_write ? kMustWrites : kMustReads]++;
        }
    }
}

std::uint64_t Batch::retired_sectors() {
    dm_remap_totals totals{};
    dm_remap_table_totals(&md_->retired, &totals);
    return totals.retired;
}

std::int64_t Batch::refused() {
    return atomic64_read(&md_->counter[DM_REMAP_REFUSED]);
}

// ---- what must succeed ----

bool Batch::breaker_lets_pass(const Piece& piece) {
    const dm_remap_breaker& breaker = md_->breaker[piece.request->is_write];
    return !breaker.open || machine_.time >= breaker.tried + DM_REMAP_BREAKER_PAUSE;
}

// Does main take reads and writes beside the piece, and in most of the places where it is asked?
bool Batch::neighbours_answer(const Piece& piece) {
    const std::uint32_t unit = l_.media_block;
    const std::uint64_t units = machine_.main.sectors() / unit;
    unsigned bad = 0;
    for (unsigned i = 0; i < 8; i++) {
        bad += machine_.main_faults.any(units * (2 * i + 1) / 16 * unit, unit);
    }
    if (bad >= 3) {
        return false;
    }
    const std::uint32_t place[] = {piece.start / unit * unit - unit,
                                   (piece.start + piece.length + unit - 1) / unit * unit};
    for (const std::uint32_t s : place) {
        if (s >= machine_.main.sectors() || unit > machine_.main.sectors() - s) {
            return false;
        }
        const dm_remap_extent e = l_.lookup(s, unit);
        const bool other = std::any_of(pieces_.begin(), pieces_.end(), [&](const Piece& p) {
            return p.start < s + unit && s < p.start + p.length;
        });
        if (other || e.length < unit || e.kind != DM_REMAP_NONE || e.flags != 0 ||
            machine_.main_faults.any(s, unit)) {
            return false;
        }
    }
    return true;
}

// Can it take all data of the batch, and the records?
bool Batch::spare_is_healthy() {
    const Faults& faults = machine_.spare_faults;
    const dm_remap_layout& layout = md_->sb.layout;
    const std::uint64_t start = dm_remap_data_start(&layout);
    const std::uint64_t end = dm_remap_data_end(&layout);
    std::uint64_t wanted = 0;
    for (const Piece& p : pieces_) {
        wanted += p.length;
    }
    std::uint64_t bad = 0;
    for (const std::uint64_t s : faults.faulty()) {
        if (faults.any(s, 1) && (s < start || s >= end)) {
            return false;
        }
        if (faults.writes_to_fail(s) != 0 && !faults.by_media(s)) {
            return false;
        }
        bad += faults.writes_to_fail(s) != 0 || faults.spoils(s);
    }
    // Some more for what is read and rescued, and for controls that fail.
    return faults.outage() == Outage::none && bad <= 3 && md_->mode < DM_REMAP_MODE_RO &&
           totals_.records + 370 < dm_remap_table_capacity(&layout) && !md_->burnt &&
           md_->doubt == nullptr && free_ >= wanted + (bad + 4) * l_.media_block;
}

bool Batch::block_must_succeed(const Piece& piece, std::uint32_t sector) {
    const dm_remap_extent e = l_.lookup(sector, g_);
    if ((e.flags & ~DM_REMAP_F_UNREADABLE) != 0) {
        return false;
    }
    if (piece.request->is_write) {
        return true;
    }
    // The answer of another serves, or may do so once others have had their turns.
    std::uint64_t length = g_;
    if (e.kind == DM_REMAP_PENDING &&
        (machine_.slow || dm_remap_unread(&md_->schedule, sector, &length, machine_.time))) {
        return false;
    }
    const dm_remap_dev dev = e.kind == DM_REMAP_MAPPED ? DM_REMAP_SPARE : DM_REMAP_MAIN;
    const std::uint64_t at = dev == DM_REMAP_SPARE ? e.spare : sector;
    if (machine_.faults(dev).outage() == Outage::gone) {
        return false;
    }
    for (std::uint32_t i = 0; i < g_; i++) {
        if (machine_.faults(dev).reads_to_fail(at + i) > md_->policy.read_retries) {
            return false;
        }
    }
    return true;
}

bool Batch::must_succeed(const Piece& piece) {
    if (!steady_ || !breaker_lets_pass(piece)) {
        return false;
    }
    if (dm_remap_breaker_open(md_) || piece.request->is_write) {
        if (outage_ != Outage::none || !neighbours_answer(piece)) {
            return false;
        }
    }
    if (piece.request->is_write && (md_->policy.no_auto_remap || !spare_is_healthy())) {
        return false;
    }
    for (std::uint32_t s = piece.start; s < piece.start + piece.length; s += g_) {
        if (!block_must_succeed(piece, s)) {
            return false;
        }
    }
    return !main_may_refuse(piece);
}

// A target error there may pass: that depends on the end of main.
bool Batch::main_may_refuse(const Piece& piece) {
    const Faults& main = machine_.main_faults;
    const std::uint32_t unit = l_.media_block;
    const std::uint32_t end = (piece.start + piece.length + unit - 1) / unit * unit;
    const dm_remap_refused_range& refused = md_->refused_range[piece.direction()];
    for (std::uint64_t s = piece.start / unit * unit; s < end && s < machine_.main.sectors(); s++) {
        const bool passes = s >= refused.from && machine_.time < refused.until;
        if (piece.request->is_write ? main.refuses_write(s)
                                    : passes && main.reads_to_fail(s) != 0) {
            return true;
        }
    }
    return false;
}

// Main takes all of it.
bool Batch::needs_no_record(const Piece& piece) {
    const Faults& main = machine_.main_faults;
    const dm_remap_extent e = l_.lookup(piece.start, piece.length);
    return piece.request->is_write && steady_ && main.outage() == Outage::none &&
           !main.any(piece.start, piece.length) && e.length == piece.length &&
           e.kind == DM_REMAP_NONE && e.flags == 0;
}

// ---- doing it ----

int Batch::redo_piece(const Piece& piece) {
    trace("    redo %s %u+%u id %u", piece.request->is_write ? "write" : "read", piece.start,
          piece.length, piece.request->id);
    dm_remap_tried tried{piece.failure, piece.length};
    if (piece.request->is_write) {
        return dm_remap_redo_write(mover_, piece.start, piece.length, piece.data(), &tried);
    }
    return dm_remap_redo_read(mover_, piece.start, piece.length, piece.data(), &tried);
}

bool Batch::run() {
    if (pieces_.empty()) {
        return false;
    }
    dm_remap_redo_begin(mover_);
    for (std::size_t i = 0; i < pieces_.size(); i++) {
        number_[i] = pieces_[i].request->is_write ? dm_remap_redo_next(mover_) : 0;
        error_[i] = redo_piece(pieces_[i]);
        trace("    redone: %d", error_[i]);
        silent_ += error_[i] != 0;
    }
    const int error = dm_remap_redo_end(mover_);
    trace("    batch ends: %d", error);
    if (!machine_.on()) {
        return false;
    }
    if (!was_alone()) {
        steady_ = false;
        must_.assign(must_.size(), false);
        no_record_.assign(no_record_.size(), false);
    }
    release();
    for (std::size_t i = 0; i < pieces_.size(); i++) {
        if (!pieces_[i].request->is_write && error_[i] == 0) {
            l_.verify(pieces_[i], pieces_[i].start, pieces_[i].length);
        }
    }
    check_results();
    check_errors(error);
    check_outage();
    check_refused();
    note_durable();
    complete();
    return true;
}

// All writes that the worker did are durable when they are acknowledged.
void Batch::note_durable() {
    for (const Piece& p : pieces_) {
        l_.stats_[kMustBeDurable] += p.length;
        std::fill_n(p.request->durable.begin() + (p.start - p.request->start), p.length, true);
    }
}

void Batch::complete() {
    for (std::size_t i = 0; i < pieces_.size(); i++) {
        const Piece& p = pieces_[i];
        if (p.request->is_write && error_[i] == 0) {
            std::fill_n(l_.written_since.begin() + p.start, p.length, true);
        }
        l_.done(p, error_[i]);
    }
}

// ---- checks ----

// Another request of the batch may have brought it there.
bool Batch::in_doubt(const Piece& piece) {
    bool any = false;
    for (std::uint32_t s = piece.start; s < piece.start + piece.length; s += g_) {
        any = any || (l_.lookup(s, g_).flags & DM_REMAP_F_DOUBT) != 0;
    }
    return any;
}

// A write may depend on a commit of the batch.
void Batch::check_results() {
    for (std::size_t i = 0; i < pieces_.size(); i++) {
        if (!pieces_[i].request->is_write || error_[i] != 0) {
            continue;
        }
        error_[i] = dm_remap_redo_result(mover_, number_[i]);
        l_.stats_[kFailedWithCommit] += error_[i] != 0;
        if (no_record_[i] && error_[i] != 0) {
            violated(kService, "the write of %u+%u needs no record, and fails with a commit",
                     pieces_[i].start, pieces_[i].length);
        }
    }
}

void Batch::check_errors(int end_error) {
    const bool opened = dm_remap_breaker_open(md_);  // by another request of the batch
    const bool all = std::all_of(must_.begin(), must_.end(), [](bool must) { return must; });
    if (all && end_error != 0) {
        violated(kService, "a batch fails with %d, and nothing stands in its way", end_error);
    }
    // A commit of the batch that failed puts ranges in doubt, which a save may have settled since.
    for (std::size_t i = 0; end_error == 0 && i < pieces_.size(); i++) {
        if (must_[i] && error_[i] != 0 && !in_doubt(pieces_[i]) && !opened) {
            violated(kService, "the %s of %u+%u fails with %d, and nothing stands in its way",
                     pieces_[i].request->is_write ? "write" : "read", pieces_[i].start,
                     pieces_[i].length, error_[i]);
        }
    }
}

bool Batch::read_in_batch(std::uint32_t sector) const {
    return std::any_of(before_.begin(), before_.end(),
                       [&](const Before& b) { return b.sector == sector && !b.is_write; });
}

// Only bad media spends the spare, and makes records. (A range that lives on the spare may get
// another place there, what cannot be read on a disk that is write-protected is bad, and without
// auto-remap no block is rewritten to find that out: the record of a write that failed says so.)
void Batch::check_outage() {
    if (!steady_ || outage_ == Outage::none) {
        l_.hopeless = 0;
        return;
    }
    const bool gone = outage_ == Outage::gone;
    bool may_take = false;
    for (const Before& b : before_) {
        const bool may_change = b.kind == DM_REMAP_MAPPED || (!gone && read_in_batch(b.sector)) ||
                                (!gone && md_->policy.no_auto_remap);
        may_take = may_take || may_change;
        if (!may_change && l_.lookup(b.sector, g_).kind != b.kind) {
            violated(kMediaOnly, "the record of sector %u changed while main was %s", b.sector,
                     gone ? "gone" : "write-protected");
        }
    }
    // A copy for a control finds bad blocks of the spare, too. It may stay where the spare fails
    // before it is dropped.
    const std::uint64_t free =
        dm_remap_alloc_free_sectors(&md_->alloc) + retired_sectors() - retired_;
    if (!may_take && free < free_ && !l_.mode_changed && md_->doubt == nullptr) {
        violated(kMediaOnly, "the spare lost %lu sectors while main was %s", free_ - free,
                 gone ? "gone" : "write-protected");
    }
    check_passed_on();
    check_breaker();
}

// A range that main refuses is not bad.
void Batch::check_refused() {
    const std::uint64_t from = machine_.main_faults.refused_from();
    for (const Before& b : before_) {
        if (steady_ && b.sector >= from && b.kind == DM_REMAP_NONE &&
            l_.lookup(b.sector, g_).kind != DM_REMAP_NONE) {
            violated(kMediaOnly, "sector %u got a record, and main refuses all from %lu on",
                     b.sector, from);
        }
    }
}

// An error that says it is not the media is the answer, and means nothing to the breaker.
void Batch::check_passed_on() {
    const int error = machine_.main_faults.outage_error();
    if (outage_ != Outage::gone || error == -EIO || breaker_was_open_) {
        return;
    }
    if (dm_remap_breaker_open(md_)) {
        if (error != -ETIMEDOUT) {
            violated(kMediaOnly, "the breaker opened for error %d", error);
        }
        return;
    }
    const bool all_on_main = std::all_of(before_.begin(), before_.end(), [&](const Before& b) {
        return b.kind == DM_REMAP_NONE && l_.lookup(b.sector, g_).flags == 0;
    });
    for (std::size_t i = 0; all_on_main && i < pieces_.size(); i++) {
        if (error_[i] != error) {
            violated(kMediaOnly, "main fails with %d, and redoing %u+%u with %d", error,
                     pieces_[i].start, pieces_[i].length, error_[i]);
        }
    }
}

// Is there any place where main may be asked to write: of no record, and with nothing on its way?
bool Batch::places_to_write() {
    const std::uint32_t unit = l_.media_block;
    const std::uint64_t units = machine_.main.sectors() / unit;
    unsigned places = 0;
    for (unsigned i = 0; i < 8; i++) {
        const std::uint64_t s = units * (2 * i + 1) / 16 * unit;
        const dm_remap_extent e = l_.lookup(s, unit);
        places += e.length >= unit && e.kind == DM_REMAP_NONE && e.flags == 0 && l_.idle(s, unit);
    }
    return places >= 2;
}

// Where main writes nothing: after so many requests in a row nothing more is tried. It is asked
// only where something could be moved.
void Batch::check_breaker() {
    const std::uint64_t room = std::min<std::uint64_t>(room_, dm_remap_room(md_));
    if (machine_.main_faults.outage_error() != -EIO || md_->policy.no_auto_remap ||
        l_.stats_[kBusyControls] != busy_ || refused() != refused_ || !places_to_write() ||
        free_ < l_.media_block + g_ || room < l_.media_block / g_ + 1 || was_read_only_ ||
        l_.mode_changed || md_->mode >= DM_REMAP_MODE_RO) {
        l_.hopeless = 0;
        return;
    }
    for (const Before& b : before_) {
        if (b.kind == DM_REMAP_MAPPED || l_.lookup(b.sector, g_).flags != 0 || !b.is_write) {
            l_.hopeless = 0;
            return;
        }
    }
    // Those that share the evidence, and have none, are told by one question.
    l_.hopeless += std::max(silent_, 1U);
    if (l_.hopeless >= DM_REMAP_BREAKER_LIMIT && !md_->breaker[DM_REMAP_WRITE].open) {
        violated(kMediaOnly, "%u requests in a row found main dead, and the breaker is closed",
                 l_.hopeless);
    }
}

}  // namespace remap::sim

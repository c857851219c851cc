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
    machine.drain = [this](auto start, auto length, bool wait) {
        bool drained = true;
        stats_[kDrainedIo] += on_the_way_.size();
        guarded([&] { drained = drain(start, length, wait); });
        return drained;
    };
    machine.wait_for_claim = [this](const dm_remap_job* claim) { return wait_for_claim(claim); };
    machine.give_way = [this] {
        if (in_core_ && !alone_) {
            turns_.offer();
        }
    };
    machine.flush_failed = [this] { model_.flush_of_others_failed(); };
    machine.may_lose = [this](auto dev, auto sector) { return may_lose(dev, sector); };
    machine.meanwhile = [this] {
        if (in_core_ && !alone_) {
            guarded([this] { meanwhile(); });
            turns_.offer();
        }
    };
    machine.on_its_own = [this](auto sector, auto n) {
        return std::none_of(busy.begin(), busy.end(), [&](const Range& r) {
            return r.start < sector + n && sector < r.start + r.length;
        });
    };
    machine.note = [this](auto note, auto sector, auto sectors, auto value) {
        hopeless = note == DM_REMAP_NOTE_BREAKER ? 0 : hopeless;
        mode_changed = mode_changed || note == DM_REMAP_NOTE_MODE;
        if (note == DM_REMAP_NOTE_BAD && value == 0) {
            std::fill_n(written_since.begin() + static_cast<std::ptrdiff_t>(sector), sectors,
                        false);
        }
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

// Where memory is short, once more: nothing of the first try may be left.
int Layer::patiently(const std::function<int()>& function) {
    const std::uint64_t failures = machine_.memory.failures();
    int error = -EINTR;
    while (error == -EINTR || error == -EAGAIN ||
           (error == -ENOMEM && machine_.memory.failures() != failures)) {
        if (error == -ENOMEM) {
            machine_.memory.plenty();
        }
        error = core_alone(function);
    }
    return error;
}

int Layer::activate(const dm_remap_report* report) {
    return patiently([&] { return dm_remap_activate(&*md_, nullptr, report); });
}

int Layer::take_back(dm_remap_report& report) {
    return patiently([&] { return dm_remap_take_back(&*md_, machine_.spare.sectors(), &report); });
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
    md_->policy.recheck_pause = static_cast<unsigned>(random_.below(8));
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
    for (dm_remap_mover*& mover : mover_) {
        while ((mover = dm_remap_mover_alloc(&*md_, DM_REMAP_REDO_SECTORS)) == nullptr) {
            machine_.memory.plenty();
        }
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
    waiting_.clear();
    busy.clear();
    works_.fill(false);
    saves_ = redoes_ = false;
    violation_.reset();
    in_core_ = alone_ = false;
    if (md_) {
        // A loss that no flush from above was told of by then is told to nobody.
        for (const dm_remap_cache& cache : md_->cache) {
            if (atomic_read(&cache.untold) != 0) {
                model_.flush_failed();
            }
        }
        for (dm_remap_mover*& mover : mover_) {
            dm_remap_mover_free(std::exchange(mover, nullptr));
        }
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
    request->durable.resize(range.length);
    const auto known = known_unreadable.begin() + range.start;
    request->known.assign(known, known + range.length);
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
        Piece piece{request, start, length};
        dm_remap_extent e{};
        const dm_remap_way to = way(piece, e);
        piece.length = static_cast<std::uint32_t>(e.length);
        piece.counts = dm_remap_way_counts(to, piece.kind());
        request->open++;
        start += piece.length;
        length -= piece.length;
        switch (to) {
            case DM_REMAP_WAY_MAIN:
                piece.pending = e.kind == DM_REMAP_PENDING;
                send(piece, DM_REMAP_MAIN, piece.start);
                break;
            case DM_REMAP_WAY_SPARE:
                send(piece, DM_REMAP_SPARE, e.spare);
                break;
            case DM_REMAP_WAY_WORKER:
                stats_[kHeldBack] += (e.flags & DM_REMAP_F_HELD) != 0;
                trace("    %u+%u waits for a worker", piece.start, piece.length);
                if (dm_remap_answer_is_known(&*md_, piece.kind(), piece.start, &e)) {
                    check_answer(piece);
                    done(piece, -EIO);
                    break;
                }
                wait(piece, e.kind == DM_REMAP_PENDING);
                break;
            case DM_REMAP_WAY_ANSWERED:  // a discard: none comes here
            case DM_REMAP_WAY_NOWHERE:
                done(piece, -EIO);
                break;
        }
    }
}

// The error of another read serves.
void Layer::check_answer(const Piece& piece) {
    stats_[kAnsweredAtOnce]++;
    const auto first = written_since.begin() + piece.start;
    if (std::all_of(first, first + piece.length, [](bool written) { return written; })) {
        violated(kService, "a read of %u+%u gets the error of one before a write", piece.start,
                 piece.length);
    }
}

// As the kernel's part asks.
dm_remap_way Layer::way(const Piece& piece, dm_remap_extent& e) {
    if (dm_remap_way_is_plain(&*md_, piece.start, piece.length)) {
        e.length = piece.length;
        return DM_REMAP_WAY_MAIN;
    }
    return dm_remap_find_way(&*md_, piece.kind(), piece.start, piece.length, &e);
}

void Layer::send(Piece piece, dm_remap_dev dev, std::uint64_t sector) {
    piece.dev = dev;
    piece.sector = sector;
    piece.losses_told = dm_remap_losses_told(&*md_, dev);
    piece.watched = dm_remap_table_watched(&md_->table);
    piece.failures = dm_remap_main_failures(&*md_, piece.direction());
    if (piece.needs_flush()) {
        dm_remap_spare_write_begins(&*md_);
    }
    on_the_way_.push_back(piece);
}

void Layer::run(std::size_t pieces) {
    for (; pieces != 0 && !on_the_way_.empty() && machine_.on(); pieces--) {
        const Piece piece = on_the_way_.front();
        on_the_way_.pop_front();
        run_one(piece);
    }
}

std::deque<Piece>::iterator Layer::find_counted(std::uint64_t start, std::uint64_t length) {
    return std::find_if(on_the_way_.begin(), on_the_way_.end(), [&](const Piece& p) {
        return p.counts && p.start < start + length && start < p.start + p.length;
    });
}

bool Layer::idle(std::uint64_t start, std::uint64_t length) {
    return find_counted(start, length) == on_the_way_.end();
}

// Of what is on its way, all that has to be done with before a range is moved. Without waiting only
// what is there by chance may say that it is.
bool Layer::drain(std::uint64_t start, std::uint64_t length, bool wait) {
    auto next = on_the_way_.begin();
    while (machine_.on() && (next = find_counted(start, length)) != on_the_way_.end()) {
        if (!wait) {
            stats_[kBusyControls]++;
            return false;
        }
        const Piece piece = *next;
        on_the_way_.erase(next);
        run_one(piece);
    }
    return true;
}

// Does the next step of it on the device.
int Layer::transfer(Piece& piece) {
    if (!piece.request->is_write) {
        return machine_.read(piece.dev, piece.sector, piece.length, piece.data());
    }
    if (!piece.request->fua) {
        return machine_.write(piece.dev, piece.sector, piece.length, piece.data(), 0);
    }
    if (piece.in_cache) {
        piece.in_cache = false;
        return machine_.flush_behind(piece.dev, piece.sector, piece.length);
    }
    const int error = machine_.write_fua(piece.dev, piece.sector, piece.length, piece.data());
    piece.in_cache = error == 0 && machine_.fua(piece.dev) == DM_REMAP_FUA_BY_FLUSH;
    return error;
}

void Layer::run_one(Piece piece) {
    int error = transfer(piece);
    if (!machine_.on()) {
        return;
    }
    if (piece.in_cache) {
        on_the_way_.push_back(piece);
        return;
    }
    if (piece.needs_flush()) {
        dm_remap_spare_write_ended(&*md_, error == 0);
    }
    if (piece.request->fua && machine_.fua(piece.dev) != DM_REMAP_FUA_OWN &&
        dm_remap_fua_lost(&*md_, piece.dev, piece.losses_told, error)) {
        stats_[kLostAndRedone]++;
        wait(piece, false);
        return;
    }
    if (error != 0 && dm_remap_fails_for_worker(piece.kind(), error)) {
        piece.failure =
            piece.dev == DM_REMAP_MAIN ? dm_remap_main_failed(&*md_, piece.direction()) : 0;
        wait(piece, false);
        return;
    }
    if (error == 0 && piece.dev == DM_REMAP_MAIN && piece.watched) {
        worked(piece);
    }
    if (error == 0 && piece.request->is_write && (piece.pending || piece.watched)) {
        dm_remap_unread_forget(&md_->schedule, piece.start, piece.length);
        std::fill_n(written_since.begin() + piece.start, piece.length, true);
    }
    if (error == 0 && !piece.request->is_write) {
        verify(piece, piece.start, piece.length);
    }
    done(piece, error);
}

// While a failure is judged. A write that is not durable counts when it is flushed.
void Layer::worked(const Piece& piece) {
    if (piece.request->is_write && !piece.request->fua) {
        dm_remap_main_cached(&*md_, piece.failures);
        return;
    }
    stats_[kWorkedForOthers] += !dm_remap_main_works(&*md_, piece.direction(), piece.failures);
    dm_remap_main_worked_at(&*md_, piece.direction(), piece.failures, piece.start);
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

// A write is done over sectors that were known to be unreadable when it began. Unless that has
// changed meanwhile, the write can be read now.
void Layer::check_readable(const Piece& piece) {
    for (std::uint32_t s = piece.start; s < piece.start + piece.length; s++) {
        const std::uint64_t known = known_unreadable[s];
        if (known == 0) {
            continue;
        }
        known_unreadable[s] = 0;
        if (known != piece.request->known[s - piece.request->start]) {
            continue;
        }
        const dm_remap_extent e = lookup(s, 1);
        const bool doubt = (e.flags & DM_REMAP_F_DOUBT) != 0;
        if (e.kind == DM_REMAP_MAPPED && !doubt && !machine_.spare_faults.readable(e.spare)) {
            violated(kNothingLost,
                     "a write of sector %u succeeds at %lu of the spare, which was known to be "
                     "unreadable, and is",
                     s, e.spare);
        }
        stats_[kWrittenOver]++;
    }
}

void Layer::done(const Piece& piece, int error) {
    Request& request = *piece.request;
    if (request.is_write && error == 0) {
        check_readable(piece);
    }
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
            model_.acknowledge(request.start + i, request.id, request.fua || request.durable[i]);
        } else {
            model_.fail(request.start + i, request.id);
        }
    }
}

void Layer::flush() {
    const std::uint64_t since = model_.now();
    int error = md_->mode == DM_REMAP_MODE_FAIL ? -EIO : 0;
    for (const dm_remap_dev dev : {DM_REMAP_MAIN, DM_REMAP_SPARE}) {
        const std::uint64_t covers = dm_remap_flush_covers(&*md_, dev);
        const std::uint64_t proves = dm_remap_main_flush_begins(&*md_);
        const bool skip = dev == DM_REMAP_SPARE && dm_remap_spare_is_flushed(&*md_);
        const int told = skip ? 0 : machine_.flush(dev);
        // Between a failure and its being noted another flush may end: docs/relocation.md.
        if (told == 0 && random_.one_in(4)) {
            run(random_.below(3));
        }
        if (!machine_.on()) {
            return;
        }
        if (told == 0 && dev == DM_REMAP_MAIN) {
            dm_remap_main_worked(&*md_, DM_REMAP_WRITE, proves);
        }
        const int said = dm_remap_flush_ended(&*md_, dev, covers, told);
        error = error != 0 ? error : said;
    }
    trace("    flush: %d", error);
    if (error == 0) {
        model_.flushed(since);
    } else {
        model_.flush_failed();
    }
    model_.forget_before(oldest_read());
}

std::uint64_t Layer::oldest_read() const {
    std::uint64_t oldest = UINT64_MAX;
    for (const Piece& p : on_the_way_) {
        oldest = std::min(oldest, p.request->begun);
    }
    for (const Waiting& w : waiting_) {
        oldest = std::min(oldest, w.piece.request->begun);
    }
    return in_core_ ? 0 : oldest;
}

void Layer::wait(Piece piece, bool pending) {
    waiting_.push_back({std::move(piece)});
    Waiting& w = waiting_.back();
    dm_remap_job_add(&md_->schedule, &w.job, dm_remap_job_kind_of(w.piece.kind(), pending),
                     w.piece.start, w.piece.length);
}

void Layer::work(std::size_t worker, std::uint64_t turns) {
    try {
        while (turns-- != 0 && machine_.on() && !violation_ && Batch(*this, worker).run()) {
        }
    } catch (const Violation& v) {
        violation_ = v;
    }
    works_[worker] = false;
}

bool Layer::begin_worker() {
    const std::size_t worker = random_.below(DM_REMAP_MOVERS);
    if (works_[worker] || mover_[worker] == nullptr) {
        return false;
    }
    works_[worker] = true;
    stats_[kWorkersMeanwhile]++;
    trace("    worker %zu begins meanwhile", worker);
    turns_.begin([this, worker, turns = 1 + random_.below(3)] { work(worker, turns); });
    return true;
}

// Of those before it each is somebody's, or a worker takes it up.
int Layer::wait_for_claim(const dm_remap_job* claim) {
    const auto claimed = [&] {
        return dm_remap_job_claimed(&md_->schedule, claim) || !machine_.on() || violation_;
    };
    for (unsigned tries = 0; !turns_.wait_until(claimed); tries++) {
        begin_worker();
        if (tries == 1000) {
            guarded([] { violated(kService, "a claim waits for nobody"); });
        }
    }
    return machine_.on() && !violation_ ? 0 : -EINTR;
}

void Layer::redo() {
    if (!waiting_.empty() && machine_.on()) {
        core([this] {
            const std::size_t worker = random_.below(DM_REMAP_MOVERS);
            works_[worker] = true;
            redoes_ = true;
            work(worker, 1);
            return 0;
        });
        redoes_ = false;
        // The worker's last act, when nothing waits for it.
        if (md_ && machine_.on() && dm_remap_schedule_is_idle(&md_->schedule)) {
            dm_remap_breaker_look(&*md_);
            dm_remap_watch_ends(&*md_);
        }
    }
    read_by_time();
}

void Layer::read_by_time() {
    if (!machine_.on() || !md_ || !dm_remap_later_any(&*md_)) {
        return;
    }
    const auto recovered = [this] { return atomic64_read(&md_->counter[DM_REMAP_RECOVERED]); };
    const auto before = recovered();
    const std::uint32_t wait = core([this] {
        works_[1] = true;
        const std::uint32_t again = dm_remap_do_later(mover_[1]);
        works_[1] = false;
        return again;
    });
    if (machine_.on()) {
        trace("    later: %lu ranges recovered, next in %u", recovered() - before, wait);
        stats_[kRecovered] += static_cast<std::uint64_t>(recovered() - before);
    }
}

// So many batches, and nobody begins anything more.
constexpr unsigned kRounds = 64;
// And then each of those that wait has its turn.
constexpr unsigned kMostRounds = 10000;

void Layer::finish() {
    unsigned rounds = 0;
    while (machine_.on() && (!on_the_way_.empty() || !waiting_.empty())) {
        // Long requests that fail might begin more of them than are done.
        quiet_ = ++rounds > kRounds;
        if (rounds > kMostRounds) {
            violated(kService, "a request waits for ever");
        }
        run();
        redo();
    }
    quiet_ = false;
}

// ---- while the core is at work ----

// Metadata, and what is not acknowledged yet: who wrote that is told.
bool Layer::may_lose(dm_remap_dev dev, std::uint64_t sector) {
    const dm_remap_layout& layout = md_->sb.layout;
    if (dev == DM_REMAP_SPARE &&
        (sector < dm_remap_data_start(&layout) || sector >= dm_remap_data_end(&layout))) {
        return true;
    }
    return std::any_of(on_the_way_.begin(), on_the_way_.end(), [&](const Piece& p) {
        return p.in_cache && p.dev == dev && sector >= p.sector && sector < p.sector + p.length;
    });
}

// Autosave, or a person, in a thread of its own.
void Layer::begin_save() {
    const std::uint64_t what = random_.below(4);
    trace("    autosave, save, save or restore meanwhile: %lu", what);
    stats_[kSavedMeanwhile]++;
    saves_ = true;
    turns_.begin([this, what] {
        bool healed = false;
        const int error = what == 0   ? dm_remap_autosave(&*md_)
                          : what == 3 ? dm_remap_restore(&*md_, machine_.spare.sectors(), &healed)
                                      : dm_remap_save(&*md_);
        trace("    meanwhile: %d", error);
        saves_ = false;
    });
}

void Layer::meanwhile() {
    const bool flushes_fail =
        machine_.main_faults.flushes_fail() || machine_.spare_faults.flushes_fail();
    if (!machine_.on() || quiet_ || !random_.one_in(12) || (machine_.without & kNoMeanwhile) != 0) {
        return;
    }
    if (random_.one_in(flushes_fail ? 2 : 8)) {
        flush();
        return;
    }
    // A block of a table that is on its way while the other takes the spare cannot be helped.
    if (!saves_ && !other_present && random_.one_in(6)) {
        begin_save();
        return;
    }
    if (!waiting_.empty() && random_.one_in(4) && begin_worker()) {
        return;
    }
    stats_[kMeanwhile]++;
    const bool here = !busy.empty() && random_.coin();
    const Range range = here ? *std::next(busy.begin(), random_.below(busy.size())) : pick();
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

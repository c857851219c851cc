// The kernel's part, played over the core: maps requests, redoes those that failed, completes them.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "machine.h"
#include "model.h"
#include "random.h"
#include "trace.h"
#include "turns.h"

namespace remap::sim {

struct Range {
    std::uint32_t start;
    std::uint32_t length;
};

// A read or write of the mapped device, from above.
struct Request {
    bool is_write = false;
    bool fua = false;
    std::uint32_t start = 0;
    std::uint32_t length = 0;
    WriteId id = 0;           // of a write
    std::uint64_t begun = 0;  // model's time
    unsigned open = 0;        // pieces that have not completed
    int error = 0;
    std::vector<std::uint8_t> data;
    std::vector<bool> durable;         // sectors that the worker wrote
    std::vector<std::uint64_t> known;  // of known_unreadable, when it began
};

// The part of a request that maps to one place, as a bio that was split.
struct Piece {
    std::shared_ptr<Request> request;
    std::uint32_t start = 0;
    std::uint32_t length = 0;
    dm_remap_dev dev = DM_REMAP_MAIN;
    std::uint64_t sector = 0;    // of dev
    bool counts = false;         // a drain waits for it
    bool watched = false;        // when it was sent
    bool pending = false;        // so is its place on main
    std::uint64_t failures = 0;  // of main, when it was sent
    std::uint64_t failure = 0;   // of main: that of this piece, or 0
    bool in_cache = false;       // a write with FUA, written, and the flush behind it comes next
    int losses_told = 0;         // by dev, when it was mapped

    std::uint8_t* data() const {
        return request->data.data() + std::size_t{start - request->start} * kSector;
    }
    dm_remap_kind_of_io kind() const {
        return request->is_write ? DM_REMAP_IO_WRITE : DM_REMAP_IO_READ;
    }
    dm_remap_direction direction() const {
        return request->is_write ? DM_REMAP_WRITE : DM_REMAP_READ;
    }
    // A write to the spare that a flush has to cover.
    bool needs_flush() const { return request->is_write && !request->fua && dev == DM_REMAP_SPARE; }
};

// A piece that waits for a worker, or is done over.
struct Waiting {
    Piece piece;
    dm_remap_job job{};
};

class Layer {
  public:
    // All of them outlive it.
    Layer(Machine& machine, Model& model, Random& random, Stats& stats);
    ~Layer();
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

    // Loads and activates what is on the spare.
    void open();
    // The power went: forgets everything.
    void drop();
    dm_remap_metadata* md() { return &*md_; }
    // Was it activated since it was loaded? Else nobody was served.
    bool activated() const { return activated_; }
    dm_remap_extent lookup(std::uint64_t sector, std::uint64_t sectors);

    // Begins a request; what is on its way then goes on with run() and redo().
    void submit(bool is_write, Range range, bool fua);
    // A flush of the mapped device, from above.
    void flush();
    // Does some I/O that is on its way: so many pieces at most.
    void run(std::size_t pieces = SIZE_MAX);
    // Is nothing on its way there that a drain waits for?
    bool idle(std::uint64_t start, std::uint64_t length);
    // Redoes some of what waits for a worker. Others may do the same meanwhile.
    void redo();
    // Pending ranges that were read well, and those whose time has come; and the breaker.
    void read_by_time();
    bool io_waits() const { return !waiting_.empty(); }
    // Until nothing is on its way any more.
    void finish();

    // Calls the core. Others go on meanwhile, and what they saw comes out here.
    template <typename Function>
    auto core(Function&& function) {
        in_core_ = true;
        auto result = function();
        turns_.end();
        in_core_ = false;
        rethrow();
        return result;
    }

    // Suspends or resumes: no I/O of others goes on meanwhile.
    template <typename Function>
    auto core_alone(Function&& function) {
        alone_ = true;
        auto result = core(function);
        alone_ = false;
        return result;
    }

    // Resumes. Where memory is short, once more: nothing of the first try may be left.
    int activate(const dm_remap_report* report);
    // Suspended: the spare is back. Any error but for memory, and why.
    int take_back(dm_remap_report& report);

    std::uint32_t media_block = 0;  // of main, in sectors; before open()
    // Where the I/O of others goes that begins while the core is at work.
    std::function<Range()> pick;
    std::function<void(dm_remap_note, std::uint64_t, std::uint64_t, std::int64_t)> on_note;

    // What the core is at work on.
    std::list<Range> busy;

    // Requests in a row that found main dead. What changes that begins anew.
    unsigned hopeless = 0;
    // The mode changed while a batch was redone.
    bool mode_changed = false;
    // Another system uses the spare: nothing has to succeed.
    bool other_present = false;
    // Of each sector of main: the core has said that the spare cannot read it. Each time has a
    // number. 0: it has not, or that is over.
    std::vector<std::uint64_t> known_unreadable;
    // Of each sector: a write was acknowledged since a read failed.
    std::vector<bool> written_since;

  private:
    friend class Batch;

    void map(const std::shared_ptr<Request>& request, std::uint32_t start, std::uint32_t length);
    dm_remap_way way(const Piece& piece, dm_remap_extent& e);
    void send(Piece piece, dm_remap_dev dev, std::uint64_t sector);
    int load(dm_remap_report& report);
    void reopen_after(const dm_remap_report& report, int error);
    void run_one(Piece piece);
    int transfer(Piece& piece);
    std::deque<Piece>::iterator find_counted(std::uint64_t start, std::uint64_t length);
    bool drain(std::uint64_t start, std::uint64_t length, bool wait);
    void worked(const Piece& piece);
    int patiently(const std::function<int()>& function);
    void verify(const Piece& piece, std::uint32_t start, std::uint32_t length);
    void done(const Piece& piece, int error);
    void check_readable(const Piece& piece);
    void check_answer(const Piece& piece);
    void complete(const Request& request);
    void meanwhile();
    bool may_lose(dm_remap_dev dev, std::uint64_t sector);
    void begin_save();
    // Something waits for a worker.
    void wait(Piece piece, bool pending);
    // A worker has some turns, until nothing is left for it.
    void work(std::size_t worker, std::uint64_t turns);
    // Another one begins, if there is one that does nothing. False: there is none.
    bool begin_worker();
    int wait_for_claim(const dm_remap_job* claim);
    void guarded(const std::function<void()>& function);
    void rethrow();
    std::uint64_t oldest_read() const;

    Machine& machine_;
    Model& model_;
    Random& random_;
    Stats& stats_;
    Turns turns_;
    std::optional<dm_remap_metadata> md_;
    // The second also does what is done without a request.
    std::array<dm_remap_mover*, DM_REMAP_MOVERS> mover_{};
    std::array<bool, DM_REMAP_MOVERS> works_{};
    std::uint64_t begun_ = 0;  // batches
    bool saves_ = false;       // a thread of its own
    bool redoes_ = false;      // nothing but workers

    std::deque<Piece> on_the_way_;  // mapped, not yet done
    std::list<Waiting> waiting_;    // for a worker, or with one
    bool quiet_ = false;            // nobody begins anything
    bool activated_ = false;
    bool in_core_ = false;
    bool alone_ = false;
    std::optional<Violation>
        violation_;  // seen inside the core, through which nothing can be thrown
};

}  // namespace remap::sim

// One batch of failed I/O, redone, and what must become of it.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "layer.h"

namespace remap::sim {

class Batch {
  public:
    // Takes some of what failed.
    Batch(Layer& layer, std::size_t worker);
    // False: there was nothing for this worker.
    bool run();

  private:
    // A block of a piece before the batch.
    struct Before {
        std::uint32_t sector;
        bool is_write;
        std::uint8_t kind;
    };

    void take_pieces();
    bool take(dm_remap_mover_role role);
    bool was_alone() const;
    void release();
    void look_before();
    std::uint64_t retired_sectors();
    bool places_to_write();
    std::int64_t refused();
    bool block_must_succeed(const Piece& piece, std::uint32_t sector);
    bool read_in_batch(std::uint32_t sector) const;
    bool must_succeed(const Piece& piece);
    bool spare_is_healthy();
    bool neighbours_answer(const Piece& piece);
    bool breaker_lets_pass(const Piece& piece);
    int redo_piece(const Piece& piece);
    bool in_doubt(const Piece& piece);
    bool needs_no_record(const Piece& piece);
    bool main_may_refuse(const Piece& piece);
    void check_results();
    void check_errors(int end_error);
    void check_outage();
    void check_refused();
    void check_passed_on();
    void check_breaker();
    void complete();
    void note_durable();

    Layer& l_;
    dm_remap_mover* mover_;
    dm_remap_mover_role role_;
    std::uint64_t begun_;  // batches, with this one
    bool alone_;
    std::vector<std::list<Waiting>::iterator> waiting_;
    std::vector<std::list<Range>::iterator> busy_ranges_;
    dm_remap_metadata* md_;
    Machine& machine_;
    std::uint32_t g_;
    std::vector<Piece> pieces_;
    std::vector<int> error_;
    unsigned silent_ = 0;  // of which it was known before the commit that main does nothing
    std::vector<unsigned> number_;  // of each write in the core's batch
    std::vector<bool> no_record_;   // a write that needs none
    std::vector<bool> must_;
    std::vector<Before> before_;
    dm_remap_totals totals_{};
    std::uint64_t free_ = 0;
    std::uint64_t retired_ = 0;  // sectors of the spare
    std::uint64_t busy_ = 0;     // kBusyControls
    std::int64_t refused_ = 0;   // relocations, among them copies for a control
    std::uint64_t room_ = 0;     // records that the table had room for
    bool steady_ = false;
    bool breaker_was_open_ = false;
    bool was_read_only_ = false;
    Outage outage_ = Outage::none;
};

}  // namespace remap::sim

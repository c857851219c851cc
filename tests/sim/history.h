// The life of one device, as its seed has it: requests, faults, messages, power cuts; and after
// each cut, and now and then, the question whether all promises were kept.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "layer.h"
#include "machine.h"
#include "model.h"
#include "plan.h"
#include "random.h"
#include "stats.h"

namespace remap::sim {

class History {
  public:
    // Turns that go with one power cut: it is armed, so many steps, a look at all data, the cut.
    static constexpr Turn kTurns = 27;

    // The plan outlives it.
    History(const Plan& plan, Stats& stats);
    // Throws Violation. At the end all is well. @turn is told of each turn before it is taken.
    void run(const std::function<void(Turn)>& turn = {});

  private:
    static constexpr std::uint64_t kNone = UINT64_MAX;

    struct Geometry {
        std::uint32_t granularity;
        std::uint32_t main_sectors;
        std::uint32_t media_block;  // of main, in sectors
        bool many_records;          // more than fit into the table
        dm_remap_format_params params;
    };
    struct Step {
        unsigned weight;
        void (History::*take)();
    };
    // A record as memory had it, of one block.
    struct Known {
        std::uint8_t kind;
        std::uint16_t flags;
        std::uint64_t spare;
    };

    static Geometry choose_geometry(Random& random);
    void format();
    void take_turn(Turn turn);
    void take_step();
    void arm_power_cut();
    void memory_may_run_short();

    // history_steps.cpp
    Range any_range();
    Range near_fault();
    Range recent_range();
    Range interesting_range();
    std::uint64_t any_block() { return random_.below(blocks_) * g_; }
    void step_requests();
    void step_flush();
    void step_run();
    void step_main_fault();
    bool table_is_full();
    void scatter_faults();
    void step_spare_fault();
    void spoil_place(std::uint64_t place, std::uint32_t block);
    void spoil_next_commit();
    void step_metadata_fault();
    void step_flush_fault();
    void step_heal();
    void step_main_outage();
    void step_main_size();
    void step_spare_outage();
    void pull_spare();
    void spare_comes_back();
    void step_remap();
    void step_unremap();
    void step_forget();
    void step_save();
    void step_autosave();
    void step_restore();
    void step_suspend();
    void step_reload();
    void step_many_commits();
    void step_policy();
    void step_breaker();
    void step_time();
    void step_all_well();
    void all_faults_off();
    void must_relocate();
    void bring_all_home();
    void saved(std::uint64_t pended);

    // history_damage.cpp
    struct Block {
        std::array<std::uint8_t, kBlock> bytes;

        const dm_remap_disk_block* disk() const {
            return reinterpret_cast<const dm_remap_disk_block*>(bytes.data());
        }
    };
    std::vector<std::uint64_t> metadata_blocks(int replica) const;
    std::uint64_t any_metadata_block(int replica);
    bool metadata_readable() const;
    bool metadata_faults() const;
    void heal_metadata_faults();
    Block block_at(std::uint64_t block);
    void put_block(std::uint64_t block, const Block& what);
    bool superblock_at(int replica, dm_remap_super* sb);
    bool superblock_lags(unsigned* newer);
    void fill(Block& block, std::size_t begin, std::size_t end);
    void spoil_block(std::uint64_t at);
    bool may_lose(int replica);
    void damage_replica();
    bool ends_agree();
    void lose_write();
    void hide_superblock(int replica);
    bool journal_range(std::uint64_t* start, std::uint64_t* last);
    void forge(std::uint64_t at);
    void spoil_both(std::uint64_t first, std::uint64_t second);
    void spoil_journal();
    void spoil_table();
    void spoil_everywhere();
    void turn_back();
    void check_loaded(const dm_remap_metadata& md);
    void try_spoiled();
    void damage();
    void note_mended();
    void tear_unreadable();

    // history_other.cpp
    std::uint64_t relocation_to_be();
    bool other_loads();
    void other_activates();
    void other_goes();
    void commit_with_other_in_it();
    void other_with_commit_in_it();
    void stop_with_other_in_it();
    void other_with_activation_in_it();
    void step_other_system();
    void step_old_superblock();

    // history_checks.cpp
    void note(dm_remap_note note, std::uint64_t sector, std::uint64_t sectors, std::int64_t value);
    bool failed_on_spare(std::uint64_t block) const;
    void power_cut();
    void open();
    void check_data(bool after_cut);
    void check_records();
    void check_published();
    void forget_written_over();
    void check_marks();
    std::vector<Known> published();
    std::vector<bool> retired_sectors();

    std::optional<dm_remap_metadata> other_;
    std::vector<std::uint8_t> old_superblock_;  // from earlier on
    unsigned old_superblock_side_ = 0;

    const Plan& plan_;
    Stats& stats_;
    Random random_;
    Geometry geometry_;
    std::uint32_t g_;
    std::uint64_t blocks_;
    dm_remap_layout layout_{};
    Model model_;
    Machine machine_;
    Layer layer_;

    unsigned metadata_side_ = 0;         // the replica that may have faults
    bool damaged_ = false;               // it was spoiled, and perhaps not mended since
    std::vector<bool> saved_pending_;    // blocks whose pending record is durable
    std::vector<std::uint64_t> pended_;  // when their record changed last
    std::uint64_t times_pended_ = 0;
    std::vector<std::uint64_t> saved_unreadable_;  // of layer_.known_unreadable, what is durable
    std::vector<bool> retired_;                    // sectors of the spare that are, durably
    std::vector<Known> published_;                 // when it was stopped
    bool was_in_doubt_ = false;
    bool forgetting_ = false;
    std::uint64_t good_retired_ = kNone;  // a sector of the spare, though its media had not failed
    std::uint64_t behind_end_ = kNone;    // a sector that got a record though main ends before it
    std::uint64_t unreadable_ = kNone;    // a sector of main that got its data back, and lost it
    std::vector<Range> recent_;           // of the latest requests
    Image earlier_;                       // the spare as it was once
    std::uint64_t forged_ = 0;            // what is put into both copies
};

}  // namespace remap::sim

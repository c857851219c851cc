#include "history.h"

#include <array>

#include "contents.h"
#include "trace.h"

namespace remap::sim {

// As small as the format allows: its ring is full, and its spare too, all the time.
History::Geometry History::choose_geometry(Random& random) {
    Geometry geometry{};
    dm_remap_format_params& p = geometry.params;
    geometry.granularity = 1U << random.below(4);
    geometry.many_records = geometry.granularity == 1 && random.one_in(4);
    geometry.main_sectors =
        static_cast<std::uint32_t>(random.between(64, 256)) * geometry.granularity;
    geometry.main_sectors *= geometry.many_records ? 4 : 1;
    geometry.media_block = random.one_in(2) ? 8 : geometry.granularity;
    p.granularity = geometry.granularity;
    p.journal_blocks = static_cast<std::uint32_t>(random.between(16, 20));
    p.max_records = 1;
    p.main.sectors = geometry.main_sectors;
    std::memset(p.uuid, static_cast<int>(random.below(255)) + 1, sizeof(p.uuid));
    // The smallest that it can be laid out on, and some data.
    dm_remap_layout layout{};
    std::uint64_t blocks = 0;
    while (dm_remap_layout_choose(&layout, ++blocks * kBlockSectors, p.granularity,
                                  p.journal_blocks, p.max_records) != 0) {
    }
    const std::uint64_t units = random.between(6, 60);
    blocks += units * p.granularity / kBlockSectors;
    p.spare_sectors = blocks * kBlockSectors + random.below(kBlockSectors);
    return geometry;
}

History::History(const Plan& plan, Stats& stats)
    : plan_(plan),
      stats_(stats),
      random_(plan.seed),
      geometry_(choose_geometry(random_)),
      g_(geometry_.granularity),
      blocks_(geometry_.main_sectors / g_),
      model_(geometry_.main_sectors),
      machine_(geometry_.main_sectors, geometry_.params.spare_sectors, random_, stats),
      layer_(machine_, model_, random_, stats),
      saved_pending_(blocks_),
      pended_(blocks_),
      saved_unreadable_(geometry_.main_sectors),
      retired_(geometry_.params.spare_sectors) {
    machine_.without = plan.without;
    layer_.media_block = geometry_.media_block;
    layer_.known_unreadable.resize(geometry_.main_sectors);
    layer_.written_since.resize(geometry_.main_sectors);
    layer_.pick = [this] { return interesting_range(); };
    layer_.on_note = [this](auto what, auto sector, auto sectors, auto value) {
        note(what, sector, sectors, value);
    };
    const dm_remap_format_params& p = geometry_.params;
    dm_remap_layout_choose(&layout_, p.spare_sectors, p.granularity, p.journal_blocks,
                           p.max_records);
    trace("granularity %u of %u, main %u sectors, spare %lu", g_, geometry_.media_block,
          geometry_.main_sectors, geometry_.params.spare_sectors);
    format();
}

void History::format() {
    std::vector<std::uint8_t> all(std::size_t{geometry_.main_sectors} * kSector);
    for (std::uint32_t s = 0; s < geometry_.main_sectors; s++) {
        stamp(&all[std::size_t{s} * kSector], s, 1);
    }
    machine_.main.poke(0, all);
    dm_remap_report report{};
    if (dm_remap_format(&Machine::kOtherOps, &machine_, &geometry_.params, &report) != 0) {
        violated(kService, "format: %s", report.refusal);
    }
}

void History::take_step() {
    static constexpr std::array<Step, 26> kSteps{{
        {60, &History::step_requests},    {6, &History::step_flush},
        {10, &History::step_run},         {12, &History::step_main_fault},
        {2, &History::step_spare_fault},  {4, &History::step_metadata_fault},
        {4, &History::step_heal},         {4, &History::step_main_outage},
        {3, &History::step_spare_outage}, {4, &History::step_remap},
        {7, &History::step_unremap},      {2, &History::step_forget},
        {2, &History::step_save},         {5, &History::step_autosave},
        {2, &History::step_restore},      {2, &History::step_suspend},
        {1, &History::step_reload},       {2, &History::step_policy},
        {1, &History::step_breaker},      {4, &History::step_time},
        {1, &History::step_all_well},     {1, &History::step_many_commits},
        {2, &History::step_other_system}, {1, &History::step_old_superblock},
        {4, &History::step_flush_fault},  {2, &History::step_main_size},
    }};
    static const unsigned total = [] {
        unsigned sum = 0;
        for (const Step& step : kSteps) {
            sum += step.weight;
        }
        return sum;
    }();
    machine_.time += random_.below(2);
    auto at = static_cast<unsigned>(random_.below(total));
    for (const Step& step : kSteps) {
        if (at < step.weight) {
            (this->*step.take)();
            return;
        }
        at -= step.weight;
    }
}

// Some cuts fall where nothing is being written.
void History::arm_power_cut() {
    trace("--- until the next power cut");
    if (!random_.one_in(5)) {
        machine_.cut_power_in(1 + static_cast<unsigned>(random_.below(2ULL << random_.below(6))));
    }
}

void History::memory_may_run_short() {
    if (random_.one_in(10) && (plan_.without & kNoShortage) == 0) {
        machine_.memory.run_short();
    }
}

void History::take_turn(Turn turn) {
    random_.begin(plan_.seed, std::uint64_t{turn} + 1);
    machine_.spare_faults.forget_failures();
    switch (turn % kTurns) {
        case 0:
            arm_power_cut();
            break;
        case kTurns - 2:
            if (machine_.on() && random_.one_in(4)) {
                check_data(false);
            }
            break;
        case kTurns - 1:
            power_cut();
            break;
        default:
            if (machine_.on()) {
                memory_may_run_short();
                take_step();
                machine_.memory.plenty();
            }
            if (machine_.on()) {
                check_records();
            }
    }
}

void History::run(const std::function<void(Turn)>& turn) {
    open();
    published_ = published();
    for (const Turn t : plan_.turns) {
        trace("  turn %u", t);
        if (turn) {
            turn(t);
        }
        take_turn(t);
    }
    trace("--- at last");
    random_.begin(plan_.seed, UINT64_MAX);
    // It may be that nobody has switched it on again.
    machine_.cut_power_in(0);
    while (!machine_.on()) {
        power_cut();
        machine_.cut_power_in(0);
    }
    step_all_well();
}

}  // namespace remap::sim

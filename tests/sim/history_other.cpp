// Another system uses the spare meanwhile, as a second host would, or the initramfs of a machine
// that is resumed from hibernation. It activates, perhaps has a checkpoint, and goes; then the
// power fails. All that one of the two has acknowledged is there.
#include <cerrno>

#include "history.h"
#include "trace.h"

namespace remap::sim {

// Steps of a commit or activation that the other one may fall into.
constexpr std::uint64_t kMostSteps = 24;

// A write that has failed, and waits to be redone: its data will live on the spare alone.
std::uint64_t History::relocation_to_be() {
    const std::uint64_t block = any_block();
    if (layer_.lookup(block, g_).kind != DM_REMAP_NONE) {
        return kNone;
    }
    machine_.main_faults.fail_writes(block, kForGood);
    layer_.submit(true, {static_cast<std::uint32_t>(block), g_}, false);
    layer_.run();
    return block;
}

bool History::other_loads() {
    dm_remap_report report{};
    other_.emplace();
    if (dm_remap_metadata_init(&*other_, &Machine::kOtherOps, &machine_) != 0) {
        other_.reset();
        return false;
    }
    if (dm_remap_load(&*other_, machine_.spare.sectors(), machine_.main.sectors(), &report) != 0) {
        dm_remap_metadata_exit(&*other_);
        other_.reset();
        return false;
    }
    return true;
}

void History::other_activates() {
    const dm_remap_report report{};
    const std::uint64_t before = other_->next_sequence;
    const int error = dm_remap_activate(&*other_, nullptr, &report);
    trace("    the other system activates: %d", error);
    stats_[kOtherSystems] += error == 0;
    stats_[kOtherFindsUs] += error == 0 && other_->next_sequence != before;
}

void History::other_goes() {
    if (!other_) {
        return;
    }
    const std::uint64_t how = random_.below(3);
    int error = 0;
    if (how == 0) {
        error = dm_remap_save(&*other_);
    } else if (how == 1) {
        error = dm_remap_deactivate(&*other_);
    }
    trace("    the other system goes, kind %lu: %d", how, error);
    dm_remap_metadata_exit(&*other_);
    other_.reset();
}

void History::commit_with_other_in_it() {
    machine_.interject(false, random_.below(kMostSteps), [this] {
        if (other_loads()) {
            other_activates();
        }
    });
    layer_.redo();
}

void History::other_with_commit_in_it() {
    if (!other_loads()) {
        return;
    }
    machine_.interject(true, random_.below(kMostSteps), [this] { layer_.redo(); });
    other_activates();
}

// After a save, a stop writes superblocks alone, and no table. Then the other may have checkpoints
// of its own: the second one is in the place of our table.
void History::stop_with_other_in_it() {
    const bool saved =
        random_.coin() && layer_.core_alone([&] { return dm_remap_save(layer_.md()); }) == 0;
    machine_.interject(false, random_.below(kMostSteps), [this, saved] {
        if (!other_loads()) {
            return;
        }
        other_activates();
        for (std::uint64_t n = saved ? random_.below(3) : 0; n > 0; n--) {
            dm_remap_checkpoint(&*other_, DM_REMAP_STATE_DIRTY);
        }
    });
    layer_.core_alone([&] { return dm_remap_deactivate(layer_.md()); });
}

// Both begin from the same number.
void History::other_with_activation_in_it() {
    layer_.finish();
    layer_.core_alone([&] { return dm_remap_deactivate(layer_.md()); });
    layer_.drop();
    bool opened = false;
    if (other_loads()) {
        machine_.interject(true, random_.below(kMostSteps), [&] {
            opened = true;
            open();
        });
        other_activates();
        machine_.interject(false, 0, nullptr);
    }
    if (!opened) {
        other_goes();
        open();
    }
    if (relocation_to_be() != kNone) {
        layer_.redo();
    }
}

void History::step_other_system() {
    machine_.cut_power_in(0);
    layer_.finish();
    all_faults_off();
    if (layer_.md()->mode != DM_REMAP_MODE_RW || layer_.md()->doubt != nullptr ||
        layer_.md()->burnt || relocation_to_be() == kNone) {
        return;
    }
    static constexpr void (History::*kKinds[])() = {
        &History::commit_with_other_in_it, &History::other_with_commit_in_it,
        &History::stop_with_other_in_it, &History::other_with_activation_in_it};
    const std::uint64_t kind = random_.below(4);
    trace("  step another system, kind %lu", kind);
    layer_.other_present = true;
    machine_.patient = true;
    (this->*kKinds[kind])();
    machine_.interject(false, 0, nullptr);
    // Nobody has used the spare at all, or nobody but us.
    if (!other_) {
        layer_.other_present = false;
    } else {
        stats_[kOtherFound] += layer_.md()->mode == DM_REMAP_MODE_FAIL;
        other_goes();
        layer_.finish();
    }
    machine_.patient = false;
    // Who gives way puts a superblock back. Were that write lost, it would be a fault more.
    machine_.before.clear();
    power_cut();
    layer_.other_present = false;
}

// One superblock goes back to what it was at some time: a spare that loses what it had. That is no
// other system.
void History::step_old_superblock() {
    const std::uint64_t at =
        dm_remap_superblock_at(&layout_, static_cast<int>(metadata_side_)) * kBlockSectors;
    const auto now = machine_.spare.peek(at, kBlockSectors);
    const bool whole = layer_.md()->sb_holders == DM_REMAP_ALL_REPLICAS;
    const bool same_side = old_superblock_side_ == metadata_side_;
    if (!old_superblock_.empty() && same_side && whole && random_.coin()) {
        trace("  step superblock %u goes back", metadata_side_);
        machine_.cut_power_in(0);
        all_faults_off();
        machine_.spare.poke(at, old_superblock_);
        stats_[kOldSuperblocks]++;
        step_save();
        if (layer_.md()->mode == DM_REMAP_MODE_FAIL) {
            violated(kService, "an old superblock is taken for another system's");
        }
        old_superblock_.clear();
        return;
    }
    if (whole) {
        old_superblock_.assign(now.begin(), now.end());
        old_superblock_side_ = metadata_side_;
    }
}

}  // namespace remap::sim

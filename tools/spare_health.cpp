// SPDX-License-Identifier: GPL-2.0-only
#include "spare_health.h"

#include <fmt/format.h>

#include <array>

namespace remap {
namespace {

constexpr std::array<std::string_view, DM_REMAP_REPLICAS> replica_names = {"head", "tail"};
constexpr u8 all_copies = (1U << DM_REMAP_REPLICAS) - 1;

void judge_replicas(const dm_remap_report& report, std::vector<std::string>& problems) {
    u64 bad_journal_blocks = 0;
    for (std::size_t i = 0; i < replica_names.size(); i++) {
        const dm_remap_replica_report& replica = report.replica[i];
        if (replica.superblock != DM_REMAP_VALID) {
            problems.push_back(fmt::format("the superblock at the {} is {}", replica_names.at(i),
                                           dm_remap_verdict_name(replica.superblock)));
        }
        if (replica.bad_table_blocks != 0) {
            problems.push_back(fmt::format("{} table blocks at the {} are bad",
                                           replica.bad_table_blocks, replica_names.at(i)));
        }
        bad_journal_blocks += replica.bad_journal_blocks;
    }
    // A commit that a power cut left on one side alone counts as one bad block on the other.
    bad_journal_blocks -= report.one_sided ? 1 : 0;
    if (bad_journal_blocks != 0) {
        problems.push_back(
            fmt::format("{} journal blocks are bad in one copy", bad_journal_blocks));
    }
}

void judge_super(const dm_remap_super& super, std::vector<std::string>& problems) {
    if (super.table_copies != all_copies) {
        problems.emplace_back("one copy of the table is given up as bad");
    }
    if (super.state == DM_REMAP_STATE_ERROR) {
        problems.emplace_back("the last activation left it in state ERROR");
    }
}

std::vector<std::string> note(const OfflineSpare& spare, u64 device_sectors) {
    std::vector<std::string> notes;
    const dm_remap_super& super = spare.super();
    if (super.state == DM_REMAP_STATE_DIRTY) {
        notes.push_back(fmt::format("in use, or not stopped in order: {} commits in the journal",
                                    spare.report().replayed));
    }
    if (spare.report().lagging) {
        notes.emplace_back("a checkpoint had reached one superblock; activation completes it");
    }
    if (spare.report().one_sided) {
        notes.emplace_back("the last commit had reached one copy; activation completes it");
    }
    if (device_sectors / DM_REMAP_BLOCK_SECTORS > super.layout.device_blocks) {
        notes.push_back(
            fmt::format("the device has grown since it was formatted; {} sectors of it are used",
                        super.layout.device_blocks * DM_REMAP_BLOCK_SECTORS));
    }
    return notes;
}

}  // namespace

std::string_view soundness_name(Soundness soundness) {
    switch (soundness) {
        case Soundness::sound:
            return "sound";
        case Soundness::damaged:
            return "damaged";
        case Soundness::unusable:
            break;
    }
    return "unusable";
}

SpareHealth judge(const OfflineSpare& spare, u64 device_sectors) {
    SpareHealth health;
    judge_replicas(spare.report(), health.problems);
    if (!spare.loaded()) {
        health.soundness = Soundness::unusable;
        health.refusal = spare.refusal();
        return health;
    }
    judge_super(spare.super(), health.problems);
    if (spare.report().end_unread) {
        health.problems.emplace_back(
            "the journal's next block cannot be read in the copy that decides: one more commit may "
            "be there");
    }
    health.notes = note(spare, device_sectors);
    health.soundness = health.problems.empty() ? Soundness::sound : Soundness::damaged;
    return health;
}

std::string_view disk_state_name(u32 state) {
    switch (state) {
        case DM_REMAP_STATE_FORMATTING:
            return "FORMATTING";
        case DM_REMAP_STATE_CLEAN:
            return "CLEAN";
        case DM_REMAP_STATE_DIRTY:
            return "DIRTY";
        case DM_REMAP_STATE_ERROR:
            return "ERROR";
        default:
            return "unknown";
    }
}

}  // namespace remap

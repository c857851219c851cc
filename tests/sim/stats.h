// What really happened, so that a simulator that tests nothing is noticed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace remap::sim {

struct Stat {
    const char* name;
    double wanted;  // at least so many for each 1,000 power cuts
};

enum StatId : std::size_t {
    kCuts,
    kTornCuts,
    kRequests,
    kFailedRequests,
    kBatches,
    kMustReads,
    kMustWrites,
    kMustBeDurable,
    kMeanwhile,
    kHeldBack,
    kDrainedIo,
    kFailedFlushes,
    kLostAndRedone,
    kRelocated,
    kRescued,
    kPending,
    kHeldByMain,
    kRetired,
    kRemapped,
    kBroughtHome,
    kForgotten,
    kDegraded,
    kReadOnly,
    kBreakerOpened,
    kBreakerClosed,
    kDoubts,
    kFullSpare,
    kFullTable,
    kSavedMeanwhile,
    kMainOutages,
    kSpareOutages,
    kOtherErrors,
    kHealedMetadata,
    kSaves,
    kCleanStops,
    kRefusedActivations,
    kRefusedLoads,
    kNoMemory,
    kDamaged,
    kLostWrites,
    kSpoiled,
    kSpoiledRefused,
    kOtherSystems,
    kOtherFound,
    kOtherFindsUs,
    kOldSuperblocks,
    kSectorsChecked,
    kNrStats,
};

inline constexpr std::array<Stat, kNrStats> kStats{{
    {"power cuts", 1000},
    {"power cuts in the middle of a write or flush", 300},
    {"requests", 2000},
    {"requests that failed", 300},
    {"batches redone", 300},
    {"failed reads that had to succeed when redone", 12},
    {"failed writes that had to succeed when redone", 25},
    {"sectors that had to be durable before a flush", 150},
    {"requests that began while the core was at work", 300},
    {"requests that waited for a range that was held", 30},
    {"requests on their way when the core drained", 300},
    {"flushes that failed", 30},
    {"writes that a flush of others may have lost, done once more", 0.5},
    {"relocations after a write", 60},
    {"rescues after a read", 1},
    {"pending ranges recorded", 50},
    {"pending ranges that main held again", 10},
    {"spare ranges retired", 2},
    {"ranges remapped by hand", 20},
    {"ranges brought home", 20},
    {"ranges forgotten", 1},
    {"degraded episodes", 5},
    {"read-only episodes", 30},
    {"breaker openings", 5},
    {"breaker closings", 1},
    {"doubts", 4},
    {"batches with a full spare", 25},
    {"full tables", 0.5},
    {"saves while a range was being moved", 20},
    {"outages of main", 20},
    {"outages of the spare", 15},
    {"sectors of the spare that fail, and not by their media", 1},
    {"damaged metadata healed", 10},
    {"saves", 100},
    {"clean stops", 5},
    {"activations that were refused, rightly", 0},
    {"loads that were refused, rightly", 0},
    {"allocations that failed", 300},
    {"replicas damaged while the power was off", 60},
    {"blocks that lost their last write", 5},
    {"spares spoiled beyond any promise", 15},
    {"of them refused", 5},
    {"other systems that used the spare", 5},
    {"of them found by us", 2},
    {"of them that found us and started over", 0.2},
    {"superblocks that went back to what they were", 1},
    {"sectors checked", 100000},
}};

using Stats = std::array<std::uint64_t, kNrStats>;

}  // namespace remap::sim

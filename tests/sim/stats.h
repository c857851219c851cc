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
    kMainOutages,
    kSpareOutages,
    kHealedMetadata,
    kSaves,
    kCleanStops,
    kSectorsChecked,
    kNrStats,
};

inline constexpr std::array<Stat, kNrStats> kStats{{
    {"power cuts", 1000},
    {"power cuts in the middle of a write or flush", 300},
    {"requests", 1},
    {"requests that failed", 1},
    {"batches redone", 1},
    {"failed reads that had to succeed when redone", 1},
    {"failed writes that had to succeed when redone", 1},
    {"sectors that had to be durable before a flush", 1},
    {"requests that began while the core was at work", 1},
    {"requests that waited for a range that was held", 1},
    {"requests on their way when the core drained", 1},
    {"relocations after a write", 1},
    {"rescues after a read", 1},
    {"pending ranges recorded", 1},
    {"pending ranges that main held again", 1},
    {"spare ranges retired", 1},
    {"ranges remapped by hand", 1},
    {"ranges brought home", 1},
    {"ranges forgotten", 1},
    {"degraded episodes", 1},
    {"read-only episodes", 1},
    {"breaker openings", 1},
    {"breaker closings", 1},
    {"doubts", 1},
    {"batches with a full spare", 1},
    {"outages of main", 1},
    {"outages of the spare", 1},
    {"damaged metadata healed", 1},
    {"saves", 1},
    {"clean stops", 1},
    {"sectors checked", 1},
}};

using Stats = std::array<std::uint64_t, kNrStats>;

}  // namespace remap::sim

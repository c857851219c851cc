// The remap table as anyone would write it who had no need for speed: a map from each sector to
// what is known of it.
#pragma once

#include <map>

#include "rig.h"

namespace remap {

struct SectorState {
    unsigned kind = DM_REMAP_NONE;
    unsigned reason = 0;
    unsigned flags = 0;
    std::uint64_t spare = 0;

    bool operator==(const SectorState&) const = default;
};

class TableModel {
  public:
    void set(const dm_remap_record& r) {
        for (std::uint32_t i = 0; i < r.length; i++) {
            state_[r.main + i] = {r.kind, r.reason, r.flags,
                                  r.kind == DM_REMAP_MAPPED ? r.spare + i : 0};
        }
    }
    void clear(std::uint64_t start, std::uint64_t length) {
        state_.erase(state_.lower_bound(start), state_.lower_bound(start + length));
    }
    void flags(std::uint64_t start, std::uint64_t length, unsigned on, unsigned off) {
        for (std::uint64_t i = start; i < start + length; i++) {
            SectorState s = at(i);
            s.flags = (s.flags | on) & ~off;
            if (s == SectorState{}) {
                state_.erase(i);
            } else {
                state_[i] = s;
            }
        }
    }

    SectorState at(std::uint64_t sector) const {
        auto it = state_.find(sector);
        return it == state_.end() ? SectorState{} : it->second;
    }
    bool empty() const { return state_.empty(); }
    // Mapped sectors that are marked.
    std::uint64_t unreadable() const {
        std::uint64_t n = 0;
        for (const auto& [sector, s] : state_) {
            n += s.kind == DM_REMAP_MAPPED && (s.flags & DM_REMAP_F_UNREADABLE) != 0;
        }
        return n;
    }

    // The canonical records.
    Records records() const {
        Records all;
        SectorState last;
        for (const auto& [sector, s] : state_) {
            if (s.kind == DM_REMAP_NONE) {
                continue;
            }
            bool joins = !all.empty() && all.back().main + all.back().length == sector &&
                         last.kind == s.kind && last.reason == s.reason &&
                         ((last.flags ^ s.flags) & DM_REMAP_F_DURABLE) == 0 &&
                         (s.kind != DM_REMAP_MAPPED || last.spare + 1 == s.spare) &&
                         sector % (1ULL << 31) != 0;
            if (joins) {
                all.back().length++;
            } else {
                all.push_back({s.kind, sector, s.spare, 1});
            }
            last = s;
        }
        return all;
    }

  private:
    std::map<std::uint64_t, SectorState> state_;
};

}  // namespace remap

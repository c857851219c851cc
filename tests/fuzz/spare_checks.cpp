#include "spare_checks.h"

#include <algorithm>

namespace remap::fuzz {
namespace {

using PieceMap = std::map<std::uint64_t, Piece>;

PieceMap records_of(dm_remap_table& table) {
    PieceMap all;
    dm_remap_record r{};
    std::uint64_t end = 0;
    for (u64 from = 0; dm_remap_table_next(&table, from, &r); from = end) {
        require(r.length != 0 && r.main >= end && r.main >= from, "records out of order");
        end = r.main + r.length;
        require(r.flags < 256, "flags of a record");
        all[r.main] = {end, r.kind, r.reason, r.spare, static_cast<std::uint8_t>(r.flags)};
    }
    return all;
}

std::uint64_t sum(const PieceMap& pieces, std::uint8_t kind) {
    std::uint64_t n = 0;
    for (const auto& [start, piece] : pieces) {
        n += piece.kind == kind ? piece.end - start : 0;
    }
    return n;
}

std::uint64_t sum_unreadable(const PieceMap& pieces) {
    std::uint64_t n = 0;
    for (const auto& [start, piece] : pieces) {
        n += (piece.flags & DM_REMAP_F_UNREADABLE) != 0 ? piece.end - start : 0;
    }
    return n;
}

void check_totals(Metadata& md, const PieceMap& records, const PieceMap& retired) {
    dm_remap_totals totals{};
    dm_remap_table_totals(&md->table, &totals);
    require(totals.records == records.size(), "count of records");
    require(totals.mapped == sum(records, DM_REMAP_MAPPED), "sectors mapped");
    require(totals.pending == sum(records, DM_REMAP_PENDING), "sectors pending");
    require(totals.unreadable == sum_unreadable(records), "sectors that cannot be read");
    require(totals.retired == 0, "retired sectors of main");
    dm_remap_table_totals(&md->retired, &totals);
    require(totals.records == retired.size(), "count of retired ranges");
    require(totals.retired == sum(retired, DM_REMAP_RETIRED), "sectors retired");
    require(dm_remap_table_empty(&md->table) == (records.empty() && md->doubt == nullptr) ||
                md->doubt != nullptr,
            "empty");
}

void check_allocator(Metadata& md, const Reading& reading, const PieceMap& records,
                     const PieceMap& retired) {
    const std::uint64_t g = reading.granularity;
    const std::uint64_t total = (reading.data_end - reading.data_start) / g * g;
    require(dm_remap_alloc_total_sectors(&md->alloc) == total, "sectors of the spare");
    require(dm_remap_alloc_free_sectors(&md->alloc) + sum(records, DM_REMAP_MAPPED) +
                    sum(retired, DM_REMAP_RETIRED) ==
                total,
            "used, retired and free sectors are not all");
}

// The answer for [@sector, @sector + @n), against the records.
void check_lookup(Metadata& md, const PieceMap& records, std::uint64_t sector, std::uint64_t n) {
    dm_remap_extent e{};
    dm_remap_table_lookup(&md->table, sector, n, &e);
    require(e.length >= 1 && e.length <= n, "length of an answer");
    require((e.flags & ~(DM_REMAP_F_DOUBT | DM_REMAP_F_UNREADABLE)) == 0, "flags");
    auto next = records.upper_bound(sector);
    const bool inside = next != records.begin() && std::prev(next)->second.end > sector;
    if (!inside) {
        require(e.kind == DM_REMAP_NONE, "answer where no record is");
        require(next == records.end() || sector + e.length <= next->first, "answer too long");
        return;
    }
    const auto& [start, piece] = *std::prev(next);
    require(e.kind == piece.kind, "kind of an answer");
    require((e.flags & DM_REMAP_F_UNREADABLE) == piece.flags, "flag of an answer");
    // Records of other reasons that continue this one are of no interest to who asks.
    std::uint64_t end = piece.end;
    for (; next != records.end() && next->first == end && next->second.kind == piece.kind &&
           next->second.flags == piece.flags &&
           (piece.kind != DM_REMAP_MAPPED || next->second.spare == piece.spare + (end - start));
         ++next) {
        end = next->second.end;
    }
    require(sector + e.length <= end, "answer beyond a record");
    require(e.kind != DM_REMAP_MAPPED || e.spare == piece.spare + (sector - start),
            "place on the spare");
}

void check_lookups(Metadata& md, const PieceMap& records, std::uint64_t sectors) {
    std::vector<std::uint64_t> edges = {0, DM_REMAP_REGION_SECTORS, sectors / 2, sectors - 1};
    for (const auto& [start, piece] : records) {
        edges.insert(edges.end(), {start, start + (piece.end - start) / 2, piece.end});
    }
    for (const std::uint64_t edge : edges) {
        for (const std::uint64_t sector : {edge - 1, edge, edge + 1}) {
            if (sector < sectors) {
                check_lookup(md, records, sector, 1);
                check_lookup(md, records, sector, sectors - sector);
            }
        }
    }
}

// A range that no record has, in whole logical blocks; 0: there is none of that length.
std::uint64_t free_place(const PieceMap& records, std::uint64_t sectors, std::uint32_t g) {
    std::uint64_t place = g;
    for (const auto& [start, piece] : records) {
        if (start >= place + g) {
            break;
        }
        place = std::max(place, piece.end);
    }
    return place + g <= sectors ? place : 0;
}

// Is there a slot of the journal that can be read in neither copy? When the journal comes to end
// there it cannot be proved that it does.
bool has_lost_slot(Metadata& md) {
    const dm_remap_layout& layout = md->sb.layout;
    for (std::uint64_t s = 0; s < layout.journal_blocks; s++) {
        if (!md.disk().readable(dm_remap_journal_at(&layout, 0, s)) &&
            !md.disk().readable(dm_remap_journal_at(&layout, 1, s))) {
            return true;
        }
    }
    return false;
}

// Its numbers have come to their end, and nothing is written any more.
bool ended(Metadata& md) {
    constexpr std::uint64_t kLast = DM_REMAP_MAX_NUMBER - 8;
    return md->sb.generation >= kLast || md->sb.activation >= kLast || md->next_sequence >= kLast;
}

int commit_one(Metadata& md, std::uint8_t kind, std::uint64_t main, std::uint64_t spare) {
    dm_remap_record r{};
    r.kind = kind;
    r.reason = kind == DM_REMAP_CLEAR ? 0 : DM_REMAP_REASON_MANUAL;
    r.main = main;
    r.spare = spare;
    r.length = md->sb.layout.granularity;
    return dm_remap_commit(md.get(), &r, 1);
}

}  // namespace

void check_memory(Metadata& md, const Reading& reading) {
    const PieceMap records = records_of(md->table);
    const PieceMap retired = records_of(md->retired);
    require(records == reading.main.records(), "records are not what the spare says");
    require(retired == reading.retired.records(), "retired ranges are not what the spare says");
    require(md->main_sectors == reading.main_sectors, "length of the mapped device");
    check_totals(md, records, retired);
    check_allocator(md, reading, records, retired);
    if (reading.main_sectors != 0) {
        check_lookups(md, records, reading.main_sectors);
    }
}

void check_reload(Metadata& md, const char* when) {
    Metadata again(md.disk());
    const int ret = again.load(md->main_sectors);
    if (ret != 0) {
        wrong(std::string(when) + ", and then it is refused: " + again.report.refusal);
    }
    if (records_of(md->table) != records_of(again->table) ||
        records_of(md->retired) != records_of(again->retired)) {
        wrong(std::string(when) + ", and then it says something else");
    }
    require(md->next_sequence == again->next_sequence, "sequence after a reload");
    const Reading reading = read_disk(md.disk(), md->main_sectors);
    if (!reading.refusal.empty()) {
        wrong(std::string(when) + ", and then it breaks the format: " + reading.refusal);
    }
    check_memory(again, reading);
}

void check_use(Metadata& md) {
    if (has_lost_slot(md)) {
        return;
    }
    const std::uint32_t g = md->sb.layout.granularity;
    const std::uint64_t place = free_place(records_of(md->table), md->main_sectors, g);
    std::uint64_t spare = 0;
    std::uint32_t taken = 0;
    if (place != 0 && dm_remap_alloc_take(&md->alloc, g, &spare, &taken) == 0) {
        const int ret = commit_one(md, DM_REMAP_MAPPED, place, spare);
        require(ret == 0 || ret == -ENOSPC || ended(md), "a record cannot be made");
        if (ret != 0) {
            dm_remap_alloc_release(&md->alloc, spare, taken);
        }
    }
    if (md->main_sectors >= g) {
        require(commit_one(md, DM_REMAP_CLEAR, 0, 0) == 0 || ended(md),
                "a range cannot be cleared");
    }
    check_reload(md, "records were made and cleared");
    if (ended(md)) {
        return;
    }
    require(dm_remap_checkpoint(md.get(), DM_REMAP_STATE_DIRTY) == 0, "it cannot be saved");
    check_reload(md, "it was saved");
    bool healed = true;
    require(dm_remap_restore(md.get(), md.disk().sectors(), &healed) == 0 && !healed,
            "restore finds something wrong after a save");
    require(dm_remap_deactivate(md.get()) == 0, "it cannot be stopped");
    check_reload(md, "it was stopped");
}

}  // namespace remap::fuzz

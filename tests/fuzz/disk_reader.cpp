#include "disk_reader.h"

#include <algorithm>
#include <array>

namespace remap::fuzz {

// ---- pieces ----

void Pieces::clear(std::uint64_t start, std::uint64_t end) {
    auto it = at_.upper_bound(start);
    if (it != at_.begin()) {
        --it;
    }
    while (it != at_.end() && it->first < end) {
        const auto [first, piece] = *it;
        if (piece.end <= start) {
            ++it;
            continue;
        }
        it = at_.erase(it);
        if (first < start) {
            at_[first] = {start, piece.kind, piece.reason, piece.spare, piece.flags};
        }
        if (piece.end > end) {
            const std::uint64_t moved = piece.kind == DM_REMAP_MAPPED ? end - first : 0;
            at_[end] = {piece.end, piece.kind, piece.reason, piece.spare + moved, piece.flags};
        }
    }
}

void Pieces::set(std::uint64_t start, const Piece& piece) {
    clear(start, piece.end);
    at_[start] = piece;
}

std::map<std::uint64_t, Piece> Pieces::records() const {
    constexpr std::uint64_t kTebibyte = 1ULL << 31;
    std::map<std::uint64_t, Piece> all;
    for (const auto& [start, piece] : at_) {
        if (!all.empty()) {
            auto& [from, last] = *all.rbegin();
            const bool follows =
                piece.kind != DM_REMAP_MAPPED || last.spare + (last.end - from) == piece.spare;
            if (last.end == start && last.kind == piece.kind && last.reason == piece.reason &&
                last.flags == piece.flags && follows && start % kTebibyte != 0) {
                last.end = piece.end;
                continue;
            }
        }
        all[start] = piece;
    }
    return all;
}

bool Pieces::overlaps(std::uint64_t start, std::uint64_t end) const {
    auto it = at_.upper_bound(start);
    if (it != at_.begin() && std::prev(it)->second.end > start) {
        return true;
    }
    return it != at_.end() && it->first < end;
}

// ---- blocks ----

namespace {

constexpr std::uint64_t kHeader = 64;
constexpr std::uint64_t kEntry = 32;
constexpr std::uint64_t kMaxEntries = 126;
constexpr std::uint64_t kClean = 2;  // state
constexpr std::uint64_t kReserveBlocks = 4;
constexpr std::uint64_t kMostSectors = 1ULL << 46;
enum : std::uint8_t { kMapped = 1, kPending = 2, kRetired = 3, kClear = 16, kCounter = 17 };

using Block = std::array<std::uint8_t, kBlock>;

std::uint64_t number(const std::uint8_t* at, unsigned size) {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        value |= std::uint64_t{at[i]} << (8 * i);
    }
    return value;
}

// One block as it was read, with the fields of the header that every block has.
struct Raw {
    explicit Raw(const std::uint8_t* bytes) { std::copy_n(bytes, kBlock, data.begin()); }

    std::uint64_t field(unsigned offset, unsigned size) const {
        return number(data.data() + offset, size);
    }
    std::uint64_t place() const { return field(24, 8); }
    std::uint64_t sequence() const { return field(32, 8); }
    std::uint64_t activation() const { return field(40, 8); }
    std::uint32_t chain() const { return static_cast<std::uint32_t>(field(48, 4)); }
    unsigned count() const { return static_cast<unsigned>(field(52, 2)); }
    unsigned type() const { return data[54]; }
    unsigned version() const { return data[55]; }
    std::uint64_t device_blocks() const { return field(56, 8); }
    bool same_uuid(const Raw& other) const {
        return std::equal(data.begin() + 8, data.begin() + 24, other.data.begin() + 8);
    }
    bool crc_right(std::size_t size) const {
        Block copy = data;
        std::fill_n(copy.begin() + 4, 4, 0);
        return std::equal(data.begin(), data.begin() + 4, "dmRM") &&
               field(4, 4) == libdeflate_crc32(0, copy.data(), size);
    }
    std::uint32_t chain_value(std::uint64_t at) const {
        Block copy = data;
        std::fill_n(copy.begin() + 4, 4, 0);
        for (unsigned i = 0; i < 8; i++) {
            copy[24 + i] = at >> (8 * i) & 0xff;
        }
        return libdeflate_crc32(0, copy.data(), copy.size());
    }

    Block data;
};

struct Super {
    Raw raw;
    std::uint64_t D, J, T, granularity, start, activation_sequence;

    explicit Super(const Raw& r)
        : raw(r),
          D(r.device_blocks()),
          J(r.field(80, 4)),
          T(r.field(84, 4)),
          granularity(r.field(88, 4)),
          start(r.field(112, 8)),
          activation_sequence(r.field(352, 8)) {}

    std::uint64_t generation() const { return raw.sequence(); }
    unsigned state() const { return static_cast<unsigned>(raw.field(76, 4)); }
    std::uint64_t active_table() const { return raw.field(92, 1); }
    unsigned copies() const { return static_cast<unsigned>(raw.field(93, 1)); }
    std::uint64_t table_count() const { return raw.field(96, 4); }
    std::uint64_t records() const { return raw.field(104, 8); }

    std::uint64_t journal_at(unsigned replica, std::uint64_t s) const {
        return (replica == 0 ? 1 : D - 1 - 2 * T - J) + s % J;
    }
    std::uint64_t table_at(unsigned replica) const {
        return (replica == 0 ? 1 + J : D - 1 - 2 * T) + active_table() * T;
    }
    std::uint64_t data_start() const { return (1 + J + 2 * T) * DM_REMAP_BLOCK_SECTORS; }
    std::uint64_t data_end() const { return (D - 1 - 2 * T - J) * DM_REMAP_BLOCK_SECTORS; }

    // Can it be? A superblock that cannot counts as damaged.
    bool plausible() const {
        const bool geometry =
            J >= 16 && J <= 4096 && T > kReserveBlocks && T < (1U << 20) &&
            (granularity == 1 || granularity == 2 || granularity == 4 || granularity == 8) &&
            D < (1ULL << 52) && 2 * (1 + J + 2 * T) < D;
        return geometry && active_table() <= 1 && copies() >= 1 && copies() <= 3 &&
               table_count() <= T && records() <= T * kMaxEntries &&
               table_count() == (records() + kMaxEntries - 1) / kMaxEntries && start >= J &&
               start < (1ULL << 63) && generation() < (1ULL << 63) &&
               raw.activation() < (1ULL << 63) && raw.field(120, 8) < (1ULL << 54) &&
               raw.field(128, 8) <= raw.field(120, 8);
    }
};

struct Refused {
    std::string why;
};

[[noreturn]] void refuse(const char* why) {
    throw Refused{why};
}

class Reader {
  public:
    Reader(const MemoryDisk& disk, std::uint64_t main_sectors, Reading& reading)
        : disk_(disk), main_sectors_(main_sectors), out_(reading) {}

    void run() {
        const Super super = choose_super();
        out_.granularity = super.granularity;
        out_.generation = super.generation();
        out_.main_sectors =
            main_sectors_ != 0
                ? main_sectors_
                : std::min(super.raw.field(120, 8) - super.raw.field(128, 8), kMostSectors);
        out_.data_start = super.data_start();
        out_.data_end = super.data_end();
        read_table(super);
        replay(super);
        check_spare_ranges(super);
    }

  private:
    std::optional<Raw> read(std::uint64_t at) const {
        if (at >= disk_.blocks() || !disk_.readable(at)) {
            return std::nullopt;
        }
        return Raw(disk_.bytes.data() + at * kBlock);
    }

    // ---- superblocks ----

    // Nothing if it is damaged, foreign, misplaced or cannot be read.
    std::optional<Super> super_at(std::uint64_t at) const {
        const std::optional<Raw> raw = read(at);
        if (!raw || !raw->crc_right(kSector)) {
            return std::nullopt;
        }
        if (raw->version() != 1) {
            refuse("newer version");
        }
        if (raw->type() != 1 || raw->place() != at) {
            return std::nullopt;
        }
        const Super super(*raw);
        if (raw->field(72, 4) > 1) {
            refuse("unknown features");
        }
        return super.plausible() ? std::optional(super) : std::nullopt;
    }

    std::uint64_t tail(const std::optional<Super>& head) const {
        if (head) {
            return head->D - 1;
        }
        for (std::uint64_t at = 1; at <= 16; at++) {
            const std::optional<Raw> raw = read(at);
            if (raw && raw->crc_right(kBlock) && raw->type() == 2 && raw->place() == at) {
                // A spare of no blocks: as good as no answer.
                return (raw->device_blocks() != 0 ? raw->device_blocks() : disk_.blocks()) - 1;
            }
        }
        return disk_.blocks() - 1;
    }

    Super choose_super() {
        if (disk_.blocks() < 2) {
            refuse("too small");
        }
        const std::optional<Super> head = super_at(0);
        const std::optional<Super> end = super_at(tail(head));
        if (!head && !end) {
            refuse("no superblock");
        }
        if (head && end) {
            check_pair(*head, *end);
        }
        const Super& super = !end || (head && !newer(*end, *head)) ? *head : *end;
        oldest_start_ = super.start;
        if (head && end) {
            oldest_start_ = std::min(head->start, end->start);
            lags_ = {head->generation() < end->generation(),
                     end->generation() < head->generation()};
        }
        if (super.state() == 1) {
            refuse("half formatted");
        }
        if (super.D > disk_.blocks()) {
            refuse("part of the spare is missing");
        }
        return super;
    }

    static bool newer(const Super& a, const Super& b) {
        return a.generation() > b.generation() ||
               (a.generation() == b.generation() && a.raw.activation() > b.raw.activation());
    }

    static void check_pair(const Super& a, const Super& b) {
        if (!a.raw.same_uuid(b.raw)) {
            refuse("two UUIDs");
        }
        const std::uint64_t low = std::min(a.generation(), b.generation());
        const std::uint64_t high = std::max(a.generation(), b.generation());
        if (high - low > 1 || a.D != b.D || a.J != b.J || a.T != b.T ||
            a.granularity != b.granularity) {
            refuse("different times");
        }
        if (high == low && !same_but_place(a.raw, b.raw) && !both_activated(a.raw, b.raw)) {
            refuse("contradiction");
        }
    }

    // What has a meaning in the first 512 bytes: but for crc and place.
    static bool same_but_place(const Raw& a, const Raw& b) {
        const auto same = [&](unsigned from, unsigned to) {
            return std::equal(a.data.begin() + from, a.data.begin() + to, b.data.begin() + from);
        };
        // The last byte of the name terminates it.
        return same(32, 52) && same(64, 94) && same(96, 145) && same(152, 231) &&
               same(232, 248 + 8 * 5) && same(344, 368);
    }

    // Other nonces, and all the same that tells of records.
    static bool both_activated(const Raw& a, const Raw& b) {
        const auto same = [&](unsigned from, unsigned to) {
            return std::equal(a.data.begin() + from, a.data.begin() + to, b.data.begin() + from);
        };
        return !same(360, 368) && same(32, 40) && same(48, 52) && same(64, 76) && same(80, 94) &&
               same(96, 120) && same(232, 240) && same(248, 248 + 8 * 5) && same(344, 352);
    }

    // ---- blocks of this spare ----

    bool valid(const std::optional<Raw>& raw, unsigned type, const Super& super,
               std::uint64_t at) const {
        return raw && raw->crc_right(kBlock) && raw->version() == 1 && raw->type() == type &&
               raw->place() == at && raw->same_uuid(super.raw) && raw->count() <= kMaxEntries &&
               raw->device_blocks() == super.D;
    }

    // ---- table ----

    // The copies of a block may differ, and both be whole. One of the two copies makes the table
    // that the superblock names.
    void read_table(const Super& super) {
        const auto before = out_;
        try {
            read_table_once(super);
        } catch (const Refused&) {
            out_ = before;
            next_main_ = next_retired_ = 0;
            prefer_ = 1;
            read_table_once(super);
        }
    }

    void read_table_once(const Super& super) {
        std::uint32_t crc = 0;
        std::uint64_t records = 0;
        for (std::uint64_t i = 0; i < super.table_count(); i++) {
            const Raw block = table_block(super, i);
            const std::uint64_t first = 1 + super.J + super.active_table() * super.T;
            const std::uint32_t chain = block.chain_value(first + i);
            std::array<std::uint8_t, 4> little{};
            for (unsigned k = 0; k < 4; k++) {
                little[k] = chain >> (8 * k) & 0xff;
            }
            crc = libdeflate_crc32(crc, little.data(), little.size());
            records += block.count();
            read_records(super, block);
        }
        if (crc != super.raw.field(100, 4)) {
            refuse("another table");
        }
        if (records != super.records()) {
            refuse("another number of records");
        }
    }

    Raw table_block(const Super& super, std::uint64_t i) const {
        for (const unsigned r : {prefer_, 1 - prefer_}) {
            const std::uint64_t at = super.table_at(r) + i;
            const std::optional<Raw> raw = read(at);
            if ((super.copies() >> r & 1) != 0 && valid(raw, 3, super, at) &&
                raw->sequence() == super.raw.field(344, 8) && raw->chain() == i) {
                return *raw;
            }
        }
        refuse("table block lost");
    }

    void read_records(const Super& super, const Raw& block) {
        for (unsigned k = 0; k < block.count(); k++) {
            const std::uint8_t* entry = block.data.data() + kHeader + kEntry * k;
            const std::uint8_t kind = entry[20];
            if (kind != kMapped && kind != kPending && kind != kRetired) {
                refuse("no record");
            }
            check_entry(super, entry);
            const bool retired = kind == kRetired;
            const std::uint64_t start = number(entry + (retired ? 8 : 0), 8);
            std::uint64_t& next = retired ? next_retired_ : next_main_;
            if (start < next) {
                refuse("out of order");
            }
            next = start + number(entry + 16, 4);
            apply(entry);
        }
    }

    // ---- entries ----

    static bool fits(std::uint64_t start, std::uint64_t length, std::uint64_t lo, std::uint64_t hi,
                     std::uint64_t granularity) {
        return length != 0 && start >= lo && start < hi && length <= hi - start &&
               start % granularity == 0 && length % granularity == 0;
    }

    void check_entry(const Super& super, const std::uint8_t* entry) const {
        const std::uint64_t main = number(entry, 8);
        const std::uint64_t spare = number(entry + 8, 8);
        const std::uint64_t length = number(entry + 16, 4);
        const std::uint8_t kind = entry[20];
        const std::uint8_t reason = entry[21];
        const bool sets = kind >= kMapped && kind <= kRetired;
        const bool may_be_unreadable = kind == kMapped && (super.raw.field(72, 4) & 1) != 0;
        if ((!sets && kind != kClear && kind != kCounter) ||
            number(entry + 22, 2) > (may_be_unreadable ? 1 : 0) ||
            (sets ? reason < 1 || reason > 5 : reason != 0)) {
            refuse("no entry");
        }
        const bool main_fits = fits(main, length, 0, out_.main_sectors, super.granularity);
        const bool spare_fits =
            fits(spare, length, super.data_start(), super.data_end(), super.granularity);
        if ((kind == kMapped && !(main_fits && spare_fits)) ||
            ((kind == kPending || kind == kClear) && !(main_fits && spare == 0)) ||
            (kind == kRetired && !(spare_fits && main == 0)) || (kind == kCounter && spare != 0)) {
            refuse("out of bounds");
        }
    }

    void apply(const std::uint8_t* entry) {
        const std::uint64_t main = number(entry, 8);
        const std::uint64_t spare = number(entry + 8, 8);
        const std::uint64_t length = number(entry + 16, 4);
        switch (entry[20]) {
            case kMapped:
            case kPending:
                out_.main.set(main, {main + length, entry[20], entry[21], spare, entry[22]});
                break;
            case kRetired:
                out_.retired.set(spare, {spare + length, entry[20], entry[21], 0});
                break;
            case kClear:
                out_.main.clear(main, main + length);
                break;
            default:
                break;
        }
    }

    // ---- journal ----

    bool of_sequence(const Super& super, const std::optional<Raw>& raw, unsigned r,
                     std::uint64_t s) const {
        return valid(raw, 2, super, super.journal_at(r, s)) && raw->sequence() == s &&
               (s < super.activation_sequence || raw->activation() >= super.raw.activation());
    }

    bool holds(const Super& super, const std::optional<Raw>& raw, unsigned r,
               std::uint64_t s) const {
        return of_sequence(super, raw, r, s) && raw->count() != 0;
    }

    // The block that counts for sequence @s; nothing: the end.
    std::optional<Raw> commit(const Super& super, std::uint64_t s) const {
        std::array<std::optional<Raw>, 2> copy;
        std::array<bool, 2> good{};
        for (unsigned r = 0; r < 2; r++) {
            copy[r] = read(super.journal_at(r, s));
            good[r] = holds(super, copy[r], r, s);
        }
        if (good[0] && good[1]) {
            if (copy[0]->activation() != copy[1]->activation()) {
                return copy[copy[1]->activation() > copy[0]->activation() ? 1 : 0];
            }
            const std::uint64_t at = super.journal_at(0, s);
            if (copy[0]->chain_value(at) != copy[1]->chain_value(at)) {
                refuse("contradicting copies");
            }
        }
        if (good[0] || good[1]) {
            return copy[good[0] ? 0 : 1];
        }
        if (!copy[0] && !copy[1]) {
            refuse("unreadable in both");
        }
        return std::nullopt;
    }

    void check_versions(const Super& super) const {
        for (unsigned r = 0; r < 2; r++) {
            for (std::uint64_t i = 0; i < super.J; i++) {
                const std::optional<Raw> raw = read(super.journal_at(r, i));
                if (raw && raw->crc_right(kBlock) && raw->version() != 1) {
                    refuse("newer version");
                }
            }
        }
    }

    void replay(const Super& super) {
        check_versions(super);
        std::uint32_t chain = super.raw.chain();
        std::uint64_t activation = 0;
        std::uint64_t s = super.start;
        for (; s < super.start + super.J; s++) {
            const std::optional<Raw> block = commit(super, s);
            if (!block) {
                break;
            }
            const std::uint64_t own = block->activation();
            const bool latest = s >= super.activation_sequence;
            if (block->chain() != chain || own < activation ||
                (latest ? own != super.raw.activation() : own >= super.raw.activation())) {
                refuse("broken chain");
            }
            for (unsigned k = 0; k < block->count(); k++) {
                const std::uint8_t* entry = block->data.data() + kHeader + kEntry * k;
                check_entry(super, entry);
                apply(entry);
            }
            activation = own;
            chain = block->chain_value(super.journal_at(0, s));
        }
        out_.next_sequence = s;
        check_times(super, s);
        if (s < super.activation_sequence) {
            refuse("fewer sequences than the activation found");
        }
        check_end(super, s, chain);
        if (s < super.start + super.J) {
            check_withdrawn(super, s);
        }
    }

    // Two things that one end lacks, of what the other had last, are more than a crash leaves.
    void check_times(const Super& super, std::uint64_t end) const {
        for (unsigned r = 0; r < 2; r++) {
            unsigned lacks = 0;
            for (std::uint64_t s = end; s-- > oldest_start_ && s + super.J >= super.start;) {
                const std::uint64_t at = super.journal_at(r, s);
                const std::optional<Raw> raw = read(at);
                if (holds(super, raw, r, s)) {
                    break;
                }
                const unsigned other = 1 - r;
                lacks += holds(super, read(super.journal_at(other, s)), other, s) &&
                         valid(raw, 2, super, at) && raw->sequence() % super.J == s % super.J &&
                         raw->sequence() < s;
            }
            if (lacks + lags_[r] > 1) {
                refuse("ends of two times");
            }
        }
    }

    // What may be where a copy cannot be read, beside a withdrawal.
    void check_withdrawn(const Super& super, std::uint64_t end) const {
        for (unsigned r = 0; r < 2 && super.raw.field(76, 4) != kClean; r++) {
            const std::optional<Raw> raw = read(super.journal_at(r, end));
            const bool fellow = read(super.journal_at(1 - r, end)).has_value();
            if (fellow || !of_sequence(super, raw, r, end) || raw->count() != 0) {
                continue;
            }
            for (unsigned k = 0; k < kMaxEntries; k++) {
                const std::uint8_t* entry = raw->data.data() + kHeader + kEntry * k;
                if (entry[20] == 0) {
                    break;
                }
                check_entry(super, entry);
            }
        }
    }

    void check_end(const Super& super, std::uint64_t end, std::uint32_t chain) const {
        for (unsigned r = 0; r < 2; r++) {
            for (std::uint64_t i = 0; i < super.J; i++) {
                const std::uint64_t at = super.journal_at(r, i);
                const std::optional<Raw> raw = read(at);
                if (valid(raw, 2, super, at) && raw->sequence() % super.J == i &&
                    raw->sequence() > end) {
                    refuse("a hole in the journal");
                }
            }
            const std::optional<Raw> last = read(super.journal_at(r, end));
            if (of_sequence(super, last, r, end) && last->count() == 0 && last->chain() != chain) {
                refuse("a withdrawal that follows something else");
            }
        }
    }

    // ---- the spare's data sectors ----

    void check_spare_ranges(const Super& super) {
        const auto records = out_.main.records();
        const auto retired = out_.retired.records();
        if (records.size() + retired.size() > super.T * kMaxEntries) {
            refuse("no room");
        }
        Pieces taken = out_.retired;
        for (const auto& [start, piece] : records) {
            if (piece.kind != kMapped) {
                continue;
            }
            const std::uint64_t end = piece.spare + (piece.end - start);
            if (taken.overlaps(piece.spare, end)) {
                refuse("two records at one place");
            }
            taken.set(piece.spare, {end, kMapped, 1, 0});
        }
    }

    const MemoryDisk& disk_;
    std::uint64_t main_sectors_;
    Reading& out_;
    unsigned prefer_ = 0;  // the copy of the table that is looked at first
    std::uint64_t next_main_ = 0;
    std::uint64_t next_retired_ = 0;
    std::uint64_t oldest_start_ = 0;
    std::array<bool, 2> lags_{};
};

}  // namespace

Reading read_disk(const MemoryDisk& disk, std::uint64_t main_sectors) {
    Reading reading;
    try {
        Reader(disk, main_sectors, reading).run();
    } catch (const Refused& refused) {
        reading.refusal = refused.why;
    }
    return reading;
}

}  // namespace remap::fuzz

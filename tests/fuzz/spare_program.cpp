#include "spare_program.h"

#include <algorithm>
#include <random>
#include <set>

#include "base_images.h"

namespace remap::fuzz {
namespace {

constexpr std::size_t kMaxEdits = 64;
constexpr unsigned kReplicas = DM_REMAP_REPLICAS;

struct Field {
    std::size_t offset;
    std::size_t size;
};

constexpr Field kHeaderFields[] = {{32, 8}, {40, 8}, {48, 4}, {52, 2}, {24, 8}, {54, 1},
                                   {55, 1}, {56, 8}, {8, 8},  {0, 4},  {4, 4}};
constexpr Field kSuperFields[] = {
    {32, 8},  {40, 8},  {48, 4},  {52, 2},  {24, 8},  {54, 1},  {55, 1},  {56, 8},  {8, 8},
    {64, 4},  {68, 4},  {72, 4},  {76, 4},  {80, 4},  {84, 4},  {88, 4},  {92, 1},  {93, 1},
    {96, 4},  {100, 4}, {104, 8}, {112, 8}, {120, 8}, {128, 8}, {136, 8}, {144, 1}, {152, 8},
    {168, 8}, {224, 8}, {232, 8}, {240, 8}, {248, 8}, {336, 8}, {344, 8}, {352, 8}, {360, 8}};
constexpr Field kEntryFields[] = {{0, 8}, {8, 8}, {16, 4}, {20, 1}, {21, 1}, {22, 2}, {24, 8}};

std::uint64_t get(const std::uint8_t* at, std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, at, size);
    return le64toh(value);
}

void put(std::uint8_t* at, std::size_t size, std::uint64_t value) {
    value = htole64(value);
    std::memcpy(at, &value, size);
}

class Editor {
  public:
    Editor(const ProgramHeader& header, const BaseImage& base) : header_(header) {
        disk_.bytes = base.bytes;
        require(dm_remap_super_decode(&sb_, disk_.bytes.data(), 0) == DM_REMAP_VALID, "base");
        next_ = sb_.journal_start;
        while (get(journal_block(0, next_) + 32, 8) == next_) {
            next_++;
        }
    }

    void apply(const Edit& edit) {
        const unsigned replicas = (edit.where & 3) != 0 ? edit.where & 3 : 3;
        for (unsigned r = 0; r < kReplicas; r++) {
            if ((replicas >> r & 1) != 0) {
                apply_to(edit, r);
            }
        }
        const auto verb = static_cast<Verb>(edit.verb % static_cast<unsigned>(Verb::kVerbs));
        next_ += verb == Verb::commit ? 1 : 0;
        if (verb == Verb::resize) {
            size_change_ += static_cast<std::int8_t>(edit.index);
        }
    }

    std::uint32_t granularity() const { return sb_.layout.granularity; }

    MemoryDisk finish() {
        repair();
        const std::int64_t blocks = static_cast<std::int64_t>(disk_.blocks()) + size_change_;
        disk_.bytes.resize(static_cast<std::size_t>(std::max<std::int64_t>(blocks, 0)) * kBlock);
        if (header_.fails_at != 0) {
            disk_.fail_from = header_.fails_at - 1;
        }
        return std::move(disk_);
    }

  private:
    std::uint8_t* block(std::uint64_t at) { return disk_.bytes.data() + at * kBlock; }
    std::uint8_t* journal_block(unsigned r, std::uint64_t sequence) {
        return block(dm_remap_journal_at(&sb_.layout, static_cast<int>(r), sequence));
    }
    std::uint64_t super_at(unsigned r) const {
        return dm_remap_superblock_at(&sb_.layout, static_cast<int>(r));
    }

    // The block that @edit is about, in replica @r. Areas: the table that the base image uses, the
    // last commits, the other table, the whole ring.
    std::uint64_t place(const Edit& edit, unsigned r) const {
        const int replica = static_cast<int>(r);
        const unsigned area = edit.where >> 2 & 3;
        if (area == 1) {
            return dm_remap_journal_at(&sb_.layout, replica, next_ - 1 - edit.index % 4);
        }
        if (area == 3) {
            return dm_remap_journal_at(&sb_.layout, replica, edit.index);
        }
        const int table = area == 0 ? sb_.active_table : !sb_.active_table;
        return dm_remap_table_at(&sb_.layout, replica, table) +
               edit.index % sb_.layout.table_blocks;
    }

    void touch(const Edit& edit, std::uint64_t at) {
        if ((edit.where & 0x20) == 0) {
            touched_.insert(at);
        }
    }

    template <std::size_t N>
    void set_field(const Edit& edit, std::uint8_t* base, const Field (&fields)[N]) {
        const Field& field = fields[edit.field % N];
        std::uint64_t value = get(edit.value, 8);
        if ((edit.where & 0x10) != 0) {
            value += get(base + field.offset, field.size);
        }
        put(base + field.offset, field.size, value);
    }

    std::uint8_t* entry(const Edit& edit, std::uint64_t at) {
        const unsigned n = edit.entry % DM_REMAP_ENTRIES_PER_BLOCK;
        return block(at) + sizeof(dm_remap_disk_header) + n * sizeof(dm_remap_disk_entry);
    }

    void apply_to(const Edit& edit, unsigned r) {
        const std::uint64_t at = place(edit, r);
        switch (static_cast<Verb>(edit.verb % static_cast<unsigned>(Verb::kVerbs))) {
            case Verb::super_field:
                set_field(edit, block(super_at(r)), kSuperFields);
                touch(edit, super_at(r));
                break;
            case Verb::header_field:
                set_field(edit, block(at), kHeaderFields);
                touch(edit, at);
                break;
            case Verb::entry_field:
                set_field(edit, entry(edit, at), kEntryFields);
                touch(edit, at);
                break;
            case Verb::record:
                put_record(edit, at);
                touch(edit, at);
                break;
            case Verb::commit:
                put_commit(edit, r);
                break;
            case Verb::fill:
                fill(edit, (edit.where >> 2 & 3) == 2 ? super_at(r) : at);
                break;
            case Verb::byte:
                block(at)[get(edit.value, 2) % kBlock] ^= edit.entry;
                touch(edit, at);
                break;
            case Verb::other_time:
                from_other_time(edit, r);
                break;
            case Verb::resize:
            case Verb::kVerbs:
                break;
        }
    }

    // Small numbers of whole logical blocks, at a place that exists.
    void put_record(const Edit& edit, std::uint64_t at) {
        constexpr std::uint8_t kKinds[] = {DM_REMAP_MAPPED,  DM_REMAP_PENDING, DM_REMAP_MAPPED,
                                           DM_REMAP_RETIRED, DM_REMAP_CLEAR,   DM_REMAP_COUNTER};
        const std::uint32_t g = sb_.layout.granularity;
        const std::uint64_t data = dm_remap_data_start(&sb_.layout);
        dm_remap_record r{};
        r.kind = kKinds[edit.field % std::size(kKinds)];
        const bool set = r.kind < DM_REMAP_CLEAR;
        const bool spare = r.kind == DM_REMAP_MAPPED || r.kind == DM_REMAP_RETIRED;
        r.main = get(edit.value, 2) * g;
        r.spare = spare ? data + get(edit.value + 2, 2) * g : 0;
        r.length = static_cast<std::uint32_t>((get(edit.value + 4, 2) + 1) * g);
        r.reason = set ? 1 + edit.value[6] % DM_REMAP_REASON_MAX : 0;
        r.flags = r.kind == DM_REMAP_MAPPED && edit.value[6] >= 128 ? DM_REMAP_F_UNREADABLE : 0;
        r.first_time = set ? edit.value[7] : 0;
        r.last_time = r.first_time;
        if (r.kind == DM_REMAP_RETIRED) {
            r.main = 0;
        }
        if (r.kind == DM_REMAP_COUNTER) {
            r.length = edit.value[4];
        }
        auto* header = reinterpret_cast<dm_remap_disk_header*>(block(at));
        const unsigned n = edit.entry % DM_REMAP_ENTRIES_PER_BLOCK + 1;
        dm_remap_entry_encode(reinterpret_cast<dm_remap_disk_entry*>(entry(edit, at)), &r);
        // A table block that is empty so far is made one, so that tables can grow.
        if (header->magic == 0) {
            dm_remap_header_fill(header, DM_REMAP_TABLE, &sb_, sb_.table_generation,
                                 edit.index % sb_.layout.table_blocks, 0);
        }
        if (le16_to_cpu(header->count) < n) {
            header->count = cpu_to_le16(n);
        }
    }

    void put_commit(const Edit& edit, unsigned r) {
        auto* journal = reinterpret_cast<dm_remap_disk_block*>(journal_block(r, next_));
        std::memset(journal, 0, sizeof(*journal));
        dm_remap_header_fill(&journal->header, DM_REMAP_JOURNAL, &sb_, next_, 0, 0);
        journal->header.activation =
            cpu_to_le64(sb_.activation + static_cast<std::int8_t>(edit.field));
        touch(edit, dm_remap_journal_at(&sb_.layout, static_cast<int>(r), next_));
    }

    void fill(const Edit& edit, std::uint64_t at) {
        switch (edit.field % 4) {
            case 0:
                std::memset(block(at), 0, kBlock);
                break;
            case 1: {
                std::minstd_rand random(edit.entry);
                std::generate_n(block(at), kBlock, [&] { return random(); });
                break;
            }
            case 2:
                std::memmove(block(at), block(get(edit.value, 8) % disk_.blocks()), kBlock);
                break;
            default:
                disk_.make_unreadable(at);
        }
        if (edit.field % 4 != 0) {
            touched_.erase(at);
        }
    }

    void from_other_time(const Edit& edit, unsigned r) {
        const Bytes& other = base_images()[edit.index % base_images().size()].bytes;
        const auto copy = [&](std::uint64_t at, std::uint64_t n) {
            std::memcpy(block(at), other.data() + at * kBlock, n * kBlock);
        };
        const int replica = static_cast<int>(r);
        if ((edit.field & 1) == 0) {
            copy(super_at(r), 1);
        }
        if ((edit.field & 2) == 0) {
            copy(dm_remap_journal_at(&sb_.layout, replica, 0), sb_.layout.journal_blocks);
        }
        if ((edit.field & 4) == 0) {
            copy(dm_remap_table_at(&sb_.layout, replica, 0), 2 * sb_.layout.table_blocks);
        }
    }

    // ---- what the edits have put wrong, put right ----

    void repair() {
        // Each journal block's CRC is its successor's chain, and the first of them follows what
        // the superblock says.
        for (unsigned r = 0; r < kReplicas; r++) {
            if ((header_.lacks & kLacksChain) == 0) {
                repair_chain(r);
            }
        }
        for (const std::uint64_t at : touched_) {
            if (at != super_at(0) && at != super_at(1)) {
                dm_remap_block_seal(reinterpret_cast<dm_remap_disk_block*>(block(at)),
                                    get(block(at) + 24, 8) == 0 ? at : get(block(at) + 24, 8));
            }
        }
        for (unsigned r = 0; r < kReplicas; r++) {
            repair_super(r);
        }
    }

    void repair_chain(unsigned r) {
        const auto* super = reinterpret_cast<dm_remap_disk_superblock*>(block(super_at(r)));
        std::uint32_t chain = le32_to_cpu(super->header.chain);
        const std::uint64_t start = le64_to_cpu(super->journal_start);
        for (std::uint64_t s = start; s - start < sb_.layout.journal_blocks; s++) {
            auto* journal = reinterpret_cast<dm_remap_disk_block*>(journal_block(r, s));
            const std::uint64_t at = dm_remap_journal_at(&sb_.layout, static_cast<int>(r), s);
            if (le64_to_cpu(journal->header.sequence) != s) {
                break;
            }
            if (le32_to_cpu(journal->header.chain) != chain) {
                journal->header.chain = cpu_to_le32(chain);
                touched_.insert(at);
            }
            chain = dm_remap_chain_value(journal, dm_remap_journal_at(&sb_.layout, 0, s));
        }
    }

    // Who reads offline goes by this length: the directory of the table for the longest takes 128
    // MiB and its time, and records as long gigabytes, a leaf for each 4 MiB. Beyond what can be it
    // stays.
    static void limit_main(dm_remap_disk_superblock& super) {
        constexpr std::uint64_t kLong = 1ULL << 27;
        constexpr std::uint64_t kTooLong = 1ULL << 54;
        const std::uint64_t sectors = le64_to_cpu(super.main_sectors);
        if (sectors > kLong && sectors < kTooLong) {
            super.main_sectors = cpu_to_le64(sectors % kLong);
        }
    }

    // Only where a table or the superblock itself was edited: damage is to stay damage.
    void repair_super(unsigned r) {
        if (touched_.empty()) {
            return;
        }
        auto* super = reinterpret_cast<dm_remap_disk_superblock*>(block(super_at(r)));
        if (!is_super(r) && !touched_.contains(super_at(r))) {
            return;
        }
        const int table = super->active_table & 1;
        const std::uint64_t first = dm_remap_table_at(&sb_.layout, 0, table);
        const std::uint64_t own = dm_remap_table_at(&sb_.layout, static_cast<int>(r), table);
        if ((header_.lacks & kLacksCounts) == 0 && counts_touched(own)) {
            recount(*super, own);
        }
        if ((header_.lacks & kLacksTableCrc) == 0) {
            std::uint32_t crc = 0;
            const std::uint32_t n =
                std::min(le32_to_cpu(super->table_count), sb_.layout.table_blocks);
            for (std::uint32_t i = 0; i < n; i++) {
                const auto* b = reinterpret_cast<dm_remap_disk_block*>(block(own + i));
                const std::uint32_t chain = htole32(dm_remap_chain_value(b, first + i));
                crc = libdeflate_crc32(crc, &chain, sizeof(chain));
            }
            super->table_crc = cpu_to_le32(crc);
        }
        limit_main(*super);
        super->header.crc = cpu_to_le32(dm_remap_block_crc(super, sizeof(*super)));
    }

    bool is_super(unsigned r) {
        dm_remap_super sb{};
        return dm_remap_super_decode(&sb, block(super_at(r)), super_at(r)) == DM_REMAP_VALID;
    }

    bool counts_touched(std::uint64_t table) const {
        const auto from = touched_.lower_bound(table);
        return from != touched_.end() && *from < table + sb_.layout.table_blocks;
    }

    void recount(dm_remap_disk_superblock& super, std::uint64_t table) {
        std::uint64_t records = 0;
        std::uint32_t n = 0;
        while (n < sb_.layout.table_blocks) {
            const auto* b = reinterpret_cast<dm_remap_disk_block*>(block(table + n));
            const std::uint16_t count = le16_to_cpu(b->header.count);
            if (b->header.sequence != super.table_generation || count == 0) {
                break;
            }
            records += count;
            n++;
        }
        super.records = cpu_to_le64(records);
        super.table_count = cpu_to_le32(n);
    }

    const ProgramHeader& header_;
    MemoryDisk disk_;
    dm_remap_super sb_{};
    std::uint64_t next_ = 0;           // sequence
    std::set<std::uint64_t> touched_;  // blocks that get a right CRC
    std::int64_t size_change_ = 0;     // blocks
};

std::uint64_t mapped_length(const ProgramHeader& header, const BaseImage& base) {
    switch (header.main % 4) {
        case 1:
            return 0;
        case 2:
            return base.main_sectors / 2;
        case 3:
            return base.main_sectors * 3;
        default:
            return base.main_sectors;
    }
}

}  // namespace

Program run_program(std::span<const std::uint8_t> bytes) {
    ProgramHeader header{};
    std::memcpy(&header, bytes.data(), std::min(bytes.size(), sizeof(header)));
    bytes = bytes.subspan(std::min(bytes.size(), sizeof(header)));
    const BaseImage& base = base_images()[header.base % base_images().size()];
    Editor editor(header, base);
    for (std::size_t i = 0; i < kMaxEdits && bytes.size() >= sizeof(Edit); i++) {
        Edit edit{};
        std::memcpy(&edit, bytes.data(), sizeof(edit));
        bytes = bytes.subspan(sizeof(edit));
        editor.apply(edit);
    }
    return {.disk = editor.finish(),
            .main_sectors = mapped_length(header, base),
            .formatted_main = base.main_sectors,
            .granularity = editor.granularity()};
}

}  // namespace remap::fuzz

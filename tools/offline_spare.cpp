// SPDX-License-Identifier: GPL-2.0-only
#include "offline_spare.h"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core_buffer.h"

namespace remap {
namespace {

// dm_remap_table_next from the first record to the last.
void append_records(dm_remap_table& table, std::vector<dm_remap_record>& records) {
    dm_remap_record record{};
    for (u64 from = 0; dm_remap_table_next(&table, from, &record);
         from = record.main + record.length) {
        records.push_back(record);
    }
}

// What is given back is not counted: a load that comes to more has met no honest image.
class MemoryBudget {
  public:
    explicit MemoryBudget(u64 bytes) {
        left_ = bytes;
        dm_remap_zalloc_hook = [](std::size_t size) {
            // What is aligned to a page takes up to one more.
            const u64 needed = u64{size} + (size >= DM_REMAP_BLOCK_SIZE ? DM_REMAP_BLOCK_SIZE : 0);
            if (needed > left_) {
                return false;
            }
            left_ -= needed;
            return true;
        };
    }
    ~MemoryBudget() { dm_remap_zalloc_hook = nullptr; }
    MemoryBudget(const MemoryBudget&) = delete;
    MemoryBudget& operator=(const MemoryBudget&) = delete;

  private:
    static inline u64 left_ = 0;
};

}  // namespace

u64 OfflineSpare::half_of_all_memory() {
    return static_cast<u64>(sysconf(_SC_PHYS_PAGES)) * static_cast<u64>(sysconf(_SC_PAGESIZE)) / 2;
}

OfflineSpare::OfflineSpare(const BlockDevice& device, u64 memory)
    : device_(device), memory_(memory), io_(device) {
    if (dm_remap_metadata_init(&metadata_, &CoreIo::ops(), &io_) != 0) {
        throw std::bad_alloc();
    }
}

OfflineSpare::~OfflineSpare() {
    dm_remap_metadata_exit(&metadata_);
}

bool OfflineSpare::load() {
    constexpr u64 as_formatted = 0;
    const MemoryBudget budget(memory_);
    error_ = dm_remap_load(&metadata_, device_.sectors(), as_formatted, &report_);
    loaded_ = error_ == 0;
    return loaded_;
}

std::string OfflineSpare::refusal() const {
    if (report_.refusal != nullptr) {
        return report_.refusal;
    }
    return error_ == -ENOMEM ? "to hold what it claims takes more than half of all memory" : "";
}

std::string OfflineSpare::wrong_main(const dm_remap_main& main) const {
    dm_remap_report report{};
    dm_remap_check_main(&metadata_, &main, &report);
    return report.refusal != nullptr ? report.refusal : "";
}

bool OfflineSpare::older_than(const dm_remap_witness& least) const {
    dm_remap_report report{};
    return dm_remap_check_witness(&metadata_, &least, &report) != 0;
}

bool OfflineSpare::has_metadata() const {
    return std::any_of(
        std::begin(report_.replica), std::end(report_.replica), [](const auto& replica) {
            return replica.superblock == DM_REMAP_VALID || replica.superblock == DM_REMAP_DAMAGED ||
                   replica.superblock == DM_REMAP_MISPLACED || replica.superblock == DM_REMAP_NEWER;
        });
}

FoundSuperblock OfflineSpare::read_superblock(u64 block) {
    FoundSuperblock found{.block = block, .verdict = DM_REMAP_UNREADABLE, .super = {}};
    const BlockBuffer buffer = make_block_buffer();
    if (block < device_.sectors() / DM_REMAP_BLOCK_SECTORS &&
        CoreIo::ops().read(&io_, DM_REMAP_SPARE, block * DM_REMAP_BLOCK_SECTORS,
                           DM_REMAP_BLOCK_SECTORS, buffer.get()) == 0) {
        found.verdict = dm_remap_super_decode(&found.super, buffer.get(), block);
    }
    return found;
}

std::array<FoundSuperblock, DM_REMAP_REPLICAS> OfflineSpare::superblocks() {
    return {read_superblock(report_.replica[0].superblock_at),
            read_superblock(report_.replica[1].superblock_at)};
}

dm_remap_totals OfflineSpare::totals() {
    dm_remap_totals records{};
    dm_remap_totals retired{};
    dm_remap_table_totals(&metadata_.table, &records);
    dm_remap_table_totals(&metadata_.retired, &retired);
    records.records += retired.records;
    records.retired += retired.retired;
    return records;
}

u64 OfflineSpare::spare_free_sectors() {
    return dm_remap_alloc_free_sectors(&metadata_.alloc);
}

u64 OfflineSpare::spare_total_sectors() const {
    return dm_remap_alloc_total_sectors(&metadata_.alloc);
}

std::vector<dm_remap_record> OfflineSpare::records() {
    std::vector<dm_remap_record> records;
    append_records(metadata_.table, records);
    const auto retired = static_cast<std::ptrdiff_t>(records.size());
    append_records(metadata_.retired, records);
    // In memory the table of retired ranges goes by spare sector.
    std::for_each(records.begin() + retired, records.end(),
                  [](dm_remap_record& record) { std::swap(record.main, record.spare); });
    return records;
}

JournalSlot OfflineSpare::read_slot(u64 sequence) {
    JournalSlot slot{.sequence = sequence, .activation = 0, .verdict = {}, .entries = {}};
    const BlockBuffer buffer = make_block_buffer();
    for (int replica = 0; replica < DM_REMAP_REPLICAS; replica++) {
        dm_remap_verdict& verdict = slot.verdict.at(static_cast<std::size_t>(replica));
        const u64 at = dm_remap_journal_at(&super().layout, replica, sequence);
        if (CoreIo::ops().read(&io_, DM_REMAP_SPARE, at * DM_REMAP_BLOCK_SECTORS,
                               DM_REMAP_BLOCK_SECTORS, buffer.get()) != 0) {
            verdict = DM_REMAP_UNREADABLE;
            continue;
        }
        verdict = dm_remap_block_verdict(buffer.get(), DM_REMAP_JOURNAL, &super(), at);
        if (verdict == DM_REMAP_VALID && le64_to_cpu(buffer->header.sequence) != sequence) {
            verdict = DM_REMAP_MISPLACED;
        }
        const u64 activation = le64_to_cpu(buffer->header.activation);
        if (verdict != DM_REMAP_VALID || (!slot.entries.empty() && activation <= slot.activation)) {
            continue;
        }
        slot.activation = activation;
        slot.entries.resize(le16_to_cpu(buffer->header.count));
        for (std::size_t i = 0; i < slot.entries.size(); i++) {
            dm_remap_entry_decode(&slot.entries[i], &buffer->entry[i]);
        }
    }
    return slot;
}

std::vector<JournalSlot> OfflineSpare::journal() {
    std::vector<JournalSlot> slots;
    for (u64 i = 0; i < report_.replayed; i++) {
        slots.push_back(read_slot(super().journal_start + i));
    }
    return slots;
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <array>
#include <string>
#include <vector>

#include "block_device.h"
#include "core.h"
#include "core_io.h"

namespace remap {

// One superblock, as it lies on the spare.
struct FoundSuperblock {
    u64 block;  // where it was looked for
    dm_remap_verdict verdict;
    dm_remap_super super;  // filled in where the verdict is DM_REMAP_VALID
};

// A commit that is in the journal and not yet in the table.
struct JournalSlot {
    u64 sequence;
    u64 activation;
    std::array<dm_remap_verdict, DM_REMAP_REPLICAS> verdict;
    std::vector<dm_remap_record> entries;  // of the copy that counts
};

// The metadata of a spare that is not in use, loaded with the core's own code. Writes nothing.
class OfflineSpare {
  public:
    // @device must outlive it. @memory: bytes that the load may take; an image can claim anything.
    explicit OfflineSpare(const BlockDevice& device, u64 memory = half_of_all_memory());
    ~OfflineSpare();
    OfflineSpare(const OfflineSpare&) = delete;
    OfflineSpare& operator=(const OfflineSpare&) = delete;

    // False: refused, and refusal() says why.
    bool load();

    bool loaded() const { return loaded_; }
    // Empty if it did not.
    std::string refusal() const;
    // Is it the device that this spare was made for? Empty, or why not.
    std::string wrong_main(const dm_remap_main& main) const;

    const dm_remap_report& report() const { return report_; }
    // Is there anything of dm-remap on it, whole or not? After load().
    bool has_metadata() const;
    // 0 at the head; 1 at the tail. After load().
    std::array<FoundSuperblock, DM_REMAP_REPLICAS> superblocks();
    const std::vector<std::string>& log() const { return io_.log(); }

    // Once loaded.
    const dm_remap_super& super() const { return metadata_.sb; }
    dm_remap_totals totals();
    u64 spare_free_sectors();
    u64 spare_total_sectors() const;
    // Of the commit that comes next.
    u64 next_sequence() const { return metadata_.next_sequence; }
    // What every later load reaches.
    const dm_remap_witness& witness() const { return metadata_.witness; }
    bool older_than(const dm_remap_witness& least) const;
    // By main sector, then the retired ranges by spare sector.
    std::vector<dm_remap_record> records();
    std::vector<JournalSlot> journal();

  private:
    static u64 half_of_all_memory();
    FoundSuperblock read_superblock(u64 block);
    JournalSlot read_slot(u64 sequence);

    const BlockDevice& device_;
    u64 memory_;
    CoreIo io_;
    dm_remap_metadata metadata_{};
    dm_remap_report report_{};
    int error_ = 0;  // of the load
    bool loaded_ = false;
};

}  // namespace remap

// Each block of a spare's metadata is bad, one after the other, in the smallest geometry there is
// for its records: nothing is lost, what docs/on-disk-format.md promises goes on, and when the
// fault is gone all is well again.
//
// All of them, on both replicas: superblocks, the whole ring of the journal, used slots and unused,
// both tables, used blocks and unused.

#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <set>
#include <span>

#include "backing.h"
#include "block.h"
#include "bulk.h"
#include "command.h"
#include "core.h"
#include "dm_device.h"
#include "failing.h"
#include "offline.h"
#include "remap.h"

namespace remap::vm {
namespace {

constexpr uint64_t kMainSectors = 2048;
constexpr uint64_t kSpareSectors = 100 * DM_REMAP_BLOCK_SECTORS;
constexpr uint64_t kJournalBlocks = DM_REMAP_MIN_JOURNAL_BLOCKS;
// More than a block of records in the table, on sectors 0, 8, 16 ...
constexpr uint64_t kRecords = 150;
// A part of main that takes no writes: each sector that is written there is a commit.
constexpr uint64_t kBad = 1400;
constexpr uint64_t kBadSectors = 60;

class EachBlock : public testing::Test {
  protected:
    // A spare as a power cut leaves it in the midst of its life: two blocks in the active table, an
    // older table, and some commits in the journal, one of which clears.
    void SetUp() override {
        write_pattern(BlockFile(main_disk_.path()), 0, kMainSectors, 1);
        run_ok({"dm-remapctl", "format", "--yes", "--journal-blocks",
                std::to_string(kJournalBlocks), "--records", std::to_string(kRecords + 60),
                main_.path(), spare_.path()});
        map_sectors(spare_.path(), 0, 8, kRecords, 1);
        main_.fail(kBad, kBadSectors, Fails::kWrites);
        {
            const BlockFile main(main_disk_.path());
            read_all(main, data_now_);
            DmDevice device("remap", table());
            const BlockFile mapped(device.path());
            device.message("save");
            for (unsigned i = 0; i < 5; i++) {
                ASSERT_EQ(write(mapped, kBad + 2 * i), 0);
            }
            device.message("unremap 800 8");
            image_ = spare_disk_.content();
            records_ = remap_list(device);
            data_ = data_now_;
        }
        super_ = newest_super(image_);
        ASSERT_EQ(super_.table_count, 2U);
        ASSERT_THAT(records_, testing::SizeIs(kRecords - 1 + 5));
    }

    void each_block(Fails how) {
        for (uint64_t block = 0; block < super_.layout.device_blocks; block++) {
            if (is_metadata(block)) {
                SCOPED_TRACE("block " + std::to_string(block));
                ASSERT_NO_FATAL_FAILURE(one_block(block, how));
            }
        }
    }
    void each_block_in_use(Fails how) {
        unsigned in_use = 0;
        for (uint64_t block = 0; block < super_.layout.device_blocks; block++) {
            if (is_metadata(block) && holds_something(block)) {
                SCOPED_TRACE("block " + std::to_string(block));
                ASSERT_NO_FATAL_FAILURE(one_block(block, how));
                in_use++;
            }
        }
        // Superblock, two blocks of a table, one of the table before, and six commits.
        EXPECT_GE(in_use, DM_REMAP_REPLICAS * (1 + 2 + 1 + 6));
    }

  private:
    [[nodiscard]] bool is_metadata(uint64_t block) const {
        const dm_remap_layout& layout = super_.layout;
        const uint64_t replica = 1 + layout.journal_blocks + 2 * uint64_t{layout.table_blocks};
        return block < replica || block >= layout.device_blocks - replica;
    }
    [[nodiscard]] bool holds_something(uint64_t block) const {
        const auto bytes =
            std::span(image_).subspan(block * DM_REMAP_BLOCK_SIZE, DM_REMAP_BLOCK_SIZE);
        return std::ranges::any_of(bytes, [](std::byte byte) { return byte != std::byte{0}; });
    }
    static constexpr bool recovers(Fails how) { return how == Fails::kReadsUntilWritten; }

    void one_block(uint64_t block, Fails how) {
        // The runner takes a machine that is silent for long for dead.
        std::cout << "block " << block << "\n";
        begin_anew();
        spare_.fail(block * DM_REMAP_BLOCK_SECTORS, DM_REMAP_BLOCK_SECTORS, how);
        {
            DmDevice device("remap", table());
            expect_whole(device, expected_mode(block, how));
            relocate_some(device, block, how);
            // Once to each of the tables.
            for (unsigned i = 0; i < 2; i++) {
                EXPECT_EQ(message_error(device, "save") == 0, takes_records(block, how));
                EXPECT_EQ(remap_status(device).mode, expected_mode(block, how));
            }
            expect_whole(device, expected_mode(block, how));
        }
        EXPECT_EQ(bool(is_sound(spare_.path())), sound_as_it_is(block, how));
        {
            DmDevice device("remap", table());
            expect_whole(device, expected_mode(block, how));
            spare_.heal_all();
            device.message("save");
            EXPECT_EQ(remap_status(device).mode, "rw");
            const BlockFile mapped(device.path());
            EXPECT_EQ(write(mapped, kBad + 55), 0);
            records_now_ = remap_list(device);
        }
        EXPECT_TRUE(is_sound(spare_.path()));
        DmDevice device("remap", table());
        expect_whole(device, "rw");
    }

    // Ends that take no superblock would not both find a record.
    [[nodiscard]] bool takes_records(uint64_t block, Fails how) const {
        return recovers(how) || !is_super(block);
    }
    [[nodiscard]] bool is_super(uint64_t block) const {
        return block == 0 || block == super_.layout.device_blocks - 1;
    }
    // A table that was written since the power cut, to a copy that does not take it.
    [[nodiscard]] bool gave_up_copy(uint64_t block, Fails how) const {
        const dm_remap_super now = newest_super(spare_disk_.content());
        if (recovers(how) || now.table_generation == super_.table_generation) {
            return false;
        }
        for (int replica = 0; replica < DM_REMAP_REPLICAS; replica++) {
            const uint64_t at = dm_remap_table_at(&now.layout, replica, now.active_table);
            if (block >= at && block < at + now.table_count) {
                return true;
            }
        }
        return false;
    }
    [[nodiscard]] std::string expected_mode(uint64_t block, Fails how) const {
        if (!takes_records(block, how)) {
            return "ro";
        }
        return gave_up_copy(block, how) ? "degraded" : "rw";
    }
    // After a stop, with the fault still there. What could be healed was; and of what cannot be
    // written, superblocks one generation apart are nothing that check would complain of.
    [[nodiscard]] bool sound_as_it_is(uint64_t block, Fails how) const {
        const bool lost = is_super(block) && how == Fails::kAll;
        return !lost && !gave_up_copy(block, how);
    }

    // Each slot of the ring is written, if it is one of them that is bad.
    void relocate_some(DmDevice& device, uint64_t block, Fails how) {
        const dm_remap_layout& layout = super_.layout;
        const BlockFile mapped(device.path());
        const bool ring = in_ring(block);
        const uint64_t writes = ring ? layout.journal_blocks : 2;
        for (uint64_t i = 0; i < writes; i++) {
            EXPECT_EQ(write(mapped, kBad + 10 + 2 * i), takes_records(block, how) ? 0 : EIO);
        }
        const uint64_t more = takes_records(block, how) ? writes : 0;
        records_now_ = remap_list(device);
        EXPECT_THAT(records_now_, testing::SizeIs(records_.size() + more));
    }
    [[nodiscard]] bool in_ring(uint64_t block) const {
        for (int replica = 0; replica < DM_REMAP_REPLICAS; replica++) {
            const uint64_t at = dm_remap_journal_at(&super_.layout, replica, 0);
            if (block >= at && block < at + super_.layout.journal_blocks) {
                return true;
            }
        }
        return false;
    }

    void expect_whole(DmDevice& device, const std::string& mode) const {
        EXPECT_EQ(remap_status(device).mode, mode);
        EXPECT_EQ(remap_list(device), records_now_);
        const BlockFile mapped(device.path());
        std::vector<std::byte> found;
        read_all(mapped, found);
        const auto wrong = [&](uint64_t at) {
            return !failed_.contains(at) &&
                   std::memcmp(&found[at * kSector], &data_now_[at * kSector], kSector) != 0;
        };
        uint64_t at = 0;
        while (at < kMainSectors && !wrong(at)) {
            at++;
        }
        EXPECT_EQ(at, kMainSectors) << "wrong data";
    }

    // Main is as it was: of all that is written to it later it takes nothing.
    void begin_anew() {
        const Buffer buffer(image_.size());
        std::ranges::copy(image_, buffer.bytes().begin());
        ASSERT_EQ(BlockFile(spare_disk_.path()).write(0, buffer.bytes()), 0);
        data_now_ = data_;
        records_now_ = records_;
        failed_.clear();
    }

    // A sector of new data, and what the mapped device must hold from then on.
    int write(const BlockFile& mapped, uint64_t sector) {
        const Buffer buffer(kSector);
        fill_pattern(buffer.bytes(), sector, 2);
        const int error = mapped.write(sector, buffer.bytes());
        if (error == 0) {
            std::ranges::copy(buffer.bytes(),
                              data_now_.begin() + static_cast<ptrdiff_t>(sector * kSector));
            failed_.erase(sector);
        } else {
            failed_.insert(sector);
        }
        return error;
    }

    static void read_all(const BlockFile& device, std::vector<std::byte>& data) {
        const Buffer buffer(kMainSectors * kSector);
        ASSERT_EQ(device.read(0, buffer.bytes()), 0);
        data.assign(buffer.bytes().begin(), buffer.bytes().end());
    }
    static dm_remap_super newest_super(const std::vector<std::byte>& bytes) {
        dm_remap_super newest{};
        for (const uint64_t at : {uint64_t{0}, bytes.size() / DM_REMAP_BLOCK_SIZE - 1}) {
            dm_remap_super super{};
            if (dm_remap_super_decode(&super, &bytes[at * DM_REMAP_BLOCK_SIZE], at) ==
                    DM_REMAP_VALID &&
                super.generation > newest.generation) {
                newest = super;
            }
        }
        return newest;
    }
    [[nodiscard]] Table table() const { return remap_table(main_.path(), spare_.path()); }

    LoopDevice main_disk_{kMainSectors * kSector};
    LoopDevice spare_disk_{kSpareSectors * kSector};
    FailingDisk main_{"main", main_disk_.path()};
    FailingDisk spare_{"spare", spare_disk_.path()};

    // As the power cut left them, and as they are to be now.
    std::vector<std::byte> image_;
    dm_remap_super super_{};
    std::vector<std::byte> data_, data_now_;
    std::vector<RemapRecord> records_, records_now_;
    std::set<uint64_t> failed_;  // sectors that nobody can say what they hold
};

// As disks do that have blocks left: what is written anew can be read again.
TEST_F(EachBlock, CannotBeReadUntilItIsWritten) {
    each_block(Fails::kReadsUntilWritten);
}

TEST_F(EachBlock, CannotBeWritten) {
    each_block(Fails::kWrites);
}

// Of a block that holds nothing yet, this is one that cannot be written.
TEST_F(EachBlock, CannotBeReadOrWritten) {
    each_block_in_use(Fails::kAll);
}

}  // namespace
}  // namespace remap::vm

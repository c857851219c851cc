// Spares edited with malice, as the module takes them: the fuzzer's programs (tests/fuzz) make them
// here, and the core says in user space what is to become of each. The kernel must refuse what is
// refused there, in the same words, and of what is accepted make the same table; and live on.
//
// An allocation without bound would not fit into this machine, and is a warning in the kernel log.

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <set>

#include "backing.h"
#include "block.h"
#include "dm_device.h"
#include "failing.h"
#include "kernel_log.h"
#include "offline.h"
#include "remap.h"
#include "spare_program.h"

namespace remap::vm {
namespace {

constexpr const char* kCorpus = "/usr/share/corpus";  // initramfs.sh
constexpr uint64_t kSpareSeed = 2;  // what the spare's data sectors hold; main is zeros

// The main device of a program, as it would be in user space.
struct Main {
    explicit Main(const fuzz::Program& program)
        : mapped(program.main_sectors != 0 ? program.main_sectors : program.formatted_main),
          sectors(std::max(mapped, program.formatted_main)),
          granularity(program.granularity) {}

    uint64_t mapped;  // length of the mapped device
    uint64_t sectors;
    uint32_t granularity;
};

// What the core makes of a spare in user space, on the way that the module goes.
class UserSpace {
  public:
    UserSpace(fuzz::MemoryDisk& disk, const Main& main) : md_(disk), refusal_(take(main)) {}

    // Empty: it is accepted, and active.
    [[nodiscard]] const std::string& refusal() const { return refusal_; }
    dm_remap_metadata& metadata() { return *md_.get(); }
    [[nodiscard]] uint64_t free_sectors() { return dm_remap_alloc_free_sectors(&metadata().alloc); }

    std::vector<RemapRecord> records() {
        std::vector<RemapRecord> records;
        dm_remap_record r{};
        for (u64 from = 0; dm_remap_table_next(&md_->table, from, &r); from = r.main + r.length) {
            records.push_back({.sector = r.main,
                               .count = r.length,
                               .kind = dm_remap_kind_name(r.kind),
                               .spare = r.kind == DM_REMAP_MAPPED ? std::to_string(r.spare) : "-",
                               .reason = dm_remap_reason_name(r.reason),
                               .time = r.first_time,
                               .unreadable = (r.flags & DM_REMAP_F_UNREADABLE) != 0});
        }
        return records;
    }

    // Of INFO status.
    std::map<std::string, uint64_t> numbers() {
        dm_remap_totals records{};
        dm_remap_totals retired{};
        dm_remap_table_totals(&md_->table, &records);
        dm_remap_table_totals(&md_->retired, &retired);
        return {{"generation", md_->sb.generation},
                {"records", records.records},
                {"remapped", records.mapped},
                {"pending", records.pending},
                {"retired", retired.retired},
                {"spare_free", free_sectors()},
                {"spare_total", dm_remap_alloc_total_sectors(&md_->alloc)},
                {"journal_used", dm_remap_journal_used(md_.get())}};
    }

    // As of the messages `remap` and `save`: 0 or an errno.
    int commit(uint64_t main) {
        dm_remap_record r{};
        u32 taken = 0;
        r.kind = DM_REMAP_MAPPED;
        r.reason = DM_REMAP_REASON_MANUAL;
        r.main = main;
        if (dm_remap_alloc_take(&md_->alloc, md_->sb.layout.granularity, &r.spare, &taken) != 0) {
            return ENOSPC;
        }
        r.length = taken;
        return -dm_remap_commit(md_.get(), &r, 1);
    }
    int save() { return -dm_remap_save(md_.get()); }

  private:
    std::string take(const Main& main) {
        if (md_.load(main.mapped) != 0) {
            return md_.report.refusal;
        }
        // A loop device: it has no id, and is no partition.
        dm_remap_main found{};
        found.id.sectors = main.sectors;
        found.granularity = main.granularity;
        dm_remap_main_identify(&found, nullptr);
        if (dm_remap_check_main(md_.get(), &found, &md_.report) != 0) {
            return md_.report.refusal;
        }
        if (dm_remap_activate(md_.get(), &found, &md_.report) != 0) {
            return md_.disk().log.back();
        }
        return "";
    }

    fuzz::Metadata md_;
    std::string refusal_;
};

// The spare of a program on a disk, with its blocks that cannot be read, and its writes that fail.
class SpareOnDisk {
  public:
    explicit SpareOnDisk(const fuzz::MemoryDisk& image) : disk_(image.bytes.size()) {
        const Buffer buffer(std::max<size_t>(image.bytes.size(), 1));
        std::memcpy(buffer.bytes().data(), image.bytes.data(), image.bytes.size());
        const BlockFile file(disk_.path());
        if (!image.bytes.empty() && file.write(0, buffer.bytes().first(image.bytes.size())) != 0) {
            throw std::runtime_error("write the image of a spare");
        }
        const bool writable = image.fail_from == UINT64_MAX;
        std::vector<Range> unreadable;
        for (uint64_t block = 0; block < image.blocks(); block++) {
            if (!image.readable(block)) {
                unreadable.push_back(
                    {.first = block * DM_REMAP_BLOCK_SECTORS, .count = DM_REMAP_BLOCK_SECTORS});
            }
        }
        if (writable && unreadable.empty()) {
            return;
        }
        failing_.emplace("spare", disk_.path());
        if (!writable) {
            failing_->fail_all(Fails::kWrites);
        }
        if (!unreadable.empty()) {
            failing_->fail(unreadable, writable ? Fails::kReadsUntilWritten : Fails::kAll);
        }
    }

    [[nodiscard]] std::string path() const { return failing_ ? failing_->path() : disk_.path(); }
    // The disk beneath, where all works.
    [[nodiscard]] const std::string& plain() const { return disk_.path(); }
    void heal() {
        if (failing_) {
            failing_->heal_all();
        }
    }
    [[nodiscard]] bool holds(const fuzz::Bytes& bytes) const {
        return std::ranges::equal(disk_.content(), std::as_bytes(std::span(bytes)));
    }

  private:
    LoopDevice disk_;
    std::optional<FailingDisk> failing_;
};

struct Tried {
    unsigned accepted = 0;
    std::set<std::string> refusals;
};

class HostileSpares : public testing::Test {
  protected:
    void try_program(std::span<const std::uint8_t> bytes) {
        fuzz::Program program = fuzz::run_program(bytes);
        const Main main(program);
        if (program.disk.fail_from != UINT64_MAX) {
            // None fails in the middle: a disk of the kernel does not count its writes.
            program.disk.fail_from = 0;
        }
        fill_data(program.disk, main);
        const fuzz::Bytes before = program.disk.bytes;

        const LoopDevice main_disk(main.sectors * kSector, main.granularity * kSector);
        SpareOnDisk spare(program.disk);
        UserSpace core(program.disk, main);
        const Table table = remap_table(main_disk.path(), spare.path(), {}, main.mapped);
        if (!core.refusal().empty()) {
            tried.refusals.insert(core.refusal());
            EXPECT_TRUE(refused(table, core.refusal()));
            EXPECT_TRUE(spare.holds(before)) << "it was refused, and written to";
            return;
        }
        tried.accepted++;
        expect_accepted(table, core, spare);
        if (core.metadata().write_nothing) {
            EXPECT_TRUE(spare.holds(before)) << "it was to write nothing";
        }
    }

    Tried tried;

  private:
    // Known bytes where the core would look for data.
    static void fill_data(fuzz::MemoryDisk& disk, const Main& main) {
        fuzz::Metadata md(disk);
        if (md.load(main.mapped) != 0) {
            return;
        }
        const uint64_t first = dm_remap_data_start(&md->sb.layout);
        const uint64_t count = dm_remap_data_end(&md->sb.layout) - first;
        const auto data = std::as_writable_bytes(std::span(disk.bytes));
        fill_pattern(data.subspan(first * kSector, count * kSector), first, kSpareSeed);
    }

    static void expect_accepted(const Table& table, UserSpace& core, SpareOnDisk& spare) {
        std::vector<RemapRecord> last;
        bool saved = false;
        {
            DmDevice device("remap", table);
            expect_same(device, core);
            const auto place = expect_served(device, core);
            expect_usable(device, core, place);
            if (core.metadata().mode == DM_REMAP_MODE_RO && !core.metadata().write_nothing) {
                spare.heal();
            }
            saved = message_error(device, "save") == 0;
            EXPECT_EQ(saved, save_succeeds(core));
            last = remap_list(device);
        }
        spare.heal();
        if (saved) {
            DmDevice device("remap", table);
            EXPECT_EQ(remap_status(device).mode, "rw");
            EXPECT_EQ(remap_list(device), last);
            device.remove();
            EXPECT_TRUE(is_sound(spare.plain()));
        }
    }

    // The disk can be written now, if the fault was the disk's.
    static bool save_succeeds(UserSpace& core) {
        auto& disk = *static_cast<fuzz::MemoryDisk*>(core.metadata().ctx);
        disk.fail_from = UINT64_MAX;
        return core.save() == 0;
    }

    static void expect_same(DmDevice& device, UserSpace& core) {
        const RemapStatus status = remap_status(device);
        EXPECT_EQ(status.mode, dm_remap_mode_name(core.metadata().mode));
        for (const auto& [key, value] : core.numbers()) {
            EXPECT_EQ(status.number(key), value) << key;
        }
        EXPECT_EQ(remap_list(device), core.records());
    }

    // The first and the last block of each record, and of what is between records. Gives a block
    // without a record.
    static std::optional<uint64_t> expect_served(DmDevice& device, UserSpace& core) {
        const BlockFile mapped(device.path());
        const uint64_t sectors = core.metadata().main_sectors;
        const uint64_t g = core.metadata().sb.layout.granularity;
        std::optional<uint64_t> place;
        dm_remap_extent extent{};
        for (uint64_t at = 0; at < sectors; at += extent.length) {
            dm_remap_table_lookup(&core.metadata().table, at, sectors - at, &extent);
            const uint64_t last = extent.length - g;
            expect_block(mapped, at, g, extent, 0);
            if (last != 0) {
                expect_block(mapped, at + last, g, extent, last);
            }
            if (extent.kind == DM_REMAP_NONE && (extent.flags & DM_REMAP_F_DOUBT) == 0) {
                place = place.value_or(at);
            }
        }
        return place;
    }

    static void expect_block(const BlockFile& mapped, uint64_t sector, uint64_t count,
                             const dm_remap_extent& extent, uint64_t offset) {
        const Buffer found(count * kSector);
        const Buffer expected(count * kSector);
        const int error = mapped.read(sector, found.bytes());
        if ((extent.flags & DM_REMAP_F_DOUBT) != 0) {
            EXPECT_EQ(error, EIO) << "sector " << sector;
            return;
        }
        EXPECT_EQ(error, 0) << "sector " << sector;
        if (extent.kind == DM_REMAP_MAPPED) {
            fill_pattern(expected.bytes(), extent.spare + offset, kSpareSeed);
        }
        EXPECT_TRUE(std::ranges::equal(found.bytes(), expected.bytes())) << "sector " << sector;
    }

    // Moved to the spare, written, read, and brought home again.
    static void expect_usable(DmDevice& device, UserSpace& core, std::optional<uint64_t> place) {
        if (!place || core.free_sectors() == 0) {
            return;
        }
        const uint64_t g = core.metadata().sb.layout.granularity;
        const std::string range = std::to_string(*place) + " " + std::to_string(g);
        const int error = message_error(device, "remap " + range);
        EXPECT_EQ(error, core.commit(*place));
        const BlockFile mapped(device.path());
        write_pattern(mapped, *place, g, 3);
        EXPECT_TRUE(verify_pattern(mapped, *place, g, 3));
        if (error == 0) {
            EXPECT_EQ(message_error(device, "unremap " + range), 0);
            EXPECT_TRUE(verify_pattern(mapped, *place, g, 3));
        }
    }
};

TEST_F(HostileSpares, OfTheCorpus) {
    std::set<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(kCorpus)) {
        paths.insert(entry.path());
    }
    for (const auto& path : paths) {
        SCOPED_TRACE(path.filename().string());
        note_in_kernel_log("spare " + path.filename().string());
        std::ifstream file(path, std::ios::binary);
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        const std::vector<uint8_t> bytes(text.begin(), text.end());
        ASSERT_NO_FATAL_FAILURE(try_program(bytes));
    }
    // Or the corpus shows nothing.
    EXPECT_GE(tried.accepted, 20U);
    EXPECT_GE(tried.refusals.size(), 10U) << testing::PrintToString(tried.refusals);
}

// Made up, and always the same.
TEST_F(HostileSpares, ByChance) {
    constexpr unsigned kPrograms = 100;
    constexpr unsigned kMostEdits = 3;
    std::mt19937 random(1);
    for (unsigned i = 0; i < kPrograms; i++) {
        SCOPED_TRACE(i);
        note_in_kernel_log("spare " + std::to_string(i));
        std::vector<uint8_t> bytes(sizeof(fuzz::ProgramHeader) +
                                   (1 + random() % kMostEdits) * sizeof(fuzz::Edit));
        std::ranges::generate(bytes, [&] { return static_cast<uint8_t>(random()); });
        // The mapped device as formatted, and no write fails: more is accepted.
        bytes[offsetof(fuzz::ProgramHeader, main)] = 0;
        bytes[offsetof(fuzz::ProgramHeader, fails_at)] = 0;
        ASSERT_NO_FATAL_FAILURE(try_program(bytes));
    }
    EXPECT_GE(tried.accepted, 20U);
    EXPECT_GE(tried.refusals.size(), 8U) << testing::PrintToString(tried.refusals);
}

}  // namespace
}  // namespace remap::vm

#include "base_images.h"

namespace remap::fuzz {
namespace {

// Four regions of the table in memory; 54 metadata blocks, the fewest that there can be, and 42
// blocks of data.
constexpr std::uint64_t kMainSectors = 4 * DM_REMAP_REGION_SECTORS - 64;
constexpr std::uint64_t kSpareSectors = 96 * DM_REMAP_BLOCK_SECTORS;

class Life {
  public:
    Life(std::uint32_t granularity, std::uint8_t uuid) : granularity_(granularity) {
        disk_.bytes.resize(kSpareSectors * kSector);
        dm_remap_format_params params{};
        params.spare_sectors = kSpareSectors;
        params.granularity = granularity;
        params.journal_blocks = DM_REMAP_MIN_JOURNAL_BLOCKS;
        params.max_records = 100;
        std::memset(params.uuid, uuid, sizeof(params.uuid));
        params.main.sectors = kMainSectors;
        params.main.id_type = 1;
        std::strcpy(params.main.name, "wwn-0x5000c500");
        dm_remap_report report{};
        require(dm_remap_format(&MemoryDisk::kOps, &disk_, &params, &report) == 0, "format");
    }

    std::vector<BaseImage> moments() {
        keep();
        {
            Metadata md(disk_);
            open(md);
            keep();
            add(md, DM_REMAP_MAPPED, 10, 1);
            add(md, DM_REMAP_PENDING, 900, 4);
            keep();
            checkpoint(md);
            // Over the edge of a region.
            add(md, DM_REMAP_MAPPED, DM_REMAP_REGION_SECTORS / granularity_ - 2, 4);
            add(md, DM_REMAP_RETIRED, 0, 2);
            checkpoint(md);
            keep();
            add(md, DM_REMAP_MAPPED, 2000, 3);
            add(md, DM_REMAP_CLEAR, 901, 1);
            dm_remap_count(md.get(), DM_REMAP_READ_ERRORS, 3);
            require(dm_remap_autosave(md.get()) == 0, "autosave");
            keep();
        }
        cut_in_checkpoint();
        keep();
        {
            Metadata md(disk_);
            open(md);
            add(md, DM_REMAP_MAPPED, 10, 2);
            add(md, DM_REMAP_PENDING, 3000, 1);
            keep();
            require(dm_remap_deactivate(md.get()) == 0, "deactivate");
        }
        keep();
        {
            Metadata md(disk_);
            open(md);
            many_records(md);
        }
        keep();
        return std::move(images_);
    }

    // Marks of places that could not be read: in the table, in the journal, and none left.
    std::vector<BaseImage> moments_of_marks() {
        Metadata md(disk_);
        open(md);
        add(md, DM_REMAP_MAPPED, 10, 6);
        mark(md, 11, 2, true);
        add(md, DM_REMAP_PENDING, 900, 4);
        keep();
        mark(md, 14, 1, true);
        mark(md, 11, 1, false);
        add(md, DM_REMAP_CLEAR, 901, 1);
        keep();
        mark(md, 10, 6, false);
        add(md, DM_REMAP_CLEAR, 902, 1);
        keep();
        checkpoint(md);
        keep();
        return std::move(images_);
    }

  private:
    void mark(Metadata& md, std::uint64_t main, std::uint64_t length, bool unreadable) {
        require(
            dm_remap_mark(md.get(), main * granularity_, length * granularity_, unreadable) == 0,
            "mark");
    }

    void keep() { images_.push_back({disk_.bytes, kMainSectors}); }

    void open(Metadata& md) {
        require(md.load(kMainSectors) == 0, "load");
        require(dm_remap_activate(md.get(), nullptr, &md.report) == 0, "activate");
    }

    void checkpoint(Metadata& md) {
        require(dm_remap_checkpoint(md.get(), DM_REMAP_STATE_DIRTY) == 0, "checkpoint");
    }

    // @main and @length in logical blocks.
    dm_remap_record record(Metadata& md, std::uint8_t kind, std::uint64_t main,
                           std::uint32_t length) {
        dm_remap_record r{};
        r.kind = kind;
        r.reason = kind == DM_REMAP_CLEAR ? 0 : DM_REMAP_REASON_MANUAL;
        r.main = main * granularity_;
        r.length = length * granularity_;
        if (kind == DM_REMAP_MAPPED || kind == DM_REMAP_RETIRED) {
            require(dm_remap_alloc_take(&md->alloc, r.length, &r.spare, &r.length) == 0, "take");
        }
        return r;
    }

    void add(Metadata& md, std::uint8_t kind, std::uint64_t main, std::uint32_t length) {
        const dm_remap_record r = record(md, kind, main, length);
        require(dm_remap_commit(md.get(), &r, 1) == 0, "commit");
    }

    // Superblock 1 has the checkpoint, superblock 0 has not.
    void cut_in_checkpoint() {
        Metadata md(disk_);
        open(md);
        keep();
        add(md, DM_REMAP_MAPPED, 700, 1);
        keep();  // the journal of two activations
        constexpr std::uint64_t kTablesAndSuperblock1 = 3;
        disk_.fail_from = disk_.writes + kTablesAndSuperblock1;
        require(dm_remap_checkpoint(md.get(), DM_REMAP_STATE_DIRTY) != 0, "cut");
        disk_.fail_from = UINT64_MAX;
    }

    // More than a block of them in the table, and more in the journal.
    void many_records(Metadata& md) {
        constexpr std::uint64_t kInJournal = 2000;
        for (std::uint64_t from : {0U, 1000U, 2000U}) {
            std::vector<dm_remap_record> records;
            if (from == kInJournal) {
                checkpoint(md);
            }
            for (std::uint64_t i = 0; i < 80; i++) {
                records.push_back(record(md, DM_REMAP_PENDING, from + 2 * i, 1));
            }
            require(dm_remap_commit(md.get(), records.data(), records.size()) == 0, "commit");
        }
    }

    std::uint32_t granularity_;
    MemoryDisk disk_;
    std::vector<BaseImage> images_;
};

}  // namespace

const std::vector<BaseImage>& base_images() {
    static const std::vector<BaseImage> images = [] {
        std::vector<BaseImage> all = Life(1, 0x11).moments();
        for (BaseImage& image : Life(DM_REMAP_BLOCK_SECTORS, 0x22).moments()) {
            all.push_back(std::move(image));
        }
        for (const std::uint32_t granularity : {1U, std::uint32_t{DM_REMAP_BLOCK_SECTORS}}) {
            for (BaseImage& image : Life(granularity, 0x33).moments_of_marks()) {
                all.push_back(std::move(image));
            }
        }
        return all;
    }();
    return images;
}

}  // namespace remap::fuzz

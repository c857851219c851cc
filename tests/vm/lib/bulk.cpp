#include "bulk.h"

#include <stdexcept>
#include <vector>

#include "block.h"
#include "block_device.h"
#include "core_io.h"

namespace remap::vm {
namespace {

void must(int error, const char* what) {
    if (error != 0) {
        throw std::runtime_error(std::string(what) + ": " + std::to_string(error));
    }
}

// A spare in use by us, from load to orderly stop.
class ActiveSpare {
  public:
    explicit ActiveSpare(const std::string& path)
        : device_(BlockDevice::open(path, Access::write, Sharing::exclusive).value()),
          io_(device_) {
        dm_remap_report report{};
        must(dm_remap_metadata_init(&metadata_, &CoreIo::ops(), &io_), "init");
        must(dm_remap_load(&metadata_, device_.sectors(), 0, &report), "load");
        must(dm_remap_activate(&metadata_, nullptr, &report), "activate");
    }
    ~ActiveSpare() { dm_remap_metadata_exit(&metadata_); }
    ActiveSpare(const ActiveSpare&) = delete;
    ActiveSpare& operator=(const ActiveSpare&) = delete;

    dm_remap_metadata& metadata() { return metadata_; }
    void write_data(uint64_t sector, std::span<std::byte> data) {
        must(CoreIo::ops().write(&io_, DM_REMAP_SPARE, sector,
                                 static_cast<u32>(data.size() / kSector), data.data(), 0),
             "write");
    }

  private:
    BlockDevice device_;
    CoreIo io_;
    dm_remap_metadata metadata_{};
};

using Written = std::function<void(uint64_t sector, std::span<std::byte> data)>;

// `written` fills in what a sector holds; without it nothing is written to the spare's data area.
void map_all(const std::string& spare, std::span<const uint64_t> sectors, const Written& written) {
    ActiveSpare active(spare);
    dm_remap_metadata& md = active.metadata();
    const Buffer data(DM_REMAP_ENTRIES_PER_BLOCK * kSector);
    for (size_t done = 0; done < sectors.size();) {
        const auto wanted =
            static_cast<u32>(std::min<size_t>(sectors.size() - done, DM_REMAP_ENTRIES_PER_BLOCK));
        std::vector<dm_remap_record> entries;
        u64 at = 0;
        u32 taken = 0;
        must(dm_remap_alloc_take(&md.alloc, wanted, &at, &taken), "take");
        for (u32 i = 0; i < taken; i++) {
            const uint64_t sector = sectors[done + i];
            if (written) {
                written(sector, data.bytes().subspan(i * kSector, kSector));
            }
            entries.push_back({.main = sector,
                               .spare = at + i,
                               .length = 1,
                               .kind = DM_REMAP_MAPPED,
                               .reason = DM_REMAP_REASON_MANUAL,
                               .flags = 0,
                               .first_time = 1700000000 + static_cast<u32>(done),
                               .last_time = 1700000000 + static_cast<u32>(done)});
        }
        if (written) {
            active.write_data(at, data.bytes().first(taken * kSector));
        }
        must(dm_remap_commit(&md, entries.data(), taken), "commit");
        done += taken;
    }
    must(dm_remap_deactivate(&md), "deactivate");
}

}  // namespace

void map_sectors(const std::string& spare, uint64_t first, uint64_t stride, uint64_t count,
                 uint64_t seed) {
    std::vector<uint64_t> sectors(count);
    for (uint64_t i = 0; i < count; i++) {
        sectors[i] = first + i * stride;
    }
    map_all(spare, sectors,
            [&](uint64_t sector, std::span<std::byte> data) { fill_pattern(data, sector, seed); });
}

void map_sectors(const std::string& spare, std::span<const uint64_t> sectors) {
    map_all(spare, sectors, nullptr);
}

void edit_superblock(const std::string& spare, int replica,
                     const std::function<void(dm_remap_disk_superblock&)>& edit) {
    const BlockFile disk(spare);
    const Buffer block(DM_REMAP_BLOCK_SIZE);
    const uint64_t at = replica == 0 ? 0 : tail_superblock(spare);
    must(disk.read(at, block.bytes()), "read");
    auto* super = reinterpret_cast<dm_remap_disk_superblock*>(block.bytes().data());
    edit(*super);
    super->header.crc = cpu_to_le32(dm_remap_block_crc(super, sizeof(*super)));
    must(disk.write(at, block.bytes()), "write");
    must(disk.flush(), "flush");
}

uint64_t tail_superblock(const std::string& spare) {
    const BlockFile disk(spare, O_RDONLY | O_DIRECT);
    const Buffer block(DM_REMAP_BLOCK_SIZE);
    must(disk.read(0, block.bytes()), "read");
    const auto* super = reinterpret_cast<dm_remap_disk_superblock*>(block.bytes().data());
    return (le64_to_cpu(super->header.device_blocks) - 1) * DM_REMAP_BLOCK_SECTORS;
}

}  // namespace remap::vm

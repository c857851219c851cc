// SPDX-License-Identifier: GPL-2.0-only
#include "spare_image.h"

#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "block_device.h"
#include "core_io.h"
#include "offline_spare.h"
#include "spare_format.h"

namespace remap::test {
namespace {

constexpr std::uint64_t main_size = 64 << 20;
constexpr std::uint64_t spare_size = 4 << 20;

void require(bool condition, const char* what) {
    if (!condition) {
        throw std::runtime_error(what);
    }
}

void make_file(const std::string& path, std::uint64_t size) {
    std::ofstream(path).close();
    std::filesystem::resize_file(path, size);
}

BlockDevice open_image(const std::string& path, Access access) {
    Result<BlockDevice> device = BlockDevice::open(path, access, Sharing::exclusive);
    require(device.has_value(), "cannot open the image");
    return std::move(*device);
}

// Remaps @count sectors, every third one from @sector on, as one commit. Returns the next.
std::uint64_t commit_records(dm_remap_metadata& metadata, std::uint64_t sector,
                             unsigned int count) {
    std::vector<dm_remap_record> records(count);
    for (dm_remap_record& record : records) {
        record.main = sector;
        record.kind = DM_REMAP_MAPPED;
        record.reason = DM_REMAP_REASON_MANUAL;
        record.first_time = 1700000000;
        record.last_time = 1700000000;
        require(dm_remap_alloc_take(&metadata.alloc, 1, &record.spare, &record.length) == 0,
                "alloc_take");
        sector += 3;
    }
    require(dm_remap_commit(&metadata, records.data(), count) == 0, "commit");
    return sector;
}

}  // namespace

SpareImage::SpareImage(Content content) {
    make_file(main(), main_size);
    make_file(spare(), spare_size);
    {
        const BlockDevice main_device = open_image(main(), Access::read);
        const BlockDevice spare_device = open_image(spare(), Access::write);
        const Result<dm_remap_format_params> params = plan_format(main_device, spare_device, {});
        require(params.has_value() && write_format(spare_device, *params), "format");
    }
    if (content == Content::records) {
        add_records();
    }
    read_layout();
}

// As after a crash: some records in the table, some in the journal alone.
void SpareImage::add_records() const {
    const BlockDevice device = open_image(spare(), Access::write);
    CoreIo io(device);
    dm_remap_metadata metadata{};
    dm_remap_report report{};
    require(dm_remap_metadata_init(&metadata, &CoreIo::ops(), &io) == 0, "init");
    require(dm_remap_load(&metadata, device.sectors(), 0, &report) == 0, "load");
    require(dm_remap_activate(&metadata, nullptr, &report) == 0, "activate");
    std::uint64_t sector = 1;
    for (std::uint64_t i = 0; i < table_records; i += table_records / 2) {
        sector = commit_records(metadata, sector, table_records / 2);
    }
    require(dm_remap_checkpoint(&metadata, DM_REMAP_STATE_DIRTY) == 0, "checkpoint");
    for (std::uint64_t i = 0; i < journal_records; i++) {
        sector = commit_records(metadata, sector, 1);
    }
    dm_remap_metadata_exit(&metadata);
}

void SpareImage::mark(std::uint64_t sector) const {
    const BlockDevice device = open_image(spare(), Access::write);
    CoreIo io(device);
    dm_remap_metadata metadata{};
    dm_remap_report report{};
    require(dm_remap_metadata_init(&metadata, &CoreIo::ops(), &io) == 0, "init");
    require(dm_remap_load(&metadata, device.sectors(), 0, &report) == 0, "load");
    require(dm_remap_activate(&metadata, nullptr, &report) == 0, "activate");
    require(dm_remap_mark(&metadata, sector, 1, true) == 0, "mark");
    require(dm_remap_soft_commit(&metadata) == 0, "commit");
    dm_remap_metadata_exit(&metadata);
}

void SpareImage::read_layout() {
    const BlockDevice device = open_image(spare(), Access::read);
    OfflineSpare loaded(device);
    require(loaded.load(), "load the new image");
    layout_ = loaded.super().layout;
    journal_start_ = loaded.super().journal_start;
}

std::uint64_t SpareImage::spare_bytes() const {
    return spare_size;
}

std::vector<std::uint8_t> SpareImage::read(std::uint64_t offset, std::size_t size) const {
    std::vector<std::uint8_t> bytes(size);
    std::ifstream file(spare(), std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    require(file.good(), "read the image");
    return bytes;
}

void SpareImage::write(std::uint64_t offset, const std::vector<std::uint8_t>& bytes) const {
    std::fstream file(spare(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    require(file.good(), "write the image");
}

void SpareImage::flip_bit(std::uint64_t offset, unsigned int bit) const {
    std::vector<std::uint8_t> byte = read(offset, 1);
    byte[0] = static_cast<std::uint8_t>(byte[0] ^ (1U << bit));
    write(offset, byte);
}

void SpareImage::zero_block(std::uint64_t block) const {
    write(block * DM_REMAP_BLOCK_SIZE, std::vector<std::uint8_t>(DM_REMAP_BLOCK_SIZE));
}

void SpareImage::resize(std::uint64_t bytes) const {
    std::filesystem::resize_file(spare(), bytes);
}

}  // namespace remap::test

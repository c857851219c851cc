// SPDX-License-Identifier: GPL-2.0-only
#include "spare_format.h"

#include <fmt/format.h>
#include <uuid/uuid.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "core_buffer.h"
#include "core_io.h"
#include "device_identity.h"
#include "offline_spare.h"
#include "signatures.h"
#include "text.h"

namespace remap {
namespace {

std::string metadata_text(OfflineSpare& spare) {
    for (const FoundSuperblock& found : spare.superblocks()) {
        if (found.verdict == DM_REMAP_VALID) {
            const std::string records = spare.loaded()
                                            ? fmt::format("{} records", spare.totals().records)
                                            : "not usable as it is: " + spare.refusal();
            return fmt::format("dm-remap metadata {} ({})", uuid_text(found.super.uuid), records);
        }
    }
    return "dm-remap metadata, damaged or newer";
}

Error refused(const BlockDevice& spare, const dm_remap_report& report, int error) {
    if (report.refusal != nullptr) {
        return Error(report.refusal).within(spare.path());
    }
    return Error::from_errno(-error, "format it").within(spare.path());
}

}  // namespace

dm_remap_main describe_main(const BlockDevice& main, std::uint64_t start) {
    const DeviceIdentity identity = identify(main);
    dm_remap_main found{};
    found.id.sectors = main.sectors();
    found.id.start = start;
    found.id.partition = identity.partition_start;
    found.granularity = main.logical_block_bytes() / DM_REMAP_SECTOR_SIZE;
    dm_remap_main_identify(&found, identity.dm_uuid ? identity.dm_uuid->c_str() : nullptr);
    if (!found.mapped) {
        // disk_id is left out: only the kernel has it in the form that it compares, and adds it
        // when the device is first activated.
        identity.unique_name.copy(found.id.name, sizeof(found.id.name) - 1);
    }
    return found;
}

Result<dm_remap_format_params> plan_format(const BlockDevice& main, const BlockDevice& spare,
                                           const FormatRequest& request) {
    if (overlap(main, spare)) {
        return fail(Error(fmt::format("{}: shares sectors with {}", spare.path(), main.path()))
                        .advise("The spare must be another device; best, another disk."));
    }
    if (request.start >= main.sectors()) {
        return fail(Error(fmt::format("{}: has {} sectors, none of them behind sector {}",
                                      main.path(), main.sectors(), request.start))
                        .advise("Name a larger main device, or a smaller start."));
    }
    if (spare.logical_block_bytes() > main.logical_block_bytes()) {
        return fail(Error(fmt::format("{}: its logical block is {} bytes, larger than the {} of {}",
                                      spare.path(), spare.logical_block_bytes(),
                                      main.logical_block_bytes(), main.path()))
                        .advise("The filesystem would see the block size change: use a spare with "
                                "blocks no larger than main's."));
    }
    if (request.start % (main.logical_block_bytes() / DM_REMAP_SECTOR_SIZE) != 0) {
        return fail(fmt::format("{}: the start {} is not on a logical block of {} bytes",
                                main.path(), request.start, main.logical_block_bytes()));
    }
    if (request.journal_blocks > std::numeric_limits<u32>::max()) {
        return fail(fmt::format("{}: {} journal blocks are too many", spare.path(),
                                request.journal_blocks));
    }
    dm_remap_format_params params{};
    params.spare_sectors = spare.sectors();
    params.granularity = main.logical_block_bytes() / DM_REMAP_SECTOR_SIZE;
    params.journal_blocks = static_cast<u32>(request.journal_blocks);
    params.max_records = request.records;
    params.main = describe_main(main, request.start).id;
    uuid_generate(params.uuid);

    CoreIo io(spare);
    dm_remap_report report{};
    if (const int error = dm_remap_format_check(&CoreIo::ops(), &io, &params, &report)) {
        return fail(refused(spare, report, error));
    }
    return params;
}

Result<bool> is_blank(const BlockDevice& spare, dm_remap_format_params params) {
    CoreIo io(spare);
    dm_remap_report report{};
    params.blank_only = true;
    const int error = dm_remap_format_check(&CoreIo::ops(), &io, &params, &report);
    if (error != 0 && error != -EEXIST && error != -EUCLEAN) {
        return fail(refused(spare, report, error)
                        .advise("A spare must be sound: use another device, or write zeros over "
                                "all of this one (`blkdiscard --zeroout`) and try again."));
    }
    return error == 0;
}

Result<std::vector<std::string>> find_contents(const BlockDevice& spare) {
    std::vector<std::string> contents;
    Result<std::vector<Signature>> signatures = find_signatures(spare);
    if (!signatures) {
        return pass_on(signatures);
    }
    std::transform(signatures->begin(), signatures->end(), std::back_inserter(contents),
                   signature_text);
    OfflineSpare offline(spare);
    offline.load();
    if (offline.has_metadata()) {
        contents.push_back(metadata_text(offline));
    }
    return contents;
}

Result<void> wipe_contents(const BlockDevice& spare) {
    if (Result<void> wiped = wipe_signatures(spare); !wiped) {
        return pass_on(wiped);
    }
    OfflineSpare offline(spare);
    offline.load();
    // Without its superblocks nothing else of the metadata is ever looked at.
    CoreIo io(spare);
    const BlockBuffer zeros = make_block_buffer();
    for (const FoundSuperblock& found : offline.superblocks()) {
        if (found.verdict == DM_REMAP_BLANK || found.verdict == DM_REMAP_FOREIGN) {
            continue;
        }
        const u64 sector = found.block * DM_REMAP_BLOCK_SECTORS;
        if (const int error = CoreIo::ops().write(
                &io, DM_REMAP_SPARE, sector, DM_REMAP_BLOCK_SECTORS, zeros.get(), DM_REMAP_FUA)) {
            return fail(
                Error::from_errno(-error, fmt::format("wipe the superblock at sector {}", sector))
                    .within(spare.path()));
        }
    }
    return {};
}

Result<void> write_format(const BlockDevice& spare, const dm_remap_format_params& params) {
    CoreIo io(spare);
    dm_remap_report report{};
    if (const int error = dm_remap_format(&CoreIo::ops(), &io, &params, &report)) {
        return fail(refused(spare, report, error));
    }
    return {};
}

}  // namespace remap

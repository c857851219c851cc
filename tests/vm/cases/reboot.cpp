// Records over a restart of the machine, in good order and by power cut.

#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <string>

#include "backing.h"
#include "block.h"
#include "bulk.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "keep.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::SizeIs;

void keep(const std::vector<RemapRecord>& records) {
    std::string text;
    for (const auto& r : records) {
        text += std::to_string(r.sector) + ' ' + std::to_string(r.count) + ' ' + r.kind + ' ' +
                r.spare + ' ' + r.reason + ' ' + std::to_string(r.time) + '\n';
    }
    vm::keep(text);
}

std::vector<RemapRecord> kept() {
    return parse_list(vm::kept());
}

// Who watches the log sees that it lives, also where each step takes minutes.
void done(const std::string& step) {
    std::cout << step << std::endl;
}

// Sectors of records hold the pattern of `seed`, the others zeros.
testing::AssertionResult verify_records(const BlockFile& device, uint64_t sectors,
                                        const std::vector<RemapRecord>& records, uint64_t seed) {
    constexpr uint64_t kChunk = 2048;
    const Buffer data(kChunk * kSector);
    const Buffer expected(kChunk * kSector);
    auto record = records.begin();
    for (uint64_t at = 0; at < sectors; at += kChunk) {
        const uint64_t n = std::min(kChunk, sectors - at);
        if (at % (16 * kChunk) == 0) {
            done("verified up to " + std::to_string(at));
        }
        if (device.read(at, data.bytes().first(n * kSector)) != 0) {
            return testing::AssertionFailure() << "read error from sector " << at;
        }
        std::memset(expected.bytes().data(), 0, n * kSector);
        for (; record != records.end() && record->sector < at + n; ++record) {
            fill_pattern(
                expected.bytes().subspan((record->sector - at) * kSector, record->count * kSector),
                record->sector, seed);
        }
        if (std::memcmp(data.bytes().data(), expected.bytes().data(), n * kSector) != 0) {
            return testing::AssertionFailure() << "wrong data from sector " << at;
        }
    }
    return testing::AssertionSuccess();
}

constexpr uint64_t kRecords = 100000;
constexpr uint64_t kStride = 2;
constexpr uint64_t kEnd = kStride * kRecords;
constexpr uint64_t kSectors = kEnd + 4000;  // of the mapped device

Table hundred_thousand(const std::vector<std::string>& features = {}) {
    return remap_table(machine_disk("main"), machine_disk("spare"), features, kSectors);
}

// The last records are made by the kernel, through messages.
void remap_more(DmDevice& device, uint64_t first, unsigned count) {
    const BlockFile mapped(device.path());
    for (unsigned i = 0; i < count; i++) {
        const uint64_t sector = first + 2 * i;
        device.message("remap " + std::to_string(sector));
        write_pattern(mapped, sector, 1, 2);
    }
    ASSERT_EQ(mapped.flush(), 0);
}

TEST(RebootHundredThousand, Phase1OrderlyRemoval) {
    const std::string spare = machine_disk("spare");
    { const DmDevice device("remap", hundred_thousand({"format"})); }
    map_sectors(spare, 0, kStride, kRecords, 2);
    done("made offline");
    DmDevice device("remap", hundred_thousand());
    remap_more(device, kEnd, 50);
    done("made by messages");
    const auto records = remap_list(device);
    ASSERT_THAT(records, SizeIs(kRecords + 50));
    keep(records);
    device.remove();
    register_spare(spare);
}

TEST(RebootHundredThousand, Phase2FindThemAndCutPowerRightAfterARemap) {
    DmDevice device("remap", hundred_thousand());
    done("loaded");
    ASSERT_EQ(remap_list(device), kept());
    done("listed");
    EXPECT_TRUE(verify_records(BlockFile(device.path()), kSectors, kept(), 2));
    done("verified");
    remap_more(device, kEnd + 100, 50);
    done("made more");
    const uint64_t last = kEnd + 200;
    write_pattern(BlockFile(device.path()), last, 1, 2);
    // The list is kept first, so that nothing comes between the last remap and the cut; it is
    // completed by what is known of that record.
    auto records = remap_list(device);
    keep(records);
    ASSERT_EQ(device.message("remap " + std::to_string(last)), "moved=1 pending=0");
    cut_power();
}

TEST(RebootHundredThousand, Phase3FindThatOneToo) {
    DmDevice device("remap", hundred_thousand());
    done("loaded");
    auto records = remap_list(device);
    done("listed");
    const auto before = kept();
    ASSERT_THAT(records, SizeIs(before.size() + 1));
    const RemapRecord last = records.back();
    EXPECT_EQ(last.sector, kEnd + 200);
    EXPECT_EQ(last.kind, "mapped");
    records.pop_back();
    ASSERT_EQ(records, before);
    records.push_back(last);
    EXPECT_TRUE(verify_records(BlockFile(device.path()), kSectors, records, 2));
    device.remove();
    register_spare(machine_disk("spare"));
}

// Everything that was acknowledged, while nothing was ever stopped in good order.
TEST(RebootUnclean, Phase1) {
    DmDevice device("remap",
                    remap_table(machine_disk("main"), machine_disk("spare"), {"format"}, 65536));
    const BlockFile mapped(device.path());
    write_pattern(mapped, 0, 65536, 1);
    device.message("remap 1000 1000");
    write_pattern(mapped, 500, 2000, 2);
    device.message("unremap 1200 100");
    device.message("save");
    device.message("remap 5000 8");
    ASSERT_EQ(mapped.flush(), 0);
    keep(remap_list(device));
    cut_power();
}

TEST(RebootUnclean, Phase2) {
    DmDevice device("remap", remap_table(machine_disk("main"), machine_disk("spare"), {}, 65536));
    const BlockFile mapped(device.path());
    EXPECT_EQ(remap_list(device), kept());
    EXPECT_TRUE(verify_pattern(mapped, 0, 500, 1));
    EXPECT_TRUE(verify_pattern(mapped, 500, 2000, 2));
    EXPECT_TRUE(verify_pattern(mapped, 2500, 63036, 1));
    device.message("unremap 0 65536");
    cut_power();
}

TEST(RebootUnclean, Phase3TheDataIsHome) {
    const BlockFile disk(machine_disk("main"));
    EXPECT_TRUE(verify_pattern(disk, 500, 2000, 2));
    DmDevice device("remap", remap_table(machine_disk("main"), machine_disk("spare"), {}, 65536));
    EXPECT_THAT(remap_list(device), SizeIs(0));
    device.remove();
    register_spare(machine_disk("spare"));
}

}  // namespace
}  // namespace remap::vm

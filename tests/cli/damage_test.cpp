// SPDX-License-Identifier: GPL-2.0-only
// check and dump on images that are whole, damaged and lost.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>

#include "block_device.h"
#include "offline_spare.h"
#include "run_tool.h"
#include "spare_health.h"
#include "spare_image.h"

namespace remap::test {
namespace {

using testing::HasSubstr;

constexpr std::size_t all_records = SpareImage::table_records + SpareImage::journal_records;

class DamageTest : public testing::Test {
  protected:
    ToolRun check(bool json = false) {
        return json ? run_tool({"check", "--json", image_.spare()})
                    : run_tool({"check", image_.spare()});
    }
    ToolRun dump() { return run_tool({"dump", "--json", image_.spare()}); }

    std::uint64_t head() const { return dm_remap_superblock_at(&image_.layout(), 0); }
    std::uint64_t tail() const { return dm_remap_superblock_at(&image_.layout(), 1); }
    std::uint64_t journal(int replica, std::uint64_t index) const {
        return dm_remap_journal_at(&image_.layout(), replica, image_.journal_start() + index);
    }
    std::uint64_t table(int replica, std::uint64_t index) const {
        const auto dumped = run_tool({"dump", "--json", image_.spare()}).json();
        return dm_remap_table_at(&image_.layout(), replica,
                                 dumped["superblocks"][0]["active_table"].get<int>()) +
               index;
    }

    // Exit codes, and JSON and text that agree, for metadata that is whole.
    void expect_whole(int exit_code, const std::string& words) {
        const ToolRun text = check();
        EXPECT_EQ(text.exit_code, exit_code) << text.out << text.err;
        EXPECT_THAT(text.out, HasSubstr(words));
        const ToolRun json = check(true);
        EXPECT_EQ(json.exit_code, exit_code);
        EXPECT_EQ(json.json()["verdict"], exit_code == 0 ? "sound" : "damaged");
        EXPECT_EQ(json.json()["summary"]["records"], all_records);
        const ToolRun dumped = dump();
        EXPECT_EQ(dumped.exit_code, exit_code);
        EXPECT_EQ(dumped.json()["records"].size(), all_records);
    }

    void expect_unusable(const std::string& refusal) {
        const ToolRun text = check();
        EXPECT_EQ(text.exit_code, 1);
        EXPECT_THAT(text.out, HasSubstr(image_.spare() + ": unusable: "));
        EXPECT_THAT(text.out, HasSubstr(refusal));
        const ToolRun json = check(true);
        EXPECT_EQ(json.exit_code, 1);
        EXPECT_EQ(json.json()["verdict"], "unusable");
        EXPECT_EQ(json.json()["summary"], nullptr);
        EXPECT_THAT(json.json()["report"]["refusal"], HasSubstr(refusal));
        const ToolRun dumped = dump();
        EXPECT_EQ(dumped.exit_code, 1);
        EXPECT_EQ(dumped.json()["records"], nullptr);
        EXPECT_THAT(dumped.err, HasSubstr(refusal));
    }

    SpareImage image_{SpareImage::Content::records};
};

TEST_F(DamageTest, AfterACrashItIsSound) {
    expect_whole(0, "3 commits in the journal");
    EXPECT_EQ(check(true).json()["json_format_version"], 1);
    EXPECT_EQ(check(true).json()["report"]["replayed"], SpareImage::journal_records);
}

TEST_F(DamageTest, WhatTheSpareCouldNotReadIsShown) {
    image_.mark(4);
    const auto checked = check(true);
    EXPECT_EQ(checked.exit_code, 0);
    EXPECT_EQ(checked.json()["summary"]["unreadable"], 1);
    EXPECT_THAT(check().out, HasSubstr("unreadable"));
    const auto dumped = dump().json();
    EXPECT_EQ(dumped["superblocks"][0]["incompat"], 1);
    EXPECT_EQ(dumped["records"][0]["unreadable"], false);
    EXPECT_EQ(dumped["records"][1]["sector"], 4);
    EXPECT_EQ(dumped["records"][1]["unreadable"], true);
    EXPECT_THAT(run_tool({"dump", image_.spare()}).out, HasSubstr("manual, unreadable"));
}

TEST_F(DamageTest, CheckAndDumpChangeNothing) {
    const auto before = image_.read(0, image_.spare_bytes());
    check();
    dump();
    EXPECT_EQ(image_.read(0, image_.spare_bytes()), before);
}

TEST_F(DamageTest, DumpShowsTableAndJournal) {
    const auto json = dump().json();
    EXPECT_EQ(json["json_format_version"], 1);
    EXPECT_EQ(json["superblocks"].size(), 2U);
    EXPECT_EQ(json["journal"].size(), SpareImage::journal_records);
    EXPECT_EQ(json["journal"][0]["verdicts"], nlohmann::json({"valid", "valid"}));
    EXPECT_EQ(json["journal"][0]["entries"][0]["sector"], 601);
    EXPECT_EQ(json["records"][0]["sector"], 1);
    EXPECT_EQ(json["records"][0]["kind"], "mapped");
    EXPECT_EQ(json["records"][0]["reason"], "manual");
    EXPECT_EQ(json["records"][0]["first_time"], 1700000000);
    const ToolRun text = run_tool({"dump", image_.spare()});
    EXPECT_EQ(text.exit_code, 0);
    EXPECT_THAT(text.out, HasSubstr("records, journal included: 203"));
}

TEST_F(DamageTest, EitherSuperblockMayBeLost) {
    const auto saved = image_.read(head() * DM_REMAP_BLOCK_SIZE, DM_REMAP_BLOCK_SIZE);
    image_.flip_bit(head() * DM_REMAP_BLOCK_SIZE + 100, 3);
    expect_whole(3, "the superblock at the head is damaged");
    image_.zero_block(head());
    expect_whole(3, "the superblock at the head is blank");
    image_.write(head() * DM_REMAP_BLOCK_SIZE, saved);
    image_.flip_bit(tail() * DM_REMAP_BLOCK_SIZE + 100, 3);
    expect_whole(3, "the superblock at the tail is damaged");
}

TEST_F(DamageTest, BothSuperblocksMayNot) {
    image_.flip_bit(head() * DM_REMAP_BLOCK_SIZE + 100, 3);
    image_.flip_bit(tail() * DM_REMAP_BLOCK_SIZE + 100, 3);
    expect_unusable("both superblocks of the spare are lost");
}

// As docs/recovery.md has it, where the ends do not agree: here one is of another spare.
TEST_F(DamageTest, OneEndAloneServesAfterTheOtherIsWiped) {
    const SpareImage other(SpareImage::Content::empty);
    const dm_remap_layout& layout = image_.layout();
    const std::uint64_t n = 1 + layout.journal_blocks + 2 * layout.table_blocks;
    const std::vector<std::uint8_t> zeros(n * DM_REMAP_BLOCK_SIZE);
    for (const std::uint64_t block : {std::uint64_t{0}, layout.device_blocks - n}) {
        const std::uint64_t at = block * DM_REMAP_BLOCK_SIZE;
        const std::vector<std::uint8_t> right = image_.read(at, zeros.size());
        image_.write(at, other.read(at, zeros.size()));
        expect_unusable("different UUIDs");
        image_.write(at, zeros);
        expect_whole(3, "damaged, and nothing is lost");
        image_.write(at, right);
    }
}

TEST_F(DamageTest, EitherTableCopyMayBeLost) {
    for (const int replica : {0, 1}) {
        const std::uint64_t at = table(replica, 1) * DM_REMAP_BLOCK_SIZE;
        image_.flip_bit(at + 200, 0);
        expect_whole(3, "1 table blocks at the " + std::string(replica == 0 ? "head" : "tail"));
        image_.flip_bit(at + 200, 0);
    }
}

TEST_F(DamageTest, EachTableCopyMayLoseAnotherBlock) {
    const std::uint64_t first = table(0, 0);
    const std::uint64_t second = table(1, 1);
    image_.zero_block(first);
    image_.zero_block(second);
    expect_whole(3, "table blocks");
}

TEST_F(DamageTest, BothCopiesOfATableBlockMayNot) {
    const std::uint64_t first = table(0, 1);
    const std::uint64_t second = table(1, 1);
    image_.zero_block(first);
    image_.zero_block(second);
    expect_unusable("a block of the table is lost in every copy");
}

TEST_F(DamageTest, EitherJournalCopyMayBeLost) {
    for (const int replica : {0, 1}) {
        const std::uint64_t at = journal(replica, 1) * DM_REMAP_BLOCK_SIZE;
        image_.flip_bit(at + 70, 5);
        expect_whole(3, "1 journal blocks are bad in one copy");
        image_.flip_bit(at + 70, 5);
    }
}

TEST_F(DamageTest, ALastCommitOnOneSideIsWhatAPowerCutLeaves) {
    image_.zero_block(journal(1, SpareImage::journal_records - 1));
    expect_whole(0, "the last commit had reached one copy");
}

TEST_F(DamageTest, BothCopiesOfAnAcknowledgedCommitMayNotBeLost) {
    image_.zero_block(journal(0, 1));
    image_.zero_block(journal(1, 1));
    expect_unusable("acknowledged journal blocks are lost in both copies");
}

// The promise of the format: any single bit. The whole of it is a unit test of the core; this is
// one bit of each metadata block in use, moving along.
TEST_F(DamageTest, ASingleFlippedBitLosesNothing) {
    const dm_remap_layout& layout = image_.layout();
    const std::uint64_t head_end = dm_remap_data_start(&layout) / DM_REMAP_BLOCK_SECTORS;
    const std::uint64_t tail_start = dm_remap_data_end(&layout) / DM_REMAP_BLOCK_SECTORS;
    for (std::uint64_t block = 0; block < layout.device_blocks; block++) {
        if (block >= head_end && block < tail_start) {
            continue;  // data
        }
        const std::uint64_t at = block * DM_REMAP_BLOCK_SIZE + block * 7 % DM_REMAP_BLOCK_SIZE;
        image_.flip_bit(at, block % 8);
        {
            const auto device = BlockDevice::open(image_.spare(), Access::read, Sharing::exclusive);
            ASSERT_TRUE(device);
            OfflineSpare spare(*device);
            EXPECT_TRUE(spare.load()) << "block " << block << ": " << spare.refusal();
            EXPECT_NE(judge(spare, device->sectors()).soundness, Soundness::unusable);
            EXPECT_EQ(spare.records().size(), all_records) << "block " << block;
        }
        image_.flip_bit(at, block % 8);
    }
}

TEST_F(DamageTest, AGrownSpareIsSound) {
    image_.resize(image_.spare_bytes() + (1 << 20));
    expect_whole(0, "the device has grown");
}

TEST_F(DamageTest, AGrownSpareFindsItsTailWithoutItsHead) {
    image_.resize(image_.spare_bytes() + (1 << 20));
    image_.zero_block(head());
    expect_whole(3, "the superblock at the head is blank");
}

TEST_F(DamageTest, ATruncatedSpareIsUnusable) {
    image_.resize(image_.spare_bytes() - 4096);
    expect_unusable("spare is smaller than when it was formatted");
    image_.resize(4096 * 3 + 17);
    expect_unusable("spare is smaller than when it was formatted");
    image_.resize(4095);
    expect_unusable("too small");
    image_.resize(0);
    expect_unusable("too small");
}

TEST_F(DamageTest, AnAllZeroSpareIsBlank) {
    image_.resize(0);
    image_.resize(image_.spare_bytes());
    expect_unusable("spare is blank");
}

TEST_F(DamageTest, AForeignDeviceIsNoSpare) {
    image_.write(0, std::vector<std::uint8_t>(4096, 0xa5));
    image_.write(image_.spare_bytes() - 4096, std::vector<std::uint8_t>(4096, 0xa5));
    expect_unusable("spare holds no dm-remap metadata");
}

class HeaderEdit : public DamageTest {
  protected:
    // Changes both superblocks, checksums and all.
    template <typename Edit>
    void edit_superblocks(Edit edit) {
        for (const std::uint64_t block : {head(), tail()}) {
            std::vector<std::uint8_t> bytes =
                image_.read(block * DM_REMAP_BLOCK_SIZE, DM_REMAP_BLOCK_SIZE);
            dm_remap_disk_superblock disk{};
            std::memcpy(&disk, bytes.data(), sizeof(disk));
            edit(disk);
            disk.header.crc = cpu_to_le32(dm_remap_block_crc(&disk, sizeof(disk)));
            std::memcpy(bytes.data(), &disk, sizeof(disk));
            image_.write(block * DM_REMAP_BLOCK_SIZE, bytes);
        }
    }
};

TEST_F(HeaderEdit, ANewerVersionIsRefused) {
    edit_superblocks([](auto& disk) { disk.header.version = DM_REMAP_VERSION + 1; });
    expect_unusable("newer metadata version");
}

TEST_F(HeaderEdit, AnUnknownIncompatibleFeatureIsRefused) {
    edit_superblocks([](auto& disk) { disk.incompat = cpu_to_le32(1U << 31); });
    expect_unusable("metadata features unknown to this version");
}

TEST_F(HeaderEdit, AHalfFinishedFormatIsRefused) {
    edit_superblocks([](auto& disk) { disk.state = cpu_to_le32(DM_REMAP_STATE_FORMATTING); });
    expect_unusable("half formatted");
}

TEST_F(HeaderEdit, StateErrorNeedsAttention) {
    edit_superblocks([](auto& disk) { disk.state = cpu_to_le32(DM_REMAP_STATE_ERROR); });
    expect_whole(3, "state ERROR");
}

TEST_F(HeaderEdit, ANameThatIsNoTextIsPrintedAllTheSame) {
    edit_superblocks([](auto& disk) { disk.main_name[0] = '\xff'; });
    for (const char* verb : {"check", "dump"}) {
        const ToolRun text = run_tool({verb, image_.spare()});
        EXPECT_EQ(text.exit_code, 0) << text.err;
        EXPECT_EQ(run_tool({verb, "--json", image_.spare()}).exit_code, 0);
    }
}

TEST_F(DamageTest, AnImageInUseIsReadWithForceAlone) {
    const UniqueFd other(open(image_.spare().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(flock(other.get(), LOCK_EX), 0);
    for (const char* verb : {"check", "dump"}) {
        const ToolRun refused = run_tool({verb, image_.spare()});
        EXPECT_EQ(refused.exit_code, 1);
        EXPECT_THAT(refused.err, HasSubstr("--force"));
        const ToolRun forced = run_tool({verb, "--force", "--json", image_.spare()});
        EXPECT_EQ(forced.exit_code, 0);
        EXPECT_THAT(forced.err, HasSubstr("warning"));
        EXPECT_NO_THROW(forced.json());
    }
}

// An image can claim anything, and the machine must live.
TEST(Memory, IsNotTakenWithoutEnd) {
    const SpareImage image(SpareImage::Content::records);
    const Result<BlockDevice> device =
        BlockDevice::open(image.spare(), Access::read, Sharing::exclusive);
    ASSERT_TRUE(device);
    OfflineSpare enough(*device);
    EXPECT_TRUE(enough.load());
    OfflineSpare little(*device, 64 << 10);
    EXPECT_FALSE(little.load());
    EXPECT_THAT(little.refusal(), HasSubstr("memory"));
}

}  // namespace
}  // namespace remap::test

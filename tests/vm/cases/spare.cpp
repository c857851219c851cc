// Spares that are damaged, foreign or failing: a clear refusal, or everything is served.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "bulk.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;

class Spare : public testing::Test {
  protected:
    // A spare with a record, and known data.
    void SetUp() override {
        DmDevice device("remap", table({"format"}));
        const BlockFile mapped(device.path());
        write_pattern(mapped, 0, 4096, 1);
        device.message("remap 1000 100");
        write_pattern(mapped, 900, 300, 2);
    }

    [[nodiscard]] Table table(const std::vector<std::string>& features = {}) const {
        return remap_table(main.path(), spare.path(), features);
    }
    void damage(uint64_t sector) const {
        const BlockFile disk(spare.path());
        const Buffer garbage(4096);
        fill_pattern(garbage.bytes(), sector, 99);
        ASSERT_EQ(disk.write(sector, garbage.bytes()), 0);
        ASSERT_EQ(disk.flush(), 0);
    }
    void expect_refused(const std::string& reason) const { EXPECT_TRUE(refused(table(), reason)); }
    void expect_served() const {
        DmDevice device("remap", table());
        EXPECT_EQ(remap_status(device).mode, "rw");
        ASSERT_THAT(remap_list(device), SizeIs(1));
        const BlockFile mapped(device.path());
        EXPECT_TRUE(verify_pattern(mapped, 0, 900, 1));
        EXPECT_TRUE(verify_pattern(mapped, 900, 300, 2));
        EXPECT_TRUE(verify_pattern(mapped, 1200, 2896, 1));
    }

    LoopDevice main{64 * kMiB};
    LoopDevice spare{16 * kMiB};
};

TEST_F(Spare, EachSuperblockInTurn) {
    const uint64_t tail = tail_superblock(spare.path());
    damage(0);
    expect_served();
    // Healed: the other one may go now.
    damage(tail);
    expect_served();
    register_spare(spare.path());
}

TEST_F(Spare, BothSuperblocksDamagedIsRefused) {
    const uint64_t tail = tail_superblock(spare.path());
    damage(0);
    damage(tail);
    expect_refused("no dm-remap metadata");
}

TEST_F(Spare, ZeroedIsRefused) {
    run_ok({"dd", "if=/dev/zero", "of=" + spare.path(), "bs=1M", "count=16", "oflag=direct"});
    expect_refused("spare is blank");
}

TEST_F(Spare, AnUnknownVersionIsRefused) {
    for (const int replica : {0, 1}) {
        edit_superblock(spare.path(), replica, [](auto& s) { s.header.version = 2; });
        expect_refused("newer metadata version");
    }
}

TEST_F(Spare, AnUnknownIncompatFlagIsRefused) {
    for (const int replica : {0, 1}) {
        edit_superblock(spare.path(), replica, [](auto& s) { s.incompat = cpu_to_le32(1U << 31); });
    }
    expect_refused("features unknown to this version");
}

TEST_F(Spare, HalfFormattedIsRefused) {
    for (const int replica : {0, 1}) {
        edit_superblock(spare.path(), replica, [](auto& s) {
            s.state = cpu_to_le32(DM_REMAP_STATE_FORMATTING);
            s.header.sequence = 0;
        });
    }
    expect_refused("half formatted; run dm-remapctl format --force");
    EXPECT_TRUE(refused(table({"format"}), "half formatted"));
}

TEST_F(Spare, GrownSinceItWasFormatted) {
    spare.resize(24 * kMiB);
    expect_served();
    damage(0);
    expect_served();
    register_spare(spare.path());
}

TEST_F(Spare, TruncatedIsRefused) {
    spare.resize(12 * kMiB);
    expect_refused("smaller than when it was formatted");
    spare.resize(16 * kMiB);
}

// Metadata that can't be written: what is remapped is served, nothing new is promised.
TEST_F(Spare, FailingWritesMakeItReadOnly) {
    const std::string plain = spare.path() + " 0";
    DmDevice under("under", {{0, 32768, "linear", plain}});
    {
        DmDevice device("remap", remap_table(main.path(), under.path()));
        const BlockFile mapped(device.path());
        under.reload({{0, 32768, "flakey", plain + " 0 60 1 error_writes"}});
        const uint32_t events = device.info().event_nr;
        EXPECT_NE(message_error(device, "remap 2000 8"), 0);
        EXPECT_NE(message_error(device, "save"), 0);
        EXPECT_EQ(remap_status(device).mode, "ro");
        EXPECT_GT(device.info().event_nr, events);
        EXPECT_EQ(message_error(device, "remap 3000 8"), EROFS);
        EXPECT_EQ(message_error(device, "unremap 1000 8"), EROFS);
        EXPECT_TRUE(verify_pattern(mapped, 900, 300, 2));
        // What main holds is none of the spare's business.
        write_pattern(mapped, 0, 100, 3);
        EXPECT_TRUE(verify_pattern(mapped, 0, 100, 3));
        write_pattern(mapped, 0, 100, 1);

        under.reload({{0, 32768, "linear", plain}});
        device.message("save");
        EXPECT_EQ(remap_status(device).mode, "rw");
        EXPECT_EQ(message_error(device, "remap 2000 8"), 0);
        device.message("unremap 2000 8");
    }
    under.remove();
    expect_served();
    register_spare(spare.path());
}

TEST_F(Spare, ActivatedWhileItFailsWritesIsReadOnly) {
    const std::string plain = spare.path() + " 0";
    DmDevice under("under", {{0, 32768, "flakey", plain + " 0 60 1 error_writes"}});
    {
        DmDevice device("remap", remap_table(main.path(), under.path()));
        EXPECT_EQ(remap_status(device).mode, "ro");
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 900, 300, 2));
        EXPECT_EQ(message_error(device, "remap 2000 8"), EROFS);
    }
    under.remove();
    expect_served();
    register_spare(spare.path());
}

TEST_F(Spare, DeadIsRefused) {
    const DmDevice under("under", {{0, 32768, "error", ""}});
    EXPECT_TRUE(
        refused(remap_table(main.path(), under.path()), "no superblock of the spare can be read"));
}

// Each end of the spare unreadable in turn.
TEST_F(Spare, OneEndUnreadableIsServed) {
    const uint64_t half = 16384;
    const std::string at = spare.path() + " ";
    DmDevice under("under", {{0, half, "linear", at + "0"}, {half, half, "error", ""}});
    {
        DmDevice device("remap", remap_table(main.path(), under.path()));
        EXPECT_EQ(remap_status(device).mode, "ro");
        EXPECT_THAT(remap_list(device), SizeIs(1));
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 900, 300, 2));
    }
    under.remove();
    expect_served();
    register_spare(spare.path());
}

}  // namespace
}  // namespace remap::vm

// The word `format`: the spare is written at the first resume, by one table, and wholly or not at
// all.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "core.h"
#include "dm_device.h"
#include "failing.h"
#include "harness.h"
#include "kernel_log.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kMainSectors = 64 * kMiB / kSector;
constexpr uint64_t kSpareSectors = 16 * kMiB / kSector;

// The kernel log says `reason` of an operation that fails.
template <typename Operation>
testing::AssertionResult fails(Operation operation, const std::string& reason) {
    KernelLog log;
    try {
        operation();
    } catch (const DmError&) {
        if (log.contains(reason, 1000)) {
            return testing::AssertionSuccess();
        }
        return testing::AssertionFailure() << "failed, but not because \"" << reason
                                           << "\": " << testing::PrintToString(log.lines());
    }
    return testing::AssertionFailure() << "did not fail: " << reason;
}

class Format : public testing::Test {
  protected:
    void SetUp() override {
        write_pattern(BlockFile(main.path()), 0, 4096, 1);
        ASSERT_EQ(dm_remap_layout_choose(&layout, kSpareSectors, 1, 0, 0), 0);
    }

    [[nodiscard]] Table line(const std::vector<std::string>& features = {"format"}) const {
        return remap_table(main.path(), spare.path(), features);
    }
    // Of `count` blocks of the spare from `first` on.
    static void fail_writes(FailingDisk& disk, uint64_t first, uint64_t count) {
        disk.fail(first * DM_REMAP_BLOCK_SECTORS, count * DM_REMAP_BLOCK_SECTORS, Fails::kWrites);
    }
    void expect_spare_untouched() const {
        EXPECT_TRUE(verify_zeroes(BlockFile(spare.path()), 0, kSpareSectors));
    }
    // It serves what main held, and takes and keeps records.
    void expect_good(DmDevice& device) const {
        EXPECT_EQ(remap_status(device).mode, "rw");
        EXPECT_THAT(remap_list(device), SizeIs(0));
        device.message("remap 1000 8");
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 0, 4096, 1));
        const Table table = device.table();
        device.reload(table);
        EXPECT_THAT(remap_list(device), SizeIs(1));
    }

    LoopDevice main{kMainSectors * kSector};
    LoopDevice spare{kSpareSectors * kSector};
    dm_remap_layout layout{};
};

TEST_F(Format, FailingHalfWayLeavesWhatIsRefusedUntilItIsMadeAnew) {
    FailingDisk under("under", spare.path());
    const auto table = [&](const std::vector<std::string>& features) {
        return remap_table(main.path(), under.path(), features);
    };
    {
        DmDevice device("remap");
        device.load(table({"format"}));
        // After both superblocks and the first journal.
        fail_writes(under, dm_remap_table_at(&layout, 0, 1), 8);
        EXPECT_TRUE(
            fails([&] { device.resume(); }, "cannot be written where its metadata belongs"));
        EXPECT_TRUE(device.info().suspended);
        EXPECT_EQ(remap_status(device).mode, "fail");
        EXPECT_NE(message_error(device, "remap 1000 8"), 0);

        under.heal_all();
        EXPECT_TRUE(fails([&] { device.resume(); }, "half formatted; run dm-remapctl format"));
    }
    EXPECT_TRUE(refused(table({"format"}), "half formatted; run dm-remapctl format --force"));
    EXPECT_TRUE(refused(table({}), "half formatted; run dm-remapctl format --force"));
    EXPECT_TRUE(verify_pattern(BlockFile(main.path()), 0, 4096, 1));

    run_ok({"dm-remapctl", "format", "--yes", "--force", main.path(), under.path()});
    register_spare(spare.path());
    DmDevice device("remap", table({}));
    expect_good(device);
    device.remove();
}

// Nothing is on the spare then, and the same table can go on.
TEST_F(Format, FailingAtItsFirstWriteIsTriedAgainByTheNextResume) {
    FailingDisk under("under", spare.path());
    DmDevice device("remap");
    device.load(remap_table(main.path(), under.path(), {"format"}));
    fail_writes(under, dm_remap_superblock_at(&layout, 1), 1);
    for (int i = 0; i < 2; i++) {
        EXPECT_TRUE(
            fails([&] { device.resume(); }, "cannot be written where its metadata belongs"));
        expect_spare_untouched();
    }
    under.heal_all();
    device.resume();
    expect_good(device);
    device.remove();
    register_spare(spare.path());
}

TEST_F(Format, OfTwoDevicesThatAreNotResumedTheFirstHasTheSpare) {
    const LoopDevice other(kMainSectors * kSector);
    const Table other_line = remap_table(other.path(), spare.path(), {"format"});
    DmDevice first("first");
    DmDevice second("second");
    first.load(line());
    EXPECT_TRUE(fails([&] { second.load(line()); }, "in use by another remap device"));
    EXPECT_TRUE(fails([&] { second.load(other_line); }, "in use by another remap device"));
    // Neither has written anything, and who gives up leaves no trace.
    expect_spare_untouched();
    first.clear();
    write_pattern(BlockFile(other.path()), 0, 4096, 1);
    second.load(other_line);
    EXPECT_TRUE(fails([&] { first.load(line()); }, "in use by another remap device"));
    expect_spare_untouched();
    second.resume();
    EXPECT_TRUE(fails([&] { first.load(line({})); }, "in use by another remap device"));
    expect_good(second);
    register_spare(spare.path());
}

// A table that takes the place of one that never ran: they are of one device, and format once.
TEST_F(Format, TwoTablesOfOneDeviceThatAreNotResumedFormatOnce) {
    DmDevice device("remap");
    device.load(line({"format", "no_auto_remap"}));
    EXPECT_TRUE(fails([&] { device.load(line({})); }, "another table is to format this spare"));
    device.load(line());
    expect_spare_untouched();
    device.resume();
    const std::string uuid = device.table()[0].text;
    expect_good(device);
    EXPECT_EQ(device.table()[0].text, uuid);
    device.remove();
    register_spare(spare.path());

    // The same of a spare that is formatted, where there are records to lose.
    DmDevice again("again");
    again.load(line({}));
    EXPECT_TRUE(fails([&] { again.load(line()); }, "formatted already"));
    again.load(line({}));
    DmDevice other("other");
    EXPECT_TRUE(fails([&] { other.load(line({})); }, "in use by another remap device"));
    again.resume();
    EXPECT_EQ(again.table()[0].text, uuid);
    EXPECT_THAT(remap_list(again), SizeIs(1));
}

}  // namespace
}  // namespace remap::vm

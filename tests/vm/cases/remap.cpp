// Remapping by hand: data, records, durability.

#include <gmock/gmock.h>

#include "backing.h"
#include "block.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Remap, PlainDeviceIsThePlainDisk) {
    const LoopDevice main(64 << 20);
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 131072, 1);
    {
        const DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
        const BlockFile mapped(device.path());
        EXPECT_TRUE(verify_pattern(mapped, 0, mapped.sectors(), 1));
        write_pattern(mapped, 0, 1000, 2);
        EXPECT_EQ(mapped.flush(), 0);
        EXPECT_EQ(remap_status(device).mode, "rw");
        EXPECT_EQ(remap_status(device).number("records"), 0U);
    }
    EXPECT_TRUE(verify_pattern(BlockFile(main.path()), 0, 1000, 2));
    EXPECT_TRUE(verify_pattern(BlockFile(main.path()), 1000, 130072, 1));
}

TEST(Remap, RangeMovesAndComesHome) {
    const LoopDevice main(64 << 20);
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    const BlockFile disk(main.path());
    write_pattern(disk, 0, 131072, 1);
    {
        DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
        const BlockFile mapped(device.path());
        EXPECT_EQ(device.message("remap 5000 300"), "moved=300 pending=0");
        EXPECT_TRUE(verify_pattern(mapped, 0, mapped.sectors(), 1));

        write_pattern(mapped, 4900, 500, 2);
        EXPECT_TRUE(verify_pattern(mapped, 4900, 500, 2));
        // What lies under the record stays as it was.
        EXPECT_TRUE(verify_pattern(disk, 5000, 300, 1));
        EXPECT_TRUE(verify_pattern(disk, 4900, 100, 2));

        const auto records = remap_list(device);
        ASSERT_EQ(records.size(), 1U);
        EXPECT_EQ(records[0].sector, 5000U);
        EXPECT_EQ(records[0].count, 300U);
        EXPECT_EQ(records[0].kind, "mapped");
        EXPECT_EQ(records[0].reason, "manual");
        EXPECT_GT(records[0].time, 1600000000U);

        EXPECT_EQ(device.message("unremap 5000 300"), "moved=300 refused=0");
        EXPECT_THAT(remap_list(device), IsEmpty());
        EXPECT_TRUE(verify_pattern(mapped, 4900, 500, 2));
        EXPECT_EQ(remap_status(device).number("spare_free"),
                  remap_status(device).number("spare_total"));
    }
    EXPECT_TRUE(verify_pattern(disk, 4900, 500, 2));
}

TEST(Remap, UnreadableSectorsBecomePendingAndAWriteMovesThem) {
    ScsiDebug main({"dev_size_mb=16"});
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 32768, 1);
    main.fail_reads(1000, 4);
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    const BlockFile mapped(device.path());

    EXPECT_EQ(device.message("remap 992 32"), "moved=28 pending=4");
    EXPECT_THAT(unreadable(mapped, 960, 128), ElementsAre(1000, 1001, 1002, 1003));
    EXPECT_EQ(remap_status(device).number("pending"), 4U);

    // Across both edges of a part of the pending range.
    write_pattern(mapped, 1001, 2, 2);
    EXPECT_THAT(unreadable(mapped, 960, 128), ElementsAre(1000, 1003));
    EXPECT_TRUE(verify_pattern(mapped, 1001, 2, 2));
    write_pattern(mapped, 990, 40, 3);
    EXPECT_TRUE(verify_pattern(mapped, 990, 40, 3));
    EXPECT_EQ(remap_status(device).number("pending"), 0U);
    EXPECT_TRUE(verify_pattern(mapped, 0, 990, 1));
    EXPECT_TRUE(verify_pattern(mapped, 1030, 31738, 1));
}

}  // namespace
}  // namespace remap::vm

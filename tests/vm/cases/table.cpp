// The table line: what is accepted, what comes back, what is refused and with which words.

#include <gmock/gmock.h>
#include <sys/sysmacros.h>

#include <stop_token>
#include <thread>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "kernel_log.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;

// Of what is on the device, not of what the page cache holds of it.
std::string digest(const std::string& path) {
    return run_ok({"sh", "-c", "dd if=" + path + " bs=1M iflag=direct 2>/dev/null | sha256sum"});
}

class TableLine : public testing::Test {
  protected:
    [[nodiscard]] Table line(const std::vector<std::string>& features = {}) const {
        return remap_table(main.path(), spare.path(), features);
    }
    Table with_text(const std::string& text) const {
        Table table = line();
        table[0].text = text;
        return table;
    }

    LoopDevice main{64 * kMiB};
    LoopDevice spare{16 * kMiB};
};

TEST_F(TableLine, ComesBackAsALineThatLoadsAgain) {
    register_spare(spare.path());
    Table again;
    {
        DmDevice device(
            "remap", line({"format", "verify_spare_writes", "no_auto_remap", "read_retries", "7"}));
        device.message("remap 100 10");
        again = device.table();
        EXPECT_THAT(again[0].text, Not(HasSubstr("format")));
        EXPECT_THAT(again[0].text, HasSubstr(" 6 uuid "));
        EXPECT_THAT(again[0].text, HasSubstr(" no_auto_remap verify_spare_writes read_retries 7"));
    }
    DmDevice device("remap", again);
    EXPECT_EQ(device.table(), again);
    EXPECT_THAT(remap_list(device), SizeIs(1));
    device.reload(again);
    EXPECT_EQ(device.table(), again);
    EXPECT_THAT(remap_list(device), SizeIs(1));
    device.message("set read_retries 3");
    device.message("set no_auto_remap 0");
    device.message("set verify_spare_writes 0");
    EXPECT_THAT(device.table()[0].text, HasSubstr(" read_retries 3"));
    EXPECT_THAT(device.table()[0].text, Not(HasSubstr("no_auto_remap")));
    EXPECT_THAT(device.table()[0].text, Not(HasSubstr("verify_spare_writes")));
}

TEST_F(TableLine, DependsOnBothDevices) {
    register_spare(spare.path());
    DmDevice device("remap", line({"format"}));
    EXPECT_THAT(device.dependencies(), SizeIs(2));
    device.rename("remap2");
    EXPECT_EQ(remap_status(device).mode, "rw");
    device.message("remap 0 8");
    EXPECT_THAT(remap_list(device), SizeIs(1));
}

TEST_F(TableLine, WrongWordsAreRefused) {
    const std::string m = main.path();
    const std::string s = spare.path();
    const std::string devices = m + " 0 " + s;
    EXPECT_TRUE(refused(with_text(m), "expected: <main_dev>"));
    EXPECT_TRUE(refused(with_text(m + " 0"), "expected: <main_dev>"));
    EXPECT_TRUE(refused(with_text(m + " x " + s), "start sector of main is not a number"));
    EXPECT_TRUE(refused(with_text(m + " -1 " + s), "start sector of main is not a number"));
    EXPECT_TRUE(refused(with_text(devices + " 1"), "feature argument"));
    EXPECT_TRUE(refused(with_text(devices + " 1 format format"), "feature arguments is wrong"));
    EXPECT_TRUE(refused(with_text(devices + " 11 a b c d e f g h i j k"), "must be 0 to 10"));
    EXPECT_TRUE(refused(with_text(devices + " 1 formatt"), "unknown feature argument"));
    EXPECT_TRUE(refused(with_text(devices + " 1 uuid"), "followed by the UUID"));
    EXPECT_TRUE(refused(with_text(devices + " 2 uuid 1234"), "followed by the UUID"));
    EXPECT_TRUE(refused(with_text(devices + " 1 read_retries"), "read_retries must be"));
    EXPECT_TRUE(refused(with_text(devices + " 2 read_retries -1"), "read_retries must be"));
    EXPECT_TRUE(refused(with_text(devices + " 2 read_retries 101"), "read_retries must be"));
    EXPECT_TRUE(refused(with_text(devices + " 2 read_retries 99999999999"), "read_retries must"));
    const std::string uuid = " uuid f28f3435-da42-4d3f-9bfd-9cb7a12f41e7";
    EXPECT_TRUE(refused(with_text(devices + " 3" + uuid + " witness"), "witness must be"));
    const std::string with_witness = devices + " 4" + uuid + " witness ";
    for (const char* word : {"7", "7:", ":7", "7:4:0", "x:40", "7:-40", "7:18446744073709551616"}) {
        EXPECT_TRUE(refused(with_text(with_witness + word), "witness must be"));
    }
    EXPECT_TRUE(refused(with_text(devices + " 2 witness 7:40"), "witness needs the uuid"));
    EXPECT_TRUE(
        refused(with_text(devices + " 5" + uuid + " witness 7:40 format"), "and no format"));
    EXPECT_TRUE(refused(with_text(devices + " 1 rebind"), "rebind needs the uuid"));
    EXPECT_TRUE(refused(with_text(devices + " 4" + uuid + " rebind format"), "and no format"));
    EXPECT_TRUE(refused(with_text("/dev/none 0 " + s), "main device cannot be opened"));
    EXPECT_TRUE(refused(with_text(m + " 0 /dev/none"), "spare device cannot be opened"));
}

TEST_F(TableLine, WrongDevicesAreRefused) {
    const std::string m = main.path();
    const std::string s = spare.path();
    Table long_line = line({"format"});
    long_line[0].length += 8;
    EXPECT_TRUE(refused(long_line, "main is too small"));
    EXPECT_TRUE(refused(with_text(m + " 8 " + s + " 1 format"), "main is too small"));
    EXPECT_TRUE(refused(with_text(m + " 99999999 " + s), "beyond the end of main"));
    EXPECT_TRUE(refused(with_text(m + " 18446744073709551615 " + s), "beyond the end of main"));
    EXPECT_TRUE(refused(with_text(m + " 0 " + m), "same device"));

    const LoopDevice tiny(64 * 1024);
    EXPECT_TRUE(refused(remap_table(m, tiny.path(), {"format"}), "spare is too small"));
    EXPECT_TRUE(refused(remap_table(m, tiny.path()), "spare is blank"));

    spare.set_read_only(true);
    EXPECT_TRUE(refused(line({"format"}), "read-only"));
    spare.set_read_only(false);

    run_ok({"mkfs.ext4", "-q", s});
    EXPECT_TRUE(refused(line({"format"}), "spare is not blank"));
    EXPECT_TRUE(refused(line(), "no dm-remap metadata"));
}

TEST_F(TableLine, OneSpareServesOneDevice) {
    const LoopDevice other(64 * kMiB);
    const LoopDevice other_spare(16 * kMiB);
    register_spare(spare.path());
    register_spare(other_spare.path());
    DmDevice device("remap", line({"format"}));
    const Table table = device.table();

    EXPECT_EQ(create_error(remap_table(other.path(), spare.path())), EBUSY);
    EXPECT_EQ(create_error(remap_table(main.path(), other_spare.path(), {"format"})), EBUSY);
    {
        // Two devices side by side are no trouble.
        DmDevice second("second", remap_table(other.path(), other_spare.path(), {"format"}));
        device.message("remap 8 8");
        second.message("remap 16 8");
        EXPECT_EQ(remap_list(device)[0].sector, 8U);
        EXPECT_EQ(remap_list(second)[0].sector, 16U);
    }
    // Nor may main of one be spare of another, or a spare with records be left behind.
    EXPECT_TRUE(
        refused(remap_table(other.path(), main.path(), {"format"}), "cannot be main of one"));
    EXPECT_TRUE(
        refused(remap_table(spare.path(), other.path(), {"format"}), "cannot be main of one"));
    EXPECT_THROW(device.load(remap_table(main.path(), other_spare.path())), DmError);
    device.remove();
    const LoopDevice smaller(32 * kMiB);
    EXPECT_TRUE(refused(remap_table(smaller.path(), spare.path()), "another size"));
    EXPECT_TRUE(refused(
        remap_table(main.path(), spare.path(), {"uuid", "12345678-1234-1234-1234-123456789abc"}),
        "another UUID"));
    EXPECT_TRUE(refused(line({"format"}), "formatted already"));
    EXPECT_TRUE(refused(remap_table(main.path(), spare.path(), {}, 0, 8), "another start"));
    DmDevice again("remap", table);
    EXPECT_THAT(remap_list(again), SizeIs(1));
}

// A longer table keeps others off the rest of main, and no longer than it is there.
TEST_F(TableLine, ATableThatIsGoneClaimsNothing) {
    constexpr uint64_t kHalf = 65536;
    const LoopDevice other_spare(16 * kMiB);
    register_spare(spare.path());
    register_spare(other_spare.path());
    const Table first_half = remap_table(main.path(), spare.path(), {"format"}, kHalf);
    const Table all = remap_table(main.path(), spare.path());
    const Table second_half =
        remap_table(main.path(), other_spare.path(), {"format"}, kHalf, kHalf);
    DmDevice device("remap", first_half);
    device.load(all);
    EXPECT_EQ(create_error(second_half), EBUSY);
    device.clear();
    const DmDevice second("second", second_half);
    EXPECT_EQ(remap_status(second).mode, "rw");
    EXPECT_THROW(device.load(all), DmError);
}

// A table with another spare would do without the records of the live one, also of those that came
// after it was loaded.
TEST_F(TableLine, AnotherSpareIsRefusedWhileThereAreRecords) {
    LoopDevice other(16 * kMiB);
    const Table with_other = remap_table(main.path(), other.path(), {"format"});
    DmDevice device("remap", line({"format"}));
    const Table live = device.table();
    write_pattern(BlockFile(device.path()), 0, 64, 1);
    device.load(with_other);
    device.message("remap 8 8");
    write_pattern(BlockFile(device.path()), 8, 8, 2);
    KernelLog log;
    device.suspend();
    EXPECT_THROW(device.resume(), DmError);
    EXPECT_TRUE(log.contains("the spare until now holds records"));
    EXPECT_THROW(device.resume(), DmError) << "now that the live table is gone";
    device.load(live);
    device.resume();
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 0, 8, 1));
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 8, 8, 2));
    EXPECT_THROW(device.load(with_other), DmError);
    // Without records nothing is lost.
    device.message("unremap 8 8");
    device.reload(with_other);
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 8, 8, 2));
    device.message("remap 8 8");
    device.remove();
    register_spare(other.path());
    register_spare(spare.path());
}

TEST_F(TableLine, AReadOnlyLoadWritesNothing) {
    write_pattern(BlockFile(main.path()), 0, 4096, 1);
    Table table;
    {
        DmDevice device("remap", line({"format"}));
        device.message("remap 100 10");
        write_pattern(BlockFile(device.path()), 100, 10, 2);
        table = device.table();
    }
    const std::string before = digest(spare.path());
    run_ok({"dmsetup", "create", "--readonly", "remap", "--table",
            "0 " + std::to_string(table[0].length) + " remap " + table[0].text});
    {
        const BlockFile mapped("/dev/mapper/remap", O_RDONLY | O_DIRECT);
        EXPECT_TRUE(verify_pattern(mapped, 0, 100, 1));
        EXPECT_TRUE(verify_pattern(mapped, 100, 10, 2));
        EXPECT_THAT(run_ok({"dmsetup", "status", "remap"}), HasSubstr("remap ro "));
        EXPECT_NE(run({"dmsetup", "message", "remap", "0", "remap 8 8"}).status, 0);
    }
    dm_remove("remap");
    EXPECT_EQ(digest(spare.path()), before);
    register_spare(spare.path());
}

TEST_F(TableLine, MainMayGrowAndShrinkUnderALiveDevice) {
    register_spare(spare.path());
    DmDevice device("remap", line({"format"}));
    device.message("remap 100000 8");
    main.resize(128 * kMiB);
    device.reload(line());
    EXPECT_EQ(BlockFile(device.path()).sectors(), 262144U);
    device.message("remap 250000 8");
    write_pattern(BlockFile(device.path()), 249000, 2000, 1);
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 249000, 2000, 1));
    EXPECT_THAT(remap_list(device), SizeIs(2));

    EXPECT_THROW(device.load(remap_table(main.path(), spare.path(), {}, 131072)), DmError);
    device.message("unremap 250000 8");
    device.reload(remap_table(main.path(), spare.path(), {}, 131072));
    EXPECT_THAT(remap_list(device), SizeIs(1));
}

// The longer table is loaded while the shorter one runs, is given more records and is written to.
TEST(GrowingReload, KeepsWhatCameMeanwhile) {
    constexpr uint64_t kShort = 131072;
    constexpr uint64_t kLong = 10 << 21;  // past the reach of one chunk of the table, 2 GiB
    const LoopDevice main(kLong * kSector);
    const LoopDevice spare(16 * kMiB);
    register_spare(spare.path());
    const Table short_table = remap_table(main.path(), spare.path(), {}, kShort);
    const Table long_table = remap_table(main.path(), spare.path());
    {
        DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}, kShort));
        device.message("remap " + std::to_string(kShort - 8) + " 8");
        device.load(long_table);
        // The shorter one still counts.
        EXPECT_EQ(BlockFile(device.path()).sectors(), kShort);
        EXPECT_EQ(message_error(device, "remap " + std::to_string(kShort) + " 8"), EINVAL);
        device.message("remap 1000 8");

        std::jthread writer([&](const std::stop_token& stop) {
            const BlockFile mapped(device.path());
            for (uint64_t seed = 1; !stop.stop_requested(); seed++) {
                write_pattern(mapped, 900, 300, seed);
                EXPECT_TRUE(verify_pattern(mapped, 900, 300, seed));
            }
        });
        device.suspend();
        device.resume();
        writer.request_stop();
        writer.join();

        const BlockFile mapped(device.path());
        EXPECT_EQ(mapped.sectors(), kLong);
        device.message("remap " + std::to_string(kShort) + " 8");
        device.message("remap " + std::to_string(kLong - 8) + " 8");
        write_pattern(mapped, 900, 300, 0);
        write_pattern(mapped, kShort - 100, 200, 0);
        write_pattern(mapped, kLong - 100, 100, 0);
        EXPECT_THROW(device.load(short_table), DmError);
    }
    EXPECT_NE(create_error(short_table), 0);
    DmDevice device("remap", long_table);
    EXPECT_THAT(remap_list(device), SizeIs(4));
    const BlockFile mapped(device.path());
    EXPECT_TRUE(verify_pattern(mapped, 900, 300, 0));
    EXPECT_TRUE(verify_pattern(mapped, kShort - 100, 200, 0));
    EXPECT_TRUE(verify_pattern(mapped, kLong - 100, 100, 0));
}

struct Mixture {
    unsigned main;
    unsigned spare;
    bool legal;
};

class BlockSizes : public testing::TestWithParam<Mixture> {};

TEST_P(BlockSizes, AreStackedOrRefused) {
    const LoopDevice main(64 * kMiB, GetParam().main);
    const LoopDevice spare(16 * kMiB, GetParam().spare);
    const Table table = remap_table(main.path(), spare.path(), {"format"});
    if (!GetParam().legal) {
        EXPECT_TRUE(refused(table, "larger logical block"));
        return;
    }
    register_spare(spare.path());
    DmDevice device("remap", table);
    const BlockFile mapped(device.path());
    const uint64_t g = GetParam().main / kSector;
    EXPECT_EQ(mapped.logical_block_size(), GetParam().main);
    write_pattern(mapped, 0, 2048, 1);
    device.message("remap " + std::to_string(100 * g) + " " + std::to_string(3 * g));
    EXPECT_TRUE(verify_pattern(mapped, 0, 2048, 1));
    write_pattern(mapped, 96 * g, 16 * g, 2);
    EXPECT_TRUE(verify_pattern(mapped, 96 * g, 16 * g, 2));
    if (g > 1) {
        EXPECT_EQ(message_error(device, "remap 1 1"), EINVAL);
        EXPECT_EQ(message_error(device, "remap 8 7"), EINVAL);
    }
}

INSTANTIATE_TEST_SUITE_P(Mixtures, BlockSizes,
                         testing::Values(Mixture{512, 512, true}, Mixture{4096, 4096, true},
                                         Mixture{4096, 512, true}, Mixture{512, 4096, false}),
                         [](const auto& info) {
                             return "Main" + std::to_string(info.param.main) + "Spare" +
                                    std::to_string(info.param.spare);
                         });

// 512-byte logical, 4096-byte physical blocks: records may still be single sectors.
TEST(BlockSizes512e, PhysicalBlocksShowThrough) {
    const ScsiDebug disks({"dev_size_mb=32", "sector_size=512", "physblk_exp=3"}, 2);
    register_spare(disks.path(1));
    DmDevice device("remap", remap_table(disks.path(0), disks.path(1), {"format"}));
    EXPECT_EQ(device.message("remap 1001 1"), "moved=1 pending=0");
    write_pattern(BlockFile(device.path()), 992, 24, 1);
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 992, 24, 1));
    const dev_t number = device.info().device;
    const std::string queue = "/sys/dev/block/" + std::to_string(major(number)) + ":" +
                              std::to_string(minor(number)) + "/queue/";
    EXPECT_EQ(read_value(queue + "physical_block_size"), "4096");
    EXPECT_EQ(read_value(queue + "logical_block_size"), "512");
}

}  // namespace
}  // namespace remap::vm

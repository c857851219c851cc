// dm-remapctl against the real target.

#include <gmock/gmock.h>
#include <linux/blkpg.h>
#include <sys/ioctl.h>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "failing.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr int kError = 1;
constexpr int kNeedsAttention = 3;

CommandResult tool(const std::vector<std::string>& words) {
    std::vector<std::string> argv = {"dm-remapctl"};
    argv.insert(argv.end(), words.begin(), words.end());
    return run(argv);
}

std::string tool_ok(const std::vector<std::string>& words) {
    const auto result = tool(words);
    EXPECT_EQ(result.status, 0) << testing::PrintToString(words) << '\n' << result.output;
    return result.output;
}

class Tool : public testing::Test {
  protected:
    void SetUp() override {
        write_pattern(BlockFile(main.path()), 0, 32768, 1);
        main.fail_reads(1000, 8);
        register_spare(spare.path());
        tool_ok({"format", "--yes", main.path(), spare.path()});
    }
    void TearDown() override {
        for (const auto& name : dm_device_names()) {
            dm_remove(name, true);
        }
    }

    ScsiDebug main{{"dev_size_mb=16"}};
    LoopDevice spare{16 << 20};
};

TEST_F(Tool, TheWholePath) {
    tool_ok({"create", "disk", main.path(), spare.path()});
    const BlockFile mapped("/dev/mapper/disk");
    tool_ok({"status", "disk"});
    EXPECT_THAT(tool_ok({"remap", "disk", "992", "32"}), HasSubstr("24 sectors moved"));
    // Pending sectors are a reason to look.
    EXPECT_EQ(tool({"status", "disk"}).status, kNeedsAttention);
    const auto json = tool({"status", "--json", "disk"});
    EXPECT_EQ(json.status, kNeedsAttention);
    EXPECT_THAT(json.output, AllOf(HasSubstr("\"json_format_version\": 1"),
                                   HasSubstr("\"pending\": 8"), HasSubstr("\"mode\": \"rw\"")));
    EXPECT_THAT(tool_ok({"list", "disk"}), AllOf(HasSubstr("mapped"), HasSubstr("pending")));
    EXPECT_THAT(tool_ok({"list", "--json", "disk"}), HasSubstr("\"kind\": \"pending\""));
    tool_ok({"forget", "disk", "1000", "8"});
    tool_ok({"save", "disk"});
    EXPECT_THAT(tool_ok({"restore", "disk"}), HasSubstr("holds the table in memory"));
    main.fail_reads(0, 0);
    tool_ok({"unremap", "disk", "992", "32"});
    EXPECT_TRUE(verify_pattern(mapped, 0, 32768, 1));
    tool_ok({"status", "disk"});
}

TEST_F(Tool, RemovedAndCreatedAgain) {
    tool_ok({"create", "disk", main.path(), spare.path()});
    tool_ok({"remap", "disk", "2000", "8"});
    tool_ok({"remove", "disk"});
    EXPECT_THAT(dm_device_names(), IsEmpty());
    tool_ok({"check", spare.path()});
    EXPECT_THAT(tool_ok({"dump", spare.path()}), HasSubstr("2000"));
    tool_ok({"create", "disk", main.path(), spare.path(), "--read-retries", "5"});
    EXPECT_THAT(tool_ok({"list", "disk"}), HasSubstr("2000"));
    EXPECT_THAT(run_ok({"dmsetup", "table", "disk"}), HasSubstr("read_retries 5"));
    EXPECT_THAT(run_ok({"dmsetup", "info", "disk"}), HasSubstr("UUID: REMAP-"));
}

TEST_F(Tool, ErrorsQuoteTheKernelAndSayWhatToDo) {
    tool_ok({"create", "disk", main.path(), spare.path()});
    auto result = tool({"unremap", "disk", "0", "8"});
    EXPECT_EQ(result.status, kError);
    EXPECT_THAT(result.output,
                AllOf(HasSubstr("disk"), HasSubstr("nothing in the range is remapped")));
    result = tool({"remap", "disk", "99999999"});
    EXPECT_EQ(result.status, kError);
    EXPECT_THAT(result.output,
                AllOf(HasSubstr("beyond the end"), Not(HasSubstr("Invalid argument"))));
    // The spare is in use now, for another device and for format.
    result = tool({"create", "other", main.path(), spare.path()});
    EXPECT_EQ(result.status, kError);
    EXPECT_THAT(result.output, HasSubstr("is in use: held by"));
    EXPECT_EQ(tool({"format", "--yes", "--force", main.path(), spare.path()}).status, kError);
    EXPECT_THAT(dm_device_names(), ElementsAre("disk"));
    EXPECT_EQ(tool({"status", "nothing"}).status, kError);
}

// What only the kernel refuses; nothing is left behind.
TEST_F(Tool, CreateThatTheKernelRefusesSaysWhy) {
    const auto result =
        tool({"create", "disk", main.path(), spare.path(), "--read-retries", "101"});
    EXPECT_EQ(result.status, kError);
    EXPECT_THAT(result.output, HasSubstr("read_retries must be followed by a number from 0 to"));
    EXPECT_THAT(dm_device_names(), IsEmpty());
    tool_ok({"create", "disk", main.path(), spare.path(), "--read-retries", "100"});
}

TEST_F(Tool, SpareThatTakesNoSaveIsTold) {
    FailingDisk failing("failing", spare.path());
    tool_ok({"create", "disk", main.path(), failing.path()});
    tool_ok({"remap", "disk", "2000", "8"});
    failing.fail_all(Fails::kWrites);
    const auto removed = tool({"remove", "disk"});
    EXPECT_EQ(removed.status, kError);
    EXPECT_THAT(removed.output, AllOf(HasSubstr("disk: is removed, but: /dev/"),
                                      HasSubstr("the last save did not reach it")));
    EXPECT_THAT(dm_device_names(), Not(Contains("disk")));
    // It serves what it has, and says that it takes no more.
    EXPECT_THAT(tool_ok({"create", "disk", main.path(), failing.path()}),
                HasSubstr("disk: attention: the spare takes no records"));
    EXPECT_THAT(tool_ok({"list", "disk"}), HasSubstr("2000"));
    EXPECT_EQ(tool({"remove", "disk"}).status, kError);
    failing.heal_all();
    EXPECT_THAT(tool_ok({"create", "disk", main.path(), failing.path()}),
                Not(HasSubstr("attention")));
    EXPECT_THAT(tool_ok({"remove", "disk"}), IsEmpty());
}

TEST_F(Tool, PartitionThatIsMountedIsNamed) {
    blkpg_partition second_half{};
    second_half.start = 8 << 20;
    second_half.length = 8 << 20;
    second_half.pno = 1;
    blkpg_ioctl_arg add{};
    add.op = BLKPG_ADD_PARTITION;
    add.datalen = sizeof(second_half);
    add.data = &second_half;
    ASSERT_EQ(ioctl(BlockFile(main.path()).fd(), BLKPG, &add), 0);
    const std::string partition = main.path() + "1";
    run_ok({"mkfs.ext4", "-q", partition});
    run_ok({"modprobe", "ext4"});
    run_ok({"mount", "-t", "ext4", partition, "/mnt"});
    const auto result = tool({"create", "disk", main.path(), spare.path()});
    run_ok({"umount", "/mnt"});
    EXPECT_EQ(result.status, kError);
    EXPECT_THAT(result.output, HasSubstr("is in use: its partition " + partition.substr(5) +
                                         " is mounted at /mnt"));
    tool_ok({"create", "disk", main.path(), spare.path()});
}

TEST_F(Tool, FormatRefusesWhatIsInUseOrHoldsData) {
    const LoopDevice other(16 << 20);
    run_ok({"mkfs.ext4", "-q", other.path()});
    const auto result = tool({"format", "--yes", main.path(), other.path()});
    EXPECT_EQ(result.status, kError);
    EXPECT_THAT(result.output, AllOf(HasSubstr("ext4"), HasSubstr("--force")));
    tool_ok({"format", "--yes", "--force", main.path(), other.path()});
    tool_ok({"check", other.path()});
    EXPECT_EQ(tool({"format", "--yes", main.path(), other.path()}).status, kError);
}

// In its place it would serve what main holds, where the data is on the first.
TEST_F(Tool, FormatRefusesASecondSpareForWhatIsRemapped) {
    const LoopDevice second(16 << 20);
    tool_ok({"create", "disk", main.path(), spare.path()});
    tool_ok({"remap", "disk", "2000", "8"});
    for (const std::string force : {"--yes", "--force"}) {
        const auto result = tool({"format", "--yes", force, main.path(), second.path()});
        EXPECT_EQ(result.status, kError);
        EXPECT_THAT(result.output, AllOf(HasSubstr("is in use by the remap device disk"),
                                         HasSubstr("unremap disk 0 32768")));
    }
    EXPECT_TRUE(verify_zeroes(BlockFile(second.path()), 0, (16 << 20) / kSector));
    // What is nowhere else is on main again.
    tool_ok({"unremap", "disk", "0", "32768"});
    EXPECT_EQ(tool({"format", "--yes", main.path(), second.path()}).status, kError);
    tool_ok({"format", "--yes", "--force", main.path(), second.path()});
    tool_ok({"remove", "disk"});
}

TEST_F(Tool, FormatRefusesWhatCannotBeRead) {
    ASSERT_EQ(BlockFile(main.path()).write_zeroes(0, 32768), 0);
    main.fail_reads(200, 8);  // where no signature is looked for
    for (const std::string force : {"--yes", "--force"}) {
        const auto result = tool({"format", "--yes", force, spare.path(), main.path()});
        EXPECT_EQ(result.status, kError);
        EXPECT_THAT(result.output,
                    AllOf(HasSubstr("cannot be read where its metadata would be"),
                          HasSubstr("use another device"), Not(HasSubstr("nobody"))));
    }
    main.fail_reads(0, 0);
    EXPECT_TRUE(verify_zeroes(BlockFile(main.path()), 0, 32768));
}

TEST_F(Tool, RemoveForceFreesTheDevicesOfABusyOne) {
    tool_ok({"create", "disk", main.path(), spare.path()});
    {
        const BlockFile open("/dev/mapper/disk");
        EXPECT_EQ(tool({"remove", "disk"}).status, kError);
        tool({"remove", "--force", "disk"});
        // Main and spare are free, whoever still has the mapped device open, and a watch hears of
        // it.
        tool_ok({"check", spare.path()});
        const auto status = tool({"status"});
        EXPECT_EQ(status.status, kError);
        EXPECT_THAT(status.output, HasSubstr("disk: is let go, its table is error"));
    }
}

}  // namespace
}  // namespace remap::vm

// Messages: what they do, what they say, what they refuse.

#include <gmock/gmock.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
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
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

constexpr uint64_t kMiB = 1 << 20;

class Messages : public testing::Test {
  protected:
    void SetUp() override { register_spare(spare.path()); }

    LoopDevice main{64 * kMiB};
    LoopDevice spare{16 * kMiB};
    DmDevice device{"remap", remap_table(main.path(), spare.path(), {"format"})};
};

TEST_F(Messages, WrongOnesAreRefusedWithAReason) {
    const struct {
        const char* message;
        const char* reason;
    } wrong[] = {
        {"frobnicate", "unknown message \"frobnicate\""},
        {"save now", "takes no argument"},
        {"restore 1", "takes no argument"},
        {"reset_stats all", "takes no argument"},
        {"remap", "expected: <sector>"},
        {"remap 1 2 3", "expected: <sector>"},
        {"remap -1", "\"-1\" is not a number"},
        {"remap x", "\"x\" is not a number"},
        {"remap 8 -8", "\"-8\" is not a number"},
        {"remap 8 0", "count must not be 0"},
        {"remap 99999999999999999999999 1", "is not a number"},
        {"remap 131072 1", "beyond the end"},
        {"remap 131071 2", "beyond the end"},
        {"remap 18446744073709551615 18446744073709551615", "beyond the end"},
        {"unremap", "expected: <sector>"},
        {"unremap 131072", "beyond the end"},
        {"forget", "expected: <sector>"},
        {"list 1 2 3", "expected: [<sector>"},
        {"list x", "is not a number"},
        {"set", "expected: set <key> <value>, with one of read_retries"},
        {"set read_retries x", "read_retries must be"},
        {"set read_retries 101", "read_retries must be"},
        {"set no_auto_remap maybe", "no_auto_remap must be"},
        {"set verify_spare_writes 2", "verify_spare_writes must be"},
        {"set colour blue", "unknown key"},
    };
    for (const auto& [message, reason] : wrong) {
        KernelLog log;
        EXPECT_EQ(message_error(device, message), EINVAL) << message;
        EXPECT_TRUE(log.contains(reason, 1000)) << message << ": no \"" << reason << '"';
    }
    EXPECT_THAT(remap_list(device), IsEmpty());
}

TEST_F(Messages, OverlappingAndMissingRecordsAreRefused) {
    EXPECT_EQ(device.message("remap 100 100"), "moved=100 pending=0");
    for (const char* message : {"remap 100 100", "remap 0 101", "remap 199 1", "remap 50 500"}) {
        KernelLog log;
        EXPECT_EQ(message_error(device, message), EEXIST) << message;
        EXPECT_TRUE(log.contains("remapped already", 1000));
    }
    EXPECT_EQ(message_error(device, "unremap 500 100"), ENOENT);
    EXPECT_EQ(message_error(device, "forget 100 100"), ENOENT);
    EXPECT_THAT(remap_list(device), SizeIs(1));
    // Half of a record can go.
    EXPECT_EQ(device.message("unremap 100 50"), "moved=50 refused=0");
    EXPECT_EQ(remap_list(device)[0].sector, 150U);
    EXPECT_EQ(remap_list(device)[0].count, 50U);
}

TEST_F(Messages, NeighboursMergeAndListPages) {
    device.message("remap 1000 8");
    device.message("remap 1008 8");
    EXPECT_THAT(remap_list(device), SizeIs(1));
    for (int i = 0; i < 500; i++) {
        device.message("remap " + std::to_string(10000 + i * 16));
    }
    const auto records = remap_list(device);
    ASSERT_THAT(records, SizeIs(501));
    for (int i = 0; i < 500; i++) {
        EXPECT_EQ(records[i + 1].sector, 10000U + i * 16);
        EXPECT_EQ(records[i + 1].count, 1U);
    }
    EXPECT_THAT(device.message("list 10016 1"), StartsWith("10016 1 mapped "));
    EXPECT_EQ(remap_status(device).number("records"), 501U);
    EXPECT_EQ(remap_status(device).number("remapped"), 516U);
}

TEST_F(Messages, ARecordOfAGigabyteWouldBeOne) {
    const LoopDevice big(300 * kMiB);
    const LoopDevice room(300 * kMiB);
    register_spare(room.path());
    DmDevice large("large", remap_table(big.path(), room.path(), {"format"}));
    write_pattern(BlockFile(large.path()), 0, 20000, 1);
    EXPECT_EQ(large.message("remap 100 400000"), "moved=400000 pending=0");
    const auto records = remap_list(large);
    ASSERT_THAT(records, SizeIs(1));
    EXPECT_EQ(records[0].count, 400000U);
    EXPECT_TRUE(verify_pattern(BlockFile(large.path()), 0, 20000, 1));
}

TEST_F(Messages, TheSpareFillsUp) {
    const uint64_t room = remap_status(device).number("spare_total");
    KernelLog log;
    EXPECT_EQ(message_error(device, "remap 0 " + std::to_string(room + 8)), ENOSPC);
    EXPECT_TRUE(log.contains("the spare is full", 1000));
    EXPECT_EQ(remap_status(device).number("spare_free"), 0U);
    // What was done stays, and goes on being served.
    EXPECT_EQ(remap_status(device).number("remapped"), room);
    EXPECT_EQ(message_error(device, "remap 131000 8"), ENOSPC);
    write_pattern(BlockFile(device.path()), 0, room, 1);
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 0, room, 1));
    device.message("unremap 0 " + std::to_string(room));
    EXPECT_EQ(remap_status(device).number("spare_free"), room);
}

TEST_F(Messages, SaveAndRestore) {
    device.message("remap 100 10");
    EXPECT_GT(remap_status(device).number("journal_used"), 0U);
    EXPECT_THAT(device.message("save"), StartsWith("generation="));
    EXPECT_EQ(remap_status(device).number("journal_used"), 0U);
    EXPECT_EQ(remap_status(device).number("saves"), 1U);
    EXPECT_THAT(device.message("restore"), HasSubstr("verified"));

    // One replica of the journal's block damaged behind our back: healed from the other.
    device.message("remap 200 10");
    const BlockFile disk(spare.path(), O_RDWR);
    std::vector<std::byte> garbage(4096, std::byte{0x5a});
    ASSERT_EQ(disk.write(0, garbage), 0);
    ASSERT_EQ(disk.flush(), 0);
    EXPECT_THAT(device.message("restore"), HasSubstr("healed"));
    EXPECT_THAT(device.message("restore"), HasSubstr("verified"));
    EXPECT_THAT(remap_list(device), SizeIs(2));
}

TEST_F(Messages, RestoreNeverReplacesMemory) {
    device.message("remap 100 10");
    const BlockFile disk(spare.path(), O_RDWR);
    std::vector<std::byte> garbage(4096, std::byte{0x5a});
    // Both superblocks gone: neither verifies, memory stays, save writes the spare anew.
    ASSERT_EQ(disk.write(0, garbage), 0);
    ASSERT_EQ(disk.write(disk.sectors() - 8, garbage), 0);
    ASSERT_EQ(disk.flush(), 0);
    KernelLog log;
    EXPECT_NE(message_error(device, "restore"), 0);
    EXPECT_TRUE(log.contains("the spare holds something else", 1000));
    EXPECT_THAT(remap_list(device), SizeIs(1));
    device.message("save");
    EXPECT_THAT(device.message("restore"), HasSubstr("verified"));
    EXPECT_THAT(remap_list(device), SizeIs(1));
}

TEST_F(Messages, WhileSuspendedTheyAskToComeBack) {
    device.suspend();
    EXPECT_EQ(message_error(device, "remap 100 10"), EAGAIN);
    EXPECT_EQ(message_error(device, "save"), EAGAIN);
    device.resume();
    EXPECT_EQ(message_error(device, "remap 100 10"), 0);
}

TEST_F(Messages, RecordsRaiseEvents) {
    const uint32_t before = device.info().event_nr;
    device.message("remap 100 10");
    EXPECT_GT(device.info().event_nr, before);
}

// A cable that is pulled is no bad sector.
TEST(MessagesPending, AMainThatIsGoneLeavesNoRecord) {
    const LoopDevice main(16 * kMiB);
    const LoopDevice spare(16 * kMiB);
    register_spare(spare.path());
    DmDevice under("under", {{0, 32768, "linear", main.path() + " 0"}});
    DmDevice device("remap", remap_table(under.path(), spare.path(), {"format"}));
    under.reload({{0, 32768, "error", ""}});
    KernelLog log;
    EXPECT_EQ(message_error(device, "remap 1000 64"), EIO);
    EXPECT_TRUE(log.contains("main cannot be read anywhere", 1000));
    EXPECT_EQ(remap_status(device).number("records"), 0U);
    EXPECT_EQ(remap_status(device).number("spare_free"),
              remap_status(device).number("spare_total"));
    under.reload({{0, 32768, "linear", main.path() + " 0"}});
    EXPECT_EQ(device.message("remap 1000 64"), "moved=64 pending=0");
    device.remove();
}

TEST(MessagesPending, ForgetDropsWithoutTouchingData) {
    ScsiDebug main({"dev_size_mb=16"});
    const LoopDevice spare(16 * kMiB);
    register_spare(spare.path());
    write_pattern(BlockFile(main.path()), 0, 4096, 1);
    main.fail_reads(1000, 8);
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    EXPECT_EQ(device.message("remap 1000 8"), "moved=0 pending=8");
    EXPECT_EQ(device.message("forget 1002 2"), "dropped=2");
    EXPECT_EQ(remap_status(device).number("pending"), 6U);
    EXPECT_EQ(remap_status(device).number("read_errors"), 8U);
    // It can be read again: asking for it once more rescues it.
    main.fail_reads(0, 0);
    EXPECT_EQ(device.message("remap 1000 8"), "moved=8 pending=0");
    EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 990, 30, 1));
    device.message("reset_stats");
    EXPECT_EQ(remap_status(device).number("read_errors"), 0U);
}

// State and flags of a thread of ours (man 5 proc).
struct ThreadStat {
    char state = 0;
    unsigned flags = 0;
};

ThreadStat thread_stat(pid_t thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    const std::string line{std::istreambuf_iterator<char>(file), {}};
    const size_t name = line.rfind(") ");
    ThreadStat stat;
    std::string skipped;
    if (name != std::string::npos) {
        std::istringstream words(line.substr(name + 2));
        words >> stat.state >> skipped >> skipped >> skipped >> skipped >> skipped >> stat.flags;
    }
    return stat;
}

// Reclaim may wait for the locks of a message. So the module's own memory comes from the last
// reserves, if need be. That of the drivers, for which the message waits meanwhile, does not.
TEST(MessageToASlowDisk, LeavesTheReservesToOthers) {
    using namespace std::chrono_literals;
    constexpr unsigned kMemalloc = 0x800;  // PF_MEMALLOC
    const NullBlk main({.size_mb = 16, .block_size = 512, .delay_ms = 500});
    const LoopDevice spare(16 * kMiB);
    register_spare(spare.path());
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    std::atomic<pid_t> thread = 0;
    std::atomic<bool> done = false;
    std::jthread sender([&] {
        thread = gettid();
        device.message("remap 1000 8");
        done = true;
    });
    unsigned with = 0;
    unsigned without = 0;
    for (; !done; std::this_thread::sleep_for(5ms)) {
        const ThreadStat stat = thread_stat(thread);
        with += stat.state == 'D' && (stat.flags & kMemalloc) != 0;
        without += stat.state == 'D' && (stat.flags & kMemalloc) == 0;
    }
    EXPECT_GT(without, 3 * with);  // the drain before is short
}

}  // namespace
}  // namespace remap::vm

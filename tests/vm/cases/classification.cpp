// What is no bad sector: errors of all of main. They pass, and spend nothing of the spare.

#include <fcntl.h>
#include <gmock/gmock.h>

#include <cerrno>
#include <chrono>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "harness.h"
#include "kernel_log.h"
#include "stack.h"
#include "within.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr unsigned kBreakerLimit = 8;

// A SCSI disk as main.
class WholeDisk : public testing::Test {
  protected:
    void SetUp() override {
        register_spare(spare.path());
        write_pattern(BlockFile(main.path()), 0, 32768, 1);
    }

    int write(uint64_t sector) const {
        const Buffer buffer(8 * kSector);
        fill_pattern(buffer.bytes(), sector, 1);
        return BlockFile(device.path()).write(sector, buffer.bytes());
    }
    int read(uint64_t sector) const {
        const Buffer buffer(8 * kSector);
        return BlockFile(device.path(), O_RDONLY | O_DIRECT).read(sector, buffer.bytes());
    }
    void expect_untouched() {
        EXPECT_THAT(remap_list(device), IsEmpty());
        EXPECT_EQ(remap_status(device).number("remapped"), 0U);
        EXPECT_EQ(remap_status(device).number("pending"), 0U);
        EXPECT_EQ(remap_status(device).number("retired"), 0U);
        EXPECT_EQ(remap_status(device).number("spare_free"),
                  remap_status(device).number("spare_total"));
    }
    std::string breaker() { return remap_status(device).values.at("breaker"); }
    void expect_works() {
        device.message("reset_breaker");
        EXPECT_EQ(breaker(), "closed");
        EXPECT_EQ(write(1000), 0);
        EXPECT_TRUE(verify_pattern(BlockFile(device.path()), 0, 32768, 1));
        expect_untouched();
    }

    ScsiDebug main{{"dev_size_mb=16"}};
    LoopDevice spare{16 << 20};
    DmDevice device{"remap", remap_table(main.path(), spare.path(), {"format"})};
};

TEST_F(WholeDisk, WriteProtected) {
    main.set_parameter("wp", "1");
    for (unsigned i = 0; i < 2 * kBreakerLimit; i++) {
        EXPECT_NE(write(i * 1000), 0);
        EXPECT_EQ(read(i * 1000), 0);
    }
    expect_untouched();
    main.set_parameter("wp", "0");
    expect_works();
}

TEST_F(WholeDisk, Offline) {
    main.set_device("state", "offline");
    for (unsigned i = 0; i < 2 * kBreakerLimit; i++) {
        EXPECT_NE(write(i * 1000), 0);
        EXPECT_NE(read(i * 1000 + 8), 0);
    }
    expect_untouched();
    main.set_device("state", "running");
    expect_works();
}

// Somebody has made main shorter. I/O behind its end fails, and finds no bad sector.
TEST(ShorterMain, FailsBehindItsEndAndLeavesNoRecord) {
    constexpr uint64_t kShort = 32768;
    LoopDevice main(32 << 20);
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    device.message("remap 60000 8");
    const BlockFile mapped(device.path());
    const auto write = [&](uint64_t sector, uint64_t count) {
        const Buffer buffer(count * kSector);
        fill_pattern(buffer.bytes(), sector, 1);
        return mapped.write(sector, buffer.bytes());
    };
    const auto read = [&](uint64_t sector, uint64_t count) {
        const Buffer buffer(count * kSector);
        return mapped.read(sector, buffer.bytes());
    };
    KernelLog log;
    main.resize(kShort * kSector);
    for (unsigned i = 0; i < 2 * kBreakerLimit; i++) {
        EXPECT_EQ(write(40000 + i * 8, 8), EIO);
        EXPECT_EQ(read(50000 + i * 8, 8), EIO);
    }
    EXPECT_EQ(write(kShort - 8, 16), EIO);
    EXPECT_EQ(read(kShort - 8, 16), EIO);
    EXPECT_NE(message_error(device, "remap 40000 8"), 0);
    // The rest is a disk as before, and the spare serves its records.
    EXPECT_EQ(write(kShort - 8, 8), 0);
    EXPECT_EQ(write(60000, 8), 0);
    EXPECT_EQ(read(60000, 8), 0);
    EXPECT_EQ(remap_status(device).number("records"), 1U);
    EXPECT_EQ(remap_status(device).number("pending"), 0U);
    EXPECT_EQ(remap_status(device).number("remapped"), 8U);
    EXPECT_EQ(remap_status(device).values.at("breaker"), "closed");
    EXPECT_TRUE(log.contains("main has only 32768 sectors now", 1000));
    EXPECT_THAT(log.lines(), Contains(HasSubstr("main has only")).Times(1));
    main.resize(32 << 20);
    EXPECT_EQ(write(40000, 8), 0);
    EXPECT_EQ(read(50000, 8), 0);
}

// Each takes a time-out of a second, and more for the recovery.
TEST_F(WholeDisk, TimeOuts) {
    constexpr const char* kReadsAndWrites = "0x80";
    main.set_device("timeout", "1");
    main.set_retries("0");
    main.set("opts", kReadsAndWrites);
    main.set("every_nth", "1");
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NE(write(1000), 0);
    EXPECT_NE(read(2000), 0);
    EXPECT_LT(std::chrono::steady_clock::now() - start, 60s);
    main.set("every_nth", "0");
    main.set("opts", "0");
    if (read_value("/sys/block/" + main.path().substr(5) + "/device/state") == "offline") {
        main.set_device("state", "running");
    }
    expect_works();
}

// A drive without a limit for its recovery says of its media what it says, however late. Half of
// its time-out is more than what an error without a reason may take.
TEST_F(WholeDisk, MediumErrorThatTakesLongIsAMediumError) {
    device.message("set read_retries 0");
    main.set_device("timeout", "2");
    main.set_retries("0");
    main.fail_reads(1000, 1);
    main.set("ndelay", "950000000");  // a second is too much for it
    const Buffer one(kSector);
    EXPECT_EQ(BlockFile(device.path(), O_RDONLY | O_DIRECT).read(1000, one.bytes()), EIO);
    main.set("ndelay", "0");
    main.fail_reads(0, 0);
    EXPECT_EQ(breaker(), "closed");
    EXPECT_THAT(remap_brief(device), ElementsAre("1000 1 pending read_error"));
    device.message("forget 1000 1");
    expect_works();
}

constexpr unsigned kRead10 = 0x28;
constexpr unsigned kWrite10 = 0x2a;

// What a disk says instead of doing what it was told, whatever the sector.
class Answers : public WholeDisk {
  protected:
    void SetUp() override {
        if (!main.can_inject()) {
            GTEST_SKIP() << "scsi_debug of this kernel can't";
        }
        WholeDisk::SetUp();
        main.set_retries("0");
    }
};

struct NamedAnswer {
    const char* name;
    ScsiDebug::Answer answer;
    int once;  // what becomes of a request that gets it, and the next one does not
};
constexpr NamedAnswer kAnswers[] = {
    {"no connection", {.host = 0x01}, 0},
    {"internal error of the host", {.host = 0x07}, 0},
    {"medium error", {.status = 0x02, .key = 0x3, .code = 0x0c, .qualifier = 0x02}, 0},
    {"no transport", {.host = 0x0f}, ENOLINK},
    {"reservation conflict", {.status = 0x18}, EBADE},
    {"hardware error", {.status = 0x02, .key = 0x4, .code = 0x44}, 0},
    {"no spare sector left in the drive", {.status = 0x02, .key = 0x4, .code = 0x32}, 0},
    {"no such sector, as libata says of IDNF", {.status = 0x02, .key = 0x5, .code = 0x21}, 0},
};

TEST_F(Answers, ToAllCommandsSpendNothing) {
    for (const auto& row : kAnswers) {
        SCOPED_TRACE(row.name);
        main.inject(kWrite10, row.answer);
        for (unsigned i = 0; i < 2 * kBreakerLimit; i++) {
            EXPECT_NE(write(i * 1000), 0);
            EXPECT_EQ(read(i * 1000), 0);
        }
        main.end_injection(kWrite10);
        main.inject(kRead10, row.answer);
        for (unsigned i = 0; i < 2 * kBreakerLimit; i++) {
            EXPECT_NE(read(i * 1000), 0);
        }
        main.end_injection(kRead10);
        expect_untouched();
        expect_works();
    }
}

TEST_F(Answers, ToOneCommandAreNoBadSector) {
    for (const auto& row : kAnswers) {
        SCOPED_TRACE(row.name);
        main.inject(kWrite10, row.answer, 1);
        EXPECT_EQ(write(1000), row.once);
        main.end_injection(kWrite10);
        main.inject(kRead10, row.answer, 1);
        EXPECT_EQ(read(1000), row.once);
        main.end_injection(kRead10);
        expect_untouched();
        expect_works();
    }
}

// A disk that has no write-zeroes says so. That is no bad sector: the error goes up, and zeros are
// written instead.
TEST_F(Answers, ToWriteZeroesThatTheDiskDoesNotHavePass) {
    constexpr unsigned kWriteSame[] = {0x41, 0x93};
    const BlockFile mapped(device.path());
    for (const unsigned operation : kWriteSame) {
        main.inject(operation, {.status = 0x02, .key = 0x5, .code = 0x20});
    }
    EXPECT_EQ(mapped.punch_hole(1000, 64), EOPNOTSUPP);
    EXPECT_EQ(mapped.write_zeroes(1000, 64), 0);
    EXPECT_EQ(read_value(sys_block(main.path()) / "queue/write_zeroes_max_bytes"), "0");
    EXPECT_EQ(read_value(sys_block(device.path()) / "queue/write_zeroes_max_bytes"), "0");
    EXPECT_TRUE(verify_zeroes(mapped, 1000, 64));
    EXPECT_EQ(remap_status(device).number("write_errors"), 1U);
    for (const unsigned operation : kWriteSame) {
        main.end_injection(operation);
    }
    write_pattern(mapped, 1000, 64, 1);
    expect_works();
}

void expect_untouched(Stack& stack) {
    EXPECT_THAT(stack.records(), IsEmpty());
    EXPECT_EQ(stack.number("remapped"), 0U);
    EXPECT_EQ(stack.number("pending"), 0U);
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total"));
}

TEST(Breaker, OpensAfterEightRequestsAndAnEvent) {
    Stack stack;
    stack.main.fail_all(Fails::kAll);
    for (unsigned i = 0; i < kBreakerLimit - 1; i++) {
        EXPECT_EQ(stack.write(i * 1000, 8, 2), EIO);
    }
    EXPECT_EQ(stack.value("breaker"), "closed");
    const uint32_t events = stack.device().info().event_nr;
    EXPECT_EQ(stack.read(20000, 8), EIO);
    EXPECT_EQ(stack.value("breaker"), "closed") << "each direction has its own";
    EXPECT_EQ(stack.write(20000, 8, 2), EIO);
    EXPECT_EQ(stack.value("breaker"), "open");
    EXPECT_TRUE(stack.has_event_after(events));
    EXPECT_EQ(stack.write(20000, 8, 2), EIO);
    EXPECT_EQ(stack.mode(), "rw");
    expect_untouched(stack);
    // It is judged anew at activation.
    stack.main.heal_all();
    stack.restart();
    EXPECT_EQ(stack.value("breaker"), "closed");
    EXPECT_TRUE(stack.is_whole());
}

TEST(Breaker, OfReadsClosesWithoutIo) {
    Stack stack;
    stack.main.fail_all(Fails::kAll);
    for (unsigned i = 0; i < kBreakerLimit; i++) {
        EXPECT_EQ(stack.read(i * 1000, 8), EIO);
    }
    EXPECT_EQ(stack.value("breaker"), "open");
    stack.main.heal_all();
    EXPECT_TRUE(within(20s, [&] { return stack.value("breaker") == "closed"; }));
    expect_untouched(stack);
    EXPECT_TRUE(stack.is_whole());
}

TEST(Breaker, WritesAloneThatFailEverywhere) {
    Stack stack;
    stack.main.fail_all(Fails::kWrites);
    for (unsigned i = 0; i < kBreakerLimit; i++) {
        EXPECT_EQ(stack.write(i * 1000, 64, 2), EIO);
        EXPECT_EQ(stack.read(i * 1000, 64), 0);
    }
    EXPECT_EQ(stack.value("breaker"), "open");
    expect_untouched(stack);
    stack.main.heal_all();
    EXPECT_TRUE(stack.is_whole());
}

// Bad sectors are none of it, however many come in a row.
TEST(Breaker, StaysClosedForBadSectors) {
    Stack stack;
    stack.main.fail(scattered_ranges(8192, 40, 4, 3), Fails::kAll);
    for (uint64_t at = 0; at < 8192; at += 32) {
        ASSERT_EQ(stack.write(at, 32, 2), 0);
        ASSERT_EQ(stack.value("breaker"), "closed");
    }
    EXPECT_TRUE(stack.is_whole());
}

TEST(Breaker, ClosesByMessage) {
    Stack stack;
    stack.main.fail_all(Fails::kAll);
    for (unsigned i = 0; i < kBreakerLimit; i++) {
        EXPECT_EQ(stack.write(i * 1000, 8, 2), EIO);
    }
    ASSERT_EQ(stack.value("breaker"), "open");
    stack.main.heal_all();
    stack.main.fail(1003, 1, Fails::kWrites);
    const uint32_t events = stack.device().info().event_nr;
    stack.device().message("reset_breaker");
    EXPECT_EQ(stack.value("breaker"), "closed");
    EXPECT_TRUE(stack.has_event_after(events));
    ASSERT_EQ(stack.write(1000, 8, 3), 0);
    EXPECT_THAT(stack.records(), ElementsAre("1003 1 mapped write_error"));
    EXPECT_TRUE(stack.is_whole());
    EXPECT_EQ(message_error(stack.device(), "reset_breaker now"), EINVAL);
}

TEST(Breaker, ClosesByItselfWhenMainWorksAgain) {
    Stack stack;
    stack.main.fail_all(Fails::kAll);
    for (unsigned i = 0; i < kBreakerLimit; i++) {
        EXPECT_EQ(stack.write(i * 1000, 8, 2), EIO);
    }
    ASSERT_EQ(stack.value("breaker"), "open");
    stack.main.heal_all();
    stack.main.fail(1003, 1, Fails::kWrites);
    // A control is tried with a request, and at most every five seconds.
    EXPECT_TRUE(within(20s, [&] { return stack.write(1000, 8, 3) == 0; }));
    EXPECT_EQ(stack.value("breaker"), "closed");
    EXPECT_THAT(stack.records(), ElementsAre("1003 1 mapped write_error"));
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// Main goes away while there are records: they are served, and nothing comes of the rest.
TEST(Breaker, RecordsAreServedWithoutMain) {
    Stack stack;
    stack.main.fail(1000, 8, Fails::kWrites);
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    stack.main.fail_all(Fails::kAll);
    for (unsigned i = 0; i < 2 * kBreakerLimit; i++) {
        EXPECT_EQ(stack.read(2000 + 8 * i, 8), EIO);
    }
    EXPECT_EQ(stack.value("breaker"), "open");
    EXPECT_TRUE(verify_pattern(stack.mapped(), 1000, 8, 2));
    ASSERT_EQ(stack.write(1000, 8, 3), 0);
    EXPECT_THAT(stack.records(), ElementsAre("1000 8 mapped write_error"));
    stack.main.heal_all();
    EXPECT_TRUE(stack.is_whole());
}

}  // namespace
}  // namespace remap::vm

// Main fails for a time, whatever the reason, and is well again. Nothing of it stays: no sector is
// bad.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "backing.h"
#include "block.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"
#include "stack.h"
#include "within.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;

constexpr unsigned kRead10 = 0x28;
constexpr unsigned kWrite10 = 0x2a;

struct Reason {
    const char* name;
    ScsiDebug::Answer answer;
};
// In words of SCSI.
constexpr Reason kReasons[] = {
    {"in standby", {.status = 0x02, .key = 0x2, .code = 0x04, .qualifier = 0x02}},
    {"link reset", {.status = 0x02, .key = 0xb, .code = 0x47}},
    {"no connection", {.host = 0x01}},
    {"medium error", {.status = 0x02, .key = 0x3, .code = 0x11}},
};

class BlackoutOfADisk : public testing::Test {
  protected:
    void SetUp() override {
        if (!main.can_inject()) {
            GTEST_SKIP() << "scsi_debug of this kernel can't";
        }
        register_spare(spare.path());
        write_pattern(BlockFile(main.path()), 0, 32768, 1);
        main.set_retries("0");
    }

    // The first `commands` that this takes fail. In the end it works, and there is no record.
    void fail_first(unsigned commands, bool writes, uint64_t sectors, const Reason& reason) {
        SCOPED_TRACE(testing::Message() << reason.name << ", " << commands << " commands, "
                                        << (writes ? "write of " : "read of ") << sectors);
        const unsigned operation = writes ? kWrite10 : kRead10;
        const Buffer buffer(sectors * kSector);
        fill_pattern(buffer.bytes(), kSector, 1);
        const auto ask = [&] {
            return writes ? mapped.write(kSector, buffer.bytes())
                          : mapped.read(kSector, buffer.bytes());
        };
        device.message("reset_breaker");
        main.inject(operation, reason.answer, commands);
        (void)ask();
        main.end_injection(operation);
        EXPECT_EQ(ask(), 0);
        ASSERT_THAT(remap_brief(device), IsEmpty());
    }

    ScsiDebug main{{"dev_size_mb=16"}};
    LoopDevice spare{16 << 20};
    DmDevice device{"remap", remap_table(main.path(), spare.path(), {"format"})};
    BlockFile mapped{device.path()};
};

TEST_F(BlackoutOfADisk, AtItsFirstCommandsLeavesNoRecord) {
    for (const auto& reason : kReasons) {
        for (const uint64_t sectors : {1U, 64U, 2048U}) {
            for (const unsigned commands : {1U, 2U, 3U, 6U, 12U, 40U}) {
                for (const bool writes : {false, true}) {
                    fail_first(commands, writes, sectors, reason);
                    ASSERT_FALSE(HasFatalFailure());
                }
            }
        }
    }
    // A write in the disk's cache says nothing of the media.
    EXPECT_EQ(mapped.flush(), 0);
    EXPECT_TRUE(within(5s, [&] { return remap_status(device).values.at("breaker") == "closed"; }));
    EXPECT_EQ(remap_status(device).number("spare_free"),
              remap_status(device).number("spare_total"));
    EXPECT_TRUE(verify_pattern(mapped, 0, 32768, 1));
}

// Reads and writes all the time, each thread in a part of its own. Some writes are durable.
class Traffic {
  public:
    explicit Traffic(Stack& stack) : stack_(stack) {
        for (unsigned i = 0; i < kThreads; i++) {
            threads_.emplace_back([this, i](const std::stop_token& stop) { work(i, stop); });
        }
    }
    // Until everybody has had an answer to what was sent since.
    void wait() {
        std::vector<unsigned> before(answers_.begin(), answers_.end());
        for (unsigned i = 0; i < kThreads; i++) {
            EXPECT_TRUE(within(10s, [&] { return answers_.at(i) >= before.at(i) + 2; }));
        }
    }
    [[nodiscard]] unsigned errors() const { return errors_; }

  private:
    static constexpr unsigned kThreads = 4;

    void work(unsigned number, const std::stop_token& stop) {
        constexpr uint64_t kSizes[] = {1, 8, 64, 512};
        const uint64_t part = stack_.sectors() / kThreads;
        std::mt19937_64 random(number);
        for (uint64_t seed = 2; !stop.stop_requested(); seed++) {
            const uint64_t count = kSizes[random() % std::size(kSizes)];
            const uint64_t at = number * part + random() % (part - count);
            const int error = number % 2 == 0
                                  ? stack_.read(at, count)
                                  : stack_.write(at, count, seed, seed % 8 == 0 ? RWF_DSYNC : 0);
            errors_ += error != 0 ? 1 : 0;
            answers_.at(number)++;
        }
    }

    Stack& stack_;
    std::atomic<unsigned> errors_ = 0;
    std::array<std::atomic<unsigned>, kThreads> answers_{};
    std::vector<std::jthread> threads_;
};

TEST(BlackoutOfTheTableBelow, LeavesNoRecord) {
    Stack stack;
    {
        Traffic traffic(stack);
        for (const auto time : {2ms, 5ms, 10ms, 20ms, 50ms, 100ms, 200ms}) {
            stack.main.fail_all(Fails::kAll);
            std::this_thread::sleep_for(time);
            stack.main.heal_all();
            traffic.wait();
            EXPECT_THAT(stack.records(), IsEmpty()) << time.count() << " ms";
        }
        EXPECT_GT(traffic.errors(), 0U);
        EXPECT_TRUE(within(5s, [&] { return stack.value("breaker") == "closed"; }));
    }
    EXPECT_EQ(stack.number("spare_free"), stack.number("spare_total"));
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

}  // namespace
}  // namespace remap::vm

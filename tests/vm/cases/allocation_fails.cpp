// Memory that is not to be had. What asks for it on behalf of a person, a table or a message, may
// say so, and has then changed nothing that counts; I/O knows nothing of it.

#include <gmock/gmock.h>

#include <iostream>

#include "allocations.h"
#include "backing.h"
#include "block.h"
#include "bulk.h"
#include "command.h"
#include "harness.h"
#include "stack.h"

namespace remap::vm {
namespace {

using testing::AnyOf;
using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;

class AllocationFails : public testing::Test {
  protected:
    void SetUp() override {
        if (!FailingAllocations::possible()) {
            GTEST_SKIP() << "this kernel has no fault injection";
        }
        failing_.emplace();
    }
    void TearDown() override {
        if (failing_) {
            std::cout << failing_->count() << " allocations failed\n";
        }
    }

    FailingAllocations& failing() { return *failing_; }

    // Tries with the first allocation failing, then the second, and so on until there are no more.
    // `attempt` gives 0 or an errno; `afterwards` is told which.
    void fail_each(const std::string& what, const std::function<int()>& attempt,
                   const std::function<void(int)>& afterwards) {
        unsigned refused = 0;
        for (unsigned n = 1;; n++) {
            SCOPED_TRACE(what + ", allocation " + std::to_string(n));
            int error = 0;
            // The runner takes a machine that is silent for long for dead.
            if (n % 16 == 0) {
                std::cout << what << ": allocation " << n << "\n";
            }
            const bool failed = failing().fail_nth(n, [&] { error = attempt(); });
            EXPECT_THAT(error, failed ? AnyOf(0, ENOMEM) : AnyOf(0, 0));
            refused += error != 0 ? 1 : 0;
            afterwards(error);
            if (!failed || HasFatalFailure()) {
                std::cout << what << ": " << n - 1 << " allocations, refused for " << refused
                          << " of them\n";
                EXPECT_GT(n, 1U);
                return;
            }
        }
    }

  private:
    std::optional<FailingAllocations> failing_;
};

constexpr uint64_t kSmall = 2;  // MiB: is looked at as a whole after each attempt

int error_of(const std::function<void()>& call) {
    try {
        call();
        return 0;
    } catch (const DmError& error) {
        return error.code().value();
    }
}

TEST_F(AllocationFails, CreatingADevice) {
    const LoopDevice main(kSmall * kMiB);
    const LoopDevice spare(16 * kMiB);
    write_pattern(BlockFile(main.path()), 0, kSmall * kMiB / kSector, 1);
    { const DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"})); }
    map_sectors(spare.path(), 0, 8, 500, 2);
    register_spare(spare.path());
    fail_each(
        "create", [&] { return create_error(remap_table(main.path(), spare.path())); },
        [&](int) {
            DmDevice device("remap", remap_table(main.path(), spare.path()));
            ASSERT_THAT(remap_list(device), SizeIs(500));
            for (uint64_t sector = 0; sector < 4000; sector += 8 * 50) {
                ASSERT_TRUE(verify_pattern(BlockFile(device.path()), sector, 1, 2));
                ASSERT_TRUE(verify_pattern(BlockFile(device.path()), sector + 1, 7, 1));
            }
        });
}

TEST_F(AllocationFails, Formatting) {
    const LoopDevice main(kSmall * kMiB);
    fail_each(
        "format",
        [&] {
            const LoopDevice spare(16 * kMiB);
            const int error = create_error(remap_table(main.path(), spare.path(), {"format"}));
            // What was begun can be gone on with; what had been done by then is not done again.
            if (error != 0) {
                const int again = create_error(remap_table(main.path(), spare.path(), {"format"}));
                EXPECT_THAT(again, AnyOf(0, EEXIST));
                EXPECT_EQ(create_error(remap_table(main.path(), spare.path())), 0);
            }
            register_spare(spare.path());
            return error;
        },
        [](int) {});
}

TEST_F(AllocationFails, ReloadingATable) {
    Stack stack({.main_mb = kSmall});
    stack.device().message("remap 1000 8");
    ASSERT_EQ(stack.write(1000, 8, 2), 0);
    const auto table = remap_table(stack.main.path(), stack.spare.path());
    fail_each(
        "reload", [&] { return error_of([&] { stack.device().reload(table); }); },
        [&](int) {
            // A refused table leaves the device as it was, or suspended.
            if (stack.device().info().suspended) {
                stack.device().resume();
            }
            ASSERT_THAT(stack.records(), SizeIs(1));
            ASSERT_TRUE(stack.is_whole());
        });
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// What suspends has no way to refuse: at worst the spare is left as after a crash.
TEST_F(AllocationFails, Suspending) {
    Stack stack({.main_mb = kSmall});
    uint64_t sector = 0;
    fail_each(
        "suspend",
        [&] {
            return error_of([&] {
                stack.device().suspend();
                stack.device().resume();
            });
        },
        [&](int) {
            if (stack.device().info().suspended) {
                stack.device().resume();
            }
            stack.device().message("remap " + std::to_string(sector) + " 4");
            ASSERT_EQ(stack.write(sector, 4, 2), 0);
            sector += 8;
            ASSERT_TRUE(stack.is_whole());
        });
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

TEST_F(AllocationFails, Messages) {
    Stack stack({.main_mb = kSmall});
    stack.main.fail(3000, 2, Fails::kAll);
    stack.device().message("remap 0 64");
    ASSERT_EQ(stack.write(0, 64, 2), 0);
    const struct {
        const char* message;
        const char* undo;
    } messages[] = {
        {"save", ""},
        {"restore", ""},
        {"remap 1000 100", "unremap 1000 100"},
        {"remap 1000 2000", "unremap 1000 2000"},  // several regions
        {"unremap 8 16", "remap 8 16"},
        {"remap 2998 8", "unremap 2998 8"},  // not all of it can be read
        {"forget 3000 2", "remap 3000 2"},
    };
    for (const auto& [message, undo] : messages) {
        const auto before = stack.records();
        fail_each(
            message, [&, message = message] { return message_error(stack.device(), message); },
            [&, undo = std::string(undo), message = std::string(message)](int error) {
                if (undo.empty()) {
                    ASSERT_EQ(stack.records(), before);
                } else if (stack.records() != before) {
                    static_cast<void>(error);
                    message_error(stack.device(), undo);
                }
                ASSERT_EQ(stack.mode(), "rw");
            });
        EXPECT_TRUE(stack.is_whole({3000, 3001})) << message;
    }
    stack.restart();
    EXPECT_TRUE(stack.is_whole({3000, 3001}));
}

// Each allocation of the workers fails, at the first attempt.
TEST_F(AllocationFails, RedoingWritesAndReads) {
    Stack stack({.main_mb = 16});
    stack.main.fail(scattered_ranges(16000, 100, 4, 1), Fails::kWrites);
    stack.main.fail({{20000, 1}, {21000, 7}}, Fails::kReadsUntilWritten);
    stack.main.fail(22000, 2, Fails::kAll);
    failing().fail_in_workers(100);
    for (uint64_t sector = 0; sector < 16000; sector += 500) {
        ASSERT_EQ(stack.write(sector, 500, 2), 0) << sector;
    }
    EXPECT_EQ(stack.read(20000, 1), EIO);
    EXPECT_EQ(stack.read(21000, 7), EIO);
    EXPECT_EQ(stack.read(22000, 2), EIO);
    // Pending now; two of them are cured by it, the third goes to the spare.
    ASSERT_EQ(stack.write(20000, 1, 3), 0);
    ASSERT_EQ(stack.write(21000, 7, 3), 0);
    ASSERT_EQ(stack.write(22000, 2, 3), 0);
    EXPECT_EQ(stack.mode(), "rw");
    EXPECT_TRUE(stack.is_whole());
    EXPECT_GT(failing().count(), 100U);
    failing().fail_in_workers(0);
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// A part of the spare fails as well: commits that are in doubt, checkpoints that give an end up.
TEST_F(AllocationFails, RedoingWritesOverAFailingSpare) {
    Stack stack({.main_mb = 16});
    const uint64_t last = stack.spare.sectors();
    stack.main.fail(scattered_ranges(16000, 60, 4, 1), Fails::kWrites);
    failing().fail_in_workers(100);
    stack.spare.fail(scattered_ranges(last, 200, 8, 2, 8), Fails::kWrites);
    for (uint64_t sector = 0; sector < 16000; sector += 500) {
        stack.write(sector, 500, 2);
    }
    EXPECT_TRUE(stack.is_whole());
    stack.spare.heal_all();
    // That everything is well again shows at the next write, or at the second.
    stack.device().message("save");
    for (uint64_t sector = 0; sector < 16000; sector += 500) {
        ASSERT_EQ(stack.write(sector, 500, 3), 0) << sector;
    }
    EXPECT_TRUE(stack.is_whole());
    failing().fail_in_workers(0);
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

// A save in the background that finds no memory is tried again, and harms nobody.
TEST_F(AllocationFails, SavingInTheBackground) {
    const std::string interval = "/sys/module/dm_remap/parameters/dm_remap_autosave_interval";
    Stack stack({.main_mb = kSmall});
    stack.main.fail({{1000, 1}, {2000, 1}, {3000, 1}}, Fails::kWrites);
    write_value(interval, "1");
    for (uint64_t sector = 1000, seed = 2; sector <= 3000; sector += 1000, seed++) {
        failing().fail_in_workers(sector == 2000 ? 50 : 100);
        EXPECT_EQ(stack.write(sector, 1, seed), 0);
        std::this_thread::sleep_for(std::chrono::seconds(3));
        EXPECT_EQ(stack.mode(), "rw");
    }
    failing().fail_in_workers(0);
    std::this_thread::sleep_for(std::chrono::seconds(3));
    EXPECT_EQ(remap_status(stack.device()).state, "CLEAN");
    write_value(interval, "60");
    EXPECT_TRUE(stack.is_whole());
    stack.restart();
    EXPECT_TRUE(stack.is_whole());
}

}  // namespace
}  // namespace remap::vm

// A table is loaded, and its spare does not answer: the device below is suspended.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <future>
#include <optional>
#include <string>
#include <thread>

#include "backing.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"
#include "within.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;

class Loading : public testing::Test {
  protected:
    void SetUp() override {
        register_spare(spare_disk_.path());
        const DmDevice formatted("formatted", remap_table(main_.path(), below_.path(), {"format"}));
    }
    ~Loading() override { below_.resume(); }

    [[nodiscard]] Table linear() const { return {{0, 32768, "linear", spare_disk_.path() + " 0"}}; }
    [[nodiscard]] Table table() const { return remap_table(main_.path(), below_.path()); }

    LoopDevice main_{4 << 20};
    LoopDevice spare_disk_{16 << 20};
    DmDevice below_{"below", linear()};
};

TEST_F(Loading, KeepsNoOtherDevice) {
    const LoopDevice main(4 << 20);
    const LoopDevice spare(16 << 20);
    register_spare(spare.path());
    below_.suspend();
    DmDevice above("above");
    auto loaded = std::async(std::launch::async, [&] { above.load(table()); });
    EXPECT_EQ(loaded.wait_for(1s), std::future_status::timeout);
    auto others = std::async(std::launch::async, [&] {
        DmDevice other("other", remap_table(main.path(), spare.path(), {"format"}));
        other.reload(remap_table(main.path(), spare.path()));
        below_.load(linear());
    });
    EXPECT_EQ(others.wait_for(10s), std::future_status::ready);
    EXPECT_EQ(loaded.wait_for(0s), std::future_status::timeout);
    below_.resume();
    others.get();
    loaded.get();
    above.resume();
}

// Others may not have its devices, before the spare has been read, too.
TEST_F(Loading, HasItsDevices) {
    const LoopDevice spare(16 << 20);
    below_.suspend();
    DmDevice above("above");
    auto loaded = std::async(std::launch::async, [&] { above.load(table()); });
    EXPECT_EQ(loaded.wait_for(1s), std::future_status::timeout);
    EXPECT_TRUE(refused(remap_table(main_.path(), spare.path(), {"format"}), "main is in use"));
    EXPECT_TRUE(refused(table(), "spare is in use"));
    below_.resume();
    loaded.get();
    above.resume();
    above.load(table());
    above.resume();
}

// The read goes on without it, and has what it needs.
TEST_F(Loading, IsEndedByASignal) {
    std::optional<DmDevice> above("above");
    below_.suspend();
    const pid_t child = fork();
    if (child == 0) {
        above->load(table());
        _exit(0);
    }
    std::this_thread::sleep_for(1s);
    ASSERT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "it waits for the spare";
    kill(child, SIGKILL);
    EXPECT_TRUE(within(2s, [&] { return waitpid(child, nullptr, WNOHANG) == child; }));
    above.reset();
    const auto uses = [] { return std::stoi(read_value("/sys/module/dm_remap/refcnt")); };
    EXPECT_EQ(uses(), 1);
    EXPECT_EQ(below_.info().open_count, 1);
    EXPECT_NE(run({"rmmod", "dm_remap"}).status, 0);
    below_.resume();
    EXPECT_TRUE(within(5s, [&] { return uses() == 0 && below_.info().open_count == 0; }));
    const DmDevice again("above", table());
}

}  // namespace
}  // namespace remap::vm

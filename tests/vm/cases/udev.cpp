// dm-remapctl where udev makes the device nodes, as on nearly every machine; elsewhere in these
// cases libdevmapper does.

#include <fcntl.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <system_error>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"

namespace remap::vm {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

namespace fs = std::filesystem;

const fs::path kNode = "/dev/mapper/disk";

// udevd with the rules of Debian, for a scope.
class Udevd {
  public:
    Udevd() {
        // What it leaves open would keep run() waiting.
        run_ok({"sh", "-c", "systemd-udevd --daemon >/dev/null 2>&1"});
        run_ok({"udevadm", "settle"});
    }
    ~Udevd() {
        // What goes on when it is told to end does so in its workers' own time.
        EXPECT_EQ(run({"udevadm", "settle"}).status, 0);
        EXPECT_EQ(run({"udevadm", "control", "--exit"}).status, 0);
        std::error_code not_yet_gone;
        fs::remove_all("/run/udev", not_yet_gone);
    }
    Udevd(const Udevd&) = delete;
    Udevd& operator=(const Udevd&) = delete;
};

class Udev : public testing::Test {
  protected:
    void SetUp() override {
        write_pattern(BlockFile(main.path()), 0, 32768, 1);
        register_spare(spare.path());
        EXPECT_EQ(tool({"format", "--yes", main.path(), spare.path()}).status, 0);
    }
    void TearDown() override {
        for (const auto& name : dm_device_names()) {
            dm_remove(name, true);
        }
    }

    // Not as the machine has it (tests/vm/init), where libdevmapper is told to leave udev alone.
    static CommandResult tool(const std::vector<std::string>& words) {
        std::vector<std::string> argv = {"env", "-u", "DM_DISABLE_UDEV", "dm-remapctl"};
        argv.insert(argv.end(), words.begin(), words.end());
        return run(argv);
    }

    LoopDevice main{16 << 20};
    LoopDevice spare{16 << 20};
    Udevd udevd;
};

// Of what libdevmapper and udev wait for each other with nothing is left.
void expect_no_cookies() {
    EXPECT_THAT(run_ok({"dmsetup", "udevcookies"}), Not(HasSubstr("0xd4d")));
}

TEST_F(Udev, TheNodeIsThereWhenCreateReturnsAndGoneWhenRemoveDoes) {
    for (const bool read_only : {false, true}) {
        std::vector<std::string> create = {"create", "disk", main.path(), spare.path()};
        if (read_only) {
            create.emplace_back("--readonly");
        }
        const auto created = tool(create);
        EXPECT_EQ(created.status, 0) << created.output;
        // udev makes links; libdevmapper makes nodes.
        EXPECT_TRUE(fs::is_symlink(kNode));
        EXPECT_TRUE(verify_pattern(BlockFile(kNode, O_RDONLY | O_DIRECT), 0, 32768, 1));
        EXPECT_THAT(run_ok({"udevadm", "info", kNode}), HasSubstr("DM_UUID=REMAP-"));
        const auto removed = tool({"remove", "disk"});
        EXPECT_EQ(removed.status, 0) << removed.output;
        EXPECT_FALSE(fs::exists(fs::symlink_status(kNode)));
        expect_no_cookies();
    }
}

TEST_F(Udev, CreateThatTheKernelRefusesLeavesNothing) {
    const auto refused =
        tool({"create", "disk", main.path(), spare.path(), "--read-retries", "101"});
    EXPECT_EQ(refused.status, 1);
    EXPECT_THAT(refused.output, HasSubstr("read_retries must be followed by a number from 0 to"));
    EXPECT_THAT(dm_device_names(), IsEmpty());
    EXPECT_FALSE(fs::exists(fs::symlink_status(kNode)));
    expect_no_cookies();
}

TEST_F(Udev, RemoveForceOfABusyOneLetsGo) {
    EXPECT_EQ(tool({"create", "disk", main.path(), spare.path()}).status, 0);
    {
        const BlockFile open(kNode);
        EXPECT_EQ(tool({"remove", "--force", "disk"}).status, 1);
        EXPECT_EQ(tool({"check", spare.path()}).status, 0);
    }
    EXPECT_EQ(tool({"remove", "disk"}).status, 0);
    EXPECT_FALSE(fs::exists(fs::symlink_status(kNode)));
    expect_no_cookies();
}

}  // namespace
}  // namespace remap::vm

// Persistent reservations: on the mapped device they are main's, and the spare has no part in them.

#include <gmock/gmock.h>
#include <linux/pr.h>
#include <sys/ioctl.h>

#include <filesystem>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"
#include "within.h"

namespace remap::vm {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kTarget = "/sys/kernel/config/target";
constexpr uint64_t kOurs = 0x1111;
constexpr uint64_t kTheirs = 0x2222;

void discard_entry(const fs::path& path) {
    std::error_code error;
    fs::remove(path, error);
    EXPECT_FALSE(error) << path << ": " << error.message();
}

// A SCSI target in the kernel, with a disk in memory.
class TargetDisk {
  public:
    explicit TargetDisk(const std::string& name)
        : name_(name), directory_(kTarget / "core" / "rd_mcp_0" / name) {
        // The target keeps its list of registrations there.
        fs::create_directories("/var/target/pr");
        fs::create_directories(directory_);
        write_value(directory_ / "control", "rd_pages=4096");
        write_value(directory_ / "enable", "1");
        write_value(directory_ / "wwn" / "vpd_unit_serial", name);
    }
    ~TargetDisk() { discard_entry(directory_); }
    TargetDisk(const TargetDisk&) = delete;
    TargetDisk& operator=(const TargetDisk&) = delete;

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] const fs::path& directory() const { return directory_; }
    [[nodiscard]] std::string registrations() const {
        return read_value(directory_ / "pr" / "res_pr_registered_i_pts");
    }

  private:
    std::string name_;
    fs::path directory_;
};

bool opens(const std::string& path) {
    return File(open(path.c_str(), O_RDWR | O_CLOEXEC)).fd() >= 0;
}

// A block device: such a disk, seen by an initiator of its own.
class Path {
  public:
    Path(const TargetDisk& disk, unsigned number)
        : port_(kTarget / "loopback" / wwn(number)), group_(port_ / "tpgt_1") {
        fs::create_directories(group_);
        write_value(group_ / "nexus", wwn(number + 1));
        lun_ = group_ / "lun" / "lun_0";
        fs::create_directories(lun_);
        fs::create_directory_symlink(disk.directory(), lun_ / disk.name());
        link_ = lun_ / disk.name();
        const fs::path block =
            "/sys/class/scsi_device/" + read_value(group_ / "address") + ":0/device/block";
        if (!within(10s, [&] { return fs::exists(block) && !fs::is_empty(block); })) {
            throw std::runtime_error("no disk at " + block.string());
        }
        path_ = "/dev/" + fs::directory_iterator(block)->path().filename().string();
        // It is probed in the background, and can be opened when that has come far enough.
        if (!within(10s, [&] { return opens(path_); })) {
            throw std::runtime_error("no " + path_);
        }
    }
    ~Path() {
        check_spare_on(path_);
        for (const auto& part : {link_, lun_, group_, port_}) {
            discard_entry(part);
        }
    }
    Path(const Path&) = delete;
    Path& operator=(const Path&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    static std::string wwn(unsigned number) {
        return "naa.500140500000000" + std::to_string(number);
    }

    fs::path port_;
    fs::path group_;
    fs::path lun_;
    fs::path link_;
    std::string path_;
};

// Both return 0, a SCSI status, or a negative errno.
int register_key(const std::string& path, uint64_t key) {
    const File device(path, O_RDWR);
    pr_registration registration{};
    registration.new_key = key;
    const int ret = ioctl(device.fd(), IOC_PR_REGISTER, &registration);
    return ret < 0 ? -errno : ret;
}

int reserve(const std::string& path, uint64_t key) {
    const File device(path, O_RDWR);
    pr_reservation reservation{};
    reservation.key = key;
    reservation.type = PR_WRITE_EXCLUSIVE;
    const int ret = ioctl(device.fd(), IOC_PR_RESERVE, &reservation);
    return ret < 0 ? -errno : ret;
}

class Reservations : public testing::Test {
  protected:
    void SetUp() override {
        if (run({"modprobe", "-a", "sd_mod", "target_core_mod", "tcm_loop"}).status != 0) {
            GTEST_SKIP() << "this kernel has no SCSI target";
        }
        disks_ = std::make_unique<Disks>();
        register_spare(disks_->spare_path.path());
        device_ = std::make_unique<DmDevice>(
            "remap", remap_table(disks_->main_path.path(), disks_->spare_path.path(), {"format"}));
    }
    // Before the disks that it holds, also where a case was skipped.
    void TearDown() override {
        device_.reset();
        disks_.reset();
    }

    struct Disks {
        TargetDisk main{"main"};
        TargetDisk spare{"spare"};
        Path main_path{main, 1};
        Path other_path{main, 3};
        Path spare_path{spare, 5};
    };
    std::unique_ptr<Disks> disks_;
    std::unique_ptr<DmDevice> device_;
};

TEST_F(Reservations, AreOfMainAlone) {
    ASSERT_EQ(register_key(device_->path(), kOurs), 0);
    EXPECT_THAT(disks_->main.registrations(), HasSubstr("0x0000000000001111"));
    EXPECT_THAT(disks_->spare.registrations(), HasSubstr("None"));
    ASSERT_EQ(reserve(device_->path(), kOurs), 0);
    // The other initiator can neither reserve the disk nor write to it.
    EXPECT_NE(reserve(disks_->other_path.path(), kTheirs), 0);
    const Buffer block(kSector);
    EXPECT_EQ(BlockFile(device_->path()).write(0, block.bytes()), 0);
    EXPECT_EQ(BlockFile(disks_->other_path.path()).write(0, block.bytes()), EBADE);
}

TEST_F(Reservations, AConflictOnMainIsOne) {
    ASSERT_EQ(register_key(disks_->other_path.path(), kTheirs), 0);
    ASSERT_EQ(reserve(disks_->other_path.path(), kTheirs), 0);
    ASSERT_EQ(register_key(device_->path(), kOurs), 0);
    EXPECT_NE(reserve(device_->path(), kOurs), 0);
    // Nor does a write that is refused for it count as a bad sector.
    const Buffer block(kSector);
    EXPECT_EQ(BlockFile(device_->path()).write(0, block.bytes()), EBADE);
    EXPECT_THAT(remap_brief(*device_), ElementsAre());
}

}  // namespace
}  // namespace remap::vm

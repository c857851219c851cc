#include "backing.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "file.h"
#include "harness.h"

namespace remap::vm {

namespace fs = std::filesystem;

namespace {

const fs::path kScsiDebugDriver = "/sys/bus/pseudo/drivers/scsi_debug";
const fs::path kDebugFs = "/sys/kernel/debug";
constexpr int kFailCommand = 2;  // in the words of the file `error` there
const fs::path kNullBlkConfig = "/sys/kernel/config/nullb";
constexpr const char* kLoopControl = "/dev/loop-control";

void wait_until(const std::string& what, const std::function<bool()>& done) {
    using namespace std::chrono_literals;
    for (int tries = 0; !done(); tries++) {
        if (tries == 500) {
            throw std::runtime_error("waited 10 s for " + what);
        }
        std::this_thread::sleep_for(20ms);
    }
}

[[noreturn]] void throw_errno(const std::string& what) {
    throw std::system_error(errno, std::generic_category(), what);
}

fs::path scsi_debug_adapter(unsigned adapter) {
    return "/sys/bus/pseudo/devices/adapter" + std::to_string(adapter);
}

// The disks of one of the module's adapters.
std::vector<std::string> scsi_debug_disks(unsigned adapter) {
    std::vector<std::string> disks;
    for (const auto& entry : fs::recursive_directory_iterator(scsi_debug_adapter(adapter))) {
        if (entry.path().filename() != "block" || !fs::is_directory(entry.path())) {
            continue;
        }
        for (const auto& disk : fs::directory_iterator(entry.path())) {
            disks.push_back("/dev/" + disk.path().filename().string());
        }
    }
    return disks;
}

// Of all of them, adapter by adapter.
std::vector<std::string> scsi_debug_disks() {
    std::vector<std::string> disks;
    for (unsigned adapter = 0; fs::exists(scsi_debug_adapter(adapter)); adapter++) {
        const auto more = scsi_debug_disks(adapter);
        disks.insert(disks.end(), more.begin(), more.end());
    }
    return disks;
}

// The node is there before the disk has a size, and before it can be opened.
bool is_ready(const std::string& path) {
    const fs::path size = "/sys/block" / fs::path(path).filename() / "size";
    if (!fs::exists(size) || read_value(size) == "0") {
        return false;
    }
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

std::vector<std::string> scsi_debug_parameters(std::vector<std::string> parameters,
                                               unsigned disks) {
    parameters.insert(parameters.begin(), "delay=0");  // or each command takes a timer tick
    parameters.push_back("add_host=" + std::to_string(disks));
    if (disks > 1) {
        parameters.emplace_back("per_host_store=1");
    }
    return parameters;
}

// A configfs directory is made ready value by value; the last, "power", makes the disk.
std::string make_null_blk(const fs::path& directory, const NullBlk::Options& options) {
    fs::create_directory(directory);
    write_value(directory / "size", std::to_string(options.size_mb));
    write_value(directory / "blocksize", std::to_string(options.block_size));
    write_value(directory / "memory_backed", options.keeps ? "1" : "0");
    write_value(directory / "discard", options.discard ? "1" : "0");
    write_value(directory / "virt_boundary", options.virt_boundary ? "1" : "0");
    write_value(directory / "max_sectors", std::to_string(options.max_sectors));
    if (options.poll_queues != 0) {
        write_value(directory / "poll_queues", std::to_string(options.poll_queues));
    }
    if (options.delay_ms != 0) {
        constexpr const char* kTimer = "2";
        write_value(directory / "irqmode", kTimer);
        write_value(directory / "completion_nsec", std::to_string(options.delay_ms) + "000000");
    }
    write_value(directory / "power", "1");
    // Newer kernels name the disk after the directory.
    const auto named = "/dev/" + directory.filename().string();
    return fs::exists(named) ? named : "/dev/nullb" + read_value(directory / "index");
}

}  // namespace

std::string machine_disk(const std::string& name) {
    return fs::canonical("/dev/disk/" + name).string();
}

ScsiDebug::ScsiDebug(std::vector<std::string> parameters, unsigned disks)
    : module_("scsi_debug", scsi_debug_parameters(std::move(parameters), disks)) {
    run_ok({"modprobe", "sd_mod"});
    // The disks are probed behind modprobe's back.
    wait_until("the disks of scsi_debug", [&] {
        paths_ = scsi_debug_disks();
        return paths_.size() == disks && std::all_of(paths_.begin(), paths_.end(), is_ready);
    });
}

ScsiDebug::~ScsiDebug() {
    for (const auto& path : paths_) {
        check_spare_on(path);
    }
}

void ScsiDebug::fail_reads(uint64_t first_block, uint64_t count) {
    constexpr const char* kMediumErrors = "0x2";
    write_value(module_.parameter("medium_error_start"), std::to_string(first_block));
    write_value(module_.parameter("medium_error_count"), std::to_string(count));
    set("opts", count == 0 ? "0" : kMediumErrors);
}

void ScsiDebug::set(const std::string& attribute, const std::string& value) {
    write_value(kScsiDebugDriver / attribute, value);
}

void ScsiDebug::set_parameter(const std::string& parameter, const std::string& value) {
    write_value(module_.parameter(parameter), value);
}

void ScsiDebug::set_device(const std::string& attribute, const std::string& value, unsigned disk) {
    write_value("/sys/block" / fs::path(path(disk)).filename() / "device" / attribute,
                value + "\n");
}

void ScsiDebug::unplug(unsigned disk) {
    set_device("delete", "1", disk);
    wait_until("a disk to go", [&] { return scsi_debug_disks(disk).empty(); });
}

void ScsiDebug::plug_in(unsigned disk) {
    for (const auto& entry : fs::directory_iterator(scsi_debug_adapter(disk))) {
        const std::string host = entry.path().filename();
        if (host.starts_with("host")) {
            write_value(entry.path() / "scsi_host" / host / "scan", "- - -");
        }
    }
    wait_until("a disk to come back", [&] {
        const auto found = scsi_debug_disks(disk);
        return !found.empty() && is_ready(paths_.at(disk) = found.front());
    });
}

std::string ScsiDebug::injection_file() const {
    const auto device = "/sys/block" / fs::path(path()).filename() / "device";
    return kDebugFs / "scsi_debug" / fs::canonical(device).filename() / "error";
}

bool ScsiDebug::can_inject() const {
    if (!fs::exists(kDebugFs / "block")) {
        run_ok({"mount", "-t", "debugfs", "debugfs", kDebugFs});
    }
    return fs::exists(injection_file());
}

void ScsiDebug::inject(unsigned operation, const Answer& answer, unsigned times) {
    const int count = times == 0 ? 1 : -static_cast<int>(times);
    write_value(injection_file(),
                fmt::format("{} {} {:x} {:x} 0 {:x} {:x} {:x} {:x}", kFailCommand, count, operation,
                            answer.host, answer.status, answer.key, answer.code, answer.qualifier));
}

void ScsiDebug::end_injection(unsigned operation) {
    write_value(injection_file(), fmt::format("- {} {:x}", kFailCommand, operation));
}

void ScsiDebug::set_retries(const std::string& value, unsigned disk) {
    const auto device = "/sys/block" / fs::path(path(disk)).filename() / "device" / "scsi_disk";
    write_value(fs::directory_iterator(device)->path() / "max_retries", value);
}

NullBlk::NullBlk(const Options& options) {
    if (!fs::exists(kNullBlkConfig)) {
        run_ok({"modprobe", "null_blk", "nr_devices=0"});
    }
    for (int number = 0; directory_.empty(); number++) {
        const fs::path candidate = kNullBlkConfig / ("nullb" + std::to_string(number));
        if (!fs::exists(candidate)) {
            directory_ = candidate;
        }
    }
    try {
        path_ = make_null_blk(directory_, options);
    } catch (...) {
        std::error_code ignored;
        fs::remove(directory_, ignored);
        throw;
    }
}

NullBlk::~NullBlk() {
    check_spare_on(path_);
    std::error_code error;
    fs::remove(directory_, error);
    if (error) {
        ADD_FAILURE() << directory_ << ": " << error.message();
    }
}

void NullBlk::add_bad(uint64_t first, uint64_t count) {
    write_value(fs::path(directory_) / "badblocks",
                "+" + std::to_string(first) + "-" + std::to_string(first + count - 1));
}

void NullBlk::remove_bad(uint64_t first, uint64_t count) {
    write_value(fs::path(directory_) / "badblocks",
                "-" + std::to_string(first) + "-" + std::to_string(first + count - 1));
}

LoopDevice::LoopDevice(uint64_t bytes, unsigned block_size) {
    std::string name = "/tmp/loop-XXXXXX";
    const File backing(mkostemp(name.data(), O_CLOEXEC));
    if (backing.fd() < 0 || ftruncate(backing.fd(), static_cast<off_t>(bytes)) != 0) {
        throw_errno(name);
    }
    file_ = name;
    configure(backing.fd(), block_size, 0);
}

LoopDevice::LoopDevice(const std::string& device) {
    configure(File(device, O_RDWR).fd(), 512, LO_FLAGS_DIRECT_IO);
}

void LoopDevice::configure(int backing, unsigned block_size, unsigned flags) {
    if (!fs::exists(kLoopControl)) {
        run_ok({"modprobe", "loop"});
    }
    const File control(kLoopControl, O_RDWR);
    const int number = ioctl(control.fd(), LOOP_CTL_GET_FREE);
    if (number < 0) {
        throw_errno("LOOP_CTL_GET_FREE");
    }
    path_ = "/dev/loop" + std::to_string(number);
    const File device(path_, O_RDWR);
    loop_config config{};
    config.fd = static_cast<__u32>(backing);
    config.block_size = block_size;
    config.info.lo_flags = flags;
    if (ioctl(device.fd(), LOOP_CONFIGURE, &config) != 0) {
        throw_errno(path_);
    }
}

LoopDevice::~LoopDevice() {
    check_spare_on(path_);
    try {
        const File device(path_, O_RDONLY);
        if (ioctl(device.fd(), LOOP_CLR_FD) != 0) {
            throw_errno(path_);
        }
        if (!file_.empty()) {
            fs::remove(file_);
        }
    } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
    }
}

std::vector<std::byte> LoopDevice::content() const {
    std::vector<std::byte> bytes(fs::file_size(file_));
    const File file(file_, O_RDONLY);
    if (pread(file.fd(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
        throw_errno(file_);
    }
    return bytes;
}

void LoopDevice::resize(uint64_t bytes) {
    fs::resize_file(file_, bytes);
    const File device(path_, O_RDONLY);
    if (ioctl(device.fd(), LOOP_SET_CAPACITY) != 0) {
        throw_errno(path_);
    }
}

void LoopDevice::set_read_only(bool read_only) {
    const File device(path_, O_RDONLY);
    const int flag = read_only ? 1 : 0;
    if (ioctl(device.fd(), BLKROSET, &flag) != 0) {
        throw_errno(path_);
    }
}

}  // namespace remap::vm

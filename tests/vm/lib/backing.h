// Block devices to build on, gone at the end of the scope. When one goes that holds a registered
// spare, the spare is checked first (harness.h): declare them before the DmDevice that uses them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "command.h"

namespace remap::vm {

// One of the machine's own disks: "main" (2 GiB), "spare" (1 GiB), "extra" (1 GiB). They are virtio
// disks on sparse files; a Reboot suite finds them in its next phase as it left them, an ordinary
// case finds whatever the case before left. An emulated machine has "bad-512n", "bad-512e" and
// "bad-4Kn", too, where sectors fail (boot.sh).
std::string machine_disk(const std::string& name);

// Disks in memory, by the scsi_debug module. Only one object at a time: the module is loaded for
// it.
class ScsiDebug {
  public:
    // Each parameter as modprobe takes it, "dev_size_mb=64", "sector_size=4096". With `disks` > 1
    // each has its own memory; parameters concern all of them.
    explicit ScsiDebug(std::vector<std::string> parameters, unsigned disks = 1);
    ~ScsiDebug();
    ScsiDebug(const ScsiDebug&) = delete;
    ScsiDebug& operator=(const ScsiDebug&) = delete;

    [[nodiscard]] const std::string& path(unsigned disk = 0) const { return paths_.at(disk); }

    // Reads of these logical blocks (of sector_size) fail with a medium error, on every disk;
    // writes succeed. A count of 0 ends it.
    void fail_reads(uint64_t first_block, uint64_t count);

    // A parameter of the driver, in /sys/bus/pseudo/drivers/scsi_debug.
    void set(const std::string& attribute, const std::string& value);
    // A parameter of the module; some can only be changed there.
    void set_parameter(const std::string& parameter, const std::string& value);
    // An attribute of a SCSI disk, in /sys/block/<disk>/device.
    void set_device(const std::string& attribute, const std::string& value, unsigned disk = 0);
    // How often the kernel tries a command again before it fails.
    void set_retries(const std::string& value, unsigned disk = 0);

    // The kernel gives the disk up, as it does with one that is pulled. Its content stays.
    void unplug(unsigned disk = 0);
    // It is found again, under another name while somebody has the old one open.
    void plug_in(unsigned disk = 0);

    // Whether the module can fail commands as inject() wants; since Linux 6.7.
    [[nodiscard]] bool can_inject() const;
    // What a command gets instead of being carried out, in the words of SCSI.
    struct Answer {
        unsigned host = 0;    // of scsi_status.h: DID_*
        unsigned status = 0;  // SAM_STAT_*
        unsigned key = 0;     // sense, with a status of 2, CHECK CONDITION
        unsigned code = 0;
        unsigned qualifier = 0;
    };
    // For the next `times` commands with this operation code; 0: for all.
    void inject(unsigned operation, const Answer& answer, unsigned times = 0);
    void end_injection(unsigned operation);

  private:
    [[nodiscard]] std::string injection_file() const;

    Module module_;
    std::vector<std::string> paths_;
};

// A disk in memory whose bad blocks fail on reads and writes, with a plain I/O error.
class NullBlk {
  public:
    struct Options {
        uint64_t size_mb = 64;
        unsigned block_size = 512;
        bool discard = false;
        bool keeps = true;           // else what is written is gone, and reads give anything
        unsigned poll_queues = 0;    // for I/O that the caller polls for
        unsigned max_sectors = 0;    // of a request; 0: the driver's own
        bool virt_boundary = false;  // no gap in a request's memory, but at a page's edge
        // From a request to its completion. Whether it fails is decided before.
        unsigned delay_ms = 0;
    };
    explicit NullBlk(const Options& options);
    NullBlk() : NullBlk(Options{}) {}
    ~NullBlk();
    NullBlk(const NullBlk&) = delete;
    NullBlk& operator=(const NullBlk&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }

    // Sectors of 512 bytes.
    void add_bad(uint64_t first, uint64_t count);
    void remove_bad(uint64_t first, uint64_t count);

  private:
    std::string directory_;
    std::string path_;
};

// A loop device on a file in memory, made with this size and removed with the device.
class LoopDevice {
  public:
    explicit LoopDevice(uint64_t bytes, unsigned block_size = 512);
    // Over a device, past the page cache: one with requests and a cache, and without FUA, whose I/O
    // and flushes fail as those beneath do.
    explicit LoopDevice(const std::string& device);
    ~LoopDevice();
    LoopDevice(const LoopDevice&) = delete;
    LoopDevice& operator=(const LoopDevice&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] const std::string& file() const { return file_; }
    // All that is on it now, also while it is in use.
    [[nodiscard]] std::vector<std::byte> content() const;

    void resize(uint64_t bytes);
    // Further attempts to write fail; what is open for writing stays so.
    void set_read_only(bool read_only);

  private:
    void configure(int backing, unsigned block_size, unsigned flags);

    std::string file_;  // empty: over a device
    std::string path_;
};

}  // namespace remap::vm

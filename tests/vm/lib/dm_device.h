// Device-mapper devices, by libdevmapper, that are gone at the end of the scope.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

namespace remap::vm {

// One line of a table or of a status. Sectors of 512 bytes.
struct Target {
    uint64_t start = 0;
    uint64_t length = 0;
    std::string type;
    std::string text;  // the parameters, or the status

    bool operator==(const Target&) const = default;
};
using Table = std::vector<Target>;

// A dm ioctl that failed: code() is the kernel's errno, what() names the operation and the device.
// The reason is in the kernel log (KernelLog).
class DmError : public std::system_error {
  public:
    using std::system_error::system_error;
};

struct DmInfo {
    bool suspended = false;
    bool live_table = false;
    bool inactive_table = false;
    bool read_only = false;
    int open_count = 0;
    uint32_t event_nr = 0;
    dev_t device = 0;
};

class DmDevice {
  public:
    enum class Suspend { kFlush, kNoFlush };

    // Creates the device without a table; load() and resume() are for the case.
    explicit DmDevice(std::string name);
    // Creates the device with this table and resumes it. When a step fails nothing stays behind.
    DmDevice(std::string name, const Table& table, const std::string& uuid = "");
    // Removes the device, trying for a few seconds while it is open; that it can't is a failure of
    // the test.
    ~DmDevice();
    DmDevice(const DmDevice&) = delete;
    DmDevice& operator=(const DmDevice&) = delete;

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] std::string path() const { return "/dev/mapper/" + name_; }

    // All throw DmError.
    void load(const Table& table);  // into the inactive slot
    void suspend(Suspend how = Suspend::kFlush);
    void resume();                    // the inactive table, if there is one, becomes live
    void reload(const Table& table);  // load, suspend, resume
    void clear();                     // drop the inactive table
    void rename(const std::string& name);
    void remove();  // the destructor then does nothing

    // Sends a message to the target at `sector` and returns its reply, empty if it gave none.
    std::string message(const std::string& text, uint64_t sector = 0);

    [[nodiscard]] Table table() const;
    // Without `flush` the target is asked for what it knows now (DM_NOFLUSH).
    [[nodiscard]] Table status(bool flush = false) const;
    [[nodiscard]] DmInfo info() const;
    [[nodiscard]] std::vector<dev_t> dependencies() const;

  private:
    std::string name_;
    bool exists_ = true;
};

// Names of all devices, whoever made them.
std::vector<std::string> dm_device_names();

// Removes a device by name; `force` replaces its table by one that fails all I/O first.
void dm_remove(const std::string& name, bool force = false);

}  // namespace remap::vm

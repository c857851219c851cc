// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "error.h"

namespace remap {

struct MappedTarget {
    std::uint64_t start = 0;
    std::uint64_t length = 0;
    std::string type;
    std::string params;
};

struct MappedDevice {
    std::string name;
    std::string uuid;
    bool suspended = false;
    bool read_only = false;
    int open_count = 0;
    std::vector<MappedTarget> targets;
};

struct NewDevice {
    std::string name;
    std::string uuid;
    MappedTarget target;
    bool read_only = false;
};

enum class Removal {
    now,       // waits some seconds for short-lived openers such as udev
    deferred,  // when the last opener closes it
};

// What the commands need of device-mapper. An interface so that tests can stand in for the kernel.
class DmClient {
  public:
    DmClient() = default;
    DmClient(const DmClient&) = delete;
    DmClient& operator=(const DmClient&) = delete;
    virtual ~DmClient() = default;

    virtual Result<std::vector<std::string>> names() = 0;
    // With the status, or the table line, of each target.
    virtual Result<MappedDevice> status(const std::string& name) = 0;
    virtual Result<MappedDevice> table(const std::string& name) = 0;
    // The reply; empty where there is none.
    virtual Result<std::string> message(const std::string& name, const std::string& text) = 0;
    // Creates, loads and resumes; leaves nothing behind when it fails.
    virtual Result<void> create(const NewDevice& device) = 0;
    virtual Result<void> remove(const std::string& name, Removal removal) = 0;
    // Puts a target in place of the table that fails all I/O and lets go of the devices below.
    virtual Result<void> replace_by_error(const std::string& name) = 0;
    // Of the target `remap`; nothing if the module is not loaded.
    virtual Result<std::optional<std::array<std::uint32_t, 3>>> target_version() = 0;
};

// The kernel's, through libdevmapper. One at a time.
class KernelDmClient final : public DmClient {
  public:
    KernelDmClient();
    ~KernelDmClient() override;

    Result<std::vector<std::string>> names() override;
    Result<MappedDevice> status(const std::string& name) override;
    Result<MappedDevice> table(const std::string& name) override;
    Result<std::string> message(const std::string& name, const std::string& text) override;
    Result<void> create(const NewDevice& device) override;
    Result<void> remove(const std::string& name, Removal removal) override;
    Result<void> replace_by_error(const std::string& name) override;
    Result<std::optional<std::array<std::uint32_t, 3>>> target_version() override;
};

}  // namespace remap

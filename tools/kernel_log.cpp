// SPDX-License-Identifier: GPL-2.0-only
#include "kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace remap {

std::optional<std::string> remap_line_of_kmsg(std::string_view record) {
    const std::size_t prefix = record.find(';');
    if (prefix == std::string_view::npos) {
        return std::nullopt;
    }
    // Lines after the first are the dictionary: " SUBSYSTEM=block".
    std::string_view text = record.substr(prefix + 1);
    text = text.substr(0, text.find('\n'));
    constexpr std::string_view device_mapper = "device-mapper: ";
    if (!text.starts_with(device_mapper) || text.find("remap") == std::string_view::npos) {
        return std::nullopt;
    }
    return std::string(text.substr(device_mapper.size()));
}

KernelLogMark::KernelLogMark() : kmsg_(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
    if (kmsg_ && lseek(kmsg_.get(), 0, SEEK_END) < 0) {
        kmsg_ = UniqueFd();
    }
}

std::vector<std::string> KernelLogMark::lines() const {
    std::vector<std::string> found;
    if (!kmsg_) {
        return found;
    }
    std::array<char, 8192> record{};  // the kernel's own limit for one
    for (;;) {
        const ssize_t size = read(kmsg_.get(), record.data(), record.size());
        if (size < 0 && (errno == EPIPE || errno == EINTR)) {
            continue;  // EPIPE: records were overwritten; the next read goes on after them
        }
        if (size <= 0) {
            return found;
        }
        if (auto line = remap_line_of_kmsg({record.data(), static_cast<std::size_t>(size)})) {
            found.push_back(std::move(*line));
        }
    }
}

}  // namespace remap

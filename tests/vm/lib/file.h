// A file descriptor that is closed once.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

namespace remap::vm {

class File {
  public:
    explicit File(int fd) : fd_(fd) {}
    File(const std::filesystem::path& path, int flags, mode_t mode = 0644)
        : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {
        if (fd_ < 0) {
            throw std::system_error(errno, std::generic_category(), "open " + path.string());
        }
    }
    ~File() { close(); }
    File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    File& operator=(File&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    [[nodiscard]] int fd() const { return fd_; }
    void close() {
        if (fd_ >= 0) {
            ::close(std::exchange(fd_, -1));
        }
    }

  private:
    int fd_;
};

}  // namespace remap::vm

#include "cache_disk.h"

#include <arpa/inet.h>
#include <endian.h>
#include <gtest/gtest.h>
#include <linux/nbd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "block.h"
#include "command.h"
#include "harness.h"

namespace remap::vm {

namespace {

int open_nbd(const std::string& path) {
    if (!std::filesystem::exists(path)) {
        run_ok({"modprobe", "nbd", "nbds_max=1"});
    }
    return open(path.c_str(), O_RDWR | O_CLOEXEC);
}

void control(int device, unsigned long request, unsigned long value, const char* what) {
    if (ioctl(device, request, value) != 0) {
        throw std::system_error(errno, std::generic_category(), what);
    }
}

bool receive_all(int socket, void* data, size_t size) {
    return size == 0 || recv(socket, data, size, MSG_WAITALL) == static_cast<ssize_t>(size);
}

void send_all(int socket, const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    for (size_t done = 0; done < size;) {
        const ssize_t n = send(socket, bytes + done, size - done, MSG_NOSIGNAL);
        if (n <= 0) {
            return;  // the kernel has gone, and says so itself
        }
        done += static_cast<size_t>(n);
    }
}

}  // namespace

CacheDisk::CacheDisk(uint64_t bytes) : device_(open_nbd(path_)), current_(bytes), durable_(bytes) {
    int ends[2];
    if (device_.fd() < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        throw std::system_error(errno, std::generic_category(), path_);
    }
    const File kernels(ends[0]);
    server_ = File(ends[1]);
    try {
        connect(kernels.fd());
    } catch (...) {
        disconnect();
        throw;
    }
}

void CacheDisk::connect(int socket) {
    control(device_.fd(), NBD_SET_BLKSIZE, kSector, "NBD_SET_BLKSIZE");
    control(device_.fd(), NBD_SET_SIZE_BLOCKS, current_.size() / kSector, "NBD_SET_SIZE_BLOCKS");
    control(device_.fd(), NBD_SET_FLAGS, NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH, "NBD_SET_FLAGS");
    control(device_.fd(), NBD_SET_SOCK, static_cast<unsigned long>(socket), "NBD_SET_SOCK");
    thread_ = std::thread([this] { serve(); });
    // It returns when the connection ends.
    kernel_ = std::thread([this] { ioctl(device_.fd(), NBD_DO_IT); });
    const std::string sectors = std::to_string(current_.size() / kSector);
    wait("nbd", [&] { return read_value("/sys/block/nbd0/size") == sectors; });
}

CacheDisk::~CacheDisk() {
    check_spare_on(path_);
    release();
    disconnect();
}

// Of what there is of it by now.
void CacheDisk::disconnect() {
    if (ioctl(device_.fd(), NBD_DISCONNECT) != 0) {
        ADD_FAILURE() << path_ << ": NBD_DISCONNECT";
        shutdown(server_.fd(), SHUT_RDWR);  // ends it, too
    }
    for (std::thread* thread : {&thread_, &kernel_}) {
        if (thread->joinable()) {
            thread->join();
        }
    }
    if (ioctl(device_.fd(), NBD_CLEAR_SOCK) != 0) {
        ADD_FAILURE() << path_ << ": NBD_CLEAR_SOCK";
    }
}

void CacheDisk::direct(std::function<Answer(const Request&)> director) {
    const std::lock_guard lock(mutex_);
    director_ = std::move(director);
    writes_.clear();
    flushes_ = 0;
}

void CacheDisk::fail_reads_together(size_t reads, uint64_t bad) {
    const std::lock_guard lock(mutex_);
    reads_together_ = reads;
    bad_ = bad;
}

void CacheDisk::fail_slowly(std::set<uint64_t> sectors, std::chrono::milliseconds time) {
    const std::lock_guard lock(mutex_);
    slow_ = std::move(sectors);
    slow_time_ = time;
    slow_failures_ = 0;
}

unsigned CacheDisk::slow_failures() {
    const std::lock_guard lock(mutex_);
    return slow_failures_;
}

void CacheDisk::wait(const std::string& what, const std::function<bool()>& done) {
    using namespace std::chrono_literals;
    std::unique_lock lock(mutex_);
    for (int tries = 0; !done(); tries++) {
        if (tries == 500) {
            release_all();  // who waits for an answer is let go first
            throw std::runtime_error("waited 10 s for " + what);
        }
        changed_.wait_for(lock, 20ms);
    }
}

void CacheDisk::wait_for_held(size_t requests) {
    wait("requests to hold", [&] { return held_.size() >= requests; });
}

void CacheDisk::wait_for_writes(uint64_t sector, unsigned writes) {
    wait("writes", [&] { return writes_[sector] >= writes; });
}

void CacheDisk::release() {
    const std::lock_guard lock(mutex_);
    release_all();
}

void CacheDisk::release_all() {
    director_ = nullptr;
    reads_together_ = 0;
    for (const Command& command : std::exchange(held_, {})) {
        finish(command);
    }
}

void CacheDisk::lose(uint64_t sector) {
    const std::lock_guard lock(mutex_);
    losing_.insert(sector);
}

void CacheDisk::lose_cache() {
    const std::lock_guard lock(mutex_);
    for (const uint64_t sector : std::exchange(cached_, {})) {
        revert(sector);
    }
}

void CacheDisk::revert(uint64_t sector) {
    const auto at = static_cast<std::ptrdiff_t>(sector * kSector);
    std::copy_n(durable_.begin() + at, kSector, current_.begin() + at);
}

// ---- the connection ----

void CacheDisk::serve() {
    Command command;
    while (receive(command) && command.type != NBD_CMD_DISC) {
        take(std::move(command));
        command = {};
    }
    shutdown(server_.fd(), SHUT_RDWR);
}

bool CacheDisk::receive(Command& command) {
    nbd_request request{};
    if (!receive_all(server_.fd(), &request, sizeof(request)) ||
        ntohl(request.magic) != NBD_REQUEST_MAGIC) {
        return false;
    }
    command.type = ntohl(request.type);
    command.from = be64toh(request.from);
    command.length = ntohl(request.len);
    command.handle.assign(request.handle, sizeof(request.handle));
    if (command.type == NBD_CMD_WRITE) {
        command.data.resize(command.length);
    }
    return receive_all(server_.fd(), command.data.data(), command.data.size());
}

bool CacheDisk::is_slow(const Command& command) {
    const std::lock_guard lock(mutex_);
    const bool transfers = command.type == NBD_CMD_READ || command.type == NBD_CMD_WRITE;
    const auto first = slow_.lower_bound(command.from / kSector);
    return transfers && first != slow_.end() && *first < (command.from + command.length) / kSector;
}

void CacheDisk::take(Command command) {
    if (is_slow(command)) {
        std::this_thread::sleep_for(slow_time_);
        const std::lock_guard lock(mutex_);
        slow_failures_++;
        reply(command, EIO);
        changed_.notify_all();
        return;
    }
    const std::lock_guard lock(mutex_);
    switch (ask(command)) {
        case Answer::kDo:
            finish(command);
            break;
        case Answer::kFail:
            reply(command, EIO);
            break;
        case Answer::kDoAndHold:
            command.result = carry_out(command);
            held_.push_back(std::move(command));
            break;
        case Answer::kHold:
            held_.push_back(std::move(command));
            fail_together();
            break;
    }
    changed_.notify_all();
}

void CacheDisk::fail_together() {
    if (reads_together_ == 0 || held_.size() < reads_together_) {
        return;
    }
    reads_together_ = 0;
    for (const Command& command : std::exchange(held_, {})) {
        reply(command, EIO);
    }
}

CacheDisk::Answer CacheDisk::ask(const Command& command) {
    if (command.type == NBD_CMD_READ) {
        return ask_read(command);
    }
    Request request;
    request.flush = command.type == NBD_CMD_FLUSH;
    if (!request.flush && command.type != NBD_CMD_WRITE) {
        return Answer::kDo;
    }
    request.sector = request.flush ? 0 : command.from / kSector;
    request.number = ++(request.flush ? flushes_ : writes_[request.sector]);
    return director_ ? director_(request) : Answer::kDo;
}

CacheDisk::Answer CacheDisk::ask_read(const Command& command) const {
    if (reads_together_ != 0) {
        return Answer::kHold;
    }
    const uint64_t first = command.from / kSector;
    return bad_ && *bad_ - first < command.length / kSector ? Answer::kFail : Answer::kDo;
}

void CacheDisk::reply(const Command& command, int error, const std::vector<std::byte>& data) {
    nbd_reply header{};
    header.magic = htonl(NBD_REPLY_MAGIC);
    header.error = htonl(static_cast<uint32_t>(error));
    std::copy_n(command.handle.begin(), sizeof(header.handle), header.handle);
    send_all(server_.fd(), &header, sizeof(header));
    send_all(server_.fd(), data.data(), data.size());
}

void CacheDisk::finish(const Command& command) {
    const int error = command.result ? *command.result : carry_out(command);
    if (command.type == NBD_CMD_READ) {
        const auto from = current_.begin() + static_cast<std::ptrdiff_t>(command.from);
        reply(command, error, {from, from + static_cast<std::ptrdiff_t>(command.length)});
    } else {
        reply(command, error);
    }
}

int CacheDisk::carry_out(const Command& command) {
    switch (command.type) {
        case NBD_CMD_READ:
            return 0;
        case NBD_CMD_WRITE:
            std::copy(command.data.begin(), command.data.end(),
                      current_.begin() + static_cast<std::ptrdiff_t>(command.from));
            for (uint64_t done = 0; done < command.length; done += kSector) {
                cached_.insert((command.from + done) / kSector);
            }
            return 0;
        case NBD_CMD_FLUSH:
            return flush();
        default:
            return EINVAL;
    }
}

int CacheDisk::flush() {
    int error = 0;
    for (const uint64_t sector : std::exchange(cached_, {})) {
        const auto at = static_cast<std::ptrdiff_t>(sector * kSector);
        if (losing_.erase(sector) != 0) {
            revert(sector);
            error = EIO;
        } else {
            std::copy_n(current_.begin() + at, kSector, durable_.begin() + at);
        }
    }
    return error;
}

}  // namespace remap::vm

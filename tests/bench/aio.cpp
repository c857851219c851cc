#include "aio.h"

#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "block.h"

namespace remap::bench {
namespace {

constexpr unsigned kMostDepth = 64;

[[noreturn]] void throw_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// The kernel's own interface: a library in between would be counted, too.
class Queue {
  public:
    explicit Queue(unsigned depth) {
        if (syscall(SYS_io_setup, depth, &context_) != 0) {
            throw_errno("io_setup");
        }
    }
    ~Queue() { syscall(SYS_io_destroy, context_); }
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;

    void submit(std::span<iocb*> requests) const {
        if (syscall(SYS_io_submit, context_, requests.size(), requests.data()) !=
            static_cast<long>(requests.size())) {
            throw_errno("io_submit");
        }
    }
    // At least one, at most all.
    std::span<io_event> wait() {
        const long n =
            syscall(SYS_io_getevents, context_, 1, events_.size(), events_.data(), nullptr);
        if (n < 1) {
            throw_errno("io_getevents");
        }
        return std::span(events_).first(static_cast<size_t>(n));
    }

  private:
    aio_context_t context_ = 0;
    std::array<io_event, kMostDepth> events_{};
};

// One huge page, which is there to stay: how the memory of an I/O lies decides how many pieces it
// has, and what finding them takes.
std::byte* huge_page() {
    constexpr size_t kHuge = 2 << 20;
    void* memory = std::aligned_alloc(kHuge, kHuge);
    if (memory == nullptr || madvise(memory, kHuge, MADV_HUGEPAGE) != 0) {
        throw_errno("memory");
    }
    return static_cast<std::byte*>(std::memset(memory, 0x5a, kHuge));
}

}  // namespace

double time_per_io(const std::string& path, const Load& load, std::span<const uint64_t> sectors) {
    const vm::BlockFile device(path);
    static std::byte* const memory = huge_page();
    Queue queue(load.depth);
    std::vector<iocb> requests(load.depth);
    std::vector<iocb*> ready;
    for (size_t i = 0; i < requests.size(); i++) {
        auto& request = requests[i];
        request.aio_data = i;
        request.aio_lio_opcode = load.write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
        request.aio_fildes = static_cast<uint32_t>(device.fd());
        request.aio_buf = reinterpret_cast<uintptr_t>(memory);
        request.aio_nbytes = load.bytes;
        ready.push_back(&request);
    }
    size_t next = 0;
    const auto start = std::chrono::steady_clock::now();
    for (size_t done = 0; done < sectors.size();) {
        if (sectors.size() - next < ready.size()) {
            ready.resize(sectors.size() - next);
        }
        for (auto* request : ready) {
            request->aio_offset = static_cast<int64_t>(sectors[next++] * vm::kSector);
        }
        if (!ready.empty()) {
            queue.submit(ready);
        }
        ready.clear();
        for (const auto& event : queue.wait()) {
            if (event.res != load.bytes) {
                throw std::runtime_error(path + ": an I/O failed");
            }
            ready.push_back(&requests[event.data]);
            done++;
        }
    }
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
    return time.count() / static_cast<double>(sectors.size());
}

}  // namespace remap::bench

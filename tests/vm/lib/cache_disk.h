// A disk with a cache and without FUA, which a case directs: what becomes of each request, in which
// order, and what a flush finds that it cannot keep. In memory, served to the kernel's nbd.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "file.h"

namespace remap::vm {

class CacheDisk {
  public:
    // One at a time: it is the first that nbd has.
    explicit CacheDisk(uint64_t bytes);
    ~CacheDisk();
    CacheDisk(const CacheDisk&) = delete;
    CacheDisk& operator=(const CacheDisk&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }

    struct Request {
        bool flush = false;   // or a write
        uint64_t sector = 0;  // of the write
        unsigned number = 0;  // of the flush, or of the write among those to that sector; from 1
    };
    enum class Answer { kDo, kFail, kHold, kDoAndHold };
    // Asked for each flush and write from now on, as they come; counting begins anew. What is held
    // is neither done nor answered, or done and not answered.
    void direct(std::function<Answer(const Request&)> director);
    void wait_for_held(size_t requests);
    void wait_for_writes(uint64_t sector, unsigned writes);
    // Does and answers what is held, in the order in which it came. Nothing is directed any more.
    void release();

    // Reads wait until so many are there, and fail together. Those that come later fail if they
    // have the bad sector.
    void fail_reads_together(size_t reads, uint64_t bad);

    // Reads and writes of these sectors take so long, and fail. All others wait meanwhile, as on a
    // disk that does one command at a time.
    void fail_slowly(std::set<uint64_t> sectors, std::chrono::milliseconds time);
    // How many have, since that was said.
    unsigned slow_failures();

    // The next flush that finds a write to this sector in the cache fails, and the sector has what
    // it had before that write. No later flush says so again.
    void lose(uint64_t sector);
    // What no flush has covered is gone.
    void lose_cache();

  private:
    struct Command {
        uint32_t type = 0;
        uint64_t from = 0;
        uint32_t length = 0;
        std::string handle;
        std::vector<std::byte> data;
        std::optional<int> result;  // of what is done, but for the answer
    };

    void connect(int socket);
    void disconnect();
    void serve();
    bool receive(Command& command);
    void take(Command command);
    bool is_slow(const Command& command);
    Answer ask(const Command& command);
    [[nodiscard]] Answer ask_read(const Command& command) const;
    void fail_together();
    void reply(const Command& command, int error, const std::vector<std::byte>& data = {});
    void finish(const Command& command);
    int carry_out(const Command& command);
    int flush();
    void wait(const std::string& what, const std::function<bool()>& done);
    void revert(uint64_t sector);
    void release_all();

    std::string path_ = "/dev/nbd0";
    File device_;
    File server_{-1};
    std::thread kernel_;  // in which the kernel does its part of the connection
    std::thread thread_;

    std::mutex mutex_;  // of all that follows
    std::condition_variable changed_;
    std::function<Answer(const Request&)> director_;
    std::map<uint64_t, unsigned> writes_;
    unsigned flushes_ = 0;
    size_t reads_together_ = 0;  // 0: none wait
    std::optional<uint64_t> bad_;
    std::set<uint64_t> slow_;
    std::chrono::milliseconds slow_time_{};
    unsigned slow_failures_ = 0;
    std::vector<Command> held_;
    std::vector<std::byte> current_;
    std::vector<std::byte> durable_;
    std::set<uint64_t> cached_;  // sectors
    std::set<uint64_t> losing_;
};

}  // namespace remap::vm

// What a read may return. For each sector the writes whose data it may hold.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "contents.h"

namespace remap::sim {

// A write overlaps in time with others; what came before it is overwritten only where it had ended
// before this one began. What is overwritten may still be returned to a read that began earlier,
// and may come back with a power cut, until a flush makes it unreachable.
class Model {
  public:
    // Sector s holds write 1.
    explicit Model(std::uint32_t sectors);

    // The time goes on with each event.
    std::uint64_t now() { return ++time_; }

    // A write of [start, start + n) begins. Returns its number.
    WriteId begin(std::uint32_t start, std::uint32_t n);
    // It was acknowledged: whole, and durable if so said.
    void acknowledge(std::uint32_t sector, WriteId id, bool durable);
    // It ended with an error: it may be there or not, or only until the power goes.
    void fail(std::uint32_t sector, WriteId id);

    // A flush that began at @since succeeded.
    void flushed(std::uint64_t since);
    // One failed: of what had begun before, no later flush says anything, as of any disk.
    void flush_failed();
    // A flush of somebody else failed: what is on its way may be there only until the power goes.
    void flush_of_others_failed();

    // A read that began at @since, and has not ended, found @id. False: it may not.
    bool seen(std::uint32_t sector, WriteId id, std::uint64_t since);
    // The same just after a power cut, when what is there is durable.
    bool seen_durable(std::uint32_t sector, WriteId id);

    // A disk lost its cache: what was not flushed is open for readers, too. A flush that succeeds
    // says as much as ever: one must fail first.
    void cache_lost();

    // The power went: nothing is on its way any more, and what was not flushed is open.
    void power_cut();

    // No read that began before @time is on its way.
    void forget_before(std::uint64_t time);

    // For a message: what @sector may hold.
    std::string candidates(std::uint32_t sector) const;

  private:
    struct Candidate {
        WriteId id;
        bool acknowledged;  // and the next flush makes it durable
        std::uint64_t begun;
        std::uint64_t ended;        // 0: on its way
        std::uint64_t overwritten;  // 0: it may be what is there
        std::uint64_t unreachable;  // 0: a power cut may bring it back
        // That a read found another proves nothing: a flush has failed, or that one was never
        // acknowledged.
        bool in_doubt = false;
    };
    using Sector = std::vector<Candidate>;

    void doubt(std::uint32_t sector);
    Candidate* find(std::uint32_t sector, WriteId id);

    std::vector<Sector> sectors_;
    std::vector<std::uint32_t> open_;  // sectors with more than one candidate, and perhaps others
    std::vector<bool> is_open_;
    std::uint64_t time_ = 1;
    WriteId last_ = 1;
};

}  // namespace remap::sim

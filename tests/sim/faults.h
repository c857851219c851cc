// What is wrong with a disk.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "random.h"
#include "sim_disk.h"

namespace remap::sim {

// A number of times, as far as a fault goes.
using Times = std::uint8_t;
inline constexpr Times kForGood = 255;

enum class Outage {
    none,
    write_protected,  // reads work
    gone,             // nothing works
};

class Faults {
  public:
    // The disk and the random numbers outlive it.
    Faults(SimDisk& disk, Random& random);
    Faults(const Faults&) = delete;
    Faults& operator=(const Faults&) = delete;

    // The sector fails reads, until they were so many, or until it is written.
    void fail_reads(std::uint64_t sector, Times times) { at(sector).read = times; }
    // It fails writes with @error, until they were so many; not yet the next @takes.
    void fail_writes(std::uint64_t sector, Times times, Times takes = 0, int error = -EIO) {
        Sector& s = at(sector);
        s.write = times;
        s.takes = takes;
        s.error = error;
    }
    // An error that says that it is not the media.
    int other_error();
    // It takes each write, but cannot be read then.
    void spoil(std::uint64_t sector) { at(sector).spoils = true; }
    bool spoils(std::uint64_t sector) const { return sectors_[sector].spoils; }
    void heal(std::uint64_t sector, std::uint64_t sectors);

    // The whole disk fails with @error, from the @in-th I/O from now on.
    void set_outage(Outage outage, int error, unsigned in = 0);
    // The same, of a disk that is pulled: after the I/O that fails first nothing gets there.
    void unplug(unsigned in) {
        set_outage(Outage::gone, -EIO, in);
        unplugged_ = true;
    }
    Outage outage() const { return outage_; }
    int outage_error() const { return outage_error_; }
    // From this sector on the disk refuses all I/O, with a target error. UINT64_MAX: it does not.
    void refuse_from(std::uint64_t sector) { refused_from_ = sector; }
    std::uint64_t refused_from() const { return refused_from_; }
    // So many flushes fail from now on, and lose some of what they are for.
    void fail_flushes(unsigned times) { flushes_to_fail_ = times; }
    bool flushes_fail() const { return flushes_to_fail_ != 0; }
    // As it is now it stays.
    bool steady() const { return outage_in_ == 0 && !flushes_fail(); }

    Times reads_to_fail(std::uint64_t sector) const;
    // Was it readable after the last write?
    bool readable(std::uint64_t sector) const { return sectors_[sector].read == 0; }
    Times writes_to_fail(std::uint64_t sector) const {
        return sector >= refused_from_ ? kForGood : sectors_[sector].write;
    }
    // Will the disk say of a write there that it refuses it?
    bool refuses_write(std::uint64_t sector) const {
        return writes_to_fail(sector) != 0 &&
               (sector >= refused_from_ || sectors_[sector].error == DM_REMAP_TARGET_ERROR);
    }
    // An error that may be the media's.
    int media_error();
    // Is it the media, if a write fails?
    bool by_media(std::uint64_t sector) const {
        return dm_remap_may_be_media(sectors_[sector].error);
    }
    // Has I/O there failed, as it does on bad media, since that was forgotten last?
    bool failed(std::uint64_t sector) const { return sectors_[sector].failed; }
    void forget_failures();
    bool any(std::uint64_t sector, std::uint64_t sectors) const;
    // Sectors that got a fault, the latest last; some may be good again.
    const std::vector<std::uint64_t>& faulty() const { return faulty_; }
    // The error of a flush, or 0. The disk may lose some of what @which says by it.
    int flush_error(const std::function<bool(std::uint64_t sector)>& which);

  private:
    // What is on the disk of a write that failed.
    enum class Landed { nothing, some, all };
    struct Sector {
        Times read = 0;
        Times write = 0;
        Times takes = 0;  // writes before those
        bool spoils = false;
        bool failed = false;
        int error = -EIO;  // of writes
    };

    Sector& at(std::uint64_t sector);
    void count_io();
    int read_error(std::uint64_t sector, std::uint32_t n);
    int write_error(std::uint64_t sector, std::uint32_t n);
    bool lands(std::uint64_t sector);
    void written(std::uint64_t sector, std::uint32_t n);
    int note_failed(std::uint64_t sector, std::uint32_t n, int error);

    SimDisk& disk_;
    Random& random_;
    std::vector<Sector> sectors_;
    std::vector<std::uint64_t> faulty_;
    Outage outage_ = Outage::none;
    int outage_error_ = 0;
    Outage next_outage_ = Outage::none;
    int next_error_ = 0;
    unsigned outage_in_ = 0;
    bool unplugged_ = false;
    bool pulled_ = false;  // and an I/O has failed since
    unsigned flushes_to_fail_ = 0;
    std::uint64_t refused_from_ = UINT64_MAX;
    bool write_failed_ = false;
    Landed landed_ = Landed::nothing;  // of that one
};

}  // namespace remap::sim

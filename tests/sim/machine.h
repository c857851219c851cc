// Two disks, a clock and a power supply; and the operations through which the core sees them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "core.h"
#include "faults.h"
#include "memory.h"
#include "random.h"
#include "sim_disk.h"
#include "stats.h"

extern "C" {
#include "dm-remap-manual.h"
}

namespace remap::sim {

class Machine {
  public:
    Machine(std::uint64_t main_sectors, std::uint64_t spare_sectors, Random& random, Stats& stats);

    int read(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n, void* buf);
    int write(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n, const void* buf,
              unsigned flags);
    int flush(dm_remap_dev dev);
    // FUA as this device has it, or has it not: with DM_REMAP_FUA_BY_FLUSH the flag means nothing.
    int write_fua(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n, const void* buf);
    // The flush behind a write of these sectors, which the kernel does where a device has no FUA.
    int flush_behind(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n);
    dm_remap_fua fua(dm_remap_dev dev) const { return fua_[dev]; }

    SimDisk& disk(dm_remap_dev dev) { return dev == DM_REMAP_MAIN ? main : spare; }
    Faults& faults(dm_remap_dev dev) { return dev == DM_REMAP_MAIN ? main_faults : spare_faults; }

    // The power fails in the middle of the @in-th write or flush from now. 0: not.
    void cut_power_in(unsigned in) { cut_in_ = in; }
    void cut_power();
    bool on() const { return on_; }
    // Back again, and what was not flushed is there or not.
    void power_on();
    // The spare alone was pulled, and is back.
    void plug_in_spare();

    // The write that the power failed in; of no length: it failed elsewhere.
    struct Interrupted {
        dm_remap_dev dev;
        std::uint64_t sector;
        std::uint32_t length;
    };
    Interrupted interrupted{};
    // Sectors of main that the power went in while the core wrote there on its own account.
    Interrupted destroyed{};
    // What each block of metadata on the spare was before it was written last.
    std::map<std::uint64_t, Image> before;
    bool patient = false;  // nobody interrupts what is done now
    unsigned without = 0;  // enum Without
    std::uint64_t time = 1'700'000'000;
    std::uint64_t main_end;  // behind its last sector today
    bool slow = false;       // a read that fails takes main a second

    // What the layer does where the core says so, and what others do while the core is at work.
    // None of them may throw.
    std::function<bool(std::uint64_t start, std::uint64_t length, bool wait)> drain;
    std::function<int(const dm_remap_job*)> wait_for_claim;
    std::function<void()> give_way;
    std::function<void()> flush_failed;
    // A flush behind a write with FUA loses no other sectors than this says. Nobody would ever hear
    // of them (docs/relocation.md).
    std::function<bool(dm_remap_dev, std::uint64_t)> may_lose;
    std::function<void()> meanwhile;
    // Does the core write there on its own account, and not what somebody is writing? A drive that
    // loses its power in such a write may destroy what was there.
    std::function<bool(std::uint64_t sector, std::uint32_t n)> on_its_own;
    // Called once, before I/O number @n from now on, counted from 0. @of_other: the I/O of the
    // other system's core counts, else that of the system that the history is about.
    void interject(bool of_other, std::uint64_t n, std::function<void()> what) {
        interjection_ = {of_other, n, std::move(what)};
    }
    std::function<void(dm_remap_note, std::uint64_t, std::uint64_t, std::int64_t)> note;

    SimDisk main;
    SimDisk spare;
    Faults main_faults;
    Faults spare_faults;
    Memory memory;

    // For the core; the context is the Machine. With the latter another system uses the spare.
    static const dm_remap_ops kOps;
    static const dm_remap_ops kOtherOps;

  private:
    struct Interjection {
        bool of_other = false;
        std::uint64_t left = 0;
        std::function<void()> what;
    };

    bool reaches(dm_remap_dev dev, std::uint64_t sector, std::uint32_t n) const;
    void keep_before(std::uint64_t sector, std::uint32_t n);
    // An event that the power may fail in. False: it has.
    bool survives();
    int flush_device(dm_remap_dev dev, const std::function<bool(std::uint64_t)>& may_lose);
    void io_of(bool other);
    void switch_on(SimDisk& disk);

    Random& random_;
    Stats& stats_;
    Interjection interjection_;
    unsigned cut_in_ = 0;
    bool core_writes_ = false;
    bool on_ = true;
    dm_remap_fua fua_[2] = {DM_REMAP_FUA_OWN, DM_REMAP_FUA_OWN};
};

}  // namespace remap::sim

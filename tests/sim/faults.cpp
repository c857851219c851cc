#include "faults.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

namespace remap::sim {

Faults::Faults(SimDisk& disk, Random& random)
    : disk_(disk), random_(random), sectors_(disk.sectors()) {
    disk.fail_read = [this](std::uint64_t sector, std::uint32_t n) {
        return read_error(sector, n);
    };
    disk.on_write = [this](std::uint64_t, std::uint64_t sector, std::uint32_t n) {
        return write_error(sector, n);
    };
    disk.lands = [this](std::uint64_t sector) { return lands(sector); };
    disk.after_write = [this](std::uint64_t sector, std::uint32_t n) { written(sector, n); };
}

Faults::Sector& Faults::at(std::uint64_t sector) {
    faulty_.push_back(sector);
    return sectors_[sector];
}

void Faults::heal(std::uint64_t sector, std::uint64_t n) {
    if (n == sectors_.size()) {
        flushes_to_fail_ = 0;
        refused_from_ = UINT64_MAX;
    }
    std::fill_n(sectors_.begin() + static_cast<std::ptrdiff_t>(sector), n, Sector{});
    std::erase_if(faulty_, [&](std::uint64_t s) { return s >= sector && s < sector + n; });
}

void Faults::set_outage(Outage outage, int error, unsigned in) {
    outage_in_ = in;
    unplugged_ = pulled_ = false;
    next_outage_ = outage;
    next_error_ = error;
    if (in == 0) {
        outage_ = outage;
        outage_error_ = error;
    }
}

int Faults::other_error() {
    static constexpr int kErrors[] = {-ENODEV, -ETIMEDOUT, -ENOLINK,   -EBADE,
                                      -ENOSPC, -EILSEQ,    -EOPNOTSUPP};
    return kErrors[random_.below(std::size(kErrors))];
}

int Faults::media_error() {
    static constexpr int kErrors[] = {-EIO, -ENODATA, DM_REMAP_TARGET_ERROR};
    return kErrors[random_.below(std::size(kErrors))];
}

int Faults::note_failed(std::uint64_t sector, std::uint32_t n, int error) {
    for (std::uint64_t s = sector; dm_remap_may_be_media(error) && s < sector + n; s++) {
        sectors_[s].failed = true;
    }
    return error;
}

void Faults::count_io() {
    if (outage_in_ != 0 && --outage_in_ == 0) {
        outage_ = next_outage_;
        outage_error_ = next_error_;
    }
}

Times Faults::reads_to_fail(std::uint64_t sector) const {
    return sectors_[sector].spoils || sector >= refused_from_ ? kForGood : sectors_[sector].read;
}

bool Faults::any(std::uint64_t sector, std::uint64_t n) const {
    for (std::uint64_t s = sector; s < sector + n; s++) {
        if (writes_to_fail(s) != 0 || reads_to_fail(s) != 0) {
            return true;
        }
    }
    return false;
}

// One try: does it fail?
static bool use_up(Times& times) {
    if (times == 0 || times == kForGood) {
        return times != 0;
    }
    times--;
    return true;
}

int Faults::read_error(std::uint64_t sector, std::uint32_t n) {
    count_io();
    if (outage_ == Outage::gone) {
        return note_failed(sector, n, outage_error_);
    }
    if (sector + n > refused_from_) {
        return note_failed(sector, n, DM_REMAP_TARGET_ERROR);
    }
    bool bad = false;
    for (std::uint64_t s = sector; s < sector + n; s++) {
        bad |= use_up(sectors_[s].read);
    }
    return bad ? note_failed(sector, n, media_error()) : 0;
}

int Faults::write_error(std::uint64_t sector, std::uint32_t n) {
    count_io();
    write_failed_ = true;
    landed_ = pulled_ ? Landed::nothing : static_cast<Landed>(random_.below(3));
    if (outage_ != Outage::none) {
        pulled_ = unplugged_;
        return note_failed(sector, n, outage_error_);
    }
    if (sector + n > refused_from_) {
        landed_ = Landed::nothing;
        return note_failed(sector, n, DM_REMAP_TARGET_ERROR);
    }
    int error = 0;
    for (std::uint64_t s = sector; s < sector + n; s++) {
        if (sectors_[s].takes != 0) {
            sectors_[s].takes--;
        } else if (use_up(sectors_[s].write)) {
            error = sectors_[s].error;
        }
    }
    write_failed_ = error != 0;
    return note_failed(sector, n, error);
}

// Of a write that failed.
bool Faults::lands(std::uint64_t sector) {
    if (outage_ == Outage::write_protected || sectors_[sector].write == kForGood) {
        return false;
    }
    return landed_ == Landed::all || (landed_ == Landed::some && random_.coin());
}

void Faults::written(std::uint64_t sector, std::uint32_t n) {
    if (write_failed_) {
        return;
    }
    for (std::uint64_t s = sector; s < sector + n; s++) {
        sectors_[s].read = sectors_[s].spoils ? kForGood : 0;
    }
}

void Faults::forget_failures() {
    for (Sector& s : sectors_) {
        s.failed = false;
    }
}

int Faults::flush_error(const std::function<bool(std::uint64_t sector)>& which) {
    count_io();
    const int error = outage_ == Outage::gone ? outage_error_ : flushes_to_fail_ != 0 ? -EIO : 0;
    for (std::uint64_t s = 0; error != 0 && s < sectors_.size(); s++) {
        if (which(s)) {
            note_failed(s, 1, error);
        }
    }
    if (outage_ == Outage::gone || error == 0) {
        return error;
    }
    flushes_to_fail_--;
    const bool all = random_.coin();
    disk_.lose([&](std::uint64_t sector) { return which(sector) && (all || random_.coin()); });
    return error;
}

}  // namespace remap::sim

#include "sim_disk.h"

#include <algorithm>
#include <cerrno>

namespace remap {

bool SimDisk::any(const std::set<std::uint64_t>& bad, std::uint64_t sector, std::uint32_t n) const {
    auto it = bad.lower_bound(sector);
    return it != bad.end() && *it < sector + n;
}

int SimDisk::read(std::uint64_t sector, std::uint32_t n, void* buf) {
    if (on_read) {
        on_read(sector, n);
    }
    if (!on_ || n == 0 || sector + n > sectors() || any(bad_read, sector, n)) {
        return -EIO;
    }
    want_memory();
    std::memcpy(buf, current_.data() + sector * kSector, std::size_t{n} * kSector);
    return 0;
}

void SimDisk::put(std::uint64_t sector, std::uint32_t n, const std::uint8_t* data, bool fua) {
    if (fua) {
        std::erase_if(unflushed_, [&](const Unflushed& u) {
            return u.sector >= sector && u.sector < sector + n;
        });
        std::memcpy(durable_.data() + sector * kSector, data, std::size_t{n} * kSector);
    } else {
        for (std::uint32_t i = 0; i < n; i++) {
            Unflushed u{writes_, sector + i, {}};
            std::memcpy(u.data.data(), data + std::size_t{i} * kSector, kSector);
            unflushed_.push_back(u);
        }
    }
    std::memcpy(current_.data() + sector * kSector, data, std::size_t{n} * kSector);
}

int SimDisk::write(std::uint64_t sector, std::uint32_t n, const void* buf, unsigned flags) {
    const auto* data = static_cast<const std::uint8_t*>(buf);

    if (!on_ || n == 0 || sector + n > sectors()) {
        return -EIO;
    }
    want_memory();
    if (writes_ == power_off_at_) {
        preflush_interrupted_ = (flags & DM_REMAP_PREFLUSH) != 0;
        put(sector, n, data, false);
        writes_++;
        on_ = false;
        return -EIO;
    }
    int error = on_write ? on_write(writes_, sector, n) : 0;
    if (any(bad_write, sector, n)) {
        error = -EIO;
    }
    if (error != 0 && !failed_writes_land) {
        writes_++;
        return error;
    }
    if ((flags & DM_REMAP_PREFLUSH) != 0) {
        make_durable();
    }
    put(sector, n, data, (flags & DM_REMAP_FUA) != 0);
    writes_++;
    if (rewrite_heals && error == 0) {
        for (std::uint32_t i = 0; i < n; i++) {
            bad_read.erase(sector + i);
        }
    }
    if (after_write) {
        after_write(sector, n);
    }
    return error;
}

void SimDisk::make_durable() {
    for (const Unflushed& u : unflushed_) {
        std::copy(u.data.begin(), u.data.end(), durable_.begin() + u.sector * kSector);
    }
    unflushed_.clear();
}

int SimDisk::flush() {
    if (!on_) {
        return -EIO;
    }
    make_durable();
    return 0;
}

void SimDisk::poke(std::uint64_t sector, std::span<const std::uint8_t> bytes) {
    want_memory();
    std::copy(bytes.begin(), bytes.end(), current_.begin() + sector * kSector);
    std::copy(bytes.begin(), bytes.end(), durable_.begin() + sector * kSector);
}

void SimDisk::flip(std::uint64_t byte, unsigned bit) {
    want_memory();
    current_[byte] ^= 1U << bit;
    durable_[byte] ^= 1U << bit;
}

void SimDisk::resize(std::uint64_t sectors) {
    make_durable();
    sectors_ = sectors;
    want_memory();
}

void SimDisk::restore(const Image& image) {
    unflushed_.clear();
    sectors_ = image.size() / kSector;
    current_ = image;
    durable_ = image;
    on_ = true;
    preflush_interrupted_ = false;
    power_off_at_ = UINT64_MAX;
}

std::vector<std::uint64_t> SimDisk::unflushed_writes() const {
    std::vector<std::uint64_t> all;
    for (const Unflushed& u : unflushed_) {
        if (all.empty() || all.back() != u.write) {
            all.push_back(u.write);
        }
    }
    return all;
}

bool SimDisk::survives_preflush(const std::vector<bool>& kept) const {
    for (std::size_t i = 0; i < kept.size(); i++) {
        if (kept[i] && unflushed_[i].write == unflushed_.back().write) {
            return true;
        }
    }
    return false;
}

void SimDisk::power_on(const std::function<bool(std::uint64_t write, std::uint64_t sector)>& keep) {
    std::vector<bool> kept;
    for (const Unflushed& u : unflushed_) {
        kept.push_back(keep(u.write, u.sector));
    }
    const bool flushed = preflush_interrupted_ && survives_preflush(kept);
    for (std::size_t i = 0; i < kept.size(); i++) {
        const Unflushed& u = unflushed_[i];
        if (kept[i] || (flushed && u.write != unflushed_.back().write)) {
            std::copy(u.data.begin(), u.data.end(), durable_.begin() + u.sector * kSector);
        }
    }
    unflushed_.clear();
    preflush_interrupted_ = false;
    current_ = durable_;
    on_ = true;
    power_off_at_ = UINT64_MAX;
}

}  // namespace remap

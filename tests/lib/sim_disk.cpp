#include "sim_disk.h"

#include <algorithm>
#include <cerrno>

namespace remap {

bool SectorSet::any(std::uint64_t sector, std::uint32_t n) const {
    if (count_ == 0) {
        return false;
    }
    for (std::uint64_t s = sector; s < sector + n && s < in_.size(); s++) {
        if (in_[s]) {
            return true;
        }
    }
    return false;
}

int SimDisk::read(std::uint64_t sector, std::uint32_t n, void* buf) {
    if (on_read) {
        on_read(sector, n);
    }
    if (!on_ || n == 0 || sector + n > sectors() || bad_read.any(sector, n)) {
        return -EIO;
    }
    const int error = fail_read ? fail_read(sector, n) : 0;
    if (error != 0) {
        return error;
    }
    want_memory();
    if (!place) {
        std::memcpy(buf, at(current_, sector), std::size_t{n} * kSector);
        return 0;
    }
    for (std::uint32_t i = 0; i < n; i++) {
        std::memcpy(static_cast<std::uint8_t*>(buf) + std::size_t{i} * kSector,
                    at(current_, place(sector + i)), kSector);
    }
    return 0;
}

// What is durable now must not be undone by older writes that were not.
void SimDisk::supersede(std::uint64_t sector, std::uint32_t n) {
    bool any = false;
    for (std::uint64_t s = sector; s < sector + n; s++) {
        any = any || unflushed_of_[s] != 0;
        unflushed_of_[s] = 0;
    }
    if (any) {
        std::erase_if(unflushed_, [&](const Unflushed& u) {
            return u.sector >= sector && u.sector < sector + n;
        });
    }
}

void SimDisk::put(std::uint64_t sector, std::uint32_t n, const std::uint8_t* data, bool fua) {
    if (!drops && !place) {
        put_truly(sector, n, data, fua);
        return;
    }
    for (std::uint32_t i = 0; i < n; i++) {
        if (!drops || !drops(sector + i)) {
            put_truly(place ? place(sector + i) : sector + i, 1, data + std::size_t{i} * kSector,
                      fua);
        }
    }
}

void SimDisk::put_truly(std::uint64_t sector, std::uint32_t n, const std::uint8_t* data, bool fua) {
    if (fua) {
        supersede(sector, n);
        std::memcpy(at(durable_, sector), data, std::size_t{n} * kSector);
    } else {
        for (std::uint32_t i = 0; i < n; i++) {
            Unflushed& u = unflushed_.emplace_back();
            u.write = writes_;
            u.sector = sector + i;
            std::memcpy(u.data.data(), data + std::size_t{i} * kSector, kSector);
            unflushed_of_[u.sector]++;
        }
    }
    std::memcpy(at(current_, sector), data, std::size_t{n} * kSector);
}

void SimDisk::put_failed(std::uint64_t sector, std::uint32_t n, const std::uint8_t* data,
                         bool fua) {
    for (std::uint32_t i = 0; i < n; i++) {
        if (lands ? lands(sector + i) : failed_writes_land) {
            put(sector + i, 1, data + std::size_t{i} * kSector, fua);
        }
    }
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
    if (bad_write.any(sector, n)) {
        error = -EIO;
    }
    if (error != 0 && !lands && !failed_writes_land) {
        writes_++;
        return error;
    }
    if ((flags & DM_REMAP_PREFLUSH) != 0) {
        make_durable();
    }
    const bool fua = (flags & DM_REMAP_FUA) != 0;
    if (error == 0) {
        put(sector, n, data, fua);
    } else {
        put_failed(sector, n, data, fua);
    }
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
        if (unflushed_of_[u.sector] != 0) {
            std::memcpy(at(durable_, u.sector), at(current_, u.sector), kSector);
            unflushed_of_[u.sector] = 0;
        }
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

void SimDisk::lose(const std::function<bool(std::uint64_t sector)>& which) {
    for (const Unflushed& u : unflushed_) {
        if (unflushed_of_[u.sector] != 0 && which(u.sector)) {
            unflushed_of_[u.sector] = 0;
            lost_.push_back(u.sector);
        }
    }
    std::erase_if(unflushed_, [&](const Unflushed& u) { return unflushed_of_[u.sector] == 0; });
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
    lost_.clear();
    sectors_ = image.size() / kSector;
    current_ = image;
    durable_ = image;
    unflushed_of_.assign(sectors_, 0);
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
    // Elsewhere the two are equal.
    for (const Unflushed& u : unflushed_) {
        std::memcpy(at(current_, u.sector), at(durable_, u.sector), kSector);
        unflushed_of_[u.sector] = 0;
    }
    for (const std::uint64_t s : lost_) {
        std::memcpy(at(current_, s), at(durable_, s), kSector);
    }
    unflushed_.clear();
    lost_.clear();
    preflush_interrupted_ = false;
    on_ = true;
    power_off_at_ = UINT64_MAX;
}

}  // namespace remap

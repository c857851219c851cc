#include "model.h"

#include <algorithm>

namespace remap::sim {

Model::Model(std::uint32_t sectors)
    : sectors_(sectors, {{1, true, 1, 1, 0, 0}}), is_open_(sectors) {}

Model::Candidate* Model::find(std::uint32_t sector, WriteId id) {
    for (Candidate& c : sectors_[sector]) {
        if (c.id == id) {
            return &c;
        }
    }
    return nullptr;
}

WriteId Model::begin(std::uint32_t start, std::uint32_t n) {
    const WriteId id = ++last_;
    const std::uint64_t begun = now();
    for (std::uint32_t s = start; s < start + n; s++) {
        sectors_[s].push_back({id, false, begun, 0, 0, 0});
        if (!is_open_[s]) {
            is_open_[s] = true;
            open_.push_back(s);
        }
    }
    return id;
}

void Model::acknowledge(std::uint32_t sector, WriteId id, bool durable) {
    Candidate* c = find(sector, id);
    const std::uint64_t at = now();
    c->ended = at;
    c->acknowledged = durable || !c->in_doubt;
    for (Candidate& o : sectors_[sector]) {
        if (o.ended == 0 || o.ended > c->begun || o.id == id) {
            continue;
        }
        o.overwritten = o.overwritten == 0 ? at : o.overwritten;
        if (durable && o.unreachable == 0) {
            o.unreachable = at;
        }
    }
}

void Model::fail(std::uint32_t sector, WriteId id) {
    find(sector, id)->ended = now();
    doubt(sector);
}

void Model::flushed(std::uint64_t since) {
    for (const std::uint32_t s : open_) {
        std::uint64_t begun = 0;  // of the latest write that the flush covers
        for (const Candidate& c : sectors_[s]) {
            if (c.acknowledged && c.ended < since) {
                begun = std::max(begun, c.begun);
            }
        }
        for (Candidate& c : sectors_[s]) {
            if (c.unreachable == 0 && c.ended != 0 && c.ended < since &&
                ((c.overwritten != 0 && c.overwritten < since && !c.in_doubt) || c.ended < begun)) {
                c.unreachable = since;
            }
        }
    }
}

void Model::doubt(std::uint32_t sector) {
    for (Candidate& c : sectors_[sector]) {
        if (c.unreachable == 0) {
            c.overwritten = 0;
            c.acknowledged = false;
            c.in_doubt = true;
        }
    }
}

void Model::flush_failed() {
    for (const std::uint32_t s : open_) {
        doubt(s);
    }
}

void Model::flush_of_others_failed() {
    for (const std::uint32_t s : open_) {
        const Sector& sector = sectors_[s];
        if (std::any_of(sector.begin(), sector.end(), [](auto& c) { return c.ended == 0; })) {
            doubt(s);
        }
    }
}

bool Model::seen(std::uint32_t sector, WriteId id, std::uint64_t since) {
    const Candidate* c = find(sector, id);
    if (c == nullptr || (c->overwritten != 0 && c->overwritten < since)) {
        return false;
    }
    if (c->overwritten != 0) {
        return true;
    }
    const std::uint64_t at = now();
    for (Candidate& o : sectors_[sector]) {
        if (o.id != id && o.overwritten == 0 && o.ended != 0 && o.ended < since) {
            o.overwritten = at;
            o.in_doubt = o.in_doubt || !c->acknowledged;
        }
    }
    return true;
}

bool Model::seen_durable(std::uint32_t sector, WriteId id) {
    const Candidate* c = find(sector, id);
    if (c == nullptr || c->unreachable != 0) {
        return false;
    }
    std::erase_if(sectors_[sector], [id](const Candidate& o) { return o.id != id; });
    sectors_[sector].front().overwritten = 0;
    sectors_[sector].front().in_doubt = false;
    return true;
}

void Model::power_cut() {
    const std::uint64_t at = now();
    for (const std::uint32_t s : open_) {
        std::erase_if(sectors_[s], [](const Candidate& c) { return c.unreachable != 0; });
        for (Candidate& c : sectors_[s]) {
            c.overwritten = 0;
            c.in_doubt = false;
            c.acknowledged = false;  // no flush to come can save what is lost
            c.ended = c.ended == 0 ? at : c.ended;
        }
    }
}

void Model::cache_lost() {
    for (const std::uint32_t s : open_) {
        for (Candidate& c : sectors_[s]) {
            if (c.unreachable == 0) {
                c.overwritten = 0;
            }
        }
    }
}

void Model::forget_before(std::uint64_t time) {
    for (const std::uint32_t s : open_) {
        std::erase_if(sectors_[s], [time](const Candidate& c) {
            return c.unreachable != 0 && c.unreachable < time && c.overwritten < time;
        });
        is_open_[s] = sectors_[s].size() > 1;
    }
    std::erase_if(open_, [&](std::uint32_t s) { return !is_open_[s]; });
}

std::string Model::candidates(std::uint32_t sector) const {
    std::string all;
    for (const Candidate& c : sectors_[sector]) {
        all += " " + std::to_string(c.id);
        if (c.unreachable != 0) {
            all += " (overwritten for good)";
        } else if (c.overwritten != 0) {
            all += " (overwritten)";
        } else if (c.ended == 0) {
            all += " (on its way)";
        }
    }
    return all;
}

}  // namespace remap::sim

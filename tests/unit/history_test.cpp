// Random histories: everything that a device does in its life, with writes of the spare that fail
// and power that goes, against a model of what was acknowledged. Seeded: a failure names its seed.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kMain = 192;

class History {
  public:
    explicit History(std::uint32_t seed) : random_(seed), g_(1U << seed % 4) {
        const Shape shape{
            .main_sectors = kMain, .spare_sectors = 1024, .granularity = g_, .max_records = 100};
        world_ = formatted(shape);
        world_->main.rewrite_heals = true;
        for (std::uint64_t s = 0; s < kMain; s++) {
            acknowledged_.push_back({0});
        }
        world_->main.poke(0, Image(kMain * kSector));
        md_ = open(*world_);
        random_faults();
    }

    void run(unsigned steps) {
        for (unsigned i = 0; i < steps && !testing::Test::HasFailure(); i++) {
            SCOPED_TRACE(testing::Message() << "step " << i << " " << last_);
            step();
            if (world_->spare.is_on()) {
                check();
            } else {
                crash();
            }
        }
        world_->spare.on_write = nullptr;
        crash();
    }

    unsigned crashes() const { return crashes_; }
    unsigned relocations() const { return relocations_; }

  private:
    std::uint64_t any(std::uint64_t n) { return random_() % n; }

    std::pair<std::uint64_t, std::uint64_t> any_range() {
        const std::uint64_t blocks = kMain / g_;
        const std::uint64_t start = any(blocks);
        const std::uint64_t length = 1 + any(std::min<std::uint64_t>(blocks - start, 12));
        return {start * g_, length * g_};
    }

    // Now and then a write of the spare fails, having landed or not.
    void random_faults() {
        world_->spare.on_write = [this](auto, auto, auto) {
            world_->spare.failed_writes_land = any(2) != 0;
            if (failing_ > 0) {
                failing_--;
                return -EIO;
            }
            return any(400) == 0 ? -EIO : 0;
        };
    }

    void step() {
        const auto [start, length] = any_range();
        dm_remap_moved moved{};
        switch (any(16)) {
            case 0:
            case 1:
            case 2:
                last_ = "remap";
                (*md_)->policy.read_retries = any(2);
                relocations_ += dm_remap_remap(md_->get(), start, length, &moved) == 0;
                break;
            case 3:
            case 4:
                last_ = "unremap";
                dm_remap_unremap(md_->get(), start, length, &moved);
                break;
            case 5:
                last_ = "forget";
                dm_remap_forget(md_->get(), start, length, &moved);
                break;
            case 6:
            case 7:
            case 8:
                last_ = "write";
                write(start, length);
                break;
            case 9:
                last_ = "bad sector";
                world_->main.bad_read.insert(start);
                break;
            case 10:
                last_ = "save";
                dm_remap_save(md_->get());
                break;
            case 11:
                last_ = "autosave";
                dm_remap_count(md_->get(), DM_REMAP_READ_ERRORS, any(2));
                dm_remap_autosave(md_->get());
                break;
            case 12: {
                last_ = "restore";
                bool healed = false;
                dm_remap_restore(md_->get(), world_->spare.sectors(), &healed);
                break;
            }
            case 13:
                last_ = "suspend and resume";
                md_->deactivate();
                dm_remap_activate(md_->get(), nullptr, nullptr);
                break;
            case 14:
                last_ = "failures to come";
                failing_ = 1 + any(6);
                break;
            default:
                last_ = "power failure to come";
                world_->spare.power_off_at_write(world_->spare.writes() + any(12));
        }
    }

    // A write to the mapped device, one block at a time, flushed.
    void write(std::uint64_t start, std::uint64_t length) {
        for (std::uint64_t at = start; at < start + length; at += g_) {
            const std::uint8_t value = ++value_;
            const Image data(std::size_t{g_} * kSector, value);
            const dm_remap_extent e = md_->lookup(at, g_);
            ASSERT_EQ(e.length, g_);
            int error = -EIO;
            if ((e.flags & DM_REMAP_F_DOUBT) != 0) {
                continue;
            }
            if (e.kind == DM_REMAP_MAPPED) {
                error = world_->spare.write(e.spare, g_, data.data(), DM_REMAP_FUA);
            } else if (e.kind == DM_REMAP_NONE) {
                error = world_->main.write(at, g_, data.data(), DM_REMAP_FUA);
            } else {
                Mover mover(*md_);
                dm_remap_redo_begin(mover.get());
                error = dm_remap_redo_write(mover.get(), at, g_, data.data(), nullptr);
                const int committed = dm_remap_redo_end(mover.get());
                error = error != 0 ? error : committed;
            }
            for (std::uint64_t s = at; s < at + g_; s++) {
                if (error == 0) {
                    acknowledged_[s] = {value};
                } else {  // one or the other
                    acknowledged_[s].insert(value);
                }
            }
        }
    }

    // Every read of the mapped device returns what was acknowledged, or fails.
    void check() {
        Sector data;
        for (std::uint64_t s = 0; s < kMain; s++) {
            const dm_remap_extent e = md_->lookup(s);
            ASSERT_EQ(e.flags & DM_REMAP_F_HELD, 0) << s;
            if ((e.flags & DM_REMAP_F_DOUBT) != 0) {
                continue;
            }
            const int error = e.kind == DM_REMAP_MAPPED
                                  ? world_->spare.read(e.spare, 1, data.data())
                                  : world_->main.read(s, 1, data.data());
            if (e.kind == DM_REMAP_MAPPED) {
                ASSERT_EQ(error, 0);
            }
            // A failed write to a mapped block may have torn it; the values are whole sectors.
            if (error == 0) {
                ASSERT_TRUE(acknowledged_[s].count(data[0]))
                    << "sector " << s << " " << dm_remap_kind_name(e.kind) << " reads "
                    << unsigned{data[0]};
                ASSERT_EQ(data, (Sector{[&] {
                              Sector all;
                              all.fill(data[0]);
                              return all;
                          }()}));
            }
        }
        check_retired_and_free();
    }

    // Each sector of the spare is free, or of one record, or kept for a commit in doubt.
    void check_retired_and_free() {
        std::uint64_t used = 0;
        for (const Record& r : md_->records()) {
            used += r.kind == DM_REMAP_PENDING ? 0 : r.length;
        }
        const std::uint64_t taken = dm_remap_alloc_total_sectors(&(*md_)->alloc) -
                                    dm_remap_alloc_free_sectors(&(*md_)->alloc);
        ASSERT_GE(taken, used);
        if ((*md_)->doubt == nullptr && leak_free_) {
            ASSERT_EQ(taken, used) << "sectors of the spare have been lost";
        }
    }

    // The power goes and comes back. What was published before is there again.
    void crash() {
        std::map<std::uint64_t, dm_remap_extent> published;
        for (std::uint64_t s = 0; s < kMain; s++) {
            const dm_remap_extent e = md_->lookup(s);
            if ((e.flags & DM_REMAP_F_DOUBT) == 0) {
                published[s] = e;
            }
        }
        const Records before = md_->records();
        md_.reset();
        const std::uint64_t keep = any(4);
        for (SimDisk* disk : {&world_->main, &world_->spare}) {
            disk->power_off();
            disk->power_on([&](auto, auto) { return keep == 0 || (keep != 1 && any(2) != 0); });
        }
        // The first thing that happens may be another failure.
        failing_ = any(8) == 0 ? any(6) : 0;
        if (any(8) == 0) {
            world_->spare.power_off_at_write(world_->spare.writes() + any(12));
        }
        md_ = std::make_unique<Metadata>(*world_);
        ASSERT_EQ(md_->load(), 0) << md_->report.refusal << " after " << last_;
        ASSERT_EQ(md_->activate(), 0);
        for (const auto& [s, e] : published) {
            const dm_remap_extent now = md_->lookup(s);
            ASSERT_EQ(now.kind, e.kind) << "sector " << s << " after " << last_;
            ASSERT_TRUE(e.kind != DM_REMAP_MAPPED || now.spare == e.spare) << s;
        }
        const Records after = md_->records();
        for (const Record& r : before) {
            if (r.kind == DM_REMAP_RETIRED) {
                ASSERT_TRUE(std::any_of(after.begin(), after.end(), [&](const Record& a) {
                    return a.kind == DM_REMAP_RETIRED && a.spare <= r.spare &&
                           r.spare + r.length <= a.spare + a.length;
                })) << r;
            }
        }
        crashes_++;
        if (world_->spare.is_on()) {
            check();
        }
    }

    std::mt19937 random_;
    std::uint32_t g_;
    std::unique_ptr<World> world_;
    std::unique_ptr<Metadata> md_;
    std::vector<std::set<std::uint8_t>> acknowledged_;
    std::string last_;
    std::uint8_t value_ = 0;
    std::uint64_t failing_ = 0;
    bool leak_free_ = true;
    unsigned crashes_ = 0;
    unsigned relocations_ = 0;
};

class RandomHistory : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(RandomHistory, NothingAcknowledgedIsLost) {
    History history(GetParam());
    history.run(1500);
    EXPECT_GT(history.crashes(), 20U);
    EXPECT_GT(history.relocations(), 20U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomHistory, ::testing::Range(0U, 8U));

}  // namespace
}  // namespace remap

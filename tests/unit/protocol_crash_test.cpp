// The rules of the protocol (docs/on-disk-format.md names these tests): work that the power fails
// in.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "protocol.h"

namespace remap {
namespace {

// ---- checkpoints and crashes ----

// Plays @work with the power failing at each of its writes in turn, and with each set of unflushed
// writes surviving (of many: a sample), whole or torn by sectors. @check judges what is left.
void crash_everywhere(const std::function<std::unique_ptr<World>()>& make,
                      const std::function<std::function<void()>(World&)>& prepare,
                      const std::function<void(World&)>& check) {
    std::mt19937 random(42);
    for (std::uint64_t n = 0;; n++) {
        auto world = make();
        std::function<void()> work = prepare(*world);
        const std::uint64_t from = world->spare.writes();
        world->spare.power_off_at_write(from + n);
        work();
        const bool crashed = !world->spare.is_on();
        work = nullptr;
        world->spare.power_off();
        const std::vector<std::uint64_t> writes = world->spare.unflushed_writes();
        const SimDisk at_crash = world->spare;
        const bool all = writes.size() <= 5;
        for (unsigned mask = 0; mask < (all ? 1U << writes.size() : 64U); mask++) {
            SCOPED_TRACE(testing::Message() << "write " << n << ", set " << mask);
            world->spare = at_crash;
            world->spare.power_on([&](std::uint64_t write, std::uint64_t) {
                const auto i = std::find(writes.begin(), writes.end(), write) - writes.begin();
                return all ? (mask >> i & 1) != 0 : random() % 2 != 0;
            });
            check(*world);
            world->spare = at_crash;
            world->spare.power_on([&](auto, auto) { return random() % 2 != 0; });
            check(*world);
            if (testing::Test::HasFailure()) {
                return;
            }
        }
        if (!crashed) {
            break;
        }
    }
}

// Loads, activates, commits once more, and loads again.
void expect_alive(World& world, const Records& expected) {
    const Loaded loaded = try_load(world);
    ASSERT_EQ(loaded.error, 0) << loaded.why;
    EXPECT_EQ(loaded.records, expected);
    auto md = open(world);
    ASSERT_EQ(md->remap(60'000), 0);
    EXPECT_EQ(try_load(world).records, md->records());
}

// @work, begun right after a commit, loses nothing wherever it stops.
void expect_to_lose_nothing(int (Metadata::*work)()) {
    Records expected;
    crash_everywhere(
        world_with_records,
        [&](World& world) -> std::function<void()> {
            std::shared_ptr<Metadata> md = open(world);
            EXPECT_EQ(md->remap(300), 0);
            expected = md->records();
            return [md, work] { ((*md).*work)(); };
        },
        [&](World& world) { expect_alive(world, expected); });
}

TEST(ProtocolCrash, CheckpointLosesNothingWhereverItStops) {
    expect_to_lose_nothing(&Metadata::checkpoint);
}

TEST(ProtocolCrash, OrderlyStopLosesNothingWhereverItStops) {
    expect_to_lose_nothing(&Metadata::deactivate);
}

// Commits that come while the checkpoint writes its table: start and snapshot are of one moment.
TEST(ProtocolCrash, CommitsDuringACheckpointAreNotLost) {
    Records expected;
    std::shared_ptr<Metadata> md;
    crash_everywhere(
        world_with_records,
        [&](World& world) -> std::function<void()> {
            md = open(world);
            expected = md->records();
            return [&world, &md] {
                bool inside = false;
                std::uint64_t main = 1000;
                // Before each write of the checkpoint; only such commits as need no checkpoint
                // themselves, which would wait for this one.
                world.spare.on_write = [&](auto, auto, auto) {
                    if (!inside && world.spare.writes_until_power_off() > 2) {
                        inside = true;
                        EXPECT_EQ(md->commit({pending(main += 2)}), 0);
                        inside = false;
                    }
                    return 0;
                };
                md->checkpoint();
                world.spare.on_write = nullptr;
            };
        },
        [&](World& world) {
            // What was published is there; one more may have been on its way.
            const Loaded loaded = try_load(world);
            ASSERT_EQ(loaded.error, 0) << loaded.why;
            for (const Record& r : md->records()) {
                EXPECT_TRUE(std::count(loaded.records.begin(), loaded.records.end(), r)) << r;
            }
            EXPECT_LE(loaded.records.size(), md->records().size() + 1);
        });
    md.reset();
}

TEST(ProtocolCrash, ActivationLosesNothingWhereverItStops) {
    Records expected;
    for (bool damaged : {false, true}) {
        crash_everywhere(
            [&] {
                auto world = world_with_records();
                expected = try_load(*world).records;
                if (damaged) {  // then it writes a table, too
                    zero_block(*world, journal_at(*world, 1, kFirst + 1));
                    zero_block(*world, 0);
                }
                return world;
            },
            [&](World& world) -> std::function<void()> {
                auto md = std::make_shared<Metadata>(world);
                EXPECT_EQ(md->load(), 0);
                return [md] { md->activate(); };
            },
            [&](World& world) { expect_alive(world, expected); });
    }
}

TEST(ProtocolCrash, CommitIsThereOrNotWhereverItStops) {
    Records before;
    bool acknowledged = false;
    std::uint64_t spare = 0;
    crash_everywhere(
        world_with_records,
        [&](World& world) -> std::function<void()> {
            std::shared_ptr<Metadata> md = open(world);
            before = md->records();
            acknowledged = false;
            return [&, md] { acknowledged = md->remap(300) == 0; };
        },
        [&](World& world) {
            const Loaded loaded = try_load(world);
            ASSERT_EQ(loaded.error, 0) << loaded.why;
            const bool there = loaded.records != before;
            EXPECT_TRUE(there || !acknowledged);
            for (const Record& r : loaded.records) {
                if (r.main == 300) {
                    spare = r.spare;
                    const auto data = world.spare.peek(spare, 1);
                    EXPECT_TRUE(std::equal(data.begin(), data.end(), pattern(300, 1).begin()));
                }
            }
            // And from then on it is what it was found to be.
            { open(world); }
            EXPECT_EQ(try_load(world).records, loaded.records);
        });
}

// A crash in the middle of a format leaves what is refused, or a spare that is formatted: never
// one that would start afresh in silence, and never the old table with parts of it gone.
TEST(ProtocolCrash, HalfFinishedFormatIsRefused) {
    Records old;
    for (bool over_another : {false, true}) {
        const Shape shape{.spare_sectors = 1024};
        crash_everywhere(
            [&] {
                auto world = over_another ? world_with_records() : make_world(shape);
                old = over_another ? try_load(*world).records : Records{};
                return world;
            },
            [&](World& world) -> std::function<void()> {
                return [&] { format(world, shape, 0x77); };
            },
            [&](World& world) {
                const Loaded loaded = try_load(world);
                if (loaded.error == 0) {
                    const bool is_new = super_at(world, 1).uuid[0] == 0x77;
                    EXPECT_EQ(loaded.records, is_new ? Records{} : old);
                    EXPECT_TRUE(!is_new || super_at(world, 1).generation == 1);
                } else if (over_another) {
                    EXPECT_NE(loaded.why.find("half formatted"), std::string::npos) << loaded.why;
                }
            });
    }
    auto world = make_world();
    cut_power_at(*world, 4, [&] { EXPECT_NE(format(*world, {}), 0); });
    const Loaded loaded = try_load(*world);
    EXPECT_EQ(loaded.error, -EUCLEAN);
    EXPECT_NE(loaded.why.find("format --force"), std::string::npos) << loaded.why;
}

}  // namespace
}  // namespace remap

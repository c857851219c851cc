// Two systems that use one spare at the same time. Two hosts may share a disk, and a machine may be
// resumed from hibernation after its initramfs has used the spare. Each is a struct
// dm_remap_metadata over the same simulated disk.
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <random>
#include <thread>

#include "protocol.h"

namespace remap {
namespace {

// While it lives, step() comes before each I/O of the spare.
class EachIo {
  public:
    explicit EachIo(World& world) : world_(world) {
        world.spare.on_read = [this](auto, auto) { step(); };
        world.spare.on_write = [this](auto, auto, auto) {
            step();
            return 0;
        };
    }
    virtual ~EachIo() {
        world_.spare.on_read = nullptr;
        world_.spare.on_write = nullptr;
    }
    EachIo(const EachIo&) = delete;
    EachIo& operator=(const EachIo&) = delete;

  private:
    virtual void step() = 0;

    World& world_;
};

// Calls @what before I/O number @n of the spare from now on (counted from 0), once. The I/O of
// @what is not counted.
class Stop : public EachIo {
  public:
    Stop(World& world, std::uint64_t n, std::function<void()> what)
        : EachIo(world), left_(n), what_(std::move(what)) {}

    [[nodiscard]] bool happened() const { return happened_; }

  private:
    void step() override {
        if (happened_ || left_-- != 0) {
            return;
        }
        happened_ = true;
        what_();
    }

    std::uint64_t left_;
    std::function<void()> what_;
    bool happened_ = false;
};

// Called before a lock is taken.
std::function<void(mutex*)> on_lock;

bool has(const Records& records, std::uint64_t main) {
    return std::any_of(records.begin(), records.end(),
                       [&](const Record& r) { return r.main == main; });
}

// Loads and activates; null where the activation is refused, since the other one is at it.
std::unique_ptr<Metadata> try_open(World& world) {
    auto md = std::make_unique<Metadata>(world);
    if (md->load() != 0 || md->activate() != 0) {
        return nullptr;
    }
    return md;
}

// The spare can be loaded, and has all of @acknowledged.
void expect_loaded(World& world, const std::vector<std::uint64_t>& acknowledged) {
    const Loaded loaded = try_load(world);
    EXPECT_EQ(loaded.error, 0) << loaded.why;
    for (const std::uint64_t main : acknowledged) {
        EXPECT_TRUE(has(loaded.records, main)) << main;
    }
}

// ---- a commit of A, and B that activates ----

// In each gap of a commit of A, which may sleep there. Either B finds what A acknowledges, or A
// finds B.
TEST(TwoSystems, CommitThatTheOtherDoesNotSeeIsNotAcknowledged) {
    for (const unsigned how : {0, 1, 2, 3}) {
        const bool crashed = (how & 1) != 0;
        const bool slept = (how & 2) != 0;
        bool stopped = true;
        for (std::uint64_t n = 0; stopped; n++) {
            SCOPED_TRACE(n);
            auto world = formatted();
            std::vector<std::uint64_t> acknowledged = {100};
            auto a = open(*world);
            ASSERT_EQ(a->remap(100), 0);
            std::unique_ptr<Metadata> b;
            {
                Stop stop(*world, n, [&] {
                    b = try_open(*world);
                    world->time += slept ? 1 : 0;
                });
                if (a->remap(200) == 0) {
                    acknowledged.push_back(200);
                }
                stopped = stop.happened();
            }
            if (!stopped) {
                break;
            }
            ASSERT_NE(b, nullptr);
            EXPECT_TRUE(has(b->records(), 100));
            // A commit that failed may be there all the same.
            EXPECT_TRUE(acknowledged.size() == 1 || has(b->records(), 200));
            EXPECT_EQ((*a)->mode, acknowledged.size() == 2 ? DM_REMAP_MODE_RW : DM_REMAP_MODE_FAIL);
            // From now on it hears of B in any case.
            EXPECT_NE(a->remap(250), 0);
            EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
            if (crashed) {
                b = nullptr;
                a = nullptr;
                expect_loaded(*world, acknowledged);
                continue;
            }
            EXPECT_EQ((*b)->mode, DM_REMAP_MODE_RW);
            ASSERT_EQ(b->remap(300), 0);
            acknowledged.push_back(300);
            expect_loaded(*world, acknowledged);
            EXPECT_EQ(b->deactivate(), 0);
            expect_loaded(*world, acknowledged);
        }
    }
}

// Once both blocks of A are written, B may commit as well.
TEST(TwoSystems, OtherMayCommitBeforeTheLook) {
    for (const std::uint64_t n : {4, 5}) {
        auto world = formatted();
        auto a = open(*world);
        std::unique_ptr<Metadata> b;
        {
            Stop stop(*world, n, [&] {
                b = open(*world);
                ASSERT_EQ(b->remap(300), 0);
            });
            EXPECT_NE(a->remap(200), 0);
            ASSERT_TRUE(stop.happened());
        }
        EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
        expect_loaded(*world, {300});
    }
}

// A checkpoint of A has looked, and then a commit of A finds that B has the spare, and has that
// commit in its table. The checkpoint does not withdraw it, and writes nothing else.
TEST(TwoSystems, CheckpointBesideTheCommitThatFindsTheOtherEndsThere) {
    auto world = formatted();
    auto a = open(*world);
    std::unique_ptr<Metadata> b;
    std::uint64_t writes = 0;
    on_lock = [&](mutex* lock) {
        if (lock != &(*a)->commit_lock || !(*a)->writing) {
            return;
        }
        on_lock = nullptr;
        Stop stop(*world, 4, [&] { b = open(*world); });
        EXPECT_NE(a->remap(200), 0);
        EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
        writes = world->spare.writes();
    };
    dm_remap_lock_hook = [](mutex* lock) {
        const auto told = on_lock;
        if (told) {
            told(lock);
        }
    };
    EXPECT_EQ(dm_remap_save(a->get()), -ESTALE);
    dm_remap_lock_hook = nullptr;
    ASSERT_NE(b, nullptr);
    EXPECT_TRUE(has(b->records(), 200));
    EXPECT_EQ(world->spare.writes(), writes);
    EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
    expect_loaded(*world, {200});
    EXPECT_EQ(b->remap(300), 0);
    expect_loaded(*world, {200, 300});
}

// ---- A slept ----

// As after hibernation: B was there in between, and has gone. A must not write where B did.
TEST(TwoSystems, WhoHasSleptLooksBeforeItWrites) {
    for (const bool clean : {false, true}) {
        const std::vector<std::function<int(Metadata&)>> works = {
            [](Metadata& a) { return a.commit({pending(400)}); },
            [](Metadata& a) { return dm_remap_save(a.get()); },
            [](Metadata& a) {
                dm_remap_count(a.get(), DM_REMAP_READ_ERRORS, 1);
                return dm_remap_autosave(a.get());
            },
            [](Metadata& a) { return a.deactivate(); },
            [](Metadata& a) {
                dm_remap_moved moved{};
                return dm_remap_remap(a.get(), 400, 8, &moved);
            },
            [](Metadata& a) {
                dm_remap_moved moved{};
                return dm_remap_unremap(a.get(), 100, 1, &moved);
            },
        };
        for (std::size_t i = 0; i < works.size(); i++) {
            SCOPED_TRACE(i);
            auto world = formatted();
            auto a = open(*world);
            ASSERT_EQ(a->remap(100), 0);
            {
                auto b = open(*world);
                ASSERT_EQ(b->remap(300), 0);
                if (clean) {
                    ASSERT_EQ(b->deactivate(), 0);
                }
            }
            world->time++;
            const std::uint64_t writes = world->spare.writes();
            EXPECT_NE(works[i](*a), 0);
            EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
            // Nothing more, at its end neither.
            EXPECT_NE(dm_remap_save(a->get()), 0);
            dm_remap_autosave(a->get());
            a->deactivate();
            a = nullptr;
            EXPECT_EQ(world->spare.writes(), writes);
            expect_loaded(*world, {100, 300});
        }
    }
}

// All I/O of such a device fails.
TEST(TwoSystems, WhoIsNotAloneServesNothing) {
    auto world = formatted();
    auto a = open(*world);
    auto b = open(*world);
    world->time++;
    ASSERT_NE(a->commit({pending(400)}), 0);
    Mover mover(*a);
    auto data = pattern(1, 8);
    dm_remap_redo_begin(mover.get());
    EXPECT_EQ(dm_remap_redo_read(mover.get(), 0, 8, data.data(), nullptr), -EIO);
    EXPECT_EQ(dm_remap_redo_write(mover.get(), 0, 8, data.data(), nullptr), -EIO);
    dm_remap_redo_end(mover.get());
    EXPECT_EQ(world->main.writes(), 0U);
    EXPECT_FALSE(dm_remap_table_nothing(&(*a)->table, 5000, 8));
    bool healed = false;
    EXPECT_EQ(dm_remap_restore(a->get(), world->spare.sectors(), &healed), -ESTALE);
    // A suspend and a resume do not change that.
    EXPECT_EQ(a->deactivate(), 0);
    EXPECT_EQ(dm_remap_activate(a->get(), nullptr, nullptr), 0);
    EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
    EXPECT_EQ(b->remap(300), 0);
}

// B is active. A compares the spare with its memory, and must not make the spare what it knows.
TEST(TwoSystems, WhoRestoresIsToldOfTheOther) {
    auto world = formatted();
    auto a = open(*world);
    ASSERT_EQ(a->remap(100), 0);
    auto b = open(*world);
    ASSERT_EQ(b->remap(300), 0);
    bool healed = false;
    EXPECT_NE(dm_remap_restore(a->get(), world->spare.sectors(), &healed), 0);
    EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
    EXPECT_TRUE(!healed);
    expect_loaded(*world, {100, 300});
}

// A sleeps between the two blocks of a commit, and nobody was there meanwhile.
TEST(TwoSystems, WhoHasSleptAloneGoesOn) {
    bool stopped = true;
    for (std::uint64_t n = 0; stopped; n++) {
        SCOPED_TRACE(n);
        auto world = formatted();
        auto a = open(*world);
        {
            Stop stop(*world, n, [&] { world->time++; });
            EXPECT_EQ(a->remap(100), 0);
            stopped = stop.happened();
        }
        EXPECT_EQ((*a)->mode, DM_REMAP_MODE_RW);
        expect_loaded(*world, {100});
    }
}

// While A was suspended: it may not go on with what it has in memory.
TEST(TwoSystems, WhoIsResumedLooks) {
    auto world = formatted();
    auto a = open(*world);
    ASSERT_EQ(a->remap(100), 0);
    ASSERT_EQ(a->deactivate(), 0);
    {
        auto b = open(*world);
        ASSERT_EQ(b->remap(300), 0);
        ASSERT_EQ(b->deactivate(), 0);
    }
    const std::uint64_t writes = world->spare.writes();
    EXPECT_EQ(dm_remap_activate(a->get(), nullptr, nullptr), 0);
    EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
    EXPECT_EQ(a->deactivate(), 0);
    EXPECT_EQ(world->spare.writes(), writes);
    expect_loaded(*world, {100, 300});
}

// A table that was served read-only has left data in caches, which may be old at the first write.
TEST(TwoSystems, WhoHasServedReadOnlyLooks) {
    for (const bool other : {true, false}) {
        SCOPED_TRACE(other);
        auto world = formatted();
        {
            auto before = open(*world);
            ASSERT_EQ(before->remap(100), 0);
        }
        Metadata a(*world);
        ASSERT_EQ(a.load(), 0);
        a->write_nothing = true;
        ASSERT_EQ(a.activate(), 0);
        EXPECT_EQ(a->mode, DM_REMAP_MODE_RO);
        if (other) {
            auto b = open(*world);
            ASSERT_EQ(b->remap(300), 0);
            ASSERT_EQ(b->deactivate(), 0);
        }
        const std::uint64_t writes = world->spare.writes();
        a->write_nothing = false;
        EXPECT_EQ(a.activate(), 0);
        EXPECT_EQ(a->mode, other ? DM_REMAP_MODE_FAIL : DM_REMAP_MODE_RW);
        EXPECT_FALSE(has(a.records(), 300));
        EXPECT_EQ(world->spare.writes() == writes, other);
        if (other) {
            expect_loaded(*world, {100, 300});
        }
    }
}

// ---- a checkpoint of A, or its end, and B that activates ----

// One thing no look prevents. A is stopped just before it writes a block of the table. Meanwhile B
// has a checkpoint of its own, in the same place. Within a second A writes both copies: then
// nothing is guessed. After a second A looks before the second copy.
constexpr std::uint64_t kTableWrite = 2;

TEST(TwoSystems, CheckpointOfOneLeavesTheOthersSpareWhole) {
    for (const bool ends : {false, true}) {
        for (const unsigned how : {0, 1, 2, 3}) {
            const bool b_stops = (how & 1) != 0;
            const bool slept = (how & 2) != 0;
            bool stopped = true;
            for (std::uint64_t n = 0; stopped; n++) {
                SCOPED_TRACE(testing::Message() << ends << b_stops << slept << " " << n);
                auto world = formatted();
                auto a = open(*world);
                ASSERT_EQ(a->remap(100), 0);
                std::unique_ptr<Metadata> b;
                {
                    Stop stop(*world, n, [&] {
                        b = open(*world);
                        if (b_stops) {
                            ASSERT_EQ(b->deactivate(), 0);
                        }
                        world->time += slept ? 1 : 0;
                    });
                    ends ? a->deactivate() : a->checkpoint();
                    stopped = stop.happened();
                }
                if (!stopped) {
                    break;
                }
                a = nullptr;
                if (b_stops && !slept && n == kTableWrite) {
                    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
                    continue;
                }
                expect_loaded(*world, {100});
                if (!b_stops) {
                    EXPECT_EQ(b->remap(300), 0);
                    EXPECT_EQ((*b)->mode, DM_REMAP_MODE_RW);
                    expect_loaded(*world, {100, 300});
                }
            }
        }
    }
}

// ---- two that activate ----

// B activates in each gap of A's activation. The last of the two has the spare, and both know.
TEST(TwoSystems, ActivationThatTheOtherOvertakesStartsOver) {
    for (const bool dirty : {false, true}) {
        for (const unsigned more : {0, 1, 2}) {
            bool stopped = true;
            for (std::uint64_t n = 0; stopped; n++) {
                SCOPED_TRACE(testing::Message() << dirty << more << " " << n);
                auto world = formatted();
                {
                    auto md = open(*world);
                    ASSERT_EQ(md->remap(100), 0);
                    if (!dirty) {
                        ASSERT_EQ(md->deactivate(), 0);
                    }
                }
                std::vector<std::uint64_t> acknowledged = {100};
                Metadata a(*world);
                ASSERT_EQ(a.load(), 0);
                std::unique_ptr<Metadata> b;
                int error = 0;
                {
                    Stop stop(*world, n, [&] {
                        b = open(*world);
                        if (more != 0) {
                            ASSERT_EQ(b->remap(200), 0);
                            acknowledged.push_back(200);
                        }
                        if (more == 2) {
                            ASSERT_EQ(b->checkpoint(), 0);
                        }
                    });
                    error = a.activate();
                    stopped = stop.happened();
                }
                ASSERT_EQ(error, 0) << testing::PrintToString(world->log);
                expect_loaded(*world, acknowledged);
                if (!stopped) {
                    break;
                }
                for (Metadata* md : {b.get(), &a}) {
                    world->time++;
                    const std::uint64_t main = md == &a ? 300 : 400;
                    if (md->remap(main) == 0) {
                        acknowledged.push_back(main);
                    }
                    expect_loaded(*world, acknowledged);
                }
                // One of them has the spare.
                EXPECT_TRUE(has(try_load(*world).records, 300) ||
                            has(try_load(*world).records, 400));
                EXPECT_TRUE((*b)->mode == DM_REMAP_MODE_FAIL || a->mode == DM_REMAP_MODE_FAIL);
            }
        }
    }
}

// It takes over what the other has counted, and saves no older counts.
TEST(TwoSystems, ActivationThatStartsOverHasTheCountersOfTheOther) {
    auto world = formatted();
    { open(*world)->deactivate(); }
    Metadata a(*world);
    ASSERT_EQ(a.load(), 0);
    {
        auto b = open(*world);
        dm_remap_count(b->get(), DM_REMAP_READ_ERRORS, 5);
        ASSERT_EQ(dm_remap_soft_commit(b->get()), 0);
    }
    ASSERT_EQ(a.activate(), 0);
    EXPECT_EQ(atomic64_read(&a->counter[DM_REMAP_READ_ERRORS]), 5);
    EXPECT_FALSE(dm_remap_dirty(a.get()));
    ASSERT_EQ(dm_remap_save(a.get()), 0);
    EXPECT_EQ(super_at(*world, 0).counter[DM_REMAP_READ_ERRORS], 5U);
}

// The journal is full. In each gap of B's activation A, which is active, has a checkpoint, and its
// next commit overwrites the oldest block. Then the power fails at each write of B in turn, or B is
// done. The nonces decide nothing here.
TEST(TwoSystems, ActivationBesideACheckpointLosesNothing) {
    constexpr std::uint64_t kNever = 100;
    for (const bool higher : {false, true}) {
        bool stopped = true;
        for (std::uint64_t n = 0; stopped; n++) {
            bool off = true;
            for (std::uint64_t write = 0; stopped && write <= kNever; write += off ? 1 : kNever) {
                SCOPED_TRACE(testing::Message() << higher << " " << n << " " << write);
                auto world = formatted();
                auto a = open(*world);
                std::vector<std::uint64_t> acknowledged;
                for (std::uint64_t i = 0; i < Shape{}.journal_blocks; i++) {
                    ASSERT_EQ(a->remap(100 + 2 * i), 0);
                    acknowledged.push_back(100 + 2 * i);
                }
                world->random += higher ? 10 : -10;
                {
                    Metadata b(*world);
                    ASSERT_EQ(b.load(), 0);
                    Stop stop(*world, n, [&] {
                        if (a->remap(200) == 0) {
                            acknowledged.push_back(200);
                        }
                        world->spare.power_off_at_write(world->spare.writes() + write);
                    });
                    off = b.activate() != 0;
                    stopped = stop.happened();
                }
                a = nullptr;
                world->spare.power_off();
                world->spare.power_on([](auto, auto) { return false; });
                expect_loaded(*world, acknowledged);
            }
        }
    }
}

// One after the other, so often that one gives up: it says so, and the spare is whole.
TEST(TwoSystems, WhoIsOvertakenTimeAndAgainGivesUp) {
    auto world = formatted();
    Metadata a(*world);
    ASSERT_EQ(a.load(), 0);
    unsigned reads = 0;
    bool busy = false;
    world->spare.on_read = [&](auto sector, auto n) {
        // At each look of A.
        if (!busy && sector == 0 && n == kBlockSectors) {
            busy = true;
            reads++;
            open(*world);
            busy = false;
        }
    };
    EXPECT_EQ(a.activate(), -EBUSY);
    world->spare.on_read = nullptr;
    EXPECT_GE(reads, 3U);
    EXPECT_FALSE(a->active);
    EXPECT_EQ(try_load(*world).error, 0);
}

// B has recorded another main meanwhile: then A's main is not that of the spare any more.
TEST(TwoSystems, ActivationThatStartsOverChecksMainAgain) {
    for (const bool same : {true, false}) {
        auto world = formatted();
        Metadata a(*world);
        ASSERT_EQ(a.load(), 0);
        dm_remap_main main = main_of(a->sb);
        main.id.start = 8;
        {
            Metadata b(*world);
            ASSERT_EQ(b.load(), 0);
            ASSERT_EQ(dm_remap_activate(b.get(), &main, &b.report), 0);
            ASSERT_EQ(b.remap(100), 0);
        }
        main.id.start = same ? 8 : 16;
        EXPECT_EQ(dm_remap_activate(a.get(), &main, &a.report), same ? 0 : -ENODEV);
        EXPECT_EQ(has(a.records(), 100), same);
    }
}

TEST(TwoSystems, ActivationThatStartsOverWithoutMemoryChangesNothing) {
    bool failed = true;
    for (std::uint64_t n = 0; failed; n++) {
        SCOPED_TRACE(n);
        auto world = formatted();
        Metadata a(*world);
        ASSERT_EQ(a.load(), 0);
        auto b = open(*world);
        ASSERT_EQ(b->remap(100), 0);
        {
            FailAllocation fail(n);
            const int error = a.activate();
            failed = fail.happened();
            EXPECT_EQ(error, failed ? -ENOMEM : 0);
        }
        expect_loaded(*world, {100});
        EXPECT_EQ(a.activate(), 0);
        EXPECT_TRUE(has(a.records(), 100));
    }
}

// ---- superblocks that B may have left ----

using Changes = std::vector<std::function<void(dm_remap_super&)>>;

// A is active, and each superblock is changed in each way.
void beside_each(const Changes& changes, const std::function<void(World&, Metadata&, int)>& what) {
    for (std::size_t i = 0; i < changes.size(); i++) {
        for (const int replica : {0, 1}) {
            SCOPED_TRACE(testing::Message() << i << " " << replica);
            auto world = formatted();
            auto a = open(*world);
            dm_remap_super sb = super_at(*world, replica);
            changes[i](sb);
            put_super(*world, sb, replica);
            what(*world, *a, replica);
        }
    }
}

TEST(TwoSystems, SuperblockOfAnotherSystemIsTold) {
    const Changes changes = {
        [](dm_remap_super& sb) { sb.uuid[0] ^= 1; },
        [](dm_remap_super& sb) { sb.incompat = 1U << 31; },  // of a newer module
        [](dm_remap_super& sb) { sb.activation++; },
        [](dm_remap_super& sb) { sb.nonce++; },
        [](dm_remap_super& sb) { sb.generation++; },
        [](dm_remap_super& sb) { sb.journal_start++; },
    };
    beside_each(changes, [](World&, Metadata& a, int) {
        EXPECT_NE(a.remap(100), 0);
        EXPECT_EQ(a->mode, DM_REMAP_MODE_FAIL);
    });
}

// A format of a later version.
TEST(TwoSystems, SuperblockOfANewerVersionIsAnotherSystems) {
    auto world = formatted();
    auto a = open(*world);
    dm_remap_disk_block newer = block_at(*world, 0);
    newer.header.version = DM_REMAP_VERSION + 1;
    newer.header.crc = dm_remap_block_crc(&newer, kSector);
    world->spare.poke(0, {reinterpret_cast<std::uint8_t*>(&newer), kBlock});
    EXPECT_NE(a->remap(100), 0);
    EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
}

// The spare's own fault: it kept an older block.
TEST(TwoSystems, OlderSuperblockIsTheSparesOwnFault) {
    const Changes changes = {
        [](dm_remap_super& sb) { sb.activation--; },
        [](dm_remap_super& sb) { sb.generation--; },
    };
    beside_each(changes, [](World& world, Metadata& a, int replica) {
        // A checkpoint writes it anew.
        EXPECT_EQ(a.remap(100), 0);
        EXPECT_EQ(a->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(super_at(world, replica).generation, a->sb.generation);
        expect_loaded(world, {100});
    });
}

// The spare fails after the claim, and keeps a block from before it.
TEST(TwoSystems, SuperblockFromBeforeTheClaimIsTheSparesOwnFault) {
    auto world = formatted();
    Metadata a(*world);
    ASSERT_EQ(a.load(), 0);
    const dm_remap_super before = super_at(*world, 1);
    unsigned writes = 0;
    world->spare.on_write = [&](auto, auto, auto) { return writes++ < 2 ? 0 : -EIO; };
    ASSERT_EQ(a.activate(), 0);
    ASSERT_EQ(a->mode, DM_REMAP_MODE_RO);
    world->spare.on_write = nullptr;
    put_super(*world, before, 1);
    EXPECT_EQ(dm_remap_save(a.get()), 0);
    EXPECT_EQ(a->mode, DM_REMAP_MODE_RW);
    EXPECT_EQ(a.remap(100), 0);
    expect_loaded(*world, {100});
}

// One end could not be read when A loaded the spare, and can be read again.
TEST(TwoSystems, SuperblockThatCouldNotBeReadIsOfTheSameTime) {
    for (const unsigned ahead : {0, 1, 2}) {
        SCOPED_TRACE(ahead);
        auto world = world_with_records();
        open(*world)->deactivate();
        const dm_remap_super end = super_at(*world, 1);
        zero_block(*world, dm_remap_superblock_at(&end.layout, 1));
        Metadata a(*world);
        ASSERT_EQ(a.load(), 0);
        dm_remap_super found = end;
        found.generation += ahead;
        put_super(*world, found, 1);
        const int error = a.activate();
        EXPECT_EQ(error == 0 && a->mode == DM_REMAP_MODE_RW, ahead < 2) << error;
    }
}

// Two superblocks of one generation and two nonces, as two claims leave them, but not of one table.
TEST(TwoSystems, SuperblocksOfTwoTablesAreNoPair) {
    auto world = formatted();
    dm_remap_super sb = super_at(*world, 1);
    sb.nonce++;
    sb.counter[0]++;
    put_super(*world, sb, 1);
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

// This system was resumed twice from one memory: its double has its nonce, and went on.
TEST(TwoSystems, DoubleThatWentOnIsTold) {
    auto world = formatted();
    auto a = open(*world);
    const dm_remap_super sb = super_at(*world, 1);
    const std::uint64_t at = dm_remap_superblock_at(&sb.layout, 1) * kBlockSectors;
    // Superblock 1 is given up, so that nothing is known to be there.
    world->spare.bad_write.insert(at);
    EXPECT_NE(a->checkpoint(), 0);
    world->spare.bad_write.clear();
    dm_remap_super twin = sb;
    twin.generation = (*a)->sb.generation + 2;
    put_super(*world, twin, 1);
    EXPECT_NE(a->checkpoint(), 0);
    EXPECT_EQ((*a)->mode, DM_REMAP_MODE_FAIL);
}

// It cannot be mended, so the stop is no orderly one.
TEST(TwoSystems, StopBesideASuperblockThatIsLost) {
    auto world = formatted();
    auto a = open(*world);
    const dm_remap_layout layout = super_at(*world, 0).layout;
    const std::uint64_t end = dm_remap_superblock_at(&layout, 1);
    zero_block(*world, end);
    world->spare.bad_write.insert(end * kBlockSectors);
    EXPECT_NE(a->deactivate(), 0);
    EXPECT_EQ(super_at(*world, 0).state, static_cast<unsigned>(DM_REMAP_STATE_DIRTY));
}

// It has been formatted in between, for another main perhaps.
TEST(TwoSystems, SpareThatWasFormattedAnewIsNotActivated) {
    auto world = formatted();
    Metadata a(*world);
    ASSERT_EQ(a.load(), 0);
    ASSERT_EQ(format(*world, {}, 0x22), 0);
    EXPECT_EQ(a.activate(), -ENODEV);
    EXPECT_EQ(super_at(*world, 0).uuid[0], 0x22);

    auto b = open(*world);
    ASSERT_EQ(format(*world, {}, 0x33), 0);
    EXPECT_NE(b->remap(100), 0);
    EXPECT_EQ((*b)->mode, DM_REMAP_MODE_FAIL);
    EXPECT_EQ(try_load(*world).error, 0);
}

// In each gap of a checkpoint. A superblock of A may lie beside one of the new spare then: nobody
// takes the two for a pair.
TEST(TwoSystems, SpareThatIsFormattedUnderACheckpointIsNotTakenForTheOld) {
    bool stopped = true;
    for (std::uint64_t n = 0; stopped; n++) {
        SCOPED_TRACE(n);
        auto world = formatted();
        auto a = open(*world);
        ASSERT_EQ(a->remap(100), 0);
        {
            Stop stop(*world, n, [&] { ASSERT_EQ(format(*world, {}, 0x22), 0); });
            const int error = a->checkpoint();
            stopped = stop.happened();
            EXPECT_EQ(error != 0, stopped);
        }
        const Loaded loaded = try_load(*world);
        EXPECT_TRUE(loaded.error != 0 || has(loaded.records, 100) != stopped) << loaded.why;
    }
}

// ---- any order of I/O ----

// Runs some functions in threads, one at a time: at each I/O of the spare it is drawn who goes on.
class Interleaver : public EachIo {
  public:
    Interleaver(World& world, unsigned seed) : EachIo(world), random_(seed) {}

    void run(const std::vector<std::function<void()>>& works) {
        running_.assign(works.size(), true);
        std::vector<std::thread> threads;
        draw();
        for (std::size_t i = 0; i < works.size(); i++) {
            threads.emplace_back([&, i] {
                me_ = static_cast<int>(i);
                wait();
                works[i]();
                running_[i] = false;
                draw();
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
    }

  private:
    void step() override {
        if (me_ >= 0) {
            draw();
            wait();
        }
    }
    void draw() {
        const std::lock_guard lock(mutex_);
        std::vector<int> able;
        for (std::size_t i = 0; i < running_.size(); i++) {
            if (running_[i]) {
                able.push_back(static_cast<int>(i));
            }
        }
        turn_ = able.empty() ? -1 : able[random_() % able.size()];
        changed_.notify_all();
    }
    void wait() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return turn_ == me_; });
    }

    std::mt19937 random_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<bool> running_;
    int turn_ = -1;
    static thread_local int me_;
};
thread_local int Interleaver::me_ = -1;

constexpr unsigned kSchedules = 300;

TEST(TwoSystems, AnyOrderOfCommitsAndAnActivation) {
    unsigned seen = 0;
    for (unsigned seed = 0; seed < kSchedules; seed++) {
        SCOPED_TRACE(seed);
        auto world = formatted();
        auto a = open(*world);
        std::vector<std::uint64_t> acknowledged;
        std::unique_ptr<Metadata> b;
        Interleaver(*world, seed)
            .run({
                [&] {
                    for (std::uint64_t i = 0; i < 4; i++) {
                        if (a->remap(100 + 10 * i) == 0) {
                            acknowledged.push_back(100 + 10 * i);
                        }
                        if (seed % 3 == 0 && i == 1) {
                            a->checkpoint();
                        }
                    }
                },
                [&] { b = try_open(*world); },
            });
        a = nullptr;
        expect_loaded(*world, acknowledged);
        if (b != nullptr) {
            seen++;
            for (const std::uint64_t main : acknowledged) {
                EXPECT_TRUE(has(b->records(), main)) << main;
            }
            EXPECT_EQ(b->remap(300), 0);
            acknowledged.push_back(300);
            expect_loaded(*world, acknowledged);
        }
    }
    EXPECT_GT(seen, kSchedules / 2);
}

// Three that load and activate at once, and then use the spare one after the other.
TEST(TwoSystems, AnyOrderOfActivations) {
    unsigned alone = 0;
    for (unsigned seed = 0; seed < kSchedules; seed++) {
        SCOPED_TRACE(seed);
        auto world = formatted();
        {
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            if (seed % 2 == 0) {
                ASSERT_EQ(md->deactivate(), 0);
            }
        }
        std::vector<std::uint64_t> acknowledged = {100};
        std::array<std::unique_ptr<Metadata>, 3> system;
        std::vector<std::function<void()>> works;
        works.reserve(system.size());
        for (auto& one : system) {
            works.emplace_back([&] { one = try_open(*world); });
        }
        Interleaver(*world, seed).run(works);
        expect_loaded(*world, acknowledged);
        unsigned using_it = 0;
        for (std::size_t i = 0; i < system.size(); i++) {
            world->time++;
            if (system[i] != nullptr && system[i]->remap(200 + 10 * i) == 0) {
                acknowledged.push_back(200 + 10 * i);
                using_it++;
            }
            expect_loaded(*world, acknowledged);
        }
        EXPECT_LE(using_it, 1U);
        alone += using_it;
    }
    EXPECT_GT(alone, kSchedules / 2);
}

// ---- a lone system, and a spare of its own faults ----

// Superblocks that the spare loses, or keeps as they were, are no other system's.
TEST(TwoSystems, OldOrDamagedSuperblockIsTheSparesOwnFault) {
    for (const int end : {0, 1}) {
        for (const int fault : {0, 1, 2}) {
            auto world = formatted();
            const dm_remap_super old = super_at(*world, end);
            auto md = open(*world);
            ASSERT_EQ(md->remap(100), 0);
            const dm_remap_super before = super_at(*world, end);
            ASSERT_EQ(md->checkpoint(), 0);
            const std::uint64_t at = dm_remap_superblock_at(&old.layout, end);
            const std::uint64_t sequence = (*md)->next_sequence;
            switch (fault) {
                case 0:
                    put_super(*world, old, end);
                    break;
                case 1:
                    put_super(*world, before, end);
                    break;
                default:
                    zero_block(*world, at);
            }
            // The commit fails, a checkpoint writes the superblock anew, and the next one is good.
            EXPECT_EQ(md->remap(200), 0);
            EXPECT_EQ((*md)->next_sequence, sequence + 2);
            EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
            expect_loaded(*world, {100, 200});
            // If it cannot be written either, no record can be acknowledged.
            put_super(*world, old, end);
            world->spare.drops = [=](auto sector) { return sector / kBlockSectors == at; };
            EXPECT_NE(md->remap(300), 0);
            EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RO);
            EXPECT_EQ(md->lookup(100).kind, DM_REMAP_MAPPED);
        }
    }
}

// A spare that drops the writes of an activation: the superblocks are those that were loaded.
TEST(TwoSystems, SpareThatKeepsOldSuperblocksIsNoOtherSystem) {
    for (std::uint64_t from = 0; from < 5; from++) {
        auto world = formatted();
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        const std::uint64_t begun = world->spare.writes();
        world->spare.drops = [&](auto) { return world->spare.writes() - begun >= from; };
        ASSERT_EQ(md.activate(), 0);
        EXPECT_EQ(md->mode, from < 4 ? DM_REMAP_MODE_RO : DM_REMAP_MODE_RW);
        EXPECT_NE(md.remap(100), 0);
        EXPECT_EQ(md->mode, DM_REMAP_MODE_RO);
        EXPECT_NE(dm_remap_save(md.get()), 0);
        EXPECT_EQ(md->mode, DM_REMAP_MODE_RO);
        world->spare.drops = nullptr;
        world->time++;
        EXPECT_EQ(dm_remap_save(md.get()), 0);
        EXPECT_EQ(md->mode, DM_REMAP_MODE_RW);
        EXPECT_EQ(md.remap(200), 0);
        expect_loaded(*world, {200});
    }
}

// Nor are superblocks without a nonce, which an older module has written.
TEST(TwoSystems, SuperblocksOfAnOlderModuleAreTakenOver) {
    auto world = formatted();
    { open(*world); }
    for (const int r : {0, 1}) {
        dm_remap_super sb = super_at(*world, r);
        EXPECT_NE(sb.nonce, 0U);
        sb.nonce = 0;
        put_super(*world, sb, r);
    }
    auto md = open(*world);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_RW);
    EXPECT_EQ(md->remap(100), 0);
    // It is another system if it comes later.
    for (const int r : {0, 1}) {
        dm_remap_super sb = super_at(*world, r);
        sb.generation++;
        sb.activation++;
        sb.nonce = 0;
        put_super(*world, sb, r);
    }
    EXPECT_NE(md->remap(200), 0);
    EXPECT_EQ((*md)->mode, DM_REMAP_MODE_FAIL);
}

}  // namespace
}  // namespace remap

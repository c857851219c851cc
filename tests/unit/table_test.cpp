#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <chrono>
#include <set>
#include <stop_token>
#include <thread>
#include <vector>

#include "rig.h"
#include "table_model.h"

namespace remap {
namespace {

constexpr std::uint64_t kRegion = DM_REMAP_REGION_SECTORS;
constexpr std::uint64_t kChunk = kRegion * DM_REMAP_CHUNK_REGIONS;
constexpr std::uint64_t kGiB = 1ULL << 21;
constexpr std::uint64_t kTiB = 1ULL << 31;

class Table {
  public:
    explicit Table(std::uint64_t sectors) { EXPECT_EQ(dm_remap_table_init(&t_, sectors), 0); }
    ~Table() { dm_remap_table_exit(&t_); }
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;

    void set(const dm_remap_record& r) {
        publish([&](auto* u) { return dm_remap_update_set(&t_, u, &r); });
    }
    void clear(std::uint64_t start, std::uint64_t length) {
        publish([&](auto* u) { return dm_remap_update_clear(&t_, u, start, length); });
    }
    void flags(std::uint64_t start, std::uint64_t length, unsigned on, unsigned off) {
        publish([&](auto* u) { return dm_remap_update_flags(&t_, u, start, length, on, off); });
    }

    Records records() {
        Records all;
        dm_remap_record r{};
        for (u64 from = 0; dm_remap_table_next(&t_, from, &r); from = r.main + r.length) {
            all.push_back(plain(r));
        }
        return all;
    }
    dm_remap_totals totals() {
        dm_remap_totals totals{};
        dm_remap_table_totals(&t_, &totals);
        return totals;
    }
    dm_remap_extent lookup(std::uint64_t sector, std::uint64_t sectors) {
        dm_remap_extent e{};
        dm_remap_table_lookup(&t_, sector, sectors, &e);
        return e;
    }
    dm_remap_table* get() { return &t_; }

  private:
    template <typename Edit>
    void publish(Edit edit) {
        dm_remap_update u{};
        dm_remap_update_init(&u);
        ASSERT_EQ(edit(&u), 0);
        dm_remap_update_publish(&t_, &u);
    }

    dm_remap_table t_{};
};

Records snapshot_rest(dm_remap_table* t) {
    Records all;
    dm_remap_record r{};
    while (dm_remap_snapshot_next(t, &r)) {
        all.push_back(plain(r));
    }
    return all;
}

// ---- by hand ----

TEST(Table, EmptyHasNothing) {
    Table t(10 * kChunk);
    EXPECT_TRUE(dm_remap_table_empty(t.get()));
    EXPECT_TRUE(t.records().empty());
    const dm_remap_extent e = t.lookup(5, 3 * kChunk);
    EXPECT_EQ(e.kind, DM_REMAP_NONE);
    EXPECT_EQ(e.length, 3 * kChunk);
    Table none(0);
    EXPECT_TRUE(none.records().empty());
    EXPECT_EQ(none.lookup(100, 8).length, 8U);
}

// The quick answer is yes only where the slow one would be.
TEST(Table, NothingIsPlainWhereNoRegionHasALeaf) {
    Table t(4 * kChunk);
    const auto nothing = [&](std::uint64_t sector, std::uint64_t sectors) {
        return dm_remap_table_nothing(t.get(), sector, sectors);
    };
    EXPECT_TRUE(nothing(0, 4 * kChunk)) << "empty";
    t.set(mapped(5 * kRegion + 10, 5000, 1));
    EXPECT_FALSE(nothing(5 * kRegion, 1));
    EXPECT_FALSE(nothing(6 * kRegion - 1, 1));
    EXPECT_TRUE(nothing(5 * kRegion - 1, 1));
    EXPECT_FALSE(nothing(5 * kRegion - 1, 2)) << "the last sector's";
    EXPECT_TRUE(nothing(6 * kRegion, kRegion));
    EXPECT_FALSE(nothing(4 * kRegion, 2 * kRegion + 1)) << "one between";
    EXPECT_FALSE(nothing(4 * kRegion, 3 * kRegion)) << "one between";
    EXPECT_TRUE(nothing(2 * kChunk, 8)) << "a chunk that is not there";
    EXPECT_TRUE(nothing(100 * kChunk, 8)) << "beyond the end";
    t.flags(2 * kChunk + 8, 8, DM_REMAP_F_HELD, 0);
    EXPECT_FALSE(nothing(2 * kChunk, 8)) << "held";
    t.flags(2 * kChunk + 8, 8, 0, DM_REMAP_F_HELD);
    EXPECT_TRUE(nothing(2 * kChunk, 8));
}

TEST(Table, LookupStopsAtTheEdgesOfARecord) {
    Table t(kChunk);
    t.set(mapped(100, 5000, 10));
    EXPECT_EQ(t.lookup(90, 50).length, 10U);
    EXPECT_EQ(t.lookup(90, 50).kind, DM_REMAP_NONE);
    const dm_remap_extent inside = t.lookup(104, 50);
    EXPECT_EQ(inside.kind, DM_REMAP_MAPPED);
    EXPECT_EQ(inside.spare, 5004U);
    EXPECT_EQ(inside.length, 6U);
    EXPECT_EQ(t.lookup(110, 50).length, 50U);
    EXPECT_EQ(t.lookup(104, 2).length, 2U);
}

TEST(Table, LookupGoesOnAcrossRegionsAndChunks) {
    Table t(4 * kChunk);
    t.set(mapped(kChunk - kRegion - 5, 1'000'000, 3 * kRegion));
    const dm_remap_extent e = t.lookup(kChunk - kRegion - 1, 10 * kRegion);
    EXPECT_EQ(e.kind, DM_REMAP_MAPPED);
    EXPECT_EQ(e.spare, 1'000'004U);
    EXPECT_EQ(e.length, 3 * kRegion - 4);
    // Beside it, at the edge of a region, lies one that is elsewhere on the spare.
    t.set(mapped(kChunk, 77, 8));
    EXPECT_EQ(t.lookup(kChunk - 4, 100).length, 4U);
}

// One record, but of its second half I/O is to wait.
TEST(Table, LookupStopsAtARegionsEdgeWhereFlagsChange) {
    Table t(kChunk);
    t.set(mapped(kRegion - 8, 5000, 16));
    EXPECT_EQ(t.lookup(kRegion - 8, 16).length, 16U);
    t.flags(kRegion, 8, DM_REMAP_F_HELD, 0);
    const dm_remap_extent before = t.lookup(kRegion - 8, 16);
    EXPECT_EQ(before.length, 8U);
    EXPECT_EQ(before.flags, 0U);
    EXPECT_EQ(t.lookup(kRegion, 8).flags, DM_REMAP_F_HELD);
}

TEST(Table, OneBadGigabyteIsOneRecord) {
    Table t(64 * kGiB);
    for (std::uint64_t at = 0; at < kGiB; at += 2048) {
        t.set(mapped(5 * kGiB + 3 + at, 40 * kGiB + at, 2048));
    }
    EXPECT_EQ(t.records(), (Records{{DM_REMAP_MAPPED, 5 * kGiB + 3, 40 * kGiB, kGiB}}));
    EXPECT_EQ(t.totals().records, 1U);
    EXPECT_EQ(t.totals().mapped, kGiB);
}

TEST(Table, LengthsAlwaysFit) {
    Table t(8 * kTiB);
    dm_remap_build b{};
    dm_remap_build_begin(&b, t.get());
    dm_remap_record first = pending(kTiB - 8, 8);
    dm_remap_record second = pending(kTiB, 8);
    ASSERT_EQ(dm_remap_build_add(&b, &first), 0);
    ASSERT_EQ(dm_remap_build_add(&b, &second), 0);
    ASSERT_EQ(dm_remap_build_end(&b), 0);
    EXPECT_EQ(t.records(),
              (Records{{DM_REMAP_PENDING, kTiB - 8, 0, 8}, {DM_REMAP_PENDING, kTiB, 0, 8}}));
    EXPECT_EQ(t.totals().records, 2U);
    dm_remap_record r{};
    ASSERT_TRUE(dm_remap_table_next(t.get(), kTiB + 1, &r));
    EXPECT_EQ(r.main, kTiB);
}

TEST(Table, NeighboursOfOtherKindReasonOrPlaceStayApart) {
    Table t(kChunk);
    dm_remap_record other = pending(10, 10);
    other.reason = DM_REMAP_REASON_MANUAL;
    t.set(pending(0, 10));
    t.set(other);
    t.set(mapped(20, 500, 10));
    t.set(mapped(30, 511, 10));
    EXPECT_EQ(t.records().size(), 4U);
}

TEST(Table, JoiningKeepsFirstAndLastTime) {
    Table t(kChunk);
    dm_remap_record a = pending(0, 8);
    dm_remap_record b = pending(8, 8);
    a.first_time = 100, a.last_time = 300;
    b.first_time = 50, b.last_time = 200;
    t.set(a);
    t.set(b);
    dm_remap_record r{};
    ASSERT_TRUE(dm_remap_table_next(t.get(), 12, &r));
    EXPECT_EQ(r.first_time, 50U);
    EXPECT_EQ(r.last_time, 300U);
}

TEST(Table, FlagsDoNotCutRecords) {
    Table t(kChunk);
    t.set(mapped(100, 5000, 100));
    t.flags(150, 10, DM_REMAP_F_HELD, 0);
    EXPECT_EQ(t.records().size(), 1U);
    EXPECT_EQ(t.totals().records, 1U);
    EXPECT_EQ(t.lookup(100, 100).length, 50U);
    EXPECT_EQ(t.lookup(150, 100).flags, DM_REMAP_F_HELD);
    t.flags(100, 100, 0, DM_REMAP_F_HELD);
    EXPECT_EQ(t.lookup(100, 100).length, 100U);
}

// The flag that goes to the disk does.
TEST(Table, MarksCutRecords) {
    Table t(kChunk);
    t.set(mapped(kRegion - 10, 5000, 100));
    t.flags(kRegion - 5, 10, DM_REMAP_F_UNREADABLE, 0);
    EXPECT_EQ(t.records().size(), 3U);
    EXPECT_EQ(t.totals().records, 3U);
    EXPECT_EQ(t.totals().mapped, 100U);
    EXPECT_EQ(t.totals().unreadable, 10U);
    dm_remap_record r{};
    ASSERT_TRUE(dm_remap_table_next(t.get(), kRegion + 2, &r));
    EXPECT_EQ(plain(r), (Record{DM_REMAP_MAPPED, kRegion - 5, 5005, 10}));
    EXPECT_EQ(r.flags, DM_REMAP_F_UNREADABLE);
    t.flags(kRegion - 10, 100, 0, DM_REMAP_F_UNREADABLE);
    EXPECT_EQ(t.records().size(), 1U);
    EXPECT_EQ(t.totals().unreadable, 0U);
}

TEST(Table, FlagsOnPlainRangesCountAsSomething) {
    Table t(kChunk);
    t.flags(kRegion - 1, 2, DM_REMAP_F_HELD, 0);
    EXPECT_FALSE(dm_remap_table_empty(t.get()));
    EXPECT_TRUE(t.records().empty());
    EXPECT_EQ(t.lookup(kRegion - 1, 5).length, 2U);
    EXPECT_EQ(t.lookup(kRegion - 1, 5).flags, DM_REMAP_F_HELD);
    t.flags(0, 2 * kRegion, 0, DM_REMAP_F_HELD);
    EXPECT_TRUE(dm_remap_table_empty(t.get()));
}

TEST(Table, AbandonedUpdateChangesNothing) {
    Table t(kChunk);
    dm_remap_update u{};
    dm_remap_update_init(&u);
    dm_remap_record r = mapped(0, 100, 10);
    ASSERT_EQ(dm_remap_update_set(t.get(), &u, &r), 0);
    dm_remap_update_abandon(&u);
    EXPECT_TRUE(dm_remap_table_empty(t.get()));
}

TEST(Table, NoMemoryLeavesItAsItWas) {
    Table t(4 * kChunk);
    t.set(mapped(kChunk - 20, 100, 10));
    for (std::uint64_t n = 0;; n++) {
        dm_remap_update u{};
        dm_remap_update_init(&u);
        const dm_remap_record a = mapped(kChunk - 5, 500, 10);
        const dm_remap_record b = mapped(kChunk + 2, 900, 3 * kRegion);
        FailAllocation fail(n);
        int ret = dm_remap_update_set(t.get(), &u, &a);
        ret = ret != 0 ? ret : dm_remap_update_set(t.get(), &u, &b);
        dm_remap_update_abandon(&u);
        EXPECT_EQ(ret, fail.happened() ? -ENOMEM : 0);
        EXPECT_EQ(t.records(), (Records{{DM_REMAP_MAPPED, kChunk - 20, 100, 10}}));
        if (!fail.happened()) {
            break;
        }
    }
}

// Of one update: the second edit finds each of its regions among those of the first at once.
// Looking for each from the start would take hundreds of times as long.
TEST(Table, EditsOfOneUpdateFindEachOtherInLinearTime) {
    constexpr std::uint64_t kRegions = 60'000;
    Table t(2 * kRegions * kRegion);
    auto time_of = [&](const std::vector<std::pair<std::uint64_t, std::uint64_t>>& ranges) {
        const auto begin = std::chrono::steady_clock::now();
        dm_remap_update u{};
        dm_remap_update_init(&u);
        for (const auto& [start, length] : ranges) {
            EXPECT_EQ(dm_remap_update_flags(t.get(), &u, start * kRegion, length * kRegion,
                                            DM_REMAP_F_DOUBT, 0),
                      0);
        }
        dm_remap_update_abandon(&u);
        return std::chrono::steady_clock::now() - begin;
    };
    const auto one = time_of({{0, kRegions}});
    EXPECT_LT(time_of({{0, kRegions}, {0, kRegions}}), 30 * one);
    EXPECT_LT(time_of({{kRegions, kRegions}, {0, kRegions}}), 30 * one);
    // What lies between two that are there is found not to be.
    EXPECT_LT(time_of({{0, 1}, {2 * kRegions - 1, 1}, {0, 2 * kRegions}}), 30 * one);
}

// Of one update, too: an edit that leaves more pieces than fit where such an edit is prepared.
TEST(Table, EditOfOneUpdateMayConcernManyPieces) {
    constexpr unsigned kRecords = 20;
    Table t(kChunk);
    Records expected;
    dm_remap_update u{};
    dm_remap_update_init(&u);
    for (unsigned i = 0; i < kRecords; i++) {
        const dm_remap_record r = mapped(100 + 3 * i, 5000 + i);
        ASSERT_EQ(dm_remap_update_set(t.get(), &u, &r), 0);
        expected.push_back(plain(r));
    }
    ASSERT_EQ(dm_remap_update_flags(t.get(), &u, 0, kRegion, DM_REMAP_F_DOUBT, 0), 0);
    dm_remap_update_publish(t.get(), &u);
    EXPECT_EQ(t.records(), expected);
    for (unsigned i = 0; i < kRecords; i++) {
        EXPECT_EQ(t.lookup(100 + 3 * i, 1).flags, DM_REMAP_F_DOUBT) << i;
        EXPECT_EQ(t.lookup(101 + 3 * i, 1).flags, DM_REMAP_F_DOUBT) << i;
    }
}

TEST(Table, BeyondTheEndThereIsNothing) {
    Table t(kChunk - 5);
    t.flags(3 * kChunk, 10, DM_REMAP_F_DOUBT, 0);
    t.clear(3 * kChunk, 10);
    EXPECT_TRUE(dm_remap_table_empty(t.get()));
    t.flags(kChunk - 10, 3 * kChunk, DM_REMAP_F_DOUBT, 0);
    EXPECT_EQ(atomic64_read(&t.get()->busy), 1U);
    EXPECT_EQ(t.lookup(kChunk - 10, 20).length, 5U);
    Table none(0);
    none.flags(0, 10, DM_REMAP_F_DOUBT, 0);
    EXPECT_TRUE(dm_remap_table_empty(none.get()));
}

// ---- resize ----

TEST(TableResize, GrowsAndShrinksRoundItsRecords) {
    Table t(kChunk / 2);
    t.set(mapped(100, 5000, 10));
    ASSERT_EQ(dm_remap_table_resize(t.get(), 5 * kChunk), 0);
    t.set(mapped(4 * kChunk, 6000, 10));
    EXPECT_EQ(t.records().size(), 2U);
    EXPECT_EQ(dm_remap_table_resize(t.get(), 4 * kChunk + 9), -EBUSY);
    EXPECT_EQ(dm_remap_table_resize(t.get(), kChunk), -EBUSY);
    ASSERT_EQ(dm_remap_table_resize(t.get(), 4 * kChunk + 10), 0);
    t.clear(4 * kChunk, 10);
    ASSERT_EQ(dm_remap_table_resize(t.get(), 110), 0);
    EXPECT_EQ(t.records().size(), 1U);
    EXPECT_EQ(t.lookup(105, 1).spare, 5005U);
    {
        FailAllocation fail(0);
        EXPECT_EQ(dm_remap_table_resize(t.get(), kChunk), -ENOMEM);
    }
    EXPECT_EQ(t.records().size(), 1U);
}

TEST(TableResize, ARangeInDoubtBeyondTheEndIsInTheWay) {
    Table t(4 * kChunk);
    t.flags(3 * kChunk + 5, 1, DM_REMAP_F_DOUBT, 0);
    EXPECT_EQ(dm_remap_table_resize(t.get(), kChunk), -EBUSY);
    EXPECT_EQ(dm_remap_table_resize(t.get(), 3 * kChunk + 5), -EBUSY);
    EXPECT_EQ(dm_remap_table_resize(t.get(), 3 * kChunk + 6), 0);
    t.flags(3 * kChunk + 5, 1, 0, DM_REMAP_F_DOUBT);
    EXPECT_EQ(dm_remap_table_resize(t.get(), kChunk), 0);
}

// ---- build ----

TEST(TableBuild, RefusesWhatIsOutOfOrder) {
    const std::vector<std::vector<dm_remap_record>> bad = {
        {mapped(100, 5000, 10), mapped(109, 6000, 10)},
        {mapped(100, 5000, 10), mapped(50, 6000, 10)},
        {mapped(100, 5000, 0)},
        {mapped(kChunk - 5, 5000, 10)},
    };
    for (const auto& records : bad) {
        Table t(kChunk);
        dm_remap_build b{};
        dm_remap_build_begin(&b, t.get());
        int ret = 0;
        for (const auto& r : records) {
            ret = dm_remap_build_add(&b, &r);
        }
        EXPECT_EQ(ret, -EINVAL);
        dm_remap_build_end(&b);
    }
}

// ---- against the model ----

// A range near an edge of a region or chunk, most of them short.
std::pair<std::uint64_t, std::uint64_t> any_range(std::uint64_t sectors) {
    const auto edge =
        *rc::gen::element<std::uint64_t>(0, kRegion, 2 * kRegion, kChunk, kChunk + kRegion);
    const auto before = *rc::gen::inRange<std::uint64_t>(0, 40);
    const auto start = edge + 20 > before ? edge + 20 - before : 0;
    const auto length = *rc::gen::weightedOneOf<std::uint64_t>(
        {{20, rc::gen::inRange<std::uint64_t>(1, 30)},
         {1, rc::gen::inRange<std::uint64_t>(1, 2 * kRegion)}});
    return {start, std::min(length, sectors - start)};
}

dm_remap_record any_record(std::uint64_t start, std::uint64_t length) {
    dm_remap_record r =
        *rc::gen::arbitrary<bool>()
            ? pending(start, length)
            // Few places, so that neighbours often continue one another.
            : mapped(start, 1'000'000 + start + 64 * *rc::gen::inRange(0, 2), length);
    r.reason = 1 + *rc::gen::inRange(0, 2);
    return r;
}

unsigned any_flags() {
    const auto bits = *rc::gen::inRange<unsigned>(0, 8);
    return ((bits & 1) != 0 ? DM_REMAP_F_UNREADABLE : 0) | ((bits & 2) != 0 ? DM_REMAP_F_HELD : 0) |
           ((bits & 4) != 0 ? DM_REMAP_F_DOUBT : 0);
}

void any_edit(dm_remap_table* t, dm_remap_update* u, TableModel& model) {
    const auto [start, length] = any_range(t->sectors);
    switch (*rc::gen::inRange(0, 4)) {
        case 0:
        case 1: {
            const dm_remap_record r = any_record(start, length);
            RC_ASSERT(dm_remap_update_set(t, u, &r) == 0);
            model.set(r);
            break;
        }
        case 2:
            RC_ASSERT(dm_remap_update_clear(t, u, start, length) == 0);
            model.clear(start, length);
            break;
        default: {
            const unsigned on = any_flags();
            const unsigned off = any_flags() & ~on;
            RC_ASSERT(dm_remap_update_flags(t, u, start, length, on, off) == 0);
            model.flags(start, length, on, off);
        }
    }
}

void expect_same(Table& t, const TableModel& model) {
    const Records expected = model.records();
    RC_ASSERT(t.records() == expected);
    dm_remap_totals sum{};
    for (const Record& r : expected) {
        sum.records++;
        (r.kind == DM_REMAP_MAPPED ? sum.mapped : sum.pending) += r.length;
    }
    const dm_remap_totals totals = t.totals();
    RC_ASSERT(totals.records == sum.records);
    RC_ASSERT(totals.mapped == sum.mapped);
    RC_ASSERT(totals.pending == sum.pending);
    RC_ASSERT(totals.retired == 0U);
    RC_ASSERT(totals.unreadable == model.unreadable());
}

void expect_same_lookups(Table& t, const TableModel& model, std::uint64_t from, std::uint64_t to) {
    if (dm_remap_table_nothing(t.get(), from, to - from)) {
        const dm_remap_extent e = t.lookup(from, to - from);
        RC_ASSERT(e.kind == DM_REMAP_NONE && e.flags == 0 && e.length == to - from);
    }
    while (from < to) {
        const dm_remap_extent e = t.lookup(from, to - from);
        RC_ASSERT(e.length >= 1 && e.length <= to - from);
        for (std::uint64_t i = 0; i < e.length; i++) {
            const SectorState s = model.at(from + i);
            RC_ASSERT(s.kind == e.kind && s.flags == e.flags);
            RC_ASSERT(s.kind != DM_REMAP_MAPPED || s.spare == e.spare + i);
        }
        // It ends where something else begins, and not before.
        const SectorState last = model.at(from + e.length - 1);
        const SectorState next = model.at(from + e.length);
        const bool same = next.kind == last.kind && next.flags == last.flags &&
                          (next.kind != DM_REMAP_MAPPED || next.spare == last.spare + 1) &&
                          (next.kind == DM_REMAP_NONE || next.reason == last.reason);
        RC_ASSERT(from + e.length == to || !same);
        from += e.length;
    }
}

RC_GTEST_PROP(TableModel, SetClearFlagsLookupNextTotals, ()) {
    Table t(2 * kChunk);
    TableModel model;
    for (int updates = *rc::gen::inRange(0, 12); updates > 0; updates--) {
        dm_remap_update u{};
        dm_remap_update_init(&u);
        TableModel changed = model;
        for (int edits = *rc::gen::inRange(1, 5); edits > 0; edits--) {
            any_edit(t.get(), &u, changed);
        }
        if (*rc::gen::inRange(0, 5) == 0) {
            dm_remap_update_abandon(&u);
        } else {
            dm_remap_update_publish(t.get(), &u);
            model = changed;
        }
        expect_same(t, model);
    }
    RC_ASSERT(dm_remap_table_empty(t.get()) == model.empty());
    for (const std::uint64_t edge : {std::uint64_t{0}, kRegion, 2 * kRegion, kChunk}) {
        expect_same_lookups(t, model, edge < 100 ? 0 : edge - 100, edge + 200);
    }
    // A record that covers the sector, or else the next one.
    for (const Record& r : model.records()) {
        dm_remap_record next{};
        RC_ASSERT(dm_remap_table_next(t.get(), r.main + r.length - 1, &next));
        RC_ASSERT(plain(next) == r);
    }
    RC_ASSERT(dm_remap_table_resize(t.get(), 3 * kChunk) == 0);
    expect_same(t, model);

    // Built from its own records, it is the same.
    Table built(2 * kChunk);
    dm_remap_build b{};
    dm_remap_build_begin(&b, built.get());
    dm_remap_record r{};
    for (u64 from = 0; dm_remap_table_next(t.get(), from, &r); from = r.main + r.length) {
        RC_ASSERT(dm_remap_build_add(&b, &r) == 0);
    }
    RC_ASSERT(dm_remap_build_end(&b) == 0);
    expect_same(built, model);
}

// Whatever is published while a snapshot is read, it shows the table as it was when it began. The
// sanitizers see that nothing is freed too early or never.
RC_GTEST_PROP(TableModel, SnapshotIsOfOneMoment, ()) {
    Table t(2 * kChunk);
    TableModel model;
    auto publish = [&] {
        dm_remap_update u{};
        dm_remap_update_init(&u);
        for (int edits = *rc::gen::inRange(1, 4); edits > 0; edits--) {
            any_edit(t.get(), &u, model);
        }
        dm_remap_update_publish(t.get(), &u);
    };
    for (int rounds = *rc::gen::inRange(1, 4); rounds > 0; rounds--) {
        for (int i = *rc::gen::inRange(0, 6); i > 0; i--) {
            publish();
        }
        dm_remap_totals totals{};
        RC_ASSERT(dm_remap_snapshot_begin(t.get(), &totals) == 0);
        const Records expected = model.records();
        RC_ASSERT(totals.records == expected.size());

        Records seen;
        bool more = true;
        const bool to_the_end = *rc::gen::inRange(0, 4) != 0;
        for (int steps = *rc::gen::inRange(0, 20); more && steps > 0; steps--) {
            if (*rc::gen::arbitrary<bool>()) {
                publish();
            } else if (*rc::gen::inRange(0, 8) == 0) {
                dm_remap_update u{};
                dm_remap_update_init(&u);
                RC_ASSERT(dm_remap_update_clear(t.get(), &u, 0, 2 * kChunk) == 0);
                dm_remap_update_publish(t.get(), &u);
                model.clear(0, 2 * kChunk);
            } else {
                dm_remap_record r{};
                more = dm_remap_snapshot_next(t.get(), &r);
                if (more) {
                    seen.push_back(plain(r));
                }
            }
            expect_same(t, model);
        }
        if (to_the_end) {
            const Records rest = snapshot_rest(t.get());
            seen.insert(seen.end(), rest.begin(), rest.end());
            RC_ASSERT(seen == expected);
        }
        dm_remap_snapshot_end(t.get());
        expect_same(t, model);
    }
    RC_ASSERT(dm_remap_table_empty(t.get()) == model.empty());
}

TEST(TableSnapshot, RegionsEmptiedAndFilledMeanwhile) {
    Table t(4 * kChunk);
    t.set(mapped(10, 5000, 5));
    t.set(mapped(kRegion + 10, 6000, 5));
    const Records before = t.records();
    dm_remap_totals totals{};
    ASSERT_EQ(dm_remap_snapshot_begin(t.get(), &totals), 0);
    t.clear(0, 2 * kRegion);
    t.set(pending(2 * kRegion, 7));
    t.set(pending(kRegion, 7));
    t.clear(kRegion, kRegion);
    EXPECT_EQ(snapshot_rest(t.get()), before);
    EXPECT_EQ(t.records(), (Records{{DM_REMAP_PENDING, 2 * kRegion, 0, 7}}));
    dm_remap_snapshot_end(t.get());
    t.clear(2 * kRegion, 7);
    EXPECT_TRUE(dm_remap_table_empty(t.get()));
}

TEST(TableSnapshot, LeftOpenAtTheEndIsNotLeaked) {
    Table t(kChunk);
    t.set(mapped(10, 5000, 5));
    dm_remap_totals totals{};
    ASSERT_EQ(dm_remap_snapshot_begin(t.get(), &totals), 0);
    t.clear(0, kRegion);
}

// An edit that is being made must not read a leaf that goes with a snapshot that ends in between:
// the empty leaf of a region that was emptied while the snapshot still wanted it. The allocation
// inside the edit is where the other thread gets its turn.
dm_remap_table* racing_table;

TEST(TableSnapshot, EndsWhileAnEditIsMade) {
    Table t(kChunk);
    t.set(mapped(10, 5000, 5));
    dm_remap_totals totals{};
    ASSERT_EQ(dm_remap_snapshot_begin(t.get(), &totals), 0);
    t.clear(0, kRegion);

    dm_remap_update u{};
    dm_remap_update_init(&u);
    const dm_remap_record r = pending(100, 5);
    racing_table = t.get();
    dm_remap_zalloc_hook = [](size_t) {
        if (racing_table != nullptr) {
            dm_remap_table* racing = std::exchange(racing_table, nullptr);
            dm_remap_snapshot_end(racing);
        }
        return true;
    };
    const int ret = dm_remap_update_set(t.get(), &u, &r);
    dm_remap_zalloc_hook = nullptr;
    ASSERT_EQ(ret, 0);
    dm_remap_update_publish(t.get(), &u);
    EXPECT_EQ(t.records(), (Records{{DM_REMAP_PENDING, 100, 0, 5}}));
}

// ---- the ceiling ----

// 4 million records, no two of them neighbours. Bounds are loose: they are for a machine under
// sanitizers, and catch what is not linear.
TEST(TableCeiling, FourMillionScatteredRecords) {
    constexpr std::uint64_t kRecords = 4'000'000;
    constexpr std::uint64_t kStride = 1024;
    const auto begin = std::chrono::steady_clock::now();
    Table t(kRecords * kStride);
    dm_remap_build b{};
    dm_remap_build_begin(&b, t.get());
    for (std::uint64_t i = 0; i < kRecords; i++) {
        dm_remap_record r = mapped(i * kStride + 7, 100'000 + i * 8, 1);
        ASSERT_EQ(dm_remap_build_add(&b, &r), 0);
    }
    ASSERT_EQ(dm_remap_build_end(&b), 0);
    EXPECT_EQ(t.totals().records, kRecords);
    EXPECT_EQ(t.totals().mapped, kRecords);

    for (std::uint64_t i = 0; i < kRecords; i += 3) {
        const dm_remap_extent e = t.lookup(i * kStride + 7, 8);
        ASSERT_EQ(e.kind, DM_REMAP_MAPPED);
        ASSERT_EQ(e.spare, 100'000 + i * 8);
        ASSERT_EQ(e.length, 1U);
        ASSERT_EQ(t.lookup(i * kStride + 8, 8).kind, DM_REMAP_NONE);
    }

    dm_remap_totals totals{};
    ASSERT_EQ(dm_remap_snapshot_begin(t.get(), &totals), 0);
    dm_remap_record r{};
    std::uint64_t seen = 0;
    while (dm_remap_snapshot_next(t.get(), &r)) {
        ASSERT_EQ(r.main, seen++ * kStride + 7);
    }
    dm_remap_snapshot_end(t.get());
    EXPECT_EQ(seen, kRecords);
    t.clear(12'345 * kStride, kStride);
    EXPECT_EQ(t.totals().records, kRecords - 1);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

// Two threads begin and end watching. A table that has a record never seems empty.
TEST(TableWatch, NeverHidesARecord) {
    Table t(kGiB);
    t.set(mapped(1000, 8));
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < 2; i++) {
        threads.emplace_back([&t](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                dm_remap_table_watch(t.get(), true);
                dm_remap_table_watch(t.get(), false);
            }
        });
    }
    bool hidden = false;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
    while (!hidden && std::chrono::steady_clock::now() < end) {
        for (unsigned n = 0; n < 1000; n++) {
            hidden = hidden || dm_remap_table_empty(t.get());
        }
    }
    EXPECT_FALSE(hidden);
    threads.clear();
    EXPECT_FALSE(dm_remap_table_watched(t.get()));
    t.clear(1000, 8);
    EXPECT_TRUE(dm_remap_table_empty(t.get()));
}

}  // namespace
}  // namespace remap

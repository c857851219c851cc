#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kStart = 4096;

class Alloc {
  public:
    Alloc(std::uint64_t units, std::uint32_t granularity) {
        EXPECT_EQ(dm_remap_alloc_init(&a_, kStart, kStart + units * granularity, granularity), 0);
    }
    ~Alloc() { dm_remap_alloc_exit(&a_); }
    Alloc(const Alloc&) = delete;
    Alloc& operator=(const Alloc&) = delete;

    int take(std::uint32_t sectors, std::uint64_t* sector, std::uint32_t* taken) {
        return dm_remap_alloc_take(&a_, sectors, sector, taken);
    }
    std::uint64_t free_sectors() { return dm_remap_alloc_free_sectors(&a_); }
    dm_remap_alloc* operator->() { return &a_; }
    dm_remap_alloc* get() { return &a_; }

  private:
    dm_remap_alloc a_{};
};

// A vector of flags says what is taken; the allocator agrees after each step.
RC_GTEST_PROP(Allocator, AgreesWithAModel, ()) {
    const std::uint32_t g = 1U << *rc::gen::inRange(0, 4);
    // Around the edge of a page of 32,768 units, and tiny.
    const std::uint64_t units = *rc::gen::element(1, 63, 64, 65, 1000, 32767, 32768, 32769, 70'000);
    Alloc a(units, g);
    std::vector<bool> taken(units);
    std::uint64_t left = units;
    auto range = [&] {
        const auto from = *rc::gen::inRange<std::uint64_t>(0, units);
        const auto n =
            *rc::gen::inRange<std::uint64_t>(1, std::min<std::uint64_t>(units - from, 4000) + 1);
        return std::pair{from, n};
    };

    for (int step = *rc::gen::inRange(0, 60); step > 0; step--) {
        const int op = *rc::gen::inRange(0, 3);
        if (op == 0) {
            const auto wanted = *rc::gen::inRange<std::uint32_t>(1, 20'000);
            std::uint64_t sector = 0;
            std::uint32_t n = 0;
            const int ret = a.take(wanted * g, &sector, &n);
            RC_ASSERT(ret == (left != 0 ? 0 : -ENOSPC));
            RC_ASSERT((ret == 0) == (n != 0));
            RC_ASSERT(n <= wanted * g && n % g == 0);
            for (std::uint32_t i = 0; ret == 0 && i < n / g; i++) {
                RC_ASSERT(!taken.at((sector - kStart) / g + i));
                taken[(sector - kStart) / g + i] = true;
            }
            left -= n / g;
        } else if (op == 1) {
            const auto [from, n] = range();
            const bool all_free = std::none_of(taken.begin() + from, taken.begin() + from + n,
                                               [](bool t) { return t; });
            RC_ASSERT(dm_remap_alloc_mark(a.get(), kStart + from * g, n * g) ==
                      (all_free ? 0 : -EEXIST));
            if (all_free) {
                std::fill_n(taken.begin() + from, n, true);
                left -= n;
            }
        } else {
            const auto [from, n] = range();
            left += std::count(taken.begin() + from, taken.begin() + from + n, true);
            dm_remap_alloc_release(a.get(), kStart + from * g, n * g);
            std::fill_n(taken.begin() + from, n, false);
        }
        RC_ASSERT(a.free_sectors() == left * g);
    }
    RC_ASSERT(dm_remap_alloc_total_sectors(a.get()) == units * g);
}

TEST(Allocator, GivesAllItHas) {
    Alloc a(70'000, 8);
    std::uint64_t got = 0;
    std::uint64_t sector = 0;
    std::uint32_t n = 0;
    while (a.take(1 << 20, &sector, &n) == 0) {
        got += n;
    }
    EXPECT_EQ(got, 70'000U * 8);
    EXPECT_EQ(a.free_sectors(), 0U);
    dm_remap_alloc_release(a.get(), kStart + 8 * 12'345, 8);
    ASSERT_EQ(a.take(16, &sector, &n), 0);
    EXPECT_EQ(sector, kStart + 8 * 12'345);
    EXPECT_EQ(n, 8U);
}

// A sector that was given up rests: it is found again only when the rest has been used.
TEST(Allocator, GoesOnBehindTheLastOne) {
    Alloc a(100, 1);
    std::uint64_t first = 0;
    std::uint64_t next = 0;
    std::uint32_t n = 0;
    ASSERT_EQ(a.take(1, &first, &n), 0);
    dm_remap_alloc_release(a.get(), first, 1);
    for (int i = 0; i < 99; i++) {
        ASSERT_EQ(a.take(1, &next, &n), 0);
        EXPECT_NE(next, first);
    }
    ASSERT_EQ(a.take(1, &next, &n), 0);
    EXPECT_EQ(next, first);
}

TEST(Allocator, GoesOnBehindWhatWasMarked) {
    Alloc a(100'000, 1);
    std::uint64_t sector = 0;
    std::uint32_t n = 0;
    ASSERT_EQ(dm_remap_alloc_mark(a.get(), kStart + 50'000, 10), 0);
    ASSERT_EQ(a.take(1, &sector, &n), 0);
    EXPECT_EQ(sector, kStart + 50'010);
}

TEST(Allocator, NoMemory) {
    Alloc a(100'000, 1);
    std::uint64_t sector = 0;
    std::uint32_t n = 0;
    {
        FailAllocation fail(0);
        EXPECT_EQ(a.take(1, &sector, &n), -ENOMEM);
    }
    {
        FailAllocation fail(1);  // the first page, behind its group
        EXPECT_EQ(a.take(1, &sector, &n), -ENOMEM);
    }
    {
        FailAllocation fail(1);  // the second page of two
        EXPECT_EQ(dm_remap_alloc_mark(a.get(), kStart + 32'760, 20), -ENOMEM);
    }
    EXPECT_EQ(a.free_sectors(), 100'000U);
    {
        FailAllocation fail(0);
        dm_remap_alloc b{};
        EXPECT_EQ(dm_remap_alloc_init(&b, 0, 100, 1), -ENOMEM);
        dm_remap_alloc_exit(&b);
    }
}

// Memory follows use: a 16 TiB spare with one sector taken costs a few pages.
TEST(Allocator, HugeSpare) {
    Alloc a(1ULL << 32, 8);
    std::uint64_t sector = 0;
    std::uint32_t n = 0;
    ASSERT_EQ(dm_remap_alloc_mark(a.get(), kStart + 8 * ((1ULL << 32) - 1), 8), 0);
    ASSERT_EQ(a.take(8, &sector, &n), 0);
    EXPECT_EQ(sector, kStart);
}

// The kernel gives nobody more than INT_MAX bytes at once.
TEST(Allocator, LargestSpareNeedsNoLargeAllocation) {
    dm_remap_zalloc_hook = [](size_t size) { return size <= INT_MAX; };
    {
        Alloc a(DM_REMAP_MAX_SECTORS, 1);
        std::uint64_t sector = 0;
        std::uint32_t n = 0;
        ASSERT_EQ(dm_remap_alloc_mark(a.get(), kStart + DM_REMAP_MAX_SECTORS - 1, 1), 0);
        ASSERT_EQ(a.take(8, &sector, &n), 0);
        EXPECT_EQ(sector, kStart);
        dm_remap_alloc_release(a.get(), kStart + DM_REMAP_MAX_SECTORS - 1, 1);
        EXPECT_EQ(a.free_sectors(), DM_REMAP_MAX_SECTORS - 8);
    }
    dm_remap_zalloc_hook = nullptr;
}

}  // namespace
}  // namespace remap

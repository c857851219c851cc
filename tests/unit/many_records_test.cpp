// 100,000 records that are not neighbours, on the spare and back, byte for byte.
#include <gtest/gtest.h>

#include <algorithm>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kRecords = 100'000;

class ManyRecords : public ::testing::Test {
  protected:
    void SetUp() override {
        world = formatted({.main_sectors = 1 << 23,
                           .spare_sectors = 200'000,
                           .journal_blocks = 64,
                           .max_records = kRecords});
        md = open(*world);
        for (std::uint64_t i = 0; i < kRecords;) {
            std::vector<dm_remap_record> entries;
            for (; i < kRecords && entries.size() < DM_REMAP_ENTRIES_PER_BLOCK; i++) {
                const std::uint64_t spare = md->take();
                const Sector data = content(main_of(i));
                world->spare.write(spare, 1, data.data(), DM_REMAP_FUA);
                entries.push_back(mapped(main_of(i), spare));
            }
            ASSERT_EQ(md->commit(entries), 0);
        }
        ASSERT_EQ(md->records().size(), kRecords);
    }

    static std::uint64_t main_of(std::uint64_t i) { return i * 83 + i % 7; }
    static Sector content(std::uint64_t main) {
        Sector data;
        for (std::size_t k = 0; k < data.size(); k++) {
            data[k] = static_cast<std::uint8_t>((main * 2654435761U >> (k % 4 * 8)) + k);
        }
        return data;
    }

    void expect_all_back() {
        md.reset();
        md = open(*world);
        ASSERT_EQ(md->records().size(), kRecords);
        for (std::uint64_t i = 0; i < kRecords; i++) {
            const dm_remap_extent e = md->lookup(main_of(i), 100);
            ASSERT_EQ(e.kind, DM_REMAP_MAPPED);
            ASSERT_EQ(e.length, 1U);
            const auto data = world->spare.peek(e.spare, 1);
            const Sector expected = content(main_of(i));
            ASSERT_TRUE(std::equal(data.begin(), data.end(), expected.begin())) << i;
        }
    }

    std::unique_ptr<World> world;
    std::unique_ptr<Metadata> md;
};

TEST_F(ManyRecords, AllBackAfterACrashRightAfterTheLastCommit) {
    world->spare.power_off();
    world->spare.power_on([](auto, auto) { return false; });
    expect_all_back();
}

TEST_F(ManyRecords, AllBackAfterAnOrderlyStop) {
    ASSERT_EQ(md->deactivate(), 0);
    world->spare.power_off();
    world->spare.power_on([](auto, auto) { return false; });
    expect_all_back();
    EXPECT_EQ(md->report.replayed, 0U);
}

}  // namespace
}  // namespace remap

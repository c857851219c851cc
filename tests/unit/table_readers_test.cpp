// Readers without a lock beside the writer. Here a grace period is simply never over before the
// test ends: what call_rcu gets is kept until the readers have gone.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "rig.h"

namespace remap {
namespace {

constexpr std::uint64_t kRegion = DM_REMAP_REGION_SECTORS;

class DeferredFrees {
  public:
    DeferredFrees() {
        waiting().clear();
        dm_remap_call_rcu_hook = [](rcu_head* head, void (*func)(rcu_head*)) {
            waiting().emplace_back(head, func);
        };
    }
    ~DeferredFrees() {
        dm_remap_call_rcu_hook = nullptr;
        for (auto [head, func] : waiting()) {
            func(head);
        }
    }
    DeferredFrees(const DeferredFrees&) = delete;
    DeferredFrees& operator=(const DeferredFrees&) = delete;

  private:
    static std::vector<std::pair<rcu_head*, void (*)(rcu_head*)>>& waiting() {
        static std::vector<std::pair<rcu_head*, void (*)(rcu_head*)>> all;
        return all;
    }
};

dm_remap_table table;

void publish(auto edit) {
    dm_remap_update u{};
    dm_remap_update_init(&u);
    ASSERT_EQ(edit(&u), 0);
    dm_remap_update_publish(&table, &u);
}

// Two records within one region change places again and again, with filling that moves the rest of
// the leaf about. A reader of either finds it at one of its two places: never gone, never
// elsewhere.
TEST(TableReaders, SeeTheOldStateOrTheNew) {
    ASSERT_EQ(dm_remap_table_init(&table, 4 * kRegion), 0);
    std::atomic<bool> stop = false;
    std::atomic<std::uint64_t> lookups = 0;
    std::atomic<std::uint64_t> wrong = 0;
    {
        DeferredFrees deferred;
        publish([](auto* u) {
            const dm_remap_record r = mapped(1000, 5000, 16);
            return dm_remap_update_set(&table, u, &r);
        });
        auto reader = [&] {
            while (!stop) {
                dm_remap_extent e{};
                dm_remap_table_lookup(&table, 1004, 8, &e);
                const bool good = e.kind == DM_REMAP_MAPPED && e.length == 8 &&
                                  (e.spare == 5004 || e.spare == 9004);
                // Across the edge of two regions: each answer is of one leaf or the other.
                dm_remap_extent edge{};
                dm_remap_table_lookup(&table, kRegion - 2, 4, &edge);
                const bool edge_good = edge.kind == DM_REMAP_NONE ||
                                       (edge.kind == DM_REMAP_PENDING && edge.length >= 2);
                wrong += !good + !edge_good;
                lookups++;
            }
        };
        std::thread a(reader);
        std::thread b(reader);
        for (unsigned i = 0; i < 3000; i++) {
            publish([&](auto* u) {
                const dm_remap_record r = mapped(1000, i % 2 != 0 ? 5000 : 9000, 16);
                return dm_remap_update_set(&table, u, &r);
            });
            publish([&](auto* u) {
                const dm_remap_record filling = pending(100 + i % 100 * 4, 2);
                return i % 3 != 0 ? dm_remap_update_set(&table, u, &filling)
                                  : dm_remap_update_clear(&table, u, 0, 900);
            });
            publish([&](auto* u) {
                const dm_remap_record r = pending(kRegion - 2, 4);
                return i % 2 != 0 ? dm_remap_update_set(&table, u, &r)
                                  : dm_remap_update_clear(&table, u, kRegion - 2, 4);
            });
        }
        while (lookups < 1000) {
            std::this_thread::yield();
        }
        stop = true;
        a.join();
        b.join();
    }
    EXPECT_EQ(wrong, 0U);
    dm_remap_table_exit(&table);
}

}  // namespace
}  // namespace remap

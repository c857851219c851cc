// The core by itself, native: what a lookup, a change and a load cost with many records. Time here
// is noise on a machine that does other things; compare within one run.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <system_error>
#include <vector>

#include "core.h"
#include "memory_disk.h"

namespace remap::bench {
namespace {

constexpr u64 kMain = u64{1} << 32;  // 2 TiB
constexpr u64 kMillion = 1'000'000;
constexpr size_t kQuestions = 1 << 20;

void must(int error) {
    if (error != 0) {
        throw std::system_error(-error, std::generic_category());
    }
}

enum class Spread {
    kScattered,  // anywhere on main
    kClustered,  // a thousand records here and there, three sectors apart
};

std::vector<u64> places(Spread spread, u64 count) {
    std::mt19937_64 random(1);
    std::vector<u64> at(count);
    const u64 slot = kMain / count;
    for (u64 i = 0; i < count; i++) {
        at[i] = spread == Spread::kScattered ? i * slot + random() % (slot - 1)
                                             : i / 1000 * (slot * 1000) + i % 1000 * 3;
    }
    return at;
}

// A spare with records on it, made as the kernel makes them: commits, then a checkpoint.
class Spare {
  public:
    Spare(Spread spread, u64 count)
        : at_(places(spread, count)), disk_(count * 2 + count / 2 + (1 << 16)) {
        dm_remap_format_params params{};
        params.spare_sectors = disk_.sectors();
        params.granularity = 1;
        params.max_records = count + 1000;
        params.uuid[0] = 1;
        params.main.sectors = kMain;
        dm_remap_report report{};
        must(dm_remap_format(&MemoryDisk::kOps, &disk_, &params, &report));
        open(metadata_);
        must(dm_remap_activate(&metadata_, nullptr, &report));
        std::vector<dm_remap_record> batch;
        for (const u64 sector : at_) {
            batch.push_back(record(sector));
            if (batch.size() == DM_REMAP_ENTRIES_PER_BLOCK || sector == at_.back()) {
                must(dm_remap_commit(&metadata_, batch.data(), static_cast<u32>(batch.size())));
                batch.clear();
            }
        }
        must(dm_remap_checkpoint(&metadata_, DM_REMAP_STATE_DIRTY));
    }
    ~Spare() { dm_remap_metadata_exit(&metadata_); }
    Spare(const Spare&) = delete;
    Spare& operator=(const Spare&) = delete;

    // Made once; a million records take a while.
    static Spare& with(Spread spread, u64 count = kMillion) {
        static std::map<std::pair<Spread, u64>, std::unique_ptr<Spare>> made;
        auto& spare = made[{spread, count}];
        if (!spare) {
            spare = std::make_unique<Spare>(spread, count);
        }
        return *spare;
    }

    void open(dm_remap_metadata& metadata) {
        dm_remap_report report{};
        must(dm_remap_metadata_init(&metadata, &MemoryDisk::kOps, &disk_));
        must(dm_remap_load(&metadata, disk_.sectors(), kMain, &report));
    }
    dm_remap_table& table() { return metadata_.table; }
    // Of each copy on the disk.
    [[nodiscard]] u64 table_bytes() const {
        return u64{metadata_.sb.table_count} * DM_REMAP_BLOCK_SIZE;
    }
    [[nodiscard]] const std::vector<u64>& at() const { return at_; }

    dm_remap_record record(u64 sector) {
        u64 spare = 0;
        u32 taken = 0;
        must(dm_remap_alloc_take(&metadata_.alloc, 1, &spare, &taken));
        return {.main = sector,
                .spare = spare,
                .length = 1,
                .kind = DM_REMAP_MAPPED,
                .reason = DM_REMAP_REASON_WRITE_ERROR,
                .flags = 0,
                .first_time = 1'700'000'000,
                .last_time = 1'700'000'000};
    }

  private:
    std::vector<u64> at_;
    MemoryDisk disk_;
    dm_remap_metadata metadata_{};
};

// ---- lookup ----

void ask(benchmark::State& state, const dm_remap_table& table, const std::vector<u64>& sectors) {
    size_t i = 0;
    for (auto _ : state) {
        dm_remap_extent extent;
        dm_remap_table_lookup(&table, sectors[i++ % kQuestions], 8, &extent);
        benchmark::DoNotOptimize(extent);
    }
}

std::vector<u64> anywhere() {
    std::mt19937_64 random(2);
    std::vector<u64> sectors(kQuestions);
    std::generate(sectors.begin(), sectors.end(), [&] { return random() % (kMain - 8); });
    return sectors;
}

std::vector<u64> near_records(const Spare& spare, u64 offset) {
    std::mt19937_64 random(3);
    std::vector<u64> sectors(kQuestions);
    std::generate(sectors.begin(), sectors.end(),
                  [&] { return spare.at()[random() % spare.at().size()] + offset; });
    return sectors;
}

void lookup_scattered(benchmark::State& state) {
    ask(state, Spare::with(Spread::kScattered).table(), anywhere());
}
void lookup_hits_scattered(benchmark::State& state) {
    auto& spare = Spare::with(Spread::kScattered);
    ask(state, spare.table(), near_records(spare, 0));
}
void lookup_hits_clustered(benchmark::State& state) {
    auto& spare = Spare::with(Spread::kClustered);
    ask(state, spare.table(), near_records(spare, 0));
}
void lookup_misses_clustered(benchmark::State& state) {
    auto& spare = Spare::with(Spread::kClustered);
    ask(state, spare.table(), near_records(spare, 1));
}
// The directory alone decides.
void lookup_in_regions_without_records(benchmark::State& state) {
    std::mt19937_64 random(4);
    std::vector<u64> sectors(kQuestions);
    const u64 slot = kMain / kMillion * 1000;
    std::generate(sectors.begin(), sectors.end(),
                  [&] { return random() % (kMain / slot) * slot + slot / 2; });
    ask(state, Spare::with(Spread::kClustered).table(), sectors);
}
BENCHMARK(lookup_scattered);
BENCHMARK(lookup_hits_scattered);
BENCHMARK(lookup_hits_clustered);
BENCHMARK(lookup_misses_clustered);
BENCHMARK(lookup_in_regions_without_records);

// ---- changes ----

template <typename Edit>
void publish(dm_remap_table& table, const Edit& edit) {
    dm_remap_update update;
    dm_remap_update_init(&update);
    must(edit(&update));
    dm_remap_update_publish(&table, &update);
}

enum class Change { kInsert, kRemove };

// One is timed, the other makes up for it.
void change(benchmark::State& state, Spread spread, Change timed) {
    constexpr benchmark::IterationCount kBatch = 1024;
    auto& spare = Spare::with(spread);
    auto& table = spare.table();
    const auto sectors = anywhere();
    dm_remap_record record = spare.record(0);
    const auto all = [&](size_t first, Change what) {
        for (size_t i = first; i < first + kBatch; i++) {
            record.main = sectors[i % kQuestions];
            publish(table, [&](dm_remap_update* update) {
                return what == Change::kInsert
                           ? dm_remap_update_set(&table, update, &record)
                           : dm_remap_update_clear(&table, update, record.main, 1);
            });
        }
    };
    for (size_t i = 0; state.KeepRunningBatch(kBatch); i += kBatch) {
        if (timed == Change::kRemove) {
            state.PauseTiming();
            all(i, Change::kInsert);
            state.ResumeTiming();
        }
        all(i, timed);
        if (timed == Change::kInsert) {
            state.PauseTiming();
            all(i, Change::kRemove);
            state.ResumeTiming();
        }
    }
}
BENCHMARK_CAPTURE(change, insert_scattered, Spread::kScattered, Change::kInsert);
BENCHMARK_CAPTURE(change, remove_scattered, Spread::kScattered, Change::kRemove);
BENCHMARK_CAPTURE(change, insert_clustered, Spread::kClustered, Change::kInsert);
BENCHMARK_CAPTURE(change, remove_clustered, Spread::kClustered, Change::kRemove);

// A batch into one region that is full of records.
void insert_a_full_block(benchmark::State& state) {
    Spare spare(Spread::kClustered, 10'000);
    std::vector<dm_remap_record> batch;
    for (u64 i = 0; i < DM_REMAP_ENTRIES_PER_BLOCK; i++) {
        batch.push_back(spare.record(i * 6 + 1));
    }
    for (auto _ : state) {
        dm_remap_update update;
        dm_remap_update_init(&update);
        for (const auto& record : batch) {
            must(dm_remap_update_set(&spare.table(), &update, &record));
        }
        dm_remap_update_abandon(&update);
    }
}
BENCHMARK(insert_a_full_block);

void encode_a_commit(benchmark::State& state) {
    Spare spare(Spread::kScattered, 1000);
    std::vector<dm_remap_record> batch;
    for (u64 i = 0; i < DM_REMAP_ENTRIES_PER_BLOCK; i++) {
        batch.push_back(spare.record(i * 16));
    }
    dm_remap_super super{};
    dm_remap_disk_block block{};
    for (auto _ : state) {
        dm_remap_header_fill(&block.header, DM_REMAP_JOURNAL, &super, 1, 2,
                             DM_REMAP_ENTRIES_PER_BLOCK);
        for (size_t i = 0; i < batch.size(); i++) {
            dm_remap_entry_encode(&block.entry[i], &batch[i]);
        }
        dm_remap_block_seal(&block, 8);
        benchmark::DoNotOptimize(block);
    }
}
BENCHMARK(encode_a_commit);

// ---- load ----

void load(benchmark::State& state) {
    auto& spare = Spare::with(Spread::kScattered, static_cast<u64>(state.range(0)));
    for (auto _ : state) {
        dm_remap_metadata metadata{};
        spare.open(metadata);
        state.PauseTiming();
        dm_remap_metadata_exit(&metadata);
        state.ResumeTiming();
    }
}
BENCHMARK(load)->Arg(1000)->Arg(kMillion)->Arg(4 * kMillion)->Unit(benchmark::kMillisecond);

// No time, but bytes of a record.
void table_on_disk(benchmark::State& state) {
    for (auto _ : state) {
    }
    state.counters["bytes"] =
        static_cast<double>(Spare::with(Spread::kScattered).table_bytes()) / kMillion;
}
BENCHMARK(table_on_disk)->Iterations(1);

}  // namespace
}  // namespace remap::bench

BENCHMARK_MAIN();

// What a write costs that main refuses: the I/Os to both devices until it is acknowledged, and its
// time.

#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>

#include "aio.h"
#include "backing.h"
#include "block.h"
#include "lab.h"
#include "remap.h"

namespace remap::bench {
namespace {

using vm::DmDevice;

constexpr size_t kBad = 512;       // sectors that can't be written; null_blk takes no more
constexpr size_t kFew = 30;        // of them: their commits fill no journal
constexpr uint64_t kApart = 1024;  // sectors from one to the next

// Somebody who writes other sectors, one after the other, for a scope: what ends well shows that
// main works.
class Others {
  public:
    explicit Others(const std::string& path)
        : thread_([file = vm::BlockFile(path)](const std::stop_token& stop) {
              const vm::Buffer block(vm::kSector);
              while (!stop.stop_requested()) {
                  (void)file.write(kApart / 2, block.bytes());
              }
          }) {}

  private:
    std::jthread thread_;
};

struct Kind {
    const char* name;
    unsigned depth;
    bool others;
};

class Relocation : public testing::TestWithParam<Kind> {};

TEST_P(Relocation, OfFailedWrites) {
    vm::NullBlk main({.size_mb = 1024});
    const vm::NullBlk spare({.size_mb = 64});
    const DmDevice device("remap", vm::remap_table(main.path(), spare.path(), {"format"}));
    std::vector<uint64_t> at(kBad);
    for (size_t i = 0; i < at.size(); i++) {
        at[i] = (i + 1) * kApart;
        main.add_bad(at[i], 1);
    }

    const std::string name = std::string("relocation/") + GetParam().name + "/";
    std::optional<Others> others;
    if (GetParam().others) {
        others.emplace(device.path());
    }
    const auto relocate = [&](std::span<const uint64_t> sectors, const std::string& suffix) {
        const Requests main_before = requests(main.path());
        const Requests spare_before = requests(spare.path());
        const double time =
            time_per_io(device.path(),
                        {.write = true, .bytes = vm::kSector, .depth = GetParam().depth}, sectors);
        const auto each = [&](uint64_t after, uint64_t before) {
            return static_cast<double>(after - before) / static_cast<double>(sectors.size());
        };
        const Requests on_main = requests(main.path());
        const Requests on_spare = requests(spare.path());
        report(name + "main-reads" + suffix, each(on_main.reads, main_before.reads));
        report(name + "main-writes" + suffix, each(on_main.writes, main_before.writes));
        report(name + "spare-reads" + suffix, each(on_spare.reads, spare_before.reads));
        report(name + "spare-writes" + suffix, each(on_spare.writes, spare_before.writes));
        report(name + "time" + suffix, time);
    };
    relocate(std::span(at).first(kFew), "");
    relocate(std::span(at).subspan(kFew), "-with-checkpoints");
    ASSERT_EQ(vm::remap_status(device).number("relocated"), kBad);
}

INSTANTIATE_TEST_SUITE_P(Bench, Relocation,
                         testing::Values(Kind{"alone", 1, false}, Kind{"others", 1, true},
                                         Kind{"32", 32, false}));

}  // namespace
}  // namespace remap::bench

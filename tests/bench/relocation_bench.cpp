// What a write costs that main refuses: the I/Os to both devices until it is acknowledged, and its
// time.

#include <array>
#include <fstream>
#include <span>

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

// Requests that a disk has completed since it is there.
struct Requests {
    uint64_t reads = 0;
    uint64_t writes = 0;
};

Requests requests(const std::string& disk) {
    std::ifstream stat("/sys/block/" + disk.substr(disk.rfind('/') + 1) + "/stat");
    std::array<uint64_t, 5> field{};  // Documentation/block/stat.rst
    for (auto& value : field) {
        stat >> value;
    }
    return {field[0], field[4]};
}

class Relocation : public testing::TestWithParam<unsigned> {};

TEST_P(Relocation, OfFailedWrites) {
    vm::NullBlk main({.size_mb = 1024});
    const vm::NullBlk spare({.size_mb = 64});
    const DmDevice device("remap", vm::remap_table(main.path(), spare.path(), {"format"}));
    std::vector<uint64_t> at(kBad);
    for (size_t i = 0; i < at.size(); i++) {
        at[i] = (i + 1) * kApart;
        main.add_bad(at[i], 1);
    }

    const std::string name = "relocation/" + std::to_string(GetParam()) + "/";
    const auto relocate = [&](std::span<const uint64_t> sectors, const std::string& suffix) {
        const Requests main_before = requests(main.path());
        const Requests spare_before = requests(spare.path());
        const double time = time_per_io(
            device.path(), {.write = true, .bytes = vm::kSector, .depth = GetParam()}, sectors);
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

INSTANTIATE_TEST_SUITE_P(Bench, Relocation, testing::Values(1, 32));

}  // namespace
}  // namespace remap::bench

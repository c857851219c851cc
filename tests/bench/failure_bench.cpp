// Commands of main that bad blocks cost: those that fail, each of which takes a disk many seconds,
// and those that do not.

#include <algorithm>
#include <cerrno>

#include "block.h"
#include "lab.h"
#include "remap.h"
#include "trace.h"

namespace remap::bench {
namespace {

constexpr uint64_t kFirstBad = 10248;
constexpr uint64_t kApart = 16;
constexpr unsigned kReadRetries = 2;  // as it is by itself

struct Failing {
    const char* name;
    uint64_t sectors;  // of the request
    unsigned bad;      // of them
};

class UnderFailure : public testing::TestWithParam<Failing> {
  protected:
    void measure(bool writes) const {
        vm::NullBlk main({.size_mb = 16});
        const vm::LoopDevice spare(16 << 20);
        const vm::DmDevice device("remap", vm::remap_table(main.path(), spare.path(), {"format"}));
        const vm::BlockFile mapped(device.path());
        const vm::Buffer buffer(GetParam().sectors * vm::kSector);
        const uint64_t at = kFirstBad - buffer.sectors() / 4;
        const auto ask = [&] {
            return writes ? mapped.write(at, buffer.bytes()) : mapped.read(at, buffer.bytes());
        };
        // The queue may make several requests of one.
        const Requests begin = requests(main.path());
        ASSERT_EQ(ask(), 0);
        const uint64_t cut = requests(main.path()).all() - begin.all();

        for (unsigned i = 0; i < GetParam().bad; i++) {
            main.add_bad(kFirstBad + i * kApart, 1);
        }
        const vm::Trace errors("block/block_rq_error", main.path());
        const Requests before = requests(main.path());
        ASSERT_EQ(ask(), writes ? 0 : EIO);
        const uint64_t failed = errors.count();
        const uint64_t all = requests(main.path()).all() - before.all();
        const unsigned each = writes ? 3 : 1 + std::max(2U, 1 + kReadRetries);
        const std::string name =
            std::string("failure/") + (writes ? "write-" : "read-") + GetParam().name + "/";
        report(name + "failing", static_cast<double>(failed));
        report(name + "most", static_cast<double>(each * GetParam().bad + cut - 1));
        report(name + "good", static_cast<double>(all - failed));
    }
};

TEST_P(UnderFailure, OfWrites) {
    measure(true);
}

TEST_P(UnderFailure, OfReads) {
    measure(false);
}

INSTANTIATE_TEST_SUITE_P(Bench, UnderFailure,
                         testing::Values(Failing{"4k-1", 8, 1}, Failing{"1m-1", 2048, 1},
                                         Failing{"1m-2", 2048, 2}, Failing{"1m-40", 2048, 40}));

}  // namespace
}  // namespace remap::bench

// Relocated by itself, and found after the power was cut right behind the last acknowledgement.

#include <gmock/gmock.h>

#include <optional>

#include "backing.h"
#include "block.h"
#include "failing.h"
#include "harness.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

constexpr uint64_t kSectors = 65536;
constexpr unsigned kBad = 500;

class RebootRelocated : public testing::Test {
  protected:
    void open(const std::vector<std::string>& features = {}) {
        device.emplace("remap",
                       remap_table(main.path(), machine_disk("spare"), features, kSectors));
    }

    FailingDisk main{"main", machine_disk("main")};
    std::optional<DmDevice> device;
};

TEST_F(RebootRelocated, Phase1CutPowerRightAfterTheLastWrite) {
    main.fail(scattered_ranges(kSectors - 16, kBad, 3, 1), Fails::kWrites);
    main.fail(kSectors - 8, 1, Fails::kAll);
    open({"format"});
    const BlockFile mapped(device->path());
    write_pattern(mapped, 0, kSectors - 16, 1);
    ASSERT_EQ(mapped.flush(), 0);
    write_pattern(mapped, kSectors - 16, 16, 2);
    cut_power();
}

TEST_F(RebootRelocated, Phase2FindThemAndAFailedRead) {
    main.fail(20000, 2, Fails::kAll);
    open();
    EXPECT_THAT(remap_list(*device), SizeIs(kBad + 1));
    const BlockFile mapped(device->path());
    EXPECT_THAT(unreadable(mapped, 19990, 20), ElementsAre(20000, 20001));
    EXPECT_TRUE(verify_pattern(mapped, 0, 20000, 1));
    EXPECT_TRUE(verify_pattern(mapped, 20002, kSectors - 20018, 1));
    EXPECT_TRUE(verify_pattern(mapped, kSectors - 16, 16, 2));
    // Soft until it is saved.
    EXPECT_EQ(remap_status(*device).number("pending"), 2U);
    device->message("save");
    cut_power();
}

TEST_F(RebootRelocated, Phase3TheFailedReadIsKnown) {
    open();
    EXPECT_EQ(remap_status(*device).number("pending"), 2U);
    EXPECT_EQ(remap_status(*device).number("records"), kBad + 2U);
    device->remove();
    register_spare(machine_disk("spare"));
}

}  // namespace
}  // namespace remap::vm

#include "offline.h"

#include "block_device.h"
#include "offline_spare.h"
#include "spare_health.h"

namespace remap::vm {

testing::AssertionResult is_sound(const std::string& spare) {
    const BlockDevice device = BlockDevice::open(spare, Access::read, Sharing::shared).value();
    OfflineSpare offline(device);
    offline.load();
    const SpareHealth health = judge(offline, device.sectors());
    if (health.soundness == Soundness::sound) {
        return testing::AssertionSuccess();
    }
    auto failure = testing::AssertionFailure()
                   << spare << ": " << soundness_name(health.soundness) << " " << offline.refusal();
    for (const auto& problem : health.problems) {
        failure << "; " << problem;
    }
    return failure;
}

dm_remap_main_id known_main(const std::string& spare) {
    const BlockDevice device = BlockDevice::open(spare, Access::read, Sharing::shared).value();
    OfflineSpare offline(device);
    EXPECT_TRUE(offline.load()) << offline.refusal();
    return offline.super().main;
}

}  // namespace remap::vm

// The background save and its module parameters.

#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "harness.h"
#include "kernel_log.h"
#include "remap.h"
#include "within.h"

namespace remap::vm {
namespace {

using namespace std::chrono_literals;

constexpr const char* kEnabled = "/sys/module/dm_remap/parameters/dm_remap_autosave_enabled";
constexpr const char* kInterval = "/sys/module/dm_remap/parameters/dm_remap_autosave_interval";

int write_error(const char* path, const std::string& value) {
    try {
        write_value(path, value);
        return 0;
    } catch (const std::system_error& e) {
        return e.code().value();
    }
}

class Autosave : public testing::Test {
  protected:
    void SetUp() override {
        run_ok({"modprobe", "dm_remap"});
        main.fail_reads(1000, 1);
    }
    void TearDown() override {
        write_value(kEnabled, "Y");
        write_value(kInterval, "60");
    }
    // A counter changes: soft state.
    void make_dirty(const DmDevice& device) {
        const BlockFile mapped(device.path());
        const Buffer block(kSector);
        ASSERT_EQ(mapped.read(1000, block.bytes()), EIO);  // a medium error, and for good
    }

    ScsiDebug main{{"dev_size_mb=16"}};
    LoopDevice spare{16 << 20};
};

TEST_F(Autosave, ParametersHaveTheirDefaultsAndBounds) {
    const DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    EXPECT_EQ(read_value(kEnabled), "Y");
    EXPECT_EQ(read_value(kInterval), "60");
    for (const char* wrong : {"0", "3601", "-1", "x", "99999999999"}) {
        EXPECT_EQ(write_error(kInterval, wrong), EINVAL) << wrong;
        EXPECT_EQ(read_value(kInterval), "60");
    }
    EXPECT_EQ(write_error(kEnabled, "maybe"), EINVAL);
    EXPECT_EQ(write_error(kInterval, "3600"), 0);
    EXPECT_EQ(write_error(kInterval, "1"), 0);
    EXPECT_EQ(remap_status(device).values.at("autosave"), "1");
    EXPECT_EQ(write_error(kEnabled, "0"), 0);
    EXPECT_EQ(remap_status(device).values.at("autosave"), "off");
    register_spare(spare.path());
}

TEST_F(Autosave, SavesWhenDirtyAndOnlyThen) {
    const DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
    register_spare(spare.path());
    make_dirty(device);
    EXPECT_EQ(remap_status(device).state, "DIRTY");
    // The interval of a minute gives way to the new one at once.
    write_value(kInterval, "1");
    EXPECT_TRUE(within(5s, [&] { return remap_status(device).state == "CLEAN"; }));
    EXPECT_EQ(remap_status(device).number("saves"), 1U);
    EXPECT_EQ(remap_status(device).number("save_errors"), 0U);
    std::this_thread::sleep_for(3s);
    EXPECT_EQ(remap_status(device).number("saves"), 1U) << "nothing was dirty";

    write_value(kEnabled, "N");
    make_dirty(device);
    std::this_thread::sleep_for(3s);
    EXPECT_EQ(remap_status(device).state, "DIRTY");
    write_value(kEnabled, "Y");
    EXPECT_TRUE(within(5s, [&] { return remap_status(device).state == "CLEAN"; }));
    EXPECT_EQ(remap_status(device).number("saves"), 2U);
}

TEST_F(Autosave, WhatItSavesOutlivesTheDevice) {
    register_spare(spare.path());
    write_value(kInterval, "1");
    {
        const DmDevice device("remap", remap_table(main.path(), spare.path(), {"format"}));
        make_dirty(device);
        EXPECT_TRUE(within(5s, [&] { return remap_status(device).state == "CLEAN"; }));
    }
    const DmDevice device("remap", remap_table(main.path(), spare.path()));
    EXPECT_EQ(remap_status(device).number("read_errors"), 1U);
}

TEST_F(Autosave, AFailedSaveIsSeenAndTriedAgain) {
    const std::string plain = spare.path() + " 0";
    DmDevice under("under", {{0, 32768, "linear", plain}});
    {
        const DmDevice device("remap", remap_table(main.path(), under.path(), {"format"}));
        make_dirty(device);
        const uint32_t events = device.info().event_nr;
        KernelLog log;
        // Reads go on, writes fail.
        under.reload({{0, 32768, "flakey", plain + " 0 60 1 error_writes"}});
        write_value(kInterval, "1");
        EXPECT_TRUE(within(8s, [&] { return remap_status(device).number("save_errors") >= 2; }));
        EXPECT_EQ(remap_status(device).mode, "ro");
        EXPECT_EQ(remap_status(device).state, "ERROR");
        EXPECT_GT(device.info().event_nr, events);
        EXPECT_TRUE(log.contains("autosave failed", 1000));
        under.reload({{0, 32768, "linear", plain}});
        EXPECT_TRUE(within(8s, [&] { return remap_status(device).mode == "rw"; }));
        EXPECT_EQ(remap_status(device).state, "CLEAN");
    }
    register_spare(spare.path());
}

}  // namespace
}  // namespace remap::vm

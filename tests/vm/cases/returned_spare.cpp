// A spare that is pulled while the device is in use, and comes back under another name.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include <cerrno>
#include <optional>
#include <string>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "failing.h"
#include "harness.h"
#include "kernel_log.h"
#include "remap.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

constexpr uint64_t kMiB = 1 << 20;
constexpr const char* kImage = "/tmp/spare.img";

// Past the page cache of a device, which nobody empties while the device is in use.
void copy(const std::string& from, const std::string& to) {
    std::vector<std::string> command = {"dd", "if=" + from, "of=" + to, "bs=1M"};
    command.emplace_back(from == kImage ? "oflag=direct" : "iflag=direct");
    run_ok(command);
    run_ok({"sync"});
}

// Main is full of the pattern of seed 1, and sectors 1000 to 1007 of seed 2 are on the spare.
class ReturnedSpare : public testing::Test {
  protected:
    ReturnedSpare() {
        write_pattern(BlockFile(main.path()), 0, kSectors, 1);
        main.fail(1000, 8, Fails::kWrites);
        device.emplace("remap", table({"format"}));
        write_pattern(BlockFile(device->path()), 1000, 8, 2);
    }
    ~ReturnedSpare() override { run({"rm", "-f", kImage}); }

    Table table(const std::vector<std::string>& features = {}, unsigned disk = 0) {
        return remap_table(main.path(), spares.path(disk), features);
    }
    void unplug() { spares.unplug(); }
    void plug_in() {
        const std::string before = spares.path();
        spares.plug_in();
        EXPECT_NE(spares.path(), before);
    }
    int write(uint64_t sector, uint64_t count, uint64_t seed, int rwf = 0) {
        const Buffer buffer(count * kSector);
        fill_pattern(buffer.bytes(), sector, seed);
        return BlockFile(device->path()).write(sector, buffer.bytes(), rwf);
    }
    int read(uint64_t sector, uint64_t count) {
        const Buffer buffer(count * kSector);
        return BlockFile(device->path()).read(sector, buffer.bytes());
    }
    void expect_data() {
        const BlockFile mapped(device->path());
        EXPECT_TRUE(verify_pattern(mapped, 0, 1000, 1));
        EXPECT_TRUE(verify_pattern(mapped, 1000, 8, 2));
        EXPECT_TRUE(verify_pattern(mapped, 1008, kSectors - 1008, 1));
    }
    // It moves data, and another start finds all of it.
    void expect_to_go_on() {
        EXPECT_EQ(remap_status(*device).mode, "rw");
        expect_data();
        main.fail(3000, 8, Fails::kWrites);
        EXPECT_EQ(write(3000, 8, 1), 0);
        EXPECT_THAT(remap_list(*device), SizeIs(2));
        register_spare(spares.path());
        device.emplace("remap", table());
        EXPECT_THAT(remap_brief(*device),
                    ElementsAre("1000 8 mapped write_error", "3000 8 mapped write_error"));
        expect_data();
    }
    // A load is refused with this reason, and the live table serves on.
    void expect_refused(const Table& other, const std::string& reason) {
        KernelLog log;
        EXPECT_THROW(device->load(other), DmError);
        EXPECT_TRUE(log.contains(reason)) << reason;
        EXPECT_TRUE(verify_pattern(BlockFile(device->path()), 0, 1000, 1));
        EXPECT_EQ(remap_status(*device).number("remapped"), 8U);
    }

    static constexpr uint64_t kSectors = 16 * kMiB / kSector;

    LoopDevice main_disk{16 * kMiB};
    ScsiDebug spares{{"dev_size_mb=16"}, 2};
    FailingDisk main{"main", main_disk.path()};
    std::optional<DmDevice> device;
};

TEST_F(ReturnedSpare, ServesOnUnderItsNewName) {
    unplug();
    EXPECT_EQ(read(1000, 8), EIO);
    EXPECT_EQ(write(1000, 8, 3), EIO);
    // Nothing can be moved there now: this one is in doubt until the spare is back.
    main.fail(2000, 8, Fails::kWrites);
    EXPECT_EQ(write(2000, 8, 3), EIO);
    EXPECT_EQ(write(500, 8, 1), 0);
    EXPECT_EQ(remap_status(*device).mode, "ro");
    plug_in();
    KernelLog log;
    device->reload(table());
    EXPECT_TRUE(log.contains("the spare has come back as " + spares.path().substr(5)));
    expect_to_go_on();
    EXPECT_EQ(write(2000, 8, 1), 0);
}

// Nobody has noticed that it was gone, and nothing was written meanwhile.
TEST_F(ReturnedSpare, MayComeBackUnnoticed) {
    const std::string line = device->table()[0].text;
    const std::string uuid = line.substr(line.find("uuid ") + 5, 36);
    unplug();
    plug_in();
    device->reload(table({"uuid", uuid}));
    expect_to_go_on();
}

TEST_F(ReturnedSpare, MayBeReadOnlyFirst) {
    unplug();
    plug_in();
    const std::string line = "0 " + std::to_string(kSectors) + " remap " + table()[0].text;
    run_ok({"dmsetup", "reload", "--readonly", "remap", "--table", line});
    run_ok({"dmsetup", "resume", "remap"});
    {
        const BlockFile mapped(device->path(), O_RDONLY | O_DIRECT);
        EXPECT_TRUE(verify_pattern(mapped, 0, 1000, 1));
        EXPECT_TRUE(verify_pattern(mapped, 1000, 8, 2));
    }
    device->reload(table());
    expect_to_go_on();
}

// Nobody knows whether the data in its cache is there.
TEST_F(ReturnedSpare, NextFlushFailsOnceIfWritesHadNotBeenFlushed) {
    for (const bool flushed : {false, true}) {
        EXPECT_EQ(write(1000, 8, 2), 0);
        if (flushed) {
            EXPECT_EQ(BlockFile(device->path()).flush(), 0);
        }
        unplug();
        plug_in();
        KernelLog log;
        device->reload(table());
        EXPECT_EQ(log.contains("the next flush fails"), !flushed);
        const BlockFile mapped(device->path());
        EXPECT_EQ(mapped.flush(), flushed ? 0 : EIO);
        EXPECT_EQ(mapped.flush(), 0);
        EXPECT_EQ(write(1000, 8, 2, RWF_DSYNC), 0);
    }
    expect_to_go_on();
}

// ---- refused ----

TEST_F(ReturnedSpare, OlderCopyIsRefused) {
    copy(spares.path(), spares.path(1));
    device->message("remap 5000 8");
    device->message("unremap 5000 8");
    unplug();
    expect_refused(table({}, 1), "an older copy of the spare in use");
    plug_in();
    expect_refused(table({}, 1), "an older copy of the spare in use");
    device->reload(table());
    expect_to_go_on();
}

// It may be slow, or offline for a time: it is not gone, and may yet take a write.
TEST_F(ReturnedSpare, NothingTakesThePlaceOfASpareThatIsThere) {
    copy(spares.path(), spares.path(1));
    expect_refused(table({}, 1), "the spare in use is there");
    spares.set_device("state", "offline");
    EXPECT_EQ(read(1000, 8), EIO);
    expect_refused(table({}, 1), "the spare in use is there");
    expect_refused(table({"format"}, 1), "the spare in use is there");
    spares.set_device("state", "running");
    device->message("save");
    expect_to_go_on();
}

TEST_F(ReturnedSpare, AnotherSpareIsRefused) {
    unplug();
    expect_refused(table({}, 1), "spare is blank");
    expect_refused(table({"format"}, 1), "the spare in use is gone and holds records");
    run_ok({"dm-remapctl", "format", "--yes", main.path(), spares.path(1)});
    expect_refused(table({}, 1), "this is another spare");
    plug_in();
    device->reload(table());
    expect_to_go_on();
}

// It was elsewhere meanwhile, and another system may have moved data.
TEST_F(ReturnedSpare, SpareThatAnotherSystemHasUsedIsRefused) {
    unplug();
    plug_in();
    // On a copy of both disks; then the spare as it was left.
    const LoopDevice other_main(16 * kMiB);
    copy(spares.path(), spares.path(1));
    {
        const DmDevice other("other", remap_table(other_main.path(), spares.path(1)));
        EXPECT_EQ(remap_status(other).mode, "rw");
    }
    expect_refused(table({}, 1), "another system has used the spare");
    device->reload(table());
    expect_to_go_on();
}

// It was the right one when the table was loaded, and is not when that is resumed. Then no table is
// left that has the old disk open, so another disk may get its name.
TEST_F(ReturnedSpare, IsComparedAgainAtTheResume) {
    copy(spares.path(), kImage);
    device->message("remap 5000 8");
    copy(spares.path(), spares.path(1));
    const std::string first_name = spares.path();
    unplug();
    plug_in();
    device->load(table());
    copy(kImage, spares.path());
    KernelLog log;
    device->suspend();
    EXPECT_THROW(device->resume(), DmError);
    EXPECT_TRUE(log.contains("an older copy of the spare in use"));
    EXPECT_THROW(device->resume(), DmError);
    EXPECT_THROW(device->load(table()), DmError);
    // The older copy, under the name that the right one had.
    unplug();
    spares.plug_in();
    EXPECT_EQ(spares.path(), first_name);
    EXPECT_THROW(device->load(table()), DmError);
    EXPECT_TRUE(device->info().suspended);
    // And the newest copy there is.
    device->load(table({}, 1));
    device->resume();
    EXPECT_EQ(remap_status(*device).mode, "rw");
    expect_data();
    device->message("unremap 5000 8");
    device->remove();
    register_spare(spares.path(1));
}

// ---- a live device without records ----

TEST_F(ReturnedSpare, WithoutRecordsAnyMayTakeItsPlace) {
    main.heal_all();
    device->message("unremap 1000 8");
    unplug();
    device->reload(table({"format"}, 1));
    EXPECT_EQ(remap_status(*device).mode, "rw");
    expect_data();
    main.fail(1000, 8, Fails::kWrites);
    EXPECT_EQ(write(1000, 8, 2), 0);
    expect_data();
    device->remove();
    register_spare(spares.path(1));
    spares.plug_in();
}

}  // namespace
}  // namespace remap::vm

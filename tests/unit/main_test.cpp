// Main devices that a spare accepts, and how it knows main afterwards.

#include <gmock/gmock.h>

#include <fstream>
#include <sstream>

#include "rig.h"

namespace remap {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kVolume =
    "LVM-nXk2b7bK1mJ0rQx3pVt5wZy8aBc4dEf6gHi9jKl2mNo7pQr1sTu5vWx3yZa0bCd";
constexpr const char* kNeighbour =
    "LVM-nXk2b7bK1mJ0rQx3pVt5wZy8aBc4dEf6aAaAaAaAaAaAaAaAaAaAaAaAaAaAaAa";

std::string id_of(const char* dm_uuid) {
    dm_remap_main main{};
    dm_remap_main_identify(&main, dm_uuid);
    EXPECT_EQ(main.id.id_type, DM_REMAP_MAIN_ID_DM_UUID);
    std::string hex;
    for (int i = DM_REMAP_MAIN_ID_SIZE - 1; i >= 0; i--) {
        char digits[3];
        std::snprintf(digits, sizeof(digits), "%02x", main.id.id[i]);
        hex += digits;
    }
    return hex;
}

// Of a disk that gives itself this id; type 0: none.
dm_remap_main disk(std::uint64_t sectors, std::uint8_t type = 0, std::uint8_t id = 0) {
    dm_remap_main main{};
    main.id.sectors = sectors;
    main.granularity = 1;
    main.disk_type = type;
    main.disk_id[0] = id;
    dm_remap_main_identify(&main, nullptr);
    return main;
}

dm_remap_main partition(dm_remap_main main, std::uint64_t start) {
    main.id.partition = start;
    return main;
}

// Made by device-mapper over a disk.
dm_remap_main volume(std::uint64_t sectors, const char* dm_uuid, std::uint8_t type = 0,
                     std::uint8_t id = 0) {
    dm_remap_main main = disk(sectors, type, id);
    dm_remap_main_identify(&main, dm_uuid);
    return main;
}

// A spare that was activated for @main.
std::unique_ptr<World> made_for(const dm_remap_main& main) {
    auto world = formatted();
    Metadata md(*world);
    EXPECT_EQ(md.load(), 0);
    EXPECT_EQ(dm_remap_activate(md.get(), &main, &md.report), 0);
    return world;
}

// Why the spare refuses @main; empty: it does not.
std::string refusal(World& world, const dm_remap_main& main) {
    Metadata md(world);
    EXPECT_EQ(md.load(), 0);
    const int error = dm_remap_check_main(md.get(), &main, &md.report);
    EXPECT_EQ(error, md.report.refusal != nullptr ? -ENODEV : 0);
    return md.report.refusal != nullptr ? md.report.refusal : "";
}

constexpr std::uint64_t kSize = 1 << 16;
constexpr const char* kAnother = "spare belongs to another main device";
constexpr const char* kElsewhere =
    "spare was made for a main device that begins elsewhere on its disk";
constexpr const char* kAnotherSize =
    "spare was made for a main device of another size; is it the right one?";

// ---- by what main is known ----

// The published values of FNV-1a, 128 bits.
TEST(MainIdentity, ADmUuidIsHashed) {
    EXPECT_EQ(id_of("a"), "d228cb696f1a8caf78912b704e4a8964");
    EXPECT_EQ(id_of("foobar"), "343e1662793c64bf6f0d3597ba446f18");
    EXPECT_NE(id_of(kVolume), id_of(kNeighbour));
    EXPECT_NE(id_of("\x80"), id_of("\xff"));
}

TEST(MainIdentity, TheTailOfADmUuidIsTheName) {
    EXPECT_STREQ(volume(kSize, "LVM-short").id.name, "LVM-short");
    EXPECT_EQ(std::string(kVolume).substr(std::strlen(kVolume) - 63),
              volume(kSize, kVolume).id.name);
    EXPECT_STREQ(volume(kSize, "").id.name, "");
    EXPECT_STREQ(disk(kSize, 3, 1).id.name, "");
}

// The name that it is opened under is new each time, and may be that of another disk.
TEST(MainIdentity, AnEncryptedDeviceIsKnownByItsUuidAlone) {
    const std::string crypt = "CRYPT-LUKS2-0123456789abcdef0123456789ABCDEF";
    EXPECT_EQ(id_of((crypt + "-home").c_str()), id_of((crypt + "-other-name").c_str()));
    EXPECT_EQ(id_of(crypt.c_str()), id_of((crypt + "-home").c_str()));
    EXPECT_EQ(crypt, volume(kSize, (crypt + "-home").c_str()).id.name);
    EXPECT_NE(id_of((crypt + "-home").c_str()),
              id_of("CRYPT-LUKS2-0123456789abcdef0123456789ABCDEE-home"));
    for (const char* no_uuid :
         {"", "CRYPT-", "CRYPT-PLAIN", "CRYPT-PLAIN-home", "CRYPT-INTEGRITY-int-sda1",
          "CRYPT-LUKS2-0123456789abcdef0123456789ABCDE-home",
          "CRYPT-LUKS2-0123456789abcdef0123456789ABCDEF0-home"}) {
        const dm_remap_main main = volume(kSize, no_uuid);
        EXPECT_TRUE(main.mapped);
        EXPECT_EQ(main.id.id_type, DM_REMAP_MAIN_ID_NONE) << no_uuid;
        EXPECT_STREQ(main.id.name, no_uuid);
        EXPECT_EQ(volume(kSize, no_uuid, 3, 1).id.id_type, 3 | DM_REMAP_MAIN_ID_BELOW);
    }
}

// ---- which main is accepted ----

struct Pair {
    const char* what;
    dm_remap_main known;
    dm_remap_main found;
    const char* refusal;
};

TEST(MainIdentity, IsCompared) {
    const dm_remap_main plain = disk(kSize, 3, 1);
    const dm_remap_main unknown = disk(kSize);
    const dm_remap_main lv = volume(kSize, kVolume, 3, 1);
    const dm_remap_main linear = volume(kSize, "", 3, 1);
    const std::vector<Pair> pairs = {
        // A disk with an id: that alone, and where on the disk.
        {"itself", plain, plain, ""},
        {"grown", plain, disk(2 * kSize, 3, 1), ""},
        {"shrunk", plain, disk(kSize / 2, 3, 1), ""},
        {"another id", plain, disk(kSize, 3, 2), kAnother},
        {"another type", plain, disk(kSize, 2, 1), kAnother},
        {"another partition", plain, partition(plain, 2048), kAnother},
        // One of the two has none.
        {"no id", plain, unknown, ""},
        {"no id, grown", plain, disk(kSize + 1), kAnotherSize},
        {"id not known then", unknown, plain, ""},
        {"id not known then, grown", unknown, disk(kSize + 1, 3, 1), kAnotherSize},
        {"never an id", unknown, unknown, ""},
        {"never an id, grown", unknown, disk(kSize + 1), kAnotherSize},
        {"never an id, another partition", unknown, partition(unknown, 63), kElsewhere},
        {"no id, another partition", plain, partition(unknown, 63), kElsewhere},
        // A DM UUID: that alone, wherever the volume lies.
        {"volume", lv, lv, ""},
        {"volume, grown", lv, volume(2 * kSize, kVolume, 3, 1), ""},
        {"volume, shrunk", lv, volume(kSize / 2, kVolume, 3, 1), ""},
        {"volume, moved", lv, volume(kSize, kVolume, 3, 2), ""},
        {"volume, kernel without id", lv, volume(kSize, kVolume), ""},
        {"neighbour", lv, volume(kSize, kNeighbour, 3, 1), kAnother},
        {"volume, hand-made", lv, linear, ""},
        {"volume, hand-made, grown", lv, volume(2 * kSize, "", 3, 1), kAnotherSize},
        {"disk below a volume", lv, plain, kAnother},
        {"disk without id for a volume", lv, unknown, kAnother},
        // No DM UUID: the disk below can tell that it is another one, and no more.
        {"linear", linear, linear, ""},
        {"linear, grown", linear, volume(2 * kSize, "", 3, 1), kAnotherSize},
        {"linear on another disk", linear, volume(kSize, "", 3, 2), kAnother},
        {"linear, kernel without id", linear, volume(kSize, ""), ""},
        {"linear, kernel without id, grown", linear, volume(kSize + 1, ""), kAnotherSize},
        {"linear, with a DM UUID now", linear, lv, ""},
        {"linear, with a DM UUID now, grown", linear, volume(kSize + 1, kVolume, 3, 1),
         kAnotherSize},
        {"disk below a linear", linear, disk(2 * kSize, 3, 1), kAnother},
        {"no id, no DM UUID", volume(kSize, ""), volume(kSize, ""), ""},
        {"no id, no DM UUID, grown", volume(kSize, ""), volume(kSize + 1, ""), kAnotherSize},
        // An older module may know a volume by the id of the disk below.
        {"volume on the disk", plain, lv, ""},
        {"larger volume on the disk", plain, volume(2 * kSize, kVolume, 3, 1), kAnotherSize},
        {"smaller volume on the disk", plain, volume(kSize / 2, kVolume, 3, 1), kAnotherSize},
        {"volume on another disk", plain, volume(kSize, kVolume, 3, 2), kAnother},
        {"volume, and a partition was known", partition(plain, 63), lv, kAnother},
        {"volume, disk not known", plain, volume(kSize, kVolume), ""},
        {"volume where no id was known", unknown, lv, ""},
        {"volume where no id was known, grown", unknown, volume(kSize + 1, kVolume), kAnotherSize},
    };
    for (const Pair& pair : pairs) {
        EXPECT_EQ(refusal(*made_for(pair.known), pair.found), pair.refusal) << pair.what;
    }
}

TEST(MainIdentity, StartAndLogicalBlockAreComparedWhateverMainIs) {
    for (dm_remap_main main : {disk(kSize, 3, 1), disk(kSize), volume(kSize, kVolume)}) {
        const auto world = made_for(main);
        main.id.start = 8;
        EXPECT_EQ(refusal(*world, main),
                  "spare was made for another start sector on the main device");
        main.id.start = 0;
        main.granularity = 8;
        EXPECT_THAT(refusal(*world, main), HasSubstr("another logical block size"));
        main.granularity = 1;
        EXPECT_EQ(refusal(*world, main), "");
    }
}

TEST(MainIdentity, MainThatShrankBelowARecordIsRefused) {
    auto world = formatted();
    { ASSERT_EQ(open(*world)->remap(60'000), 0); }
    world->main.resize(50'000);
    EXPECT_EQ(try_load(*world).error, -EUCLEAN);
}

// ---- what the spare knows afterwards ----

TEST(MainIdentity, IsWrittenByAnActivation) {
    auto world = formatted();
    const dm_remap_main_id before = super_at(*world, 0).main;
    dm_remap_main grown = main_of(super_at(*world, 0));
    grown.id.sectors += 8;
    std::memset(grown.id.name, 0, sizeof(grown.id.name));  // the kernel knows none of a disk
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    ASSERT_EQ(dm_remap_activate(md.get(), &grown, &md.report), 0);
    for (int replica : {0, 1}) {
        EXPECT_EQ(super_at(*world, replica).main.sectors, before.sectors + 8);
        EXPECT_STREQ(super_at(*world, replica).main.name, before.name);
    }
    EXPECT_THAT(world->log, Not(Contains(HasSubstr("knows main by"))));
}

TEST(MainIdentity, IsNotWrittenByAReadOnlyLoad) {
    auto world = formatted();
    const Image image = world->spare.image();
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    md->write_nothing = true;
    const dm_remap_main lv = volume(kSize, kVolume);
    ASSERT_EQ(dm_remap_activate(md.get(), &lv, &md.report), 0);
    EXPECT_EQ(world->spare.image(), image);
    EXPECT_THAT(world->log, Not(Contains(HasSubstr("knows main by"))));
}

TEST(MainIdentity, WhatItIsKnownByFromNowOnIsLogged) {
    const std::vector<std::pair<dm_remap_main, std::string>> steps = {
        {disk(kSize, 3, 1), "by the id of its disk from now on"},
        {disk(kSize), "by its size from now on (wwn-0x5000c500), until now by the id of its disk"},
        {volume(kSize, "", 3, 1), "by its size and the id of the disk below from now on"},
        {volume(kSize, "LVM-x"), "by its DM UUID from now on (LVM-x), until now by its size and"},
    };
    auto world = formatted();
    for (const auto& [main, said] : steps) {
        world->log.clear();
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        ASSERT_EQ(dm_remap_activate(md.get(), &main, &md.report), 0);
        EXPECT_THAT(world->log, Contains(HasSubstr("the spare knows main " + said)));
        ASSERT_EQ(md.deactivate(), 0);
    }
}

// ---- rebind: its owner says that it is the right one ----

TEST(Rebind, AcceptsAnyMainWithItsStartAndItsBlocks) {
    const std::vector<std::pair<dm_remap_main, dm_remap_main>> pairs = {
        {disk(kSize, 3, 1), disk(kSize, 3, 2)},
        {disk(kSize, 3, 1), partition(disk(kSize, 3, 1), 2048)},
        {disk(kSize), disk(kSize - 8)},
        {disk(kSize), partition(disk(kSize), 63)},
        {disk(kSize), disk(2 * kSize, 3, 1)},
        {volume(kSize, kVolume), volume(kSize, kNeighbour)},
        {volume(kSize, kVolume), disk(kSize)},
    };
    for (const auto& [known, found] : pairs) {
        const auto world = made_for(known);
        dm_remap_main main = found;
        EXPECT_NE(refusal(*world, main), "");
        main.rebind = true;
        EXPECT_EQ(refusal(*world, main), "");
        main.id.start = 8;
        EXPECT_THAT(refusal(*world, main), HasSubstr("another start sector"));
        main.id.start = 0;
        main.granularity = 8;
        EXPECT_THAT(refusal(*world, main), HasSubstr("another logical block size"));
    }
}

TEST(Rebind, IsWrittenByAnActivationAndGoodFromThenOn) {
    const dm_remap_main before = disk(kSize, 3, 1);
    auto world = made_for(before);
    dm_remap_main main = disk(kSize - 8, 3, 2);
    main.rebind = true;
    {
        Metadata md(*world);
        ASSERT_EQ(md.load(), 0);
        ASSERT_EQ(dm_remap_activate(md.get(), &main, &md.report), 0);
    }
    EXPECT_THAT(world->log, Contains(HasSubstr("knows main by the id of its disk from now on "
                                               "(no name), until now by the id of its disk "
                                               "(wwn-0x5000c500)")));
    // The old name would be that of another disk.
    for (int replica : {0, 1}) {
        EXPECT_STREQ(super_at(*world, replica).main.name, "");
    }
    main.rebind = false;
    EXPECT_EQ(refusal(*world, main), "");
    EXPECT_EQ(refusal(*world, before), kAnother);
}

TEST(Rebind, OfTheMainThatIsKnownChangesNothing) {
    auto world = formatted();
    dm_remap_main main = main_of(super_at(*world, 0));
    std::memset(main.id.name, 0, sizeof(main.id.name));
    main.rebind = true;
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    ASSERT_EQ(dm_remap_activate(md.get(), &main, &md.report), 0);
    EXPECT_STREQ(super_at(*world, 0).main.name, "wwn-0x5000c500");
    EXPECT_THAT(world->log, Not(Contains(HasSubstr("knows main by"))));
}

TEST(Rebind, OfAReadOnlyLoadWritesNothing) {
    auto world = made_for(disk(kSize, 3, 1));
    const Image image = world->spare.image();
    dm_remap_main main = disk(kSize, 3, 2);
    main.rebind = true;
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    md->write_nothing = true;
    ASSERT_EQ(dm_remap_activate(md.get(), &main, &md.report), 0);
    EXPECT_EQ(world->spare.image(), image);
    EXPECT_FALSE(md->numbered);
}

// Another system has used the spare since it was loaded.
TEST(Rebind, HoldsWhenTheSpareIsReadAgain) {
    auto world = made_for(disk(kSize, 3, 1));
    Metadata md(*world);
    ASSERT_EQ(md.load(), 0);
    { ASSERT_EQ(open(*world)->remap(100), 0); }
    dm_remap_main main = disk(kSize, 3, 2);
    EXPECT_EQ(dm_remap_activate(md.get(), &main, &md.report), -ENODEV);
    main.rebind = true;
    ASSERT_EQ(dm_remap_activate(md.get(), &main, &md.report), 0);
    EXPECT_EQ(super_at(*world, 0).main.id[0], 2);
    EXPECT_EQ(md.records().size(), 1U);
}

// ---- spares of the module of 556726f ----

// tests/unit/fixtures: by size alone, or by the id of the disk below. One record: 1000, 8 sectors.
std::unique_ptr<World> old_spare(const std::string& name) {
    std::ifstream file(std::string(FIXTURES) + "/spare-556726f-" + name + ".hex");
    EXPECT_TRUE(file.is_open());
    Image image(60 * kBlock);
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("#")) {
            continue;
        }
        const std::size_t at = std::stoul(line.substr(0, 6), nullptr, 16);
        for (std::size_t i = 0; i < 32; i++) {
            image.at(at + i) =
                static_cast<std::uint8_t>(std::stoul(line.substr(7 + 2 * i, 2), nullptr, 16));
        }
    }
    auto world = std::make_unique<World>(kSize, image.size() / kSector);
    world->spare.restore(image);
    return world;
}

dm_remap_main on_the_old_disk(dm_remap_main main, const char* dm_uuid) {
    static constexpr std::uint8_t kDisk[DM_REMAP_MAIN_ID_SIZE] = {0x50, 0x00, 0xc5, 0x00,
                                                                  0xa1, 0xb2, 0xc3, 0xd4};
    main.disk_type = DM_REMAP_MAIN_ID_NAA;
    std::memcpy(main.disk_id, kDisk, sizeof(kDisk));
    dm_remap_main_identify(&main, dm_uuid);
    return main;
}

TEST(OldSpare, OfAVolumeIsTakenOverWithWhatItHolds) {
    for (const char* name : {"none", "disk"}) {
        SCOPED_TRACE(name);
        auto world = old_spare(name);
        const dm_remap_main lv = on_the_old_disk(disk(kSize), kVolume);
        EXPECT_EQ(refusal(*world, lv), "");
        {
            Metadata md(*world);
            ASSERT_EQ(md.load(), 0);
            ASSERT_EQ(dm_remap_activate(md.get(), &lv, &md.report), 0);
            EXPECT_EQ(md->mode, DM_REMAP_MODE_RW);
            ASSERT_EQ(md.records().size(), 1U);
            EXPECT_EQ(md.records()[0].main, 1000U);
            EXPECT_THAT(world->log, Contains(HasSubstr("knows main by its DM UUID from now on")));
        }
        for (int replica : {0, 1}) {
            const dm_remap_main_id& now = super_at(*world, replica).main;
            EXPECT_EQ(now.id_type, DM_REMAP_MAIN_ID_DM_UUID);
            EXPECT_STREQ(now.name, kVolume + std::strlen(kVolume) - 63);
        }
        // From now on it is proved, and so is its neighbour to be another.
        EXPECT_EQ(refusal(*world, on_the_old_disk(disk(2 * kSize), kVolume)), "");
        EXPECT_EQ(refusal(*world, on_the_old_disk(disk(kSize), kNeighbour)), kAnother);
    }
}

TEST(OldSpare, OfAVolumeIsRefusedForAnotherSizeOrDisk) {
    for (const char* name : {"none", "disk"}) {
        SCOPED_TRACE(name);
        const auto world = old_spare(name);
        EXPECT_EQ(refusal(*world, on_the_old_disk(disk(kSize + 8), kNeighbour)), kAnotherSize);
        EXPECT_EQ(refusal(*world, on_the_old_disk(disk(kSize - 8), kVolume)), kAnotherSize);
        // A kernel whose device-mapper does not hand the id on.
        EXPECT_EQ(refusal(*world, volume(kSize, kVolume)), "");
        EXPECT_EQ(refusal(*world, volume(kSize + 8, kVolume)), kAnotherSize);
    }
    EXPECT_EQ(refusal(*old_spare("disk"), volume(kSize, kVolume, 3, 0x60)), kAnother);
}

}  // namespace
}  // namespace remap

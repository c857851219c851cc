// SPDX-License-Identifier: GPL-2.0-only
#include <gtest/gtest.h>

#include <string>

#include "device_identity.h"

namespace remap {
namespace {

TEST(Identity, ANameThatIsNotKnownMayBeAny) {
    EXPECT_TRUE(same_name("", "naa.5000c500a1b2c3d4"));
    EXPECT_TRUE(same_name("S1234", ""));
    EXPECT_TRUE(same_name("S1234", "S1234"));
    EXPECT_FALSE(same_name("S1234", "S12345"));
}

// The same volume, opened under another name after the next boot.
TEST(Identity, AnEncryptedDeviceKeepsItsUuid) {
    const std::string volume = "CRYPT-LUKS2-0123456789abcdef0123456789abcdef";
    EXPECT_TRUE(same_name(volume + "-crypt", volume + "-crypt2"));
    EXPECT_TRUE(same_name(volume + "-luks-home", volume + "-home"));
    EXPECT_FALSE(
        same_name(volume + "-crypt", "CRYPT-LUKS2-00000000000000000000000000000000-crypt"));
    EXPECT_FALSE(same_name("CRYPT-PLAIN-a", "CRYPT-PLAIN-b"));
    EXPECT_FALSE(same_name("CRYPT-PLAIN-data-1", "CRYPT-PLAIN-data-2"));
    EXPECT_FALSE(same_name("CRYPT-INTEGRITY-int-sda1", "CRYPT-INTEGRITY-int-sdb1"));
    EXPECT_FALSE(same_name("LVM-abc-def", "LVM-abc-deg"));
}

// A DM UUID of a logical volume does not fit: the tool kept its head, now its tail is kept.
TEST(Identity, ALongNameIsKnownByItsHeadOrItsTail) {
    const std::string volume =
        "LVM-nXk2b7bK1mJ0rQx3pVt5wZy8aBc4dEf6gHi9jKl2mNo7pQr1sTu5vWx3yZa0bCd";
    EXPECT_TRUE(same_name(volume.substr(0, 63), volume));
    EXPECT_TRUE(same_name(volume.substr(volume.size() - 63), volume));
    EXPECT_FALSE(same_name(volume.substr(1, 63), volume));
    EXPECT_FALSE(same_name(volume.substr(0, 62), volume));
    const std::string crypt = "CRYPT-LUKS2-0123456789abcdef0123456789abcdef-";
    const std::string under_a_long_name = crypt + std::string(40, 'a');
    EXPECT_TRUE(same_name(under_a_long_name.substr(0, 63), crypt + "home"));
}

}  // namespace
}  // namespace remap

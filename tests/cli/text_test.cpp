// SPDX-License-Identifier: GPL-2.0-only
#include "text.h"

#include <gmock/gmock.h>

namespace remap {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(ParseU64, TakesDecimalDigitsAlone) {
    EXPECT_EQ(parse_u64("0"), 0U);
    EXPECT_EQ(parse_u64("010"), 10U);
    EXPECT_EQ(parse_u64("18446744073709551615"), UINT64_MAX);
    for (const char* text : {"", "-1", "+1", " 1", "1 ", "0x1", "1k", "18446744073709551616"}) {
        EXPECT_FALSE(parse_u64(text)) << text;
    }
}

TEST(Split, SkipsWhatIsEmpty) {
    EXPECT_THAT(split_words("  a  bc "), ElementsAre("a", "bc"));
    EXPECT_THAT(split_words(""), IsEmpty());
    EXPECT_THAT(split_lines("a b\n\nc"), ElementsAre("a b", "c"));
}

TEST(SizeText, ScalesByBinaryUnits) {
    EXPECT_EQ(size_text(0), "0 KiB");
    EXPECT_EQ(size_text(1), "0.5 KiB");
    EXPECT_EQ(size_text(2048), "1 MiB");
    EXPECT_EQ(size_text(3072), "1.5 MiB");
    EXPECT_EQ(size_text(UINT64_MAX), "8192 EiB");
}

TEST(TimeText, IsUtc) {
    EXPECT_EQ(time_text(0), "never");
    EXPECT_EQ(time_text(1700000000), "2023-11-14 22:13:20 UTC");
    EXPECT_EQ(time_text(UINT64_MAX), "18446744073709551615 s");
}

TEST(UuidText, IsRecognised) {
    EXPECT_TRUE(is_uuid_text("f28f3435-da42-4d3f-9bfd-9cb7a12f41e7"));
    for (const char* text : {"", "f28f3435", "f28f3435-da42-4d3f-9bfd-9cb7a12f41e7 ",
                             "f28f3435-da42-4d3f-9bfd-9cb7a12f41eg"}) {
        EXPECT_FALSE(is_uuid_text(text)) << text;
    }
}

}  // namespace
}  // namespace remap

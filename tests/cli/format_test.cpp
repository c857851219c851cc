// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>

#include "run_tool.h"
#include "spare_image.h"
#include "unique_fd.h"

namespace remap::test {
namespace {

using testing::HasSubstr;

class FormatTest : public testing::Test {
  protected:
    ToolRun format(std::vector<std::string> options = {"--yes"}) {
        options.insert(options.begin(), "format");
        options.insert(options.end(), {image_.main(), image_.spare()});
        return run_tool(options);
    }
    void make_blank() {
        image_.resize(0);
        image_.resize(spare_size_);
    }
    std::string spare_uuid() {
        return run_tool({"check", "--json", image_.spare()}).json()["summary"]["uuid"];
    }

    SpareImage image_{SpareImage::Content::records};
    const std::uint64_t spare_size_ = image_.spare_bytes();
};

TEST_F(FormatTest, ABlankSpareBecomesSound) {
    make_blank();
    const ToolRun run = format();
    EXPECT_EQ(run.exit_code, 0) << run.err;
    EXPECT_THAT(run.out, HasSubstr(image_.spare() + ": formatted as spare of " + image_.main()));
    const ToolRun check = run_tool({"check", "--json", image_.spare()});
    EXPECT_EQ(check.exit_code, 0);
    EXPECT_EQ(check.json()["summary"]["main"]["sectors"], (64 << 20) / 512);
    EXPECT_EQ(check.json()["summary"]["records"], 0);
}

TEST_F(FormatTest, TakesItsNumbers) {
    make_blank();
    EXPECT_EQ(format({"--yes", "--records", "126", "--journal-blocks", "16", "--start", "2048"})
                  .exit_code,
              0);
    const auto summary = run_tool({"check", "--json", image_.spare()}).json()["summary"];
    EXPECT_EQ(summary["max_records"], 126);
    EXPECT_EQ(summary["main"]["start"], 2048);
}

TEST_F(FormatTest, RefusesNumbersThatDoNotFit) {
    make_blank();
    for (const std::vector<std::string>& options : {std::vector<std::string>{"--records=4000000"},
                                                    {"--records=99999999999"},
                                                    {"--journal-blocks=15"},
                                                    {"--journal-blocks=4097"},
                                                    {"--journal-blocks=4294967312"},
                                                    {"--start=131072"}}) {
        const ToolRun run = format({"--yes", options.front()});
        EXPECT_EQ(run.exit_code, 1) << options.front();
        EXPECT_THAT(run.err, HasSubstr(".img: ")) << options.front();
    }
    EXPECT_EQ(image_.read(0, 4096), std::vector<std::uint8_t>(4096));
}

TEST_F(FormatTest, NobodyToAskMeansNo) {
    make_blank();
    const ToolRun run = format({});
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.err, HasSubstr("--yes"));
    EXPECT_EQ(image_.read(0, 4096), std::vector<std::uint8_t>(4096));
}

TEST_F(FormatTest, AnExistingSpareNeedsForce) {
    const std::string uuid = spare_uuid();
    const ToolRun refused = format();
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.err, HasSubstr("dm-remap metadata " + uuid + " (203 records)"));
    EXPECT_THAT(refused.err, HasSubstr("--force"));
    EXPECT_EQ(spare_uuid(), uuid);

    EXPECT_EQ(format({"--yes", "--force"}).exit_code, 0);
    EXPECT_NE(spare_uuid(), uuid);
}

TEST_F(FormatTest, ForceIsNoYes) {
    EXPECT_EQ(format({"--force"}).exit_code, 1);
    EXPECT_EQ(run_tool({"check", image_.spare()}).exit_code, 0);
}

TEST_F(FormatTest, ASpareWithOneSuperblockLeftNeedsForce) {
    image_.zero_block(0);
    EXPECT_EQ(format().exit_code, 1);
}

// The old tail must not be found by anyone once the device is formatted smaller and grown again.
TEST_F(FormatTest, ForceWipesSuperblocksOfAnotherSize) {
    image_.resize(spare_size_ * 2);
    EXPECT_EQ(format({"--yes", "--force"}).exit_code, 0);
    // Format may have tried this place: it holds no superblock any more.
    EXPECT_NE(image_.read(spare_size_ - 4096, 4), (std::vector<std::uint8_t>{'d', 'm', 'R', 'M'}));
    EXPECT_EQ(run_tool({"check", image_.spare()}).exit_code, 0);
}

TEST_F(FormatTest, AForeignSignatureIsNamedAndWiped) {
    make_blank();
    image_.write(4096 - 10, {'S', 'W', 'A', 'P', 'S', 'P', 'A', 'C', 'E', '2'});
    image_.write(1024, {1, 0, 0, 0, 0xff, 3, 0, 0});  // version, last page
    const ToolRun refused = format();
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.err, HasSubstr("swap at byte 4086"));
    EXPECT_EQ(format({"--yes", "--force"}).exit_code, 0);
    EXPECT_EQ(run_tool({"check", image_.spare()}).exit_code, 0);
}

// An encrypted volume, a database, a file that is no spare at all.
TEST_F(FormatTest, DataThatNobodyKnowsNeedsForce) {
    make_blank();
    image_.write(8192, std::vector<std::uint8_t>(512, 0x5a));
    const ToolRun refused = format();
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.err, HasSubstr("is not empty: data that nobody here knows"));
    EXPECT_EQ(image_.read(8192, 512), std::vector<std::uint8_t>(512, 0x5a));
    EXPECT_EQ(format({"--yes", "--force"}).exit_code, 0);
}

TEST_F(FormatTest, APartitionTableIsNamed) {
    make_blank();
    image_.write(446, {0, 0, 0, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 0});
    image_.write(510, {0x55, 0xaa});
    const ToolRun refused = format();
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.err, HasSubstr("dos partition table"));
}

TEST_F(FormatTest, MainCannotBeItsOwnSpare) {
    const ToolRun run = run_tool({"format", "--yes", image_.main(), image_.main()});
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.err, HasSubstr("shares sectors with"));
}

TEST_F(FormatTest, AnImageInUseIsRefused) {
    const UniqueFd other(open(image_.spare().c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(flock(other.get(), LOCK_EX), 0);
    const ToolRun run = format({"--yes", "--force"});
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.err, HasSubstr("locked"));
}

}  // namespace
}  // namespace remap::test

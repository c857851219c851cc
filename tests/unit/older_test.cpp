// Spares for a module of an earlier day: the core of commit 556726f (tests/older) loads them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "protocol.h"

namespace remap {
namespace {

constexpr const char* kNewer =
    "spare uses metadata features unknown to this version; update dm-remap";

struct Answer {
    int error = 1;  // no answer
    std::string why;
};

class Older : public testing::Test {
  protected:
    void SetUp() override {
#ifndef OLDER_LOAD
        GTEST_SKIP() << "the history of this repository is not here";
#endif
    }
    ~Older() override {
        std::remove(image_.c_str());
    }

    Answer load(World& world) const {
        Answer answer;
#ifdef OLDER_LOAD
        const Image bytes = world.spare.image();
        std::ofstream(image_, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
        FILE* out = popen((std::string(OLDER_LOAD) + " " + image_).c_str(), "r");
        char line[256] = "";
        if (out != nullptr && std::fgets(line, sizeof(line), out) != nullptr) {
            char* rest = line;
            answer.error = static_cast<int>(std::strtol(line, &rest, 10));
            answer.why = rest + 1;
            answer.why.pop_back();
        }
        if (out != nullptr) {
            pclose(out);
        }
#endif
        return answer;
    }
    void expect_newer(World& world) const {
        const Answer answer = load(world);
        EXPECT_EQ(answer.error, -EPROTONOSUPPORT);
        EXPECT_EQ(answer.why, kNewer);
    }
    void expect_loaded(World& world) const {
        const Answer answer = load(world);
        EXPECT_EQ(answer.error, 0) << answer.why;
    }

  private:
    // Others may run the same test at the same time.
    const std::string image_ = testing::TempDir() + "older-" + std::to_string(getpid());
};

std::unique_ptr<Metadata> with_marks(World& world) {
    auto md = open(world);
    EXPECT_EQ(md->remap(100, 8), 0);
    EXPECT_EQ(dm_remap_mark(md->get(), 102, 2, true), 0);
    EXPECT_EQ(md->remap(200, 8), 0);
    EXPECT_EQ(dm_remap_mark(md->get(), 105, 1, true), 0);
    EXPECT_EQ(md->remap(300, 8), 0);
    return md;
}

TEST_F(Older, LoadsWhatHasNoMarks) {
    auto world = world_with_records();
    expect_loaded(*world);
}

TEST_F(Older, RefusesMarksAsNewerAndNotAsDamage) {
    auto world = formatted();
    with_marks(*world);
    expect_newer(*world);
    const dm_remap_layout layout = super_at(*world, 0).layout;
    for (const int lost : {0, 1}) {
        auto one_end = std::make_unique<World>(*world);
        zero_block(*one_end, dm_remap_superblock_at(&layout, lost));
        expect_newer(*one_end);
    }
}

TEST_F(Older, LoadsAgainWhenACheckpointHasNoneLeft) {
    auto world = formatted();
    auto md = with_marks(*world);
    ASSERT_EQ(md->commit({clear(102, 2)}), 0);
    ASSERT_EQ(dm_remap_mark(md->get(), 105, 1, false), 0);
    expect_newer(*world);
    ASSERT_EQ(md->checkpoint(), 0);
    expect_loaded(*world);
    ASSERT_EQ(md->remap(400), 0);
    expect_loaded(*world);
}

// Wherever the power fails while marks come and go, with either superblock lost besides.
TEST_F(Older, TakesNoMarkForDamageWhereverThePowerFails) {
    unsigned loaded = 0;
    unsigned newer = 0;
    for (std::uint64_t n = 0;; n++) {
        auto world = formatted();
        auto md = open(*world);
        ASSERT_EQ(md->remap(100, 8), 0);
        bool done = false;
        cut_power_at(*world, n, [&] {
            done = dm_remap_mark(md->get(), 102, 2, true) == 0 && md->remap(200) == 0 &&
                   dm_remap_mark(md->get(), 102, 1, false) == 0 && md->remap(300) == 0 &&
                   dm_remap_mark(md->get(), 103, 1, false) == 0 && md->checkpoint() == 0 &&
                   md->remap(400) == 0 && world->spare.is_on();
        });
        for (const int lost : {-1, 0, 1}) {
            auto one_end = std::make_unique<World>(*world);
            if (lost >= 0) {
                zero_block(*one_end, dm_remap_superblock_at(&(*md)->sb.layout, lost));
            }
            const Answer answer = load(*one_end);
            EXPECT_TRUE(answer.error == 0 ||
                        (answer.error == -EPROTONOSUPPORT && answer.why == kNewer))
                << "write " << n << ", lost " << lost << ": " << answer.why;
            loaded += answer.error == 0;
            newer += answer.error == -EPROTONOSUPPORT;
        }
        if (done || HasFailure()) {
            break;
        }
    }
    EXPECT_GT(loaded, 5U);
    EXPECT_GT(newer, 5U);
}

}  // namespace
}  // namespace remap

// One bad sector fails reads beside it, too: those that were merged with it into one request, or
// that the disk drops with it. They get their data all the same. Nobody below tries again what is
// read ahead.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

#include "backing.h"
#include "block.h"
#include "cache_disk.h"
#include "dm_device.h"
#include "harness.h"
#include "remap.h"
#include "trace.h"

namespace remap::vm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr unsigned kReads = 32;
constexpr uint64_t kPage = 8;  // sectors
constexpr uint64_t kFirst = 8000;
constexpr uint64_t kBad = kFirst + 14 * kPage;

// Pages, `step` sectors from one to the next, are read in flight together, once the disk `begins`
// to fail. Says which fail, by their first sector.
std::vector<uint64_t> fail_at_once(const BlockFile& device, uint64_t step,
                                   const std::function<void()>& begins) {
    const Buffer buffer(kReads * kPage * kSector);
    const auto page = [&](uint64_t i) {
        return buffer.bytes().subspan(i * kPage * kSector, kPage * kSector);
    };
    std::array<iocb, kReads> reads{};
    std::array<iocb*, kReads> pointers{};
    std::array<io_event, kReads> answers{};
    for (unsigned i = 0; i < kReads; i++) {
        reads[i].aio_data = i;
        reads[i].aio_lio_opcode = IOCB_CMD_PREAD;
        reads[i].aio_fildes = static_cast<__u32>(device.fd());
        reads[i].aio_buf = reinterpret_cast<__u64>(page(i).data());
        reads[i].aio_nbytes = kPage * kSector;
        reads[i].aio_offset = static_cast<__s64>(kFirst + i * step) * static_cast<__s64>(kSector);
        pointers[i] = &reads[i];
    }
    begins();
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, kReads, &context) != 0 ||
        syscall(SYS_io_submit, context, kReads, pointers.data()) != kReads ||
        syscall(SYS_io_getevents, context, kReads, kReads, answers.data(), nullptr) != kReads) {
        throw std::system_error(errno, std::generic_category(), "aio");
    }
    syscall(SYS_io_destroy, context);
    std::vector<uint64_t> failed;
    const Buffer expected(kPage * kSector);
    for (const auto& answer : answers) {
        const uint64_t at = kFirst + answer.data * step;
        fill_pattern(expected.bytes(), at, 1);
        if (answer.res < 0) {
            failed.push_back(at);
        } else {
            EXPECT_TRUE(std::ranges::equal(page(answer.data), expected.bytes())) << at;
        }
    }
    return failed;
}

// The same by reading ahead, and from the page cache then. Pages side by side are read together.
std::vector<uint64_t> fail_ahead(const std::string& device, uint64_t step,
                                 const std::function<void()>& begins) {
    const BlockFile cached(device, O_RDONLY);
    const auto advise = [&](uint64_t at, uint64_t count, int advice) {
        EXPECT_EQ(posix_fadvise(cached.fd(), static_cast<off_t>(at * kSector),
                                static_cast<off_t>(count * kSector), advice),
                  0);
    };
    const uint64_t end = kFirst + kReads * step;
    const uint64_t together = step == kPage ? kReads * kPage : kPage;
    advise(0, end, POSIX_FADV_RANDOM);
    begins();
    for (uint64_t at = kFirst; at < end; at += std::max(step, together)) {
        advise(at, together, POSIX_FADV_WILLNEED);
    }
    std::vector<uint64_t> failed;
    const Buffer page(kPage * kSector);
    for (uint64_t at = kFirst; at < end; at += step) {
        if (cached.read(at, page.bytes()) != 0) {
            failed.push_back(at);
        } else {
            EXPECT_TRUE(verify_pattern(cached, at, kPage, 1));
        }
    }
    return failed;
}

class Neighbours : public testing::TestWithParam<bool> {
  protected:
    void expect_data(const std::string& main, uint64_t step, const std::function<void()>& begins) {
        register_spare(spare_.path());
        write_pattern(BlockFile(main), 0, 32768, 1);
        DmDevice device("remap", remap_table(main, spare_.path(), {"format"}));
        const auto failed = GetParam() ? fail_ahead(device.path(), step, begins)
                                       : fail_at_once(BlockFile(device.path()), step, begins);
        EXPECT_THAT(failed, ElementsAre(kBad));
        EXPECT_THAT(remap_brief(device),
                    ElementsAre(std::to_string(kBad) + " 1 pending read_error"));
        EXPECT_EQ(remap_status(device).values.at("breaker"), "closed");
    }

  private:
    LoopDevice spare_{16 << 20};
};

// Side by side, in one request, which null_blk fails whole.
TEST_P(Neighbours, OfOneRequestGetTheirData) {
    NullBlk main({.size_mb = 16, .max_sectors = 512});
    const Trace errors("block/block_rq_error", main.path());
    expect_data(main.path(), kPage, [&] { main.add_bad(kBad, 1); });
    EXPECT_THAT(errors.text(), HasSubstr(" 8000 + 256 "));
}

// Each a command of its own. They fail together, and none is tried again below.
TEST_P(Neighbours, ThatFailTogetherGetTheirData) {
    CacheDisk main(16 << 20);
    expect_data(main.path(), 2 * kPage, [&] { main.fail_reads_together(kReads, kBad); });
}

INSTANTIATE_TEST_SUITE_P(Read, Neighbours, testing::Bool(),
                         [](const auto& ahead) { return ahead.param ? "Ahead" : "AtOnce"; });

}  // namespace
}  // namespace remap::vm

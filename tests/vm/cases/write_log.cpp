// Each moment at which the power could have been cut. dm-log-writes logs what the kernel writes to
// main and to the spare, which are two parts of one device so that there is one order, while writes
// fail, are flushed, and records are made, removed and saved. Then the log is replayed: after each
// write in it, the spare must load, and all be there that had been acknowledged as durable.
//
// The core in user space is asked after every write of the log, the module after some of them.
//
// The log has a write with FUA where it was completed, and one without where it was flushed: behind
// the former, also if it was completed before. No disk brings back what was written over. So
// nothing is written with FUA here to where a write may be waiting to be flushed: one thread
// writes, and flushes first.
//
// It saves, too. Of two flushes at once the log gives the writes to the one that was mapped first,
// and has them behind the other if that one is faster: a superblock in front of its table.

#include <gmock/gmock.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <random>

#include "backing.h"
#include "block.h"
#include "command.h"
#include "dm_device.h"
#include "failing.h"
#include "memory_disk.h"
#include "offline.h"
#include "remap.h"
#include "write_log.h"

namespace remap::vm {
namespace {

constexpr uint64_t kMainSectors = 2048;
constexpr uint64_t kSpareSectors = 128 * DM_REMAP_BLOCK_SECTORS;
constexpr uint64_t kSectors = kMainSectors + kSpareSectors;

// A part of main takes no writes. The rest can be moved by messages.
constexpr uint64_t kBadFrom = 1024;
constexpr uint64_t kBadSectors = 160;
constexpr unsigned kOperations = 300;
constexpr unsigned kLongest = 8;
constexpr unsigned kKernelPoints = 20;

bool is_bad(uint64_t sector) {
    return sector >= kBadFrom && sector < kBadFrom + kBadSectors;
}

// Something that the writer did, one after the other.
struct Operation {
    enum class Kind { kWrite, kWriteFua, kFlush };
    Kind kind = Kind::kWrite;
    uint64_t sector = 0;
    std::vector<std::byte> data = {};

    [[nodiscard]] uint64_t end() const { return sector + data.size() / kSector; }
    [[nodiscard]] const std::byte* at(uint64_t place) const {
        return &data[(place - sector) * kSector];
    }
};
using Kind = Operation::Kind;

// All of them, by number. The number 0 is what was there in the beginning.
using History = std::vector<Operation>;

// What each sector may hold, as the marks of the log go by: "b<number>" before an operation,
// "d<number>" when it was acknowledged.
class Promises {
  public:
    explicit Promises(const History& history) : history_(history), sectors_(kMainSectors) {}

    void follow(const std::string& mark) {
        const auto number = static_cast<unsigned>(std::stoul(mark.substr(1)));
        if (mark[0] == 'b') {
            begin(number);
        } else {
            end(number);
        }
    }

    // Do the sectors from this one on hold what they must, or what they may?
    [[nodiscard]] testing::AssertionResult hold(uint64_t sector,
                                                std::span<const std::byte> found) const {
        for (size_t i = 0; i < found.size() / kSector; i++) {
            if (!holds(sector + i, &found[i * kSector])) {
                return testing::AssertionFailure() << "sector " << sector + i << " lost its write "
                                                   << sectors_[sector + i].durable;
            }
        }
        return testing::AssertionSuccess();
    }

  private:
    struct Sector {
        unsigned durable = 0;         // the data of this operation, or of one of those
        std::vector<unsigned> begun;  // since
        unsigned first = 0;           // that wrote to it
    };

    [[nodiscard]] bool holds(uint64_t sector, const std::byte* found) const {
        const Sector& s = sectors_[sector];
        const auto is = [&](unsigned number) {
            return std::memcmp(found, history_[number].at(sector), kSector) == 0;
        };
        return is(s.durable) || std::ranges::any_of(s.begun, is);
    }

    // Of a flush: no sector.
    void begin(unsigned number) {
        for (uint64_t at = history_[number].sector; at < history_[number].end(); at++) {
            Sector& s = sectors_[at];
            s.begun.push_back(number);
            s.first = s.first != 0 ? s.first : number;
        }
    }
    // A write that had to be moved is durable when it is acknowledged, others with FUA alone.
    void end(unsigned number) {
        const Operation& operation = history_[number];
        for (uint64_t at = operation.sector; at < operation.end(); at++) {
            if (operation.kind == Kind::kWriteFua || (is_bad(at) && sectors_[at].first == number)) {
                make_durable(sectors_[at]);
            }
        }
        if (operation.kind == Kind::kFlush) {
            std::ranges::for_each(sectors_, make_durable);
        }
    }
    static void make_durable(Sector& s) {
        s.durable = s.begun.empty() ? s.durable : s.begun.back();
        s.begun.clear();
    }

    const History& history_;
    std::vector<Sector> sectors_;
};

// Main and spare, as parts of one device.
struct Parts {
    explicit Parts(const std::string& whole)
        : main("main-part", {{0, kMainSectors, "linear", whole + " 0"}}),
          spare("spare-part",
                {{0, kSpareSectors, "linear", whole + " " + std::to_string(kMainSectors)}}) {}

    DmDevice main;
    DmDevice spare;
};

// Writes that fail and others, with FUA and without, flushes, saves, and messages that move good
// sectors to and fro.
class Writer {
  public:
    Writer(History& history, DmDevice& log, DmDevice& device)
        : history_(history), log_(log), device_(device), mapped_(device.path()) {}

    void work() {
        for (unsigned i = 0; i < kOperations; i++) {
            switch (random_() % 10) {
                case 0:
                    // Parts may be remapped already.
                    message_error(device_, "remap " + good_range(16));
                    break;
                case 1:
                    // What is free now may be taken by a write that is moved, with FUA.
                    message_error(device_, "unremap " + good_range(64));
                    carry_out({.kind = Kind::kFlush});
                    break;
                case 2:
                    carry_out({.kind = Kind::kFlush});
                    break;
                case 3:
                    EXPECT_EQ(message_error(device_, "save"), 0);
                    break;
                case 4:
                case 5:
                    carry_out({.kind = Kind::kFlush});
                    carry_out(write(Kind::kWriteFua));
                    break;
                default:
                    carry_out(write(Kind::kWrite));
            }
        }
    }

  private:
    std::string good_range(unsigned longest) {
        const uint64_t count = 1 + random_() % longest;
        return std::to_string(random_() % (kBadFrom - count)) + " " + std::to_string(count);
    }
    // Half of them where main fails, or over the edge.
    Operation write(Kind kind) {
        const uint64_t count = 1 + random_() % kLongest;
        const bool fails = random_() % 2 == 0;
        Operation write{.kind = kind,
                        .sector = fails ? kBadFrom - kLongest + random_() % (kBadSectors + kLongest)
                                        : random_() % (kMainSectors - kLongest)};
        write.data.resize(count * kSector);
        fill_pattern(write.data, write.sector, random_());
        return write;
    }
    void carry_out(const Operation& operation) {
        const std::string number = std::to_string(history_.size());
        history_.push_back(operation);
        log_.message("mark b" + number);
        EXPECT_EQ(operation.kind == Kind::kFlush ? mapped_.flush() : put(operation), 0);
        log_.message("mark d" + number);
    }
    int put(const Operation& write) {
        const Buffer buffer(write.data.size());
        std::ranges::copy(write.data, buffer.bytes().begin());
        return mapped_.write(write.sector, buffer.bytes(),
                             write.kind == Kind::kWriteFua ? RWF_DSYNC : 0);
    }

    std::mt19937_64 random_{1};
    History& history_;
    DmDevice& log_;
    DmDevice& device_;
    BlockFile mapped_;
};

class WriteLog : public testing::Test {
  protected:
    void SetUp() override {
        write_pattern(BlockFile(disk.path()), 0, kMainSectors, 1);
        {
            const Parts parts(disk.path());
            run_ok({"dm-remapctl", "format", "--yes", "--journal-blocks", "16", "--records", "100",
                    parts.main.path(), parts.spare.path()});
        }
        beginning = disk.content();
    }

    // Leaves the log.
    void work(History& history) {
        DmDevice logged("logged", {{0, kSectors, "log-writes", disk.path() + " " + log.path()}});
        const Parts parts(logged.path());
        FailingDisk main("main", parts.main.path());
        main.fail(kBadFrom, kBadSectors, Fails::kWrites);
        DmDevice device("remap", remap_table(main.path(), parts.spare.path()));
        Writer(history, logged, device).work();
        EXPECT_EQ(remap_status(device).mode, "rw");
        std::cout << device.status().at(0).text << "\n";
        device.remove();
        EXPECT_THAT(logged.status().at(0).text, testing::Not(testing::HasSubstr("disabled")));
    }

    LoopDevice disk{kSectors * kSector};
    LoopDevice log{uint64_t{64} << 20};
    std::vector<std::byte> beginning;
};

// Main and spare as they are after some of the writes of the log.
class Replayed {
  public:
    explicit Replayed(const std::vector<std::byte>& beginning)
        : main_(beginning.begin(), beginning.begin() + kMainSectors * kSector) {
        const auto* spare = reinterpret_cast<const uint8_t*>(beginning.data());
        spare_.bytes.assign(spare + kMainSectors * kSector, spare + kSectors * kSector);
        put(spare_file_.file(), 0, spare_.bytes.data(), spare_.bytes.size());
    }

    void apply(const LoggedWrite& write) {
        const size_t size = write.data.size();
        if (write.sector < kMainSectors) {
            std::ranges::copy(write.data,
                              main_.begin() + static_cast<ptrdiff_t>(write.sector * kSector));
        } else if (size != 0) {
            uint8_t* to = &spare_.bytes.at((write.sector - kMainSectors) * kSector);
            std::memcpy(to, write.data.data(), size);
            put(spare_file_.file(), (write.sector - kMainSectors) * kSector, to, size);
        }
    }

    // As the core sees it.
    testing::AssertionResult is_whole(const Promises& promises) const {
        if (const auto sound = is_sound(spare_file_.file()); !sound) {
            return sound;
        }
        fuzz::MemoryDisk spare = spare_;
        fuzz::Metadata md(spare);
        if (md.load(kMainSectors) != 0) {
            return testing::AssertionFailure() << "refused: " << md.report.refusal;
        }
        if (dm_remap_activate(md.get(), nullptr, &md.report) != 0 || md->mode != DM_REMAP_MODE_RW) {
            return testing::AssertionFailure() << "it cannot be activated";
        }
        dm_remap_extent extent{};
        for (uint64_t at = 0; at < kMainSectors; at += extent.length) {
            dm_remap_table_lookup(&md->table, at, kMainSectors - at, &extent);
            const std::byte* found =
                extent.kind == DM_REMAP_MAPPED
                    ? reinterpret_cast<const std::byte*>(&spare.bytes[extent.spare * kSector])
                    : &main_[at * kSector];
            if (extent.kind == DM_REMAP_PENDING || extent.flags != 0) {
                return testing::AssertionFailure() << "sector " << at << " is not served";
            }
            if (const auto held = promises.hold(at, {found, extent.length * kSector}); !held) {
                return held;
            }
        }
        return testing::AssertionSuccess();
    }

    // As the module sees it, on disks that hold the same.
    testing::AssertionResult is_whole_in_kernel(const Promises& promises) const {
        const LoopDevice main(kMainSectors * kSector);
        const LoopDevice spare(kSpareSectors * kSector);
        put(main.file(), 0, main_.data(), main_.size());
        put(spare.file(), 0, spare_.bytes.data(), spare_.bytes.size());
        {
            const DmDevice device("replayed", remap_table(main.path(), spare.path()));
            if (remap_status(device).mode != "rw") {
                return testing::AssertionFailure() << device.status().at(0).text;
            }
            const Buffer buffer(kMainSectors * kSector);
            if (const int error = BlockFile(device.path()).read(0, buffer.bytes()); error != 0) {
                return testing::AssertionFailure() << "read: " << std::strerror(error);
            }
            if (const auto held = promises.hold(0, buffer.bytes()); !held) {
                return held;
            }
        }
        return is_sound(spare.path());
    }

  private:
    static void put(const std::string& path, uint64_t at, const void* data, size_t size) {
        const File file(path, O_WRONLY);
        if (pwrite(file.fd(), data, size, static_cast<off_t>(at)) != static_cast<ssize_t>(size)) {
            throw std::system_error(errno, std::generic_category(), path);
        }
    }

    std::vector<std::byte> main_;
    fuzz::MemoryDisk spare_;
    LoopDevice spare_file_{kSpareSectors * kSector};  // the same, for check
};

TEST_F(WriteLog, NothingIsLostWhereverItEnds) {
    History history{{.data = {beginning.begin(), beginning.begin() + kMainSectors * kSector}}};
    work(history);
    const auto log_of_writes = read_write_log(log.file());
    const auto writes = static_cast<unsigned>(std::ranges::count_if(
        log_of_writes, [](const LoggedWrite& write) { return write.mark.empty(); }));

    Promises promises(history);
    Replayed replayed(beginning);
    unsigned done = 0;
    for (const auto& write : log_of_writes) {
        if (!write.mark.empty()) {
            promises.follow(write.mark);
            continue;
        }
        // The power is cut here: with all marks behind us.
        const auto where = "after " + std::to_string(done) + " writes of the log";
        ASSERT_TRUE(replayed.is_whole(promises)) << where;
        if (done % (writes / kKernelPoints) == 0) {
            ASSERT_TRUE(replayed.is_whole_in_kernel(promises)) << where << ", in the kernel";
        }
        replayed.apply(write);
        done++;
    }
    EXPECT_TRUE(replayed.is_whole(promises));
    EXPECT_TRUE(replayed.is_whole_in_kernel(promises));
    std::cout << writes << " writes\n";
    EXPECT_GT(writes, 500U);
}

}  // namespace
}  // namespace remap::vm

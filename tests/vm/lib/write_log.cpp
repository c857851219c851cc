#include "write_log.h"

#include <endian.h>

#include <cstring>
#include <fstream>
#include <stdexcept>

#include "block.h"

namespace remap::vm {

namespace {

// As drivers/md/dm-log-writes.c describes it: a sector that says how many entries there are, then
// for each a sector that tells what it is, and its data. Numbers are little-endian, sectors those
// of the device's logical blocks, which are of 512 bytes here.
struct DiskSuper {
    uint64_t magic;
    uint64_t version;
    uint64_t entries;
    uint32_t sector_size;
};

struct DiskEntry {
    uint64_t sector;
    uint64_t sectors;
    uint64_t flags;
    uint64_t mark_length;
};

constexpr uint64_t kMagic = 0x6a736677736872;
constexpr uint64_t kVersion = 1;
constexpr uint64_t kFlush = 1;
constexpr uint64_t kFua = 2;
constexpr uint64_t kDiscard = 4;
constexpr uint64_t kMark = 8;
constexpr const char* kLast = "dm-log-writes-end";  // the target's own mark, when it goes

class Reader {
  public:
    explicit Reader(const std::string& path) : file_(path, std::ios::binary) {}

    std::vector<std::byte> sectors(uint64_t count) {
        std::vector<std::byte> bytes(count * kSector);
        file_.read(reinterpret_cast<char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
        if (!file_) {
            throw std::runtime_error("the log of writes ends early");
        }
        return bytes;
    }
    template <typename T>
    T head(const std::vector<std::byte>& sector) const {
        T head{};
        std::memcpy(&head, sector.data(), sizeof(head));
        return head;
    }

  private:
    std::ifstream file_;
};

LoggedWrite read_entry(Reader& reader) {
    const auto sector = reader.sectors(1);
    const auto entry = reader.head<DiskEntry>(sector);
    const uint64_t flags = le64toh(entry.flags);
    if ((flags & kDiscard) != 0) {
        throw std::runtime_error("the log of writes has a discard");
    }
    LoggedWrite write;
    write.sector = le64toh(entry.sector);
    write.flush = (flags & kFlush) != 0;
    write.fua = (flags & kFua) != 0;
    if ((flags & kMark) != 0) {
        write.mark.assign(reinterpret_cast<const char*>(sector.data() + sizeof(entry)),
                          le64toh(entry.mark_length));
    }
    write.data = reader.sectors(le64toh(entry.sectors));
    return write;
}

}  // namespace

std::vector<LoggedWrite> read_write_log(const std::string& log) {
    Reader reader(log);
    const auto super = reader.head<DiskSuper>(reader.sectors(1));
    if (le64toh(super.magic) != kMagic || le64toh(super.version) != kVersion ||
        le32toh(super.sector_size) != kSector) {
        throw std::runtime_error(log + " is no log of writes, or of others than we know");
    }
    std::vector<LoggedWrite> writes;
    for (uint64_t i = 0; i < le64toh(super.entries); i++) {
        writes.push_back(read_entry(reader));
        if (writes.back().mark == kLast) {
            writes.pop_back();
        }
    }
    return writes;
}

}  // namespace remap::vm

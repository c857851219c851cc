#include "keep.h"

#include <cstring>
#include <stdexcept>

#include "backing.h"
#include "block.h"

namespace remap::vm {

namespace {

// Its size, then the text.
Buffer buffer_for(uint64_t size) {
    return Buffer((sizeof(size) + size + 4095) / 4096 * 4096);
}

void must(int error) {
    if (error != 0) {
        throw std::runtime_error("the disk \"extra\": errno " + std::to_string(error));
    }
}

}  // namespace

void keep(std::string_view text) {
    const BlockFile disk(machine_disk("extra"));
    const uint64_t size = text.size();
    const Buffer buffer = buffer_for(size);
    std::memcpy(buffer.bytes().data(), &size, sizeof(size));
    std::memcpy(buffer.bytes().data() + sizeof(size), text.data(), size);
    must(disk.write(0, buffer.bytes()));
    must(disk.flush());
}

std::string kept() {
    const BlockFile disk(machine_disk("extra"));
    const Buffer head(4096);
    uint64_t size = 0;
    must(disk.read(0, head.bytes()));
    std::memcpy(&size, head.bytes().data(), sizeof(size));
    const Buffer buffer = buffer_for(size);
    must(disk.read(0, buffer.bytes()));
    return {reinterpret_cast<const char*>(buffer.bytes().data()) + sizeof(size), size};
}

}  // namespace remap::vm

// What dm-log-writes has logged: the writes to a device in the order in which they became durable,
// each in front of the flush that made it so, or by itself with FUA; and marks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace remap::vm {

struct LoggedWrite {
    uint64_t sector = 0;
    std::vector<std::byte> data;  // of a flush or a mark: none
    bool flush = false;
    bool fua = false;
    std::string mark;  // of the message `mark`; else empty
};

// `log`: the log device, or its file, when the target that wrote it is gone. Throws where it is no
// log, or a write was discarded, of which the log has no data.
std::vector<LoggedWrite> read_write_log(const std::string& log);

}  // namespace remap::vm

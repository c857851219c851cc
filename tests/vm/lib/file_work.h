// Mixed work on files, of which it is known outside what they must hold.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include <gtest/gtest.h>

namespace remap::vm {

struct FileWork {
    std::string directory;  // each worker makes one of its own in it
    unsigned workers = 4;   // processes
    std::chrono::seconds time{10};
    uint64_t megabytes = 40;  // that a worker keeps at most
    unsigned seed = 1;
};

// Creates, overwrites, appends, cuts, renames, removes, syncs and reads files. The reply has a line
// a file: its path and the seed of each 4 KiB block of it. It is a failure of the test if an
// operation fails or a file does not hold what it must.
std::string work_on_files(const FileWork& work);

// All files that the text tells of, read anew.
testing::AssertionResult verify_files(const std::string& text);

}  // namespace remap::vm

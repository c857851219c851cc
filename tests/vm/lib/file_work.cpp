#include "file_work.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "block.h"
#include "file.h"

namespace remap::vm {

namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = 4096;
using Block = std::array<std::byte, kBlock>;
using Content = std::vector<uint32_t>;  // the seed of each block

void must(bool good, const std::string& what) {
    if (!good) {
        throw std::system_error(errno, std::generic_category(), what);
    }
}

Block block_of(uint32_t seed) {
    Block block{};
    fill_pattern(block, 0, seed);
    return block;
}

void verify_file(const std::string& path, const Content& content) {
    const File file(path, O_RDONLY);
    Block found{};
    for (size_t i = 0; i < content.size(); i++) {
        const ssize_t got = pread(file.fd(), found.data(), kBlock, static_cast<off_t>(i * kBlock));
        must(got >= 0, "read " + path);
        if (got != kBlock || found != block_of(content[i])) {
            throw std::runtime_error(path + ": wrong data in block " + std::to_string(i));
        }
    }
    if (fs::file_size(path) != content.size() * kBlock) {
        throw std::runtime_error(path + ": wrong size");
    }
}

class Worker {
  public:
    Worker(const FileWork& work, unsigned number)
        : directory_(work.directory + "/" + std::to_string(work.seed) + "-" +
                     std::to_string(number)),
          most_blocks_((work.megabytes << 20) / kBlock),
          random_(work.seed * 1000 + number) {
        for (unsigned i = 0; i < kDirectories; i++) {
            fs::create_directories(directory_ + "/" + std::to_string(i));
        }
    }

    void step() {
        const unsigned choice = random_() % 100;
        if (files_.empty() || choice < 30) {
            create();
        } else if (choice < 55) {
            overwrite();
        } else if (choice < 65) {
            append();
        } else if (choice < 70) {
            cut();
        } else if (choice < 78) {
            rename();
        } else if (choice < 90) {
            const auto file = any();
            verify_file(file->first, file->second);
        } else {
            remove(any());
        }
        while (blocks_ > most_blocks_) {
            remove(any());
        }
    }

    [[nodiscard]] std::string text() const {
        std::ostringstream text;
        for (const auto& [path, content] : files_) {
            text << path;
            for (const uint32_t seed : content) {
                text << ' ' << seed;
            }
            text << '\n';
        }
        return text.str();
    }

  private:
    static constexpr unsigned kDirectories = 8;
    using Files = std::map<std::string, Content>;

    Files::iterator any() {
        return std::next(files_.begin(), static_cast<ptrdiff_t>(random_() % files_.size()));
    }
    std::string new_name() {
        return directory_ + "/" + std::to_string(random_() % kDirectories) + "/f" +
               std::to_string(next_name_++);
    }
    // Blocks from `first` on, as many as there are seeds to set, with new data.
    void write(const std::string& path, Content& content, size_t first, size_t count) {
        const File file(path, O_WRONLY | O_CREAT);
        blocks_ -= content.size();
        content.resize(std::max(content.size(), first + count));
        blocks_ += content.size();
        for (size_t i = first; i < first + count; i++) {
            content[i] = static_cast<uint32_t>(random_());
            const Block block = block_of(content[i]);
            must(pwrite(file.fd(), block.data(), kBlock, static_cast<off_t>(i * kBlock)) == kBlock,
                 "write " + path);
        }
        if (random_() % 4 == 0) {
            must(fsync(file.fd()) == 0, "fsync " + path);
        }
    }
    void create() {
        const std::string name = new_name();
        write(name, files_[name], 0, 1 + random_() % 48);
    }
    void overwrite() {
        const auto file = any();
        const size_t first = random_() % file->second.size();
        write(file->first, file->second, first, 1 + random_() % (file->second.size() - first));
    }
    void append() {
        const auto file = any();
        write(file->first, file->second, file->second.size(), 1 + random_() % 16);
    }
    void cut() {
        const auto file = any();
        const size_t left = 1 + random_() % file->second.size();
        fs::resize_file(file->first, left * kBlock);
        blocks_ -= file->second.size() - left;
        file->second.resize(left);
    }
    void rename() {
        const auto file = any();
        const std::string name = new_name();
        fs::rename(file->first, name);
        files_[name] = std::move(file->second);
        files_.erase(file);
    }
    void remove(Files::iterator file) {
        fs::remove(file->first);
        blocks_ -= file->second.size();
        files_.erase(file);
    }

    std::string directory_;
    uint64_t most_blocks_;
    uint64_t blocks_ = 0;
    unsigned next_name_ = 0;
    std::mt19937_64 random_;
    Files files_;
};

std::string result_of(unsigned number) {
    return "/tmp/worker-" + std::to_string(number);
}

// The process of a worker. Its text, or what went wrong, is in a file.
[[noreturn]] void run_worker(const FileWork& work, unsigned number) {
    int status = 1;
    std::ofstream result(result_of(number));
    try {
        const auto end = std::chrono::steady_clock::now() + work.time;
        Worker worker(work, number);
        while (std::chrono::steady_clock::now() < end) {
            worker.step();
        }
        result << worker.text();
        status = 0;
    } catch (const std::exception& error) {
        result << error.what();
    }
    result.close();
    _exit(status);
}

}  // namespace

std::string work_on_files(const FileWork& work) {
    std::vector<pid_t> workers;
    for (unsigned number = 0; number < work.workers; number++) {
        const pid_t pid = fork();
        must(pid >= 0, "fork");
        if (pid == 0) {
            run_worker(work, number);
        }
        workers.push_back(pid);
    }
    std::string text;
    for (unsigned number = 0; number < work.workers; number++) {
        int status = 0;
        must(waitpid(workers[number], &status, 0) > 0, "waitpid");
        std::ifstream result(result_of(number));
        const std::string said(std::istreambuf_iterator<char>(result), {});
        if (status != 0) {
            ADD_FAILURE() << "worker " << number << ": status " << status << ", " << said;
        } else {
            text += said;
        }
        fs::remove(result_of(number));
    }
    return text;
}

testing::AssertionResult verify_files(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string path;
        words >> path;
        const Content content(std::istream_iterator<uint32_t>(words), {});
        try {
            verify_file(path, content);
        } catch (const std::exception& error) {
            return testing::AssertionFailure() << error.what();
        }
    }
    return testing::AssertionSuccess();
}

}  // namespace remap::vm

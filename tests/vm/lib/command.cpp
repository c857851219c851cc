#include "command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "file.h"

namespace remap::vm {

namespace {

std::string join(const std::vector<std::string>& words) {
    std::string text;
    for (const auto& word : words) {
        text += (text.empty() ? "" : " ") + word;
    }
    return text;
}

bool is_loaded(std::string name) {
    std::replace(name.begin(), name.end(), '-', '_');
    return std::filesystem::exists("/sys/module/" + name);
}

class SpawnActions {
  public:
    SpawnActions() { posix_spawn_file_actions_init(&actions_); }
    ~SpawnActions() { posix_spawn_file_actions_destroy(&actions_); }
    SpawnActions(const SpawnActions&) = delete;
    SpawnActions& operator=(const SpawnActions&) = delete;

    posix_spawn_file_actions_t* get() { return &actions_; }

  private:
    posix_spawn_file_actions_t actions_{};
};

}  // namespace

CommandResult run(const std::vector<std::string>& argv) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) {
        throw std::system_error(errno, std::generic_category(), "pipe2");
    }
    const File reader(ends[0]);
    File writer(ends[1]);

    SpawnActions actions;
    posix_spawn_file_actions_addopen(actions.get(), STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(actions.get(), writer.fd(), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(actions.get(), writer.fd(), STDERR_FILENO);

    std::vector<std::string> words = argv;
    std::vector<char*> pointers;
    pointers.reserve(words.size() + 1);
    for (auto& word : words) {
        pointers.push_back(word.data());
    }
    pointers.push_back(nullptr);

    pid_t child = 0;
    const int error =
        posix_spawnp(&child, pointers[0], actions.get(), nullptr, pointers.data(), environ);
    if (error != 0) {
        throw std::system_error(error, std::generic_category(), argv.at(0));
    }
    writer.close();

    CommandResult result;
    std::array<char, 4096> chunk{};
    ssize_t got = 0;
    while ((got = read(reader.fd(), chunk.data(), chunk.size())) > 0) {
        result.output.append(chunk.data(), static_cast<size_t>(got));
    }
    int status = 0;
    waitpid(child, &status, 0);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result;
}

std::string run_ok(const std::vector<std::string>& argv) {
    auto result = run(argv);
    if (result.status != 0) {
        throw std::runtime_error(join(argv) + ": exit status " + std::to_string(result.status) +
                                 "\n" + result.output);
    }
    return std::move(result.output);
}

std::string read_value(const std::filesystem::path& path) {
    const File file(path, O_RDONLY);
    std::string value;
    std::array<char, 4096> chunk{};
    ssize_t got = 0;
    while ((got = read(file.fd(), chunk.data(), chunk.size())) > 0) {
        value.append(chunk.data(), static_cast<size_t>(got));
    }
    if (got < 0) {
        throw std::system_error(errno, std::generic_category(), "read " + path.string());
    }
    while (!value.empty() && value.back() == '\n') {
        value.pop_back();
    }
    return value;
}

void write_value(const std::filesystem::path& path, std::string_view value) {
    const File file(path, O_WRONLY);
    if (write(file.fd(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
        throw std::system_error(errno, std::generic_category(),
                                "write '" + std::string(value) + "' to " + path.string());
    }
}

Module::Module(std::string name, const std::vector<std::string>& parameters)
    : name_(std::move(name)) {
    if (is_loaded(name_)) {
        unload_module(name_);  // modprobe would ignore the parameters
    }
    std::vector<std::string> argv = {"modprobe", name_};
    argv.insert(argv.end(), parameters.begin(), parameters.end());
    run_ok(argv);
}

Module::~Module() {
    try {
        unload_module(name_);
    } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
    }
}

std::filesystem::path Module::parameter(std::string_view parameter) const {
    return std::filesystem::path("/sys/module") / name_ / "parameters" / parameter;
}

void unload_module(const std::string& name) {
    using namespace std::chrono_literals;
    CommandResult result;
    for (int tries = 0; tries < 50; tries++) {
        if (!is_loaded(name)) {
            return;
        }
        result = run({"rmmod", name});
        if (result.status == 0) {
            return;
        }
        std::this_thread::sleep_for(100ms);
    }
    throw std::runtime_error("rmmod " + name + ": " + result.output);
}

}  // namespace remap::vm

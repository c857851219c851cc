// Running programs, and files that are one value: /sys, /proc.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace remap::vm {

struct CommandResult {
    int status = 0;      // exit status, or 128 + signal
    std::string output;  // stdout and stderr as they came
};

// Runs a program (found in PATH) with these very arguments; no shell in between. stdin is empty.
CommandResult run(const std::vector<std::string>& argv);

// As run(), and throws with the whole output unless the exit status is 0. Returns the output.
std::string run_ok(const std::vector<std::string>& argv);

// Without the newline at the end. Both throw std::system_error; a value that the kernel refuses
// throws with the errno that it gave.
std::string read_value(const std::filesystem::path& path);
void write_value(const std::filesystem::path& path, std::string_view value);

// Loads a module for a scope; "name=value" parameters.
class Module {
  public:
    explicit Module(std::string name, const std::vector<std::string>& parameters = {});
    ~Module();
    Module(const Module&) = delete;
    Module& operator=(const Module&) = delete;

    // /sys/module/<name>/parameters/<parameter>
    [[nodiscard]] std::filesystem::path parameter(std::string_view parameter) const;

  private:
    std::string name_;
};

// Unloads a module if it is loaded, trying for a few seconds while it is in use.
void unload_module(const std::string& name);

}  // namespace remap::vm

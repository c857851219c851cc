// dm-remapctl check and dump on the same spares: whatever is on them, they end, say something that
// can be read, agree with one another, and write nothing.
#include <sys/mman.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "spare_program.h"

namespace remap::fuzz {
namespace {

// A file in memory.
class MemoryFile {
  public:
    explicit MemoryFile(const char* name) : fd_(memfd_create(name, 0)) {
        require(fd_ >= 0, "memfd");
    }
    ~MemoryFile() { close(fd_); }
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;

    int fd() const { return fd_; }
    std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

    void put(const Bytes& bytes) const {
        require(
            ftruncate(fd_, static_cast<off_t>(bytes.size())) == 0 &&
                pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
            "write a file in memory");
    }
    std::string text() const {
        std::string text(static_cast<std::size_t>(lseek(fd_, 0, SEEK_END)), '\0');
        require(pread(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()),
                "read a file in memory");
        return text;
    }
    void empty() const {
        require(ftruncate(fd_, 0) == 0 && lseek(fd_, 0, SEEK_SET) == 0, "empty a file in memory");
    }

  private:
    int fd_;
};

struct Said {
    bool failed;  // with an error that a person reads
    ExitCode code;
    std::string text;
};

// Runs a command, with what it prints in the file that is stdout.
Said run(Result<ExitCode> (*command)(const OfflineOptions&), const OfflineOptions& options,
         const MemoryFile& out) {
    out.empty();
    Result<ExitCode> result = command(options);
    std::fflush(stdout);
    if (!result) {
        require(!result.error().what().empty(), "an error without a reason");
        return {true, ExitCode::error, out.text()};
    }
    return {false, *result, out.text()};
}

nlohmann::json parsed(const Said& said) {
    nlohmann::json document = nlohmann::json::parse(said.text, nullptr, false);
    require(document.is_object() && document.contains("json_format_version"), "no JSON");
    return document;
}

void check_and_dump(const MemoryFile& image, const MemoryFile& out) {
    OfflineOptions options{};
    options.spare = image.path();
    const Said check = run(cmd_check, options, out);
    const Said dump = run(cmd_dump, options, out);
    options.json = true;
    const Said check_json = run(cmd_check, options, out);
    const Said dump_json = run(cmd_dump, options, out);

    require(!check.failed && !check.text.empty(), "check says nothing");
    require(check.code == check_json.code, "check ends otherwise with JSON");
    require(dump.failed == dump_json.failed && dump.code == dump_json.code && !dump.text.empty(),
            "dump ends otherwise with JSON");
    require(dump.code == check.code, "check and dump do not agree");

    const nlohmann::json verdict = parsed(check_json);
    const nlohmann::json content = parsed(dump_json);
    const bool refused = verdict["verdict"] == "unusable";
    require(refused == dump.failed && refused == content["records"].is_null(), "verdict");
    require(refused == verdict["report"]["refusal"].is_string(), "refused without a reason");
    require(refused || verdict["summary"]["records"] == content["records"].size(),
            "count of records");
}

}  // namespace
}  // namespace remap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace remap::fuzz;
    static const MemoryFile image("spare");
    static const MemoryFile out("stdout");
    static const bool redirected = dup2(out.fd(), STDOUT_FILENO) >= 0;
    require(redirected, "stdout");
    const Program program = run_program({data, size});
    image.put(program.disk.bytes);
    check_and_dump(image, out);
    require(image.text().size() == program.disk.bytes.size() &&
                std::memcmp(image.text().data(), program.disk.bytes.data(),
                            program.disk.bytes.size()) == 0,
            "it was written to");
    return 0;
}

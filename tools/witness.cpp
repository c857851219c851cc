// SPDX-License-Identifier: GPL-2.0-only
#include "witness.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include "output_json.h"
#include "remap_device.h"
#include "text.h"
#include "unique_fd.h"

namespace remap {
namespace {

constexpr std::uint64_t witness_version = 1;
constexpr std::size_t largest_file = 4096;

Error no_witness(const std::string& why) {
    return Error("is no witness: " + why).advise("Name the file that --witness has written.");
}

Result<std::uint64_t> number_of(const Json& document, const char* key) {
    const auto found = document.find(key);
    if (found == document.end() || !found->is_number_unsigned()) {
        return fail(no_witness(fmt::format("\"{}\" is missing, or no number", key)));
    }
    return found->get<std::uint64_t>();
}

Error of_another(const WitnessRecord& record, const std::string& uuid) {
    return Error(fmt::format("the witness is of spare {}, and this is spare {}", record.uuid, uuid))
        .advise("Name the right spare, or another file if the spare was formatted anew.");
}

// The whole of a small file; nothing: there is none.
Result<std::optional<std::string>> read_text(const std::string& path) {
    const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) {
        return errno == ENOENT ? Result<std::optional<std::string>>(std::nullopt)
                               : fail(Error::from_errno(errno, "open it"));
    }
    std::array<char, largest_file> text{};
    std::size_t size = 0;
    for (ssize_t n = 1; n > 0 && size < text.size(); size += static_cast<std::size_t>(n)) {
        n = read(file.get(), text.data() + size, text.size() - size);
        if (n < 0) {
            return fail(Error::from_errno(errno, "read it"));
        }
    }
    return std::string(text.data(), size);
}

bool write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = write(fd, text.data(), text.size());
        if (n < 0) {
            return false;
        }
        text.remove_prefix(static_cast<std::size_t>(n));
    }
    return fsync(fd) == 0;
}

// The file that symbolic links stand for, there or not yet: to rename over a link would cut it off
// from the other disk that it leads to.
std::string behind_links(std::filesystem::path path) {
    constexpr int most_links = 40;  // the kernel's own limit; open says ELOOP then
    std::error_code error;
    for (int links = 0; links < most_links && std::filesystem::is_symlink(path, error); links++) {
        path = path.parent_path() / std::filesystem::read_symlink(path, error);
    }
    return path;
}

// Programs that keep the same file take turns as long as this is open: the later one would put back
// what it had read before otherwise. Where a directory cannot be locked, as on NFS, they do not.
Result<UniqueFd> lock_directory_of(const std::string& path) {
    const std::string directory = std::filesystem::path(path).parent_path();
    UniqueFd fd(
        open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) {
        return fail(Error::from_errno(errno, "open its directory"));
    }
    while (flock(fd.get(), LOCK_EX) != 0 && errno == EINTR) {
    }
    return fd;
}

// All of it or nothing, whatever happens meanwhile.
Result<void> replace_text(const std::string& path, int directory, std::string_view text) {
    std::string temporary = path + ".XXXXXX";
    const UniqueFd file(mkostemp(temporary.data(), O_CLOEXEC));
    if (!file) {
        return fail(Error::from_errno(errno, "create a file beside it"));
    }
    if (!write_all(file.get(), text) || rename(temporary.c_str(), path.c_str()) != 0) {
        const int number = errno;
        unlink(temporary.c_str());
        return fail(Error::from_errno(number, "write it"));
    }
    if (fsync(directory) != 0) {
        return fail(Error::from_errno(errno, "make it durable"));
    }
    return {};
}

}  // namespace

std::string write_witness(const WitnessRecord& record) {
    const Json document = {{"witness_version", witness_version},
                           {"uuid", record.uuid},
                           {"generation", record.least.generation},
                           {"sequence", record.least.sequence},
                           {"time", record.time}};
    return document.dump() + "\n";
}

Result<WitnessRecord> parse_witness(std::string_view text) {
    const Json document = Json::parse(text, nullptr, false);
    if (!document.is_object()) {
        return fail(no_witness("it holds no JSON object"));
    }
    const Result<std::uint64_t> version = number_of(document, "witness_version");
    if (version && *version > witness_version) {
        return fail(Error(fmt::format("is a witness of version {}, this is dm-remapctl of {}",
                                      *version, witness_version))
                        .advise("Use the dm-remapctl that has written it, or a newer one."));
    }
    Result<std::uint64_t> generation = number_of(document, "generation");
    Result<std::uint64_t> sequence = number_of(document, "sequence");
    Result<std::uint64_t> time = number_of(document, "time");
    for (const Result<std::uint64_t>& number : {version, generation, sequence, time}) {
        if (!number) {
            return fail(number.error());
        }
    }
    const auto uuid = document.find("uuid");
    if (uuid == document.end() || !uuid->is_string() || !is_uuid_text(uuid->get<std::string>())) {
        return fail(no_witness("\"uuid\" is missing, or no UUID"));
    }
    return WitnessRecord{.uuid = uuid->get<std::string>(),
                         .least = {.generation = *generation, .sequence = *sequence},
                         .time = *time};
}

Result<std::optional<WitnessRecord>> read_witness(const std::string& path) {
    Result<std::optional<std::string>> text = read_text(path);
    if (!text) {
        return pass_on(text, path);
    }
    if (!*text) {
        return std::nullopt;
    }
    Result<WitnessRecord> record = parse_witness(**text);
    if (!record) {
        return pass_on(record, path);
    }
    return std::optional(std::move(*record));
}

Result<void> check_witness(const OfflineSpare& spare, const WitnessRecord& record) {
    const std::string uuid = uuid_text(spare.super().uuid);
    if (record.uuid != uuid) {
        return fail(of_another(record, uuid));
    }
    if (spare.older_than({record.least.generation, record.least.sequence})) {
        return fail(
            Error(fmt::format("the spare is an older copy of itself: it is at {}, and was at {} "
                              "on {}",
                              witness_text({spare.super().generation, spare.next_sequence()}),
                              witness_text(record.least), time_text(record.time)))
                .advise("Find the newest copy: what was remapped since is there and nowhere else. "
                        "See docs/recovery.md."));
    }
    return {};
}

Result<void> keep_witness(const std::string& path, const std::string& uuid,
                          const Witness& reached) {
    const std::string file = behind_links(path);
    Result<UniqueFd> directory = lock_directory_of(file);
    if (!directory) {
        return pass_on(directory, path);
    }
    Result<std::optional<WitnessRecord>> known = read_witness(path);
    if (!known) {
        return pass_on(known);
    }
    WitnessRecord record{
        .uuid = uuid, .least = reached, .time = static_cast<std::uint64_t>(std::time(nullptr))};
    if (*known) {
        const WitnessRecord& old = **known;
        if (old.uuid != uuid) {
            return fail(of_another(old, uuid).within(path));
        }
        record.least = {.generation = std::max(old.least.generation, reached.generation),
                        .sequence = std::max(old.least.sequence, reached.sequence)};
    }
    Result<void> written = replace_text(file, directory->get(), write_witness(record));
    return written ? written : pass_on(written, path);
}

Result<TableParams> keep_witness_of(DmClient& dm, const std::string& name,
                                    const std::string& path) {
    Result<RemapDevice> device = read_remap_device(dm, name);
    if (!device) {
        return pass_on(device);
    }
    if (!device->status.witness) {
        return fail(Error(name + ": the loaded module gives no witness")
                        .advise("Load the module of this version: see `dm-remapctl version`."));
    }
    Result<void> kept = keep_witness(path, device->table.uuid, *device->status.witness);
    if (!kept) {
        return pass_on(kept);
    }
    return std::move(device->table);
}

}  // namespace remap

// SPDX-License-Identifier: GPL-2.0-only
#include "signatures.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "text.h"

namespace remap {
namespace {

using Probe = std::unique_ptr<blkid_struct_probe, decltype(&blkid_free_probe)>;

// libblkid reads and writes buffers of its own, which O_DIRECT would refuse.
struct BufferedProbe {
    UniqueFd fd;
    Probe probe{nullptr, blkid_free_probe};
};

Result<BufferedProbe> open_probe(const BlockDevice& device, int access) {
    BufferedProbe result;
    const std::string self = fmt::format("/proc/self/fd/{}", device.fd());
    result.fd = UniqueFd(::open(self.c_str(), access | O_CLOEXEC));
    if (!result.fd) {
        return fail(Error::from_errno(errno, "open it for probing").within(device.path()));
    }
    result.probe.reset(blkid_new_probe());
    blkid_probe probe = result.probe.get();
    if (probe == nullptr || blkid_probe_set_device(probe, result.fd.get(), 0, 0) != 0 ||
        blkid_probe_enable_superblocks(probe, 1) != 0 ||
        blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL |
                                                     BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_BADCSUM) !=
            0 ||
        blkid_probe_enable_partitions(probe, 1) != 0 ||
        blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT) != 0) {
        return fail(device.path() + ": cannot look for signatures");
    }
    return result;
}

std::string value_of(blkid_probe probe, const char* name) {
    const char* value = nullptr;
    return blkid_probe_lookup_value(probe, name, &value, nullptr) == 0 ? value : "";
}

Signature current_signature(blkid_probe probe) {
    std::string type = value_of(probe, "TYPE");
    std::string offset = value_of(probe, "SBMAGIC_OFFSET");
    if (type.empty()) {
        type = value_of(probe, "PTTYPE") + " partition table";
        offset = value_of(probe, "PTMAGIC_OFFSET");
    }
    return {.type = std::move(type),
            .label = value_of(probe, "LABEL"),
            .offset = parse_u64(offset).value_or(0)};
}

// What blkid_do_probe and blkid_do_wipe return.
constexpr int blkid_found = 0;
constexpr int blkid_nothing_left = 1;

tl::unexpected<Error> does_not_read(const BlockDevice& device) {
    return fail(Error(device.path() + ": cannot look for signatures: it does not read")
                    .advise("See the kernel log (dmesg); use another device as spare."));
}

}  // namespace

std::string signature_text(const Signature& signature) {
    const std::string label = signature.label.empty() ? "" : " '" + signature.label + "'";
    return fmt::format("{}{} at byte {}", signature.type, label, signature.offset);
}

Result<std::vector<Signature>> find_signatures(const BlockDevice& device) {
    Result<BufferedProbe> opened = open_probe(device, O_RDONLY);
    if (!opened) {
        return pass_on(opened);
    }
    std::vector<Signature> found;
    int result = blkid_found;
    while ((result = blkid_do_probe(opened->probe.get())) == blkid_found) {
        found.push_back(current_signature(opened->probe.get()));
    }
    if (result != blkid_nothing_left) {
        return does_not_read(device);
    }
    return found;
}

Result<void> wipe_signatures(const BlockDevice& device) {
    Result<BufferedProbe> opened = open_probe(device, O_RDWR);
    if (!opened) {
        return pass_on(opened);
    }
    // Each wipe makes the probe look again from where it was, so backup copies show up too.
    constexpr int for_real = 0;
    int result = blkid_found;
    while ((result = blkid_do_probe(opened->probe.get())) == blkid_found) {
        const Signature signature = current_signature(opened->probe.get());
        if (blkid_do_wipe(opened->probe.get(), for_real) != 0) {
            return fail(Error::from_errno(errno, "wipe " + signature_text(signature))
                            .within(device.path()));
        }
    }
    if (result != blkid_nothing_left) {
        return does_not_read(device);
    }
    if (fsync(opened->fd.get()) != 0) {
        return fail(Error::from_errno(errno, "wipe signatures").within(device.path()));
    }
    return {};
}

}  // namespace remap

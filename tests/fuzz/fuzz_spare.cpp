// A spare's metadata, edited with malice: the core accepts it, and then it is consistent and
// usable, or refuses it with a reason.
#include "spare_checks.h"
#include "spare_program.h"

namespace remap::fuzz {
namespace {

// No input asks for more at once: the directory of a table for the largest device.
constexpr std::size_t kMostMemory = std::size_t{128} << 20;

bool allow(std::size_t size) {
    if (size > kMostMemory) {
        wrong("an allocation of " + std::to_string(size) + " bytes");
    }
    return true;
}

void check_refused(Metadata& md, const Program& program, int ret, const Reading& reading) {
    require(md.report.refusal != nullptr && *md.report.refusal != '\0', "refused without a reason");
    if (reading.refusal.empty()) {
        wrong(std::string("refused, but sound: ") + md.report.refusal);
    }
    // What was refused may be tried again.
    const std::string why = md.report.refusal;
    require(md.load(program.main_sectors) == ret && why == md.report.refusal, "another answer");
}

void check_activated(Metadata& md) {
    if (md->mode >= DM_REMAP_MODE_RO) {
        require(!md->write_nothing || md.disk().writes == 0, "it was to write nothing");
        return;
    }
    check_reload(md, "it was activated");
    check_use(md);
}

}  // namespace
}  // namespace remap::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace remap::fuzz;
    dm_remap_zalloc_hook = allow;
    Program program = run_program({data, size});
    const Reading reading = read_disk(program.disk, program.main_sectors);
    Metadata md(program.disk);
    const int ret = md.load(program.main_sectors);
    require(program.disk.writes == 0, "a load writes");
    if (ret != 0) {
        check_refused(md, program, ret, reading);
        return 0;
    }
    if (!reading.refusal.empty()) {
        wrong("accepted, but it breaks the format: " + reading.refusal);
    }
    check_memory(md, reading);
    const bool fails = program.disk.fail_from != UINT64_MAX;
    if (dm_remap_activate(md.get(), nullptr, &md.report) == 0 && !fails) {
        check_activated(md);
    }
    return 0;
}

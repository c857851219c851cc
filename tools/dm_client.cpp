// SPDX-License-Identifier: GPL-2.0-only
#include "dm_client.h"

#include <fmt/format.h>
#include <libdevmapper.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <memory>

#include "kernel_log.h"
#include "target_spec.h"
#include "text.h"

namespace remap {
namespace {

// libdevmapper reports through one global function; errors are kept here until the call returns.
std::vector<std::string>& library_errors() {
    static std::vector<std::string> errors;
    return errors;
}

void collect_library_error(int level, const char* /*file*/, int /*line*/, int /*number*/,
                           const char* format, ...) __attribute__((format(printf, 5, 6)));

void collect_library_error(int level, const char* /*file*/, int /*line*/, int /*number*/,
                           const char* format, ...) {
    constexpr int level_mask = 7;  // above it are flags of libdevmapper's own
    constexpr int level_error = 3;
    if ((level & level_mask) > level_error) {
        return;
    }
    va_list args;
    va_start(args, format);
    library_errors().push_back(printf_text(format, args));
    va_end(args);
}

// Waits, when it goes, until udev has processed what was done under it. Without udevd the library
// gives out no cookie, makes the nodes itself, and there is nothing to wait for.
class UdevCookie {
  public:
    UdevCookie() = default;
    UdevCookie(const UdevCookie&) = delete;
    UdevCookie& operator=(const UdevCookie&) = delete;
    ~UdevCookie() { dm_udev_wait(cookie_); }

    bool attach(dm_task* task) { return dm_task_set_cookie(task, &cookie_, 0) != 0; }

  private:
    std::uint32_t cookie_ = 0;
};

class Task {
  public:
    explicit Task(int type) : task_(nullptr, dm_task_destroy) {
        library_errors().clear();
        task_.reset(dm_task_create(type));
    }

    dm_task* get() const { return task_.get(); }
    bool set_name(const std::string& name) {
        return task_ && dm_task_set_name(task_.get(), name.c_str()) != 0;
    }
    bool add_target(const MappedTarget& target) {
        return dm_task_add_target(task_.get(), target.start, target.length, target.type.c_str(),
                                  target.params.c_str()) != 0;
    }
    // Of the last ioctl; 0: none was reached.
    int error_number() const { return task_ ? dm_task_get_errno(task_.get()) : 0; }
    // @doing: "create the mapped device"
    Result<void> run(const std::string& doing) {
        const KernelLogMark mark;
        if (task_ && dm_task_run(task_.get()) != 0) {
            return {};
        }
        return fail(failure(doing, mark.lines()));
    }
    // No ioctl was reached: libdevmapper cannot talk to the kernel, or takes a name for no name.
    static Error unprepared(const std::string& doing) {
        const std::vector<std::string>& errors = library_errors();
        return Error(fmt::format("cannot {}: {}", doing,
                                 errors.empty() ? "not enough memory" : errors.front()))
            .advise(geteuid() != 0 ? "Run this as root."
                                   : "Is device-mapper there? Try: modprobe dm_mod");
    }

  private:
    // EINVAL says nothing beside the kernel's own reason. Other numbers do: not each line that
    // comes meanwhile is a reason.
    Error failure(const std::string& doing, std::vector<std::string> reasons) const {
        const int number = error_number();
        if (number == 0) {
            return unprepared(doing);
        }
        Error error = number == EINVAL && !reasons.empty()
                          ? Error(fmt::format("cannot {}: the kernel refuses it", doing))
                          : Error::from_errno(number, doing);
        return std::move(error).quote_kernel(std::move(reasons));
    }

    std::unique_ptr<dm_task, decltype(&dm_task_destroy)> task_;
};

// What helps where the kernel refused, unless its own reason says that.
Error advise_by_errno(Error error, int number) {
    switch (number) {
        case EBUSY:
            return std::move(error).advise(
                "Something has it open: see `lsof`, `findmnt` and `dm-remapctl status`.");
        case EAGAIN:
            return std::move(error).advise("The device is suspended, or changes; try again.");
        default:
            return error.kernel_lines().empty()
                       ? std::move(error).advise("The kernel gives its reason in its log: dmesg")
                       : error;
    }
}

Result<bool> exists(const std::string& name) {
    Task task(DM_DEVICE_INFO);
    if (!task.set_name(name)) {
        return fail(Task::unprepared("look for mapped devices").within(name));
    }
    if (Result<void> done = task.run("look for mapped devices"); !done) {
        return pass_on(done, name);
    }
    dm_info info{};
    return dm_task_get_info(task.get(), &info) != 0 && info.exists != 0;
}

Error no_such_device(const std::string& name) {
    return Error(fmt::format("{}: there is no mapped device of this name", name))
        .advise("See `dm-remapctl status` for those that there are.");
}

// Runs @task on the mapped device @name, which should be there.
Result<void> run_on(Task& task, const std::string& name, const std::string& doing) {
    Result<void> done = task.run(doing);
    if (done) {
        return {};
    }
    const int number = task.error_number();
    if (number == ENXIO && !exists(name).value_or(true)) {
        return fail(no_such_device(name));
    }
    return fail(
        (number == 0 ? std::move(done).error() : advise_by_errno(std::move(done).error(), number))
            .within(name));
}

// The same for an ioctl that udev hears of: remove, resume.
Result<void> run_with_udev(Task& task, const std::string& name, const std::string& doing) {
    UdevCookie cookie;
    if (!cookie.attach(task.get())) {
        return fail(Task::unprepared("synchronise with udev").within(name));
    }
    return run_on(task, name, doing);
}

Result<MappedDevice> query(int type, const std::string& name) {
    Task task(type);
    if (!task.set_name(name)) {
        return fail(Task::unprepared("name the device").within(name));
    }
    // A status must not write what is dirty before it answers.
    dm_task_no_flush(task.get());
    if (Result<void> done = run_on(task, name, "get its status"); !done) {
        return pass_on(done);
    }
    dm_info info{};
    if (dm_task_get_info(task.get(), &info) == 0 || info.exists == 0) {
        return fail(no_such_device(name));
    }
    MappedDevice device;
    device.name = dm_task_get_name(task.get());  // its own, if it was named by a path
    device.uuid = dm_task_get_uuid(task.get());
    device.suspended = info.suspended != 0;
    device.read_only = info.read_only != 0;
    device.open_count = info.open_count;
    void* next = nullptr;
    do {
        MappedTarget target;
        char* target_type = nullptr;
        char* params = nullptr;
        next = dm_get_next_target(task.get(), next, &target.start, &target.length, &target_type,
                                  &params);
        if (target_type != nullptr) {
            target.type = target_type;
            target.params = params != nullptr ? params : "";
            device.targets.push_back(std::move(target));
        }
    } while (next != nullptr);
    return device;
}

Result<void> load_table(const NewDevice& device) {
    Task task(DM_DEVICE_RELOAD);
    if (!task.set_name(device.name) || !task.add_target(device.target) ||
        (device.read_only && dm_task_set_ro(task.get()) == 0)) {
        return fail(Task::unprepared("prepare its table").within(device.name));
    }
    return run_on(task, device.name, "load its table");
}

// The first one, which makes the device node.
Result<void> resume(const std::string& name) {
    Task task(DM_DEVICE_RESUME);
    if (!task.set_name(name)) {
        return fail(Task::unprepared("prepare to resume").within(name));
    }
    return run_with_udev(task, name, "start it");
}

// The next of the structures that an ioctl returns one behind the other.
template <typename T>
T* following(T* entry) {
    return entry->next == 0 ? nullptr
                            : reinterpret_cast<T*>(reinterpret_cast<char*>(entry) + entry->next);
}

}  // namespace

KernelDmClient::KernelDmClient() {
    dm_log_with_errno_init(collect_library_error);
}

KernelDmClient::~KernelDmClient() {
    dm_lib_release();
    dm_log_with_errno_init(nullptr);
}

Result<std::vector<std::string>> KernelDmClient::names() {
    Task task(DM_DEVICE_LIST);
    if (Result<void> done = task.run("list the mapped devices"); !done) {
        return pass_on(done);
    }
    std::vector<std::string> names;
    dm_names* entry = dm_task_get_names(task.get());
    if (entry == nullptr || entry->dev == 0) {
        return names;
    }
    for (; entry != nullptr; entry = following(entry)) {
        names.emplace_back(entry->name);
    }
    return names;
}

Result<MappedDevice> KernelDmClient::status(const std::string& name) {
    return query(DM_DEVICE_STATUS, name);
}

Result<MappedDevice> KernelDmClient::table(const std::string& name) {
    return query(DM_DEVICE_TABLE, name);
}

Result<std::string> KernelDmClient::message(const std::string& name, const std::string& text) {
    Task task(DM_DEVICE_TARGET_MSG);
    if (!task.set_name(name) || dm_task_set_sector(task.get(), 0) == 0 ||
        dm_task_set_message(task.get(), text.c_str()) == 0) {
        return fail(Task::unprepared("send a message").within(name));
    }
    if (Result<void> done = run_on(task, name, fmt::format("do \"{}\"", text)); !done) {
        return pass_on(done);
    }
    const char* reply = dm_task_get_message_response(task.get());
    return std::string(reply != nullptr ? reply : "");
}

Result<void> KernelDmClient::create(const NewDevice& device) {
    Result<bool> taken = exists(device.name);
    if (!taken) {
        return pass_on(taken);
    }
    if (*taken) {
        return fail(
            Error(fmt::format("{}: a mapped device of this name is there already", device.name))
                .advise("Choose another name, or remove that one first."));
    }
    Task task(DM_DEVICE_CREATE);
    if (!task.set_name(device.name) || dm_task_set_uuid(task.get(), device.uuid.c_str()) == 0) {
        return fail(Task::unprepared("prepare the mapped device").within(device.name));
    }
    if (Result<void> created = run_on(task, device.name, "create the mapped device"); !created) {
        return created;
    }
    Result<void> started = load_table(device);
    if (started) {
        started = resume(device.name);
    }
    if (started) {
        return {};
    }
    Error error = std::move(started).error();
    if (Result<void> removed = remove(device.name, Removal::now); !removed) {
        error = std::move(error).within("it is there, and of no use: remove it. It was");
    }
    const auto version = target_version();
    if (version && !*version) {
        return fail(std::move(error).advise("Load the module first: modprobe dm_remap"));
    }
    return fail(std::move(error));
}

Result<void> KernelDmClient::remove(const std::string& name, Removal removal) {
    Task task(DM_DEVICE_REMOVE);
    if (!task.set_name(name) || dm_task_retry_remove(task.get()) == 0 ||
        (removal == Removal::deferred && dm_task_deferred_remove(task.get()) == 0)) {
        return fail(Task::unprepared("prepare the removal").within(name));
    }
    return run_with_udev(task, name, "remove it");
}

Result<void> KernelDmClient::replace_by_error(const std::string& name) {
    Result<MappedDevice> now = table(name);
    if (!now) {
        return pass_on(now);
    }
    std::uint64_t length = 0;
    for (const MappedTarget& target : now->targets) {
        length += target.length;
    }
    Task reload(DM_DEVICE_RELOAD);
    if (!reload.set_name(name) ||
        !reload.add_target({.start = 0, .length = length, .type = "error", .params = ""})) {
        return fail(Task::unprepared("prepare the error table").within(name));
    }
    if (Result<void> loaded = run_on(reload, name, "load the error table"); !loaded) {
        return pass_on(loaded);
    }
    // A resume swaps the tables; it suspends by itself first. That must not wait for a disk that
    // does not answer, nor for the file system above to write what it has.
    Task resume(DM_DEVICE_RESUME);
    if (!resume.set_name(name) || dm_task_skip_lockfs(resume.get()) == 0 ||
        dm_task_no_flush(resume.get()) == 0) {
        return fail(Task::unprepared("prepare to resume").within(name));
    }
    Result<void> done = run_with_udev(resume, name, "put the error table in place");
    if (!done) {
        // Or the next resume, whoever asks for it, would make all I/O fail.
        Task clear(DM_DEVICE_CLEAR);
        if (clear.set_name(name)) {
            (void)dm_task_run(clear.get());
        }
    }
    return done;
}

Result<std::optional<std::array<std::uint32_t, 3>>> KernelDmClient::target_version() {
    Task task(DM_DEVICE_LIST_VERSIONS);
    if (Result<void> done = task.run("list the targets"); !done) {
        return pass_on(done);
    }
    for (dm_versions* entry = dm_task_get_versions(task.get()); entry != nullptr;
         entry = following(entry)) {
        if (entry->name == target_name) {
            return std::to_array(entry->version);
        }
    }
    return std::nullopt;
}

}  // namespace remap

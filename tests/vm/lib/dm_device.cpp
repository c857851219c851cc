#include "dm_device.h"

#include <gtest/gtest.h>
#include <libdevmapper.h>
#include <sys/sysmacros.h>

#include <memory>
#include <utility>

namespace remap::vm {

namespace {

// libdevmapper prints what fails on stderr, where it reads as if the test had a problem; the tests
// get it by DmError.
void discard_log(int, const char*, int, int, const char*, ...) {}

class Task {
  public:
    Task(int type, const std::string& name) : name_(name), type_(type) {
        static const bool ready = [] {
            dm_log_with_errno_init(discard_log);
            return true;
        }();
        static_cast<void>(ready);
        task_.reset(dm_task_create(type));
        if (task_ == nullptr || (!name.empty() && dm_task_set_name(get(), name.c_str()) == 0)) {
            throw DmError(ENOMEM, std::generic_category(), "device " + name);
        }
    }

    [[nodiscard]] dm_task* get() const { return task_.get(); }

    Task& add(const Table& table) {
        for (const auto& target : table) {
            dm_task_add_target(get(), target.start, target.length, target.type.c_str(),
                               target.text.c_str());
        }
        return *this;
    }

    Task& run() {
        if (dm_task_run(get()) == 0) {
            const int error = dm_task_get_errno(get());
            throw DmError(error == 0 ? EIO : error, std::generic_category(),
                          "device '" + name_ + "', dm task " + std::to_string(type_));
        }
        // There is no udevd to make the nodes: the library does, in one go, when asked.
        dm_task_update_nodes();
        return *this;
    }

    [[nodiscard]] Table lines() const {
        Table lines;
        void* next = nullptr;
        do {
            Target line;
            char* type = nullptr;
            char* text = nullptr;
            next = dm_get_next_target(get(), next, &line.start, &line.length, &type, &text);
            if (type != nullptr) {
                line.type = type;
                line.text = text == nullptr ? "" : text;
                lines.push_back(line);
            }
        } while (next != nullptr);
        return lines;
    }

  private:
    struct Destroy {
        void operator()(dm_task* task) const { dm_task_destroy(task); }
    };
    std::unique_ptr<dm_task, Destroy> task_;
    std::string name_;
    int type_;
};

}  // namespace

DmDevice::DmDevice(std::string name) : name_(std::move(name)) {
    Task(DM_DEVICE_CREATE, name_).run();
}

DmDevice::DmDevice(std::string name, const Table& table, const std::string& uuid)
    : name_(std::move(name)) {
    Task create(DM_DEVICE_CREATE, name_);
    if (!uuid.empty()) {
        dm_task_set_uuid(create.get(), uuid.c_str());
    }
    create.run();
    try {
        load(table);
        resume();
    } catch (const DmError&) {
        dm_remove(name_);
        throw;
    }
}

DmDevice::~DmDevice() {
    if (!exists_) {
        return;
    }
    try {
        remove();
    } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
    }
}

void DmDevice::load(const Table& table) {
    Task(DM_DEVICE_RELOAD, name_).add(table).run();
}

void DmDevice::suspend(Suspend how) {
    Task task(DM_DEVICE_SUSPEND, name_);
    if (how == Suspend::kNoFlush) {
        dm_task_no_flush(task.get());
        dm_task_skip_lockfs(task.get());
    }
    task.run();
}

void DmDevice::resume() {
    Task(DM_DEVICE_RESUME, name_).run();
}

void DmDevice::reload(const Table& table) {
    load(table);
    suspend();
    resume();
}

void DmDevice::clear() {
    Task(DM_DEVICE_CLEAR, name_).run();
}

void DmDevice::rename(const std::string& name) {
    Task task(DM_DEVICE_RENAME, name_);
    dm_task_set_newname(task.get(), name.c_str());
    task.run();
    name_ = name;
}

void DmDevice::remove() {
    dm_remove(name_);
    exists_ = false;
}

std::string DmDevice::message(const std::string& text, uint64_t sector) {
    Task task(DM_DEVICE_TARGET_MSG, name_);
    dm_task_set_sector(task.get(), sector);
    dm_task_set_message(task.get(), text.c_str());
    task.run();
    const char* reply = dm_task_get_message_response(task.get());
    return reply == nullptr ? "" : reply;
}

Table DmDevice::table() const {
    return Task(DM_DEVICE_TABLE, name_).run().lines();
}

Table DmDevice::status(bool flush) const {
    Task task(DM_DEVICE_STATUS, name_);
    if (!flush) {
        dm_task_no_flush(task.get());
    }
    return task.run().lines();
}

DmInfo DmDevice::info() const {
    Task task(DM_DEVICE_INFO, name_);
    dm_info info{};
    if (dm_task_get_info(task.run().get(), &info) == 0 || info.exists == 0) {
        throw DmError(ENXIO, std::generic_category(), "device '" + name_ + "'");
    }
    return {.suspended = info.suspended != 0,
            .live_table = info.live_table != 0,
            .inactive_table = info.inactive_table != 0,
            .read_only = info.read_only != 0,
            .open_count = info.open_count,
            .event_nr = info.event_nr,
            .device = makedev(info.major, info.minor)};
}

std::vector<dev_t> DmDevice::dependencies() const {
    Task task(DM_DEVICE_DEPS, name_);
    const dm_deps* deps = dm_task_get_deps(task.run().get());
    if (deps == nullptr) {
        return {};
    }
    return {deps->device, deps->device + deps->count};
}

std::vector<std::string> dm_device_names() {
    std::vector<std::string> names;
    const Task task = std::move(Task(DM_DEVICE_LIST, "").run());
    const dm_names* entry = dm_task_get_names(task.get());
    if (entry == nullptr || entry->dev == 0) {
        return names;
    }
    for (;;) {
        names.emplace_back(entry->name);
        if (entry->next == 0) {
            return names;
        }
        entry =
            reinterpret_cast<const dm_names*>(reinterpret_cast<const char*>(entry) + entry->next);
    }
}

void dm_remove(const std::string& name, bool force) {
    if (force) {
        const uint64_t whole = [&] {
            uint64_t end = 0;
            for (const auto& target : Task(DM_DEVICE_TABLE, name).run().lines()) {
                end = target.start + target.length;
            }
            return end;
        }();
        if (whole > 0) {
            Task(DM_DEVICE_RELOAD, name).add({{0, whole, "error", ""}}).run();
            Task suspend(DM_DEVICE_SUSPEND, name);
            dm_task_no_flush(suspend.get());
            dm_task_skip_lockfs(suspend.get());
            suspend.run();
            Task(DM_DEVICE_RESUME, name).run();
        }
    }
    Task task(DM_DEVICE_REMOVE, name);
    dm_task_retry_remove(task.get());
    task.run();
}

}  // namespace remap::vm

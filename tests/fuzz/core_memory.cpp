// The core's memory, in the place of kernel/core/dm-remap-user.c. Large buffers are kept for the
// next one of their size: AddressSanitizer maps and unmaps each, which took half of all time.
#include <sanitizer/asan_interface.h>

#include <map>
#include <vector>

#include "memory_disk.h"

namespace {

constexpr std::size_t kLarge = std::size_t{32} << 10;

// Never destroyed, so that the leak checker still sees what they hold.
auto& kept = *new std::map<std::size_t, std::vector<void*>>;
auto& large = *new std::map<void*, std::size_t>;

void* aligned(std::size_t size) {
    void* p = nullptr;
    return posix_memalign(&p, DM_REMAP_BLOCK_SIZE, size) == 0 ? p : nullptr;
}

}  // namespace

bool (*dm_remap_zalloc_hook)(size_t size);
void (*dm_remap_lock_hook)(struct mutex* lock);
void (*dm_remap_call_rcu_hook)(rcu_head* head, void (*func)(rcu_head* head));

void* dm_remap_zalloc(size_t size) {
    if (dm_remap_zalloc_hook != nullptr && !dm_remap_zalloc_hook(size)) {
        return nullptr;
    }
    if (size < DM_REMAP_BLOCK_SIZE) {
        return std::calloc(1, size);
    }
    void* p = nullptr;
    if (auto& same = kept[size]; !same.empty()) {
        p = same.back();
        same.pop_back();
        ASAN_UNPOISON_MEMORY_REGION(p, size);
    } else {
        p = aligned(size);
    }
    if (p != nullptr && size >= kLarge) {
        large[p] = size;
    }
    return p != nullptr ? std::memset(p, 0, size) : nullptr;
}

void dm_remap_free(void* p) {
    const auto it = large.find(p);
    if (it == large.end()) {
        std::free(p);
        return;
    }
    constexpr std::size_t kMostKept = std::size_t{1} << 20;
    if (it->second > kMostKept || kept[it->second].size() >= 16) {
        std::free(p);
    } else {
        ASAN_POISON_MEMORY_REGION(p, it->second);
        kept[it->second].push_back(p);
    }
    large.erase(it);
}

void call_rcu(rcu_head* head, void (*func)(rcu_head* head)) {
    func(head);
}

// What the VM cases take for trouble in the kernel log (tests/vm/lib/kernel_log.h): the head lines
// of reports, as kernels 6.1 and 6.12 print them.

#include <gtest/gtest.h>

#include "../vm/lib/kernel_log.h"

namespace remap::vm {
namespace {

TEST(KernelTrouble, ReportsAreTrouble) {
    const char* const reports[] = {
        "BUG: KASAN: slab-use-after-free in dm_remap_map+0x1c/0x2f0 [dm_remap]",
        "BUG: KCSAN: data-race in do_waiting / dm_remap_map",
        "UBSAN: shift-out-of-bounds in kernel/core/dm-remap-table.c:12:3",
        "UBSAN: array-index-out-of-bounds in kernel/core/dm-remap-table.c:12:3",
        "WARNING: possible circular locking dependency detected",
        "WARNING: possible recursive locking detected",
        "WARNING: possible irq lock inversion dependency detected",
        "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
        "WARNING: inconsistent lock state",
        "WARNING: suspicious RCU usage",
        "WARNING: bad unlock balance detected!",
        "WARNING: held lock freed!",
        "WARNING: lock held when returning to user space!",
        "WARNING: dmsetup/71 still has locks held!",
        "[ BUG: Invalid wait context ]",
        "INFO: trying to register non-static key.",
        "turning off the locking correctness validator.",
        "DEBUG_LOCKS_WARN_ON(lock->magic != lock)",
        "BUG: sleeping function called from invalid context at mm/slab.h:321",
        "BUG: scheduling while atomic: kworker/0:1/9/0x00000002",
        "BUG: using smp_processor_id() in preemptible [00000000] code: vm-cases/70",
        "BUG: unable to handle page fault for address: ffffc90000000000",
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [dmsetup:71]",
        "BUG kmalloc-64 (Tainted: G    B      O      ): Poison overwritten",
        "BUG dm_leaf (Not tainted): Objects remaining in dm_leaf on __kmem_cache_shutdown()",
        "kernel BUG at mm/slub.c:448!",
        "Oops: general protection fault, maybe for address 0xdffffc0000000000: 0000",
        "ODEBUG: free active (active state 0) object type: work_struct hint: x+0x0/0x10",
        "WARNING: CPU: 0 PID: 71 at lib/debugobjects.c:514 debug_print_object+0xc1/0x140",
        "list_add corruption. prev->next should be next (f80), but was f81. (prev=f82).",
        "list_del corruption, ffff8880->next is LIST_POISON1 (dead000000000100)",
        "refcount_t: underflow; use-after-free.",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "kmemleak: Cannot allocate a kmemleak_object structure",
        "INFO: task kworker/u4:1:34 blocked for more than 60 seconds.",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "Call Trace:",
    };
    for (const char* report : reports) {
        EXPECT_TRUE(is_kernel_trouble(report)) << report;
    }
}

TEST(KernelTrouble, OrdinaryLinesAreNone) {
    const char* const lines[] = {
        "device-mapper: remap: remap: spare is full",
        "dm_remap: loading out-of-tree module taints kernel.",
        "dm_remap: module verification failed: signature and/or required key missing",
        "scsi host2: scsi_debug: version 0191 [20210520]",
        "I/O error, dev nullb0, sector 1000 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
        "Buffer I/O error on dev dm-3, logical block 0, async page read",
        "kmemleak: Cannot allocate a scan area, scanning the full object",
        "ODEBUG: Out of memory. ODEBUG disabled",
        "XFS (dm-1): Mounting V5 Filesystem 11111111-2222-3333-4444-555555555555",
        "EXT4-fs (dm-1): mounted filesystem with ordered data mode",
        "vm: start DebugKernel.Whatever",
        "sd 2:0:0:0: [sda] Attached SCSI disk",
        "critical medium error, dev sda, sector 1000 op 0x0:(READ) flags 0x0 phys_seg 1",
    };
    for (const char* line : lines) {
        EXPECT_FALSE(is_kernel_trouble(line)) << line;
    }
}

}  // namespace
}  // namespace remap::vm

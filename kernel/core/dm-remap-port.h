/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only file that knows which world the core is compiled in.
 *
 * The core (kernel/core) is plain C. In the kernel it runs over the kernel's
 * types, allocators, RCU and mutexes; outside (tool, unit tests, simulator) over
 * libc and libdeflate (dm-remap-user.h). The names that it uses are the kernel's
 * wherever the kernel has one.
 */
#ifndef DM_REMAP_PORT_H
#define DM_REMAP_PORT_H

#ifdef __KERNEL__

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/bug.h>
#include <linux/build_bug.h>
#include <linux/cache.h>
#include <linux/crc32.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>

/*
 * All memory of the core may be wanted while I/O of the mapped device waits for
 * us, so no allocation may start I/O of its own. The scope, unlike GFP_NOIO in
 * the call, also covers what vmalloc allocates inside.
 *
 * The worker that redoes I/O runs with PF_MEMALLOC: it has the reserves, and does not
 * wait for reclaim, which may be waiting for it. When they are empty too it waits
 * all the same, as long as it takes: others give back what they use, and an error here
 * would be one of somebody's write.
 */
static inline void *dm_remap_zalloc(size_t size)
{
	unsigned int reclaim = current->flags & PF_MEMALLOC;
	unsigned int noio = memalloc_noio_save();
	void *p = kvzalloc(size, reclaim ? GFP_KERNEL | __GFP_NOWARN : GFP_KERNEL);

	if (!p && reclaim) {
		current->flags &= ~PF_MEMALLOC;
		p = kvzalloc(size, GFP_KERNEL | __GFP_NOFAIL);
		current->flags |= PF_MEMALLOC;
	}
	memalloc_noio_restore(noio);
	return p;
}

#define dm_remap_free(p) kvfree(p)

/*
 * Around the locks that workers take: who holds one must not wait for reclaim
 * either. Calls nest. It is for what the core allocates: ops->read, write and flush do without
 * the reserves (dm-remap-io.c).
 */
static inline unsigned int dm_remap_reclaim_off(void)
{
	return memalloc_noreclaim_save();
}

static inline void dm_remap_reclaim_restore(unsigned int saved)
{
	memalloc_noreclaim_restore(saved);
}

/* The length is a multiple of nothing in particular; any context. */
#define dm_remap_crc32(crc, p, len) (~crc32_le(~(u32)(crc), p, len))

#else

#include "dm-remap-user.h"

#endif /* __KERNEL__ */
#endif /* DM_REMAP_PORT_H */

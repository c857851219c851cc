// SPDX-License-Identifier: GPL-2.0-only
/* What the port needs outside the kernel. Not part of the module. */
#include "dm-remap-port.h"

bool (*dm_remap_zalloc_hook)(size_t size);
void (*dm_remap_call_rcu_hook)(struct rcu_head *head, void (*func)(struct rcu_head *head));
void (*dm_remap_lock_hook)(struct mutex *lock);

void *dm_remap_zalloc(size_t size)
{
	void *p = NULL;

	if (dm_remap_zalloc_hook && !dm_remap_zalloc_hook(size))
		return NULL;
	/* Direct I/O is done from and to these buffers. */
	if (size >= 4096)
		return posix_memalign(&p, 4096, size) ? NULL : memset(p, 0, size);
	return calloc(1, size);
}

void dm_remap_free(void *p)
{
	free(p);
}

void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head))
{
	if (dm_remap_call_rcu_hook)
		dm_remap_call_rcu_hook(head, func);
	else
		func(head);
}

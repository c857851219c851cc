/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between kernels, and nothing else. By feature, not by version: fixes
 * are carried back into stable kernels.
 */
#ifndef DM_REMAP_COMPAT_H
#define DM_REMAP_COMPAT_H

#include <linux/blkdev.h>
#include <linux/dm-io.h>
#include <linux/ioprio.h>

/* 05bdb9965305 ("block: replace fmode_t with a block-specific type", 6.5) */
#ifndef BLK_OPEN_WRITE
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

/*
 * 5f31f91ba1d4 ("dm io: add ioprio argument to dm_io", 6.9; also in 6.1.83): dm_io
 * takes an I/O priority. Each form gets dm_io as a pointer of its own type; the one
 * that fits is chosen.
 */
typedef int (*dm_remap_dm_io_fn)(struct dm_io_request *, unsigned int, struct dm_io_region *,
				 unsigned long *);
typedef int (*dm_remap_dm_io_prio_fn)(struct dm_io_request *, unsigned int,
				      struct dm_io_region *, unsigned long *, unsigned short);

static inline int dm_remap_dm_io_plain(dm_remap_dm_io_fn fn, struct dm_io_request *req,
				       struct dm_io_region *where, unsigned long *error_bits)
{
	return fn(req, 1, where, error_bits);
}

static inline int dm_remap_dm_io_prio(dm_remap_dm_io_prio_fn fn, struct dm_io_request *req,
				      struct dm_io_region *where, unsigned long *error_bits)
{
	return fn(req, 1, where, error_bits, IOPRIO_DEFAULT);
}

/* dm_io() to or from one region. */
#define dm_remap_dm_io(req, where, error_bits)					\
	_Generic(&dm_io,							\
		 dm_remap_dm_io_fn: dm_remap_dm_io_plain,			\
		 dm_remap_dm_io_prio_fn: dm_remap_dm_io_prio)			\
	(&dm_io, req, where, error_bits)

#endif /* DM_REMAP_COMPAT_H */

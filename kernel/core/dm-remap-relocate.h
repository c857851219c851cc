/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Moving data between main and spare, in the order that keeps the promises:
 * data durable first, then the record, then the table that readers see.
 *
 * A range that is copied is held: new I/O to it waits, and what was mapped
 * before is drained, so the copy misses no write. Ranges are sectors of the
 * mapped device, multiples of the granularity. All functions may sleep.
 */
#ifndef DM_REMAP_RELOCATE_H
#define DM_REMAP_RELOCATE_H

#include "dm-remap-metadata.h"

/* What a call did. Counts are sectors. */
struct dm_remap_moved {
	u64 moved;		/* copied, and their records committed */
	u64 pending;		/* could not be read: recorded as pending */
	u64 refused;		/* unremap: main still fails to take or return them */
	u64 dropped;		/* forget: pending records dropped */
	const char *why;	/* why the call failed, for a person; or NULL */
};

/*
 * Moves [@start, @start + @length) to the spare. Sectors that main can read, with
 * @retries more tries, are copied; the others become pending. Durable when it returns.
 *
 * -EEXIST: part of it is remapped already (nothing done). -EROFS, -ENOSPC, -EIO,
 * -EUCLEAN, -ENOMEM, -EINTR, -EAGAIN: what *moved counts was done and stays.
 */
int dm_remap_remap(struct dm_remap_metadata *md, u64 start, u64 length, unsigned int retries,
		   struct dm_remap_moved *moved);

/*
 * Brings remapped data of the range home: copy, flush main, read back, compare,
 * commit the removal, and only then give the spare range up. Sectors that main
 * refuses keep their records, and the call fails with -EIO after trying the rest.
 * -ENOENT: nothing in the range is remapped.
 */
int dm_remap_unremap(struct dm_remap_metadata *md, u64 start, u64 length,
		     struct dm_remap_moved *moved);

/* Drops the pending records of the range, touching no data. -ENOENT: there are none. */
int dm_remap_forget(struct dm_remap_metadata *md, u64 start, u64 length,
		    struct dm_remap_moved *moved);

/*
 * Writes @buf to a range that is pending: to the spare, then the record. The
 * pieces that are not pending any more are not touched: *done says how far from
 * @start the buffer is written, at least up to the first such piece.
 */
int dm_remap_write_pending(struct dm_remap_metadata *md, u64 start, u32 length, const void *buf,
			   u32 *done);

#endif /* DM_REMAP_RELOCATE_H */

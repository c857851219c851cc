/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Moves that a person asks for: messages of the same names.
 *
 * A range that is copied is held: new I/O to it waits, and what was mapped before
 * is drained, so the copy misses no write. Ranges are sectors of the mapped
 * device, multiples of the granularity. All functions may sleep.
 */
#ifndef DM_REMAP_MANUAL_H
#define DM_REMAP_MANUAL_H

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
 * md->policy.read_retries more tries, are copied; the others become pending. What failed I/O
 * moves meanwhile is left alone. Durable when it returns.
 *
 * -EEXIST: part of it is remapped already (nothing done). -EROFS, -ENOSPC, -EIO,
 * -EUCLEAN, -ENOMEM, -EINTR, -EAGAIN: what *moved counts was done and stays.
 */
int dm_remap_remap(struct dm_remap_metadata *md, u64 start, u64 length,
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

#endif /* DM_REMAP_MANUAL_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which data sectors of the spare are taken. One bit for each logical block, in
 * pages that exist only where something is taken, so memory follows use and not
 * the size of the spare.
 *
 * Ranges are handed out in rising order, from behind the last one, so that a
 * sector that was given up rests as long as there are others.
 *
 * Context: may sleep; a->lock is taken inside.
 */
#ifndef DM_REMAP_ALLOC_H
#define DM_REMAP_ALLOC_H

#include "dm-remap-port.h"

struct dm_remap_alloc_group;

struct dm_remap_alloc {
	u64 start;			/* first sector; the others count from here */
	u32 granularity;		/* sectors in a logical block */
	u64 units;			/* logical blocks in all */
	u64 nr_pages;

	struct mutex lock;		/* protects what follows */
	u64 free;			/* logical blocks */
	u64 cursor;			/* unit where the next search begins */
	struct dm_remap_alloc_group **group;	/* of pages; NULL: none of them was wanted yet */
};

/* All of [@start, @end) is free. 0 or -ENOMEM. */
int dm_remap_alloc_init(struct dm_remap_alloc *a, u64 start, u64 end, u32 granularity);
void dm_remap_alloc_exit(struct dm_remap_alloc *a);

/* Each holds what the other did. @b is the caller's alone. */
void dm_remap_alloc_swap(struct dm_remap_alloc *a, struct dm_remap_alloc *b);

/*
 * Takes a run of 1 to @sectors sectors, the first that is found: *sector and
 * *taken. 0, -ENOSPC or -ENOMEM.
 */
int dm_remap_alloc_take(struct dm_remap_alloc *a, u32 sectors, u64 *sector, u32 *taken);

/* Takes just this range. 0, -ENOMEM, or -EEXIST: some of it is taken (nothing changes). */
int dm_remap_alloc_mark(struct dm_remap_alloc *a, u64 sector, u64 sectors);

/* Gives a range back that was taken. Nothing may be in flight to it. Cannot fail. */
void dm_remap_alloc_release(struct dm_remap_alloc *a, u64 sector, u64 sectors);
/*
 * The same of a range that was taken for a moment. If it was the last one taken, it is also the
 * next. Data that is moved before and after then stays in one piece.
 */
void dm_remap_alloc_return(struct dm_remap_alloc *a, u64 sector, u64 sectors);

/* Sectors. */
u64 dm_remap_alloc_free_sectors(struct dm_remap_alloc *a);
u64 dm_remap_alloc_total_sectors(const struct dm_remap_alloc *a);

#endif /* DM_REMAP_ALLOC_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Has main done something well since it failed?
 *
 * The failures of main are numbered, reads and writes apart. I/O remembers the number of the latest
 * failure when it is sent. If it ends well, main has worked after that failure. A disk may take
 * writes into its cache, and fail to flush. So a write counts when it is durable: by itself, or by
 * a flush that begins after it has ended.
 *
 * I/O from above is looked at only while a failure is judged, or the breaker is open: the table is
 * watched then (dm_remap_table_watch). At any other time it costs nothing.
 *
 * Context: any.
 */
#ifndef DM_REMAP_EVIDENCE_H
#define DM_REMAP_EVIDENCE_H

#include "dm-remap-metadata.h"

/* Main has failed. Returns the number of this failure, from 1 on. */
static inline u64 dm_remap_main_failed(struct dm_remap_metadata *md,
				       enum dm_remap_direction direction)
{
	u64 failure = (u64)atomic64_inc_return(&md->evidence[direction].failures);

	dm_remap_table_watch(&md->table, true);
	return failure;
}

/* No failure waits to be judged. Only the breaker may still want to know whether main works. */
static inline void dm_remap_watch_ends(struct dm_remap_metadata *md)
{
	atomic64_set(&md->evidence[DM_REMAP_READ].target_end, 0);
	atomic64_set(&md->evidence[DM_REMAP_WRITE].target_end, 0);
	dm_remap_table_watch(&md->table, dm_remap_breaker_open(md));
}

/* The number of the latest failure, for I/O that is about to be sent. */
static inline u64 dm_remap_main_failures(const struct dm_remap_metadata *md,
					 enum dm_remap_direction direction)
{
	return (u64)atomic64_read(&md->evidence[direction].failures);
}

static inline void dm_remap_keep_latest(atomic64_t *latest, u64 since)
{
	s64 seen = atomic64_read(latest);

	while ((u64)seen < since && !atomic64_try_cmpxchg(latest, &seen, (s64)since))
		;
}

/* I/O has ended well, a write durably. When it was sent, failure @since was the latest. */
static inline void dm_remap_main_worked(struct dm_remap_metadata *md,
					enum dm_remap_direction direction, u64 since)
{
	dm_remap_keep_latest(&md->evidence[direction].worked, since);
}

/*
 * I/O from @sector on has ended well, by itself. If a target error waits, it shows that main does
 * not refuse all that lies behind a place.
 */
static inline void dm_remap_main_worked_at(struct dm_remap_metadata *md,
					   enum dm_remap_direction direction, u64 since, u64 sector)
{
	struct dm_remap_evidence *e = &md->evidence[direction];

	dm_remap_main_worked(md, direction, since);
	if (sector >= (u64)atomic64_read(&e->target_end))
		dm_remap_keep_latest(&e->beyond, since);
}

/*
 * Main has failed a block at @sector, alone, with a target error. As dm_remap_main_failed. The
 * place comes before the number: I/O that is sent after this failure is compared with it.
 */
static inline u64 dm_remap_main_target_error(struct dm_remap_metadata *md,
					     enum dm_remap_direction direction, u64 sector)
{
	dm_remap_keep_latest(&md->evidence[direction].target_end, sector + 1);
	return dm_remap_main_failed(md, direction);
}

/* Has main worked behind the place of that target error, and after it? */
static inline bool dm_remap_main_works_beyond(const struct dm_remap_metadata *md,
					      enum dm_remap_direction direction, u64 failure)
{
	return (u64)atomic64_read(&md->evidence[direction].beyond) >= failure;
}

/* A write has ended well, and may be in main's cache yet. */
static inline void dm_remap_main_cached(struct dm_remap_metadata *md, u64 since)
{
	dm_remap_keep_latest(&md->evidence[DM_REMAP_WRITE].cached, since);
}

/* For a flush of main that begins now: what dm_remap_main_worked is told if it ends well. */
static inline u64 dm_remap_main_flush_begins(const struct dm_remap_metadata *md)
{
	return (u64)atomic64_read(&md->evidence[DM_REMAP_WRITE].cached);
}

/* Has main worked after that failure? */
static inline bool dm_remap_main_works(const struct dm_remap_metadata *md,
				       enum dm_remap_direction direction, u64 failure)
{
	return (u64)atomic64_read(&md->evidence[direction].worked) >= failure;
}

#endif /* DM_REMAP_EVIDENCE_H */

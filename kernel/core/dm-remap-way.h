/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way of I/O from above: to main, to the spare, to a worker, or nowhere.
 *
 * In flight. Before a range is moved no write may be on its way to the old place. Before a place on
 * the spare is given up nothing may be on its way there. So such I/O is counted while the device
 * has it, and ops->drain waits for it. The look at the table and the count that follows it are one
 * RCU read-side section.
 */
#ifndef DM_REMAP_WAY_H
#define DM_REMAP_WAY_H

#include "dm-remap-metadata.h"

enum dm_remap_kind_of_io {
	DM_REMAP_IO_READ,
	DM_REMAP_IO_WRITE,
	DM_REMAP_IO_ZEROES,		/* write zeroes */
	DM_REMAP_IO_DISCARD,		/* advice: changes data, and may change nothing */
};

enum dm_remap_way {
	DM_REMAP_WAY_MAIN,		/* at the same sector */
	DM_REMAP_WAY_SPARE,		/* at the extent's spare sector */
	DM_REMAP_WAY_WORKER,		/* it waits, and a worker redoes it */
	DM_REMAP_WAY_ANSWERED,		/* with success, at once: no device gets it */
	DM_REMAP_WAY_NOWHERE,		/* -EIO */
};

/*
 * True: no record is near, so all of it goes to main, whatever it is. The hot path asks this
 * first. False says nothing: ask dm_remap_find_way. Context: RCU read-side, of the kind that
 * dm_remap_table_lookup needs.
 */
static inline bool dm_remap_way_is_plain(const struct dm_remap_metadata *md, u64 sector,
					 u64 sectors)
{
	return dm_remap_table_nothing(&md->table, sector, sectors);
}

/*
 * Zeros for the spare are written out: it may have no command for them. A write to a pending range
 * settles that. Of its reads one is done at a time. A write to a place that could not be read, or
 * to a spare that is not trusted, is read back.
 */
static inline bool dm_remap_needs_worker(const struct dm_remap_metadata *md,
					 enum dm_remap_kind_of_io kind,
					 const struct dm_remap_extent *e)
{
	if (e->kind == DM_REMAP_MAPPED)
		return kind == DM_REMAP_IO_ZEROES ||
		       (kind == DM_REMAP_IO_WRITE && (e->flags & DM_REMAP_F_UNREADABLE ||
						      READ_ONCE(md->policy.verify_spare_writes)));
	if (e->kind != DM_REMAP_PENDING || kind == DM_REMAP_IO_READ)
		return e->kind == DM_REMAP_PENDING;
	return !READ_ONCE(md->policy.no_auto_remap) && READ_ONCE(md->mode) < DM_REMAP_MODE_RO;
}

/* A discard never goes to the spare, and waits for nobody. */
static inline enum dm_remap_way dm_remap_way_of_discard(const struct dm_remap_extent *e)
{
	return e->kind == DM_REMAP_MAPPED || e->flags & (DM_REMAP_F_HELD | DM_REMAP_F_DOUBT) ?
		       DM_REMAP_WAY_ANSWERED : DM_REMAP_WAY_MAIN;
}

/*
 * The way of the first @e->length sectors; the rest, if any, is asked for anew. Context as of
 * dm_remap_table_lookup, until dm_remap_way_counts has been acted on.
 */
static inline enum dm_remap_way dm_remap_find_way(const struct dm_remap_metadata *md,
						  enum dm_remap_kind_of_io kind, u64 sector,
						  u64 sectors, struct dm_remap_extent *e)
{
	dm_remap_table_lookup(&md->table, sector, sectors, e);
	if (READ_ONCE(md->mode) == DM_REMAP_MODE_FAIL)
		return DM_REMAP_WAY_NOWHERE;
	if (kind == DM_REMAP_IO_DISCARD)
		return dm_remap_way_of_discard(e);
	if (e->flags & DM_REMAP_F_HELD)
		return DM_REMAP_WAY_WORKER;
	if (e->flags & DM_REMAP_F_DOUBT)
		return DM_REMAP_WAY_NOWHERE;
	if (dm_remap_needs_worker(md, kind, e))
		return DM_REMAP_WAY_WORKER;
	return e->kind == DM_REMAP_MAPPED ? DM_REMAP_WAY_SPARE : DM_REMAP_WAY_MAIN;
}

/*
 * Has main just failed to read all of a pending range? Then that is the answer. Context: any, but
 * not in an RCU read-side section.
 */
static inline bool dm_remap_answer_is_known(struct dm_remap_metadata *md,
					    enum dm_remap_kind_of_io kind, u64 sector,
					    const struct dm_remap_extent *e)
{
	u64 length = e->length;

	return kind == DM_REMAP_IO_READ && e->kind == DM_REMAP_PENDING &&
	       dm_remap_unread(&md->schedule, sector, &length, md->ops->uptime(md->ctx)) &&
	       length == e->length;
}

/* What kind of job is it for a worker? */
static inline enum dm_remap_job_kind dm_remap_job_kind_of(enum dm_remap_kind_of_io kind,
							  bool pending)
{
	if (kind != DM_REMAP_IO_READ)
		return DM_REMAP_JOB_WRITE;
	return pending ? DM_REMAP_JOB_PENDING : DM_REMAP_JOB_READ;
}

/* Must a drain wait for it? I/O that waits for a worker is not in flight. */
static inline bool dm_remap_way_counts(enum dm_remap_way way, enum dm_remap_kind_of_io kind)
{
	return way == DM_REMAP_WAY_SPARE || (way == DM_REMAP_WAY_MAIN && kind != DM_REMAP_IO_READ);
}

/*
 * A device has failed it with @error. Is it worth a closer look, by a worker? An error that says
 * it is not the media is passed on as it is, and a discard is advice.
 */
static inline bool dm_remap_fails_for_worker(enum dm_remap_kind_of_io kind, int error)
{
	return kind != DM_REMAP_IO_DISCARD && dm_remap_may_be_media(error);
}

#endif /* DM_REMAP_WAY_H */

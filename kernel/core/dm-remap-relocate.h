/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * I/O that failed, or that cannot simply be passed on, done again with care.
 *
 * The caller has requests on the mapped device that an underlying device failed
 * with an error that may come from bad media, or I/O to ranges that are pending. A mover redoes a
 * batch of them: one read, or writes whose ranges do not overlap. The caller has the ranges
 * (dm-remap-schedule.h) until the batch has ended, and then completes the requests:
 *
 *	dm_remap_redo_begin(m);
 *	for each request: error = dm_remap_redo_write(m, ...) or dm_remap_redo_read(m, ...)
 *		Each write gets a number before, by dm_remap_redo_next(m)
 *	dm_remap_redo_end(m);
 *	complete the writes: those that had succeeded with dm_remap_redo_result(m, number)
 *
 * A write may not be completed before, even if it failed: what it has moved is published at the
 * end.
 *
 * What is decided here, and where: docs/relocation.md has the rules, docs/outcomes.md each case.
 *
 * - A request that failed is searched block by block of the media.
 * - A block is bad if it failed, main then did something else in the same direction, and the
 *   block failed again. If main did nothing else, the error passes and nothing is recorded.
 *   After DM_REMAP_BREAKER_LIMIT such requests in a row the breaker opens for that direction. It
 *   does so, too, if they take too long. Then nothing that failed is tried again until main works.
 * - Bad in a write: to the spare, around spare blocks that fail, which are retired.
 * - Bad in a read, and back after all: rescued, that is, moved to the spare, once the read has been
 *   completed (dm_remap_do_later). Not back: pending, soft until the next commit or save.
 * - A write to a pending range: main first, and read back; if that holds the record goes, else to
 *   the spare.
 * - Each write is durable when it is acknowledged, whether it came with FUA or not.
 *
 * Errors of operations other than -EIO and -ENODATA say that it is not the media:
 * they are returned as they are, and nothing is recorded.
 */
#ifndef DM_REMAP_RELOCATE_H
#define DM_REMAP_RELOCATE_H

#include "dm-remap-metadata.h"

/* Most sectors of one redo; a multiple of any granularity. */
#define DM_REMAP_REDO_SECTORS	512u

/* Requests in a row that fail, and main works nowhere, before the breaker opens. */
#define DM_REMAP_BREAKER_LIMIT	8u
/* Seconds until main is asked again while it is open. */
#define DM_REMAP_BREAKER_PAUSE	5u

/*
 * Seconds that one extent of a request may be tried, block by block. Some drives take half
 * a minute for each command that fails: after the first number what fails is not
 * narrowed down any further, after the second nothing is tried.
 */
#define DM_REMAP_REDO_HURRY	60u
#define DM_REMAP_REDO_BUDGET	120u

/* Most writes of one batch. */
#define DM_REMAP_BATCH_WRITES	64u

/* The fate of a request so far, for all parts of it that are redone. NULL: nobody tried it. */
struct dm_remap_tried {
	/*
	 * The number of main's failure (dm-remap-evidence.h), 0: main was not asked. The redo sets
	 * it to 0 when it knows the reason: the parts that follow are tried as a whole.
	 */
	u64 failure;
	u32 sectors;		/* of the whole request */
};

/* Buffers and what has been collected for the next commit. */
struct dm_remap_mover;

/*
 * If the job turns out to be a read that the spare serves, puts it back, for a mover that may wait
 * for the spare. The caller has its turn. False: it is none.
 */
bool dm_remap_job_put_back(struct dm_remap_metadata *md, struct dm_remap_job *job);

/* For requests of up to @sectors. NULL: no memory. */
struct dm_remap_mover *dm_remap_mover_alloc(struct dm_remap_metadata *md, u32 sectors);
void dm_remap_mover_free(struct dm_remap_mover *m);
/* Room for the data of a request; free for the caller's use between two calls. */
void *dm_remap_mover_buffer(struct dm_remap_mover *m);

/* The batch ends with dm_remap_redo_end. */
void dm_remap_redo_begin(struct dm_remap_mover *m);

/*
 * The next write of the batch begins. It may be done in several parts, by several calls. Returns
 * its number, from 0.
 */
unsigned int dm_remap_redo_next(struct dm_remap_mover *m);

/*
 * Writes @data to [@start, @start + @length) of the mapped device, at most
 * DM_REMAP_REDO_SECTORS; what is not whole logical blocks fails.
 * 0: done and durable, if dm_remap_redo_result says so, too. Otherwise a negative errno; any part
 * of it may have been written.
 */
int dm_remap_redo_write(struct dm_remap_mover *m, u64 start, u32 length, const void *data,
			struct dm_remap_tried *tried);

/*
 * Reads the range, whole logical blocks, into @data. 0, or a negative errno; then the blocks that
 * could be read are in @data all the same, and the others are undefined. -EIO: the rest is
 * unreadable.
 */
int dm_remap_redo_read(struct dm_remap_mover *m, u64 start, u32 length, void *data,
		       struct dm_remap_tried *tried);

/* A commit in the batch has failed already: complete its writes, and begin another one. */
bool dm_remap_redo_failed(const struct dm_remap_mover *m);

/* Commits what the batch has moved. 0, or the error of a commit of the batch. */
int dm_remap_redo_end(struct dm_remap_mover *m);

/*
 * After the end, and before the next begin. -EIO: a commit failed that had a record of the write
 * with this @number. 0: none did.
 */
int dm_remap_redo_result(const struct dm_remap_mover *m, unsigned int number);

/*
 * Main has worked for others since the breaker opened (dm-remap-evidence.h): dm_remap_breaker_look
 * closes it. Context: any; dm_remap_breaker_look may sleep.
 */
bool dm_remap_breaker_due(struct dm_remap_metadata *md);
void dm_remap_breaker_look(struct dm_remap_metadata *md);

/*
 * Looks at main without a request from above:
 *
 *	- at a pending range that it reads again;
 *	- at blocks that are to be rescued;
 *	- whether the breaker of reads may be closed.
 *
 * And what reads found while a commit was under way becomes pending.
 *
 * One caller at a time. It looks at few of each, if it is time, and few commands fail.
 * Returns in how many seconds it is to be called again; 0: there is nothing to look at.
 */
u32 dm_remap_do_later(struct dm_remap_mover *m);
/* Is there anything? No lock. */
bool dm_remap_later_any(const struct dm_remap_metadata *md);

/* Its parts, in this order. Each returns the same. */
u32 dm_remap_record_unread(struct dm_remap_metadata *md);
u32 dm_remap_recheck(struct dm_remap_mover *m);
u32 dm_remap_rescue_again(struct dm_remap_mover *m);
/*
 * Main is asked to read something DM_REMAP_BREAKER_PAUSE seconds after the breaker has opened, and
 * then less and less often. A write would put data at risk, so the breaker of writes stays open.
 */
u32 dm_remap_breaker_probe(struct dm_remap_mover *m);

/* Closes the breaker, in both directions. Waits for nobody. */
void dm_remap_breaker_reset(struct dm_remap_metadata *md);

#endif /* DM_REMAP_RELOCATE_H */

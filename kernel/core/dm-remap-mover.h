/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What moving data takes, for the files that implement dm-remap-relocate.h and
 * dm-remap-manual.h, and for no one else. The caller has the ranges (dm-remap-schedule.h).
 */
#ifndef DM_REMAP_MOVER_H
#define DM_REMAP_MOVER_H

#include "dm-remap-internal.h"
#include "dm-remap-manual.h"
#include "dm-remap-relocate.h"

/* Places where a probe may write before main counts as silent. */
#define DM_REMAP_CONTROLS	3

/* What became of one block of a transfer. */
enum dm_remap_block_fate {
	DM_REMAP_GOOD,
	DM_REMAP_SUSPECT,	/* it failed, and was not asked again; only while it is judged */
	DM_REMAP_LATE,		/* bad, but a read came back on a further try */
	DM_REMAP_BAD,
	DM_REMAP_BAD_BACK,	/* written, but it does not read back */
};

/* Entries for one commit. */
struct dm_remap_entries {
	u64 writes;			/* of these writes of the batch */
	/* Main must have worked after this failure of a write, or none of it is committed; 0. */
	u64 unproved;
	unsigned int n;
	struct dm_remap_record entry[DM_REMAP_ENTRIES_PER_BLOCK];
	/* Spare sectors: what CLEAR sets free when it is committed (0: nothing). */
	u64 frees[DM_REMAP_ENTRIES_PER_BLOCK];
	/* They were taken for this entry, and are free again if it is not committed. */
	bool taken[DM_REMAP_ENTRIES_PER_BLOCK];
};

struct dm_remap_mover {
	struct dm_remap_metadata *md;
	u8 *buf;			/* data of a request or chunk */
	u8 *check;			/* as much again, for what main reads back */
	u8 *back;			/* and again, for what the spare does */
	u8 *fate[2];			/* enum dm_remap_block_fate, one for each block of it */
	u8 *control;			/* 4 KiB, and as much again to read back into */
	bool copying;			/* what is committed is a probe's copy: nobody is told */
	int error;			/* of a commit of this batch */
	struct dm_remap_moved moved;

	/* The writes of a batch, one bit for each. */
	unsigned int writes;		/* how many have been begun */
	u64 write;			/* whose entries are collected now; 0: of none */
	u64 failed;			/* they have an entry in a commit that failed */

	struct dm_remap_entries *now;	/* collected for the next commit */
	struct dm_remap_entries entries[2];	/* the other: see dm_remap_prove() */
};

static inline size_t dm_remap_bytes(u64 sectors)
{
	return sectors * DM_REMAP_SECTOR_SIZE;
}

/* Sectors in a logical block of main. */
static inline u32 dm_remap_granularity(const struct dm_remap_metadata *md)
{
	return md->sb.layout.granularity;
}

/* Where no record can be made, no data is written in its name: -EROFS. */
static inline int dm_remap_may_move(const struct dm_remap_metadata *md)
{
	return READ_ONCE(md->mode) >= DM_REMAP_MODE_RO ? -EROFS : 0;
}

/* The same, just before that is done: the spare may be another system's by now. */
static inline int dm_remap_may_move_now(struct dm_remap_metadata *md)
{
	return dm_remap_may_move(md) ?: dm_remap_look_after_pause(md);
}

/* ---- dm-remap-mover.c ---- */

/*
 * From here on nothing is in flight to the range, and nothing new gets there. It waits so many @ms
 * for I/O on its way, or with DM_REMAP_NO_END until ops->stop ends that. 0; -ENOMEM; or -EBUSY:
 * something is on its way there yet, and the range is not held.
 */
int dm_remap_hold(struct dm_remap_metadata *md, u64 start, u64 length, unsigned int ms);
void dm_remap_release(struct dm_remap_metadata *md, u64 start, u64 length);

/* How many blocks could be put on the spare, and recorded, each apart from the others. */
u64 dm_remap_puts_allowed(struct dm_remap_mover *m);

/*
 * Writes @sectors of @data to some place on the spare, around blocks that fail, and
 * collects the records for it; commits where they get many. 0 or a negative errno,
 * then what was placed before stays collected.
 */
int dm_remap_put(struct dm_remap_mover *m, u8 reason, u64 main, u32 sectors, const u8 *data);

/* Main holds the data of the range; @frees: where on the spare it was, or 0. May commit. */
int dm_remap_clear_add(struct dm_remap_mover *m, u64 main, u32 sectors, u64 frees);
/* Main cannot read the range. May commit. */
int dm_remap_unreadable_add(struct dm_remap_mover *m, u64 main, u32 sectors);
/* The place where a record was, which has just got another by dm_remap_put. May commit. */
int dm_remap_retire_add(struct dm_remap_mover *m, u64 spare, u32 sectors);

/*
 * The place @spare, where the range lives, could not be read in all its tries. It is marked, if the
 * spare reads something else now and the place fails again.
 */
void dm_remap_place_failed(struct dm_remap_mover *m, u64 main, u64 spare, u32 sectors);

/* Commits what was collected. An error stays in m->error, too. */
int dm_remap_mover_commit(struct dm_remap_mover *m);
/* Forgets what was collected; what was taken on the spare for it is free again. */
void dm_remap_mover_drop(struct dm_remap_mover *m);
/* Does what was collected touch the range? */
bool dm_remap_mover_overlaps(const struct dm_remap_mover *m, u64 start, u64 length);

/* ---- dm-remap-judge.c ---- */

/*
 * Sectors of main that fail together. To write one of them a drive reads a block of its media,
 * changes a part of it, and writes it again. So it may lose them all.
 */
u32 dm_remap_media_unit(const struct dm_remap_metadata *md);

/* I/O to a part of one device, narrowed to the blocks that fail. */
struct dm_remap_transfer {
	enum dm_remap_dev dev;
	enum dm_remap_direction direction;
	u64 sector;			/* of @dev */
	u32 sectors;
	u8 *data;
	unsigned int flags;		/* of the writes */
	unsigned int retries;		/* more tries for a block that failed by itself */
	bool pending;			/* it is: a target error says nothing new */
	bool proved_later;		/* a block may count as bad before dm_remap_prove() */
	u64 unproved;			/* one does: see struct dm_remap_entries; else 0 */
	struct dm_remap_tried *tried;	/* the request of which it is a part; NULL: none failed */
	bool stoppable;			/* ask ops->stop between the steps */
	bool of_write;			/* that is redone: reads of pending ranges give way */
	bool gives_way;			/* before each command, to those */
	u64 waited;			/* seconds for that */
	bool read_from_above;		/* if main fails it, a suspend with a flush ends it */
	bool whole;			/* tried once as a whole: a failure is returned */
	u8 *fate;			/* for each block; all GOOD where nothing failed */
};

/*
 * Does it, piece by piece where it fails. Returns
 *	0		@fate says what became of each block;
 *	-EIO		main does nothing in this direction;
 *	-ETIMEDOUT	it takes too long;
 *	or another negative errno, which is not the media's, or of ops->stop.
 */
int dm_remap_transfer(struct dm_remap_mover *m, struct dm_remap_transfer *t);

/*
 * Before a commit. Writes that failed together may share the evidence that main works, so it is
 * looked for when all of them have been judged. 0; -EIO: there is none.
 */
int dm_remap_prove(struct dm_remap_mover *m);

/* Blocks from @i on with the same fate as block @i, of @n. */
u32 dm_remap_fate_run(const u8 *fate, u32 i, u32 n);

/* ---- dm-remap-relocate.c ---- */

/* A relocation that was called for and is not possible, because of @why. Returns -EIO. */
int dm_remap_refused(struct dm_remap_metadata *md, u64 start, u32 length, int why);
/* The same, where the reason is known. */
void dm_remap_not_moved(struct dm_remap_metadata *md, u64 start, u32 length,
			enum dm_remap_refusal refusal, int why);

/* ---- dm-remap-later.c, and what it looks at ---- */

/* [@start, @end) in @pause seconds, if there is room. False: it is there already. */
bool dm_remap_later_add(struct dm_remap_metadata *md, struct dm_remap_laters *list, u64 start,
			u64 end, u32 pause);
/* Those that overlap the range are not looked at. */
void dm_remap_later_forget(struct dm_remap_metadata *md, struct dm_remap_laters *list, u64 start,
			   u64 length);
/* Takes one that is due off the list. False: none is. */
bool dm_remap_later_take(struct dm_remap_metadata *md, struct dm_remap_laters *list,
			 struct dm_remap_later *entry);
/* Seconds to the next that is due, at least 1; 0: there is none. */
u32 dm_remap_later_wait(struct dm_remap_metadata *md, struct dm_remap_laters *list);

/* Somebody has read the range, which was pending, and nothing failed (dm-remap-recheck.c). */
void dm_remap_recheck_hint(struct dm_remap_metadata *md, u64 start, u32 length);
/* Blocks that came back late are moved, when dm_remap_do_later looks (dm-remap-rescue.c). */
void dm_remap_rescue(struct dm_remap_metadata *md, u64 start, u32 length);

/* ---- dm-remap-breaker.c ---- */

enum dm_remap_breaker_state {
	DM_REMAP_BREAKER_CLOSED,
	DM_REMAP_BREAKER_OPEN,		/* nothing is tried */
	DM_REMAP_BREAKER_DUE,		/* open, and it is time to ask main again */
};

enum dm_remap_breaker_state dm_remap_breaker(struct dm_remap_metadata *md,
					     enum dm_remap_direction direction);
/* Main did something; it did nothing wherever it was asked, or took too long. */
void dm_remap_breaker_success(struct dm_remap_metadata *md, enum dm_remap_direction direction);
void dm_remap_breaker_failure(struct dm_remap_metadata *md, enum dm_remap_direction direction);

/* ---- dm-remap-probe.c ---- */

/* The answer of a probe. */
enum dm_remap_found {
	DM_REMAP_ANSWERS,	/* main does something in this direction */
	DM_REMAP_SILENT,	/* it failed wherever it was asked */
	DM_REMAP_NOT_ASKED,	/* it could not be asked without harm, or without waiting */
};

struct dm_remap_probe {
	enum dm_remap_direction direction;
	u64 start;		/* what failed: main is asked elsewhere */
	u64 length;
	u64 until;		/* no command begins later, as ops->uptime() */
	/* The probe's own, 0 at first. */
	u32 unit;		/* sectors that are asked for at once */
	int error;		/* of the last place that was asked */
	unsigned int risks;	/* blocks that may yet be written */
	int why;		/* NOT_ASKED: the spare took no copy; 0: it is another reason */
};

/*
 * Asks main in one place after the other until it answers. A read shows whether it reads. To see
 * whether it writes, a good block is copied to the spare, and then written with the bytes that it
 * holds. Waits for no I/O of others, and does not touch the breaker.
 */
enum dm_remap_found dm_remap_probe(struct dm_remap_mover *m, struct dm_remap_probe *p);
/*
 * Asks in the same way in one place, at the last block of the mapped range that is neither
 * remapped, nor held, nor pending. That may be a part of the range which failed, or a block that
 * may not be written together with its neighbours in the media. Then main is not asked.
 */
enum dm_remap_found dm_remap_probe_last(struct dm_remap_mover *m, struct dm_remap_probe *p);

/* ---- dm-remap-target-error.c ---- */

/*
 * [@start, @start + @length) of main failed twice, at last with DM_REMAP_TARGET_ERROR. Main worked
 * elsewhere in between. @failure is its own first failure or a later one. @p: for a
 * probe. 0: the range counts as bad media; DM_REMAP_TARGET_ERROR: no record may be made.
 */
int dm_remap_target_error(struct dm_remap_mover *m, struct dm_remap_probe *p, u64 start, u32 length,
			  u64 failure);
/*
 * Main fails I/O from @sector on with a target error. Does that pass without a closer look? It does
 * for DM_REMAP_BREAKER_PAUSE seconds behind a place where no record was made for one.
 */
bool dm_remap_target_passes(struct dm_remap_metadata *md, enum dm_remap_direction direction,
			    u64 sector);

#endif /* DM_REMAP_MOVER_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The schedule of those who work on ranges of the mapped device.
 *
 * A job is such a range: that of I/O from above that is redone, or the claim of a person's command
 * or of a control. Jobs whose ranges overlap have their turns in the order in which they came.
 * Other jobs wait for nothing but a mover.
 *
 * So no two wait for one another, and none for ever:
 *
 * - A job waits for jobs that came before it, never for one that came later.
 * - A job that has its turn waits for no other job. A control takes a place that is free, or looks
 *   elsewhere.
 * - What it waits for is a device, and the locks of commits and checkpoints, whose holders
 *   wait for devices alone. A person's command may wait for I/O to its range, and a suspend ends
 *   that (dm_remap_hold).
 *
 * Of reads of pending ranges, which main fails, one is done at a time. It gives way to writes. When
 * it has failed its answer serves others for as long as it took.
 *
 * The mover for reads never waits for the spare. So reads of main are answered, whatever the spare
 * does.
 *
 * Context: any. The schedule has a spinlock of its own.
 */
#ifndef DM_REMAP_SCHEDULE_H
#define DM_REMAP_SCHEDULE_H

#include "dm-remap-port.h"

/* Movers of one device. One is for writes alone, and one for reads. */
#define DM_REMAP_MOVERS	4

enum dm_remap_mover_role {
	DM_REMAP_FOR_ANY,
	DM_REMAP_FOR_READS,		/* of main */
	DM_REMAP_FOR_WRITES,
};

static inline enum dm_remap_mover_role dm_remap_role_of(unsigned int mover)
{
	return mover == 0 ? DM_REMAP_FOR_WRITES :
	       mover == DM_REMAP_MOVERS - 1 ? DM_REMAP_FOR_READS : DM_REMAP_FOR_ANY;
}

enum dm_remap_job_kind {
	DM_REMAP_JOB_WRITE,		/* from above, redone */
	DM_REMAP_JOB_READ,
	DM_REMAP_JOB_PENDING,		/* a read of a range that was pending when it came */
	DM_REMAP_JOB_SPARE,		/* a read that the spare serves: dm_remap_job_put_back */
	DM_REMAP_JOB_KINDS,		/* that have movers */
	DM_REMAP_JOB_CLAIM = DM_REMAP_JOB_KINDS,	/* of someone who has a mover already */
};

struct dm_remap_job {
	struct dm_remap_job *prev;	/* in the order in which they came */
	struct dm_remap_job *next;
	struct dm_remap_job *next_ready;
	u64 start;			/* sectors [start, end) of the mapped device */
	u64 end;
	unsigned int before;		/* jobs that overlap, and came before */
	enum dm_remap_job_kind kind;
};

/* A range that main could not read just now. */
struct dm_remap_unread {
	u64 start;
	u64 end;
	u64 until;			/* as ops->uptime(): nobody asks main again before */
	bool being_read;		/* and nothing was written there since that began */
};

#define DM_REMAP_UNREAD 16

/* A range that main could not read, and no record says so yet: a commit was under way. */
struct dm_remap_unrecorded {
	u64 start;
	u64 end;
};

#define DM_REMAP_UNRECORDED 64

/* Seconds for which the answer of a read of a pending range serves others, at most. */
#define DM_REMAP_UNREAD_PAUSE 5u

struct dm_remap_schedule {
	spinlock_t lock;		/* protects: */
	struct dm_remap_job *first;
	struct dm_remap_job *last;
	struct {
		struct dm_remap_job *first;
		struct dm_remap_job **last;	/* where the next one is put */
	} ready[DM_REMAP_JOB_KINDS];
	unsigned int running[DM_REMAP_JOB_KINDS];
	unsigned int on_main;		/* commands of writes */
	u64 left_main;			/* when the last one ended */
	struct dm_remap_unread unread[DM_REMAP_UNREAD];
	unsigned int next_unread;
	struct dm_remap_unread reading[DM_REMAP_MOVERS];	/* what is being read now */
	unsigned int next_reading;
	struct dm_remap_unrecorded unrecorded[DM_REMAP_UNRECORDED];	/* in no order */
	unsigned int n_unrecorded;

	/* Somebody's turn may have come. Called with the lock held. */
	void (*kick)(void *ctx);
	void *ctx;
};

void dm_remap_schedule_init(struct dm_remap_schedule *s, void (*kick)(void *ctx), void *ctx);

/* A job for a mover comes. As soon as this is called it may be done, and be gone. */
void dm_remap_job_add(struct dm_remap_schedule *s, struct dm_remap_job *job,
		      enum dm_remap_job_kind kind, u64 start, u64 length);
/* The next one for a mover. NULL: there is none now. */
struct dm_remap_job *dm_remap_job_next(struct dm_remap_schedule *s, enum dm_remap_mover_role role);
/* Those that waited for it may have their turns. A claim that has not had its own is given up. */
void dm_remap_job_done(struct dm_remap_schedule *s, struct dm_remap_job *job);

/* Takes the range, if no other job has any of it or waits for it. */
bool dm_remap_job_claim_now(struct dm_remap_schedule *s, struct dm_remap_job *job, u64 start,
			    u64 length);
/* Waits for its turn, which dm_remap_job_claimed tells of. */
void dm_remap_job_claim(struct dm_remap_schedule *s, struct dm_remap_job *job, u64 start,
			u64 length);
bool dm_remap_job_claimed(struct dm_remap_schedule *s, const struct dm_remap_job *job);

/* There is no job, nobody has a claim, and no range waits for its record. */
bool dm_remap_schedule_is_idle(struct dm_remap_schedule *s);
/*
 * A command of a write that is redone begins on main, and it has ended. @now: as ops->uptime().
 */
void dm_remap_write_on_main(struct dm_remap_schedule *s);
void dm_remap_write_off_main(struct dm_remap_schedule *s, u64 now);
/*
 * Is a write redone that uses main, or did so within the last second or two? One that the spare
 * keeps does not.
 */
bool dm_remap_writes_use_main(struct dm_remap_schedule *s, u64 now);

/* A read of the range begins. Returns a number for dm_remap_unread_add and dm_remap_unread_end. */
unsigned int dm_remap_unread_begin(struct dm_remap_schedule *s, u64 start, u64 length);
/*
 * It has failed for a part of the range, for which it took so many seconds until @now. That is no
 * answer for others if something was written there meanwhile.
 */
void dm_remap_unread_add(struct dm_remap_schedule *s, unsigned int number, u64 start, u64 length,
			 u64 took, u64 now);
void dm_remap_unread_end(struct dm_remap_schedule *s, unsigned int number);
/* Something was written there: neither an answer serves, nor is a record made. */
void dm_remap_unread_forget(struct dm_remap_schedule *s, u64 start, u64 length);
/*
 * Has main failed to read @start just now? The answer is for the first @length sectors, which may
 * become fewer.
 */
bool dm_remap_unread(struct dm_remap_schedule *s, u64 start, u64 *length, u64 now);

/* The range waits for its record, if there is room. */
void dm_remap_unrecorded_add(struct dm_remap_schedule *s, u64 start, u64 length);
/* Number @i of those that wait. False: there are not so many. */
bool dm_remap_unrecorded_get(struct dm_remap_schedule *s, unsigned int i,
			     struct dm_remap_unrecorded *u);
/* It waits no longer, if it did. */
void dm_remap_unrecorded_drop(struct dm_remap_schedule *s, const struct dm_remap_unrecorded *u);

#endif /* DM_REMAP_SCHEDULE_H */

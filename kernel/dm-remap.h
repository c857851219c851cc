/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel part: what its files share.
 *
 * struct dm_remap_target is one loaded table. struct dm_remap_device is the live
 * thing behind it, a main and a spare with the metadata in memory; all tables that
 * are loaded for the same mapped device, main, start and spare share it, so a reload
 * goes on where the old table stopped.
 *
 * dm-remap-target.c	table line, suspend and resume, module
 * dm-remap-device.c	the live devices: found, loaded, activated, given up
 * dm-remap-map.c	the way of a bio; dm-remap-bio.h: what it carries
 * dm-remap-inflight.c	waiting for bios that are on their way
 * dm-remap-worker.c	bios that cannot simply go on
 * dm-remap-message.c	messages and status
 * dm-remap-io.c	block I/O for the core, and the metadata's entry points
 * dm-remap-reader.c	reads of a spare that a signal ends, while a table is loaded
 * dm-remap-autosave.c	the background save
 * dm-remap-sleep.c	no hibernation while a device is in use
 */
#ifndef DM_REMAP_H
#define DM_REMAP_H

#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/percpu.h>
#include <linux/ratelimit.h>
#include <linux/workqueue.h>

#include "compat/dm-remap-compat.h"
#include "core/dm-remap-cache.h"
#include "core/dm-remap-evidence.h"
#include "core/dm-remap-manual.h"
#include "core/dm-remap-metadata.h"
#include "core/dm-remap-relocate.h"
#include "core/dm-remap-way.h"

#define DM_MSG_PREFIX "remap"

#define DM_REMAP_DEFAULT_READ_RETRIES	2
#define DM_REMAP_MAX_READ_RETRIES	100

struct dm_remap_features {
	bool format;			/* format the spare at the first resume */
	bool has_uuid;
	uuid_t uuid;			/* refuse any other spare */
	struct dm_remap_witness witness; /* refuse that spare where it is older */
	bool rebind;			/* main is the right one, though the spare knows another */
	struct dm_remap_policy policy;
};

/* Regions are counted by their numbers, in so many slots; and one for what is longer. */
#define DM_REMAP_SLOTS		16
#define DM_REMAP_SLOT_LONG	DM_REMAP_SLOTS

/* Does bios over that cannot simply go on. */
struct dm_remap_worker {
	struct work_struct work;
	struct dm_remap_device *d;
	struct dm_remap_mover *mover;
	enum dm_remap_mover_role role;
};

struct dm_remap_device {
	/* Set when it is made. */
	struct list_head list;		/* registry_lock (dm-remap-device.c) */
	struct list_head tables;	/* that share it; registry_lock */
	struct mapped_device *dm;
	dev_t main_devt;
	dev_t spare_devt;		/* 0: no table has it open, as it was unplugged */
	sector_t main_start;
	u64 main_claim;			/* sectors from there on, of its longest table */
	struct bio_set bios;		/* for I/O of the core */
	struct dm_remap_metadata metadata;
	bool starting;			/* a writable table is being resumed; registry_lock */

	struct dm_remap_reader *reader;	/* while it is loaded: by this the core reads the spare */

	/* Until the first resume. */
	struct dm_remap_report report;	/* of the load */
	bool report_due;		/* no activation has acted on it yet */
	bool to_format;			/* at the first resume */
	bool rebinding;			/* the spare may know another main, until a resume writes */
	bool superseded;		/* never to be resumed; registry_lock */
	struct dm_remap_format_params format;

	/* Of the table that runs; changed only while none does. */
	struct dm_target *ti;		/* NULL: suspended */
	struct block_device *main_bdev;
	struct block_device *spare_bdev;
	bool stop;			/* a suspend has begun: long work ends */

	/* In flight: writes to main, all I/O to the spare. Of each slot the counter in use. */
	unsigned long __percpu *counter[DM_REMAP_SLOTS + 1];

	/* Bios that cannot simply go on. The schedule of the core says whose turn it is. */
	struct dm_remap_worker worker[DM_REMAP_MOVERS] ____cacheline_aligned_in_smp;
	struct workqueue_struct *write_queue;	/* of the first */
	struct workqueue_struct *workqueue;
	wait_queue_head_t turn;		/* somebody's may have come */

	struct dm_remap_inflight __percpu *inflight;
	unsigned long __percpu *counter_next[DM_REMAP_SLOTS + 1];	/* slot_lock */
	struct mutex slot_lock[DM_REMAP_SLOTS + 1];	/* of a drain; to exchange the two */

	struct delayed_work tell;	/* the log of relocations */
	struct delayed_work later;	/* a worker reads main without a request */

	struct delayed_work autosave;
	bool autosaving;		/* schedule_lock (dm-remap-autosave.c) */

	struct ratelimit_state warnings; /* of one device: another's hide none */

	/* What the last event said. */
	struct mutex event_lock;
	enum dm_remap_mode event_mode;
	u64 event_records;
	u64 event_unreadable;
	unsigned int event_percent;
	bool event_save_failed;
	bool event_breaker;
	enum dm_remap_refusal event_refusal;
	u64 event_recovered;
};

struct dm_remap_target {
	struct list_head list;		/* of the device's tables; registry_lock */
	bool made;			/* its spare has been read; registry_lock */
	struct dm_target *ti;
	struct dm_dev *main;
	struct dm_dev *spare;
	struct dm_remap_device *device;
	struct dm_remap_features features;
};

static inline bool dm_remap_has_witness(const struct dm_remap_target *t)
{
	return t->features.witness.generation || t->features.witness.sequence;
}

/* ---- dm-remap-device.c ---- */

/*
 * The device for the table @t: the live one, or a new one whose spare has been
 * read and checked. Nothing is written. 0 or a negative errno and *error. Devices that have nothing
 * to do with @t are not waited for, and a fatal signal ends the wait for the spare.
 */
int dm_remap_device_get(struct dm_remap_target *t, u64 main_start, char **error);
/* The table is gone; the last one takes the device along. */
void dm_remap_device_put(struct dm_remap_target *t);
/* Formats if that was asked for, activates, starts autosave. 0 or a negative errno. */
int dm_remap_device_resume(struct dm_remap_target *t);
/*
 * A suspend has begun: long work ends. Without a flush (@noflush) bios that wait are given back to
 * dm, and done after the resume. Otherwise only reads that failed are given up.
 */
void dm_remap_device_stop(struct dm_remap_device *d, bool noflush);
/* It was taken back. */
void dm_remap_device_go_on(struct dm_remap_device *d);
/* No bio is in flight any more: stops everything, checkpoints to CLEAN. */
void dm_remap_device_suspend(struct dm_remap_device *d);
/*
 * Raises a dm event where the mode, the number of records or the use of the spare
 * calls for one. May sleep; not under locks of the core.
 */
void dm_remap_device_event(struct dm_remap_device *d);
/* Calls @fn for each device of the module, with @data, under registry_lock. */
void dm_remap_with_each_device(void (*fn)(struct dm_remap_device *d, void *data), void *data);
/*
 * From now on each writable resume is refused with -EBUSY, or (@refuse is false) none. One that
 * was let through is seen by dm_remap_with_each_device: it is `starting`, or active.
 */
void dm_remap_refuse_resumes(bool refuse);

/* ---- dm-remap-map.c ---- */

/* Our part of each bio's per-bio data. */
struct dm_remap_io {
	/* The bio as it came, its sector counted from the start of the mapped device. */
	struct bvec_iter iter;
	u64 flush_covers;		/* flush of the spare: writes completed before it */
	int losses_told;		/* IO_*_FUA: of its device, when it was mapped */
	/* If it was tried: main's failure, or 0. IO_WATCHED: those before it was sent. */
	u64 failure;
	bool pending;			/* where it goes a record is pending */
	bool tried;			/* before it came to a worker, and it failed */
	int error;			/* of a worker's try */
	struct dm_remap_job job;	/* while it waits for a worker, and is done over */
};

int dm_remap_map(struct dm_target *ti, struct bio *bio);
int dm_remap_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error);

/* ---- dm-remap-inflight.c ---- */

int dm_remap_inflight_init(struct dm_remap_device *d);
void dm_remap_inflight_exit(struct dm_remap_device *d);
/* An operation of the core (see struct dm_remap_ops). */
bool dm_remap_drain(void *ctx, u64 start, u64 length, unsigned int ms);

/* ---- dm-remap-worker.c ---- */

int dm_remap_workers_init(struct dm_remap_device *d, const char *name);
void dm_remap_workers_exit(struct dm_remap_device *d);
void dm_remap_workers_give_up(struct dm_remap_device *d, enum dm_remap_give_up what);
/* They have nothing to do any more: the log tells what they have moved. */
void dm_remap_workers_stop(struct dm_remap_device *d);
/*
 * I/O from above is not watched any more, if no failure waits to be judged, and the breaker is
 * closed. Context: process.
 */
void dm_remap_watch_ends_if_idle(struct dm_remap_device *d);
/* Operations of the core. */
void dm_remap_kick(void *ctx);
int dm_remap_wait_for_claim(void *ctx, const struct dm_remap_job *claim);
void dm_remap_give_way(void *ctx);

/* ---- dm-remap-io.c ---- */

/*
 * A status for the core. Of one that it does not know the block layer makes -EIO, or 0. For the
 * core the first would leave it open that it was the media.
 */
static inline int dm_remap_errno_of(blk_status_t status)
{
	int error = blk_status_to_errno(status);

	return status && status != BLK_STS_IOERR && (!error || error == -EIO) ? -EINVAL : error;
}

extern const struct dm_remap_ops dm_remap_kernel_ops;

/* An operation of the core: does long work end? 0, -EAGAIN: a suspend has begun; -EINTR. */
int dm_remap_stop(void *ctx);

/* How does the device make a write durable by itself, today? */
enum dm_remap_fua dm_remap_fua_of(struct block_device *bdev);
/*
 * Sectors of the spare, for the core alone, which sees to flushes of others. @flags:
 * DM_REMAP_PREFLUSH, DM_REMAP_FUA. Context: process, may block; no memory is needed but reserves.
 */
int dm_remap_metadata_read(struct dm_remap_device *d, u64 sector, u32 sectors, void *buf);
int dm_remap_metadata_write(struct dm_remap_device *d, u64 sector, u32 sectors, const void *buf,
			    unsigned int flags);
/* Writes everything that is only in memory: a checkpoint, counted as a save. */
int dm_remap_metadata_sync(struct dm_remap_device *d);
/* Loads the spare's metadata; d->report says what was found. */
int dm_remap_metadata_recover(struct dm_remap_device *d, u64 main_sectors);

/* ---- dm-remap-reader.c ---- */

struct dm_remap_reader;

/*
 * To read @bdev, which the caller has open, one read at a time. It stays open until the last read
 * has ended, and the module is in use as long. An error pointer: -ENOMEM, or that of the open.
 */
struct dm_remap_reader *dm_remap_reader_open(struct block_device *bdev);
void dm_remap_reader_close(struct dm_remap_reader *r);
/*
 * Context: process, may block. 0 or a negative errno; -EINTR: a fatal signal came. Then the read
 * goes on without us, and *r becomes an error pointer, by which each further read fails.
 */
int dm_remap_reader_read(struct dm_remap_reader **r, u64 sector, u32 sectors, void *buf);
int dm_remap_reader_init(void);
void dm_remap_reader_exit(void);

/* ---- dm-remap-message.c ---- */

int dm_remap_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		     unsigned int maxlen);
void dm_remap_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
		     char *result, unsigned int maxlen);

/* ---- dm-remap-autosave.c ---- */

int dm_remap_autosave_init(void);
void dm_remap_autosave_exit(void);
/* Seconds; the parameter, whether it is switched on or not. */
unsigned int dm_remap_autosave_interval(void);
/* The same; 0: switched off. */
unsigned int dm_remap_autosave_period(void);
/* Of one device: from its resume on, and no more after stop has returned. */
void dm_remap_autosave_setup(struct dm_remap_device *d);
void dm_remap_autosave_start(struct dm_remap_device *d);
void dm_remap_autosave_stop(struct dm_remap_device *d);

/* ---- dm-remap-sleep.c ---- */

int dm_remap_sleep_init(void);
void dm_remap_sleep_exit(void);

#endif /* DM_REMAP_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The metadata of one spare: loaded, activated, changed by commits, written out
 * by checkpoints. The protocol and the reason for each of its rules is in
 * docs/on-disk-format.md.
 *
 * Life of a struct dm_remap_metadata:
 *
 *	init -> load -> activate -> commit, checkpoint, restore ... -> deactivate
 *	                   ^                                              |
 *	                   +------ resume, perhaps after take_back -------+-> exit
 *
 * load only reads; activate is the first that writes. All functions may sleep and
 * do I/O through the operations unless they say otherwise.
 *
 * Locks, outermost first: checkpoint_lock, commit_lock, super_lock, then those of table and
 * allocator, breaker_lock, moves_lock or later_lock. The functions here take what they need.
 */
#ifndef DM_REMAP_METADATA_H
#define DM_REMAP_METADATA_H

#include "dm-remap-alloc.h"
#include "dm-remap-schedule.h"
#include "dm-remap-table.h"

enum dm_remap_dev {
	DM_REMAP_MAIN,			/* sectors count from the start of the mapped device */
	DM_REMAP_SPARE,			/* from the start of the spare */
};

/* Flags of a write. */
#define DM_REMAP_PREFLUSH	0x1	/* all that was written before is durable first */
#define DM_REMAP_FUA		0x2	/* durable when the call returns */

/*
 * ERR and INFO are said once, of a state that is new, or at a limited rate: each is to be seen.
 * WARN is of one I/O or one attempt, and there may be any number of them.
 */
enum dm_remap_level {
	DM_REMAP_LOG_ERR,
	DM_REMAP_LOG_WARN,
	DM_REMAP_LOG_INFO,
};

/* Decisions, for who wants to follow them. */
enum dm_remap_note {
	DM_REMAP_NOTE_BAD,		/* blocks of main judged bad; value: 0 read, 1 write */
	DM_REMAP_NOTE_RELOCATED,	/* value: first sector on the spare */
	DM_REMAP_NOTE_RESCUED,		/* value: first sector on the spare */
	DM_REMAP_NOTE_PENDING,
	DM_REMAP_NOTE_CLEARED,		/* main holds the data (again): the record is gone */
	DM_REMAP_NOTE_RETIRED,		/* sector: of the spare */
	DM_REMAP_NOTE_MODE,		/* value: enum dm_remap_mode */
	DM_REMAP_NOTE_BREAKER,		/* of one direction; value: 1 open, 0 closed */
	DM_REMAP_NOTE_UNREADABLE,	/* the place on the spare; value: its first sector there */
};

/* How does a device make a write durable by itself? */
enum dm_remap_fua {
	DM_REMAP_FUA_OWN,		/* with a command of its own, or it has no volatile cache */
	DM_REMAP_FUA_BY_FLUSH,		/* it cannot: a flush follows the write */
	DM_REMAP_FUA_BELOW,		/* made of others: FUA goes down, and may be a flush */
};

struct dm_remap_flush;

/*
 * How the core reaches the world. I/O is synchronous; it returns 0 or a negative
 * errno: -EIO, -ENODATA and DM_REMAP_TARGET_ERROR where the media may be at fault, others where
 * it is not. Buffers come from dm_remap_zalloc. @sectors is a multiple of the logical
 * block of the device.
 */
struct dm_remap_ops {
	int (*read)(void *ctx, enum dm_remap_dev dev, u64 sector, u32 sectors, void *buf);
	int (*write)(void *ctx, enum dm_remap_dev dev, u64 sector, u32 sectors, const void *buf,
		     unsigned int flags);
	u64 (*now)(void *ctx);		/* seconds since 1970 UTC; people set it */
	u64 (*uptime)(void *ctx);	/* seconds since some time; nobody sets it */
	u64 (*random)(void *ctx);	/* any number, that no other system draws */
	void (*log)(void *ctx, enum dm_remap_level level, const char *fmt, ...) __printf(3, 4);

	/*
	 * The rest is for moving data (dm-remap-relocate.h, dm-remap-manual.h); who only
	 * deals with metadata leaves it NULL.
	 *
	 * flush: of f->dev; calls dm_remap_own_flush_ended(f, error), and returns error. With it,
	 * a write has no other flag than DM_REMAP_FUA, and that only where the device is not
	 * DM_REMAP_FUA_BY_FLUSH. Without it the device's own way of both flags will do.
	 * fua: what the device does today. NULL where flush is.
	 * drain: has every write to main, and all I/O to the spare, that was mapped before the
	 * call for sectors [start, start + length) of the mapped device completed? It waits for
	 * so many @ms, or, with DM_REMAP_NO_END, until stop ends it. False: that is not known.
	 * kick: somebody's turn may have come (dm-remap-schedule.h). Under the schedule's lock.
	 * wait: until dm_remap_job_claimed(). 0, or the error of stop.
	 * give_way: waits for some seconds at most while dm_remap_writes_use_main(). May be NULL.
	 * stop: asked between the steps of long work, that of load among it: -EINTR or
	 * -EAGAIN ends it.
	 * note: a decision about [sector, sector + sectors) of main, if not said otherwise.
	 * main_sectors: of main today, from the start of the mapped device; NULL: as ever.
	 */
	int (*flush)(void *ctx, struct dm_remap_flush *f);
	enum dm_remap_fua (*fua)(void *ctx, enum dm_remap_dev dev);
	bool (*drain)(void *ctx, u64 start, u64 length, unsigned int ms);
	void (*kick)(void *ctx);
	int (*wait)(void *ctx, const struct dm_remap_job *job);
	void (*give_way)(void *ctx);
	int (*stop)(void *ctx);
	void (*note)(void *ctx, enum dm_remap_note note, u64 sector, u64 sectors, s64 value);
	u64 (*main_sectors)(void *ctx);
};

#define DM_REMAP_NO_END		UINT_MAX

/* No device says this: a suspend has ended a redo. */
#define DM_REMAP_GIVEN_UP	(-ECANCELED)

/*
 * The drive itself does not do it (BLK_STS_TARGET). Some say so of bad sectors, some of what they
 * refuse: a locked range, say. dm-remap-target-error.c tells the two apart.
 */
#define DM_REMAP_TARGET_ERROR	(-EREMOTEIO)

/* Does the error leave it open that it was the media? */
static inline bool dm_remap_may_be_media(int error)
{
	return error == -EIO || error == -ENODATA || error == DM_REMAP_TARGET_ERROR;
}

/*
 * The spare itself has said -ENOSPC: there is no room beneath it, as under a thin volume with a
 * full pool. -ENOSPC of the core says that the spare, or its table, is full.
 */
#define DM_REMAP_NO_ROOM_BENEATH	(-EDQUOT)

/* Why relocations are refused. */
enum dm_remap_refusal {
	DM_REMAP_REFUSAL_NONE,
	DM_REMAP_REFUSAL_SPARE_FULL,
	DM_REMAP_REFUSAL_TABLE_FULL,
	DM_REMAP_REFUSAL_NO_ROOM_BENEATH,
	DM_REMAP_REFUSAL_SPARE_FAILS,
	DM_REMAP_REFUSAL_MAIN_REFUSES,
};

enum dm_remap_mode {
	DM_REMAP_MODE_RW,
	DM_REMAP_MODE_DEGRADED,		/* one table copy is known bad, and said so on disk */
	DM_REMAP_MODE_RO,		/* no record can be made durable */
	/* Not loaded, or another system has taken the spare: all I/O fails. */
	DM_REMAP_MODE_FAIL,
};

/* What was found wrong with one replica when it was read. */
struct dm_remap_replica_report {
	enum dm_remap_verdict superblock;
	u64 superblock_at;		/* block where it was looked for last */
	u32 bad_table_blocks;
	u32 bad_journal_blocks;		/* of those that replay needed */
};

struct dm_remap_report {
	struct dm_remap_replica_report replica[DM_REMAP_REPLICAS];
	bool lagging;			/* the superblocks are one generation apart */
	bool one_sided;			/* the last commit had reached one replica alone, */
	bool other_unread;		/* or its other copy cannot be read */
	u64 replayed;			/* journal blocks */
	bool end_unread;		/* one more may be where replica 0 cannot be read */
	/*
	 * Why load or format refused, for a person, with what to do about it; it
	 * stays valid for ever. NULL: it did not.
	 */
	const char *refusal;
};

struct dm_remap_doubt;

/* What the owner wants; may change at any time, read without a lock. */
struct dm_remap_policy {
	unsigned int read_retries;	/* more tries before a block counts as unreadable */
	bool no_auto_remap;		/* record what is bad, move nothing by itself */
	bool verify_spare_writes;	/* read back what is written to mapped ranges, too */
	unsigned int recheck_pause;	/* seconds between reads of a pending range that recovers */
};

/* Which redone I/O ends between two commands, with DM_REMAP_GIVEN_UP? */
enum dm_remap_give_up {
	DM_REMAP_GIVE_UP_NOTHING,
	DM_REMAP_GIVE_UP_READS,		/* from above, that main has failed */
	DM_REMAP_GIVE_UP_ALL,
};

enum dm_remap_direction {
	DM_REMAP_READ,
	DM_REMAP_WRITE,
	DM_REMAP_DIRECTIONS,
};

/* See dm-remap-breaker.c. Protected by breaker_lock; open is read without. */
struct dm_remap_breaker {
	bool open;
	unsigned int failures;		/* requests in a row that main answered nowhere */
	u64 failure;			/* of main: the latest of them */
	u64 tried;			/* when that was, as ops->uptime() */
	u32 pause;			/* reads: seconds between main being asked without I/O */
	u64 next;			/* and when it is asked next */
};

/* The latest failures and successes of main in one direction: see dm-remap-evidence.h. */
struct dm_remap_evidence {
	atomic64_t failures;		/* so many; the latest has this number */
	atomic64_t worked;		/* after this failure it worked */
	atomic64_t cached;		/* ... or took a write into its cache */
	atomic64_t target_end;		/* the highest sector + 1 with a target error of its own */
	atomic64_t beyond;		/* after this failure main worked there or behind it */
};

/*
 * Main refuses something behind that sector, so nothing is looked into there for some time.
 * Protected by breaker_lock.
 */
struct dm_remap_refused_range {
	u64 from;
	u64 until;			/* as ops->uptime() */
};

/* Relocations that the log has not told of; moves_lock. */
struct dm_remap_moves {
	u64 sectors;
	u64 first;			/* sector of main */
	u64 since;			/* when that was moved, as ops->uptime() */
	u64 next;			/* no line before */
};

/* Seconds between two lines about relocations. */
#define DM_REMAP_MOVES_PAUSE 60u

/* Sectors [start, end) of main that are looked at again, without a request from above. */
struct dm_remap_later {
	u64 start;
	u64 end;
	u64 due;			/* as ops->uptime() */
	u32 pause;			/* seconds to the next try */
};

#define DM_REMAP_LATER 64

struct dm_remap_laters {
	struct dm_remap_later entry[DM_REMAP_LATER];	/* in no order */
	unsigned int n;
};

#define DM_REMAP_SOFT_RANGES 64

/* A range in which there are records that no commit has carried yet, as they are now. */
struct dm_remap_soft {
	u64 start;
	u64 length;
	u8 kind;			/* PENDING, or MAPPED: marked, or not any more */
};

/*
 * What a spare must reach if it is to be no older copy of itself: both numbers only ever
 * grow under one UUID. Two zeros: nothing is asked.
 */
struct dm_remap_witness {
	u64 generation;
	u64 sequence;			/* of the commit that comes next */
};

/* By what one superblock is told from another. */
struct dm_remap_super_id {
	bool known;
	u64 generation;
	u64 activation;
	u64 nonce;
	u64 journal_start;
};

/* The volatile cache of one device: see dm-remap-cache.h. */
struct dm_remap_cache {
	/* Spare: writes that are not durable by themselves and have not ended; and those done. */
	atomic_t underway ____cacheline_aligned_in_smp;
	atomic64_t written;
	/* By flushes. */
	atomic64_t flushed ____cacheline_aligned_in_smp;	/* those that one has covered */
	atomic_t losses;		/* how often it told of one, to whoever flushed */
	atomic_t untold;		/* it told the core, and no flush from above yet */
};

struct dm_remap_metadata {
	const struct dm_remap_ops *ops;
	void *ctx;

	struct dm_remap_policy policy;
	u32 main_block;			/* of main's media, in sectors; a power of two, or 0 */
	enum dm_remap_mode mode;	/* commit_lock, to change */
	char spare_name[32];		/* for the log; may be empty */

	struct dm_remap_cache cache[2];	/* of each enum dm_remap_dev; any context */
	u64 short_told;			/* main_sectors + 1 when the log told of it */

	struct dm_remap_evidence evidence[DM_REMAP_DIRECTIONS];	/* any context */

	struct dm_remap_schedule schedule;
	enum dm_remap_give_up give_up;	/* of what is redone; any context */
	struct mutex later_lock;	/* innermost */
	struct dm_remap_laters rechecks;	/* pending, in parts, and main reads them again */
	struct dm_remap_laters rescues;	/* they came back late */
	struct mutex breaker_lock;	/* innermost */
	struct dm_remap_breaker breaker[DM_REMAP_DIRECTIONS];
	struct dm_remap_refused_range refused_range[DM_REMAP_DIRECTIONS];
	struct mutex moves_lock;	/* innermost */
	struct dm_remap_moves moves;

	struct mutex super_lock;	/* one I/O of superblocks at a time; protects, to change: */
	struct dm_remap_super sb;	/* as the newest one on the disk says */
	u8 sb_holders;			/* bit r: superblock r is known to hold sb */
	struct dm_remap_super_id held[DM_REMAP_REPLICAS];	/* what each is known to hold */
	void *sb_back;			/* a block, to read back into */
	u64 looked;			/* when they were read last, as ops->now() */

	struct mutex checkpoint_lock;	/* one checkpoint at a time; protects sb, and: */
	u64 nonce;			/* of this activation */
	u64 former_nonce;		/* of the one before, if it was ours, too */
	u64 claimed_from;		/* the nonce that the claim has replaced */
	bool numbered;			/* sb has the number of this activation */
	bool owned;			/* some number of ours has been on both, since the load */
	bool served;			/* the table was in use before, perhaps read-only */
	bool heal;			/* table and journal on the disk are to be written anew */
	struct dm_remap_main_id main;	/* what sb is to say of main from then on */
	void *table_buf;		/* checkpoint's batch of blocks */
	bool table_unflushed;		/* blocks of the table have been written, */
	int table_losses;		/* and so many losses the spare had told before */
	struct dm_remap_disk_superblock *sb_buf;

	struct mutex commit_lock;	/* one commit at a time; protects mode, and what follows */
	bool taken;			/* by another system; never taken back */
	bool closing;			/* from deactivate on nothing is written but CLEAN */
	u64 main_sectors;		/* of the mapped device */
	u64 next_sequence;
	u32 chain;			/* chain value of the last commit that did not fail */
	u64 oldest_start;		/* smallest journal_start that a superblock may hold */
	bool burnt;			/* next_sequence - 1 failed: a checkpoint comes next */
	bool flags_announced;		/* superblocks do so: commits may carry flags of records */
	struct dm_remap_doubt *doubt;	/* failed commits that may yet be on the disk */
	struct dm_remap_doubt *doubt_reserve;
	struct dm_remap_disk_block *journal_buf;
	void *journal_back;		/* a block, to read back into */
	/* Ranges soft_first to soft_next - 1 of a ring; soft_saved: of the next superblock. */
	struct dm_remap_soft soft[DM_REMAP_SOFT_RANGES];
	u64 soft_first;
	u64 soft_next;
	u64 soft_saved;			/* checkpoint_lock */
	atomic64_t counter[DM_REMAP_NR_COUNTERS];	/* any context */
	u64 counter_saved[DM_REMAP_NR_COUNTERS];	/* as the disk has them */

	struct dm_remap_table table;	/* records by main sector; writers: commit_lock */
	struct dm_remap_table retired;	/* by spare sector */
	struct dm_remap_alloc alloc;

	/* Read for status, without a lock. */
	enum dm_remap_refusal refusal;	/* until a relocation succeeds */
	bool loaded;
	bool write_nothing;		/* an unknown compat_ro flag is set */
	bool active;
	bool writing;			/* a checkpoint is under way */
	bool save_failed;		/* the last checkpoint or soft commit did */
	u64 saves;
	u64 save_errors;
	u64 last_save;			/* seconds since 1970 UTC; 0: never */
	/* What each later load will reach, though one end be lost meanwhile. */
	struct dm_remap_witness witness;
};

/* 0 or -ENOMEM. */
int dm_remap_metadata_init(struct dm_remap_metadata *md, const struct dm_remap_ops *ops,
			   void *ctx);
void dm_remap_metadata_exit(struct dm_remap_metadata *md);

struct dm_remap_format_params {
	u64 spare_sectors;
	u32 granularity;		/* logical block of main, in sectors */
	u32 journal_blocks;		/* 0: chosen */
	u64 max_records;		/* 0: chosen */
	u8 uuid[DM_REMAP_UUID_SIZE];	/* a new one, never used before */
	struct dm_remap_main_id main;
	bool blank_only;		/* refuse unless every metadata location is zero */
};

/*
 * Writes empty metadata. A crash in the middle leaves a spare that load refuses
 * as half formatted. 0 or a negative errno, then report->refusal may say more.
 * dm_remap_format_check only does the checks, and writes nothing.
 */
int dm_remap_format(const struct dm_remap_ops *ops, void *ctx,
		    const struct dm_remap_format_params *params, struct dm_remap_report *report);
int dm_remap_format_check(const struct dm_remap_ops *ops, void *ctx,
			  const struct dm_remap_format_params *params,
			  struct dm_remap_report *report);

/*
 * Reads the metadata of a spare that is now @spare_sectors long, both replicas,
 * replays the journal and fills table and allocator. Writes nothing. Refuses
 * (negative errno and report->refusal) what cannot be proved whole.
 *
 * @main_sectors: size of the mapped device; no record may lie beyond. 0: take
 * what the superblock says of main, for offline use.
 */
int dm_remap_load(struct dm_remap_metadata *md, u64 spare_sectors, u64 main_sectors,
		  struct dm_remap_report *report);

/* A main device as it is now. */
struct dm_remap_main {
	struct dm_remap_main_id id;	/* what a spare is to know of it */
	u32 granularity;		/* its logical block, in sectors */
	/* The id of the disk; of the one disk below, if device-mapper made main. 0: none known. */
	u8 disk_type;			/* DM_REMAP_MAIN_ID_T10, EUI64 or NAA */
	u8 disk_id[DM_REMAP_MAIN_ID_SIZE];
	bool mapped;			/* device-mapper made it */
	bool rebind;			/* its owner says that it is the right one */
};

/*
 * Fills in main->mapped, and id_type, id and name of main->id; the disk's id is there already.
 * @dm_uuid: NULL: device-mapper did not make main; "": it did, and gave no UUID.
 */
void dm_remap_main_identify(struct dm_remap_main *main, const char *dm_uuid);

/* How much of a DM UUID stays the same each time the device is set up; 0: it tells nothing. */
size_t dm_remap_dm_uuid_length(const char *dm_uuid);

/*
 * Is @main the device that the loaded spare was made for? An id or DM UUID may prove it. Then main
 * may have grown, or shrunk as far as table and records allow. Without a proof size and place must
 * be equal. With main->rebind only its logical block and the start are compared. 0, or -ENODEV and
 * report->refusal.
 */
int dm_remap_check_main(const struct dm_remap_metadata *md, const struct dm_remap_main *main,
			struct dm_remap_report *report);

/*
 * Is the loaded spare, or the one in use, at least as new as @least says? 0, or -ESTALE and
 * report->refusal.
 */
int dm_remap_check_witness(const struct dm_remap_metadata *md,
			   const struct dm_remap_witness *least, struct dm_remap_report *report);

/*
 * Takes the spare into use. It claims the spare (dm-remap-owner.c) and heals the damage that
 * @report tells of. Then it makes a new activation number durable on both superblocks, and records
 * how @main is known from now on; NULL leaves that unchanged. If another system has used the
 * spare since it was loaded, it is loaded again. Also after deactivate, without another load; then
 * @report is NULL. A table that was in use, even read-only, has left data in caches above. Then
 * mode becomes FAIL if another system has used the spare. If the spare cannot be written, mode
 * becomes RO and existing records are served: that is no failure.
 * Returns 0, or
 *
 *	-ENOMEM, -EINTR, -EAGAIN	may be tried again;
 *	-EBUSY				another system is taking the spare into use just now;
 *	-EIO				the spare cannot be written, and may hold one more commit.
 *					Data that main takes now would be lost under the record of
 *					that commit;
 *
 * or any error of load.
 */
int dm_remap_activate(struct dm_remap_metadata *md, const struct dm_remap_main *main,
		      const struct dm_remap_report *report);

/*
 * A spare that was unplugged while @md used it may have come back, and was loaded as @disk. Does it
 * hold what @md knows that it holds? The superblocks must be ours, and the journal and each record
 * as in memory. Commits that failed may be there or not, and soft state need not be there.
 * 0, or -ESTALE and report->refusal.
 */
int dm_remap_check_returned(struct dm_remap_metadata *md, struct dm_remap_metadata *disk,
			    struct dm_remap_report *report);

/*
 * Between deactivate and activate: from now on the operations lead to a spare that may be ours and
 * was unplugged; it is now @spare_sectors long. It is loaded and compared as above. Memory stays as
 * it is, and the next checkpoint writes all of it. If writes to the spare had not been flushed, the
 * next flush from above fails. 0, or a negative errno and report->refusal: nothing has changed.
 */
int dm_remap_take_back(struct dm_remap_metadata *md, u64 spare_sectors,
		       struct dm_remap_report *report);

/*
 * The mapped device is @sectors long from now on; the activation that follows begins the
 * journal anew. Only while nothing is mapped. As dm_remap_table_resize.
 */
int dm_remap_metadata_resize(struct dm_remap_metadata *md, u64 sectors);

/*
 * Orderly stop: checkpoint to CLEAN. The error of the checkpoint, or 0. A removal does not wait for
 * a message: commits and checkpoints that begin meanwhile get -EAGAIN.
 */
int dm_remap_deactivate(struct dm_remap_metadata *md);

/*
 * Makes @n entries (1 to DM_REMAP_ENTRIES_PER_BLOCK) durable on both replicas as
 * one transaction, and publishes them in the table. The caller took their spare ranges
 * from the allocator, and made what is in them durable.
 *
 * 0: durable and published.
 * -EUCLEAN: failed, and may yet be found on the disk. The ranges are in doubt
 *  (flag set, spare ranges kept) until a checkpoint succeeds.
 * Others (-EROFS, -ENOMEM, -ENOSPC: the table is full, -EINVAL: no such record can
 *  be, -EIO, -EAGAIN: deactivate is at work): not durable, never will be, nothing changed; the
 *  spare ranges are the caller's to give back.
 */
int dm_remap_commit(struct dm_remap_metadata *md, const struct dm_remap_record *entry,
		    unsigned int n);

/*
 * What of the range has no record becomes pending, in memory; the next commit, save
 * or autosave makes it durable. 0; or -EROFS, -ENOSPC, -ENOMEM, -EINVAL (no such record
 * can be), or the error of a commit that a full ring of ranges asked for: nothing was done.
 */
int dm_remap_pending_add(struct dm_remap_metadata *md, u64 start, u64 length, u8 reason);
/* The same without I/O, and waits for nobody who may do some. -EBUSY: that is not possible now. */
int dm_remap_pending_try(struct dm_remap_metadata *md, u64 start, u64 length, u8 reason);

/*
 * Mapped sectors of the range are marked as @unreadable on the spare, or not any more, as soft
 * state. A write to a marked place is read back. In mode `ro`, too: the save that ends it
 * makes the marks durable. 0; or -ENOSPC, -ENOMEM, -EROFS (mode `fail`), or the error of a commit
 * that a full ring of ranges asked for: nothing was done.
 */
int dm_remap_mark(struct dm_remap_metadata *md, u64 start, u64 length, bool unreadable);

/* One more soft range asks for a commit. No lock. */
static inline bool dm_remap_soft_full(const struct dm_remap_metadata *md)
{
	return READ_ONCE(md->soft_next) - READ_ONCE(md->soft_first) >= DM_REMAP_SOFT_RANGES;
}

/* Makes soft state durable: counters, pending records and marks. As dm_remap_commit. */
int dm_remap_soft_commit(struct dm_remap_metadata *md);

/*
 * Writes the whole table, and superblocks that start after the last commit.
 * Commits go on meanwhile. On success the journal is empty, doubts are settled,
 * and a mode of RO is lifted.
 */
int dm_remap_checkpoint(struct dm_remap_metadata *md, u32 state);

/*
 * What autosave does at each interval: nothing if nothing is dirty; one journal
 * block for soft state; a checkpoint where the ring is half full, after a save that
 * failed, or where a table copy is known bad. Counts itself in saves and save_errors.
 */
int dm_remap_autosave(struct dm_remap_metadata *md);

/* The message `save`: dm_remap_checkpoint, counted in saves and save_errors. */
int dm_remap_save(struct dm_remap_metadata *md);

/*
 * Reads everything back and compares it with what memory held when this began; a replica that is
 * damaged is written anew, *healed says so. Memory is never replaced. Others commit and save
 * meanwhile. -EUCLEAN: what is on the disk is not what memory holds, `save` would write it;
 * -EAGAIN: save followed save, or a suspend came.
 */
int dm_remap_restore(struct dm_remap_metadata *md, u64 spare_sectors, bool *healed);

/* Anything that an autosave would write? No lock. */
bool dm_remap_dirty(const struct dm_remap_metadata *md);
/* Records that a checkpoint would write now, those of retired places included. No lock. */
u64 dm_remap_records(struct dm_remap_metadata *md);
/*
 * How many entries more can be committed that make records, each of its own. While there are no
 * more records than dm_remap_max_records it is a whole block of them. No lock.
 */
u64 dm_remap_room(struct dm_remap_metadata *md);
/* Journal blocks in use, no lock. */
u64 dm_remap_journal_used(const struct dm_remap_metadata *md);
/* Adds to a counter. Context: any. */
void dm_remap_count(struct dm_remap_metadata *md, enum dm_remap_counter counter, u64 n);

/*
 * Logs what was moved to the spare since the last line about it, unless that was within
 * DM_REMAP_MOVES_PAUSE and not @at_once. Returns in how many seconds it is to be called again;
 * 0: there is nothing left to tell. Context: process; waits for no I/O.
 */
u32 dm_remap_moves_tell(struct dm_remap_metadata *md, bool at_once);

/* Is the breaker open, in either direction? No lock. */
static inline bool dm_remap_breaker_open(const struct dm_remap_metadata *md)
{
	return READ_ONCE(md->breaker[DM_REMAP_READ].open) ||
	       READ_ONCE(md->breaker[DM_REMAP_WRITE].open);
}

const char *dm_remap_mode_name(enum dm_remap_mode mode);
/* One word, for status. */
const char *dm_remap_refusal_name(enum dm_remap_refusal refusal);

#endif /* DM_REMAP_METADATA_H */

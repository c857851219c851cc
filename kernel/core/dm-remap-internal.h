/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the files that implement dm-remap-metadata.h, and by no one else. */
#ifndef DM_REMAP_INTERNAL_H
#define DM_REMAP_INTERNAL_H

#include "dm-remap-cache.h"
#include "dm-remap-metadata.h"

/* Blocks read or written at once where many follow one another. */
#define DM_REMAP_BATCH_BLOCKS 64u

#define DM_REMAP_HALF_FORMATTED \
	"spare was left half formatted; run dm-remapctl format --force on it again"

#define dm_remap_log(md, level, ...) do {					\
	const struct dm_remap_metadata *__md = (md);				\
										\
	__md->ops->log(__md->ctx, level, __VA_ARGS__);				\
} while (0)

/* A failed commit that may yet be found on the disk. */
struct dm_remap_doubt {
	struct dm_remap_doubt *next;
	u64 sequence;
	bool abandoned;		/* its spare ranges are nobody's: free them when it is settled */
	unsigned int n;
	struct dm_remap_record entry[DM_REMAP_ENTRIES_PER_BLOCK];
};

/* @main as the next activation writes it: a name that is not known now stays as it was. */
struct dm_remap_main_id dm_remap_main_to_record(const struct dm_remap_metadata *md,
						const struct dm_remap_main *main);
/* The spare knows @main now: the log says so, if it knew another or by something else @before. */
void dm_remap_main_tell(struct dm_remap_metadata *md, const struct dm_remap_main *main,
			const struct dm_remap_main_id *before);

/* There was no memory, or somebody interrupted it: that says nothing about the spare. */
static inline bool dm_remap_may_try_again(int error)
{
	return error == -ENOMEM || error == -EINTR || error == -EAGAIN;
}

static inline int dm_remap_blocks_read(struct dm_remap_metadata *md, u64 block, u32 n, void *buf)
{
	return dm_remap_dev_read(md, DM_REMAP_SPARE, block * DM_REMAP_BLOCK_SECTORS,
				 n * DM_REMAP_BLOCK_SECTORS, buf);
}

static inline int dm_remap_blocks_write(struct dm_remap_metadata *md, u64 block, u32 n,
					const void *buf, unsigned int flags)
{
	return dm_remap_dev_write(md, DM_REMAP_SPARE, block * DM_REMAP_BLOCK_SECTORS,
				  n * DM_REMAP_BLOCK_SECTORS, buf, flags);
}

/*
 * Writes to the spare, then reads back into @back, which has as much room. 0, a negative errno
 * of either, or -EIO: the spare holds something else. Of a failed write it is not known what the
 * spare holds.
 */
int dm_remap_spare_write_checked(struct dm_remap_metadata *md, u64 sector, u32 sectors,
				 const void *buf, unsigned int flags, void *back);
/* The same for one block of metadata. */
int dm_remap_block_write_checked(struct dm_remap_metadata *md, u64 block, const void *buf,
				 unsigned int flags, void *back);

/*
 * Is the range of main still there? 0, or -ENXIO: main has become shorter, so I/O there fails for
 * another reason than its media. The log tells once for each length.
 */
int dm_remap_main_reaches(struct dm_remap_metadata *md, u64 sector, u64 sectors);

/* dm_remap_table_lookup as a reader of its own. */
static inline void dm_remap_look(struct dm_remap_metadata *md, u64 sector, u64 sectors,
				 struct dm_remap_extent *e)
{
	rcu_read_lock_sched();
	dm_remap_table_lookup(&md->table, sector, sectors, e);
	rcu_read_unlock_sched();
}

static inline void dm_remap_note(struct dm_remap_metadata *md, enum dm_remap_note note, u64 sector,
				 u64 sectors, s64 value)
{
	if (md->ops->note)
		md->ops->note(md->ctx, note, sector, sectors, value);
}

/*
 * What a journal entry does to the tables: the one place that says so, for commit
 * and for replay. 0 or -ENOMEM. commit_lock held, or loading.
 */
int dm_remap_entry_prepare(struct dm_remap_metadata *md, const struct dm_remap_record *r,
			   struct dm_remap_update *records, struct dm_remap_update *retired);

/*
 * If the last commit failed: sees to it that not both replicas hold its block, before a
 * superblock passes it. 0, or an error: neither took the withdrawal. commit_lock held until
 * it is known where the superblock will start.
 */
int dm_remap_burnt_withdraw(struct dm_remap_metadata *md);
/*
 * Activating: whatever commit comes next on replica 0 will never be found. The last one, if
 * only one replica has it (@one_sided), will be, on both. 0, or an error: that cannot be said.
 * checkpoint_lock held.
 */
int dm_remap_end_withdraw(struct dm_remap_metadata *md, bool one_sided);

/* A checkpoint that starts after them is durable on both ends. commit_lock held. */
void dm_remap_doubts_settle(struct dm_remap_metadata *md, u64 start);
/*
 * Loading: what the first @n entries of @block say, a commit that is on one replica alone, is in
 * doubt until a checkpoint starts behind @sequence. 0 or -ENOMEM.
 */
int dm_remap_doubt_add(struct dm_remap_metadata *md, u64 sequence,
		       const struct dm_remap_disk_block *block, unsigned int n);
/* The spare cannot be written, so what was loaded in doubt stays so. commit_lock held. */
void dm_remap_doubts_flag(struct dm_remap_metadata *md);
/* Forgets them all, with a table that is given up. */
void dm_remap_doubts_drop(struct dm_remap_metadata *md);

/* Sets the mode and says so in the log. commit_lock held, or not yet active. */
void dm_remap_mode_set(struct dm_remap_metadata *md, enum dm_remap_mode mode);

/* For the log (dm_remap_moves_tell): these sectors have been moved to the spare. */
void dm_remap_moves_note(struct dm_remap_metadata *md, u64 start, u64 sectors);

/* ---- dm-remap-owner.c ---- */

static inline struct dm_remap_super_id dm_remap_super_id(const struct dm_remap_super *sb)
{
	struct dm_remap_super_id id = {
		.known = true, .generation = sb->generation, .activation = sb->activation,
		.nonce = sb->nonce, .journal_start = sb->journal_start,
	};

	return id;
}

/*
 * Reads both superblocks. 0: the spare is ours; -ESTALE: another system's; -EIO: a superblock was
 * damaged by the spare itself, and is to be written anew. May be called
 * with commit_lock or checkpoint_lock held.
 */
int dm_remap_look_at_supers(struct dm_remap_metadata *md);
/* The spare is another system's: mode `fail`, for good. commit_lock held. */
void dm_remap_taken(struct dm_remap_metadata *md);
/*
 * Before metadata is written: 0, or -ESTALE and mode `fail`. The spare's own faults are seen to by
 * the write. Takes commit_lock.
 */
int dm_remap_look_before_writing(struct dm_remap_metadata *md);
/*
 * Before data is written, or a commit begins: the same, but only if nobody has looked in this
 * second. A system that has slept may have missed that another took the spare. 0 or -EROFS.
 */
int dm_remap_look_after_pause(struct dm_remap_metadata *md);
/* The same with commit_lock held. 0 or -ESTALE; the mode is the caller's business. */
int dm_remap_look_if_paused(struct dm_remap_metadata *md);

/*
 * Superblocks of @disk, which was loaded from a spare with the UUID of @md. 0: one is the last that
 * @md wrote there, and none is another system's; -ESTALE: one is; -EUCLEAN: they are older.
 * checkpoint_lock held.
 */
int dm_remap_supers_known(struct dm_remap_metadata *md, const struct dm_remap_metadata *disk);

/* Both superblocks hold the current generation; only then may there be a next. checkpoint_lock. */
int dm_remap_supers_equalise(struct dm_remap_metadata *md);
/*
 * @next becomes the current generation: superblock 1, then superblock 0. -ESTALE: another system
 * has taken the spare in between. checkpoint_lock held.
 */
int dm_remap_supers_advance(struct dm_remap_metadata *md, struct dm_remap_super *next);

/* An activation begins: it draws its nonce. checkpoint_lock held. */
void dm_remap_claim_begin(struct dm_remap_metadata *md);
/*
 * Puts the nonce into both superblocks, unless that is done, and looks whether what was loaded is
 * still all there is. 0; -ESTALE: it is not, or another system does the same now; -EUCLEAN: that
 * cannot be told; or another errno. The superblocks agree; checkpoint_lock held.
 */
int dm_remap_claim(struct dm_remap_metadata *md);

/* ---- dm-remap-checkpoint.c ---- */

/*
 * The fields in which the next superblocks differ from those on the disk. The first superblocks
 * after the claim carry the activation's number, and no commit comes before them. As a rule
 * activate writes them. If it could not, a checkpoint does.
 */
struct dm_remap_super dm_remap_super_next(const struct dm_remap_metadata *md, u32 state);
/* A checkpoint; what else the new superblocks say is in @next already. checkpoint_lock held. */
int dm_remap_checkpoint_as(struct dm_remap_metadata *md, struct dm_remap_super *next);
/* No record can be made durable any more: mode `ro`, or `fail` where @why is -ESTALE. */
void dm_remap_spare_given_up(struct dm_remap_metadata *md, int why);
enum dm_remap_mode dm_remap_mode_of_copies(const struct dm_remap_super *sb);

/* ---- dm-remap-activate.c, dm-remap-load.c ---- */

/* To load the spare once more, beside what is in memory. NULL: no memory. */
struct dm_remap_metadata *dm_remap_beside(const struct dm_remap_metadata *md);
void dm_remap_beside_free(struct dm_remap_metadata *disk);
/*
 * Is all that was acknowledged in what was loaded? 0; -ESTALE: the journal has grown since;
 * -EUCLEAN: it cannot be read; or what dm_remap_may_try_again() knows.
 */
int dm_remap_journal_unchanged(struct dm_remap_metadata *md);
/* Is a replica of what was loaded to be written anew? @report may be NULL. */
bool dm_remap_report_damage(const struct dm_remap_report *report);
/*
 * As dm_remap_load, while others may commit: loads the commits before @sequence. *end is behind the
 * last one of all that are found.
 */
int dm_remap_load_until(struct dm_remap_metadata *md, u64 spare_sectors, u64 main_sectors,
			struct dm_remap_report *report, u64 sequence, u64 *end);
/* As dm_remap_load, but next_sequence and chain are all that @md has then: no record. */
int dm_remap_load_journal(struct dm_remap_metadata *md, u64 spare_sectors,
			  struct dm_remap_report *report);

#endif /* DM_REMAP_INTERNAL_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the files that implement dm-remap-metadata.h, and by no one else. */
#ifndef DM_REMAP_INTERNAL_H
#define DM_REMAP_INTERNAL_H

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

static inline int dm_remap_blocks_read(struct dm_remap_metadata *md, u64 block, u32 n, void *buf)
{
	return md->ops->read(md->ctx, DM_REMAP_SPARE, block * DM_REMAP_BLOCK_SECTORS,
			     n * DM_REMAP_BLOCK_SECTORS, buf);
}

static inline int dm_remap_blocks_write(struct dm_remap_metadata *md, u64 block, u32 n,
					const void *buf, unsigned int flags)
{
	return md->ops->write(md->ctx, DM_REMAP_SPARE, block * DM_REMAP_BLOCK_SECTORS,
			      n * DM_REMAP_BLOCK_SECTORS, buf, flags | DM_REMAP_META);
}

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

#endif /* DM_REMAP_INTERNAL_H */

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checkpoints: the table is written anew, and then named by both superblocks.
 *
 * Until both superblocks name the new table, the old table and the journal from
 * its start on remain whole, so a crash anywhere leaves one of the two to load.
 */
#include "dm-remap-internal.h"

/*
 * Blocks of a table that are written at once. The more there are, the longer is the
 * processor busy with the next ones: on a kernel that preempts nobody at once, others wait.
 */
#define TABLE_BATCH_BLOCKS 16u

const char *dm_remap_mode_name(enum dm_remap_mode mode)
{
	static const char * const name[] = {
		[DM_REMAP_MODE_RW] = "rw",
		[DM_REMAP_MODE_DEGRADED] = "degraded",
		[DM_REMAP_MODE_RO] = "ro",
		[DM_REMAP_MODE_FAIL] = "fail",
	};

	return name[mode];
}

const char *dm_remap_refusal_name(enum dm_remap_refusal refusal)
{
	static const char * const name[] = {
		[DM_REMAP_REFUSAL_NONE] = "no",
		[DM_REMAP_REFUSAL_SPARE_FULL] = "spare_full",
		[DM_REMAP_REFUSAL_TABLE_FULL] = "table_full",
		[DM_REMAP_REFUSAL_NO_ROOM_BENEATH] = "no_room_beneath",
		[DM_REMAP_REFUSAL_SPARE_FAILS] = "spare_fails",
		[DM_REMAP_REFUSAL_MAIN_REFUSES] = "main_refuses",
	};

	return name[refusal];
}

void dm_remap_mode_set(struct dm_remap_metadata *md, enum dm_remap_mode mode)
{
	/* For good: nobody knows what the other system does. */
	if (md->taken)
		mode = DM_REMAP_MODE_FAIL;
	if (md->mode == mode)
		return;
	dm_remap_log(md, mode == DM_REMAP_MODE_RW ? DM_REMAP_LOG_INFO : DM_REMAP_LOG_ERR,
		     "mode %s -> %s", dm_remap_mode_name(md->mode), dm_remap_mode_name(mode));
	WRITE_ONCE(md->mode, mode);
	dm_remap_note(md, DM_REMAP_NOTE_MODE, 0, 0, mode);
}

int dm_remap_metadata_init(struct dm_remap_metadata *md, const struct dm_remap_ops *ops, void *ctx)
{
	memset(md, 0, sizeof(*md));
	md->ops = ops;
	md->ctx = ctx;
	md->mode = DM_REMAP_MODE_FAIL;
	dm_remap_schedule_init(&md->schedule, ops->kick, ctx);
	mutex_init(&md->later_lock);
	mutex_init(&md->breaker_lock);
	mutex_init(&md->moves_lock);
	mutex_init(&md->checkpoint_lock);
	mutex_init(&md->commit_lock);
	mutex_init(&md->super_lock);
	md->table_buf = dm_remap_zalloc(TABLE_BATCH_BLOCKS * DM_REMAP_BLOCK_SIZE);
	md->sb_buf = dm_remap_zalloc(DM_REMAP_BLOCK_SIZE);
	md->sb_back = dm_remap_zalloc(DM_REMAP_BLOCK_SIZE);
	md->journal_buf = dm_remap_zalloc(DM_REMAP_BLOCK_SIZE);
	md->journal_back = dm_remap_zalloc(DM_REMAP_BLOCK_SIZE);
	if (md->table_buf && md->sb_buf && md->sb_back && md->journal_buf && md->journal_back)
		return 0;
	dm_remap_metadata_exit(md);
	return -ENOMEM;
}

void dm_remap_metadata_exit(struct dm_remap_metadata *md)
{
	dm_remap_doubts_drop(md);
	dm_remap_free(md->doubt_reserve);
	dm_remap_table_exit(&md->table);
	dm_remap_table_exit(&md->retired);
	dm_remap_alloc_exit(&md->alloc);
	dm_remap_free(md->table_buf);
	dm_remap_free(md->sb_buf);
	dm_remap_free(md->sb_back);
	dm_remap_free(md->journal_buf);
	dm_remap_free(md->journal_back);
	mutex_destroy(&md->later_lock);
	mutex_destroy(&md->breaker_lock);
	mutex_destroy(&md->moves_lock);
	mutex_destroy(&md->checkpoint_lock);
	mutex_destroy(&md->commit_lock);
	mutex_destroy(&md->super_lock);
}

struct dm_remap_super dm_remap_super_next(const struct dm_remap_metadata *md, u32 state)
{
	struct dm_remap_super next = md->sb;

	next.state = state;
	if (!md->numbered) {
		next.activation++;
		next.activation_sequence = md->next_sequence;
		next.main = md->main;
	}
	return next;
}

/* ---- the table ---- */

struct table_writer {
	struct dm_remap_metadata *md;
	struct dm_remap_super *next;
	struct dm_remap_disk_block *block;	/* the batch */
	u32 first;				/* index in the table of the batch's first block */
	u32 filled;				/* entries in the batch */
};

static void batch_write(struct table_writer *w, u32 n)
{
	struct dm_remap_super *next = w->next;
	u32 i;
	int r;

	if (!w->first)
		dm_remap_table_write_begins(w->md);
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		u64 at = dm_remap_table_at(&next->layout, r, next->active_table) + w->first;

		for (i = 0; i < n; i++) {
			dm_remap_block_seal(&w->block[i], at + i);
			cond_resched();
		}
		/* Another system may have made a table there while this one was stopped. */
		if (dm_remap_look_after_pause(w->md))
			next->table_copies = 0;
		if (!(next->table_copies & (1 << r)) ||
		    !dm_remap_blocks_write(w->md, at, n, w->block, 0))
			continue;
		dm_remap_log(w->md, DM_REMAP_LOG_WARN, "table copy %d%c cannot be written", r,
			     'A' + next->active_table);
		next->table_copies &= ~(1 << r);
	}
}

/* Writes the blocks that are begun, and starts the next batch. */
static void batch_flush(struct table_writer *w)
{
	struct dm_remap_super *next = w->next;
	u32 n = (w->filled + DM_REMAP_ENTRIES_PER_BLOCK - 1) / DM_REMAP_ENTRIES_PER_BLOCK;
	u64 at = dm_remap_table_at(&next->layout, 0, next->active_table) + w->first;
	u32 i;

	for (i = 0; i < n; i++) {
		u32 count = min_t(u32, w->filled - i * DM_REMAP_ENTRIES_PER_BLOCK,
				  DM_REMAP_ENTRIES_PER_BLOCK);

		dm_remap_header_fill(&w->block[i].header, DM_REMAP_TABLE, next,
				     next->table_generation, w->first + i, count);
		next->table_crc = dm_remap_table_crc(next->table_crc, &w->block[i], at + i);
		cond_resched();
	}
	if (!n)
		return;
	batch_write(w, n);
	memset(w->block, 0, (size_t)n * DM_REMAP_BLOCK_SIZE);
	w->first += n;
	w->filled = 0;
}

static void table_put(struct table_writer *w, const struct dm_remap_record *r)
{
	dm_remap_entry_encode(&w->block[w->filled / DM_REMAP_ENTRIES_PER_BLOCK]
			      .entry[w->filled % DM_REMAP_ENTRIES_PER_BLOCK], r);
	w->next->records++;
	if (++w->filled == TABLE_BATCH_BLOCKS * DM_REMAP_ENTRIES_PER_BLOCK)
		batch_flush(w);
}

/* Does replica @r hold the table that @next will name, all of it? */
static bool copy_holds(struct dm_remap_metadata *md, const struct dm_remap_super *next, int r)
{
	u64 at = dm_remap_table_at(&next->layout, r, next->active_table);
	u64 at_0 = dm_remap_table_at(&next->layout, 0, next->active_table);
	u32 first, n, i, crc = 0;

	for (first = 0; first < next->table_count; first += n) {
		n = min_t(u32, next->table_count - first, TABLE_BATCH_BLOCKS);
		if (dm_remap_blocks_read(md, at + first, n, md->table_buf))
			return false;
		for (i = 0; i < n; i++) {
			const struct dm_remap_disk_block *block = md->table_buf;

			if (!dm_remap_table_block_is(&block[i], next, at, first + i))
				return false;
			crc = dm_remap_table_crc(crc, &block[i], at_0 + first + i);
			cond_resched();
		}
	}
	return crc == next->table_crc;
}

/*
 * The copies are read back when all is written: a place that answers for another one has been
 * overwritten by then.
 */
static void copies_check(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	int r;

	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		if (!(next->table_copies & (1 << r)) || copy_holds(md, next, r))
			continue;
		dm_remap_log(md, DM_REMAP_LOG_WARN, "table copy %d%c does not read back", r,
			     'A' + next->active_table);
		next->table_copies &= ~(1 << r);
	}
}

/* Writes the two snapshots as the table that @next will name. */
static int table_write(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	struct table_writer w = { .md = md, .next = next, .block = md->table_buf };
	struct dm_remap_record r;

	next->active_table = !next->active_table;
	next->table_generation = md->sb.generation + 1;
	next->table_copies = DM_REMAP_ALL_REPLICAS;
	next->table_crc = 0;
	next->records = 0;
	/* It holds what was read back of the table before. */
	memset(w.block, 0, TABLE_BATCH_BLOCKS * DM_REMAP_BLOCK_SIZE);
	while (dm_remap_snapshot_next(&md->table, &r))
		table_put(&w, &r);
	while (dm_remap_snapshot_next(&md->retired, &r)) {
		r.spare = r.main;
		r.main = 0;
		table_put(&w, &r);
	}
	batch_flush(&w);
	next->table_count = w.first;
	copies_check(md, next);
	/* The flush that comes with superblock 1 makes the table durable before it. */
	return next->table_copies ? 0 : -EIO;
}

/* ---- checkpoint ---- */

/*
 * The superblocks announce the flags in the table that they name. Without one there no commit may
 * bring one, until other superblocks announce it.
 */
static void announce_flags(struct dm_remap_metadata *md, struct dm_remap_super *next,
			   const struct dm_remap_totals *totals)
{
	next->incompat &= ~DM_REMAP_INCOMPAT_UNREADABLE;
	if (totals->unreadable)
		next->incompat |= DM_REMAP_INCOMPAT_UNREADABLE;
	else
		md->flags_announced = false;
}

static int snapshots_begin(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	struct dm_remap_totals totals, retired;
	int ret;

	/* Commits leave room. A table without it would be one that nobody can load. */
	if (dm_remap_records(md) > dm_remap_table_capacity(&md->sb.layout))
		return -ENOSPC;
	ret = dm_remap_snapshot_begin(&md->table, &totals);
	if (ret)
		return ret;
	ret = dm_remap_snapshot_begin(&md->retired, &retired);
	if (ret)
		dm_remap_snapshot_end(&md->table);
	else
		announce_flags(md, next, &totals);
	return ret;
}

static int snapshot_locked(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	unsigned int i;
	int ret;

	/*
	 * A commit has found another system since this checkpoint looked. That system may have
	 * read the commit, and go on behind it: nothing is withdrawn.
	 */
	if (md->taken)
		return -ESTALE;
	ret = dm_remap_burnt_withdraw(md);
	if (ret)
		return ret;
	next->journal_start = md->next_sequence;
	next->journal_chain = md->chain;
	md->soft_saved = md->soft_next;
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		next->counter[i] = atomic64_read(&md->counter[i]);
	return snapshots_begin(md, next);
}

/*
 * Table and journal start, of one moment between two commits. No commit may fail between
 * the withdrawal of what failed before and that moment.
 */
static int checkpoint_snapshot(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	int ret;

	mutex_lock(&md->commit_lock);
	ret = snapshot_locked(md, next);
	mutex_unlock(&md->commit_lock);
	return ret;
}

enum dm_remap_mode dm_remap_mode_of_copies(const struct dm_remap_super *sb)
{
	return sb->table_copies == DM_REMAP_ALL_REPLICAS ? DM_REMAP_MODE_RW :
							   DM_REMAP_MODE_DEGRADED;
}

static void checkpoint_done(struct dm_remap_metadata *md)
{
	unsigned int i;

	mutex_lock(&md->commit_lock);
	WRITE_ONCE(md->oldest_start, md->sb.journal_start);
	WRITE_ONCE(md->witness.sequence, max_t(u64, md->witness.sequence, md->sb.journal_start));
	if (md->next_sequence == md->sb.journal_start)
		md->burnt = false;
	md->heal = false;
	md->flags_announced = md->sb.incompat & DM_REMAP_INCOMPAT_UNREADABLE;
	dm_remap_doubts_settle(md, md->sb.journal_start);
	WRITE_ONCE(md->soft_first, max_t(u64, md->soft_first, md->soft_saved));
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		WRITE_ONCE(md->counter_saved[i], md->sb.counter[i]);
	dm_remap_mode_set(md, dm_remap_mode_of_copies(&md->sb));
	mutex_unlock(&md->commit_lock);
}

void dm_remap_spare_given_up(struct dm_remap_metadata *md, int why)
{
	mutex_lock(&md->commit_lock);
	dm_remap_doubts_flag(md);
	if (why == -ESTALE)
		dm_remap_taken(md);
	dm_remap_mode_set(md, DM_REMAP_MODE_RO);
	mutex_unlock(&md->commit_lock);
}

int dm_remap_checkpoint_as(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	int ret;

	lockdep_assert_held(&md->checkpoint_lock);
	WRITE_ONCE(md->writing, true);
	ret = checkpoint_snapshot(md, next);
	if (!ret) {
		ret = table_write(md, next);
		dm_remap_snapshot_end(&md->table);
		dm_remap_snapshot_end(&md->retired);
	}
	ret = ret ?: dm_remap_supers_advance(md, next);
	WRITE_ONCE(md->writing, false);
	if (!ret)
		checkpoint_done(md);
	return ret;
}

/*
 * Once more where it failed: a flush on the way may have been told of a block of somebody else's,
 * or somebody else of a block of the table.
 */
static int checkpoint_begun(struct dm_remap_metadata *md, u32 state)
{
	struct dm_remap_super next;
	int again = 1, ret;

	lockdep_assert_held(&md->checkpoint_lock);
	if (!md->active || md->write_nothing)
		return -EROFS;
	if (READ_ONCE(md->closing) && state != DM_REMAP_STATE_CLEAN)
		return -EAGAIN;
	do {
		ret = dm_remap_look_before_writing(md);
		ret = ret ?: dm_remap_supers_equalise(md);
		ret = ret ?: dm_remap_claim(md);
		if (!ret) {
			next = dm_remap_super_next(md, state);
			ret = dm_remap_checkpoint_as(md, &next);
		}
	} while (ret && dm_remap_may_be_media(ret) && again--);
	if (ret && !dm_remap_may_try_again(ret))
		dm_remap_spare_given_up(md, ret);
	return ret;
}

int dm_remap_checkpoint(struct dm_remap_metadata *md, u32 state)
{
	unsigned int reclaim = dm_remap_reclaim_off();
	int ret;

	mutex_lock(&md->checkpoint_lock);
	ret = checkpoint_begun(md, state);
	mutex_unlock(&md->checkpoint_lock);
	dm_remap_reclaim_restore(reclaim);
	return ret;
}

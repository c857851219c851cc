// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checkpoints, and what else writes superblocks.
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

void dm_remap_mode_set(struct dm_remap_metadata *md, enum dm_remap_mode mode)
{
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
	mutex_init(&md->move_lock);
	mutex_init(&md->checkpoint_lock);
	mutex_init(&md->commit_lock);
	md->table_buf = dm_remap_zalloc(TABLE_BATCH_BLOCKS * DM_REMAP_BLOCK_SIZE);
	md->sb_buf = dm_remap_zalloc(DM_REMAP_BLOCK_SIZE);
	md->journal_buf = dm_remap_zalloc(DM_REMAP_BLOCK_SIZE);
	if (md->table_buf && md->sb_buf && md->journal_buf)
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
	dm_remap_free(md->journal_buf);
	mutex_destroy(&md->move_lock);
	mutex_destroy(&md->checkpoint_lock);
	mutex_destroy(&md->commit_lock);
}

/* ---- superblocks ---- */

static int super_write(struct dm_remap_metadata *md, const struct dm_remap_super *sb, int replica)
{
	u64 at = dm_remap_superblock_at(&sb->layout, replica);
	int ret;

	lockdep_assert_held(&md->checkpoint_lock);
	dm_remap_super_encode(md->sb_buf, sb, replica);
	/* A failed write may have changed the block or not. */
	md->sb_holders &= ~(1 << replica);
	ret = dm_remap_blocks_write(md, at, 1, md->sb_buf, DM_REMAP_PREFLUSH | DM_REMAP_FUA);
	if (ret)
		dm_remap_log(md, DM_REMAP_LOG_ERR, "superblock %d cannot be written (%d)",
			     replica, ret);
	return ret;
}

/* Superblock @replica holds the current generation. */
static void super_landed(struct dm_remap_metadata *md, int replica)
{
	md->sb_holders |= 1 << replica;
	if (md->sb_holders == (1 << DM_REMAP_REPLICAS) - 1)
		WRITE_ONCE(md->witness.generation, md->sb.generation);
}

/* Both superblocks hold the current generation; only then may there be a next. */
static int supers_equalise(struct dm_remap_metadata *md)
{
	int r, ret;

	for (r = DM_REMAP_REPLICAS - 1; r >= 0; r--) {
		if (md->sb_holders & (1 << r))
			continue;
		ret = super_write(md, &md->sb, r);
		if (ret)
			return ret;
		super_landed(md, r);
	}
	return 0;
}

/* @next becomes the current generation: superblock 1, then superblock 0. */
static int supers_advance(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	int ret;

	next->generation = md->sb.generation + 1;
	next->written_time = md->ops->now(md->ctx);
	/* What no load would take. */
	if (next->generation > DM_REMAP_MAX_NUMBER || next->activation > DM_REMAP_MAX_NUMBER ||
	    next->journal_start > DM_REMAP_MAX_NUMBER)
		return -EROFS;
	ret = super_write(md, next, 1);
	if (ret)
		return ret;
	md->sb = *next;
	md->numbered = true;
	md->sb_holders = 1 << 1;
	ret = super_write(md, next, 0);
	if (!ret)
		super_landed(md, 0);
	return ret;
}

/*
 * What the next superblocks say, where it differs from those on the disk. The first
 * ones of an activation carry its number, be it that of activate or, after the spare
 * could not be written then, of a checkpoint: no commit comes before.
 */
static struct dm_remap_super super_next(const struct dm_remap_metadata *md, u32 state)
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

	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		u64 at = dm_remap_table_at(&next->layout, r, next->active_table) + w->first;

		for (i = 0; i < n; i++) {
			dm_remap_block_seal(&w->block[i], at + i);
			cond_resched();
		}
		if (!(next->table_copies & (1 << r)) ||
		    !dm_remap_blocks_write(w->md, at, n, w->block, 0))
			continue;
		dm_remap_log(w->md, DM_REMAP_LOG_ERR, "table copy %d%c cannot be written", r,
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
		__le32 chain;

		dm_remap_header_fill(&w->block[i].header, DM_REMAP_TABLE, next,
				     next->table_generation, w->first + i, count);
		chain = cpu_to_le32(dm_remap_chain_value(&w->block[i], at + i));
		next->table_crc = dm_remap_crc32(next->table_crc, (const u8 *)&chain,
						 sizeof(chain));
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

/* Writes the two snapshots as the table that @next will name. */
static int table_write(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	struct table_writer w = { .md = md, .next = next, .block = md->table_buf };
	struct dm_remap_record r;

	next->active_table = !next->active_table;
	next->table_generation = md->sb.generation + 1;
	next->table_copies = (1 << DM_REMAP_REPLICAS) - 1;
	next->table_crc = 0;
	next->records = 0;
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
	/* The flush that comes with superblock 1 makes the table durable before it. */
	return next->table_copies ? 0 : -EIO;
}

/* ---- checkpoint ---- */

static int snapshots_begin(struct dm_remap_metadata *md)
{
	struct dm_remap_totals totals;
	int ret;

	/* Commits leave room. A table without it would be one that nobody can load. */
	if (dm_remap_records(md) > dm_remap_table_capacity(&md->sb.layout))
		return -ENOSPC;
	ret = dm_remap_snapshot_begin(&md->table, &totals);
	if (ret)
		return ret;
	ret = dm_remap_snapshot_begin(&md->retired, &totals);
	if (ret)
		dm_remap_snapshot_end(&md->table);
	return ret;
}

static int snapshot_locked(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	unsigned int i;
	int ret = dm_remap_burnt_withdraw(md);

	if (ret)
		return ret;
	next->journal_start = md->next_sequence;
	next->journal_chain = md->chain;
	md->soft_saved = md->soft_next;
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		next->counter[i] = atomic64_read(&md->counter[i]);
	return snapshots_begin(md);
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

static enum dm_remap_mode mode_of_copies(const struct dm_remap_super *sb)
{
	return sb->table_copies == (1 << DM_REMAP_REPLICAS) - 1 ? DM_REMAP_MODE_RW :
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
	dm_remap_doubts_settle(md, md->sb.journal_start);
	WRITE_ONCE(md->soft_first, max_t(u64, md->soft_first, md->soft_saved));
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		WRITE_ONCE(md->counter_saved[i], md->sb.counter[i]);
	dm_remap_mode_set(md, mode_of_copies(&md->sb));
	mutex_unlock(&md->commit_lock);
}

static void spare_given_up(struct dm_remap_metadata *md)
{
	mutex_lock(&md->commit_lock);
	dm_remap_doubts_flag(md);
	dm_remap_mode_set(md, DM_REMAP_MODE_RO);
	mutex_unlock(&md->commit_lock);
}

/* A checkpoint; what else the new superblocks say is in @next already. */
static int checkpoint_locked(struct dm_remap_metadata *md, struct dm_remap_super *next)
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
	ret = ret ?: supers_advance(md, next);
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
	do {
		ret = supers_equalise(md);
		if (!ret) {
			next = super_next(md, state);
			ret = checkpoint_locked(md, &next);
		}
	} while (ret && dm_remap_may_be_media(ret) && again--);
	if (ret && ret != -ENOMEM)
		spare_given_up(md);
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

/* ---- activation ---- */

static bool report_damage(const struct dm_remap_report *report)
{
	int r;

	for (r = 0; report && r < DM_REMAP_REPLICAS; r++)
		if (report->replica[r].bad_table_blocks || report->replica[r].bad_journal_blocks)
			return true;
	return false;
}

static int activate_locked(struct dm_remap_metadata *md, bool whole)
{
	struct dm_remap_super next;
	int ret;

	ret = supers_equalise(md);
	if (ret)
		return ret;
	next = super_next(md, DM_REMAP_STATE_DIRTY);
	if (whole)
		return checkpoint_locked(md, &next);
	ret = supers_advance(md, &next);
	if (!ret)
		WRITE_ONCE(md->oldest_start, md->sb.journal_start);
	return ret;
}

/*
 * Is there no commit but those that were found, now and later? If that must be seen to, the
 * superblocks agree first, and the replicas about the last commit: the end must be where it is
 * for whoever has one of them alone. A withdrawal behind an earlier end would be taken for
 * the trace of a commit that is lost.
 */
static bool end_known(struct dm_remap_metadata *md, const struct dm_remap_report *report)
{
	if (!report || !report->end_unread)
		return true;
	return !md->write_nothing && md->next_sequence <= DM_REMAP_MAX_NUMBER &&
	       !supers_equalise(md) && !dm_remap_end_withdraw(md, report->one_sided);
}

/*
 * The spare cannot be written, so that this activation leaves no trace on it, or one that goes
 * with superblock 1: is there a commit that may turn up at the next, over what is written to
 * main meanwhile?
 */
static bool must_not_guess(struct dm_remap_metadata *md, bool known)
{
	bool read_only = md->write_nothing && !md->sb.compat_ro;

	if (known || read_only)
		return false;
	dm_remap_log(md, DM_REMAP_LOG_ERR,
		     "journal's end unreadable and spare not writable: mend it, or load read-only");
	return true;
}

int dm_remap_activate(struct dm_remap_metadata *md, const struct dm_remap_main_id *main,
		      const struct dm_remap_report *report)
{
	bool whole, known;
	int ret;

	mutex_lock(&md->checkpoint_lock);
	md->heal |= report_damage(report);
	whole = md->heal || md->burnt || md->doubt || mode_of_copies(&md->sb) != DM_REMAP_MODE_RW;
	md->active = true;
	md->numbered = false;
	md->main = main ? *main : md->sb.main;
	WRITE_ONCE(md->mode, mode_of_copies(&md->sb));
	known = end_known(md, report);
	ret = md->write_nothing ? -EROFS : activate_locked(md, whole);
	if (ret == -ENOMEM || (ret && must_not_guess(md, known))) {
		md->active = false;
	} else {
		if (ret)
			spare_given_up(md);
		else if (report_damage(report))
			dm_remap_log(md, DM_REMAP_LOG_WARN,
				     "damaged metadata blocks were written anew");
		ret = 0;
	}
	mutex_unlock(&md->checkpoint_lock);
	return ret;
}

int dm_remap_metadata_resize(struct dm_remap_metadata *md, u64 sectors)
{
	int ret = dm_remap_table_resize(&md->table, sectors);

	if (ret)
		return ret;
	md->main_sectors = sectors;
	/* The journal may tell of ranges that have come and gone beyond the new end. */
	md->heal = true;
	return 0;
}

/* Nothing to write but the state: the table on the disk is the one in memory. */
static bool table_current(const struct dm_remap_metadata *md)
{
	return md->next_sequence == md->sb.journal_start &&
	       md->oldest_start == md->sb.journal_start && md->mode == DM_REMAP_MODE_RW &&
	       !md->heal && !md->doubt && !dm_remap_dirty(md);
}

int dm_remap_deactivate(struct dm_remap_metadata *md)
{
	struct dm_remap_super next;
	int ret;

	if (!md->active)
		return 0;
	if (table_current(md)) {
		mutex_lock(&md->checkpoint_lock);
		ret = supers_equalise(md);
		next = super_next(md, DM_REMAP_STATE_CLEAN);
		ret = ret ?: supers_advance(md, &next);
		mutex_unlock(&md->checkpoint_lock);
	} else {
		ret = dm_remap_checkpoint(md, DM_REMAP_STATE_CLEAN);
	}
	mutex_lock(&md->commit_lock);
	md->active = false;
	mutex_unlock(&md->commit_lock);
	return ret;
}

/* ---- restore ---- */

/* Loads the spare once more, beside what is in memory, and compares. Both locks held. */
static int verify_locked(struct dm_remap_metadata *md, u64 spare_sectors,
			 struct dm_remap_report *report)
{
	struct dm_remap_metadata *disk = dm_remap_zalloc(sizeof(*disk));
	int ret;

	if (!disk)
		return -ENOMEM;
	ret = dm_remap_metadata_init(disk, md->ops, md->ctx);
	if (ret)
		goto out_free;
	ret = dm_remap_load(disk, spare_sectors, md->table.sectors, report);
	if (ret && ret != -ENOMEM && ret != -EINTR && ret != -EAGAIN) {
		dm_remap_log(md, DM_REMAP_LOG_ERR, "restore: %s", report->refusal);
		ret = -EUCLEAN;
	} else if (!ret && (disk->sb.generation != md->sb.generation ||
			    disk->sb.table_crc != md->sb.table_crc ||
			    disk->next_sequence != md->next_sequence ||
			    disk->chain != md->chain)) {
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "restore: spare holds generation %llu up to sequence %llu, memory %llu and %llu",
			     (unsigned long long)disk->sb.generation,
			     (unsigned long long)disk->next_sequence,
			     (unsigned long long)md->sb.generation,
			     (unsigned long long)md->next_sequence);
		ret = -EUCLEAN;
	} else if (!ret) {
		md->sb_holders &= disk->sb_holders;
	}
	dm_remap_metadata_exit(disk);
out_free:
	dm_remap_free(disk);
	return ret;
}

int dm_remap_restore(struct dm_remap_metadata *md, u64 spare_sectors, bool *healed)
{
	struct dm_remap_report report;
	int ret;

	*healed = false;
	/* Soft state that can't be committed is still in memory; what is on disk counts here. */
	dm_remap_autosave(md);
	mutex_lock(&md->checkpoint_lock);
	mutex_lock(&md->commit_lock);
	ret = verify_locked(md, spare_sectors, &report);
	mutex_unlock(&md->commit_lock);
	md->heal |= !ret && report_damage(&report);
	*healed = !ret && (md->heal || md->sb_holders != (1 << DM_REMAP_REPLICAS) - 1);
	mutex_unlock(&md->checkpoint_lock);
	if (*healed)
		ret = dm_remap_checkpoint(md, DM_REMAP_STATE_DIRTY);
	return ret;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking a loaded spare into use, and giving it up in good order.
 */
#include "dm-remap-internal.h"
#include "dm-remap-relocate.h"

/* ---- the spare once more, beside what is in memory ---- */

void dm_remap_beside_free(struct dm_remap_metadata *disk)
{
	dm_remap_metadata_exit(disk);
	dm_remap_free(disk);
}

struct dm_remap_metadata *dm_remap_beside(const struct dm_remap_metadata *md)
{
	struct dm_remap_metadata *disk = dm_remap_zalloc(sizeof(*disk));

	if (disk && dm_remap_metadata_init(disk, md->ops, md->ctx)) {
		dm_remap_free(disk);
		return NULL;
	}
	return disk;
}

/* Its size when it was formatted. */
static u64 spare_sectors(const struct dm_remap_metadata *md)
{
	return md->sb.layout.device_blocks * DM_REMAP_BLOCK_SECTORS;
}

/*
 * Does the journal in @disk, read later, have a commit that @md does not know, and that may have
 * been acknowledged? Of one that is on one replica alone that cannot be: its other copy could not
 * be read when @md was loaded.
 */
static bool journal_grew(const struct dm_remap_metadata *md, const struct dm_remap_metadata *disk,
			 const struct dm_remap_report *report)
{
	if (disk->next_sequence == md->next_sequence + 1 && report->one_sided)
		return report->other_unread;
	if (disk->next_sequence == md->next_sequence)
		return disk->chain != md->chain;
	return disk->next_sequence > md->next_sequence;
}

int dm_remap_journal_unchanged(struct dm_remap_metadata *md)
{
	struct dm_remap_metadata *disk = dm_remap_beside(md);
	struct dm_remap_report report;
	int ret;

	if (!disk)
		return -ENOMEM;
	ret = dm_remap_load_journal(disk, spare_sectors(md), &report);
	if (ret && !dm_remap_may_try_again(ret)) {
		dm_remap_log(md, DM_REMAP_LOG_ERR, "journal read again: %s", report.refusal);
		ret = -EUCLEAN;
	} else if (!ret && journal_grew(md, disk, &report)) {
		ret = -ESTALE;
	}
	dm_remap_beside_free(disk);
	return ret;
}

/* @md gets the contents of @disk, which has been loaded. Nobody looks records up meanwhile. */
static void adopt(struct dm_remap_metadata *md, struct dm_remap_metadata *disk)
{
	unsigned int i;

	mutex_lock(&md->commit_lock);
	dm_remap_table_swap(&md->table, &disk->table);
	dm_remap_table_swap(&md->retired, &disk->retired);
	dm_remap_alloc_swap(&md->alloc, &disk->alloc);
	swap(md->doubt, disk->doubt);
	swap(md->journal_buf, disk->journal_buf);
	mutex_lock(&md->super_lock);
	md->sb = disk->sb;
	md->sb_holders = disk->sb_holders;
	memcpy(md->held, disk->held, sizeof(md->held));
	mutex_unlock(&md->super_lock);
	WRITE_ONCE(md->next_sequence, disk->next_sequence);
	WRITE_ONCE(md->oldest_start, disk->oldest_start);
	md->chain = disk->chain;
	md->witness = disk->witness;
	md->write_nothing |= disk->write_nothing;
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++) {
		atomic64_set(&md->counter[i], atomic64_read(&disk->counter[i]));
		WRITE_ONCE(md->counter_saved[i], disk->counter_saved[i]);
	}
	mutex_unlock(&md->commit_lock);
}

/*
 * Another system has used the spare since it was loaded, and nothing of it was served yet: it is
 * loaded again. 0 or a negative errno, and the reason in the log; then nothing has changed.
 */
static int load_anew(struct dm_remap_metadata *md, const struct dm_remap_main *main,
		     struct dm_remap_report *report)
{
	struct dm_remap_metadata *disk = dm_remap_beside(md);
	int ret;

	if (!disk)
		return -ENOMEM;
	ret = dm_remap_load(disk, spare_sectors(md), md->main_sectors, report);
	if (!ret && memcmp(disk->sb.uuid, md->sb.uuid, sizeof(md->sb.uuid))) {
		report->refusal = "the spare has been formatted anew";
		ret = -ENODEV;
	}
	if (!ret && main)
		ret = dm_remap_check_main(disk, main, report);
	if (!ret)
		adopt(md, disk);
	else
		dm_remap_log(md, DM_REMAP_LOG_ERR, "%s", report->refusal);
	dm_remap_beside_free(disk);
	return ret;
}

/* ---- activation ---- */

bool dm_remap_report_damage(const struct dm_remap_report *report)
{
	int r;

	for (r = 0; report && r < DM_REMAP_REPLICAS; r++)
		if (report->replica[r].bad_table_blocks || report->replica[r].bad_journal_blocks)
			return true;
	return false;
}

static int take_spare(struct dm_remap_metadata *md, bool whole)
{
	struct dm_remap_super next;
	int ret = dm_remap_supers_equalise(md) ?: dm_remap_claim(md);

	if (ret)
		return ret;
	next = dm_remap_super_next(md, DM_REMAP_STATE_DIRTY);
	if (whole)
		return dm_remap_checkpoint_as(md, &next);
	ret = dm_remap_supers_advance(md, &next);
	if (ret)
		return ret;
	mutex_lock(&md->commit_lock);
	WRITE_ONCE(md->oldest_start, md->sb.journal_start);
	md->flags_announced = md->sb.incompat & DM_REMAP_INCOMPAT_UNREADABLE;
	mutex_unlock(&md->commit_lock);
	return 0;
}

/*
 * Is there no commit but those that were found, now and later? If that must be seen to, the
 * superblocks agree first, and then the replicas agree about the last commit. A reader that has
 * one of them alone must find the same end. A withdrawal behind an earlier end would be taken for
 * the trace of a commit that is lost.
 */
static bool end_known(struct dm_remap_metadata *md, const struct dm_remap_report *report)
{
	if (!report || !report->end_unread)
		return true;
	return !md->write_nothing && md->next_sequence <= DM_REMAP_MAX_NUMBER &&
	       !dm_remap_supers_equalise(md) && !dm_remap_end_withdraw(md, report->one_sided);
}

/*
 * The spare cannot be written. So this activation leaves no trace on it, or one that goes
 * with superblock 1. May a commit turn up at the next activation, over data that is written to
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

/* The spare has changed since it was loaded, or may have. */
static bool load_again(int error)
{
	return error == -ESTALE || error == -EUCLEAN;
}

/* The spare may have failed meanwhile, or another system may have taken it. */
static int activate_ended(struct dm_remap_metadata *md, const struct dm_remap_report *report,
			  int ret, bool known)
{
	if (dm_remap_may_try_again(ret) || load_again(ret) || (ret && must_not_guess(md, known))) {
		md->active = false;
		return ret;
	}
	if (ret)
		dm_remap_spare_given_up(md, ret);
	else if (dm_remap_report_damage(report))
		dm_remap_log(md, DM_REMAP_LOG_WARN, "damaged metadata blocks were written anew");
	return 0;
}

/* As dm_remap_activate, or an error that load_again() knows. */
static int activate_once(struct dm_remap_metadata *md, const struct dm_remap_main *main,
			 const struct dm_remap_report *report)
{
	const struct dm_remap_main_id before = md->sb.main;
	bool whole, known;
	int ret;

	lockdep_assert_held(&md->checkpoint_lock);
	md->heal |= dm_remap_report_damage(report);
	/* A commit that is burnt is in doubt, too. */
	whole = md->heal || md->doubt ||
		dm_remap_mode_of_copies(&md->sb) != DM_REMAP_MODE_RW;
	md->active = true;
	WRITE_ONCE(md->closing, false);
	md->main = main ? dm_remap_main_to_record(md, main) : before;
	WRITE_ONCE(md->mode, dm_remap_mode_of_copies(&md->sb));
	dm_remap_claim_begin(md);
	ret = md->write_nothing ? 0 : dm_remap_look_at_supers(md);
	if (ret == -ESTALE)
		return activate_ended(md, report, ret, false);
	known = end_known(md, report);
	ret = md->write_nothing ? -EROFS : take_spare(md, whole);
	/* Once more: it is seldom, and without it no record can be made for some time. */
	if (dm_remap_may_be_media(ret))
		ret = take_spare(md, whole);
	if (!ret && main)
		dm_remap_main_tell(md, main, &before);
	return activate_ended(md, report, ret, known);
}

/* Others are at it, too. One of us gives up, or both. */
#define ACTIVATE_TRIES 3

int dm_remap_activate(struct dm_remap_metadata *md, const struct dm_remap_main *main,
		      const struct dm_remap_report *report)
{
	struct dm_remap_report again;
	unsigned int tries;
	bool served;
	int ret;

	mutex_lock(&md->checkpoint_lock);
	served = md->served || !report;
	ret = md->taken ? -ESTALE : activate_once(md, main, report);
	for (tries = 1; load_again(ret) && !served && tries < ACTIVATE_TRIES; tries++) {
		dm_remap_log(md, DM_REMAP_LOG_WARN,
			     "the spare has changed since it was read: it is read again");
		ret = load_anew(md, main, &again) ?: activate_once(md, main, &again);
	}
	if (load_again(ret) && served) {
		/* Memory was served from, and is not what is on the spare, or may not be. */
		md->active = true;
		dm_remap_spare_given_up(md, ret);
		ret = 0;
	} else if (ret == -ESTALE) {
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "another system is taking the spare into use: remove it there, then try again");
		ret = -EBUSY;
	}
	md->served |= !ret;
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

/*
 * Nothing to write but the state: the table on the disk is the one in memory. A doubt that is left
 * over, for lack of memory, is none on the disk: an activation settles it.
 */
static bool table_current(const struct dm_remap_metadata *md)
{
	return md->next_sequence == md->sb.journal_start &&
	       md->oldest_start == md->sb.journal_start && md->mode == DM_REMAP_MODE_RW &&
	       !md->heal && !dm_remap_dirty(md);
}

static int say_clean(struct dm_remap_metadata *md)
{
	struct dm_remap_super next;
	int ret;

	mutex_lock(&md->checkpoint_lock);
	ret = dm_remap_look_before_writing(md);
	next = dm_remap_super_next(md, DM_REMAP_STATE_CLEAN);
	ret = ret ?: dm_remap_supers_advance(md, &next);
	if (ret == -ESTALE)
		dm_remap_spare_given_up(md, ret);
	mutex_unlock(&md->checkpoint_lock);
	return ret;
}

int dm_remap_deactivate(struct dm_remap_metadata *md)
{
	int ret;

	if (!md->active)
		return 0;
	dm_remap_record_unread(md);
	/* A commit that is under way ends before. */
	mutex_lock(&md->commit_lock);
	WRITE_ONCE(md->closing, true);
	mutex_unlock(&md->commit_lock);
	if (md->taken)
		ret = 0;
	else if (table_current(md))
		ret = say_clean(md);
	else
		ret = dm_remap_checkpoint(md, DM_REMAP_STATE_CLEAN);
	mutex_lock(&md->commit_lock);
	md->active = false;
	mutex_unlock(&md->commit_lock);
	return ret;
}

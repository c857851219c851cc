// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pending ranges that main reads again. Some blocks recover: an SSD's after an hour, those of a
 * range that was locked, and those of a disk that was too warm.
 *
 * Somebody's read of a pending range ends well: that is the first of three. Two follow after a
 * pause. Meanwhile no read there may fail. If all three end well the record ends, and no place on
 * the spare is spent. This concerns records with the reason read_error alone. After a write that
 * failed, main holds something older.
 */
#include "dm-remap-evidence.h"
#include "dm-remap-mover.h"

/*
 * The next sectors in [@*pos, @end) that are pending after a read error, and not in doubt. There
 * are at most as many as the mover has room for.
 */
static bool next_pending(struct dm_remap_metadata *md, u64 *pos, u64 end, u32 *sectors)
{
	struct dm_remap_extent e;
	struct dm_remap_record r;

	while (*pos < end && dm_remap_table_next(&md->table, *pos, &r) && r.main < end) {
		*pos = max_t(u64, *pos, r.main);
		dm_remap_look(md, *pos, min_t(u64, end, r.main + r.length) - *pos, &e);
		if (r.kind == DM_REMAP_PENDING && r.reason == DM_REMAP_REASON_READ_ERROR &&
		    !e.flags) {
			*sectors = min_t(u64, e.length, DM_REMAP_REDO_SECTORS);
			return true;
		}
		*pos += e.length;
	}
	return false;
}

static bool read_well(struct dm_remap_mover *m, u64 start, u32 sectors)
{
	u64 since = dm_remap_main_failures(m->md, DM_REMAP_READ);

	if (dm_remap_dev_read(m->md, DM_REMAP_MAIN, start, sectors, m->check))
		return false;
	dm_remap_main_worked_at(m->md, DM_REMAP_READ, since, start);
	return true;
}

void dm_remap_recheck_hint(struct dm_remap_metadata *md, u64 start, u32 length)
{
	u64 pos = start;
	u32 sectors;

	if (!dm_remap_may_move(md) && next_pending(md, &pos, start + length, &sectors))
		dm_remap_later_add(md, &md->rechecks, start, start + length,
				   READ_ONCE(md->policy.recheck_pause));
}

/* The last two reads, and the end. @start is behind the sectors that it was about. */
static int end_records(struct dm_remap_mover *m, u64 *start, u64 end)
{
	u32 sectors;
	int ret = 0;

	while (!ret && next_pending(m->md, start, end, &sectors)) {
		if (!read_well(m, *start, sectors) || !read_well(m, *start, sectors))
			return ret;
		ret = dm_remap_clear_add(m, *start, sectors, 0);
		*start += sectors;
	}
	return ret;
}

static void finish(struct dm_remap_mover *m, const struct dm_remap_later *r)
{
	struct dm_remap_metadata *md = m->md;
	u64 before = m->moved.dropped, pos = r->start;

	if (dm_remap_may_move_now(md))
		return;
	if (end_records(m, &pos, r->end) || dm_remap_mover_commit(m) ||
	    m->moved.dropped == before)
		return;
	dm_remap_count(md, DM_REMAP_RECOVERED, 1);
	dm_remap_log(md, DM_REMAP_LOG_WARN,
		     "sectors %llu + %llu: main reads them again, they are not pending any more",
		     (unsigned long long)r->start, (unsigned long long)(pos - r->start));
}

u32 dm_remap_recheck(struct dm_remap_mover *m)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_job claim;
	struct dm_remap_later r;

	if (dm_remap_later_take(md, &md->rechecks, &r) &&
	    dm_remap_job_claim_now(&md->schedule, &claim, r.start, r.end - r.start)) {
		dm_remap_redo_begin(m);
		m->write = 0;
		finish(m, &r);
		dm_remap_redo_end(m);
		dm_remap_job_done(&md->schedule, &claim);
	}
	return dm_remap_later_wait(md, &md->rechecks);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pending ranges that main reads again. Some blocks recover: an SSD's after an hour, those of a
 * range that was locked, and those of a disk that was too warm.
 *
 * Somebody's read of a pending range ends well: that is a hint. The range is then read three times
 * more, once at once, and twice after a pause. Meanwhile no redo of a read may have come there. If
 * all three end well the record ends, and no place on the spare is spent. This concerns records
 * with the reason read_error alone. After a write that failed, main holds something older.
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

void dm_remap_recheck_forget(struct dm_remap_metadata *md, u64 start, u64 length)
{
	unsigned int i;

	for (i = md->rechecks; i--;)
		if (md->recheck[i].start < start + length && start < md->recheck[i].end)
			md->recheck[i] = md->recheck[--md->rechecks];
}

static bool waits_already(const struct dm_remap_metadata *md, u64 start, u64 end)
{
	unsigned int i;

	for (i = 0; i < md->rechecks; i++)
		if (md->recheck[i].start <= start && end <= md->recheck[i].end)
			return true;
	return false;
}

/* The first of the three reads. */
static bool begins_well(struct dm_remap_mover *m, u64 start, u64 end)
{
	bool any = false;
	u32 sectors;

	for (; next_pending(m->md, &start, end, &sectors); start += sectors) {
		if (!read_well(m, start, sectors))
			return false;
		any = true;
	}
	return any;
}

static void begin(struct dm_remap_mover *m, u64 start, u64 end)
{
	struct dm_remap_metadata *md = m->md;

	if (md->rechecks == DM_REMAP_RECHECKS || waits_already(md, start, end) ||
	    dm_remap_may_move(md) || !begins_well(m, start, end))
		return;
	md->recheck[md->rechecks++] = (struct dm_remap_recheck) {
		.start = start, .end = end,
		.due = md->ops->uptime(md->ctx) + READ_ONCE(md->policy.recheck_pause),
	};
}

void dm_remap_recheck_begin(struct dm_remap_mover *m, u64 start, u64 length)
{
	dm_remap_redo_begin(m);
	begin(m, start, start + length);
	dm_remap_redo_end(m);
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

static void finish(struct dm_remap_mover *m, const struct dm_remap_recheck *r)
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

/* Which one is due first? md->rechecks: none waits. */
static unsigned int first_due(const struct dm_remap_metadata *md)
{
	unsigned int first = 0, i;

	for (i = 1; i < md->rechecks; i++)
		if (md->recheck[i].due < md->recheck[first].due)
			first = i;
	return first;
}

u32 dm_remap_recheck(struct dm_remap_mover *m)
{
	struct dm_remap_metadata *md = m->md;
	u64 now = md->ops->uptime(md->ctx);
	struct dm_remap_recheck r;
	unsigned int i;
	u32 wait = 0;

	dm_remap_redo_begin(m);
	m->write = 0;
	i = first_due(md);
	if (md->rechecks && md->recheck[i].due <= now) {
		r = md->recheck[i];
		md->recheck[i] = md->recheck[--md->rechecks];
		finish(m, &r);
		i = first_due(md);
	}
	now = md->ops->uptime(md->ctx);
	if (md->rechecks)
		wait = md->recheck[i].due > now ? md->recheck[i].due - now : 1;
	dm_remap_redo_end(m);
	return wait;
}

// SPDX-License-Identifier: GPL-2.0-only
/* Lists of ranges that are looked at again, without a request from above. */
#include "dm-remap-mover.h"

bool dm_remap_later_add(struct dm_remap_metadata *md, struct dm_remap_laters *list, u64 start,
			u64 end, u32 pause)
{
	bool there = false;
	unsigned int i;

	mutex_lock(&md->later_lock);
	for (i = 0; i < list->n; i++)
		there = there || (list->entry[i].start <= start && end <= list->entry[i].end);
	if (!there && list->n < DM_REMAP_LATER) {
		list->entry[list->n] = (struct dm_remap_later) {
			.start = start, .end = end, .pause = pause,
			.due = md->ops->uptime(md->ctx) + pause,
		};
		WRITE_ONCE(list->n, list->n + 1);
	}
	mutex_unlock(&md->later_lock);
	return !there;
}

void dm_remap_later_forget(struct dm_remap_metadata *md, struct dm_remap_laters *list, u64 start,
			   u64 length)
{
	unsigned int i;

	if (!READ_ONCE(list->n))
		return;
	mutex_lock(&md->later_lock);
	for (i = list->n; i--;) {
		if (list->entry[i].start >= start + length || start >= list->entry[i].end)
			continue;
		list->entry[i] = list->entry[list->n - 1];
		WRITE_ONCE(list->n, list->n - 1);
	}
	mutex_unlock(&md->later_lock);
}

/* The one that is due first; list->n: there is none. */
static unsigned int first_due(const struct dm_remap_laters *list)
{
	unsigned int first = 0, i;

	for (i = 1; i < list->n; i++)
		if (list->entry[i].due < list->entry[first].due)
			first = i;
	return first;
}

bool dm_remap_later_take(struct dm_remap_metadata *md, struct dm_remap_laters *list,
			 struct dm_remap_later *entry)
{
	bool due = false;
	unsigned int i;

	mutex_lock(&md->later_lock);
	i = first_due(list);
	if (list->n && list->entry[i].due <= md->ops->uptime(md->ctx)) {
		*entry = list->entry[i];
		list->entry[i] = list->entry[list->n - 1];
		WRITE_ONCE(list->n, list->n - 1);
		due = true;
	}
	mutex_unlock(&md->later_lock);
	return due;
}

u32 dm_remap_later_wait(struct dm_remap_metadata *md, struct dm_remap_laters *list)
{
	u32 wait = 0;
	s64 left;

	if (!READ_ONCE(list->n))
		return 0;
	mutex_lock(&md->later_lock);
	if (list->n) {
		left = list->entry[first_due(list)].due - md->ops->uptime(md->ctx);
		wait = max_t(s64, left, 1);
	}
	mutex_unlock(&md->later_lock);
	return wait;
}

static u32 sooner(u32 a, u32 b)
{
	return a && b ? min_t(u32, a, b) : max_t(u32, a, b);
}

/* -EBUSY: somebody works on the range, or commits. */
static int record_now(struct dm_remap_metadata *md, const struct dm_remap_unrecorded *u)
{
	u64 length = u->end - u->start;
	struct dm_remap_job claim;
	int ret;

	if (!dm_remap_job_claim_now(&md->schedule, &claim, u->start, length))
		return -EBUSY;
	/* Main may have become shorter. */
	ret = dm_remap_main_reaches(md, u->start, length) ?:
	      dm_remap_pending_try(md, u->start, length, DM_REMAP_REASON_READ_ERROR);
	dm_remap_job_done(&md->schedule, &claim);
	return ret;
}

u32 dm_remap_record_unread(struct dm_remap_metadata *md)
{
	struct dm_remap_unrecorded u;
	unsigned int i = 0;

	if (!READ_ONCE(md->schedule.n_unrecorded))
		return 0;
	/* Nobody waits for a range meanwhile. */
	if (dm_remap_soft_full(md) && !dm_remap_may_move(md))
		dm_remap_soft_commit(md);
	while (dm_remap_unrecorded_get(&md->schedule, i, &u))
		if (record_now(md, &u) == -EBUSY)
			i++;
		else
			dm_remap_unrecorded_drop(&md->schedule, &u);
	return i ? 1 : 0;
}

u32 dm_remap_do_later(struct dm_remap_mover *m)
{
	u32 wait = dm_remap_record_unread(m->md);

	wait = sooner(wait, dm_remap_recheck(m));
	wait = sooner(wait, dm_remap_rescue_again(m));
	return sooner(wait, dm_remap_breaker_probe(m));
}

bool dm_remap_later_any(const struct dm_remap_metadata *md)
{
	return READ_ONCE(md->schedule.n_unrecorded) || READ_ONCE(md->rechecks.n) ||
	       READ_ONCE(md->rescues.n) || READ_ONCE(md->breaker[DM_REMAP_READ].open);
}

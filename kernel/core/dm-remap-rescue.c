// SPDX-License-Identifier: GPL-2.0-only
/*
 * Blocks that came back after they had failed are moved to the spare while they can be had. The
 * reader has its answer before, and does not wait for the spare. No write may be on its way there
 * meanwhile. One that takes long is waited for later.
 */
#include "dm-remap-mover.h"

/* Milliseconds for the writes on their way: at once, and later. */
#define DRAIN_NOW	100
#define DRAIN_LATER	2000

/* Seconds after which others have their turn. */
#define ENOUGH		2

/* Seconds to the next try, at first and at most. */
#define PAUSE		1
#define LONGEST_PAUSE	64

/*
 * The range is held, so it is the last write that is read now. 0; DM_REMAP_GIVEN_UP: by a suspend.
 */
static int rescue_held(struct dm_remap_mover *m, u64 start, u32 length)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_MAIN, .direction = DM_REMAP_READ, .sector = start,
		.sectors = length, .data = m->check, .fate = m->fate[1],
		.retries = READ_ONCE(md->policy.read_retries),
	};
	u32 g = dm_remap_granularity(md), n = length / g, i, run;
	int ret = dm_remap_transfer(m, &t);

	if (ret == DM_REMAP_GIVEN_UP)
		return ret;
	/* Main does not return it again: that says nothing of the spare. */
	if (ret) {
		dm_remap_not_moved(md, start, length, DM_REMAP_REFUSAL_NONE, ret);
		return 0;
	}
	for (i = 0; !ret && i < n; i += run) {
		u64 at = start + i * g;

		run = dm_remap_fate_run(t.fate, i, n);
		if (t.fate[i] != DM_REMAP_BAD)
			ret = dm_remap_put(m, DM_REMAP_REASON_RESCUED, at, run * g,
					   m->check + dm_remap_bytes(i * g));
		else
			dm_remap_pending_add(md, at, run * g, DM_REMAP_REASON_READ_ERROR);
	}
	ret = dm_remap_mover_commit(m) ?: ret;
	if (ret)
		dm_remap_refused(md, start, length, ret);
	return 0;
}

static bool forbidden(const struct dm_remap_metadata *md)
{
	return READ_ONCE(md->policy.no_auto_remap) || dm_remap_may_move(md);
}

/* -EBUSY: writes are on their way there. DM_REMAP_GIVEN_UP: by a suspend. */
static int rescue(struct dm_remap_mover *m, u64 start, u32 length, unsigned int ms)
{
	int ret = dm_remap_hold(m->md, start, length, ms);

	if (!ret) {
		ret = rescue_held(m, start, length);
		dm_remap_release(m->md, start, length);
		/* It has told of its failure. */
		m->error = 0;
	}
	return ret;
}

void dm_remap_rescue(struct dm_remap_metadata *md, u64 start, u32 length)
{
	if (!forbidden(md))
		dm_remap_later_add(md, &md->rescues, start, start + length, 0);
}

/* Does main have the data of all of it yet? */
static bool is_on_main(struct dm_remap_metadata *md, u64 start, u64 end)
{
	struct dm_remap_extent e;

	dm_remap_look(md, start, end - start, &e);
	return e.length == end - start && e.kind != DM_REMAP_MAPPED && !e.flags;
}

/* One range, which is the caller's. */
static int rescue_claimed(struct dm_remap_mover *m, const struct dm_remap_later *r)
{
	u32 length = r->end - r->start;
	int ret = 0;

	dm_remap_redo_begin(m);
	m->write = 0;
	if (is_on_main(m->md, r->start, r->end))
		ret = rescue(m, r->start, length, r->pause ? DRAIN_LATER : DRAIN_NOW);
	dm_remap_redo_end(m);
	return ret;
}

u32 dm_remap_rescue_again(struct dm_remap_mover *m)
{
	struct dm_remap_metadata *md = m->md;
	u64 end = md->ops->uptime(md->ctx) + ENOUGH;
	struct dm_remap_later r;

	if (forbidden(md))
		return 0;
	while (!md->ops->stop(md->ctx) && md->ops->uptime(md->ctx) < end &&
	       dm_remap_later_take(md, &md->rescues, &r)) {
		struct dm_remap_job claim;
		int ret = -EBUSY;

		if (dm_remap_job_claim_now(&md->schedule, &claim, r.start, r.end - r.start)) {
			ret = rescue_claimed(m, &r);
			dm_remap_job_done(&md->schedule, &claim);
		}
		if (ret == -EBUSY || ret == DM_REMAP_GIVEN_UP)
			dm_remap_later_add(md, &md->rescues, r.start, r.end,
					   clamp_t(u32, 2 * r.pause, PAUSE, LONGEST_PAUSE));
	}
	return dm_remap_later_wait(md, &md->rescues);
}

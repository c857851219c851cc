// SPDX-License-Identifier: GPL-2.0-only
/*
 * Is it bad media? A block is, if it fails by itself again while main does
 * something else in the same direction. The status alone proves nothing: NVMe
 * calls write-protected a medium error, SCSI reports a lost connection as a
 * plain I/O error.
 */
#include "dm-remap-mover.h"

/* Blocks that fail in a row before main is asked whether it does anything at all. */
#define FAILURES_BEFORE_CONTROL 8

/* ---- narrowing ---- */

static int stop_wanted(struct dm_remap_mover *m, const struct dm_remap_transfer *t)
{
	return t->stoppable ? m->md->ops->stop(m->md->ctx) : 0;
}

/* One try at [@from, @from + @sectors) of the transfer. */
static int transfer_once(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 from,
			 u32 sectors)
{
	const struct dm_remap_ops *ops = m->md->ops;
	u8 *data = t->data + dm_remap_bytes(from);
	u64 sector = t->sector + from;
	int ret;

	if (t->direction == DM_REMAP_WRITE)
		ret = ops->write(m->md->ctx, t->dev, sector, sectors, data, t->flags);
	else
		ret = ops->read(m->md->ctx, t->dev, sector, sectors, data);
	if (!ret && t->dev == DM_REMAP_MAIN)
		m->answered[t->direction] = true;
	return ret;
}

/* A block that failed by itself, tried further. */
static int block_retry(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 from,
		       u8 *fate)
{
	unsigned int tries;

	*fate = DM_REMAP_BAD;
	for (tries = 0; tries < t->retries; tries++) {
		int ret = stop_wanted(m, t) ?:
			  transfer_once(m, t, from, dm_remap_granularity(m->md));

		if (!ret)
			*fate = DM_REMAP_LATE;
		if (!ret || !dm_remap_may_be_media(ret))
			return ret;
	}
	return 0;
}

/* The largest power of two below @n, which is above 1. */
static u32 lower_half(u32 n)
{
	u32 half = 1;

	while (half * 2 < n)
		half *= 2;
	return half;
}

/*
 * After a failure the lower half is tried, then the rest of what failed: an aligned
 * block of @at's own alignment, so the walk needs no memory of where it came from.
 */
int dm_remap_transfer(struct dm_remap_mover *m, struct dm_remap_transfer *t)
{
	u32 g = dm_remap_granularity(m->md), total = t->sectors / g, at = 0, n = total;
	unsigned int bad = 0;

	memset(t->fate, DM_REMAP_GOOD, total);
	while (at < total) {
		int ret = stop_wanted(m, t) ?: transfer_once(m, t, at * g, n * g);

		if (ret && !dm_remap_may_be_media(ret))
			return ret;
		if (ret && n > 1) {
			n = lower_half(n);
			continue;
		}
		if (ret) {
			ret = block_retry(m, t, at * g, &t->fate[at]);
			if (ret)
				return ret;
			bad += t->fate[at] == DM_REMAP_BAD;
			/* Before hundreds more are tried on a disk that is gone. */
			if (t->dev == DM_REMAP_MAIN && bad == FAILURES_BEFORE_CONTROL &&
			    !dm_remap_proved_media(m, t->direction, t->sector, t->sectors))
				return -EIO;
		}
		at += n;
		n = min_t(u32, at & -at, total - at);
	}
	return 0;
}

u32 dm_remap_fate_run(const u8 *fate, u32 i, u32 n)
{
	u32 run = 1;

	while (i + run < n && fate[i + run] == fate[i])
		run++;
	return run;
}

/* ---- control ---- */

/* Places to ask main at, in this order: beside the range, then all over the disk. */
#define CONTROL_PLACES 11

static u64 control_place(const struct dm_remap_metadata *md, u64 start, u64 length, unsigned int i)
{
	u32 g = dm_remap_granularity(md);
	u64 blocks = div_u64(md->table.sectors, g);

	if (i == 0)
		return start + length;
	if (i == 1)
		return start - g;
	if (i == CONTROL_PLACES - 1)
		return (blocks - 1) * g;
	return div_u64(blocks * (i - 2), CONTROL_PLACES - 3) * g;
}

/*
 * A block outside the range that nobody has found bad. This batch has not either: where
 * it has moved anything from main, main has answered, and is not asked again.
 */
static bool control_usable(struct dm_remap_metadata *md, u64 place, u64 start, u64 length)
{
	struct dm_remap_extent e;

	if (place >= md->table.sectors || (place >= start && place < start + length))
		return false;
	dm_remap_look(md, place, dm_remap_granularity(md), &e);
	return e.kind == DM_REMAP_NONE && !e.flags;
}

static bool control_read(struct dm_remap_mover *m, u64 start, u64 length)
{
	struct dm_remap_metadata *md = m->md;
	unsigned int i;

	for (i = 0; i < CONTROL_PLACES; i++) {
		u64 place = control_place(md, start, length, i);

		if (control_usable(md, place, start, length) &&
		    !md->ops->read(md->ctx, DM_REMAP_MAIN, place, dm_remap_granularity(md),
				   m->control))
			return true;
	}
	return false;
}

/*
 * Main's good blocks that were rewritten, with what they held. They are held until
 * it is known what a failure means.
 */
struct rewritten {
	unsigned int n;
	u64 place[DM_REMAP_CONTROLS];
};

/* Reads the block and writes the same bytes again. 0, or -ENODATA: it cannot be read. */
static int control_rewrite(struct dm_remap_mover *m, struct rewritten *failed, u64 place)
{
	struct dm_remap_metadata *md = m->md;
	u32 g = dm_remap_granularity(md);
	u8 *data = m->control + failed->n * DM_REMAP_BLOCK_SIZE;
	int ret = dm_remap_hold(md, place, g);

	if (ret)
		return ret;
	if (md->ops->read(md->ctx, DM_REMAP_MAIN, place, g, data))
		ret = -ENODATA;
	else if (md->ops->write(md->ctx, DM_REMAP_MAIN, place, g, data, 0))
		ret = -EIO;
	if (ret == -EIO)
		failed->place[failed->n++] = place;
	else
		dm_remap_release(md, place, g);
	return ret;
}

/*
 * Where a later one was taken, those that failed are bad media themselves, and what
 * they held is in our hands: it goes to the spare.
 */
static void control_settle(struct dm_remap_mover *m, const struct rewritten *failed, bool taken)
{
	u32 g = dm_remap_granularity(m->md);
	unsigned int i;
	int ret = 0;

	for (i = 0; taken && !ret && i < failed->n; i++)
		ret = dm_remap_put(m, DM_REMAP_REASON_WRITE_ERROR, failed->place[i], g,
				   m->control + i * DM_REMAP_BLOCK_SIZE);
	if (taken && failed->n)
		dm_remap_mover_commit(m);
	for (i = 0; i < failed->n; i++)
		dm_remap_release(m->md, failed->place[i], g);
}

/*
 * Who else writes cannot be asked for it, so a good block is rewritten with what it
 * holds. It is held and drained meanwhile: no write of others gets lost under it.
 */
static bool control_write(struct dm_remap_mover *m, u64 start, u64 length)
{
	struct rewritten failed = { };
	bool taken = false;
	unsigned int i;

	for (i = 0; !taken && i < CONTROL_PLACES && failed.n < DM_REMAP_CONTROLS; i++) {
		u64 place = control_place(m->md, start, length, i);

		taken = control_usable(m->md, place, start, length) &&
			!control_rewrite(m, &failed, place);
	}
	control_settle(m, &failed, taken);
	return taken;
}

/* Has main done anything in this direction since the batch began; and if not, does it? */
static bool main_answers(struct dm_remap_mover *m, enum dm_remap_direction direction, u64 start,
			 u64 length)
{
	if (!m->answered[direction])
		m->answered[direction] = direction == DM_REMAP_WRITE ?
					 control_write(m, start, length) :
					 control_read(m, start, length);
	return m->answered[direction];
}

/* ---- breaker ---- */

static void breaker_set(struct dm_remap_metadata *md, bool open)
{
	md->breaker.failures = 0;
	if (md->breaker.open == open)
		return;
	WRITE_ONCE(md->breaker.open, open);
	if (open)
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "breaker open: main fails everywhere, so no sector counts as bad for now");
	else
		dm_remap_log(md, DM_REMAP_LOG_INFO, "main works: breaker closed");
	dm_remap_note(md, DM_REMAP_NOTE_BREAKER, 0, 0, open);
}

void dm_remap_breaker_reset(struct dm_remap_metadata *md)
{
	mutex_lock(&md->move_lock);
	breaker_set(md, false);
	mutex_unlock(&md->move_lock);
}

bool dm_remap_proved_media(struct dm_remap_mover *m, enum dm_remap_direction direction, u64 start,
			   u64 length)
{
	struct dm_remap_metadata *md = m->md;

	if (main_answers(m, direction, start, length)) {
		breaker_set(md, false);
		return true;
	}
	md->breaker.tried = md->ops->now(md->ctx);
	if (++md->breaker.failures >= DM_REMAP_BREAKER_LIMIT)
		breaker_set(md, true);
	return false;
}

int dm_remap_breaker_check(struct dm_remap_mover *m, enum dm_remap_direction direction, u64 start,
			   u64 length)
{
	struct dm_remap_metadata *md = m->md;
	u64 now = md->ops->now(md->ctx);

	if (!md->breaker.open)
		return 0;
	/* A clock that was set back must not keep it open for ever. */
	if (now >= md->breaker.tried && now < md->breaker.tried + DM_REMAP_BREAKER_PAUSE)
		return -EIO;
	return dm_remap_proved_media(m, direction, start, length) ? 0 : -EIO;
}

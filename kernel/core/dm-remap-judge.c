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

/* ---- main, as a whole ---- */

/* Main has just done something in this direction. */
static void main_answered(struct dm_remap_mover *m, enum dm_remap_direction direction)
{
	m->answered[direction] = true;
	dm_remap_breaker_success(m->md, direction);
}

bool dm_remap_ask_main(struct dm_remap_mover *m, enum dm_remap_direction direction, u64 start,
		       u64 length)
{
	struct dm_remap_probe p = { .direction = direction, .start = start, .length = length };
	enum dm_remap_found found;

	if (m->answered[direction])
		return true;
	do {
		found = dm_remap_probe(m, &p);
		if (found == DM_REMAP_BLOCK_LOST)
			dm_remap_save_lost(m, p.lost, p.unit);
	} while (found == DM_REMAP_BLOCK_LOST);
	if (found == DM_REMAP_ANSWERS)
		main_answered(m, direction);
	else if (found == DM_REMAP_SILENT)
		dm_remap_breaker_failure(m->md, direction);
	return found == DM_REMAP_ANSWERS;
}

/* Main has failed. Is that all there is to it, because the breaker is open? */
static bool breaker_holds(struct dm_remap_mover *m, const struct dm_remap_transfer *t)
{
	if (t->dev != DM_REMAP_MAIN)
		return false;
	switch (dm_remap_breaker(m->md, t->direction)) {
	case DM_REMAP_BREAKER_CLOSED:
		return false;
	case DM_REMAP_BREAKER_OPEN:
		return true;
	default:
		return !dm_remap_ask_main(m, t->direction, t->sector, t->sectors);
	}
}

/* ---- narrowing ---- */

/* May the transfer that began at @began go on? A block that fails can take a drive many seconds. */
static int go_on(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u64 began)
{
	if (t->stoppable)
		return m->md->ops->stop(m->md->ctx);
	return m->md->ops->uptime(m->md->ctx) > began + DM_REMAP_REDO_BUDGET ? -ETIMEDOUT : 0;
}

/* Is there time to find out more about what failed? */
static bool in_time(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u64 began)
{
	return t->stoppable || m->md->ops->uptime(m->md->ctx) <= began + DM_REMAP_REDO_HURRY;
}

u32 dm_remap_media_unit(const struct dm_remap_metadata *md)
{
	return max_t(u32, md->main_block, dm_remap_granularity(md));
}

/*
 * Blocks that fail together: of the logical blocks in one of the media's, all do. Known only
 * where the transfer begins with one of those.
 */
static u32 least_blocks(struct dm_remap_mover *m, const struct dm_remap_transfer *t)
{
	u32 unit = dm_remap_media_unit(m->md);

	if (t->dev != DM_REMAP_MAIN || t->sector & (unit - 1))
		return 1;
	return unit / dm_remap_granularity(m->md);
}

/* One try at [@from, @from + @sectors) of the transfer. */
static int transfer_once(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 from,
			 u32 sectors)
{
	u8 *data = t->data + dm_remap_bytes(from);
	u64 sector = t->sector + from;
	int ret;

	if (t->direction == DM_REMAP_WRITE)
		ret = dm_remap_dev_write(m->md, t->dev, sector, sectors, data, t->flags);
	else
		ret = dm_remap_dev_read(m->md, t->dev, sector, sectors, data);
	if (!ret && t->dev == DM_REMAP_MAIN)
		main_answered(m, t->direction);
	return ret;
}

/* @n blocks from @at on, which failed and are not narrowed down, tried further. */
static int blocks_retry(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 at,
			u32 n, u64 began)
{
	u32 g = dm_remap_granularity(m->md);
	unsigned int tries;

	for (tries = 0; tries < t->retries && in_time(m, t, began); tries++) {
		int ret = go_on(m, t, began) ?: transfer_once(m, t, at * g, n * g);

		if (!ret)
			memset(t->fate + at, DM_REMAP_LATE, n);
		if (!ret || !dm_remap_may_be_media(ret))
			return ret;
	}
	memset(t->fate + at, DM_REMAP_BAD, n);
	/* What main did before this is no control. */
	if (t->dev == DM_REMAP_MAIN)
		m->answered[t->direction] = false;
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

/* Where a part of a block of the media was not written, the rest may be lost: it is bad, too. */
static void bad_together(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 blocks)
{
	u32 g = dm_remap_granularity(m->md), n = dm_remap_media_unit(m->md) / g, i, end;

	if (t->dev != DM_REMAP_MAIN || t->direction != DM_REMAP_WRITE || n == 1)
		return;
	for (i = 0; i < blocks; i = end) {
		end = min_t(u32, i + n - (((u32)t->sector / g + i) & (n - 1)), blocks);
		if (memchr(t->fate + i, DM_REMAP_BAD, end - i))
			memset(t->fate + i, DM_REMAP_BAD, end - i);
	}
}

/* Of its first @blocks those @n that are good, and begin where the media's do; @blocks: none. */
static u32 good_blocks(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 blocks,
		       u32 n)
{
	u32 g = dm_remap_granularity(m->md), i = (-(u32)t->sector & (n * g - 1)) / g;

	for (; i + n <= blocks; i += n)
		if (t->fate[i] == DM_REMAP_GOOD && dm_remap_fate_run(t->fate, i, i + n) == n)
			return i;
	return blocks;
}

/*
 * A control that costs nothing: what was good of the transfer itself, once more. What it reads
 * goes elsewhere; and what it writes is ours, but whoever does not take it again may have lost it.
 */
static void ask_own(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 blocks)
{
	bool write = t->direction == DM_REMAP_WRITE;
	struct dm_remap_transfer once = *t;
	u32 g = dm_remap_granularity(m->md), n = write ? dm_remap_media_unit(m->md) / g : 1, i;

	if (t->dev != DM_REMAP_MAIN || m->answered[t->direction])
		return;
	i = good_blocks(m, t, blocks, n);
	if (i == blocks)
		return;
	once.sector += i * g;
	once.data = write ? t->data + dm_remap_bytes(i * g) : m->control;
	if (transfer_once(m, &once, 0, n * g) && write)
		memset(t->fate + i, DM_REMAP_BAD, n);
}

/* Before hundreds more blocks are tried: is there any sense in it? */
static bool worth_going_on(struct dm_remap_mover *m, const struct dm_remap_transfer *t, u32 done,
			   unsigned int bad)
{
	if (t->dev != DM_REMAP_MAIN || bad != FAILURES_BEFORE_CONTROL)
		return true;
	ask_own(m, t, done);
	return dm_remap_ask_main(m, t->direction, t->sector, t->sectors);
}

/*
 * An error that is not the media's ends it. If main takes too long, again and again,
 * the breaker is for that, too.
 */
static int not_the_media(struct dm_remap_mover *m, const struct dm_remap_transfer *t, int error)
{
	if (error == -ETIMEDOUT && t->dev == DM_REMAP_MAIN)
		dm_remap_breaker_failure(m->md, t->direction);
	if (!t->stoppable)
		dm_remap_log(m->md, DM_REMAP_LOG_WARN,
			     "%s of %s at sector %llu + %u fails: %s (%d)",
			     t->direction == DM_REMAP_WRITE ? "write" : "read",
			     t->dev == DM_REMAP_MAIN ? "main" : "the spare",
			     (unsigned long long)t->sector, t->sectors,
			     error == -ETIMEDOUT ? "it took too long" : "not the media's error",
			     error);
	return error;
}

/*
 * After a failure the lower half is tried, then the rest of what failed: an aligned
 * block of @at's own alignment, so the walk needs no memory of where it came from.
 */
int dm_remap_transfer(struct dm_remap_mover *m, struct dm_remap_transfer *t)
{
	u32 g = dm_remap_granularity(m->md), total = t->sectors / g, at = 0, n = total;
	u32 least = least_blocks(m, t);
	u64 began = m->md->ops->uptime(m->md->ctx);
	unsigned int bad = 0;

	memset(t->fate, DM_REMAP_GOOD, total);
	if (t->failed && breaker_holds(m, t))
		return -EIO;
	while (at < total) {
		int ret = go_on(m, t, began) ?: transfer_once(m, t, at * g, n * g);

		if (ret && !dm_remap_may_be_media(ret))
			return not_the_media(m, t, ret);
		if (ret && t->whole)
			return ret;
		if (ret && breaker_holds(m, t))
			return -EIO;
		if (ret && n > least && in_time(m, t, began)) {
			n = lower_half(n);
			continue;
		}
		if (ret)
			ret = blocks_retry(m, t, at, n, began);
		if (ret)
			return not_the_media(m, t, ret);
		bad += t->fate[at] == DM_REMAP_BAD;
		if (t->fate[at] == DM_REMAP_BAD && !worth_going_on(m, t, at, bad))
			return -EIO;
		at += n;
		n = min_t(u32, at & -at, total - at);
	}
	if (bad) {
		bad_together(m, t, total);
		ask_own(m, t, total);
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

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

/* ---- breaker ---- */

static void breaker_set(struct dm_remap_metadata *md, enum dm_remap_direction direction, bool open)
{
	struct dm_remap_breaker *b = &md->breaker[direction];

	b->failures = 0;
	if (b->open == open)
		return;
	WRITE_ONCE(b->open, open);
	dm_remap_log(md, open ? DM_REMAP_LOG_ERR : DM_REMAP_LOG_INFO,
		     open ? "breaker open: main %s nothing, so no sector counts as bad for now" :
			    "breaker closed: main %s again",
		     direction == DM_REMAP_WRITE ? "writes" : "reads");
	dm_remap_note(md, DM_REMAP_NOTE_BREAKER, 0, 0, open);
}

static void breaker_failure(struct dm_remap_metadata *md, enum dm_remap_direction direction)
{
	struct dm_remap_breaker *b = &md->breaker[direction];

	b->tried = md->ops->uptime(md->ctx);
	if (++b->failures >= DM_REMAP_BREAKER_LIMIT)
		breaker_set(md, direction, true);
}

void dm_remap_breaker_reset(struct dm_remap_metadata *md)
{
	mutex_lock(&md->move_lock);
	breaker_set(md, DM_REMAP_READ, false);
	breaker_set(md, DM_REMAP_WRITE, false);
	mutex_unlock(&md->move_lock);
}

/* Main has failed. Is that all there is to it, because the breaker is open? */
static bool breaker_holds(struct dm_remap_mover *m, const struct dm_remap_transfer *t)
{
	const struct dm_remap_breaker *b = &m->md->breaker[t->direction];

	if (t->dev != DM_REMAP_MAIN || !b->open)
		return false;
	if (m->md->ops->uptime(m->md->ctx) < b->tried + DM_REMAP_BREAKER_PAUSE)
		return true;
	return !dm_remap_proved_media(m, t->direction, t->sector, t->sectors);
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

/*
 * Sectors of main that fail together. A drive that fails to write one of them may lose them all: it
 * reads a block of its media, changes a part of it, and writes it again.
 */
static u32 media_unit(const struct dm_remap_metadata *md)
{
	return max_t(u32, md->main_block, dm_remap_granularity(md));
}

/*
 * Blocks that fail together: of the logical blocks in one of the media's, all do. Known only
 * where the transfer begins with one of those.
 */
static u32 least_blocks(struct dm_remap_mover *m, const struct dm_remap_transfer *t)
{
	u32 unit = media_unit(m->md);

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
	if (!ret && t->dev == DM_REMAP_MAIN) {
		m->answered[t->direction] = true;
		breaker_set(m->md, t->direction, false);
	}
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
	u32 g = dm_remap_granularity(m->md), n = media_unit(m->md) / g, i, end;

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
	u32 g = dm_remap_granularity(m->md), n = write ? media_unit(m->md) / g : 1, i;

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
	return dm_remap_proved_media(m, t->direction, t->sector, t->sectors);
}

/*
 * An error that is not the media's ends it. If main takes too long, again and again,
 * the breaker is for that, too.
 */
static int not_the_media(struct dm_remap_mover *m, const struct dm_remap_transfer *t, int error)
{
	if (error == -ETIMEDOUT && t->dev == DM_REMAP_MAIN)
		breaker_failure(m->md, t->direction);
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

/* ---- control ---- */

/* Places to ask main at: all over the disk, and at last beside the range. */
#define CONTROL_SPREAD 8
#define CONTROL_PLACES (CONTROL_SPREAD + 2)

/* A multiple of @unit sectors, which is a power of two. */
static u64 control_place(const struct dm_remap_metadata *md, u32 unit, u64 start, u64 length,
			 unsigned int i)
{
	u64 units = div_u64(md->table.sectors, unit), mask = unit - 1;

	if (i == CONTROL_SPREAD)
		return (start + length + mask) & ~mask;
	if (i > CONTROL_SPREAD)
		return (start & ~mask) - unit;
	return div_u64(units * (2 * i + 1), 2 * CONTROL_SPREAD) * unit;
}

/*
 * @unit sectors outside the range whose data main has, and not the spare, nor this batch on its
 * way there. Pending ones may do, too: if they can be read by now.
 */
static bool control_usable(struct dm_remap_mover *m, u64 place, u32 unit, u64 start, u64 length)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_extent e;

	if (place >= md->table.sectors || unit > md->table.sectors - place ||
	    (place + unit > start && place < start + length) ||
	    dm_remap_mover_overlaps(m, place, unit))
		return false;
	dm_remap_look(md, place, unit, &e);
	return e.length >= unit && e.kind != DM_REMAP_MAPPED && !e.flags;
}

static bool control_read(struct dm_remap_mover *m, u64 start, u64 length)
{
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_MAIN, .direction = DM_REMAP_READ, .data = m->control,
	};
	u32 g = dm_remap_granularity(m->md);
	unsigned int i;
	int ret = 0;

	for (i = 0; i < CONTROL_PLACES && (!ret || dm_remap_may_be_media(ret)); i++) {
		t.sector = control_place(m->md, g, start, length, i);
		if (!control_usable(m, t.sector, g, start, length))
			continue;
		ret = transfer_once(m, &t, 0, g);
		if (!ret)
			return true;
	}
	return false;
}

/* Does main still hold what was to be rewritten at @place? */
static bool still_there(struct dm_remap_mover *m, u64 place, u32 unit)
{
	u8 *again = m->control + DM_REMAP_BLOCK_SIZE;

	return !dm_remap_dev_read(m->md, DM_REMAP_MAIN, place, unit, again) &&
	       !memcmp(again, m->control, dm_remap_bytes(unit));
}

/*
 * A good block of the media that was to be rewritten, and did not take it. If it is lost by that,
 * what it held is in our hands, and goes to the spare whatever else is found.
 */
static void control_save(struct dm_remap_mover *m, u64 place, u32 unit)
{
	struct dm_remap_metadata *md = m->md;
	int ret;

	if (still_there(m, place, unit))
		return;
	ret = dm_remap_put(m, DM_REMAP_REASON_WRITE_ERROR, place, unit, m->control);
	ret = dm_remap_mover_commit(m) ?: ret;
	if (ret)
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "sector %llu: lost when main was tested, and not saved (%d)",
			     (unsigned long long)place, ret);
}

/* Reads them and writes the same bytes again. 0, -ENODATA: they cannot be read; others. */
static int control_rewrite(struct dm_remap_mover *m, u64 place, u32 unit)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_MAIN, .direction = DM_REMAP_WRITE, .sector = place,
		.data = m->control,
	};
	int ret = dm_remap_hold(md, place, unit);

	if (ret)
		return ret;
	if (dm_remap_dev_read(md, DM_REMAP_MAIN, place, unit, m->control)) {
		ret = -ENODATA;
	} else {
		ret = transfer_once(m, &t, 0, unit);
		if (ret && dm_remap_may_be_media(ret))
			ret = transfer_once(m, &t, 0, unit);
		if (ret)
			control_save(m, place, unit);
	}
	dm_remap_release(md, place, unit);
	return ret;
}

/*
 * How many good blocks may be put at risk: only so many as the spare has room for. None
 * where nothing is to be moved, so that nothing hangs on the answer.
 */
static unsigned int controls_allowed(struct dm_remap_mover *m)
{
	u32 blocks = media_unit(m->md) / dm_remap_granularity(m->md);

	if (READ_ONCE(m->md->policy.no_auto_remap))
		return 0;
	return min_t(u64, DM_REMAP_CONTROLS, div_u64(dm_remap_puts_allowed(m), blocks));
}

/*
 * Who else writes cannot be asked for it, so a good block is rewritten with what it
 * holds. It is held and drained meanwhile: no write of others gets lost under it.
 */
static bool control_write(struct dm_remap_mover *m, u64 start, u64 length, unsigned int allowed)
{
	u32 unit = media_unit(m->md);
	unsigned int i;

	for (i = 0; allowed && i < CONTROL_PLACES; i++) {
		u64 place = control_place(m->md, unit, start, length, i);
		int ret;

		if (!control_usable(m, place, unit, start, length))
			continue;
		ret = control_rewrite(m, place, unit);
		if (!ret)
			return true;
		if (!dm_remap_may_be_media(ret))
			return false;
		allowed -= ret != -ENODATA;
	}
	return false;
}

bool dm_remap_proved_media(struct dm_remap_mover *m, enum dm_remap_direction direction, u64 start,
			   u64 length)
{
	unsigned int allowed;
	bool answer;

	if (m->answered[direction])
		return true;
	if (direction == DM_REMAP_READ) {
		answer = control_read(m, start, length);
	} else {
		allowed = controls_allowed(m);
		/* Not asked: that says nothing about main. */
		if (!allowed)
			return false;
		answer = control_write(m, start, length, allowed);
	}
	if (!answer)
		breaker_failure(m->md, direction);
	return answer;
}

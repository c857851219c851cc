// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does main do anything at all? It is asked in other places than those that failed. The caller acts
 * on the answer.
 */
#include "dm-remap-mover.h"

/* Places to ask main at: all over the disk, and at last beside the range. */
#define SPREAD 8
#define PLACES (SPREAD + 2)

/* A multiple of the probe's unit, which is a power of two. */
static u64 place_of(const struct dm_remap_metadata *md, const struct dm_remap_probe *p,
		    unsigned int i)
{
	u64 units = div_u64(md->table.sectors, p->unit), mask = p->unit - 1;

	if (i == SPREAD)
		return (p->start + p->length + mask) & ~mask;
	if (i > SPREAD)
		return (p->start & ~mask) - p->unit;
	return div_u64(units * (2 * i + 1), 2 * SPREAD) * p->unit;
}

/*
 * One unit outside the range whose data main has, and not the spare, nor this batch on its
 * way there. Pending ones may do, too: if they can be read by now.
 */
static bool usable(struct dm_remap_mover *m, const struct dm_remap_probe *p, u64 place)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_extent e;

	if (place >= md->table.sectors || p->unit > md->table.sectors - place ||
	    (place + p->unit > p->start && place < p->start + p->length) ||
	    dm_remap_mover_overlaps(m, place, p->unit))
		return false;
	dm_remap_look(md, place, p->unit, &e);
	return e.length >= p->unit && e.kind != DM_REMAP_MAPPED && !e.flags;
}

/* All over the disk, until one place can be read. */
static enum dm_remap_found probe_read(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	p->unit = dm_remap_granularity(m->md);
	for (; p->place < PLACES; p->place++) {
		u64 place = place_of(m->md, p, p->place);
		int ret;

		if (!usable(m, p, place))
			continue;
		ret = dm_remap_dev_read(m->md, DM_REMAP_MAIN, place, p->unit, m->control);
		if (!ret)
			return DM_REMAP_ANSWERS;
		if (!dm_remap_may_be_media(ret))
			break;
	}
	return DM_REMAP_SILENT;
}

/* Does main still hold what was to be rewritten at @place? */
static bool still_there(struct dm_remap_mover *m, u64 place, u32 unit)
{
	u8 *again = m->control + DM_REMAP_BLOCK_SIZE;

	return !dm_remap_dev_read(m->md, DM_REMAP_MAIN, place, unit, again) &&
	       !memcmp(again, m->control, dm_remap_bytes(unit));
}

static int rewrite_once(struct dm_remap_mover *m, u64 place, u32 unit)
{
	return dm_remap_dev_write(m->md, DM_REMAP_MAIN, place, unit, m->control, 0);
}

/*
 * Reads a block of the media, which is held, and writes the same bytes again. 0; -ENODATA if it
 * cannot be read, and was not written; or the error of the second of two writes.
 */
static int rewrite(struct dm_remap_mover *m, u64 place, u32 unit)
{
	int ret;

	if (dm_remap_dev_read(m->md, DM_REMAP_MAIN, place, unit, m->control))
		return -ENODATA;
	ret = rewrite_once(m, place, unit);
	if (ret && dm_remap_may_be_media(ret))
		ret = rewrite_once(m, place, unit);
	/* The caller tells a block that cannot be read from one that cannot be written. */
	return ret == -ENODATA ? -EIO : ret;
}

/*
 * How many good blocks may be put at risk: only so many as the spare has room for. None
 * where nothing is to be moved, so that nothing hangs on the answer.
 */
static unsigned int risks_allowed(struct dm_remap_mover *m)
{
	u32 blocks = dm_remap_media_unit(m->md) / dm_remap_granularity(m->md);

	if (READ_ONCE(m->md->policy.no_auto_remap))
		return 0;
	return min_t(u64, DM_REMAP_CONTROLS, div_u64(dm_remap_puts_allowed(m), blocks));
}

/*
 * Nobody else can be asked to write, so a good block is rewritten with the bytes that it holds. It
 * is held and drained meanwhile: no write of others gets lost under it.
 */
static enum dm_remap_found probe_write(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	struct dm_remap_metadata *md = m->md;

	if (!p->place)
		p->risks = risks_allowed(m);
	p->unit = dm_remap_media_unit(md);
	/* Not asked at all: that says nothing about main. */
	if (!p->place && !p->risks)
		return DM_REMAP_NOT_ASKED;
	while (p->risks && p->place < PLACES) {
		u64 place = place_of(md, p, p->place++);
		int ret;

		if (!usable(m, p, place))
			continue;
		if (dm_remap_hold(md, place, p->unit))
			return DM_REMAP_NOT_ASKED;
		ret = rewrite(m, place, p->unit);
		p->risks -= ret && ret != -ENODATA;
		if (ret && ret != -ENODATA && !still_there(m, place, p->unit)) {
			if (!dm_remap_may_be_media(ret))
				p->risks = 0;
			p->lost = place;
			return DM_REMAP_BLOCK_LOST;
		}
		dm_remap_release(md, place, p->unit);
		if (!ret)
			return DM_REMAP_ANSWERS;
		if (!dm_remap_may_be_media(ret))
			break;
	}
	return DM_REMAP_SILENT;
}

enum dm_remap_found dm_remap_probe(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	return p->direction == DM_REMAP_READ ? probe_read(m, p) : probe_write(m, p);
}

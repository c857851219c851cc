// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does main do anything at all? It is asked in other places than those that failed. The caller acts
 * on the answer.
 */
#include "dm-remap-evidence.h"
#include "dm-remap-mover.h"

/* Places to ask main at: all over the disk, and at last beside the range. */
#define SPREAD 8
#define PLACES (SPREAD + 2)

/* Milliseconds for the writes on their way to a place. */
#define DRAIN_MS 100

/* Blocks at the end that may be taken, before it is given up to find one that is not. */
#define LAST_STEPS 262144

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
 * way there. A pending one may be read; the copy for a write would end its record.
 */
static bool usable(struct dm_remap_mover *m, const struct dm_remap_probe *p, u64 place)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_extent e;

	if (place >= md->table.sectors || p->unit > md->table.sectors - place ||
	    (place + p->unit > p->start && place < p->start + p->length) ||
	    dm_remap_mover_overlaps(m, place, p->unit) || dm_remap_main_reaches(md, place, p->unit))
		return false;
	dm_remap_look(md, place, p->unit, &e);
	if (e.length < p->unit || e.flags)
		return false;
	return e.kind == DM_REMAP_NONE ||
	       (e.kind == DM_REMAP_PENDING && p->direction == DM_REMAP_READ);
}

/* A suspend without a flush ends it, too. */
static bool in_time(const struct dm_remap_metadata *md, const struct dm_remap_probe *p)
{
	return READ_ONCE(md->give_up) != DM_REMAP_GIVE_UP_ALL &&
	       md->ops->uptime(md->ctx) <= p->until;
}

static enum dm_remap_found read_at(struct dm_remap_mover *m, struct dm_remap_probe *p, u64 place)
{
	u64 since = dm_remap_main_failures(m->md, DM_REMAP_READ);

	p->error = dm_remap_dev_read(m->md, DM_REMAP_MAIN, place, p->unit, m->control);
	if (p->error)
		return DM_REMAP_SILENT;
	dm_remap_main_worked_at(m->md, DM_REMAP_READ, since, place);
	return DM_REMAP_ANSWERS;
}

/* All over the disk, until one place can be read. */
static enum dm_remap_found probe_read(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	unsigned int i;

	for (i = 0; i < PLACES && in_time(m->md, p); i++) {
		u64 place = place_of(m->md, p, i);

		if (!usable(m, p, place))
			continue;
		if (read_at(m, p, place) == DM_REMAP_ANSWERS)
			return DM_REMAP_ANSWERS;
		if (!dm_remap_may_be_media(p->error))
			break;
	}
	return DM_REMAP_SILENT;
}

/* ---- a write, with a copy ---- */

/* Commits what concerns the copy alone. If that fails it is nothing to the batch. */
static int copy_commit(struct dm_remap_mover *m)
{
	int error = m->error, ret;

	m->copying = true;
	ret = dm_remap_mover_commit(m);
	m->copying = false;
	m->error = error;
	return ret;
}

/*
 * The held block, which is in m->control, gets a copy on the spare, and a durable record of it.
 * A commit that fails would leave this good block in doubt. So one without it comes before.
 */
static int copy_make(struct dm_remap_mover *m, u64 place, u32 unit)
{
	u64 write = m->write;
	int ret;

	m->write = 0;	/* it belongs to none */
	ret = dm_remap_put(m, DM_REMAP_REASON_RESCUED, place, unit, m->control);
	ret = ret ?: dm_remap_soft_commit(m->md);
	if (ret)
		dm_remap_mover_drop(m);
	ret = ret ?: copy_commit(m);
	m->write = write;
	return ret;
}

/* Main has the block: its copy is not needed any more. */
static int copy_drop_once(struct dm_remap_mover *m, u64 place, u32 unit)
{
	u64 write = m->write;
	struct dm_remap_extent e;
	int ret;
	u32 i;

	m->write = 0;
	for (i = 0; i < unit; i += e.length) {
		dm_remap_look(m->md, place + i, unit - i, &e);
		/* Of one media block's pieces there are few: this commits nothing yet. */
		if (e.kind == DM_REMAP_MAPPED && !(e.flags & DM_REMAP_F_DOUBT))
			dm_remap_clear_add(m, place + i, e.length, e.spare);
	}
	ret = copy_commit(m);
	m->write = write;
	return ret;
}

static void copy_drop(struct dm_remap_mover *m, u64 place, u32 unit)
{
	/* As for the release of a range: a failed allocation is tried again until it is had. */
	while (copy_drop_once(m, place, unit) == -ENOMEM)
		cond_resched();
}

/* Does main hold what m->control has? */
static bool main_holds(struct dm_remap_mover *m, u64 place, u32 unit)
{
	u8 *again = m->control + DM_REMAP_BLOCK_SIZE;

	return !dm_remap_dev_read(m->md, DM_REMAP_MAIN, place, unit, again) &&
	       !memcmp(again, m->control, dm_remap_bytes(unit));
}

/*
 * Writes a block, which has a copy, with the bytes that it holds. The copy stays where main has
 * lost them. Returns what main said.
 */
static int rewrite(struct dm_remap_mover *m, u64 place, u32 unit)
{
	struct dm_remap_metadata *md = m->md;
	u64 since = dm_remap_main_failures(md, DM_REMAP_WRITE);
	int ret = dm_remap_main_rewrite(md, place, unit, m->control);

	if (!ret)
		dm_remap_main_worked_at(md, DM_REMAP_WRITE, since, place);
	if (main_holds(m, place, unit)) {
		copy_drop(m, place, unit);
		return ret;
	}
	dm_remap_count(md, DM_REMAP_RESCUED, 1);
	dm_remap_note(md, DM_REMAP_NOTE_RESCUED, place, unit, 0);
	dm_remap_log(md, DM_REMAP_LOG_WARN,
		     "sectors %llu + %u: main was tested there and lost them; their copy is on the spare",
		     (unsigned long long)place, unit);
	return ret;
}

/* The block at @place is held, and nothing is on its way there. */
static enum dm_remap_found write_held(struct dm_remap_mover *m, struct dm_remap_probe *p,
				      u64 place)
{
	int ret = dm_remap_dev_read(m->md, DM_REMAP_MAIN, place, p->unit, m->control);

	if (ret) {
		p->risks = dm_remap_may_be_media(ret) ? p->risks : 0;
		return DM_REMAP_SILENT;
	}
	ret = copy_make(m, place, p->unit);
	if (ret) {
		p->risks = 0;
		p->why = ret;
		return DM_REMAP_NOT_ASKED;
	}
	p->error = rewrite(m, place, p->unit);
	if (!p->error)
		return DM_REMAP_ANSWERS;
	p->risks = dm_remap_may_be_media(p->error) && !m->error ? p->risks - 1 : 0;
	return DM_REMAP_SILENT;
}

static enum dm_remap_found write_at(struct dm_remap_mover *m, struct dm_remap_probe *p, u64 place)
{
	enum dm_remap_found found = DM_REMAP_NOT_ASKED;
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_job claim;

	if (!dm_remap_job_claim_now(&md->schedule, &claim, place, p->unit))
		return DM_REMAP_NOT_ASKED;
	if (usable(m, p, place) && !dm_remap_hold(md, place, p->unit, DRAIN_MS)) {
		found = write_held(m, p, place);
		dm_remap_release(md, place, p->unit);
	}
	dm_remap_job_done(&md->schedule, &claim);
	return found;
}

/*
 * Nobody has written since main failed. So a good block is written with the bytes that it holds,
 * which are on the spare before, with a durable record.
 */
static enum dm_remap_found probe_write(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	enum dm_remap_found found = DM_REMAP_NOT_ASKED;
	unsigned int i;

	for (i = 0; i < PLACES && p->risks && found != DM_REMAP_ANSWERS && in_time(m->md, p); i++) {
		enum dm_remap_found here = write_at(m, p, place_of(m->md, p, i));

		found = here == DM_REMAP_NOT_ASKED ? found : here;
	}
	return found;
}

/*
 * False: it is a write, and nothing could be moved in any case. So main is not asked. The commit of
 * a copy has nothing else in it.
 */
static bool begin(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	u32 blocks = dm_remap_media_unit(m->md) / dm_remap_granularity(m->md);

	p->unit = dm_remap_granularity(m->md);
	if (p->direction == DM_REMAP_READ)
		return true;
	p->unit = dm_remap_media_unit(m->md);
	p->risks = DM_REMAP_CONTROLS;
	/* A commit that fails has told of itself, and so has main if nothing was proved. */
	if (READ_ONCE(m->md->policy.no_auto_remap) || dm_remap_mover_commit(m))
		return false;
	return dm_remap_puts_allowed(m) > blocks;
}

enum dm_remap_found dm_remap_probe(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	if (!begin(m, p))
		return DM_REMAP_NOT_ASKED;
	return p->direction == DM_REMAP_READ ? probe_read(m, p) : probe_write(m, p);
}

/* Is a block remapped, held, pending, or on its way to the spare? */
static bool taken(struct dm_remap_mover *m, u64 place, u32 block)
{
	struct dm_remap_extent e;

	dm_remap_look(m->md, place, block, &e);
	return e.kind != DM_REMAP_NONE || e.flags || dm_remap_mover_overlaps(m, place, block);
}

/* The last block up to @place that is not taken; U64_MAX: there is none. */
static u64 last_free(struct dm_remap_mover *m, u64 place)
{
	u32 g = dm_remap_granularity(m->md);
	u64 steps;

	for (steps = 0; taken(m, place, g); place -= g) {
		if (!place || steps++ == LAST_STEPS)
			return U64_MAX;
		cond_resched();
	}
	return place;
}

enum dm_remap_found dm_remap_probe_last(struct dm_remap_mover *m, struct dm_remap_probe *p)
{
	u32 g = dm_remap_granularity(m->md), tries;
	u64 place = m->md->table.sectors - g;
	enum dm_remap_found found = DM_REMAP_NOT_ASKED;

	if (!begin(m, p))
		return DM_REMAP_NOT_ASKED;
	for (tries = 0; tries < PLACES && !p->why && found == DM_REMAP_NOT_ASKED; tries++) {
		place = last_free(m, place);
		if (place == U64_MAX)
			break;
		place &= ~((u64)p->unit - 1);
		if (!usable(m, p, place) || !in_time(m->md, p))
			break;
		found = p->direction == DM_REMAP_READ ? read_at(m, p, place) :
							write_at(m, p, place);
		/* Somebody may be at work there. The next must be behind the range, too. */
		if (place < p->start + p->length + g)
			break;
		place -= g;
	}
	return found;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which blocks are bad? A block is, if it failed, main then did something else in the same
 * direction, and the block failed again. The status alone proves nothing: NVMe calls
 * write-protected a medium error, SCSI reports a lost connection as a plain I/O error.
 *
 * No device tells where in a request it failed. A command that fails takes a disk up to half a
 * minute, and one that succeeds milliseconds. So a request is searched piece by piece from its
 * start; docs/relocation.md has the steps.
 */
#include "dm-remap-evidence.h"
#include "dm-remap-mover.h"

/* Pieces that fail with no success between, before main is asked elsewhere. */
#define SUSPECTS_BEFORE_PROBE 8

/* One transfer on its way. Its pieces are counted in logical blocks. */
struct walk {
	struct dm_remap_mover *m;
	struct dm_remap_transfer *t;
	u32 total;
	u64 began;		/* ops->uptime() */
	unsigned int suspects;	/* pieces that failed, and were not asked again since main worked */
	u64 failure;		/* of main: the latest of those */
	int error;		/* of the latest command */
	bool again;		/* it is one piece, which failed, and main has worked since */
};

static bool of_main(const struct walk *w)
{
	return w->t->dev == DM_REMAP_MAIN;
}

/* ---- main, as a whole ---- */

/* Does main do anything elsewhere? It is asked, and the breaker hears of the answer. */
static bool ask_main(const struct walk *w)
{
	struct dm_remap_metadata *md = w->m->md;
	struct dm_remap_probe p = {
		.direction = w->t->direction, .start = w->t->sector, .length = w->t->sectors,
		.until = w->began + DM_REMAP_REDO_BUDGET,
	};
	enum dm_remap_found found = dm_remap_probe(w->m, &p);

	if (found == DM_REMAP_ANSWERS)
		dm_remap_breaker_success(md, p.direction);
	else if (found == DM_REMAP_SILENT)
		dm_remap_breaker_failure(md, p.direction);
	else if (p.why)
		dm_remap_refused(md, p.start, p.length, p.why);
	return found == DM_REMAP_ANSWERS;
}

/* Main has failed. Is that all there is to it, because the breaker is open? */
static bool breaker_holds(const struct walk *w)
{
	if (!of_main(w))
		return false;
	switch (dm_remap_breaker(w->m->md, w->t->direction)) {
	case DM_REMAP_BREAKER_CLOSED:
		return false;
	case DM_REMAP_BREAKER_OPEN:
		return true;
	default:
		return !ask_main(w);
	}
}

/* ---- one command ---- */

static bool is_given_up(const struct walk *w)
{
	switch (READ_ONCE(w->m->md->give_up)) {
	case DM_REMAP_GIVE_UP_ALL:
		return true;
	case DM_REMAP_GIVE_UP_READS:
		return w->t->read_from_above && (w->error || w->t->tried->failure);
	default:
		return false;
	}
}

/* May the transfer go on? A block that fails can take a drive many seconds. */
static int go_on(const struct walk *w)
{
	const struct dm_remap_metadata *md = w->m->md;

	if (w->t->stoppable)
		return md->ops->stop(md->ctx);
	if (is_given_up(w))
		return DM_REMAP_GIVEN_UP;
	return md->ops->uptime(md->ctx) > w->began + DM_REMAP_REDO_BUDGET ? -ETIMEDOUT : 0;
}

/* Is there time to find out more about what failed? */
static bool in_time(const struct walk *w)
{
	const struct dm_remap_metadata *md = w->m->md;

	return w->t->stoppable || md->ops->uptime(md->ctx) <= w->began + DM_REMAP_REDO_HURRY;
}

u32 dm_remap_media_unit(const struct dm_remap_metadata *md)
{
	return max_t(u32, md->main_block, dm_remap_granularity(md));
}

/*
 * Blocks of the piece at block @at: those of one block of the media, which fail together. All
 * that is left, if there is no time to look closer.
 */
static u32 piece_at(const struct walk *w, u32 at)
{
	u32 g = dm_remap_granularity(w->m->md);
	u32 unit = of_main(w) ? dm_remap_media_unit(w->m->md) : g;
	u32 offset = ((u32)w->t->sector + at * g) & (unit - 1);

	if (!in_time(w))
		return w->total - at;
	return min_t(u32, (unit - offset) / g, w->total - at);
}

static int send(struct dm_remap_metadata *md, const struct dm_remap_transfer *t, u64 sector,
		u32 sectors, u8 *data)
{
	if (t->direction == DM_REMAP_WRITE)
		return dm_remap_dev_write(md, t->dev, sector, sectors, data, t->flags);
	return dm_remap_dev_read(md, t->dev, sector, sectors, data);
}

/* To writes. It is not main that takes this time. */
static void give_way(struct walk *w)
{
	const struct dm_remap_metadata *md = w->m->md;
	u64 began = md->ops->uptime(md->ctx), waited;

	if (!md->ops->give_way)
		return;
	md->ops->give_way(md->ctx);
	waited = md->ops->uptime(md->ctx) - began;
	w->began += waited;
	w->t->waited += waited;
}

/* One try at @n blocks from block @at on. */
static int once(struct walk *w, u32 at, u32 n)
{
	struct dm_remap_transfer *t = w->t;
	struct dm_remap_metadata *md = w->m->md;
	bool of_write = of_main(w) && t->of_write;
	u32 g = dm_remap_granularity(md);
	u64 since;
	int ret;

	if (t->gives_way)
		give_way(w);
	since = dm_remap_main_failures(md, t->direction);
	if (of_write)
		dm_remap_write_on_main(&md->schedule);
	ret = go_on(w);
	ret = ret ?: send(md, t, t->sector + at * g, n * g, t->data + dm_remap_bytes(at * g));
	if (of_write)
		dm_remap_write_off_main(&md->schedule, md->ops->uptime(md->ctx));
	if (!of_main(w))
		return ret;
	w->error = ret;
	if (!ret) {
		dm_remap_main_worked_at(md, t->direction, since, t->sector + at * g);
		dm_remap_breaker_success(md, t->direction);
	} else if (ret == DM_REMAP_TARGET_ERROR && n <= piece_at(w, at)) {
		w->failure = dm_remap_main_target_error(md, t->direction, t->sector + at * g);
	} else if (dm_remap_may_be_media(ret)) {
		w->failure = dm_remap_main_failed(md, t->direction);
	}
	return ret;
}

/*
 * An error that is not the media's ends it. If main takes too long, again and again,
 * the breaker is for that, too.
 */
static int not_the_media(const struct walk *w, int error)
{
	const struct dm_remap_transfer *t = w->t;

	if (error == -ETIMEDOUT && of_main(w))
		dm_remap_breaker_failure(w->m->md, t->direction);
	if (!t->stoppable && error != DM_REMAP_GIVEN_UP)
		dm_remap_log(w->m->md, DM_REMAP_LOG_WARN,
			     "%s of %s at sector %llu + %u fails: %s (%d)",
			     t->direction == DM_REMAP_WRITE ? "write" : "read",
			     of_main(w) ? "main" : "the spare", (unsigned long long)t->sector,
			     t->sectors,
			     error == -ETIMEDOUT ? "it took too long" : "not the media's error",
			     error);
	return error;
}

/* ---- suspects ---- */

static void set_fate(const struct walk *w, u32 at, u32 n, enum dm_remap_block_fate fate)
{
	memset(w->t->fate + at, fate, n);
}

static void suspect(struct walk *w, u32 at, u32 n)
{
	set_fate(w, at, n, DM_REMAP_SUSPECT);
	w->suspects++;
}

/* A piece has failed twice. May it count as bad, after this @error of main? */
static int convict(struct walk *w, u32 at, u32 n, int error, u64 failure)
{
	struct dm_remap_transfer *t = w->t;
	u32 g = dm_remap_granularity(w->m->md);
	struct dm_remap_probe p = {
		.direction = t->direction, .start = t->sector, .length = t->sectors,
		.until = w->began + DM_REMAP_REDO_BUDGET,
	};

	set_fate(w, at, n, DM_REMAP_BAD);
	if (!of_main(w) || t->pending || error != DM_REMAP_TARGET_ERROR)
		return 0;
	return dm_remap_target_error(w->m, &p, t->sector + at * g, n * g, failure);
}

/*
 * A piece failed, and main has worked since. It is tried once more, unless this was its second
 * failure. A read is tried as often as the owner wants; if it comes back late, the block is bad all
 * the same. @failure: of main, no earlier than the piece's first.
 */
static int ask_again(struct walk *w, u32 at, u32 n, u64 failure)
{
	unsigned int tries = max_t(unsigned int, w->t->retries, !w->again), i;
	int ret = w->error;

	for (i = 0; i < tries && (!i || in_time(w)); i++) {
		ret = once(w, at, n);
		if (!ret)
			set_fate(w, at, n, i || w->again ? DM_REMAP_LATE : DM_REMAP_GOOD);
		if (!ret || !dm_remap_may_be_media(ret))
			return ret;
	}
	return convict(w, at, n, ret, failure);
}

static int ask_suspects_again(struct walk *w)
{
	u64 failure = w->failure;
	u32 i, n;
	int ret = 0;

	for (i = 0; !ret && i < w->total; i += n) {
		n = dm_remap_fate_run(w->t->fate, i, w->total);
		if (w->t->fate[i] != DM_REMAP_SUSPECT)
			continue;
		n = min_t(u32, n, piece_at(w, i));
		ret = ask_again(w, i, n, failure);
	}
	w->suspects = 0;
	/* Now it is known why the request failed. */
	w->t->tried->failure = 0;
	return ret;
}

/* ---- evidence ---- */

/* A piece that was good, and is a whole block of the media; w->total: there is none. */
static u32 good_piece(const struct walk *w)
{
	u32 unit = dm_remap_media_unit(w->m->md), n = unit / dm_remap_granularity(w->m->md);
	u32 i = (-(u32)w->t->sector & (unit - 1)) / dm_remap_granularity(w->m->md);

	for (; i + n <= w->total; i += n)
		if (w->t->fate[i] == DM_REMAP_GOOD && dm_remap_fate_run(w->t->fate, i, i + n) == n)
			return i;
	return w->total;
}

/*
 * A good piece of the request itself once more, of the first @done blocks. If main does not take
 * it again, it may have lost it: the piece is a suspect, too.
 */
static int ask_own(struct walk *w, u32 done)
{
	u32 n = dm_remap_media_unit(w->m->md) / dm_remap_granularity(w->m->md), at = good_piece(w);
	int ret;

	if (at + n > done)
		return -EIO;
	ret = once(w, at, n);
	if (dm_remap_may_be_media(ret))
		suspect(w, at, n);
	return ret;
}

/* Is it of use to know more of a write? Not if nothing can be moved, and that is the answer. */
static bool write_is_refused(struct walk *w)
{
	struct dm_remap_mover *m = w->m;
	int why;

	if (w->t->direction == DM_REMAP_READ || READ_ONCE(m->md->policy.no_auto_remap) ||
	    dm_remap_puts_allowed(m))
		return false;
	why = dm_remap_may_move(m->md) ?: -ENOSPC;
	dm_remap_refused(m->md, w->t->sector, w->t->sectors, why);
	return true;
}

/*
 * There are suspects. Has main worked since? The walk itself may show that, or anybody's I/O; else
 * main is asked. 0, or -EIO: it has not, so it is not known that the media is bad.
 */
static int main_works(struct walk *w, u32 done)
{
	struct dm_remap_transfer *t = w->t;
	int ret;

	if (!of_main(w) || dm_remap_main_works(w->m->md, t->direction, w->failure))
		return 0;
	if (t->direction == DM_REMAP_WRITE && dm_remap_main_flushes(w->m->md, w->failure))
		return 0;
	ret = ask_own(w, done);
	if (!ret || !dm_remap_may_be_media(ret))
		return ret;
	if (write_is_refused(w))
		return -EIO;
	/* Entries that are proved do not depend on those that are not. */
	if (!t->proved_later || !w->again || !w->m->now->unproved)
		dm_remap_mover_commit(w->m);
	if (t->proved_later && w->again) {
		t->unproved = w->failure;
		return 0;
	}
	return dm_remap_main_works(w->m->md, t->direction, w->failure) || ask_main(w) ? 0 : -EIO;
}

int dm_remap_prove(struct dm_remap_mover *m)
{
	struct dm_remap_entries *e = m->now;
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_MAIN, .direction = DM_REMAP_WRITE, .sector = e->entry[0].main,
		.sectors = e->entry[0].length,
	};
	struct walk w = { .m = m, .t = &t, .began = m->md->ops->uptime(m->md->ctx) };
	bool works;

	if (dm_remap_main_works(m->md, DM_REMAP_WRITE, e->unproved) ||
	    dm_remap_main_flushes(m->md, e->unproved))
		return 0;
	/* The copy for a control is committed by itself. */
	m->now = e == &m->entries[0] ? &m->entries[1] : &m->entries[0];
	works = ask_main(&w);
	m->now = e;
	return works ? 0 : -EIO;
}

static int settle_suspects(struct walk *w, u32 done)
{
	return main_works(w, done) ?: ask_suspects_again(w);
}

/* Main has just refused a range in which this is. */
static bool passes(const struct walk *w, u32 at, int error)
{
	return of_main(w) && !w->t->pending && error == DM_REMAP_TARGET_ERROR &&
	       dm_remap_target_passes(w->m->md, w->t->direction,
				      w->t->sector + at * dm_remap_granularity(w->m->md));
}

/* ---- the walk ---- */

/*
 * From the start, piece by piece; behind a piece that failed, and one that did not, the rest as a
 * whole. So is all of a request that nobody has tried before.
 */
static int walk(struct walk *w)
{
	struct dm_remap_transfer *t = w->t;
	bool whole = !t->tried->failure;
	u32 at = 0, n;
	int ret = 0;

	for (; !ret && at < w->total; at += n) {
		n = whole ? w->total - at : piece_at(w, at);
		ret = once(w, at, n);
		if (!ret) {
			whole = w->suspects;
			ret = whole ? settle_suspects(w, at) : 0;
			continue;
		}
		if (t->whole || !dm_remap_may_be_media(ret) || passes(w, at, ret))
			return ret;
		if (breaker_holds(w))
			return -EIO;
		ret = 0;
		if (n > piece_at(w, at)) {
			whole = false;
			n = 0;
			continue;
		}
		suspect(w, at, n);
		if (w->suspects % SUSPECTS_BEFORE_PROBE == 0)
			ret = settle_suspects(w, at);
	}
	return ret ?: w->suspects ? settle_suspects(w, at) : 0;
}

int dm_remap_transfer(struct dm_remap_mover *m, struct dm_remap_transfer *t)
{
	struct dm_remap_tried none = {};
	struct walk w = {
		.m = m, .t = t, .total = t->sectors / dm_remap_granularity(m->md),
		.began = m->md->ops->uptime(m->md->ctx),
	};
	int ret;

	memset(t->fate, DM_REMAP_GOOD, w.total);
	t->tried = t->tried ?: &none;
	if (t->tried->failure && breaker_holds(&w))
		return -EIO;
	w.again = t->tried->failure && t->tried->sectors == t->sectors &&
		  piece_at(&w, 0) == w.total &&
		  dm_remap_main_works(m->md, t->direction, t->tried->failure);
	ret = walk(&w);
	return !ret || dm_remap_may_be_media(ret) ? ret : not_the_media(&w, ret);
}

u32 dm_remap_fate_run(const u8 *fate, u32 i, u32 n)
{
	u32 run = 1;

	while (i + run < n && fate[i + run] == fate[i])
		run++;
	return run;
}

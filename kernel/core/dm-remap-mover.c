// SPDX-License-Identifier: GPL-2.0-only
/* Holding ranges, collecting entries, and the way to the spare. */
#include "dm-remap-mover.h"

/* Spare blocks that may fail in a row before the spare is given up for a request. */
#define SPARE_FAILURES 64

/* So many, and it is asked whether the spare works at all. */
#define SPARE_FAILURES_DOUBTFUL 8

/* Entries collected for one commit; room is left to retire what turns out bad. */
#define COMMIT_ENTRIES (DM_REMAP_ENTRIES_PER_BLOCK - SPARE_FAILURES - 2)

struct dm_remap_mover *dm_remap_mover_alloc(struct dm_remap_metadata *md, u32 sectors)
{
	struct dm_remap_mover *m = dm_remap_zalloc(sizeof(*m));

	if (!m)
		return NULL;
	m->md = md;
	m->now = &m->entries[0];
	m->buf = dm_remap_zalloc(dm_remap_bytes(sectors));
	m->check = dm_remap_zalloc(dm_remap_bytes(sectors));
	m->back = dm_remap_zalloc(dm_remap_bytes(sectors));
	m->fate[0] = dm_remap_zalloc(sectors);
	m->fate[1] = dm_remap_zalloc(sectors);
	m->control = dm_remap_zalloc(2 * DM_REMAP_BLOCK_SIZE);
	if (m->buf && m->check && m->back && m->fate[0] && m->fate[1] && m->control)
		return m;
	dm_remap_mover_free(m);
	return NULL;
}

void dm_remap_mover_free(struct dm_remap_mover *m)
{
	if (!m)
		return;
	dm_remap_free(m->buf);
	dm_remap_free(m->check);
	dm_remap_free(m->back);
	dm_remap_free(m->fate[0]);
	dm_remap_free(m->fate[1]);
	dm_remap_free(m->control);
	dm_remap_free(m);
}

void *dm_remap_mover_buffer(struct dm_remap_mover *m)
{
	return m->buf;
}

/* ---- holding a range ---- */

static int range_flags(struct dm_remap_metadata *md, u64 start, u64 length, u16 on, u16 off)
{
	unsigned int reclaim = dm_remap_reclaim_off();
	struct dm_remap_update u;
	int ret;

	dm_remap_update_init(&u);
	mutex_lock(&md->commit_lock);
	ret = dm_remap_update_flags(&md->table, &u, start, length, on, off);
	if (ret)
		dm_remap_update_abandon(&u);
	else
		dm_remap_update_publish(&md->table, &u);
	mutex_unlock(&md->commit_lock);
	dm_remap_reclaim_restore(reclaim);
	return ret;
}

void dm_remap_release(struct dm_remap_metadata *md, u64 start, u64 length)
{
	/* I/O is waiting: a failed allocation is tried again until it is had. */
	while (range_flags(md, start, length, 0, DM_REMAP_F_HELD))
		cond_resched();
}

int dm_remap_hold(struct dm_remap_metadata *md, u64 start, u64 length, unsigned int ms)
{
	int ret = range_flags(md, start, length, DM_REMAP_F_HELD, 0);

	if (ret || md->ops->drain(md->ctx, start, length, ms))
		return ret;
	dm_remap_release(md, start, length);
	return -EBUSY;
}

/* ---- collecting entries ---- */

static void entry_add(struct dm_remap_mover *m, u8 kind, u8 reason, u64 main, u64 spare, u32 length)
{
	struct dm_remap_entries *e = m->now;
	struct dm_remap_record r = {
		.main = main, .spare = spare, .length = length, .kind = kind, .reason = reason,
	};

	e->writes |= m->write;
	if (kind != DM_REMAP_CLEAR) {
		r.first_time = m->md->ops->now(m->md->ctx);
		r.last_time = r.first_time;
	}
	if (e->n && kind == DM_REMAP_MAPPED && dm_remap_record_joins(&e->entry[e->n - 1], &r)) {
		dm_remap_record_join(&e->entry[e->n - 1], &r);
		return;
	}
	e->entry[e->n] = r;
	e->frees[e->n] = 0;
	e->taken[e->n] = kind == DM_REMAP_MAPPED || kind == DM_REMAP_RETIRED;
	e->n++;
}

static int commit_if_many(struct dm_remap_mover *m)
{
	return m->now->n >= COMMIT_ENTRIES ? dm_remap_mover_commit(m) : 0;
}

int dm_remap_clear_add(struct dm_remap_mover *m, u64 main, u32 sectors, u64 frees)
{
	entry_add(m, DM_REMAP_CLEAR, 0, main, 0, sectors);
	m->now->frees[m->now->n - 1] = frees;
	return commit_if_many(m);
}

int dm_remap_unreadable_add(struct dm_remap_mover *m, u64 main, u32 sectors)
{
	entry_add(m, DM_REMAP_PENDING, DM_REMAP_REASON_READ_ERROR, main, 0, sectors);
	return commit_if_many(m);
}

int dm_remap_retire_add(struct dm_remap_mover *m, u64 spare, u32 sectors)
{
	entry_add(m, DM_REMAP_RETIRED, DM_REMAP_REASON_WRITE_ERROR, 0, spare, sectors);
	/* The old record has it until this is committed. */
	m->now->taken[m->now->n - 1] = false;
	return commit_if_many(m);
}

static bool entries_overlap(const struct dm_remap_entries *e, u64 start, u64 length)
{
	unsigned int i;

	for (i = 0; i < e->n; i++) {
		const struct dm_remap_record *r = &e->entry[i];

		if (r->kind != DM_REMAP_RETIRED && r->main < start + length &&
		    start < r->main + r->length)
			return true;
	}
	return false;
}

bool dm_remap_mover_overlaps(const struct dm_remap_mover *m, u64 start, u64 length)
{
	return entries_overlap(&m->entries[0], start, length) ||
	       entries_overlap(&m->entries[1], start, length);
}

static void entries_forget(struct dm_remap_entries *e)
{
	e->n = 0;
	e->writes = 0;
	e->unproved = 0;
}

void dm_remap_mover_drop(struct dm_remap_mover *m)
{
	struct dm_remap_entries *e = m->now;
	unsigned int i;

	for (i = 0; i < e->n; i++)
		if (e->taken[i])
			dm_remap_alloc_release(&m->md->alloc, e->entry[i].spare,
					       e->entry[i].length);
	entries_forget(e);
}

static void mapped_done(struct dm_remap_mover *m, const struct dm_remap_record *r)
{
	bool rescued = r->reason == DM_REMAP_REASON_RESCUED;

	if (m->copying)
		return;
	m->moved.moved += r->length;
	if (r->reason != DM_REMAP_REASON_MANUAL) {
		dm_remap_count(m->md, rescued ? DM_REMAP_RESCUED : DM_REMAP_RELOCATED, 1);
		dm_remap_moves_note(m->md, r->main, r->length);
	}
	dm_remap_note(m->md, rescued ? DM_REMAP_NOTE_RESCUED : DM_REMAP_NOTE_RELOCATED, r->main,
		      r->length, r->spare);
}

static void clear_done(struct dm_remap_mover *m, const struct dm_remap_record *r, u64 frees)
{
	if (frees) {
		m->moved.moved += r->length;
		/* The range was held and drained before: nothing can be on its way to it. */
		if (m->copying)
			dm_remap_alloc_return(&m->md->alloc, frees, r->length);
		else
			dm_remap_alloc_release(&m->md->alloc, frees, r->length);
	} else {
		m->moved.dropped += r->length;
	}
	if (!m->copying)
		dm_remap_note(m->md, DM_REMAP_NOTE_CLEARED, r->main, r->length, frees);
}

static void entries_done(struct dm_remap_mover *m)
{
	struct dm_remap_entries *e = m->now;
	unsigned int i;

	for (i = 0; i < e->n; i++) {
		const struct dm_remap_record *r = &e->entry[i];

		switch (r->kind) {
		case DM_REMAP_MAPPED:
			mapped_done(m, r);
			break;
		case DM_REMAP_PENDING:
			m->moved.pending += r->length;
			dm_remap_note(m->md, DM_REMAP_NOTE_PENDING, r->main, r->length, 0);
			break;
		case DM_REMAP_RETIRED:
			dm_remap_note(m->md, DM_REMAP_NOTE_RETIRED, r->spare, r->length, 0);
			break;
		default:
			clear_done(m, r, e->frees[i]);
		}
	}
}

int dm_remap_mover_commit(struct dm_remap_mover *m)
{
	struct dm_remap_entries *e = m->now;
	u64 writes = e->writes;
	int ret;

	if (!e->n) {
		e->unproved = 0;
		return 0;
	}
	ret = dm_remap_prove(m) ?: dm_remap_commit(m->md, e->entry, e->n);
	if (!ret)
		entries_done(m);
	/* In doubt: what the entries hold is not ours any more. */
	if (!ret || ret == -EUCLEAN)
		entries_forget(e);
	else
		dm_remap_mover_drop(m);
	if (ret) {
		m->error = ret;
		m->failed |= writes;
	}
	return ret;
}

/* ---- to the spare ---- */

/* Data on its way to the spare. */
struct put {
	struct dm_remap_mover *m;
	u8 reason;
	u64 main;			/* where what is left of it belongs */
	u32 left;			/* sectors */
	const u8 *data;
	unsigned int failures;		/* spare blocks that failed since the last that worked */
	u64 failed[SPARE_FAILURES];
};

/*
 * Durable when it returns, by itself, and read back. A flush later would report a block that the
 * spare's cache could not write, but not which, and only once.
 */
static int put_write(struct put *p, u64 spare, u32 sectors)
{
	struct dm_remap_metadata *md = p->m->md;
	int ret = dm_remap_spare_write_checked(md, spare, sectors, p->data, DM_REMAP_FUA,
					       p->m->back);

	if (ret)
		dm_remap_count(md, DM_REMAP_WRITE_ERRORS, 1);
	return ret;
}

/*
 * The next @sectors of the data are at @spare. What failed before is bad media only
 * once another write works: now one has.
 */
static int put_done(struct put *p, u64 spare, u32 sectors)
{
	unsigned int i;

	for (i = 0; i < p->failures; i++)
		entry_add(p->m, DM_REMAP_RETIRED, DM_REMAP_REASON_WRITE_ERROR, 0, p->failed[i],
			  dm_remap_granularity(p->m->md));
	p->failures = 0;
	WRITE_ONCE(p->m->md->refusal, DM_REMAP_REFUSAL_NONE);
	entry_add(p->m, DM_REMAP_MAPPED, p->reason, p->main, spare, sectors);
	p->main += sectors;
	p->data += dm_remap_bytes(sectors);
	p->left -= sectors;
	/* At the end who called may have more to add to the same commit. */
	return p->left ? commit_if_many(p->m) : 0;
}

/*
 * One block of the spare did not take the data. Several in a row may be bad media, or
 * the spare may be gone: a journal block, which goes to both its ends, tells.
 */
static int put_failed(struct put *p, u64 spare, int error)
{
	p->failed[p->failures++] = spare;
	if (!dm_remap_may_be_media(error) || p->failures == SPARE_FAILURES)
		return error;
	if (p->failures == SPARE_FAILURES_DOUBTFUL && dm_remap_soft_commit(p->m->md))
		return error;
	return 0;
}

/* A run of the spare that failed as a whole: block by block, around those that fail. */
static int put_blocks(struct put *p, u64 spare, u32 sectors)
{
	u32 g = dm_remap_granularity(p->m->md), i;
	int ret = 0;

	for (i = 0; !ret && i < sectors; i += g) {
		int error = put_write(p, spare + i, g);

		ret = error ? put_failed(p, spare + i, error) : put_done(p, spare + i, g);
	}
	if (i < sectors)
		dm_remap_alloc_release(&p->m->md->alloc, spare + i, sectors - i);
	return ret;
}

u64 dm_remap_puts_allowed(struct dm_remap_mover *m)
{
	struct dm_remap_metadata *md = m->md;
	u64 blocks = div_u64(dm_remap_alloc_free_sectors(&md->alloc), dm_remap_granularity(md));
	u64 room = dm_remap_room(md);
	unsigned int collected = m->entries[0].n + m->entries[1].n;

	if (dm_remap_may_move(md) || room <= collected)
		return 0;
	return min_t(u64, blocks, room - collected);
}

int dm_remap_put(struct dm_remap_mover *m, u8 reason, u64 main, u32 sectors, const u8 *data)
{
	struct put p = { .m = m, .reason = reason, .main = main, .left = sectors, .data = data };
	struct dm_remap_alloc *alloc = &m->md->alloc;
	int ret = dm_remap_may_move_now(m->md) ?: commit_if_many(m);

	while (!ret && p.left) {
		u64 spare;
		u32 taken;

		ret = dm_remap_alloc_take(alloc, p.left, &spare, &taken);
		if (ret)
			break;
		if (put_write(&p, spare, taken))
			ret = put_blocks(&p, spare, taken);
		else
			ret = put_done(&p, spare, taken);
	}
	/* Whether the media failed or the device is not known: nothing is retired. */
	while (p.failures)
		dm_remap_alloc_release(alloc, p.failed[--p.failures], dm_remap_granularity(m->md));
	return ret;
}

/* Does the spare read at all? A superblock may be bad as well: two tries, far apart. */
static bool spare_reads(struct dm_remap_mover *m)
{
	struct dm_remap_metadata *md = m->md;
	int r;

	for (r = 0; r < DM_REMAP_REPLICAS; r++)
		if (!dm_remap_blocks_read(md, dm_remap_superblock_at(&md->sb.layout, r), 1,
					  m->control))
			return true;
	return false;
}

void dm_remap_place_failed(struct dm_remap_mover *m, u64 main, u64 spare, u32 sectors)
{
	struct dm_remap_metadata *md = m->md;
	int ret;

	if (!spare_reads(m) ||
	    !dm_remap_may_be_media(dm_remap_dev_read(md, DM_REMAP_SPARE, spare, sectors, m->check)))
		return;
	ret = dm_remap_mark(md, main, sectors, true);
	if (!ret)
		dm_remap_note(md, DM_REMAP_NOTE_UNREADABLE, main, sectors, spare);
	else
		dm_remap_log(md, DM_REMAP_LOG_WARN,
			     "sectors %llu + %u: the spare cannot read them, and no record says so (%d)",
			     (unsigned long long)main, sectors, ret);
}

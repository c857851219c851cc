// SPDX-License-Identifier: GPL-2.0-only
#include "dm-remap-relocate.h"
#include "dm-remap-internal.h"

/* Sectors that are held, read and written at once; a multiple of any granularity. */
#define CHUNK_SECTORS 2048u

/* Entries collected for one commit; room is left for ranges that turn out bad. */
#define CHUNK_ENTRIES (DM_REMAP_ENTRIES_PER_BLOCK - 16)

/* Spare ranges that may fail in a row before it is the spare that fails, not its media. */
#define SPARE_FAILURES 8

/* A step of a move: what is collected for the next commit. */
struct step {
	struct dm_remap_metadata *md;
	struct dm_remap_moved *moved;
	unsigned int retries;
	u8 reason;
	u8 *buf;			/* data of a chunk; only for moves between the devices */
	u8 *check;			/* as much again, to read back into */
	unsigned int n;
	struct dm_remap_record entry[DM_REMAP_ENTRIES_PER_BLOCK];
	/* Unremap: the spare range that entry i sets free. */
	u64 freed[DM_REMAP_ENTRIES_PER_BLOCK];
};

static void step_free(struct step *s)
{
	if (!s)
		return;
	dm_remap_free(s->buf);
	dm_remap_free(s->check);
	dm_remap_free(s);
}

static size_t bytes(u64 sectors)
{
	return sectors * DM_REMAP_SECTOR_SIZE;
}

/* @length: sectors that will be copied in all; 0: none, and no buffers are needed. */
static struct step *step_alloc(struct dm_remap_metadata *md, u64 length,
			       struct dm_remap_moved *moved)
{
	size_t size = bytes(min_t(u64, length, CHUNK_SECTORS));
	struct step *s = dm_remap_zalloc(sizeof(*s));

	memset(moved, 0, sizeof(*moved));
	if (!s)
		return NULL;
	s->md = md;
	s->moved = moved;
	if (!size)
		return s;
	s->buf = dm_remap_zalloc(size);
	s->check = dm_remap_zalloc(size);
	if (s->buf && s->check)
		return s;
	step_free(s);
	return NULL;
}

static u32 granularity(const struct step *s)
{
	return s->md->sb.layout.granularity;
}

/* ---- holding a range ---- */

static int range_flags(struct dm_remap_metadata *md, u64 start, u64 length, u16 on, u16 off)
{
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
	return ret;
}

static void range_release(struct dm_remap_metadata *md, u64 start, u64 length)
{
	/* I/O is waiting: a failed allocation is tried again until it is had. */
	while (range_flags(md, start, length, 0, DM_REMAP_F_HELD))
		cond_resched();
	md->ops->released(md->ctx);
}

/* From here on nothing is in flight to the range, and nothing new gets there. */
static int range_hold(struct dm_remap_metadata *md, u64 start, u64 length)
{
	int ret = range_flags(md, start, length, DM_REMAP_F_HELD, 0);

	if (ret)
		return ret;
	ret = md->ops->drain(md->ctx);
	if (ret)
		range_release(md, start, length);
	return ret;
}

static void look(struct dm_remap_metadata *md, u64 sector, u64 sectors, struct dm_remap_extent *e)
{
	rcu_read_lock_sched();
	dm_remap_table_lookup(&md->table, sector, sectors, e);
	rcu_read_unlock_sched();
}

/* Where no record can be made, no data is written in its name. */
static int may_move(const struct dm_remap_metadata *md)
{
	return READ_ONCE(md->mode) >= DM_REMAP_MODE_RO ? -EROFS : 0;
}

/* ---- collecting entries ---- */

static void entry_add(struct step *s, u8 kind, u8 reason, u64 main, u64 spare, u32 length)
{
	struct dm_remap_record r = {
		.main = main, .spare = spare, .length = length, .kind = kind, .reason = reason,
	};

	if (kind != DM_REMAP_CLEAR) {
		r.first_time = s->md->ops->now(s->md->ctx);
		r.last_time = r.first_time;
	}
	if (s->n && dm_remap_record_joins(&s->entry[s->n - 1], &r) &&
	    (kind == DM_REMAP_MAPPED || kind == DM_REMAP_PENDING))
		dm_remap_record_join(&s->entry[s->n - 1], &r);
	else
		s->entry[s->n++] = r;
}

/* The spare ranges that the entries took are free again. */
static void entries_undo(struct step *s)
{
	unsigned int i;

	for (i = 0; i < s->n; i++)
		if (s->entry[i].kind == DM_REMAP_MAPPED || s->entry[i].kind == DM_REMAP_RETIRED)
			dm_remap_alloc_release(&s->md->alloc, s->entry[i].spare,
					       s->entry[i].length);
	s->n = 0;
}

static void entries_done(struct step *s)
{
	unsigned int i;

	for (i = 0; i < s->n; i++) {
		const struct dm_remap_record *r = &s->entry[i];

		if (r->kind == DM_REMAP_MAPPED)
			s->moved->moved += r->length;
		else if (r->kind == DM_REMAP_PENDING)
			s->moved->pending += r->length;
		else if (r->kind == DM_REMAP_CLEAR && s->freed[i])
			s->moved->moved += r->length;
		else if (r->kind == DM_REMAP_CLEAR)
			s->moved->dropped += r->length;
		/* The range was held and drained before: nothing can be on its way to it. */
		if (r->kind == DM_REMAP_CLEAR && s->freed[i])
			dm_remap_alloc_release(&s->md->alloc, s->freed[i], r->length);
	}
	s->n = 0;
}

static int entries_commit(struct step *s)
{
	int ret;

	if (!s->n)
		return 0;
	ret = dm_remap_commit(s->md, s->entry, s->n);
	if (!ret)
		entries_done(s);
	else if (ret == -EUCLEAN)
		s->n = 0;	/* in doubt: what the entries hold is not ours any more */
	else
		entries_undo(s);
	return ret;
}

/* ---- to the spare ---- */

/* Data on its way to the spare. */
struct put {
	struct step *s;
	u64 main;			/* where what is left of it belongs */
	u32 left;			/* sectors */
	const u8 *data;
	unsigned int failures;		/* spare blocks that failed since the last that worked */
	u64 failed[SPARE_FAILURES];
};

static int put_write(struct put *p, u64 spare, u32 sectors)
{
	struct dm_remap_metadata *md = p->s->md;
	int ret = md->ops->write(md->ctx, DM_REMAP_SPARE, spare, sectors, p->data, 0);

	if (ret)
		dm_remap_count(md, DM_REMAP_WRITE_ERRORS, 1);
	return ret;
}

/*
 * The next @sectors of the data are at @spare. Writes that failed before are bad
 * media only once another one works: now it has.
 */
static void put_done(struct put *p, u64 spare, u32 sectors)
{
	unsigned int i;

	for (i = 0; i < p->failures; i++)
		entry_add(p->s, DM_REMAP_RETIRED, DM_REMAP_REASON_WRITE_ERROR, 0, p->failed[i],
			  granularity(p->s));
	p->failures = 0;
	entry_add(p->s, DM_REMAP_MAPPED, p->s->reason, p->main, spare, sectors);
	p->main += sectors;
	p->data += bytes(sectors);
	p->left -= sectors;
}

/* Commits where entries get many. */
static int put_commit(struct put *p)
{
	return p->left && p->s->n >= CHUNK_ENTRIES ? entries_commit(p->s) : 0;
}

/* A run of the spare that failed as a whole: block by block, around those that fail. */
static int put_blocks(struct put *p, u64 spare, u32 sectors)
{
	u32 g = granularity(p->s), i;
	int ret = 0;

	for (i = 0; !ret && i < sectors; i += g) {
		int error = put_write(p, spare + i, g);

		if (!error) {
			put_done(p, spare + i, g);
			ret = put_commit(p);
		} else {
			p->failed[p->failures++] = spare + i;
			ret = p->failures == SPARE_FAILURES ? error : 0;
		}
	}
	if (i < sectors)
		dm_remap_alloc_release(&p->s->md->alloc, spare + i, sectors - i);
	return ret;
}

/* Writes @sectors of @data to some place on the spare, and adds the records for it. */
static int spare_put(struct step *s, u64 main, u32 sectors, const u8 *data)
{
	struct put p = { .s = s, .main = main, .left = sectors, .data = data };
	int ret = 0;

	while (!ret && p.left) {
		u64 spare;
		u32 taken;

		ret = dm_remap_alloc_take(&s->md->alloc, p.left, &spare, &taken);
		if (ret)
			break;
		if (put_write(&p, spare, taken)) {
			ret = put_blocks(&p, spare, taken);
		} else {
			put_done(&p, spare, taken);
			ret = put_commit(&p);
		}
	}
	/* Whether the media failed or the device is not known: nothing is retired. */
	while (p.failures)
		dm_remap_alloc_release(&s->md->alloc, p.failed[--p.failures], granularity(s));
	return ret;
}

/* ---- remap ---- */

static int main_read(struct step *s, u64 sector, u32 sectors, void *buf, unsigned int retries)
{
	int ret;

	do {
		ret = s->md->ops->read(s->md->ctx, DM_REMAP_MAIN, sector, sectors, buf);
	} while (ret && retries--);
	return ret;
}

/* Can main be read at all? Next to the range, or at its ends. */
static bool main_answers(struct step *s, u64 start, u64 length)
{
	u32 g = granularity(s);
	u64 size = s->md->table.sectors;
	u64 place[] = { start ? start - g : start + length, start + length, 0, size - g };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(place); i++)
		if (place[i] < size && !main_read(s, place[i], g, s->buf, 0))
			return true;
	return false;
}

/*
 * Reads [@start, @start + @length) into s->buf as far as it can be read. Block by
 * block only where it must be. s->check says which blocks could not (1) or could.
 * A failed read is bad media only if another one works: main may be gone.
 */
static int chunk_read(struct step *s, u64 start, u32 length)
{
	u32 g = granularity(s), bad = 0, i;
	int ret;

	memset(s->check, 0, length / g);
	if (!main_read(s, start, length, s->buf, 0))
		return 0;
	for (i = 0; i < length / g; i++) {
		ret = s->md->ops->stop(s->md->ctx);
		if (ret)
			return ret;
		s->check[i] = !!main_read(s, start + i * g, g, s->buf + bytes(i * g), s->retries);
		bad += s->check[i];
	}
	dm_remap_count(s->md, DM_REMAP_READ_ERRORS, bad);
	if (bad == length / g && !main_answers(s, start, length)) {
		s->moved->why = "main cannot be read anywhere: is it there?";
		return -EIO;
	}
	return 0;
}

/* Is any of the range remapped, or in doubt? Then it can't be moved. */
static int chunk_check(struct step *s, u64 start, u64 length)
{
	struct dm_remap_extent e;
	u64 pos;

	for (pos = start; pos < start + length; pos += e.length) {
		/* In pieces: a lookup goes on as long as the answer stays the same. */
		look(s->md, pos, min_t(u64, start + length - pos, CHUNK_SECTORS), &e);
		cond_resched();
		if (e.flags & DM_REMAP_F_DOUBT) {
			s->moved->why = "a record of this range may be on the spare, or not: "
					"save must succeed first";
			return -EUCLEAN;
		}
		if (e.kind == DM_REMAP_MAPPED) {
			s->moved->why = "part of the range is remapped already; see list";
			return -EEXIST;
		}
	}
	return 0;
}

static int remap_chunk(struct step *s, u64 start, u32 length)
{
	u32 g = granularity(s), blocks = length / g, i, run;
	int ret = chunk_check(s, start, length), committed;

	if (ret)
		return ret;
	ret = chunk_read(s, start, length);
	if (ret)
		return ret;
	for (i = 0; !ret && i < blocks; i += run) {
		for (run = 1; i + run < blocks && s->check[i + run] == s->check[i]; run++)
			;
		if (s->check[i])
			entry_add(s, DM_REMAP_PENDING, DM_REMAP_REASON_READ_ERROR, start + i * g,
				  0, run * g);
		else
			ret = spare_put(s, start + i * g, run * g, s->buf + bytes(i * g));
		if (!ret && s->n >= CHUNK_ENTRIES)
			ret = entries_commit(s);
	}
	/* What is on the spare already is committed, whatever stopped the rest. */
	committed = entries_commit(s);
	return ret ?: committed;
}

/* Does @chunk for pieces of the range, each of them held meanwhile. */
static int for_chunks(struct step *s, u64 start, u64 length,
		      int (*chunk)(struct step *s, u64 start, u32 length))
{
	struct dm_remap_metadata *md = s->md;
	int ret = 0;

	while (!ret && length) {
		u32 n = min_t(u64, length, CHUNK_SECTORS);

		ret = may_move(md);
		ret = ret ?: md->ops->stop(md->ctx);
		if (ret)
			break;
		mutex_lock(&md->move_lock);
		ret = range_hold(md, start, n);
		if (!ret) {
			ret = chunk(s, start, n);
			range_release(md, start, n);
		}
		mutex_unlock(&md->move_lock);
		start += n;
		length -= n;
	}
	return ret;
}

int dm_remap_remap(struct dm_remap_metadata *md, u64 start, u64 length, unsigned int retries,
		   struct dm_remap_moved *moved)
{
	struct step *s = step_alloc(md, length, moved);
	int ret;

	if (!s)
		return -ENOMEM;
	s->retries = retries;
	s->reason = DM_REMAP_REASON_MANUAL;
	/* First of all: nothing is moved where something stands in the way at the end. */
	ret = chunk_check(s, start, length);
	ret = ret ?: for_chunks(s, start, length, remap_chunk);
	step_free(s);
	return ret;
}

/* ---- unremap ---- */

/* The data of a spare range is on main, durable, and reads back the same. */
static int bring_home(struct step *s, u64 main, u64 spare, u32 sectors)
{
	const struct dm_remap_ops *ops = s->md->ops;
	void *ctx = s->md->ctx;
	int ret;

	ret = ops->read(ctx, DM_REMAP_SPARE, spare, sectors, s->buf);
	ret = ret ?: ops->write(ctx, DM_REMAP_MAIN, main, sectors, s->buf, 0);
	ret = ret ?: ops->flush(ctx, DM_REMAP_MAIN);
	ret = ret ?: ops->read(ctx, DM_REMAP_MAIN, main, sectors, s->check);
	if (!ret && memcmp(s->buf, s->check, bytes(sectors)))
		ret = -EIO;
	return ret;
}

static int home_add(struct step *s, u64 main, u64 spare, u32 sectors)
{
	s->freed[s->n] = spare;
	entry_add(s, DM_REMAP_CLEAR, 0, main, 0, sectors);
	return s->n >= CHUNK_ENTRIES ? entries_commit(s) : 0;
}

/* One mapped piece: as a whole, or else block by block. */
static int piece_home(struct step *s, u64 main, u64 spare, u32 sectors)
{
	u32 g = granularity(s), i;
	int ret = 0;

	if (!bring_home(s, main, spare, sectors))
		return home_add(s, main, spare, sectors);
	for (i = 0; !ret && i < sectors; i += g) {
		if (!bring_home(s, main + i, spare + i, g)) {
			ret = home_add(s, main + i, spare + i, g);
		} else {
			dm_remap_count(s->md, DM_REMAP_WRITE_ERRORS, 1);
			s->moved->refused += g;
		}
	}
	return ret;
}

static int unremap_chunk(struct step *s, u64 start, u32 length)
{
	struct dm_remap_extent e;
	u64 pos;
	int ret = 0, committed;

	for (pos = start; !ret && pos < start + length; pos += e.length) {
		look(s->md, pos, start + length - pos, &e);
		if (e.flags & DM_REMAP_F_DOUBT) {
			s->moved->why = "a record of this range may be on the spare, or not: "
					"save must succeed first";
			ret = -EUCLEAN;
		} else if (e.kind == DM_REMAP_MAPPED) {
			ret = piece_home(s, pos, e.spare, e.length);
		}
	}
	/* What is home already is committed, whatever stopped the rest. */
	committed = entries_commit(s);
	return ret ?: committed;
}

static bool any_record(struct dm_remap_metadata *md, u64 start, u64 length, u8 kind)
{
	struct dm_remap_record r;
	u64 pos;

	for (pos = start; dm_remap_table_next(&md->table, pos, &r) && r.main < start + length;
	     pos = r.main + r.length)
		if (r.kind == kind)
			return true;
	return false;
}

int dm_remap_unremap(struct dm_remap_metadata *md, u64 start, u64 length,
		     struct dm_remap_moved *moved)
{
	struct step *s = step_alloc(md, length, moved);
	int ret;

	if (!s)
		return -ENOMEM;
	if (any_record(md, start, length, DM_REMAP_MAPPED)) {
		ret = for_chunks(s, start, length, unremap_chunk);
		if (!ret && moved->refused) {
			moved->why = "main does not take the data back; its records stay";
			ret = -EIO;
		}
	} else {
		moved->why = "nothing in the range is remapped; see list";
		ret = -ENOENT;
	}
	step_free(s);
	return ret;
}

/* ---- forget ---- */

static int forget_locked(struct step *s, u64 start, u64 end)
{
	struct dm_remap_metadata *md = s->md;
	struct dm_remap_record r;
	u64 pos;
	int ret = 0;

	for (pos = start; !ret && dm_remap_table_next(&md->table, pos, &r) && r.main < end;
	     pos = r.main + r.length) {
		u64 from = max_t(u64, r.main, start);

		if (r.kind != DM_REMAP_PENDING)
			continue;
		s->freed[s->n] = 0;
		entry_add(s, DM_REMAP_CLEAR, 0, from, 0, min_t(u64, r.main + r.length, end) - from);
		if (s->n == DM_REMAP_ENTRIES_PER_BLOCK)
			ret = entries_commit(s);
	}
	return ret ?: entries_commit(s);
}

int dm_remap_forget(struct dm_remap_metadata *md, u64 start, u64 length,
		    struct dm_remap_moved *moved)
{
	struct step *s = step_alloc(md, 0, moved);
	int ret;

	if (!s)
		return -ENOMEM;
	mutex_lock(&md->move_lock);
	ret = forget_locked(s, start, start + length);
	mutex_unlock(&md->move_lock);
	if (!ret && !moved->dropped) {
		moved->why = "nothing in the range is pending; see list";
		ret = -ENOENT;
	}
	step_free(s);
	return ret;
}

/* ---- a write to a pending range ---- */

static int write_pending_locked(struct step *s, u64 start, u32 length, const u8 *data, u32 *done)
{
	struct dm_remap_extent e;
	int ret = 0;

	while (!ret && *done < length) {
		look(s->md, start + *done, length - *done, &e);
		if (e.flags & DM_REMAP_F_DOUBT)
			return -EIO;
		if (e.kind != DM_REMAP_PENDING)
			break;
		ret = may_move(s->md);
		ret = ret ?: spare_put(s, start + *done, e.length, data + bytes(*done));
		if (ret)
			entries_undo(s);
		ret = ret ?: entries_commit(s);
		if (!ret) {
			*done += e.length;
			dm_remap_count(s->md, DM_REMAP_RELOCATED, 1);
		}
	}
	return ret;
}

int dm_remap_write_pending(struct dm_remap_metadata *md, u64 start, u32 length, const void *buf,
			   u32 *done)
{
	struct dm_remap_moved moved;
	struct step *s = step_alloc(md, 0, &moved);
	int ret;

	*done = 0;
	if (!s)
		return -ENOMEM;
	s->reason = DM_REMAP_REASON_PENDING_WRITE;
	mutex_lock(&md->move_lock);
	ret = write_pending_locked(s, start, length, buf, done);
	mutex_unlock(&md->move_lock);
	if (ret)
		dm_remap_count(md, DM_REMAP_REFUSED, 1);
	step_free(s);
	return ret;
}

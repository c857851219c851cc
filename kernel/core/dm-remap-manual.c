// SPDX-License-Identifier: GPL-2.0-only
#include "dm-remap-mover.h"

/*
 * Sectors that are held, read and written at once. A block that fails may take a drive many
 * seconds, and I/O that waits for the range must get a turn: what fails is tried
 * in chunks that are so many times smaller, and block by block only within the smallest. All are
 * powers of two, and multiples of any granularity.
 */
#define CHUNK_SECTORS 2048u
#define CHUNK_STEP 4u
#define SMALLEST_CHUNK_SECTORS DM_REMAP_BLOCK_SECTORS

/* Something of the chunk failed, and it is not the smallest. */
#define TRY_LESS (-E2BIG)

/* Looked through at once for what there is to be done, with preemption off. */
#define LOOK_SECTORS (4 * CHUNK_SECTORS)

#define WHY_DOUBT "a record of this range may be on the spare, or not: save must succeed first"

static int chunk_held(struct dm_remap_mover *m, u64 start, u32 length,
		      int (*chunk)(struct dm_remap_mover *m, u64 start, u32 length))
{
	struct dm_remap_metadata *md = m->md;
	int ret = dm_remap_hold(md, start, length, DM_REMAP_NO_END), committed;

	/* Without an end it waits until it is stopped. */
	if (ret)
		return ret == -EBUSY ? md->ops->stop(md->ctx) ?: ret : ret;
	ret = chunk(m, start, length);
	/* What was moved already is committed, whatever stopped the rest. */
	committed = dm_remap_mover_commit(m);
	if (!ret || ret == TRY_LESS)
		ret = committed ?: ret;
	dm_remap_release(md, start, length);
	return ret;
}

/* One chunk: others wait for it meanwhile, and reclaim may wait for them. */
static int one_chunk(struct dm_remap_mover *m, u64 start, u32 length,
		     int (*chunk)(struct dm_remap_mover *m, u64 start, u32 length))
{
	struct dm_remap_metadata *md = m->md;
	unsigned int reclaim = dm_remap_reclaim_off();
	struct dm_remap_job claim;
	int ret;

	dm_remap_job_claim(&md->schedule, &claim, start, length);
	ret = md->ops->wait(md->ctx, &claim) ?: chunk_held(m, start, length, chunk);
	dm_remap_job_done(&md->schedule, &claim);
	dm_remap_reclaim_restore(reclaim);
	return ret;
}

/* Sectors of the next chunk. Aligned, so that none begins within a block of the media. */
static u32 chunk_at(u64 start, u64 length, u32 most)
{
	return min_t(u64, length, most - (start & (most - 1)));
}

static int for_chunks(struct dm_remap_mover *m, u64 start, u64 length,
		      int (*chunk)(struct dm_remap_mover *m, u64 start, u32 length))
{
	struct dm_remap_metadata *md = m->md;
	u32 most = CHUNK_SECTORS;
	int ret = 0;

	while (!ret && length) {
		u32 n = chunk_at(start, length, most);

		ret = dm_remap_may_move_now(md) ?: md->ops->stop(md->ctx);
		ret = ret ?: one_chunk(m, start, n, chunk);
		if (ret == TRY_LESS) {
			while (most >= n)
				most /= CHUNK_STEP;
			ret = 0;
			continue;
		}
		most = min_t(u32, most * CHUNK_STEP, CHUNK_SECTORS);
		start += n;
		length -= n;
	}
	return ret;
}

/* The pieces of a chunk that are @mapped, or those that are not; @smallest: the chunk is. */
static int for_pieces(struct dm_remap_mover *m, u64 start, u32 length, bool mapped,
		      int (*piece)(struct dm_remap_mover *m, u64 start,
				   const struct dm_remap_extent *e, bool smallest))
{
	struct dm_remap_extent e;
	int ret = 0;
	u64 pos;

	for (pos = start; !ret && pos < start + length; pos += e.length) {
		dm_remap_look(m->md, pos, start + length - pos, &e);
		if (e.flags & DM_REMAP_F_DOUBT) {
			m->moved.why = WHY_DOUBT;
			ret = -EUCLEAN;
		} else if ((e.kind == DM_REMAP_MAPPED) == mapped) {
			ret = piece(m, pos, &e, length <= SMALLEST_CHUNK_SECTORS);
		}
	}
	return ret;
}

/* ---- remap ---- */

/*
 * Reads [@start, @start + @length) into m->buf: as a whole, or else, of the @smallest chunk, as
 * far as it can be read. A failed read is bad media only if another one works: main may be gone.
 */
static int piece_read(struct dm_remap_mover *m, u64 start, u32 length, bool smallest)
{
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_MAIN, .direction = DM_REMAP_READ, .sector = start,
		.sectors = length, .data = m->buf, .fate = m->fate[0], .stoppable = true,
		.whole = !smallest, .retries = READ_ONCE(m->md->policy.read_retries),
	};
	u32 blocks = length / dm_remap_granularity(m->md), bad = 0, i;
	int ret = dm_remap_transfer(m, &t);

	/* Several blocks that each take long may together look like a time-out. */
	if (!smallest && (dm_remap_may_be_media(ret) || ret == -ETIMEDOUT))
		return TRY_LESS;
	for (i = 0; !ret && i < blocks; i++)
		bad += t.fate[i] == DM_REMAP_BAD;
	dm_remap_count(m->md, DM_REMAP_READ_ERRORS, bad);
	if (ret == -ENXIO)
		m->moved.why = "main has become shorter, and does not reach there any more";
	else if (ret && ret != -EAGAIN && ret != -EINTR)
		m->moved.why = "main cannot be read anywhere: is it there?";
	return ret;
}

/* From main to the spare. */
static int piece_away(struct dm_remap_mover *m, u64 start, const struct dm_remap_extent *e,
		      bool smallest)
{
	u32 g = dm_remap_granularity(m->md), blocks = div_u64(e->length, g), i, run;
	int ret = piece_read(m, start, e->length, smallest);

	for (i = 0; !ret && i < blocks; i += run) {
		run = dm_remap_fate_run(m->fate[0], i, blocks);
		if (m->fate[0][i] == DM_REMAP_BAD)
			ret = dm_remap_unreadable_add(m, start + i * g, run * g);
		else
			ret = dm_remap_put(m, DM_REMAP_REASON_MANUAL, start + i * g, run * g,
					   m->buf + dm_remap_bytes(i * g));
	}
	return ret;
}

/* Between two chunks failed I/O has its turn: what it has moved by now is left alone. */
static int remap_chunk(struct dm_remap_mover *m, u64 start, u32 length)
{
	return for_pieces(m, start, length, false, piece_away);
}

/* Is any of the range remapped, or in doubt? Then nothing is moved. */
static int range_check(struct dm_remap_mover *m, u64 start, u64 length)
{
	struct dm_remap_extent e;
	u64 pos;

	for (pos = start; pos < start + length; pos += e.length) {
		/* In pieces: a lookup goes on as long as the answer stays the same. */
		dm_remap_look(m->md, pos, min_t(u64, start + length - pos, CHUNK_SECTORS), &e);
		cond_resched();
		if (e.flags & DM_REMAP_F_DOUBT) {
			m->moved.why = WHY_DOUBT;
			return -EUCLEAN;
		}
		if (e.kind == DM_REMAP_MAPPED) {
			m->moved.why = "part of the range is remapped already; see list";
			return -EEXIST;
		}
	}
	return 0;
}

int dm_remap_remap(struct dm_remap_metadata *md, u64 start, u64 length,
		   struct dm_remap_moved *moved)
{
	struct dm_remap_mover *m = dm_remap_mover_alloc(md, min_t(u64, length, CHUNK_SECTORS));
	int ret;

	memset(moved, 0, sizeof(*moved));
	if (!m)
		return -ENOMEM;
	ret = range_check(m, start, length);
	ret = ret ?: for_chunks(m, start, length, remap_chunk);
	if (ret == DM_REMAP_NO_ROOM_BENEATH) {
		m->moved.why = "the device beneath the spare is full, make room there";
		ret = -ENOSPC;
	}
	*moved = m->moved;
	dm_remap_mover_free(m);
	return ret;
}

/* ---- unremap ---- */

/* The data in m->buf is on main, durable, and reads back the same. */
static int prove_home(struct dm_remap_mover *m, u64 main, u32 sectors)
{
	int ret;

	ret = dm_remap_dev_write(m->md, DM_REMAP_MAIN, main, sectors, m->buf, DM_REMAP_FUA);
	ret = ret ?: dm_remap_dev_read(m->md, DM_REMAP_MAIN, main, sectors, m->check);
	if (!ret && memcmp(m->buf, m->check, dm_remap_bytes(sectors)))
		ret = -EIO;
	return ret;
}

/* From its place on the spare to main, as a whole. */
static int bring_home(struct dm_remap_mover *m, u64 main, u64 spare, u32 sectors)
{
	return dm_remap_dev_read(m->md, DM_REMAP_SPARE, spare, sectors, m->buf) ?:
	       prove_home(m, main, sectors);
}

static int block_home(struct dm_remap_mover *m, u64 main, u64 spare)
{
	struct dm_remap_metadata *md = m->md;
	u32 g = dm_remap_granularity(md);

	if (dm_remap_dev_read(md, DM_REMAP_SPARE, spare, g, m->buf)) {
		dm_remap_count(md, DM_REMAP_READ_ERRORS, 1);
		dm_remap_place_failed(m, main, spare, g);
		m->moved.why = "the spare cannot read some of the data; those records stay";
	} else if (prove_home(m, main, g)) {
		dm_remap_count(md, DM_REMAP_WRITE_ERRORS, 1);
		m->moved.why = "main does not take the data back; its records stay";
	} else {
		return dm_remap_clear_add(m, main, g, spare);
	}
	m->moved.refused += g;
	return 0;
}

/* From the spare to main: as a whole, or else, of the @smallest chunk, block by block. */
static int piece_home(struct dm_remap_mover *m, u64 main, const struct dm_remap_extent *e,
		      bool smallest)
{
	u32 g = dm_remap_granularity(m->md), i;
	int ret = 0;

	if (!bring_home(m, main, e->spare, e->length))
		return dm_remap_clear_add(m, main, e->length, e->spare);
	if (!smallest)
		return TRY_LESS;
	for (i = 0; !ret && i < e->length; i += g)
		ret = m->md->ops->stop(m->md->ctx) ?: block_home(m, main + i, e->spare + i);
	return ret;
}

static int unremap_chunk(struct dm_remap_mover *m, u64 start, u32 length)
{
	return for_pieces(m, start, length, true, piece_home);
}

/* The chunks of the range in which there is something. Most of a disk is not remapped. */
static int unremap_range(struct dm_remap_mover *m, u64 start, u64 length)
{
	u64 end = start + length;
	int ret = 0;

	while (!ret && start < end) {
		struct dm_remap_extent e;
		u32 n;

		dm_remap_look(m->md, start, min_t(u64, end - start, LOOK_SECTORS), &e);
		cond_resched();
		n = e.length;
		if (e.kind == DM_REMAP_MAPPED || e.flags & DM_REMAP_F_DOUBT) {
			n = chunk_at(start, end - start, CHUNK_SECTORS);
			ret = for_chunks(m, start, n, unremap_chunk);
		}
		start += n;
	}
	return ret;
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
	struct dm_remap_mover *m = dm_remap_mover_alloc(md, min_t(u64, length, CHUNK_SECTORS));
	int ret;

	memset(moved, 0, sizeof(*moved));
	if (!m)
		return -ENOMEM;
	if (any_record(md, start, length, DM_REMAP_MAPPED)) {
		ret = unremap_range(m, start, length);
		if (!ret && m->moved.refused)
			ret = -EIO;
	} else {
		m->moved.why = "nothing in the range is remapped; see list";
		ret = -ENOENT;
	}
	*moved = m->moved;
	dm_remap_mover_free(m);
	return ret;
}

/* ---- forget ---- */

/* The pending records of a range that others do not work on. */
static int forget_claimed(struct dm_remap_mover *m, u64 start, u64 end)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_record r;
	int ret = 0;
	u64 pos;

	for (pos = start; !ret && dm_remap_table_next(&md->table, pos, &r) && r.main < end;
	     pos = r.main + r.length) {
		u64 from = max_t(u64, r.main, start);

		if (r.kind == DM_REMAP_PENDING)
			ret = dm_remap_clear_add(m, from, min_t(u64, r.main + r.length, end) - from,
						 0);
	}
	return ret ?: dm_remap_mover_commit(m);
}

static int forget_chunk(struct dm_remap_mover *m, u64 start, u64 end)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_job claim;
	int ret;

	dm_remap_job_claim(&md->schedule, &claim, start, end - start);
	ret = md->ops->wait(md->ctx, &claim) ?: forget_claimed(m, start, end);
	dm_remap_job_done(&md->schedule, &claim);
	return ret;
}

/* In chunks, from one record to the next: who needs a range waits for one of them at most. */
static int forget_range(struct dm_remap_mover *m, u64 start, u64 end)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_record r;
	int ret = 0;

	while (!ret && start < end && dm_remap_table_next(&md->table, start, &r) && r.main < end) {
		u64 from = max_t(u64, r.main, start);

		start = min_t(u64, from + CHUNK_SECTORS, end);
		ret = md->ops->stop(md->ctx) ?: forget_chunk(m, from, start);
	}
	return ret;
}

int dm_remap_forget(struct dm_remap_metadata *md, u64 start, u64 length,
		    struct dm_remap_moved *moved)
{
	struct dm_remap_mover *m = dm_remap_mover_alloc(md, DM_REMAP_BLOCK_SECTORS);
	int ret;

	memset(moved, 0, sizeof(*moved));
	if (!m)
		return -ENOMEM;
	ret = forget_range(m, start, start + length);
	if (!ret && !m->moved.dropped) {
		m->moved.why = "nothing in the range is pending; see list";
		ret = -ENOENT;
	}
	*moved = m->moved;
	dm_remap_mover_free(m);
	return ret;
}

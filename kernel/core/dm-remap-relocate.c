// SPDX-License-Identifier: GPL-2.0-only
/*
 * What becomes of I/O that failed. Which blocks are bad is dm-remap-judge.c's
 * business, the way to the spare dm-remap-mover.c's; here it is decided what to do.
 */
#include "dm-remap-mover.h"

void dm_remap_redo_begin(struct dm_remap_mover *m)
{
	m->error = 0;
	m->writes = 0;
	m->write = BIT_ULL(0);
	m->failed = 0;
	m->now->unproved = 0;
}

unsigned int dm_remap_redo_next(struct dm_remap_mover *m)
{
	m->write = BIT_ULL(m->writes);
	return m->writes++;
}

bool dm_remap_redo_failed(const struct dm_remap_mover *m)
{
	return m->error;
}

int dm_remap_redo_end(struct dm_remap_mover *m)
{
	dm_remap_mover_commit(m);
	/* Whatever else fails a commit has told of itself. */
	if (m->error == -ENOSPC) {
		dm_remap_count(m->md, DM_REMAP_REFUSED, 1);
		WRITE_ONCE(m->md->refusal, DM_REMAP_REFUSAL_TABLE_FULL);
		dm_remap_log(m->md, DM_REMAP_LOG_WARN,
			     "relocations fail together: the table is full");
	}
	return m->error;
}

int dm_remap_redo_result(const struct dm_remap_mover *m, unsigned int number)
{
	return m->failed & BIT_ULL(number) ? -EIO : 0;
}

/* Another system has the spare, and its records are not those in memory. */
static bool gone(const struct dm_remap_mover *m)
{
	return READ_ONCE(m->md->mode) == DM_REMAP_MODE_FAIL;
}

/*
 * In blocks the rest of a range counts for nothing, and a write of less than a block would be one
 * that nobody has done. No device takes such a request, so it comes here as one that failed.
 */
static bool whole_blocks(const struct dm_remap_mover *m, u64 start, u32 length)
{
	return !((start | length) & (dm_remap_granularity(m->md) - 1));
}

static enum dm_remap_refusal refusal_of(struct dm_remap_metadata *md, int why)
{
	if (why == -ENOSPC)
		return dm_remap_alloc_free_sectors(&md->alloc) ? DM_REMAP_REFUSAL_TABLE_FULL :
								 DM_REMAP_REFUSAL_SPARE_FULL;
	if (why == DM_REMAP_NO_ROOM_BENEATH)
		return DM_REMAP_REFUSAL_NO_ROOM_BENEATH;
	/* The mode tells of a spare that takes no record. */
	if (why == -EROFS || why == -EUCLEAN || dm_remap_may_try_again(why))
		return DM_REMAP_REFUSAL_NONE;
	return DM_REMAP_REFUSAL_SPARE_FAILS;
}

static const char *reason(enum dm_remap_refusal refusal, int why)
{
	static const char * const text[] = {
		[DM_REMAP_REFUSAL_NONE] = "failed",
		[DM_REMAP_REFUSAL_SPARE_FULL] = "the spare is full",
		[DM_REMAP_REFUSAL_TABLE_FULL] = "the table is full",
		[DM_REMAP_REFUSAL_NO_ROOM_BENEATH] =
			"the device beneath the spare is full, make room there",
		[DM_REMAP_REFUSAL_SPARE_FAILS] = "the spare does not take the data",
	};

	return why == -EROFS ? "the spare cannot be written" : text[refusal];
}

void dm_remap_not_moved(struct dm_remap_metadata *md, u64 start, u32 length,
			enum dm_remap_refusal refusal, int why)
{
	dm_remap_count(md, DM_REMAP_REFUSED, 1);
	if (refusal)
		WRITE_ONCE(md->refusal, refusal);
	dm_remap_log(md, DM_REMAP_LOG_WARN,
		     "sectors %llu + %u are not moved to the spare %s: %s (%d)",
		     (unsigned long long)start, length, md->spare_name, reason(refusal, why),
		     why == DM_REMAP_NO_ROOM_BENEATH ? -ENOSPC : why);
}

int dm_remap_refused(struct dm_remap_metadata *md, u64 start, u32 length, int why)
{
	dm_remap_not_moved(md, start, length, refusal_of(md, why), why);
	return -EIO;
}

/* ---- writes ---- */

/* Blocks of main that do not hold what was written to them. */
static int write_bad(struct dm_remap_mover *m, u64 start, u32 length, const u8 *data, u8 fate,
		     bool pending)
{
	struct dm_remap_metadata *md = m->md;
	bool forbidden = READ_ONCE(md->policy.no_auto_remap);
	int ret = forbidden || dm_remap_puts_allowed(m) ? 0 : dm_remap_may_move(md) ?: -ENOSPC;

	if (ret)
		return dm_remap_refused(md, start, length, ret);
	dm_remap_note(md, DM_REMAP_NOTE_BAD, start, length, fate == DM_REMAP_BAD);
	if (forbidden) {
		dm_remap_pending_add(md, start, length, DM_REMAP_REASON_WRITE_ERROR);
		return -EIO;
	}
	ret = dm_remap_put(m, pending ? DM_REMAP_REASON_PENDING_WRITE : DM_REMAP_REASON_WRITE_ERROR,
			   start, length, data);
	return ret ? dm_remap_refused(md, start, length, ret) : 0;
}

/*
 * Data counts only if it can be read back: of pending blocks, and of a spare that is not
 * trusted. @t->data is private to us: nobody changes it in between.
 */
static int read_back(struct dm_remap_mover *m, struct dm_remap_transfer *t)
{
	struct dm_remap_transfer back = {
		.dev = t->dev, .direction = DM_REMAP_READ, .sector = t->sector,
		.sectors = t->sectors, .data = m->check, .fate = m->fate[1],
		.pending = t->pending, .of_write = t->of_write,
	};
	u32 g = dm_remap_granularity(m->md), n = t->sectors / g, i;
	size_t size = dm_remap_bytes(g);
	int ret;

	if (dm_remap_fate_run(t->fate, 0, n) == n && t->fate[0] == DM_REMAP_BAD)
		return 0;
	ret = dm_remap_transfer(m, &back);
	for (i = 0; !ret && i < n; i++)
		if (t->fate[i] != DM_REMAP_BAD &&
		    (back.fate[i] == DM_REMAP_BAD ||
		     memcmp(t->data + i * size, m->check + i * size, size)))
			t->fate[i] = DM_REMAP_BAD_BACK;
	return ret;
}

/*
 * Durable by itself. It may take long, and is acknowledged at its end. Somebody else's flush may be
 * told meanwhile that the device has lost a part of it. Nobody would ever tell the writer.
 */
static int write_main(struct dm_remap_mover *m, u64 start, u32 length, u8 *data,
		      struct dm_remap_tried *tried, bool pending)
{
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_MAIN, .direction = DM_REMAP_WRITE, .sector = start,
		.sectors = length, .data = data, .fate = m->fate[0], .flags = DM_REMAP_FUA,
		.tried = tried, .pending = pending, .of_write = true,
		.proved_later = !pending && !READ_ONCE(m->md->policy.no_auto_remap),
	};
	u32 g = dm_remap_granularity(m->md), n = length / g, i, run;
	int ret = dm_remap_transfer(m, &t);

	/* A read that failed there says nothing of the new data. */
	dm_remap_unread_forget(&m->md->schedule, start, length);
	if (!ret && pending)
		ret = read_back(m, &t);
	m->now->unproved = max_t(u64, m->now->unproved, ret ? 0 : t.unproved);
	for (i = 0; !ret && i < n; i += run) {
		u64 at = start + i * g;

		run = dm_remap_fate_run(t.fate, i, n);
		if (t.fate[i] == DM_REMAP_BAD || t.fate[i] == DM_REMAP_BAD_BACK)
			ret = write_bad(m, at, run * g, data + dm_remap_bytes(i * g), t.fate[i],
					pending);
		else if (pending)
			ret = dm_remap_clear_add(m, at, run * g, 0);
	}
	return ret;
}

/*
 * Blocks that their place on the spare does not hold, each to another one. By blocks: of a run
 * only a part may find another place, and only that is retired.
 */
static int replace(struct dm_remap_mover *m, u64 start, u64 spare, u32 length, const u8 *data)
{
	u32 g = dm_remap_granularity(m->md), i;
	int ret = 0;

	for (i = 0; !ret && i < length; i += g) {
		ret = dm_remap_put(m, DM_REMAP_REASON_WRITE_ERROR, start + i, g,
				   data + dm_remap_bytes(i));
		if (ret)
			return dm_remap_refused(m->md, start + i, g, ret);
		ret = dm_remap_retire_add(m, spare + i, g);
	}
	return ret;
}

/*
 * A range that lives on the spare. A block that fails there goes to another place, and so does one
 * that is read back and differs. The old place is retired: the write that worked elsewhere
 * is the control. A marked place that reads back loses its mark. If that fails the mark stays, and
 * costs the next write a read.
 */
static int write_spare(struct dm_remap_mover *m, u64 start, const struct dm_remap_extent *e,
		       u8 *data)
{
	bool marked = e->flags & DM_REMAP_F_UNREADABLE;
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_SPARE, .direction = DM_REMAP_WRITE, .sector = e->spare,
		.sectors = e->length, .data = data, .flags = DM_REMAP_FUA, .fate = m->fate[0],
	};
	u32 g = dm_remap_granularity(m->md), n = t.sectors / g, i, run;
	int ret = dm_remap_transfer(m, &t);

	if (!ret && (marked || READ_ONCE(m->md->policy.verify_spare_writes)))
		ret = read_back(m, &t);
	for (i = 0; !ret && i < n; i += run) {
		u32 at = i * g;

		run = dm_remap_fate_run(t.fate, i, n);
		if (t.fate[i] == DM_REMAP_BAD || t.fate[i] == DM_REMAP_BAD_BACK)
			ret = replace(m, start + at, e->spare + at, run * g,
				      data + dm_remap_bytes(at));
		else if (marked)
			dm_remap_mark(m->md, start + at, run * g, false);
	}
	return ret;
}

static int write_extent(struct dm_remap_mover *m, u64 start, const struct dm_remap_extent *e,
			u8 *data, struct dm_remap_tried *tried)
{
	if (e->flags & DM_REMAP_F_DOUBT)
		return -EIO;
	if (e->kind == DM_REMAP_MAPPED)
		return write_spare(m, start, e, data);
	return dm_remap_main_reaches(m->md, start, e->length) ?:
	       write_main(m, start, e->length, data, tried, e->kind == DM_REMAP_PENDING);
}

int dm_remap_redo_write(struct dm_remap_mover *m, u64 start, u32 length, const void *data,
			struct dm_remap_tried *tried)
{
	struct dm_remap_extent e;
	int ret = 0;
	u32 done;

	if (gone(m) || !whole_blocks(m, start, length))
		return -EIO;
	for (done = 0; !ret && done < length; done += e.length) {
		dm_remap_look(m->md, start + done, length - done, &e);
		ret = write_extent(m, start + done, &e, (u8 *)data + dm_remap_bytes(done), tried);
	}
	/* Why a commit failed is the spare's affair. */
	return m->failed & m->write ? -EIO : ret;
}

/* ---- reads ---- */

bool dm_remap_job_put_back(struct dm_remap_metadata *md, struct dm_remap_job *job)
{
	const u64 start = job->start, end = job->end;
	struct dm_remap_extent e;
	u64 pos;

	if (job->kind != DM_REMAP_JOB_READ && job->kind != DM_REMAP_JOB_PENDING)
		return false;
	for (pos = start; pos < end; pos += e.length) {
		dm_remap_look(md, pos, end - pos, &e);
		if (e.kind != DM_REMAP_MAPPED)
			continue;
		dm_remap_job_done(&md->schedule, job);
		dm_remap_job_add(&md->schedule, job, DM_REMAP_JOB_SPARE, start, end - start);
		return true;
	}
	return false;
}

/* A read of main has failed there, for which it took so many seconds; @number: of that read. */
static void unreadable(struct dm_remap_mover *m, unsigned int number, u64 start, u32 length,
		       u64 took)
{
	struct dm_remap_metadata *md = m->md;

	dm_remap_note(md, DM_REMAP_NOTE_BAD, start, length, 0);
	if (dm_remap_pending_try(md, start, length, DM_REMAP_REASON_READ_ERROR) == -EBUSY)
		dm_remap_unrecorded_add(&md->schedule, start, length);
	dm_remap_unread_add(&md->schedule, number, start, length, took,
			    md->ops->uptime(md->ctx));
}

static int read_main(struct dm_remap_mover *m, u64 start, u32 length, u8 *data,
		     struct dm_remap_tried *tried, bool pending)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_MAIN, .direction = DM_REMAP_READ, .sector = start,
		.sectors = length, .data = data, .fate = m->fate[0],
		.tried = tried, .gives_way = pending, .read_from_above = true,
		.retries = READ_ONCE(md->policy.read_retries),
	};
	u32 g = dm_remap_granularity(md), n = length / g, i, run;
	u64 began = md->ops->uptime(md->ctx), took;
	unsigned int number = dm_remap_unread_begin(&md->schedule, start, length);
	bool well = !tried || !tried->failure;
	int ret = dm_remap_transfer(m, &t), error = 0;

	took = md->ops->uptime(md->ctx) - began - t.waited;
	for (i = 0; !ret && i < n; i += run) {
		u64 at = start + i * g;

		run = dm_remap_fate_run(t.fate, i, n);
		well = well && t.fate[i] == DM_REMAP_GOOD;
		if (t.fate[i] == DM_REMAP_LATE) {
			dm_remap_rescue(md, at, run * g);
		} else if (t.fate[i] == DM_REMAP_BAD) {
			error = -EIO;
			unreadable(m, number, at, run * g, took);
		}
	}
	dm_remap_unread_end(&md->schedule, number);
	if (ret || !well)
		dm_remap_later_forget(md, &md->rechecks, start, length);
	else if (pending)
		dm_remap_recheck_hint(md, start, length);
	return ret ?: error;
}

/* A record whose place cannot be read keeps it: the next write goes there, then elsewhere. */
static int read_spare(struct dm_remap_mover *m, u64 start, u64 spare, u32 length, u8 *data)
{
	struct dm_remap_transfer t = {
		.dev = DM_REMAP_SPARE, .direction = DM_REMAP_READ, .sector = spare,
		.sectors = length, .data = data, .fate = m->fate[0],
		.retries = READ_ONCE(m->md->policy.read_retries),
	};
	u32 g = dm_remap_granularity(m->md), n = length / g, i, run;
	int ret = dm_remap_transfer(m, &t), error = 0;

	for (i = 0; !ret && i < n; i += run) {
		run = dm_remap_fate_run(t.fate, i, n);
		if (t.fate[i] != DM_REMAP_BAD)
			continue;
		error = -EIO;
		dm_remap_place_failed(m, start + i * g, spare + i * g, run * g);
	}
	return ret ?: error;
}

/* Of a pending range the answer may serve that main has just given to others. */
static int read_extent(struct dm_remap_mover *m, u64 start, struct dm_remap_extent *e,
		       u8 *data, struct dm_remap_tried *tried)
{
	struct dm_remap_metadata *md = m->md;
	bool pending = e->kind == DM_REMAP_PENDING;

	if (e->flags & DM_REMAP_F_DOUBT)
		return -EIO;
	if (e->kind == DM_REMAP_MAPPED)
		return read_spare(m, start, e->spare, e->length, data);
	if (pending && dm_remap_unread(&md->schedule, start, &e->length, md->ops->uptime(md->ctx)))
		return -EIO;
	return dm_remap_main_reaches(md, start, e->length) ?:
	       read_main(m, start, e->length, data, tried, pending);
}

int dm_remap_redo_read(struct dm_remap_mover *m, u64 start, u32 length, void *data,
		       struct dm_remap_tried *tried)
{
	struct dm_remap_extent e;
	int ret, error = 0;
	u32 done;

	if (gone(m) || !whole_blocks(m, start, length))
		return -EIO;
	/* Bad blocks of one extent are no reason to leave the others unread. */
	for (done = 0; done < length; done += e.length) {
		dm_remap_look(m->md, start + done, length - done, &e);
		ret = read_extent(m, start + done, &e, (u8 *)data + dm_remap_bytes(done), tried);
		error = error ?: ret;
	}
	return error;
}

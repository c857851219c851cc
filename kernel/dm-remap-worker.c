// SPDX-License-Identifier: GPL-2.0-only
/*
 * The workers: bios that cannot simply go on are done over, through the core, and completed.
 *
 * A bio that waits is a job of the core's schedule, which says whose turn it is. Each worker has a
 * mover of its own. One worker is for writes alone, on a workqueue of its own: where no
 * memory is left for threads, each workqueue has one yet. Another is for reads alone.
 */
#include "dm-remap-bio.h"

#include <linux/delay.h>
#include <linux/timekeeping.h>

/* How long a batch takes up more writes: the first one waits for the last. */
#define BATCH_TIME (2 * HZ)

/* The worker that looks at main without a request. It is for any job, as the spare may keep it. */
#define LATER 1

/* For how long a read of a pending range gives way to writes. */
#define GIVE_WAY (5 * HZ)

/* ---- parts of a bio ---- */

/* Bytes of a part of the bio, @from sectors from its start. */
static struct bvec_iter part_of(const struct bio *bio, u32 from, u32 sectors)
{
	struct bvec_iter iter = bio->bi_iter;

	bio_advance_iter(bio, &iter, from << SECTOR_SHIFT);
	iter.bi_size = sectors << SECTOR_SHIFT;
	return iter;
}

/* A private copy: the pages of the bio may change while we work on them. */
static void copy_from_bio(void *to, struct bio *bio, u32 from, u32 sectors)
{
	struct bvec_iter iter, start = part_of(bio, from, sectors);
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, start) {
		memcpy_from_bvec(to, &bv);
		to += bv.bv_len;
	}
}

static void copy_to_bio(struct bio *bio, u32 from, u32 sectors, const void *data)
{
	struct bvec_iter iter, start = part_of(bio, from, sectors);
	struct bio_vec bv;

	__bio_for_each_segment(bv, bio, iter, start) {
		memcpy_to_bvec(&bv, data);
		data += bv.bv_len;
	}
}

static int redo_read(struct dm_remap_worker *w, struct bio *bio, sector_t sector, u32 from,
		     u32 sectors, struct dm_remap_tried *tried)
{
	void *data = dm_remap_mover_buffer(w->mover);
	int ret;

	/* What cannot be read must not be what somebody else read before. */
	memset(data, 0, sectors << SECTOR_SHIFT);
	ret = dm_remap_redo_read(w->mover, sector, sectors, data, tried);
	copy_to_bio(bio, from, sectors, data);
	return ret;
}

static int redo_write(struct dm_remap_worker *w, struct bio *bio, sector_t sector, u32 from,
		      u32 sectors, struct dm_remap_tried *tried)
{
	void *data = dm_remap_mover_buffer(w->mover);

	if (bio_op(bio) == REQ_OP_WRITE_ZEROES)
		memset(data, 0, sectors << SECTOR_SHIFT);
	else
		copy_from_bio(data, bio, from, sectors);
	return dm_remap_redo_write(w->mover, sector, sectors, data, tried);
}

/* All of the bio, in parts. A bad block is no reason not to read the rest. */
static int redo(struct dm_remap_worker *w, struct bio *bio)
{
	struct dm_remap_io *io = io_of(bio);
	struct dm_remap_tried tried = {};
	u32 from, n, sectors;
	int ret = 0, error = 0;

	/* As it came: who completed it has consumed it. */
	bio->bi_iter = io->iter;
	sectors = bio_sectors(bio);
	if (io->tried) {
		tried.failure = io->failure;
		tried.sectors = sectors;
	}
	for (from = 0; from < sectors && (ret == 0 || ret == -EIO); from += n) {
		sector_t sector = io->iter.bi_sector + from;

		n = min(sectors - from, DM_REMAP_REDO_SECTORS);
		if (bio_op(bio) == REQ_OP_READ)
			ret = redo_read(w, bio, sector, from, n, &tried);
		else
			ret = redo_write(w, bio, sector, from, n, &tried);
		error = error ?: ret;
	}
	return ret == DM_REMAP_GIVEN_UP ? ret : error;
}

/* ---- coming and going ---- */

static void add_job(struct dm_remap_device *d, struct bio *bio)
{
	struct dm_remap_io *io = io_of(bio);

	dm_remap_job_add(&d->metadata.schedule, &io->job,
			 dm_remap_job_kind_of(kind_of(bio), io->pending), io->iter.bi_sector,
			 io->iter.bi_size >> SECTOR_SHIFT);
}

void dm_remap_wait_for_worker(struct dm_remap_device *d, struct bio *bio, bool tried, bool pending)
{
	struct dm_remap_io *io = io_of(bio);

	mark(bio, 0);
	io->tried = tried;
	io->pending = pending;
	add_job(d, bio);
}

/* It is done, but for its completion. Others may have their turn. */
static void job_done(struct dm_remap_worker *w, struct bio *bio)
{
	dm_remap_job_done(&w->d->metadata.schedule, &io_of(bio)->job);
}

static void decide(struct bio *bio, int error, unsigned long marks)
{
	bio->bi_status = errno_to_blk_status(error);
	mark(bio, IO_DECIDED | marks);
	/* It may have been completed once, and the queue has heard of that. */
	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
	bio_endio(bio);
}

/*
 * A suspend has ended the redo between two commands. If it is one without a flush, dm keeps the bio
 * for the next resume. Of one with a flush a read gets an error. It may have been taken back.
 */
static void given_up(struct dm_remap_worker *w, struct bio *bio)
{
	switch (READ_ONCE(w->d->metadata.give_up)) {
	case DM_REMAP_GIVE_UP_ALL:
		if (dm_noflush_suspending(w->d->ti)) {
			decide(bio, -EIO, IO_GIVEN_BACK);
			break;
		}
		/* A signal has interrupted the suspend, and the target will hear of that soon. */
		msleep(20);
		add_job(w->d, bio);
		break;
	case DM_REMAP_GIVE_UP_READS:
		if (bio_op(bio) == REQ_OP_READ) {
			decide(bio, -EIO, 0);
			break;
		}
		fallthrough;
	default:
		add_job(w->d, bio);
	}
}

static void ended(struct dm_remap_worker *w, struct bio *bio, int error)
{
	job_done(w, bio);
	if (error == DM_REMAP_GIVEN_UP) {
		given_up(w, bio);
		return;
	}
	/* Otherwise it was counted when it failed first. */
	if (error && !io_of(bio)->tried)
		count_error(w->d, bio, errno_to_blk_status(error));
	decide(bio, error, 0);
}

/* ---- one turn ---- */

/* The next one whose turn it is. */
static struct bio *next_bio(struct dm_remap_worker *w, enum dm_remap_mover_role role)
{
	struct dm_remap_job *job = dm_remap_job_next(&w->d->metadata.schedule, role);
	struct dm_remap_io *io;

	if (!job)
		return NULL;
	io = container_of(job, struct dm_remap_io, job);
	return dm_bio_from_per_bio_data(io, sizeof(*io));
}

/* Is it given up before it was begun? */
static bool is_given_up(const struct dm_remap_worker *w, struct bio *bio)
{
	enum dm_remap_give_up what = READ_ONCE(w->d->metadata.give_up);
	const struct dm_remap_io *io = io_of(bio);

	return what == DM_REMAP_GIVE_UP_ALL ||
	       (what == DM_REMAP_GIVE_UP_READS && bio_op(bio) == REQ_OP_READ &&
		(io->tried || io->pending));
}

static int redo_or_give_up(struct dm_remap_worker *w, struct bio *bio)
{
	return is_given_up(w, bio) ? DM_REMAP_GIVEN_UP : redo(w, bio);
}

static void redo_one_read(struct dm_remap_worker *w, struct bio *bio)
{
	int error;

	dm_remap_redo_begin(w->mover);
	error = redo_or_give_up(w, bio);
	dm_remap_redo_end(w->mover);
	ended(w, bio, error);
}

/*
 * Writes share a commit, and wait for it. So does one that failed: it may have moved a part, and
 * the next write there must find that.
 */
static void redo_writes(struct dm_remap_worker *w, struct bio *bio)
{
	struct bio_list writes = BIO_EMPTY_LIST;
	unsigned long end = jiffies + BATCH_TIME;
	unsigned int n;

	dm_remap_redo_begin(w->mover);
	for (n = 1; bio; n++) {
		dm_remap_redo_next(w->mover);
		io_of(bio)->error = redo_or_give_up(w, bio);
		bio_list_add(&writes, bio);
		bio = n < DM_REMAP_BATCH_WRITES && time_before(jiffies, end) &&
		      !dm_remap_redo_failed(w->mover) ? next_bio(w, DM_REMAP_FOR_WRITES) : NULL;
	}
	dm_remap_redo_end(w->mover);
	/* In the order in which they were numbered. */
	for (n = 0; (bio = bio_list_pop(&writes)); n++)
		ended(w, bio, io_of(bio)->error ?: dm_remap_redo_result(w->mover, n));
}

/* False: it is nobody's turn. */
static bool one_turn(struct dm_remap_worker *w)
{
	struct bio *bio = next_bio(w, w->role);

	if (!bio)
		return false;
	if (dm_remap_job_put_back(&w->d->metadata, &io_of(bio)->job))
		return true;
	if (bio_op(bio) == REQ_OP_READ)
		redo_one_read(w, bio);
	else
		redo_writes(w, bio);
	return true;
}

/* ---- what is done besides ---- */

/* The log tells what was moved, now or when the next line is due. */
static void tell_moves(struct dm_remap_device *d)
{
	u32 wait = dm_remap_moves_tell(&d->metadata, false);

	if (wait)
		queue_delayed_work(d->workqueue, &d->tell, wait * HZ);
}

static void do_tell(struct work_struct *work)
{
	tell_moves(container_of(to_delayed_work(work), struct dm_remap_device, tell));
}

/* One worker looks at main without a request from above. A suspend does not wait for that. */
static void look_later(struct dm_remap_worker *w)
{
	struct dm_remap_device *d = w->d;
	u32 wait;

	if (!dm_remap_later_any(&d->metadata) || READ_ONCE(d->stop))
		return;
	if (w != &d->worker[LATER]) {
		queue_work(d->workqueue, &d->worker[LATER].work);
		return;
	}
	wait = dm_remap_do_later(w->mover);
	if (wait)
		mod_delayed_work(d->workqueue, &d->later, wait * HZ);
}

static void do_later(struct work_struct *work)
{
	dm_remap_kick(container_of(to_delayed_work(work), struct dm_remap_device, later));
}

void dm_remap_watch_ends_if_idle(struct dm_remap_device *d)
{
	if (dm_remap_schedule_is_idle(&d->metadata.schedule))
		dm_remap_watch_ends(&d->metadata);
}

static void do_work(struct work_struct *work)
{
	struct dm_remap_worker *w = container_of(work, struct dm_remap_worker, work);
	struct dm_remap_device *d = w->d;
	unsigned int reclaim;
	bool more;

	WRITE_ONCE(d->metadata.policy.recheck_pause, dm_remap_autosave_interval());
	do {
		/* Reclaim may be waiting for the very writes that are handled here. */
		reclaim = memalloc_noreclaim_save();
		more = one_turn(w);
		look_later(w);
		memalloc_noreclaim_restore(reclaim);
		dm_remap_breaker_look(&d->metadata);
		tell_moves(d);
		dm_remap_device_event(d);
	} while (more);
	dm_remap_watch_ends_if_idle(d);
}

/* ---- for the core ---- */

void dm_remap_kick(void *ctx)
{
	struct dm_remap_device *d = ctx;
	unsigned int i;

	queue_work(d->write_queue, &d->worker[0].work);
	for (i = 1; i < DM_REMAP_MOVERS; i++)
		queue_work(d->workqueue, &d->worker[i].work);
	wake_up_all(&d->turn);
}

int dm_remap_wait_for_claim(void *ctx, const struct dm_remap_job *claim)
{
	struct dm_remap_device *d = ctx;
	struct dm_remap_schedule *s = &d->metadata.schedule;
	int ret = 0;

	/* In pieces: a suspend, or a signal, may end it. */
	while (!wait_event_timeout(d->turn, dm_remap_job_claimed(s, claim), HZ / 10) && !ret)
		ret = dm_remap_stop(d);
	return ret;
}

static bool may_go_on(struct dm_remap_metadata *md)
{
	return READ_ONCE(md->give_up) ||
	       !dm_remap_writes_use_main(&md->schedule, ktime_get_seconds());
}

void dm_remap_give_way(void *ctx)
{
	struct dm_remap_device *d = ctx;
	unsigned long end = jiffies + GIVE_WAY;

	/* In pieces: nobody tells that the spare keeps a write. */
	while (time_before(jiffies, end) && !may_go_on(&d->metadata))
		wait_event_timeout(d->turn, may_go_on(&d->metadata), HZ / 4);
}

/* ---- set-up ---- */

void dm_remap_workers_give_up(struct dm_remap_device *d, enum dm_remap_give_up what)
{
	WRITE_ONCE(d->metadata.give_up, what);
	dm_remap_kick(d);
}

void dm_remap_workers_stop(struct dm_remap_device *d)
{
	flush_workqueue(d->write_queue);
	flush_workqueue(d->workqueue);
	cancel_delayed_work_sync(&d->later);
	/* It may have called the workers, which do not arm it again, and may arm the other. */
	flush_workqueue(d->write_queue);
	flush_workqueue(d->workqueue);
	cancel_delayed_work_sync(&d->tell);
	dm_remap_moves_tell(&d->metadata, true);
}

static void free_movers(struct dm_remap_device *d)
{
	unsigned int i;

	for (i = 0; i < DM_REMAP_MOVERS; i++)
		dm_remap_mover_free(d->worker[i].mover);
}

static int alloc_movers(struct dm_remap_device *d)
{
	unsigned int i;

	for (i = 0; i < DM_REMAP_MOVERS; i++) {
		struct dm_remap_worker *w = &d->worker[i];

		w->d = d;
		w->role = dm_remap_role_of(i);
		INIT_WORK(&w->work, do_work);
		w->mover = dm_remap_mover_alloc(&d->metadata, DM_REMAP_REDO_SECTORS);
		if (!w->mover)
			return -ENOMEM;
	}
	return 0;
}

int dm_remap_workers_init(struct dm_remap_device *d, const char *name)
{
	INIT_DELAYED_WORK(&d->tell, do_tell);
	INIT_DELAYED_WORK(&d->later, do_later);
	init_waitqueue_head(&d->turn);
	if (alloc_movers(d))
		goto out_movers;
	d->write_queue = alloc_ordered_workqueue("dm-remap-w/%s", WQ_MEM_RECLAIM, name);
	if (!d->write_queue)
		goto out_movers;
	d->workqueue = alloc_workqueue("dm-remap/%s", WQ_MEM_RECLAIM | WQ_UNBOUND,
				       DM_REMAP_MOVERS + 1, name);
	if (d->workqueue)
		return 0;
	destroy_workqueue(d->write_queue);
out_movers:
	free_movers(d);
	return -ENOMEM;
}

void dm_remap_workers_exit(struct dm_remap_device *d)
{
	destroy_workqueue(d->write_queue);
	destroy_workqueue(d->workqueue);
	free_movers(d);
}

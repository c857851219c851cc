// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way of a bio: map, completion, and the worker for those that cannot simply go on.
 *
 * A bio goes to main, or, where a record says so, to the spare; it is cut where the
 * answer changes. The worker sees to three kinds, through the core: what an
 * underlying device failed with an error that may be its media's; I/O to a range that is
 * being copied (held); and a write to a range that is pending.
 *
 * In flight. Who copies a range must know that no write is still on its way to the
 * old place, and who gives a spare range up that nothing is on its way to it. So
 * writes to main and all I/O to the spare are counted, per CPU, in two generations.
 * A lookup and the count that follows it are one section with preemption off;
 * see dm_remap_drain for the other side. A bio that waits for the worker is not
 * counted, and what the worker itself does is done under the lock of those who drain.
 */
#include "dm-remap.h"
#include "dm-remap-trace.h"

#include <linux/delay.h>

/* dm_remap_io.flags */
#define IO_COUNTED	0x1		/* in inflight->n[generation] */
#define IO_SPARE_WRITE	0x2		/* a flush of the spare must cover it */
#define IO_SPARE_FLUSH	0x4
#define IO_FAILED	0x8		/* it was tried once */
#define IO_DECIDED	0x10		/* the worker has given it its status */

/* ---- counting ---- */

/* In the section of the lookup that decided where the bio goes. */
static u8 inflight_enter(struct dm_remap_device *d)
{
	int generation = READ_ONCE(d->generation);

	this_cpu_inc(d->inflight->n[generation]);
	return generation;
}

static void inflight_leave(struct dm_remap_device *d, u8 generation)
{
	this_cpu_dec(d->inflight->n[generation]);
}

static unsigned long inflight_sum(const struct dm_remap_device *d, int generation)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(d->inflight, cpu)->n[generation]);
	return sum;
}

static void inflight_wait(struct dm_remap_device *d, int generation)
{
	while (inflight_sum(d, generation))
		usleep_range(100, 500);
}

/*
 * Everything that was mapped before has completed. The caller has marked its range
 * in the table. After the first grace period every map sees that mark; the others
 * have counted themselves. The generation is switched, and counts in the old one only
 * fall, but for a map that read the old generation before the switch and counts
 * after it: the second grace period waits for that one, or the sum over the CPUs
 * could be zero while it is added up. d->metadata.move_lock makes drains one at a time.
 */
void dm_remap_drain(void *ctx)
{
	struct dm_remap_device *d = ctx;
	int old = d->generation;

	lockdep_assert_held(&d->metadata.move_lock);
	synchronize_rcu_expedited();
	WRITE_ONCE(d->generation, !old);
	synchronize_rcu_expedited();
	inflight_wait(d, old);
}

/* ---- map ---- */

static bool is_write_of_data(const struct bio *bio)
{
	return bio_op(bio) == REQ_OP_WRITE || bio_op(bio) == REQ_OP_WRITE_ZEROES;
}

/* Must the worker see to it? */
static bool must_wait(const struct dm_remap_device *d, const struct bio *bio,
		      const struct dm_remap_extent *e)
{
	if (e->flags & DM_REMAP_F_HELD)
		return true;
	return e->kind == DM_REMAP_PENDING && is_write_of_data(bio) &&
	       !READ_ONCE(d->metadata.policy.no_auto_remap) &&
	       READ_ONCE(d->metadata.mode) < DM_REMAP_MODE_RO;
}

/*
 * Looks @sector up and, if the bio is going on, counts it. One section, so that who
 * changes the table and then drains finds it either counted or on the new way.
 */
static void look_and_count(struct dm_remap_device *d, const struct bio *bio, sector_t sector,
			   unsigned int sectors, struct dm_remap_extent *e,
			   u8 *flags, u8 *generation)
{
	const struct dm_remap_table *table = &d->metadata.table;

	*flags = 0;
	*generation = 0;
	preempt_disable();
	if (likely(dm_remap_table_empty(table))) {
		e->kind = DM_REMAP_NONE;
		e->flags = 0;
		e->length = sectors;
	} else {
		dm_remap_table_lookup(table, sector, sectors, e);
	}
	if (!e->flags && (e->kind == DM_REMAP_MAPPED || op_is_write(bio_op(bio)))) {
		*generation = inflight_enter(d);
		*flags = IO_COUNTED;
		if (e->kind == DM_REMAP_MAPPED && op_is_write(bio_op(bio)) &&
		    !(bio->bi_opf & REQ_FUA))
			*flags |= IO_SPARE_WRITE;
	}
	preempt_enable();
}

/* Where the extent lives. */
static void redirect(struct dm_remap_device *d, struct bio *bio, sector_t sector,
		     const struct dm_remap_extent *e)
{
	if (e->kind == DM_REMAP_MAPPED) {
		bio_set_dev(bio, d->spare_bdev);
		bio->bi_iter.bi_sector = e->spare;
	} else {
		bio_set_dev(bio, d->main_bdev);
		bio->bi_iter.bi_sector = d->main_start + sector;
	}
}

static void wait_for_worker(struct dm_remap_device *d, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&d->waiting_lock, flags);
	bio_list_add(&d->waiting, bio);
	spin_unlock_irqrestore(&d->waiting_lock, flags);
	queue_work(d->workqueue, &d->work);
}

/* A flush comes twice: for main, and for the spare unless everything there is durable. */
static int map_flush(struct dm_remap_device *d, struct bio *bio, struct dm_remap_io *io)
{
	if (!dm_bio_get_target_bio_nr(bio)) {
		bio_set_dev(bio, d->main_bdev);
		return DM_MAPIO_REMAPPED;
	}
	io->flush_covers = atomic64_read(&d->spare_written);
	if (io->flush_covers == atomic64_read(&d->spare_flushed)) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	io->flags = IO_SPARE_FLUSH;
	bio_set_dev(bio, d->spare_bdev);
	return DM_MAPIO_REMAPPED;
}

int dm_remap_map(struct dm_target *ti, struct bio *bio)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dm_remap_target *t = ti->private;
	struct dm_remap_device *d = t->device;
	sector_t sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	struct dm_remap_extent e;

	io->flags = 0;
	if (unlikely(bio->bi_opf & REQ_PREFLUSH))
		return map_flush(d, bio, io);

	look_and_count(d, bio, sector, bio_sectors(bio), &e, &io->flags, &io->generation);
	if (unlikely(e.length < bio_sectors(bio)))
		dm_accept_partial_bio(bio, e.length);
	io->iter = bio->bi_iter;
	io->iter.bi_sector = sector;

	if (unlikely(must_wait(d, bio, &e))) {
		/* A pending range is not held: the bio may have been counted on its way to main. */
		if (io->flags & IO_COUNTED)
			inflight_leave(d, io->generation);
		io->flags = 0;
		if (bio->bi_opf & REQ_NOWAIT)
			bio_wouldblock_error(bio);
		else
			wait_for_worker(d, bio);
		return DM_MAPIO_SUBMITTED;
	}
	if (unlikely(e.flags & DM_REMAP_F_DOUBT)) {
		bio_io_error(bio);
		return DM_MAPIO_SUBMITTED;
	}
	redirect(d, bio, sector, &e);
	/* A discard is advice: a spare that can't take it keeps the data. */
	if (unlikely(bio_op(bio) == REQ_OP_DISCARD && e.kind == DM_REMAP_MAPPED &&
		     !d->spare_discards)) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	return DM_MAPIO_REMAPPED;
}

/* ---- completion ---- */

u64 dm_remap_spare_writes(struct dm_remap_device *d)
{
	return atomic64_read(&d->spare_written);
}

void dm_remap_spare_written(struct dm_remap_device *d)
{
	atomic64_inc(&d->spare_written);
}

/* Keeps the highest: flushes may complete in any order. */
void dm_remap_spare_flushed(struct dm_remap_device *d, u64 covers)
{
	s64 seen = atomic64_read(&d->spare_flushed);

	while ((u64)seen < covers && !atomic64_try_cmpxchg(&d->spare_flushed, &seen, covers))
		;
}

/*
 * Is it worth looking closer? A status that says it is not the media is passed on as
 * it is, AGAIN and REQUEUE among them. A failed discard is no loss, and who reads ahead
 * comes back for what is really wanted.
 */
static bool may_be_media(const struct bio *bio, blk_status_t error)
{
	if (error != BLK_STS_IOERR && error != BLK_STS_MEDIUM)
		return false;
	if (bio->bi_opf & (REQ_PREFLUSH | REQ_RAHEAD))
		return false;
	return bio_op(bio) == REQ_OP_READ || is_write_of_data(bio);
}

static void count_error(struct dm_remap_device *d, const struct bio *bio, blk_status_t error)
{
	/* EAGAIN is an answer to NOWAIT, and a discard is advice. */
	if (error == BLK_STS_AGAIN || bio_op(bio) == REQ_OP_DISCARD)
		return;
	dm_remap_count(&d->metadata, op_is_write(bio_op(bio)) ? DM_REMAP_WRITE_ERRORS :
								DM_REMAP_READ_ERRORS, 1);
}

static int io_failed(struct dm_remap_device *d, struct bio *bio, struct dm_remap_io *io,
		     blk_status_t error)
{
	count_error(d, bio, error);
	if (!may_be_media(bio, error))
		return DM_ENDIO_DONE;
	trace_dm_remap_error(disk_devt(dm_disk(d->dm)), io->iter.bi_sector,
			     io->iter.bi_size >> SECTOR_SHIFT, op_is_write(bio_op(bio)),
			     blk_status_to_errno(error));
	io->flags = IO_FAILED;
	wait_for_worker(d, bio);
	return DM_ENDIO_INCOMPLETE;
}

int dm_remap_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dm_remap_target *t = ti->private;
	struct dm_remap_device *d = t->device;

	if (unlikely(io->flags & IO_DECIDED))
		return DM_ENDIO_DONE;
	/* Before the write is acknowledged: a flush that follows must see it. */
	if ((io->flags & IO_SPARE_WRITE) && !*error)
		dm_remap_spare_written(d);
	if ((io->flags & IO_SPARE_FLUSH) && !*error)
		dm_remap_spare_flushed(d, io->flush_covers);
	if (io->flags & IO_COUNTED)
		inflight_leave(d, io->generation);
	if (unlikely(*error))
		return io_failed(d, bio, io, *error);
	return DM_ENDIO_DONE;
}

/* ---- the worker ---- */

/* Requests in one batch: those before wait for the last. */
#define BATCH_BIOS 64

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

static int redo_read(struct dm_remap_device *d, struct bio *bio, sector_t sector, u32 from,
		     u32 sectors, unsigned int flags)
{
	void *data = dm_remap_mover_buffer(d->mover);
	int ret;

	/* What cannot be read must not be what somebody else read before. */
	memset(data, 0, sectors << SECTOR_SHIFT);
	ret = dm_remap_redo_read(d->mover, sector, sectors, data, flags);
	copy_to_bio(bio, from, sectors, data);
	return ret;
}

static int redo_write(struct dm_remap_device *d, struct bio *bio, sector_t sector, u32 from,
		      u32 sectors, unsigned int flags)
{
	void *data = dm_remap_mover_buffer(d->mover);

	if (bio_op(bio) == REQ_OP_WRITE_ZEROES)
		memset(data, 0, sectors << SECTOR_SHIFT);
	else
		copy_from_bio(data, bio, from, sectors);
	if (bio->bi_opf & REQ_FUA)
		flags |= DM_REMAP_FUA;
	return dm_remap_redo_write(d->mover, sector, sectors, data, flags);
}

/* All of the bio, in parts. A bad block is no reason not to read the rest. */
static int redo(struct dm_remap_device *d, struct bio *bio)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	unsigned int flags = io->flags & IO_FAILED ? DM_REMAP_FAILED : 0;
	u32 from, n, sectors;
	int ret = 0, error = 0;

	/* A discard is advice, and this one came at a bad time. */
	if (bio_op(bio) == REQ_OP_DISCARD)
		return 0;
	/* As it came: who completed it has consumed it. */
	bio->bi_iter = io->iter;
	sectors = bio_sectors(bio);
	for (from = 0; from < sectors && (ret == 0 || ret == -EIO); from += n) {
		sector_t sector = io->iter.bi_sector + from;

		n = min(sectors - from, DM_REMAP_REDO_SECTORS);
		if (bio_op(bio) == REQ_OP_READ)
			ret = redo_read(d, bio, sector, from, n, flags);
		else
			ret = redo_write(d, bio, sector, from, n, flags);
		error = error ?: ret;
	}
	return error;
}

static void decided(struct bio *bio)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));

	io->flags = IO_DECIDED;
	/* It may have been completed once, and the queue has heard of that. */
	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
	bio_endio(bio);
}

/* Does them over in one batch, so that they share a commit, and completes them. */
static void redo_batch(struct dm_remap_device *d, struct bio_list *batch)
{
	struct bio *bio;
	int committed;

	dm_remap_redo_begin(d->mover);
	bio_list_for_each(bio, batch)
		bio->bi_status = errno_to_blk_status(redo(d, bio));
	committed = dm_remap_redo_end(d->mover);
	while ((bio = bio_list_pop(batch))) {
		if (committed && op_is_write(bio_op(bio)) && !bio->bi_status)
			bio->bi_status = BLK_STS_IOERR;
		decided(bio);
	}
}

static void take_batch(struct dm_remap_device *d, struct bio_list *batch)
{
	unsigned int n;

	bio_list_init(batch);
	spin_lock_irq(&d->waiting_lock);
	for (n = 0; n < BATCH_BIOS && !bio_list_empty(&d->waiting); n++)
		bio_list_add(batch, bio_list_pop(&d->waiting));
	spin_unlock_irq(&d->waiting_lock);
}

static void do_waiting(struct work_struct *work)
{
	struct dm_remap_device *d = container_of(work, struct dm_remap_device, work);
	/* Reclaim may be waiting for the very writes that are handled here. */
	unsigned int reclaim = memalloc_noreclaim_save();
	struct bio_list batch;

	for (take_batch(d, &batch); !bio_list_empty(&batch); take_batch(d, &batch))
		redo_batch(d, &batch);
	memalloc_noreclaim_restore(reclaim);
	dm_remap_device_event(d);
}

/* ---- set-up ---- */

int dm_remap_map_init(struct dm_remap_device *d, const char *name)
{
	spin_lock_init(&d->waiting_lock);
	bio_list_init(&d->waiting);
	INIT_WORK(&d->work, do_waiting);
	d->inflight = alloc_percpu(struct dm_remap_inflight);
	if (!d->inflight)
		return -ENOMEM;
	d->mover = dm_remap_mover_alloc(&d->metadata, DM_REMAP_REDO_SECTORS);
	if (!d->mover)
		goto out_inflight;
	d->workqueue = alloc_ordered_workqueue("dm-remap/%s", WQ_MEM_RECLAIM, name);
	if (d->workqueue)
		return 0;
	dm_remap_mover_free(d->mover);
out_inflight:
	free_percpu(d->inflight);
	return -ENOMEM;
}

void dm_remap_map_exit(struct dm_remap_device *d)
{
	destroy_workqueue(d->workqueue);
	dm_remap_mover_free(d->mover);
	free_percpu(d->inflight);
}

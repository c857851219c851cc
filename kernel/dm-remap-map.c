// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way of a bio: map, completion, and the worker for those that must wait.
 *
 * A bio goes to main, or, where a record says so, to the spare; it is cut where the
 * answer changes. Two kinds wait for the worker: I/O to a range that is being copied
 * (held), and a write to a range that is pending, which goes to the spare.
 *
 * In flight. Who copies a range must know that no write is still on its way to the
 * old place, and who gives a spare range up that nothing is on its way to it. So
 * writes to main and all I/O to the spare are counted, per CPU, in two generations.
 * A lookup and the count that follows it are one section with preemption off;
 * see dm_remap_drain for the other side.
 */
#include "dm-remap.h"

#include <linux/delay.h>

/* dm_remap_io.flags */
#define IO_COUNTED	0x1		/* in inflight->n[generation] */
#define IO_SPARE_WRITE	0x2		/* a flush of the spare must cover it */
#define IO_SPARE_FLUSH	0x4

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

static int core_stop(struct dm_remap_device *d)
{
	return dm_remap_kernel_ops.stop(d);
}

static int inflight_wait(struct dm_remap_device *d, int generation)
{
	int ret = 0;

	while (!ret && inflight_sum(d, generation)) {
		usleep_range(100, 500);
		ret = core_stop(d);
	}
	return ret;
}

/*
 * Everything that was mapped before has completed. The caller has marked its range
 * in the table. After the first grace period every map sees that mark; the others
 * have counted themselves. The generation is switched, and counts in the old one only
 * fall, but for a map that read the old generation before the switch and counts
 * after it: the second grace period waits for that one, or the sum over the CPUs
 * could be zero while it is added up. A generation that an interrupted drain left
 * behind is waited for first. d->metadata.move_lock makes drains one at a time.
 */
int dm_remap_drain(void *ctx)
{
	struct dm_remap_device *d = ctx;
	int old = d->generation;
	int ret;

	lockdep_assert_held(&d->metadata.move_lock);
	ret = inflight_wait(d, !old);
	if (ret)
		return ret;
	synchronize_rcu_expedited();
	WRITE_ONCE(d->generation, !old);
	synchronize_rcu_expedited();
	return inflight_wait(d, old);
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
	       !d->features.no_auto_remap && READ_ONCE(d->metadata.mode) < DM_REMAP_MODE_RO;
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

static void wait_for_worker(struct dm_remap_device *d, struct bio *bio, struct dm_remap_io *io)
{
	unsigned long flags;

	io->done = 0;
	io->status = BLK_STS_OK;
	atomic_set(&io->pieces, 1);
	spin_lock_irqsave(&d->waiting_lock, flags);
	bio_list_add(&d->waiting, bio);
	spin_unlock_irqrestore(&d->waiting_lock, flags);
	/* Even for a held range: it may have been released since it was looked up. */
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

	io->device = d;
	io->flags = 0;
	if (unlikely(bio->bi_opf & REQ_PREFLUSH))
		return map_flush(d, bio, io);

	look_and_count(d, bio, sector, bio_sectors(bio), &e, &io->flags, &io->generation);
	if (unlikely(e.length < bio_sectors(bio)))
		dm_accept_partial_bio(bio, e.length);

	if (unlikely(must_wait(d, bio, &e))) {
		/* A pending range is not held: the bio may have been counted on its way to main. */
		if (io->flags & IO_COUNTED)
			inflight_leave(d, io->generation);
		io->flags = 0;
		if (bio->bi_opf & REQ_NOWAIT)
			bio_wouldblock_error(bio);
		else
			wait_for_worker(d, bio, io);
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

/* Keeps the highest: flushes may complete in any order. */
static void spare_flush_done(struct dm_remap_device *d, u64 covers)
{
	s64 seen = atomic64_read(&d->spare_flushed);

	while ((u64)seen < covers && !atomic64_try_cmpxchg(&d->spare_flushed, &seen, covers))
		;
}

static void count_error(struct dm_remap_device *d, const struct bio *bio, blk_status_t error)
{
	/* EAGAIN is an answer to NOWAIT, and a discard is advice. */
	if (error == BLK_STS_AGAIN || bio_op(bio) == REQ_OP_DISCARD)
		return;
	dm_remap_count(&d->metadata, op_is_write(bio_op(bio)) ? DM_REMAP_WRITE_ERRORS :
								DM_REMAP_READ_ERRORS, 1);
}

static void io_completed(struct dm_remap_device *d, u8 flags, u8 generation, bool ok)
{
	if (!(flags & IO_COUNTED))
		return;
	/* Before the write is acknowledged: a flush that follows must see it. */
	if (ok && (flags & IO_SPARE_WRITE))
		atomic64_inc(&d->spare_written);
	inflight_leave(d, generation);
}

int dm_remap_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dm_remap_device *d = io->device;

	if (io->flags)
		io_completed(d, io->flags, io->generation, !*error);
	if ((io->flags & IO_SPARE_FLUSH) && !*error)
		spare_flush_done(d, io->flush_covers);
	if (unlikely(*error))
		count_error(d, bio, *error);
	return DM_ENDIO_DONE;
}

/* ---- the worker ---- */

/* A part of a waiting bio, on its way. */
struct piece {
	struct bio *parent;
	u8 flags;
	u8 generation;
	struct bio bio;		/* last: the bio_set puts its vectors behind */
};

/* One reference less; the last one ends the bio, and with it our part. */
static void waiting_put(struct bio *parent)
{
	struct dm_remap_io *io = dm_per_bio_data(parent, sizeof(*io));

	if (!atomic_dec_and_test(&io->pieces))
		return;
	parent->bi_status = READ_ONCE(io->status);
	bio_endio(parent);
}

static void piece_end_io(struct bio *bio)
{
	struct piece *p = container_of(bio, struct piece, bio);
	struct bio *parent = p->parent;
	struct dm_remap_io *io = dm_per_bio_data(parent, sizeof(*io));

	io_completed(io->device, p->flags, p->generation, !bio->bi_status);
	if (bio->bi_status)
		WRITE_ONCE(io->status, bio->bi_status);
	bio_put(bio);
	waiting_put(parent);
}

static void piece_submit(struct dm_remap_device *d, struct bio *parent, struct dm_remap_io *io,
			 sector_t sector, const struct dm_remap_extent *e, u8 flags, u8 generation)
{
	struct bio *bio = bio_alloc_clone(d->main_bdev, parent, GFP_NOIO, &d->pieces);
	struct piece *p = container_of(bio, struct piece, bio);

	p->parent = parent;
	p->flags = flags;
	p->generation = generation;
	bio->bi_end_io = piece_end_io;
	/* Nobody polls for a piece, and it has waited enough to be worth trying hard. */
	bio->bi_opf &= ~(REQ_POLLED | REQ_NOWAIT | REQ_RAHEAD | REQ_FAILFAST_MASK);
	bio_trim(bio, io->done, e->length);
	redirect(d, bio, sector, e);
	atomic_inc(&io->pieces);
	if (bio_op(bio) == REQ_OP_DISCARD && e->kind == DM_REMAP_MAPPED && !d->spare_discards)
		bio_endio(bio);
	else
		dm_submit_bio_remap(parent, bio);
}

/* Private copy of a part of a write: its pages may change while we work on them. */
static void copy_data(void *to, struct bio *bio, u32 from, u32 sectors)
{
	struct bvec_iter start = bio->bi_iter, iter;
	struct bio_vec bv;

	if (bio_op(bio) == REQ_OP_WRITE_ZEROES) {
		memset(to, 0, sectors << SECTOR_SHIFT);
		return;
	}
	bio_advance_iter(bio, &start, from << SECTOR_SHIFT);
	start.bi_size = sectors << SECTOR_SHIFT;
	__bio_for_each_segment(bv, bio, iter, start) {
		memcpy_from_bvec(to, &bv);
		to += bv.bv_len;
	}
}

/*
 * A write to a pending range, from io->done on: to the spare as far as the range
 * goes. 0: something was done, look again.
 */
static int pending_write(struct dm_remap_device *d, struct bio *bio, struct dm_remap_io *io,
			 sector_t sector, u32 sectors)
{
	u32 done;
	int ret;

	sectors = min(sectors, DM_REMAP_BOUNCE_SECTORS);
	copy_data(d->bounce, bio, io->done, sectors);
	ret = dm_remap_write_pending(&d->metadata, sector, sectors, d->bounce, &done);
	io->done += done;
	return ret;
}

/* Hands on what can go; false: the rest waits for a held range. */
static bool waiting_advance(struct dm_remap_device *d, struct bio *bio, struct dm_remap_io *io)
{
	sector_t start = dm_target_offset(d->ti, bio->bi_iter.bi_sector);
	bool to_main = false;

	while (io->done < bio_sectors(bio) && !READ_ONCE(io->status)) {
		sector_t sector = start + io->done;
		struct dm_remap_extent e;
		u8 flags, generation;

		look_and_count(d, bio, sector, bio_sectors(bio) - io->done, &e, &flags,
			       &generation);
		if (e.flags & DM_REMAP_F_HELD)
			return false;
		if (e.flags & DM_REMAP_F_DOUBT) {
			WRITE_ONCE(io->status, BLK_STS_IOERR);
			break;
		}
		if (!to_main && must_wait(d, bio, &e)) {
			inflight_leave(d, generation);
			/* What the spare does not take, main may. */
			to_main = pending_write(d, bio, io, sector, e.length);
			continue;
		}
		piece_submit(d, bio, io, sector, &e, flags, generation);
		io->done += e.length;
	}
	return true;
}

static void do_waiting(struct work_struct *work)
{
	struct dm_remap_device *d = container_of(work, struct dm_remap_device, work);
	/* Reclaim may be waiting for the very writes that are handled here. */
	unsigned int reclaim = memalloc_noreclaim_save();
	struct bio_list list, still;
	struct bio *bio;

	bio_list_init(&still);
	spin_lock_irq(&d->waiting_lock);
	list = d->waiting;
	bio_list_init(&d->waiting);
	spin_unlock_irq(&d->waiting_lock);

	while ((bio = bio_list_pop(&list))) {
		struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));

		if (waiting_advance(d, bio, io))
			waiting_put(bio);
		else
			bio_list_add(&still, bio);
	}
	/* Who releases a range queues this work again, also while it runs. */
	spin_lock_irq(&d->waiting_lock);
	bio_list_merge_head(&d->waiting, &still);
	spin_unlock_irq(&d->waiting_lock);
	dm_remap_device_event(d);
	memalloc_noreclaim_restore(reclaim);
}

void dm_remap_released(void *ctx)
{
	struct dm_remap_device *d = ctx;

	queue_work(d->workqueue, &d->work);
}

/* ---- set-up ---- */

int dm_remap_map_init(struct dm_remap_device *d, const char *name)
{
	int ret = -ENOMEM;

	spin_lock_init(&d->waiting_lock);
	bio_list_init(&d->waiting);
	INIT_WORK(&d->work, do_waiting);
	d->inflight = alloc_percpu(struct dm_remap_inflight);
	if (!d->inflight)
		return ret;
	d->bounce = dm_remap_zalloc(DM_REMAP_BOUNCE_SECTORS << SECTOR_SHIFT);
	if (!d->bounce)
		goto out_inflight;
	d->workqueue = alloc_ordered_workqueue("dm-remap/%s", WQ_MEM_RECLAIM, name);
	if (!d->workqueue)
		goto out_bounce;
	ret = bioset_init(&d->pieces, 16, offsetof(struct piece, bio), 0);
	if (!ret)
		return 0;
	destroy_workqueue(d->workqueue);
out_bounce:
	dm_remap_free(d->bounce);
out_inflight:
	free_percpu(d->inflight);
	return ret;
}

void dm_remap_map_exit(struct dm_remap_device *d)
{
	destroy_workqueue(d->workqueue);
	bioset_exit(&d->pieces);
	dm_remap_free(d->bounce);
	free_percpu(d->inflight);
}

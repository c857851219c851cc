// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way of a bio: map, completion, and the worker for those that cannot simply go on.
 *
 * A bio goes to main, or, where a record says so, to the spare; it is cut where the
 * answer changes. The worker sees to five kinds, through the core:
 *
 *	a bio that an underlying device failed with an error that may be its media's;
 *	a write with FUA that may be lost, as a loss was told to others;
 *	I/O to a range that is being copied (held);
 *	a write to a range that is pending;
 *	zeros for the spare.
 *
 * In flight. Who copies a range must know that no write is still on its way to the
 * old place, and who gives a spare range up that nothing is on its way to it. So
 * writes to main and all I/O to the spare are counted by region, per CPU, in one of two sets
 * of counters. A lookup and the count that follows it are one section with preemption off;
 * see dm_remap_drain for the other side. A bio that waits for the worker is not
 * counted, and what the worker itself does is done under the lock of those who drain.
 */
#include "dm-remap.h"
#include "dm-remap-trace.h"

#include <linux/delay.h>

/* Marks of a bio. Most have none. All other bits are the counter that it is counted in, or 0. */
#define IO_SPARE	0x1		/* it is on the spare, not on main */
#define IO_SPARE_WRITE	0x2		/* a flush of the spare must cover it */
#define IO_FLUSH	0x4
#define IO_FUA		0x8		/* FUA, for which its device may be flushed behind it */
#define IO_WATCHED	0x10		/* a failure of main waits to be judged */
#define IO_FAILED	0x20		/* it was tried once */
#define IO_DECIDED	0x40		/* the worker has given it its status */
#define IO_MARKS	0x7f

/* A clone's bi_private is the target's, and nearer than dm_per_bio_data. */
static unsigned long marks_of(const struct bio *bio)
{
	return (unsigned long)bio->bi_private;
}

static void mark(struct bio *bio, unsigned long marks)
{
	bio->bi_private = (void *)marks;
}

/* ---- counting ---- */

/*
 * A bio is counted in the slot of the region in which it begins. Few regions share a slot at a
 * time, so who waits for one seldom waits for another. A bio longer than a region has the last.
 */
#define SLOTS 16
#define SLOT_LONG SLOTS

/* The marks of a bio have the low bits of a counter's address. */
struct dm_remap_inflight {
	unsigned long slot[SLOTS + 1][(IO_MARKS + 1) / sizeof(unsigned long)];
};

static unsigned int slot_of(u64 region)
{
	return region % SLOTS;
}

/* In the section of the lookup that decided where the bio goes. Returns its marks. */
static unsigned long inflight_enter(struct dm_remap_device *d, const struct bio *bio,
				    sector_t sector)
{
	struct dm_remap_inflight __percpu *inflight = READ_ONCE(d->inflight);
	unsigned int slot = slot_of(sector >> DM_REMAP_REGION_SHIFT);
	unsigned long __percpu *counter;

	if (unlikely(bio->bi_iter.bi_size > DM_REMAP_REGION_SECTORS << SECTOR_SHIFT))
		slot = SLOT_LONG;
	counter = &inflight->slot[slot][0];
	this_cpu_inc(*counter);
	return (__force unsigned long)counter;
}

static void inflight_leave(unsigned long marks)
{
	unsigned long __percpu *counter = (__force unsigned long __percpu *)(marks & ~IO_MARKS);

	if (!counter)
		return;
	smp_wmb(); /* who finds that it has left sees what it did; pairs with none_in_flight */
	this_cpu_dec(*counter);
}

static unsigned long slot_sum(struct dm_remap_inflight __percpu *inflight, unsigned int slot)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(inflight, cpu)->slot[slot][0]);
	return sum;
}

/* Is a bio among those counted that may touch a region from @first to @last? */
static bool any_in_flight(struct dm_remap_inflight __percpu *inflight, u64 first, u64 last)
{
	u64 region;

	/* One that begins in the region before may reach into the first. */
	for (region = first ? first - 1 : 0; region <= last; region++)
		if (slot_sum(inflight, slot_of(region)))
			return true;
	return slot_sum(inflight, SLOT_LONG);
}

/*
 * Without @wait it gives the others a tenth of a second: I/O that takes no longer is no reason to
 * give up. False: there are some yet.
 */
static bool none_in_flight(struct dm_remap_inflight __percpu *inflight, u64 first, u64 last,
			   bool wait)
{
	unsigned long end = jiffies + HZ / 10;
	bool any;

	while ((any = any_in_flight(inflight, first, last)) &&
	       (wait || time_before(jiffies, end)))
		usleep_range(100, 500);
	smp_rmb(); /* pairs with inflight_leave */
	return !any;
}

/*
 * Has all that was mapped before, and may touch the range, completed? The caller has marked its
 * range in the table. After the first grace period every map sees that mark; the others
 * have counted themselves. Then the counters are exchanged. A map that read the old
 * counters before the exchange may count after it: the second grace period waits for such
 * maps. From there on the old counters only fall, so that a sum over the CPUs is zero only
 * if all have left. Those that are exchanged for them must have been zero before: they would
 * hide who has been in flight for two drains. drain_lock makes drains one at a time.
 */
bool dm_remap_drain(void *ctx, u64 start, u64 length, bool wait)
{
	u64 first = start >> DM_REMAP_REGION_SHIFT;
	u64 last = (start + length - 1) >> DM_REMAP_REGION_SHIFT;
	struct dm_remap_device *d = ctx;
	struct dm_remap_inflight __percpu *old;
	bool none;

	mutex_lock(&d->drain_lock);
	old = d->inflight;
	none = none_in_flight(d->inflight_next, first, last, wait);
	if (none) {
		synchronize_rcu_expedited();
		WRITE_ONCE(d->inflight, d->inflight_next);
		d->inflight_next = old;
		synchronize_rcu_expedited();
		none = none_in_flight(old, first, last, wait);
	}
	mutex_unlock(&d->drain_lock);
	return none;
}

static void inflight_free(struct dm_remap_device *d)
{
	free_percpu(d->inflight);
	free_percpu(d->inflight_next);
}

static int inflight_alloc(struct dm_remap_device *d)
{
	d->inflight = __alloc_percpu(sizeof(*d->inflight), IO_MARKS + 1);
	d->inflight_next = __alloc_percpu(sizeof(*d->inflight), IO_MARKS + 1);
	if (d->inflight && d->inflight_next)
		return 0;
	inflight_free(d);
	return -ENOMEM;
}

/* ---- map ---- */

static enum dm_remap_kind_of_io kind_of(const struct bio *bio)
{
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return DM_REMAP_IO_READ;
	case REQ_OP_WRITE:
		return DM_REMAP_IO_WRITE;
	case REQ_OP_WRITE_ZEROES:
		return DM_REMAP_IO_ZEROES;
	default:
		return DM_REMAP_IO_DISCARD;
	}
}

static enum dm_remap_direction direction_of(const struct bio *bio)
{
	return op_is_write(bio_op(bio)) ? DM_REMAP_WRITE : DM_REMAP_READ;
}

/*
 * Nobody flushes a device that says it has no cache. The mapped device says so if neither disk had
 * one when the table was loaded, and the spare's may have been switched on since. Each write
 * to the spare must then be durable by itself.
 */
static bool nobody_flushes_spare(const struct dm_remap_device *d)
{
	return bdev_write_cache(d->spare_bdev) && !bdev_write_cache(dm_disk(d->dm)->part0);
}

/* Is its way plain, to main? Then it is counted, if it has to be. */
static bool goes_plainly(struct dm_remap_device *d, struct bio *bio, sector_t sector)
{
	bool plain;

	if (!op_is_write(bio_op(bio))) {
		mark(bio, 0);
		return dm_remap_way_is_plain(&d->metadata, sector, bio_sectors(bio));
	}
	preempt_disable();
	plain = dm_remap_way_is_plain(&d->metadata, sector, bio_sectors(bio));
	if (likely(plain))
		mark(bio, inflight_enter(d, bio, sector));
	preempt_enable();
	return plain;
}

/* A write to the spare: a flush must cover it, or it has FUA. Returns its marks. */
static unsigned long spare_write_enter(struct dm_remap_device *d, struct bio *bio)
{
	if (unlikely(bio_op(bio) == REQ_OP_WRITE && nobody_flushes_spare(d)))
		bio->bi_opf |= REQ_FUA;
	if (bio->bi_opf & REQ_FUA)
		return 0;
	dm_remap_spare_write_begins(&d->metadata);
	return IO_SPARE_WRITE;
}

/*
 * The way of the bio, which is marked as counted if a drain must wait for it. One section, so that
 * who changes the table and then drains finds it either counted or on the new way.
 */
static enum dm_remap_way way_of(struct dm_remap_device *d, struct bio *bio, sector_t sector,
				struct dm_remap_extent *e)
{
	enum dm_remap_kind_of_io kind = kind_of(bio);
	unsigned long marks = 0;
	enum dm_remap_way way;

	preempt_disable();
	way = dm_remap_find_way(&d->metadata, kind, sector, bio_sectors(bio), e);
	/*
	 * dm keeps a list in a polled bio, and marks it (REQ_DM_POLL_LIST). The rest of a cut one
	 * would take the mark along. A dm device below would follow a list that is not there.
	 */
	if (unlikely(bio->bi_opf & REQ_POLLED) && e->length < bio_sectors(bio)) {
		way = kind == DM_REMAP_IO_DISCARD ? DM_REMAP_WAY_ANSWERED : DM_REMAP_WAY_WORKER;
		e->length = bio_sectors(bio);
	}
	if (dm_remap_way_counts(way, kind))
		marks = inflight_enter(d, bio, sector);
	if (way == DM_REMAP_WAY_SPARE)
		marks |= IO_SPARE;
	if (way == DM_REMAP_WAY_SPARE && kind != DM_REMAP_IO_READ)
		marks |= spare_write_enter(d, bio);
	preempt_enable();
	mark(bio, marks);
	return way;
}

/* Its end will have to ask what the device told others meanwhile (fua_lost). */
static noinline void goes_with_fua(struct dm_remap_device *d, struct bio *bio,
				   enum dm_remap_dev dev)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	bool spare = dev == DM_REMAP_SPARE;

	if (dm_remap_fua_of(spare ? d->spare_bdev : d->main_bdev) == DM_REMAP_FUA_OWN)
		return;
	io->losses_told = dm_remap_losses_told(&d->metadata, dev);
	mark(bio, marks_of(bio) | IO_FUA);
}

/* Its end will have something to say of main (worked). @pending: a record there is. */
static noinline void goes_watched(struct dm_remap_device *d, struct bio *bio, bool pending)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));

	io->failure = dm_remap_main_failures(&d->metadata, direction_of(bio));
	io->pending = pending;
	mark(bio, marks_of(bio) | IO_WATCHED);
}

static void send_to_main(struct dm_remap_device *d, struct bio *bio, sector_t sector)
{
	dm_remap_set_dev(bio, d->main_bdev);
	bio->bi_iter.bi_sector = d->main_start + sector;
}

/*
 * io_uring sends all that is polled with NOWAIT, and a program that polls would get the answer that
 * it blocks as an error. On the spare, and with the worker, nothing is polled: it may wait.
 */
static bool may_not_block(const struct bio *bio)
{
	return (bio->bi_opf & (REQ_NOWAIT | REQ_POLLED)) == REQ_NOWAIT;
}

/*
 * The mapped device offers what main can do. If the spare can't, the bio is answered here. It
 * returns what map does. The spare completes by interrupt, even where it could be polled.
 */
static int send_to_spare(struct dm_remap_device *d, struct bio *bio, sector_t sector)
{
	if (unlikely(bio->bi_opf & REQ_NOWAIT) && !bdev_nowait(d->spare_bdev)) {
		if (may_not_block(bio)) {
			bio_wouldblock_error(bio);
			return DM_MAPIO_SUBMITTED;
		}
		bio->bi_opf &= ~REQ_NOWAIT;
	}
	bio->bi_opf &= ~REQ_POLLED;
	if (unlikely(bio->bi_opf & REQ_FUA))
		goes_with_fua(d, bio, DM_REMAP_SPARE);
	dm_remap_set_dev(bio, d->spare_bdev);
	bio->bi_iter.bi_sector = sector;
	return DM_MAPIO_REMAPPED;
}

/* For the worker, which may have to do it over when others have consumed it. */
static void remember(struct bio *bio, sector_t sector)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));

	io->iter = bio->bi_iter;
	io->iter.bi_sector = sector;
}

static void wait_for_worker(struct dm_remap_device *d, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&d->waiting_lock, flags);
	bio_list_add(&d->waiting, bio);
	/* Under the lock: as soon as it can be taken, the device may go. */
	queue_work(d->workqueue, &d->work);
	spin_unlock_irqrestore(&d->waiting_lock, flags);
}

/* A flush comes twice: for main, and for the spare unless everything there is durable. */
static noinline int map_flush(struct dm_remap_device *d, struct bio *bio)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));

	if (READ_ONCE(d->metadata.mode) == DM_REMAP_MODE_FAIL)
		return DM_MAPIO_KILL;
	if (!dm_bio_get_target_bio_nr(bio)) {
		mark(bio, IO_FLUSH);
		io->flush_covers = 0;
		if (dm_remap_table_watched(&d->metadata.table)) {
			io->failure = dm_remap_main_flush_begins(&d->metadata);
			mark(bio, IO_FLUSH | IO_WATCHED);
		}
		dm_remap_set_dev(bio, d->main_bdev);
		return DM_MAPIO_REMAPPED;
	}
	mark(bio, IO_FLUSH | IO_SPARE);
	io->flush_covers = dm_remap_flush_covers(&d->metadata, DM_REMAP_SPARE);
	if (dm_remap_spare_is_flushed(&d->metadata)) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	dm_remap_set_dev(bio, d->spare_bdev);
	return DM_MAPIO_REMAPPED;
}

static int send_to_worker(struct dm_remap_device *d, struct bio *bio)
{
	if (may_not_block(bio))
		bio_wouldblock_error(bio);
	else
		wait_for_worker(d, bio);
	return DM_MAPIO_SUBMITTED;
}

static noinline int map_by_table(struct dm_remap_device *d, struct bio *bio, sector_t sector)
{
	struct dm_remap_extent e;
	enum dm_remap_way way = way_of(d, bio, sector, &e);

	if (unlikely(e.length < bio_sectors(bio)))
		dm_accept_partial_bio(bio, e.length);
	remember(bio, sector);
	switch (way) {
	case DM_REMAP_WAY_MAIN:
		if (unlikely(bio->bi_opf & REQ_FUA))
			goes_with_fua(d, bio, DM_REMAP_MAIN);
		if (e.kind == DM_REMAP_PENDING || dm_remap_table_watched(&d->metadata.table))
			goes_watched(d, bio, e.kind == DM_REMAP_PENDING);
		send_to_main(d, bio, sector);
		return DM_MAPIO_REMAPPED;
	case DM_REMAP_WAY_SPARE:
		return send_to_spare(d, bio, e.spare);
	case DM_REMAP_WAY_WORKER:
		return send_to_worker(d, bio);
	case DM_REMAP_WAY_ANSWERED:
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	default:
		return DM_MAPIO_KILL;
	}
}

/* A flush, or a write with FUA. */
static noinline int map_durable(struct dm_remap_device *d, struct bio *bio, sector_t sector)
{
	return bio->bi_opf & REQ_PREFLUSH ? map_flush(d, bio) : map_by_table(d, bio, sector);
}

int dm_remap_map(struct dm_target *ti, struct bio *bio)
{
	struct dm_remap_target *t = ti->private;
	struct dm_remap_device *d = t->device;
	sector_t sector = dm_target_offset(ti, bio->bi_iter.bi_sector);

	if (unlikely(bio->bi_opf & (REQ_PREFLUSH | REQ_FUA)))
		return map_durable(d, bio, sector);
	if (!goes_plainly(d, bio, sector))
		return map_by_table(d, bio, sector);
	remember(bio, sector);
	send_to_main(d, bio, sector);
	return DM_MAPIO_REMAPPED;
}

/* ---- completion ---- */

/* A disk without a command for zeros finds out when it gets one: its limit is 0 from then on. */
static bool has_no_zeroes(struct dm_remap_device *d, const struct bio *bio)
{
	return bio_op(bio) == REQ_OP_WRITE_ZEROES && !bdev_write_zeroes_sectors(d->main_bdev);
}

/* Is it worth looking closer? Of what is read ahead, too: its neighbours may be at fault. */
static bool may_be_media(struct dm_remap_device *d, const struct bio *bio, blk_status_t error)
{
	return !(bio->bi_opf & REQ_PREFLUSH) &&
	       !(error == BLK_STS_TARGET && has_no_zeroes(d, bio)) &&
	       dm_remap_fails_for_worker(kind_of(bio), dm_remap_errno_of(error));
}

static void count_error(struct dm_remap_device *d, const struct bio *bio, blk_status_t error)
{
	/* EAGAIN is an answer to NOWAIT, and a discard is advice. */
	if (error == BLK_STS_AGAIN || bio_op(bio) == REQ_OP_DISCARD)
		return;
	dm_remap_count(&d->metadata, op_is_write(bio_op(bio)) ? DM_REMAP_WRITE_ERRORS :
								DM_REMAP_READ_ERRORS, 1);
}

static int io_failed(struct dm_remap_device *d, struct bio *bio, blk_status_t error)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));

	count_error(d, bio, error);
	if (!may_be_media(d, bio, error))
		return DM_ENDIO_DONE;
	trace_dm_remap_error(disk_devt(dm_disk(d->dm)), io->iter.bi_sector,
			     io->iter.bi_size >> SECTOR_SHIFT, op_is_write(bio_op(bio)),
			     blk_status_to_errno(error));
	io->failure = marks_of(bio) & IO_SPARE ?
			0 : dm_remap_main_failed(&d->metadata, direction_of(bio));
	mark(bio, IO_FAILED);
	wait_for_worker(d, bio);
	return DM_ENDIO_INCOMPLETE;
}

static void flush_ended(struct dm_remap_device *d, struct bio *bio, blk_status_t *error)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	enum dm_remap_dev dev = marks_of(bio) & IO_SPARE ? DM_REMAP_SPARE : DM_REMAP_MAIN;
	int told = dm_remap_flush_ended(&d->metadata, dev, io->flush_covers,
					blk_status_to_errno(*error));

	*error = *error ?: errno_to_blk_status(told);
	if (*error)
		count_error(d, bio, *error);
}

static bool fua_lost(struct dm_remap_device *d, struct bio *bio, blk_status_t error)
{
	const struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	enum dm_remap_dev dev = marks_of(bio) & IO_SPARE ? DM_REMAP_SPARE : DM_REMAP_MAIN;

	return dm_remap_fua_lost(&d->metadata, dev, io->losses_told, blk_status_to_errno(error));
}

/*
 * The worker will look at a pending range that was read. While it has not, only the neighbours of
 * that range are added: a later read of the others will tell again.
 */
static void tell_read_well(struct dm_remap_device *d, u64 start, u64 end)
{
	struct dm_remap_range *r = &d->read_well;
	unsigned long flags;

	spin_lock_irqsave(&d->waiting_lock, flags);
	if (r->start == r->end) {
		r->start = start;
		r->end = end;
	} else if (start <= r->end && r->start <= end) {
		r->start = min(r->start, start);
		r->end = max(r->end, end);
	}
	queue_work(d->workqueue, &d->work);
	spin_unlock_irqrestore(&d->waiting_lock, flags);
}

/*
 * Main has done something well while a failure of it waits to be judged, or the breaker is open. A
 * discard may have changed nothing.
 */
static void worked(struct dm_remap_device *d, const struct bio *bio)
{
	const struct dm_remap_io *io = dm_per_bio_data((struct bio *)bio, sizeof(*io));
	struct dm_remap_metadata *md = &d->metadata;

	if (kind_of(bio) == DM_REMAP_IO_DISCARD)
		return;
	if (marks_of(bio) & IO_FLUSH)
		dm_remap_main_worked(md, DM_REMAP_WRITE, io->failure);
	else if (op_is_write(bio_op(bio)) && !(bio->bi_opf & REQ_FUA) &&
		 bdev_write_cache(d->main_bdev))
		dm_remap_main_cached(md, io->failure);
	else
		dm_remap_main_worked_at(md, direction_of(bio), io->failure, io->iter.bi_sector);
	if (!(marks_of(bio) & IO_FLUSH) && io->pending && bio_op(bio) == REQ_OP_READ)
		tell_read_well(d, io->iter.bi_sector,
			       io->iter.bi_sector + (io->iter.bi_size >> SECTOR_SHIFT));
	/* Before it completes: no suspend goes on without the work. */
	if (dm_remap_breaker_due(md))
		queue_work(d->workqueue, &d->work);
}

static noinline int end_unusual(struct dm_remap_device *d, struct bio *bio, blk_status_t *error)
{
	unsigned long marks = marks_of(bio);

	if (marks & IO_DECIDED)
		return DM_ENDIO_DONE;
	/* Before the write is acknowledged: a flush that follows must see it. */
	if (marks & IO_SPARE_WRITE)
		dm_remap_spare_write_ended(&d->metadata, !*error);
	if (marks & IO_WATCHED && !*error)
		worked(d, bio);
	if (marks & IO_FLUSH) {
		flush_ended(d, bio, error);
		return DM_ENDIO_DONE;
	}
	inflight_leave(marks);
	if ((marks & IO_FUA) && fua_lost(d, bio, *error)) {
		mark(bio, 0);
		wait_for_worker(d, bio);
		return DM_ENDIO_INCOMPLETE;
	}
	return *error ? io_failed(d, bio, *error) : DM_ENDIO_DONE;
}

int dm_remap_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct dm_remap_target *t = ti->private;
	unsigned long marks = marks_of(bio);

	if (unlikely(*error || marks & IO_MARKS))
		return end_unusual(t->device, bio, error);
	inflight_leave(marks);
	return DM_ENDIO_DONE;
}

/* ---- the worker ---- */

/* How long a batch takes up more bios: the first write waits for the last. */
#define BATCH_TIME (2 * HZ)

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
		     u32 sectors, struct dm_remap_tried *tried)
{
	void *data = dm_remap_mover_buffer(d->mover);
	int ret;

	/* What cannot be read must not be what somebody else read before. */
	memset(data, 0, sectors << SECTOR_SHIFT);
	ret = dm_remap_redo_read(d->mover, sector, sectors, data, tried);
	copy_to_bio(bio, from, sectors, data);
	return ret;
}

static int redo_write(struct dm_remap_device *d, struct bio *bio, sector_t sector, u32 from,
		      u32 sectors, struct dm_remap_tried *tried)
{
	void *data = dm_remap_mover_buffer(d->mover);

	if (bio_op(bio) == REQ_OP_WRITE_ZEROES)
		memset(data, 0, sectors << SECTOR_SHIFT);
	else
		copy_from_bio(data, bio, from, sectors);
	return dm_remap_redo_write(d->mover, sector, sectors, data, tried);
}

/* All of the bio, in parts. A bad block is no reason not to read the rest. */
static int redo(struct dm_remap_device *d, struct bio *bio)
{
	struct dm_remap_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct dm_remap_tried tried = {};
	u32 from, n, sectors;
	int ret = 0, error = 0;

	/* As it came: who completed it has consumed it. */
	bio->bi_iter = io->iter;
	sectors = bio_sectors(bio);
	if (marks_of(bio) & IO_FAILED) {
		tried.failure = io->failure;
		tried.sectors = sectors;
	}
	for (from = 0; from < sectors && (ret == 0 || ret == -EIO); from += n) {
		sector_t sector = io->iter.bi_sector + from;

		n = min(sectors - from, DM_REMAP_REDO_SECTORS);
		if (bio_op(bio) == REQ_OP_READ)
			ret = redo_read(d, bio, sector, from, n, &tried);
		else
			ret = redo_write(d, bio, sector, from, n, &tried);
		error = error ?: ret;
	}
	return error;
}

static void decided(struct bio *bio)
{
	mark(bio, IO_DECIDED);
	/* It may have been completed once, and the queue has heard of that. */
	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
	bio_endio(bio);
}

static struct bio *next_waiting(struct dm_remap_device *d)
{
	struct bio *bio;

	spin_lock_irq(&d->waiting_lock);
	bio = bio_list_pop(&d->waiting);
	spin_unlock_irq(&d->waiting_lock);
	return bio;
}

/*
 * Does some of those that wait over, so that they share a commit. Writes wait for it, one that
 * failed too: it may have moved a part, and who writes that again must find it where it is then.
 * False: none waits.
 */
static bool redo_batch(struct dm_remap_device *d)
{
	struct bio_list writes = BIO_EMPTY_LIST;
	struct bio *bio = next_waiting(d);
	unsigned long end;
	unsigned int n;

	if (!bio)
		return false;
	dm_remap_redo_begin(d->mover);
	/* It may have waited for its turn. */
	end = jiffies + BATCH_TIME;
	for (n = 1; bio; n++) {
		if (op_is_write(bio_op(bio)))
			dm_remap_redo_next(d->mover);
		bio->bi_status = errno_to_blk_status(redo(d, bio));
		if (op_is_write(bio_op(bio)))
			bio_list_add(&writes, bio);
		else
			decided(bio);
		bio = n < DM_REMAP_BATCH_WRITES && time_before(jiffies, end) &&
		      !dm_remap_redo_failed(d->mover) ? next_waiting(d) : NULL;
	}
	dm_remap_redo_end(d->mover);
	/* In the order in which they were numbered. */
	for (n = 0; (bio = bio_list_pop(&writes)); n++) {
		if (!bio->bi_status)
			bio->bi_status = errno_to_blk_status(dm_remap_redo_result(d->mover, n));
		decided(bio);
	}
	return true;
}

/* The log tells what the worker has moved, now or when the next line is due. */
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

/* A pending range has been read from above, or it is time to look at one again. */
static u32 recheck(struct dm_remap_device *d)
{
	struct dm_remap_range hint;

	spin_lock_irq(&d->waiting_lock);
	hint = d->read_well;
	d->read_well.end = hint.start;
	spin_unlock_irq(&d->waiting_lock);
	if (hint.end > hint.start) {
		WRITE_ONCE(d->metadata.policy.recheck_pause, dm_remap_autosave_interval());
		dm_remap_recheck_begin(d->mover, hint.start, hint.end - hint.start);
	}
	return dm_remap_rechecks_wait(&d->metadata) ? dm_remap_recheck(d->mover) : 0;
}

/* Main is read without a request from above. A suspend does not wait for that. */
static void read_by_time(struct dm_remap_device *d)
{
	u32 wait = 0;

	if (!READ_ONCE(d->stop))
		wait = min_not_zero(recheck(d), dm_remap_breaker_probe(d->mover));
	if (wait)
		mod_delayed_work(d->workqueue, &d->later, wait * HZ);
}

static void do_later(struct work_struct *work)
{
	struct dm_remap_device *d = container_of(to_delayed_work(work), struct dm_remap_device,
						 later);

	queue_work(d->workqueue, &d->work);
}

void dm_remap_map_stop(struct dm_remap_device *d)
{
	flush_workqueue(d->workqueue);
	cancel_delayed_work_sync(&d->later);
	/* It may have called the worker, which does not arm it again, and may arm the other. */
	flush_workqueue(d->workqueue);
	cancel_delayed_work_sync(&d->tell);
	dm_remap_moves_tell(&d->metadata, true);
}

void dm_remap_map_watch_ends(struct dm_remap_device *d)
{
	spin_lock_irq(&d->waiting_lock);
	if (bio_list_empty(&d->waiting))
		dm_remap_watch_ends(&d->metadata);
	spin_unlock_irq(&d->waiting_lock);
}

static void do_waiting(struct work_struct *work)
{
	struct dm_remap_device *d = container_of(work, struct dm_remap_device, work);
	/* Reclaim may be waiting for the very writes that are handled here. */
	unsigned int reclaim = memalloc_noreclaim_save();

	while (redo_batch(d))
		;
	read_by_time(d);
	memalloc_noreclaim_restore(reclaim);
	dm_remap_breaker_look(&d->metadata);
	dm_remap_map_watch_ends(d);
	tell_moves(d);
	dm_remap_device_event(d);
}

/* ---- set-up ---- */

int dm_remap_map_init(struct dm_remap_device *d, const char *name)
{
	mutex_init(&d->drain_lock);
	spin_lock_init(&d->waiting_lock);
	bio_list_init(&d->waiting);
	INIT_WORK(&d->work, do_waiting);
	INIT_DELAYED_WORK(&d->tell, do_tell);
	INIT_DELAYED_WORK(&d->later, do_later);
	if (inflight_alloc(d))
		return -ENOMEM;
	d->mover = dm_remap_mover_alloc(&d->metadata, DM_REMAP_REDO_SECTORS);
	if (!d->mover)
		goto out_inflight;
	d->workqueue = alloc_ordered_workqueue("dm-remap/%s", WQ_MEM_RECLAIM, name);
	if (d->workqueue)
		return 0;
	dm_remap_mover_free(d->mover);
out_inflight:
	inflight_free(d);
	return -ENOMEM;
}

void dm_remap_map_exit(struct dm_remap_device *d)
{
	destroy_workqueue(d->workqueue);
	dm_remap_mover_free(d->mover);
	inflight_free(d);
	mutex_destroy(&d->drain_lock);
}

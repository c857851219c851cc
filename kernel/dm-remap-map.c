// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way of a bio: map and completion.
 *
 * A bio goes to main, or, where a record says so, to the spare; it is cut where the
 * answer changes. A worker sees to six kinds (dm-remap-worker.c):
 *
 *	a bio that an underlying device failed with an error that may be its media's;
 *	a write with FUA that may be lost, as a loss was told to others;
 *	I/O to a range that is being copied (held);
 *	I/O to a range that is pending;
 *	a write to a place on the spare that could not be read, or is not trusted;
 *	zeros for the spare.
 */
#include "dm-remap-bio.h"
#include "dm-remap-trace.h"

/* ---- map ---- */

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
	if (unlikely(is_long(bio)))
		return false;
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
	u64 sectors = bio_sectors(bio);
	unsigned long marks = 0;
	enum dm_remap_way way;

	/* Zeros may be for any length, and who waits for a region must not wait for them all. */
	if (unlikely(is_long(bio)) && kind != DM_REMAP_IO_DISCARD)
		sectors = DM_REMAP_REGION_SECTORS;
	preempt_disable();
	way = dm_remap_find_way(&d->metadata, kind, sector, sectors, e);
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
	struct dm_remap_io *io = io_of(bio);
	bool spare = dev == DM_REMAP_SPARE;

	if (dm_remap_fua_of(spare ? d->spare_bdev : d->main_bdev) == DM_REMAP_FUA_OWN)
		return;
	io->losses_told = dm_remap_losses_told(&d->metadata, dev);
	mark(bio, marks_of(bio) | IO_FUA);
}

/* Its end will have something to say of main (worked). */
static noinline void goes_watched(struct dm_remap_device *d, struct bio *bio)
{
	struct dm_remap_io *io = io_of(bio);

	io->failure = dm_remap_main_failures(&d->metadata, direction_of(bio));
	mark(bio, marks_of(bio) | IO_WATCHED);
}

static void send_to_main(struct dm_remap_device *d, struct bio *bio, sector_t sector)
{
	dm_remap_set_dev(bio, d->main_bdev);
	bio->bi_iter.bi_sector = d->main_start + sector;
}

/*
 * io_uring sends all that is polled with NOWAIT, and a program that polls would get the answer that
 * it blocks as an error. On the spare, and with a worker, nothing is polled: it may wait.
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

/* For a worker, which may have to do it over when others have consumed it. */
static void remember(struct bio *bio, sector_t sector)
{
	struct dm_remap_io *io = io_of(bio);

	io->iter = bio->bi_iter;
	io->iter.bi_sector = sector;
}

/* A flush comes twice: for main, and for the spare unless everything there is durable. */
static noinline int map_flush(struct dm_remap_device *d, struct bio *bio)
{
	struct dm_remap_io *io = io_of(bio);

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

static int send_to_worker(struct dm_remap_device *d, struct bio *bio, bool pending)
{
	if (may_not_block(bio))
		bio_wouldblock_error(bio);
	else
		dm_remap_wait_for_worker(d, bio, false, pending);
	return DM_MAPIO_SUBMITTED;
}

static int refuse(struct dm_remap_device *d, const struct bio *bio)
{
	count_error(d, bio, BLK_STS_IOERR);
	return DM_MAPIO_KILL;
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
			goes_watched(d, bio);
		send_to_main(d, bio, sector);
		return DM_MAPIO_REMAPPED;
	case DM_REMAP_WAY_SPARE:
		return send_to_spare(d, bio, e.spare);
	case DM_REMAP_WAY_WORKER:
		if (dm_remap_answer_is_known(&d->metadata, kind_of(bio), sector, &e))
			return refuse(d, bio);
		return send_to_worker(d, bio, e.kind == DM_REMAP_PENDING);
	case DM_REMAP_WAY_ANSWERED:
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	default:
		return refuse(d, bio);
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

static int io_failed(struct dm_remap_device *d, struct bio *bio, blk_status_t error)
{
	struct dm_remap_io *io = io_of(bio);

	count_error(d, bio, error);
	if (!may_be_media(d, bio, error))
		return DM_ENDIO_DONE;
	trace_dm_remap_error(disk_devt(dm_disk(d->dm)), io->iter.bi_sector,
			     io->iter.bi_size >> SECTOR_SHIFT, op_is_write(bio_op(bio)),
			     blk_status_to_errno(error));
	io->failure = marks_of(bio) & IO_SPARE ?
			0 : dm_remap_main_failed(&d->metadata, direction_of(bio));
	dm_remap_wait_for_worker(d, bio, true, false);
	return DM_ENDIO_INCOMPLETE;
}

static void flush_ended(struct dm_remap_device *d, struct bio *bio, blk_status_t *error)
{
	struct dm_remap_io *io = io_of(bio);
	enum dm_remap_dev dev = marks_of(bio) & IO_SPARE ? DM_REMAP_SPARE : DM_REMAP_MAIN;
	int told = dm_remap_flush_ended(&d->metadata, dev, io->flush_covers,
					blk_status_to_errno(*error));

	*error = *error ?: errno_to_blk_status(told);
	if (*error)
		count_error(d, bio, *error);
}

static bool fua_lost(struct dm_remap_device *d, struct bio *bio, blk_status_t error)
{
	const struct dm_remap_io *io = io_of((struct bio *)bio);
	enum dm_remap_dev dev = marks_of(bio) & IO_SPARE ? DM_REMAP_SPARE : DM_REMAP_MAIN;

	return dm_remap_fua_lost(&d->metadata, dev, io->losses_told, blk_status_to_errno(error));
}

/*
 * Main has done something well while a failure of it waits to be judged, or the breaker is open. A
 * discard may have changed nothing.
 */
static void worked(struct dm_remap_device *d, const struct bio *bio)
{
	const struct dm_remap_io *io = io_of((struct bio *)bio);
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
	/* A read of it may have failed meanwhile. */
	if (!(marks_of(bio) & IO_FLUSH) && op_is_write(bio_op(bio)))
		dm_remap_unread_forget(&md->schedule, io->iter.bi_sector,
				       io->iter.bi_size >> SECTOR_SHIFT);
	/* Before it completes: no suspend goes on without the work. */
	if (dm_remap_breaker_due(md))
		dm_remap_kick(d);
}

static noinline int end_unusual(struct dm_remap_device *d, struct bio *bio, blk_status_t *error)
{
	unsigned long marks = marks_of(bio);

	if (marks & IO_DECIDED)
		return marks & IO_GIVEN_BACK ? DM_ENDIO_REQUEUE : DM_ENDIO_DONE;
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
		dm_remap_wait_for_worker(d, bio, false, false);
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

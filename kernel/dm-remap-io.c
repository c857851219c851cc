// SPDX-License-Identifier: GPL-2.0-only
/*
 * Block I/O for the core, and the entry points to the metadata. By bios of our own:
 * dm-io does not tell an error of the media from one of the connection.
 */
#include "dm-remap.h"

#include <linux/completion.h>
#include <linux/highmem.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

#define CREATE_TRACE_POINTS
#include "dm-remap-trace.h"

/*
 * The core takes memory from the reserves while it holds a lock that reclaim may wait for. Bios
 * come from a pool of ours, and who is below has pools, too. A driver that took from the
 * reserves would do so without limit.
 */
static unsigned int without_reserves(void)
{
	unsigned int reclaim = current->flags & PF_MEMALLOC;

	current->flags &= ~PF_MEMALLOC;
	return reclaim;
}

static void with_reserves_again(unsigned int reclaim)
{
	current->flags |= reclaim;
}

/* ---- one transfer ---- */

static struct page *page_of(const void *p)
{
	return is_vmalloc_addr(p) ? vmalloc_to_page(p) : virt_to_page(p);
}

/* As much of @buf as one bio takes; returns how many bytes. */
static unsigned int fill_bio(struct bio *bio, void *buf, unsigned int size)
{
	unsigned int done = 0;

	while (done < size) {
		unsigned int offset = offset_in_page(buf + done);
		unsigned int n = min_t(unsigned int, size - done, PAGE_SIZE - offset);

		if (bio_add_page(bio, page_of(buf + done), n, offset) != n)
			break;
		done += n;
	}
	return done;
}

/* In jiffies. A device that is made of others has none of its own. */
static unsigned long timeout_of(struct block_device *bdev)
{
	return READ_ONCE(bdev_get_queue(bdev)->rq_timeout) ?: 30 * HZ;
}

struct transfer {
	struct completion done;
	unsigned long ended;		/* jiffies */
};

static void transfer_ended(struct transfer *t)
{
	t->ended = jiffies;
	complete(&t->done);
}

static void transfer_done(struct bio *bio)
{
	transfer_ended(bio->bi_private);
}

/*
 * Returns for how many jiffies the device had it. Not counted is how long submit_bio() waited for
 * room in its queue, nor how long it took until we ran again: on a machine short of
 * memory, either may be many seconds.
 */
static unsigned long submit_and_wait(struct bio *bio, struct transfer *t)
{
	unsigned long began;

	init_completion(&t->done);
	submit_bio(bio);
	began = jiffies;
	/* In pieces: it may take long, and is no hung task. */
	while (!wait_for_completion_io_timeout(&t->done, HZ))
		;
	return time_after(t->ended, began) ? t->ended - began : 0;
}

/*
 * A command that timed out fails with BLK_STS_IOERR, as bad sectors of some disks do. Only
 * the time it took tells the two apart: a disk that takes this long for an error without a reason
 * is about to time out. BLK_STS_MEDIUM and BLK_STS_TARGET are what the disk itself says, however
 * long it tried. A thin pool waits long for room before it says BLK_STS_NOSPC.
 */
static int error_of(blk_status_t status, struct block_device *bdev, unsigned long took)
{
	bool said_so = status == BLK_STS_MEDIUM || status == BLK_STS_TARGET ||
		       status == BLK_STS_NOSPC;

	if (status && !said_so && took > timeout_of(bdev) / 3)
		return -ETIMEDOUT;
	return dm_remap_errno_of(status);
}

/* What one request takes, in whole blocks of the media. */
static unsigned int request_sectors(struct request_queue *q)
{
	unsigned int most = queue_max_sectors(q);

	return round_down(most, queue_physical_block_size(q) >> SECTOR_SHIFT) ?: most;
}

/*
 * As much of @size bytes as one request takes, as a rule: of a bio that is split, the first part
 * can time out while the last waits for room, and only a smaller try tells. (It is split yet where
 * it begins within a block of the media, or the queue has limits besides those two.) Returns how
 * much, and how long it @took.
 */
static int bio_io(struct dm_remap_device *d, struct block_device *bdev, sector_t sector,
		  void *buf, unsigned int size, blk_opf_t opf, unsigned long *took)
{
	struct request_queue *q = bdev_get_queue(bdev);
	unsigned int pages = DIV_ROUND_UP(offset_in_page(buf) + size, PAGE_SIZE), n;
	unsigned short segments = bio_max_segs(min_t(unsigned int, pages, queue_max_segments(q)));
	struct bio *bio = bio_alloc_bioset(bdev, segments, opf, GFP_NOIO, &d->bios);
	struct transfer t;
	int ret;

	bio->bi_iter.bi_sector = sector;
	bio->bi_end_io = transfer_done;
	bio->bi_private = &t;
	n = fill_bio(bio, buf, min(size >> SECTOR_SHIFT, request_sectors(q)) << SECTOR_SHIFT);
	*took = submit_and_wait(bio, &t);
	ret = error_of(bio->bi_status, bdev, *took);
	bio_put(bio);
	return ret ?: n;
}

enum dm_remap_fua dm_remap_fua_of(struct block_device *bdev)
{
	struct request_queue *q = bdev_get_queue(bdev);

	if (!bdev_write_cache(bdev))
		return DM_REMAP_FUA_OWN;
	if (!queue_is_mq(q))
		return DM_REMAP_FUA_BELOW;
	return bdev_fua(bdev) ? DM_REMAP_FUA_OWN : DM_REMAP_FUA_BY_FLUSH;
}

static int io_in_parts(struct dm_remap_device *d, struct block_device *bdev, sector_t sector,
		       u32 sectors, void *buf, blk_opf_t opf)
{
	unsigned int left = sectors << SECTOR_SHIFT;
	bool vmalloced = is_vmalloc_addr(buf);

	if (vmalloced && op_is_write(opf))
		flush_kernel_vmap_range(buf, left);
	while (left) {
		unsigned long took;
		int n = bio_io(d, bdev, sector, buf, left, opf, &took);

		/*
		 * A command that timed out does not end before its time. This one may have waited
		 * behind others in the disk, or above it. If it was a flush that failed, it is not
		 * ours alone: the core sees to that.
		 */
		if (n == -ETIMEDOUT && took < timeout_of(bdev) &&
		    !(opf & REQ_FUA && dm_remap_fua_of(bdev) != DM_REMAP_FUA_OWN))
			n = bio_io(d, bdev, sector, buf, left, opf, &took);
		if (n < 0)
			return n;
		if (vmalloced && !op_is_write(opf))
			invalidate_kernel_vmap_range(buf, n);
		left -= n;
		buf += n;
		sector += n >> SECTOR_SHIFT;
	}
	return 0;
}

/* One synchronous transfer. */
static int sync_io(struct dm_remap_device *d, struct block_device *bdev, sector_t sector,
		   u32 sectors, void *buf, blk_opf_t opf)
{
	unsigned int reclaim = without_reserves();
	int ret = io_in_parts(d, bdev, sector, sectors, buf, opf);

	with_reserves_again(reclaim);
	return ret;
}

/* ---- flushes ---- */

struct flush {
	struct dm_remap_flush *flush;	/* NULL: nobody else uses the device */
	struct transfer transfer;
};

/*
 * The core hears of it here, before the block layer completes a flush that comes after this one,
 * even one that completes just after it.
 */
static void flush_done(struct bio *bio)
{
	struct flush *f = bio->bi_private;

	if (f->flush)
		dm_remap_own_flush_ended(f->flush, blk_status_to_errno(bio->bi_status));
	transfer_ended(&f->transfer);
}

/* Context: process, may block. 0 or a negative errno. */
static int flush_io(struct dm_remap_device *d, struct block_device *bdev,
		    struct dm_remap_flush *flush)
{
	unsigned int reclaim = without_reserves();
	struct flush f = { .flush = flush };
	struct bio *bio = bio_alloc_bioset(bdev, 0, REQ_OP_WRITE | REQ_SYNC | REQ_PREFLUSH,
					   GFP_NOIO, &d->bios);
	unsigned long took;
	int ret;

	bio->bi_end_io = flush_done;
	bio->bi_private = &f;
	took = submit_and_wait(bio, &f.transfer);
	ret = error_of(bio->bi_status, bdev, took);
	bio_put(bio);
	with_reserves_again(reclaim);
	return ret;
}

/* ---- the metadata ---- */

int dm_remap_metadata_read(struct dm_remap_device *d, u64 sector, u32 sectors, void *buf)
{
	return sync_io(d, d->spare_bdev, sector, sectors, buf, REQ_OP_READ | REQ_SYNC);
}

/* A flush of its own: device-mapper drops the error of one that comes with data. */
int dm_remap_metadata_write(struct dm_remap_device *d, u64 sector, u32 sectors, const void *buf,
			    unsigned int flags)
{
	blk_opf_t opf = REQ_OP_WRITE | REQ_SYNC | (flags & DM_REMAP_FUA ? REQ_FUA : 0);
	int ret = flags & DM_REMAP_PREFLUSH ? flush_io(d, d->spare_bdev, NULL) : 0;

	return ret ?: sync_io(d, d->spare_bdev, sector, sectors, (void *)buf, opf);
}

int dm_remap_metadata_sync(struct dm_remap_device *d)
{
	int ret = dm_remap_save(&d->metadata);

	dm_remap_device_event(d);
	return ret;
}

int dm_remap_metadata_recover(struct dm_remap_device *d, u64 main_sectors)
{
	u64 spare_sectors = bdev_nr_sectors(d->spare_bdev);

	d->report_due = true;
	return dm_remap_load(&d->metadata, spare_sectors, main_sectors, &d->report);
}

/* ---- operations of the core ---- */

static int op_read(void *ctx, enum dm_remap_dev dev, u64 sector, u32 sectors, void *buf)
{
	struct dm_remap_device *d = ctx;

	if (dev == DM_REMAP_SPARE && d->reader)
		return dm_remap_reader_read(&d->reader, sector, sectors, buf);
	if (dev == DM_REMAP_SPARE)
		return dm_remap_metadata_read(d, sector, sectors, buf);
	return sync_io(d, d->main_bdev, d->main_start + sector, sectors, buf,
		       REQ_OP_READ | REQ_SYNC);
}

static int op_write(void *ctx, enum dm_remap_dev dev, u64 sector, u32 sectors, const void *buf,
		    unsigned int flags)
{
	struct dm_remap_device *d = ctx;

	if (dev == DM_REMAP_SPARE)
		return dm_remap_metadata_write(d, sector, sectors, buf, flags);
	return sync_io(d, d->main_bdev, d->main_start + sector, sectors, (void *)buf,
		       REQ_OP_WRITE | REQ_SYNC | (flags & DM_REMAP_FUA ? REQ_FUA : 0));
}

static struct block_device *bdev_of(const struct dm_remap_device *d, enum dm_remap_dev dev)
{
	return dev == DM_REMAP_SPARE ? d->spare_bdev : d->main_bdev;
}

static int op_flush(void *ctx, struct dm_remap_flush *flush)
{
	return flush_io(ctx, bdev_of(ctx, flush->dev), flush);
}

static enum dm_remap_fua op_fua(void *ctx, enum dm_remap_dev dev)
{
	return dm_remap_fua_of(bdev_of(ctx, dev));
}

static u64 op_now(void *ctx)
{
	return ktime_get_real_seconds();
}

static u64 op_uptime(void *ctx)
{
	return ktime_get_seconds();
}

static u64 op_random(void *ctx)
{
	return get_random_u64();
}

static __printf(3, 4) void op_log(void *ctx, enum dm_remap_level level, const char *fmt, ...)
{
	struct dm_remap_device *d = ctx;
	struct va_format vaf;
	va_list args;

	va_start(args, fmt);
	vaf.fmt = fmt;
	vaf.va = &args;
	switch (level) {
	case DM_REMAP_LOG_ERR:
		DMERR("%s: %pV", dm_device_name(d->dm), &vaf);
		break;
	case DM_REMAP_LOG_WARN:
		if (__ratelimit(&d->warnings))
			DMWARN("%s: %pV", dm_device_name(d->dm), &vaf);
		break;
	case DM_REMAP_LOG_INFO:
		DMINFO("%s: %pV", dm_device_name(d->dm), &vaf);
		break;
	}
	va_end(args);
}

static void op_note(void *ctx, enum dm_remap_note note, u64 sector, u64 sectors, s64 value)
{
	struct dm_remap_device *d = ctx;
	dev_t dev = disk_devt(dm_disk(d->dm));

	switch (note) {
	case DM_REMAP_NOTE_BAD:
		trace_dm_remap_bad(dev, sector, sectors, value);
		break;
	case DM_REMAP_NOTE_RELOCATED:
		trace_dm_remap_relocated(dev, sector, sectors, value);
		break;
	case DM_REMAP_NOTE_RESCUED:
		trace_dm_remap_rescued(dev, sector, sectors, value);
		break;
	case DM_REMAP_NOTE_PENDING:
		trace_dm_remap_pending(dev, sector, sectors);
		break;
	case DM_REMAP_NOTE_CLEARED:
		trace_dm_remap_cleared(dev, sector, sectors, value);
		break;
	case DM_REMAP_NOTE_RETIRED:
		trace_dm_remap_retired(dev, sector, sectors);
		break;
	case DM_REMAP_NOTE_MODE:
		trace_dm_remap_mode(dev, dm_remap_mode_name(value));
		break;
	case DM_REMAP_NOTE_BREAKER:
		trace_dm_remap_breaker(dev, value);
		break;
	case DM_REMAP_NOTE_UNREADABLE:
		trace_dm_remap_unreadable(dev, sector, sectors, value);
		break;
	}
}

/* A partition keeps its size when its disk becomes shorter. */
static u64 op_main_sectors(void *ctx)
{
	struct dm_remap_device *d = ctx;
	u64 disk = get_capacity(d->main_bdev->bd_disk), start = get_start_sect(d->main_bdev);
	u64 sectors = min_t(u64, bdev_nr_sectors(d->main_bdev), disk - min(disk, start));

	return sectors - min_t(u64, sectors, d->main_start);
}

int dm_remap_stop(void *ctx)
{
	struct dm_remap_device *d = ctx;

	if (READ_ONCE(d->stop))
		return -EAGAIN;
	return fatal_signal_pending(current) ? -EINTR : 0;
}

const struct dm_remap_ops dm_remap_kernel_ops = {
	.read = op_read,
	.write = op_write,
	.now = op_now,
	.uptime = op_uptime,
	.random = op_random,
	.log = op_log,
	.flush = op_flush,
	.fua = op_fua,
	.drain = dm_remap_drain,
	.kick = dm_remap_kick,
	.wait = dm_remap_wait_for_claim,
	.give_way = dm_remap_give_way,
	.stop = dm_remap_stop,
	.note = op_note,
	.main_sectors = op_main_sectors,
};

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Block I/O for the core, and the entry points to the metadata. By bios of our own:
 * dm-io does not tell an error of the media from one of the connection.
 */
#include "dm-remap.h"

#include <linux/highmem.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

#define CREATE_TRACE_POINTS
#include "dm-remap-trace.h"

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

/*
 * A drive that takes this long for an error is about to time out, and tells nothing of
 * its media.
 */
static unsigned long too_long(struct block_device *bdev)
{
	unsigned int timeout = READ_ONCE(bdev_get_queue(bdev)->rq_timeout);

	return (timeout ?: 30 * HZ) / 3;
}

static int submit_and_wait(struct bio *bio)
{
	unsigned long began = jiffies;
	int ret = submit_bio_wait(bio);

	if (ret && time_after(jiffies, began + too_long(bio->bi_bdev)))
		ret = -ETIMEDOUT;
	return ret;
}

/* One synchronous transfer. */
static int sync_io(struct dm_remap_device *d, struct block_device *bdev, sector_t sector,
		   u32 sectors, void *buf, blk_opf_t opf)
{
	unsigned int left = sectors << SECTOR_SHIFT, n;
	bool vmalloced = is_vmalloc_addr(buf);
	int ret;

	if (vmalloced && op_is_write(opf))
		flush_kernel_vmap_range(buf, left);
	do {
		unsigned int pages = DIV_ROUND_UP(offset_in_page(buf) + left, PAGE_SIZE);
		struct bio *bio = bio_alloc_bioset(bdev, bio_max_segs(pages), opf, GFP_NOIO,
						   &d->bios);

		bio->bi_iter.bi_sector = sector;
		n = fill_bio(bio, buf, left);
		ret = submit_and_wait(bio);
		bio_put(bio);
		if (vmalloced && !op_is_write(opf))
			invalidate_kernel_vmap_range(buf, n);
		left -= n;
		buf += n;
		sector += n >> SECTOR_SHIFT;
	} while (!ret && left);
	return ret;
}

static blk_opf_t write_flags(unsigned int flags)
{
	return REQ_OP_WRITE | REQ_SYNC | (flags & DM_REMAP_PREFLUSH ? REQ_PREFLUSH : 0) |
	       (flags & DM_REMAP_FUA ? REQ_FUA : 0);
}

int dm_remap_metadata_read(struct dm_remap_device *d, u64 sector, u32 sectors, void *buf)
{
	return sync_io(d, d->spare_bdev, sector, sectors, buf, REQ_OP_READ | REQ_SYNC);
}

int dm_remap_metadata_write(struct dm_remap_device *d, u64 sector, u32 sectors, const void *buf,
			    unsigned int flags)
{
	u64 covers = dm_remap_spare_writes(d);
	int ret = sync_io(d, d->spare_bdev, sector, sectors, (void *)buf, write_flags(flags));

	if (!ret && !(flags & DM_REMAP_FUA))
		dm_remap_spare_written(d);
	if (!ret && (flags & DM_REMAP_PREFLUSH))
		dm_remap_spare_flushed(d, covers);
	return ret;
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
		       write_flags(flags));
}

static u64 op_now(void *ctx)
{
	return ktime_get_real_seconds();
}

static u64 op_uptime(void *ctx)
{
	return ktime_get_seconds();
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
		DMERR_LIMIT("%s: %pV", dm_device_name(d->dm), &vaf);
		break;
	case DM_REMAP_LOG_WARN:
		DMWARN_LIMIT("%s: %pV", dm_device_name(d->dm), &vaf);
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
	}
}

static int op_stop(void *ctx)
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
	.log = op_log,
	.drain = dm_remap_drain,
	.stop = op_stop,
	.note = op_note,
};

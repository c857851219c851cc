// SPDX-License-Identifier: GPL-2.0-only
/* Block I/O for the core, over dm-io, and the entry points to the metadata. */
#include "dm-remap.h"

#include <linux/sched/signal.h>
#include <linux/timekeeping.h>

/* One synchronous transfer. @sectors 0: a flush. */
static int sync_io(struct dm_remap_device *d, struct block_device *bdev, sector_t sector,
		   u32 sectors, void *buf, blk_opf_t opf)
{
	struct dm_io_region where = { .bdev = bdev, .sector = sector, .count = sectors };
	struct dm_io_request req = { .bi_opf = opf, .client = d->io };
	unsigned long error_bits = 0;
	int ret;

	if (is_vmalloc_addr(buf)) {
		req.mem.type = DM_IO_VMA;
		req.mem.ptr.vma = buf;
	} else {
		req.mem.type = DM_IO_KMEM;
		req.mem.ptr.addr = buf;
	}
	ret = dm_remap_dm_io(&req, &where, &error_bits);
	return ret ?: error_bits ? -EIO : 0;
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
	return sync_io(d, d->spare_bdev, sector, sectors, (void *)buf, write_flags(flags));
}

int dm_remap_metadata_sync(struct dm_remap_device *d)
{
	int ret = dm_remap_save(&d->metadata);

	dm_remap_device_event(d);
	return ret;
}

int dm_remap_metadata_recover(struct dm_remap_device *d, u64 main_sectors)
{
	d->report_due = true;
	return dm_remap_load(&d->metadata, bdev_nr_sectors(d->spare_bdev), main_sectors, &d->report);
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

static int op_flush(void *ctx, enum dm_remap_dev dev)
{
	struct dm_remap_device *d = ctx;

	return sync_io(d, dev == DM_REMAP_SPARE ? d->spare_bdev : d->main_bdev, 0, 0, NULL,
		       REQ_OP_WRITE | REQ_SYNC | REQ_PREFLUSH);
}

static u64 op_now(void *ctx)
{
	return ktime_get_real_seconds();
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
	.flush = op_flush,
	.now = op_now,
	.log = op_log,
	.drain = dm_remap_drain,
	.released = dm_remap_released,
	.stop = op_stop,
};

// SPDX-License-Identifier: GPL-2.0-only
/* The volatile caches of the two disks, and the losses that they tell of. */
#include "dm-remap-cache.h"

#include "dm-remap-evidence.h"
#include "dm-remap-internal.h"

/* ---- flushes from above, and writes with FUA ---- */

/* Keeps the highest: flushes may complete in any order. */
static void flushed(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 covers)
{
	struct dm_remap_cache *c = &md->cache[dev];
	s64 seen = atomic64_read(&c->flushed);

	while ((u64)seen < covers && !atomic64_try_cmpxchg(&c->flushed, &seen, (s64)covers))
		;
}

static void loss_told(struct dm_remap_metadata *md, enum dm_remap_dev dev)
{
	atomic_inc(&md->cache[dev].losses);
}

int dm_remap_flush_ended(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 covers, int error)
{
	if (error)
		loss_told(md, dev);
	if (atomic_xchg(&md->cache[dev].untold, 0) && !error)
		error = -EIO;
	if (!error)
		flushed(md, dev, covers);
	return error;
}

bool dm_remap_spare_cache_lost(struct dm_remap_metadata *md)
{
	bool lost = !dm_remap_spare_is_flushed(md);

	if (lost)
		atomic_set(&md->cache[DM_REMAP_SPARE].untold, 1);
	return lost;
}

bool dm_remap_fua_lost(struct dm_remap_metadata *md, enum dm_remap_dev dev, int told, int error)
{
	/* The flush behind it may have failed. -EAGAIN: it was not even sent. */
	if (error && error != -EAGAIN)
		loss_told(md, dev);
	return !error && told != dm_remap_losses_told(md, dev);
}

/* ---- flushes of the core ---- */

/* May there be something of others in the cache, acknowledged or about to be? */
static bool others_have_data(const struct dm_remap_metadata *md, enum dm_remap_dev dev)
{
	return dev == DM_REMAP_MAIN || atomic_read_acquire(&md->cache[dev].underway) ||
	       !dm_remap_spare_is_flushed(md);
}

void dm_remap_own_flush_ended(struct dm_remap_flush *f, int error)
{
	struct dm_remap_metadata *md = f->md;

	if (!error) {
		flushed(md, f->dev, f->covers);
		return;
	}
	loss_told(md, f->dev);
	if (f->others || others_have_data(md, f->dev))
		atomic_set(&md->cache[f->dev].untold, 1);
}

static int own_flush(struct dm_remap_metadata *md, enum dm_remap_dev dev)
{
	struct dm_remap_flush f = {
		.md = md, .dev = dev, .covers = dm_remap_flush_covers(md, dev),
		.others = others_have_data(md, dev),
	};

	return md->ops->flush(md->ctx, &f);
}

int dm_remap_main_rewrite(struct dm_remap_metadata *md, u64 sector, u32 sectors, const void *buf)
{
	if (!md->ops->flush)
		return dm_remap_dev_write(md, DM_REMAP_MAIN, sector, sectors, buf, DM_REMAP_FUA);
	return dm_remap_dev_write(md, DM_REMAP_MAIN, sector, sectors, buf, 0) ?:
	       own_flush(md, DM_REMAP_MAIN);
}

bool dm_remap_main_flushes(struct dm_remap_metadata *md, u64 failure)
{
	u64 since = dm_remap_main_flush_begins(md);

	if (since < failure || !md->ops->flush || own_flush(md, DM_REMAP_MAIN))
		return false;
	dm_remap_main_worked(md, DM_REMAP_WRITE, since);
	return true;
}

/* ---- I/O of the core ---- */

int dm_remap_main_reaches(struct dm_remap_metadata *md, u64 sector, u64 sectors)
{
	u64 now = md->ops->main_sectors ? md->ops->main_sectors(md->ctx) : U64_MAX;

	if (sector <= now && sectors <= now - sector)
		return 0;
	if (READ_ONCE(md->short_told) != now + 1)
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "main has only %llu sectors now: I/O behind them fails, without a record; give main its former size back",
			     (unsigned long long)now);
	WRITE_ONCE(md->short_told, now + 1);
	return -ENXIO;
}

/*
 * The @error, but where it has another reason: main does not reach the range any more, or the spare
 * has no room beneath.
 */
static int checked(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 sector, u32 sectors,
		   int error)
{
	if (error == -ENOSPC && dev == DM_REMAP_SPARE) {
		/* Of data the relocation tells that is refused. */
		if (sector < dm_remap_data_start(&md->sb.layout) ||
		    sector >= dm_remap_data_end(&md->sb.layout))
			dm_remap_log(md, DM_REMAP_LOG_WARN,
				     "the spare %s takes no metadata: the device beneath it is full, make room there",
				     md->spare_name);
		return DM_REMAP_NO_ROOM_BENEATH;
	}
	return error && dev == DM_REMAP_MAIN && dm_remap_main_reaches(md, sector, sectors) ?
	       -ENXIO : error;
}

int dm_remap_dev_read(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 sector, u32 sectors,
		      void *buf)
{
	return checked(md, dev, sector, sectors,
		       md->ops->read(md->ctx, dev, sector, sectors, buf));
}

/* So often a write is repeated, because others were told of a loss. */
#define OTHERS_TOLD 64

/*
 * Durable when it returns. The flush behind it may fail for other blocks than these. So both are
 * done once more, before the failure counts against them. And the device may have told somebody
 * else that it lost these. Then they are written again, more often: beside workers whose writes
 * fail, somebody is told all the time.
 */
static int write_durable(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 sector,
			 u32 sectors, const void *buf)
{
	enum dm_remap_fua fua = md->ops->fua(md->ctx, dev);
	unsigned int flags = fua == DM_REMAP_FUA_BY_FLUSH ? 0 : DM_REMAP_FUA;
	int again = 1, others = OTHERS_TOLD, ret, told;

	for (;;) {
		told = dm_remap_losses_told(md, dev);
		ret = md->ops->write(md->ctx, dev, sector, sectors, buf, flags);
		if (ret && fua == DM_REMAP_FUA_BELOW)
			loss_told(md, dev);
		if (ret || fua == DM_REMAP_FUA_OWN)
			return ret;
		if (fua == DM_REMAP_FUA_BY_FLUSH)
			ret = own_flush(md, dev);
		if (!ret && told == dm_remap_losses_told(md, dev))
			return 0;
		if (!ret && !others--)
			return -EIO;
		if (ret && (!dm_remap_may_be_media(ret) || !again--))
			return ret;
	}
}

/* By checkpoint_lock there is one table at a time. */
void dm_remap_table_write_begins(struct dm_remap_metadata *md)
{
	lockdep_assert_held(&md->checkpoint_lock);
	md->table_unflushed = true;
	md->table_losses = dm_remap_losses_told(md, DM_REMAP_SPARE);
}

/* Others may flush the table before, and be told what is lost: the checkpoint is done once more. */
static int table_flush(struct dm_remap_metadata *md)
{
	int ret = own_flush(md, DM_REMAP_SPARE);

	if (!ret && md->table_unflushed &&
	    md->table_losses != dm_remap_losses_told(md, DM_REMAP_SPARE))
		ret = -EIO;
	md->table_unflushed = false;
	return ret;
}

int dm_remap_dev_write(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 sector,
		       u32 sectors, const void *buf, unsigned int flags)
{
	int ret;

	/* Nobody else uses the disks: it is as durable as the device makes it. */
	if (!md->ops->flush) {
		ret = md->ops->write(md->ctx, dev, sector, sectors, buf,
				     flags & (DM_REMAP_PREFLUSH | DM_REMAP_FUA));
		return checked(md, dev, sector, sectors, ret);
	}
	ret = flags & DM_REMAP_PREFLUSH ? table_flush(md) : 0;
	if (ret)
		return ret;
	if (flags & DM_REMAP_FUA)
		ret = write_durable(md, dev, sector, sectors, buf);
	else
		ret = md->ops->write(md->ctx, dev, sector, sectors, buf, 0);
	return checked(md, dev, sector, sectors, ret);
}

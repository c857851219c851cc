/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The volatile caches of the two disks: which acknowledged writes are not durable yet, and who
 * has to hear of those that are lost.
 *
 * A disk that cannot make a write durable says so once, to one of those who flush it at that
 * time. The flush may be from above, one of the core, or the one behind a write with FUA. So:
 *
 * - The next flush from above passes on that a flush of the core failed, or that the spare was
 *   unplugged before all was flushed.
 * - A write that has to be durable by itself is done once more, if any loss was told between its
 *   begin and its end.
 * - A table that was written meanwhile is written once more.
 *
 * A flush of the spare is skipped while every write there has been covered by one. Writes to
 * main are not counted: that would cost each of them, so main is always flushed.
 *
 * Context: any, unless said otherwise. The order of two calls is that of their callers.
 */
#ifndef DM_REMAP_CACHE_H
#define DM_REMAP_CACHE_H

#include "dm-remap-metadata.h"

/* A write from above to the spare that is not durable by itself is about to be sent. */
static inline void dm_remap_spare_write_begins(struct dm_remap_metadata *md)
{
	atomic_inc(&md->cache[DM_REMAP_SPARE].underway);
}

/* It has ended, and is not acknowledged yet. @done: without an error. */
static inline void dm_remap_spare_write_ended(struct dm_remap_metadata *md, bool done)
{
	struct dm_remap_cache *c = &md->cache[DM_REMAP_SPARE];

	if (done)
		atomic64_inc(&c->written);
	/* In one of the two at any time: dm_remap_others_have_data reads them in this order. */
	smp_mb__before_atomic();
	atomic_dec(&c->underway);
}

/* Writes that a flush covers which begins now. */
static inline u64 dm_remap_flush_covers(const struct dm_remap_metadata *md, enum dm_remap_dev dev)
{
	return (u64)atomic64_read(&md->cache[dev].written);
}

/* Is there nothing acknowledged on the spare that a flush would make durable? */
static inline bool dm_remap_spare_is_flushed(const struct dm_remap_metadata *md)
{
	const struct dm_remap_cache *c = &md->cache[DM_REMAP_SPARE];

	return atomic64_read(&c->written) == atomic64_read(&c->flushed);
}

/*
 * How often the device has told, to whoever flushed it, that it could not make a write durable.
 * A write that was in the cache while this changed may be lost.
 */
static inline int dm_remap_losses_told(const struct dm_remap_metadata *md, enum dm_remap_dev dev)
{
	return atomic_read(&md->cache[dev].losses);
}

/*
 * A flush from above has ended with @error, 0 or a negative errno; it covered @covers. Returns
 * what it has to say: @error, or -EIO where a flush of the core was told of a loss.
 */
int dm_remap_flush_ended(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 covers,
			 int error);

/*
 * A write from above with FUA has ended with @error. When it began, dm_remap_losses_told was
 * @told. True: it is not durable, though it succeeded; it has to be done again. Only for devices
 * where FUA may be a flush behind the write (enum dm_remap_fua).
 */
bool dm_remap_fua_lost(struct dm_remap_metadata *md, enum dm_remap_dev dev, int told, int error);

/*
 * The spare was without power, and no write is on its way there. True: acknowledged writes may be
 * lost, and the next flush from above says so.
 */
bool dm_remap_spare_cache_lost(struct dm_remap_metadata *md);

/* A flush of the core, for ops->flush. */
struct dm_remap_flush {
	struct dm_remap_metadata *md;
	enum dm_remap_dev dev;
	u64 covers;
	bool others;			/* there was data of others for it */
};

/*
 * It has completed. ops->flush calls this before the completion of any later flush is passed on:
 * that flush has to say what this one was told.
 */
void dm_remap_own_flush_ended(struct dm_remap_flush *f, int error);

/*
 * All I/O of the core. Context: process, may block. Returns 0 or a negative errno.
 * @flags: DM_REMAP_PREFLUSH makes durable what was written before, DM_REMAP_FUA this write. To the
 * spare only blocks of the table go without.
 */
int dm_remap_dev_read(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 sector, u32 sectors,
		      void *buf);
int dm_remap_dev_write(struct dm_remap_metadata *md, enum dm_remap_dev dev, u64 sector,
		       u32 sectors, const void *buf, unsigned int flags);

/*
 * Writes what main holds there once more, and makes it durable. The data may be others', and in
 * main's cache yet. FUA would not do: if main loses it by that, nobody would be told. Of a flush
 * that fails the next one from above tells. Context: process, may block.
 */
int dm_remap_main_rewrite(struct dm_remap_metadata *md, u64 sector, u32 sectors, const void *buf);

/*
 * Others have written into main's cache since that failure: a flush shows whether main writes.
 * True: it does. Context: process, may block.
 */
bool dm_remap_main_flushes(struct dm_remap_metadata *md, u64 failure);

/* Blocks of a new table follow, which the next PREFLUSH is for. checkpoint_lock is held. */
void dm_remap_table_write_begins(struct dm_remap_metadata *md);

#endif /* DM_REMAP_CACHE_H */

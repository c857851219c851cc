/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between kernels, and nothing else. By feature, not by version: fixes
 * are carried back into stable kernels. What headers do not show is in Kbuild.
 */
#ifndef DM_REMAP_COMPAT_H
#define DM_REMAP_COMPAT_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/file.h>

/* 05bdb9965305 ("block: replace fmode_t with a block-specific type", 6.5) */
#ifndef BLK_OPEN_WRITE
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

/*
 * If Kbuild has proved that, dm core gives a clone the blkg that it has on its new device, in the
 * cgroup of the original. Nothing else is left to do: it comes without the flags of another device.
 */
static inline void dm_remap_set_dev(struct bio *bio, struct block_device *bdev)
{
#ifdef DM_REMAP_CORE_SETS_BLKG
	bio->bi_bdev = bdev;
#else
	bio_set_dev(bio, bdev);
#endif
}

/*
 * Opens a block device for reading, in common with others. Returns what dm_remap_close_bdev()
 * takes, or an error pointer.
 */
static inline void *dm_remap_open_bdev(dev_t dev)
{
#if defined(DM_REMAP_BDEV_IS_A_FILE)
	return bdev_file_open_by_dev(dev, BLK_OPEN_READ, NULL, NULL);
#elif defined(DM_REMAP_BDEV_IS_A_HANDLE)
	return bdev_open_by_dev(dev, BLK_OPEN_READ, NULL, NULL);
#elif defined(BLK_OPEN_READ)
	return blkdev_get_by_dev(dev, BLK_OPEN_READ, NULL, NULL);
#else
	return blkdev_get_by_dev(dev, FMODE_READ, NULL);
#endif
}

static inline struct block_device *dm_remap_opened_bdev(void *opened)
{
#if defined(DM_REMAP_BDEV_IS_A_FILE)
	return file_bdev(opened);
#elif defined(DM_REMAP_BDEV_IS_A_HANDLE)
	return ((struct bdev_handle *)opened)->bdev;
#else
	return opened;
#endif
}

static inline void dm_remap_close_bdev(void *opened)
{
#if defined(DM_REMAP_BDEV_IS_A_FILE)
	fput(opened);
#elif defined(DM_REMAP_BDEV_IS_A_HANDLE)
	bdev_release(opened);
#elif defined(BLK_OPEN_READ)
	blkdev_put(opened, NULL);
#else
	blkdev_put(opened, FMODE_READ);
#endif
}

/*
 * Stable pages: a page must not change while it is written. From io_hints, tells dm whether the
 * target needs them. From 6.11 on the limits say so (1a02f3a73f8c). Before, dm asks the target,
 * if there is a field for it (Kbuild looks). A flag that is set at preresume comes too late there.
 * The mapped device's own page cache learns of it when the disk is added, at the first load.
 */
static inline void dm_remap_hint_stable_pages(struct dm_target *ti, struct queue_limits *limits,
					      bool needed)
{
#if defined(BLK_FEAT_STABLE_WRITES)
	if (needed)
		limits->features |= BLK_FEAT_STABLE_WRITES;
#elif defined(DM_REMAP_CORE_ASKS_FOR_STABLE_PAGES)
	ti->needs_stable_writes = needed;
#endif
}

/*
 * The same from preresume, for kernels that have neither. By then dm has set the queue's flag to
 * what main needs, and it leaves the flag alone until another table becomes the live one.
 */
static inline void dm_remap_resume_stable_pages(struct dm_target *ti, bool needed)
{
#if !defined(BLK_FEAT_STABLE_WRITES) && !defined(DM_REMAP_CORE_ASKS_FOR_STABLE_PAGES)
	if (needed)
		blk_queue_flag_set(QUEUE_FLAG_STABLE_WRITES,
				   dm_disk(dm_table_get_md(ti->table))->queue);
#endif
}

#endif /* DM_REMAP_COMPAT_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between kernels, and nothing else. By feature where headers show it, for fixes
 * are carried back into stable kernels; otherwise by the versions that were looked at.
 */
#ifndef DM_REMAP_COMPAT_H
#define DM_REMAP_COMPAT_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/version.h>

/* 05bdb9965305 ("block: replace fmode_t with a block-specific type", 6.5) */
#ifndef BLK_OPEN_WRITE
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

/*
 * 2df8b310bcfe ("dm: use bio_clone_blkg_association"): dm core gives a clone the blkg that it
 * has on its new device in the cgroup of the original. Elsewhere, and where nobody has looked,
 * the target must see to it.
 */
#define DM_REMAP_CORE_SETS_BLKG \
	((LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 192) && \
	  LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)) || \
	 (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 117) && \
	  LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)))

/* A clone comes without the flags of another device, and there the blkg is all that is left. */
static inline void dm_remap_set_dev(struct bio *bio, struct block_device *bdev)
{
	if (DM_REMAP_CORE_SETS_BLKG)
		bio->bi_bdev = bdev;
	else
		bio_set_dev(bio, bdev);
}

#endif /* DM_REMAP_COMPAT_H */

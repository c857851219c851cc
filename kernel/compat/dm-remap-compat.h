/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between kernels, and nothing else. By feature, not by version: fixes
 * are carried back into stable kernels. What headers do not show is in Kbuild.
 */
#ifndef DM_REMAP_COMPAT_H
#define DM_REMAP_COMPAT_H

#include <linux/bio.h>
#include <linux/blkdev.h>

/* 05bdb9965305 ("block: replace fmode_t with a block-specific type", 6.5) */
#ifndef BLK_OPEN_WRITE
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

/*
 * Some kernels give a clone the blkg that it has on its new device, in the cgroup of the
 * original (Kbuild says which). Nothing else is left to do: it comes without the flags of
 * another device.
 */
static inline void dm_remap_set_dev(struct bio *bio, struct block_device *bdev)
{
#ifdef DM_REMAP_CORE_SETS_BLKG
	bio->bi_bdev = bdev;
#else
	bio_set_dev(bio, bdev);
#endif
}

#endif /* DM_REMAP_COMPAT_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between kernels, and nothing else. By feature, not by version: fixes
 * are carried back into stable kernels.
 */
#ifndef DM_REMAP_COMPAT_H
#define DM_REMAP_COMPAT_H

#include <linux/blkdev.h>

/* 05bdb9965305 ("block: replace fmode_t with a block-specific type", 6.5) */
#ifndef BLK_OPEN_WRITE
#define BLK_OPEN_WRITE FMODE_WRITE
#endif

#endif /* DM_REMAP_COMPAT_H */

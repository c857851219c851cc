// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes to the spare that are read back. People's spares are cards and sticks: some
 * answer yes and keep the old data, and some have less capacity than they claim.
 */
#include "dm-remap-internal.h"

int dm_remap_spare_write_checked(struct dm_remap_metadata *md, u64 sector, u32 sectors,
				 const void *buf, unsigned int flags, void *back)
{
	int ret = dm_remap_dev_write(md, DM_REMAP_SPARE, sector, sectors, buf, flags);

	ret = ret ?: dm_remap_dev_read(md, DM_REMAP_SPARE, sector, sectors, back);
	if (ret || !memcmp(buf, back, (size_t)sectors * DM_REMAP_SECTOR_SIZE))
		return ret;
	dm_remap_log(md, DM_REMAP_LOG_WARN,
		     "the spare took sectors %llu + %u and reads back other data",
		     (unsigned long long)sector, sectors);
	return -EIO;
}

int dm_remap_block_write_checked(struct dm_remap_metadata *md, u64 block, const void *buf,
				 unsigned int flags, void *back)
{
	return dm_remap_spare_write_checked(md, block * DM_REMAP_BLOCK_SECTORS,
					    DM_REMAP_BLOCK_SECTORS, buf, flags, back);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * older-load IMAGE: has the older core load a spare. Prints the errno, 0 or negative, and why it
 * refuses.
 */
#include <stdio.h>
#include <stdlib.h>

#include "dm-remap-metadata.h"

static int image_read(void *ctx, enum dm_remap_dev dev, u64 sector, u32 sectors, void *buf)
{
	FILE *image = ctx;

	(void)dev;
	if (fseek(image, (long)(sector * DM_REMAP_SECTOR_SIZE), SEEK_SET) ||
	    fread(buf, DM_REMAP_SECTOR_SIZE, sectors, image) != sectors)
		return -EIO;
	return 0;
}

/* A load writes nothing. */
static int image_write(void *ctx, enum dm_remap_dev dev, u64 sector, u32 sectors, const void *buf,
		       unsigned int flags)
{
	(void)ctx, (void)dev, (void)sector, (void)sectors, (void)buf, (void)flags;
	abort();
}

static u64 no_time(void *ctx)
{
	(void)ctx;
	return 0;
}

static void no_log(void *ctx, enum dm_remap_level level, const char *fmt, ...)
{
	(void)ctx, (void)level, (void)fmt;
}

int main(int argc, char **argv)
{
	static const struct dm_remap_ops ops = {
		.read = image_read, .write = image_write, .now = no_time, .uptime = no_time,
		.log = no_log,
	};
	struct dm_remap_metadata md = { 0 };
	struct dm_remap_report report = { 0 };
	FILE *image = argc == 2 ? fopen(argv[1], "rb") : NULL;
	long size = -1;
	int ret;

	if (image && !fseek(image, 0, SEEK_END))
		size = ftell(image);
	if (size < 0 || dm_remap_metadata_init(&md, &ops, image)) {
		fprintf(stderr, "usage: older-load IMAGE\n");
		return 2;
	}
	ret = dm_remap_load(&md, (u64)size / DM_REMAP_SECTOR_SIZE, 0, &report);
	printf("%d %s\n", ret, report.refusal ? report.refusal : "");
	dm_remap_metadata_exit(&md);
	fclose(image);
	return 0;
}

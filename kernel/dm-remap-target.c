// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device-mapper target "remap": bad sectors of a main device live on a spare.
 *
 * <main_dev> <main_start> <spare_dev> [<#feature_args> <feature_arg>...]
 */
#include "dm-remap.h"

#include <linux/module.h>
#include <linux/uuid.h>

/* ---- table line ---- */

static int parse_uuid(struct dm_remap_target *t, struct dm_arg_set *as)
{
	const char *word = as->argc ? dm_shift_arg(as) : NULL;

	if (!word || strlen(word) != UUID_STRING_LEN || uuid_parse(word, &t->features.uuid)) {
		t->ti->error = "uuid must be followed by the UUID of the spare";
		return -EINVAL;
	}
	t->features.has_uuid = true;
	return 0;
}

static int parse_witness(struct dm_remap_target *t, struct dm_arg_set *as)
{
	struct dm_remap_witness *witness = &t->features.witness;
	char *sequence = as->argc ? (char *)dm_shift_arg(as) : NULL;
	char *generation = strsep(&sequence, ":");

	if (!generation || !sequence || kstrtoull(generation, 10, &witness->generation) ||
	    kstrtoull(sequence, 10, &witness->sequence)) {
		t->ti->error =
			"witness must be followed by <generation>:<sequence>, as status has it";
		return -EINVAL;
	}
	return 0;
}

static int parse_read_retries(struct dm_remap_target *t, struct dm_arg_set *as)
{
	const char *word = as->argc ? dm_shift_arg(as) : NULL;

	if (!word || kstrtouint(word, 10, &t->features.policy.read_retries) ||
	    t->features.policy.read_retries > DM_REMAP_MAX_READ_RETRIES) {
		t->ti->error = "read_retries must be followed by a number from 0 to 100";
		return -EINVAL;
	}
	return 0;
}

static int parse_feature(struct dm_remap_target *t, struct dm_arg_set *as)
{
	const char *word = dm_shift_arg(as);

	if (!strcmp(word, "format")) {
		t->features.format = true;
		return 0;
	}
	if (!strcmp(word, "rebind")) {
		t->features.rebind = true;
		return 0;
	}
	if (!strcmp(word, "no_auto_remap")) {
		t->features.policy.no_auto_remap = true;
		return 0;
	}
	if (!strcmp(word, "verify_spare_writes")) {
		t->features.policy.verify_spare_writes = true;
		return 0;
	}
	if (!strcmp(word, "uuid"))
		return parse_uuid(t, as);
	if (!strcmp(word, "witness"))
		return parse_witness(t, as);
	if (!strcmp(word, "read_retries"))
		return parse_read_retries(t, as);
	DMERR("unknown feature argument \"%s\"; there are format, uuid, witness, rebind, %s",
	      word, "read_retries, no_auto_remap, verify_spare_writes");
	t->ti->error = "unknown feature; the line before has those that there are";
	return -EINVAL;
}

/*
 * The numbers of one spare say nothing about another, nor about one that is yet to be made. Nor may
 * main be bound to whatever spare there is.
 */
static int check_words_of_one_spare(struct dm_remap_target *t)
{
	bool witness = dm_remap_has_witness(t);

	if (!witness && !t->features.rebind)
		return 0;
	if (t->features.has_uuid && !t->features.format)
		return 0;
	t->ti->error = witness ? "witness needs the uuid of its spare beside it, and no format" :
				 "rebind needs the uuid of its spare beside it, and no format";
	return -EINVAL;
}

static int parse_features(struct dm_remap_target *t, struct dm_arg_set *as)
{
	static const struct dm_arg group = { 0, 10, "number of feature arguments must be 0 to 10" };
	struct dm_arg_set features;
	unsigned int n;
	int ret;

	t->features.policy.read_retries = DM_REMAP_DEFAULT_READ_RETRIES;
	if (!as->argc)
		return 0;
	ret = dm_read_arg_group(&group, as, &n, &t->ti->error);
	if (ret)
		return ret;
	if (n != as->argc) {
		t->ti->error = "number of feature arguments is wrong";
		return -EINVAL;
	}
	features = *as;
	while (!ret && features.argc)
		ret = parse_feature(t, &features);
	return ret ?: check_words_of_one_spare(t);
}

/* ---- the two devices ---- */

static bool same_or_overlapping(const struct block_device *a, const struct block_device *b)
{
	u64 a_start = get_start_sect((struct block_device *)a), a_end;
	u64 b_start = get_start_sect((struct block_device *)b), b_end;

	if (a->bd_disk != b->bd_disk)
		return false;
	a_end = a_start + bdev_nr_sectors((struct block_device *)a);
	b_end = b_start + bdev_nr_sectors((struct block_device *)b);
	return a_start < b_end && b_start < a_end;
}

/* What is wrong with the pair, or NULL. */
static char *devices_wrong(const struct dm_remap_target *t, u64 main_start)
{
	struct block_device *main = t->main->bdev, *spare = t->spare->bdev;
	bool writable = dm_table_get_mode(t->ti->table) & BLK_OPEN_WRITE;
	unsigned int block = bdev_logical_block_size(main) >> SECTOR_SHIFT;
	u64 size = bdev_nr_sectors(main);

	if (same_or_overlapping(main, spare))
		return "main and spare are the same device, or overlap";
	if (bdev_is_zoned(main) || bdev_is_zoned(spare))
		return "zoned devices are not supported";
	if (block > DM_REMAP_BLOCK_SECTORS)
		return "main has a logical block of more than 4096 bytes";
	if (bdev_logical_block_size(spare) > bdev_logical_block_size(main))
		return "spare has a larger logical block than main: file systems would see it";
	if (main_start >= size)
		return "start sector lies beyond the end of main";
	if (t->ti->len > DM_REMAP_MAX_SECTORS)
		return "a device of more than 32 PiB is not supported";
	if (t->ti->len > size - main_start)
		return "main is too small for the length of the target";
	if ((main_start | t->ti->len) & (block - 1))
		return "start and length must be multiples of main's logical block";
	if (writable && bdev_read_only(spare))
		return "spare is read-only, so no record can be kept: load the table read-only";
	if (writable && bdev_read_only(main))
		return "main is read-only: load the table read-only";
	return NULL;
}

static int get_devices(struct dm_remap_target *t, const char *main, const char *spare)
{
	struct dm_target *ti = t->ti;
	int ret;

	ret = dm_get_device(ti, main, dm_table_get_mode(ti->table), &t->main);
	if (ret) {
		DMERR("main device %s cannot be opened (%d)", main, ret);
		ti->error = ret == -EBUSY ? "main device is in use" :
					    "main device cannot be opened";
		return ret;
	}
	ret = dm_get_device(ti, spare, dm_table_get_mode(ti->table), &t->spare);
	if (ret) {
		DMERR("spare device %s cannot be opened (%d)", spare, ret);
		ti->error = ret == -EBUSY ? "spare device is in use" :
					    "spare device cannot be opened";
		dm_put_device(ti, t->main);
	}
	return ret;
}

/* ---- constructor ---- */

static void set_numbers(struct dm_remap_target *t)
{
	struct dm_target *ti = t->ti;

	ti->num_flush_bios = 2;
	ti->num_discard_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = sizeof(struct dm_remap_io);
}

static int remap_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	const char *main, *spare;
	struct dm_remap_target *t;
	u64 main_start;
	int ret = -EINVAL;

	if (argc < 3) {
		ti->error =
			"expected: <main_dev> <main_start> <spare_dev> [<#features> <feature>...]";
		return -EINVAL;
	}
	t = kzalloc(sizeof(*t), GFP_KERNEL);
	if (!t) {
		ti->error = "not enough memory";
		return -ENOMEM;
	}
	t->ti = ti;
	main = dm_shift_arg(&as);
	if (kstrtoull(dm_shift_arg(&as), 10, &main_start)) {
		ti->error = "start sector of main is not a number";
		goto out_free;
	}
	spare = dm_shift_arg(&as);
	ret = parse_features(t, &as);
	if (ret)
		goto out_free;
	ret = get_devices(t, main, spare);
	if (ret)
		goto out_free;
	ti->error = devices_wrong(t, main_start);
	if (ti->error) {
		ret = -EINVAL;
		goto out_devices;
	}
	ret = dm_remap_device_get(t, main_start, &ti->error);
	if (ret) {
		if (!ti->error)
			ti->error = "the device cannot be set up";
		goto out_devices;
	}
	set_numbers(t);
	ti->private = t;
	return 0;

out_devices:
	dm_put_device(ti, t->spare);
	dm_put_device(ti, t->main);
out_free:
	kfree(t);
	return ret;
}

static void remap_dtr(struct dm_target *ti)
{
	struct dm_remap_target *t = ti->private;

	dm_remap_device_put(t);
	dm_put_device(ti, t->spare);
	dm_put_device(ti, t->main);
	kfree(t);
}

/* ---- suspend and resume ---- */

static struct dm_remap_device *device_of(struct dm_target *ti)
{
	struct dm_remap_target *t = ti->private;

	return t->device;
}

static void remap_presuspend(struct dm_target *ti)
{
	dm_remap_device_stop(device_of(ti), dm_noflush_suspending(ti));
}

static void remap_presuspend_undo(struct dm_target *ti)
{
	dm_remap_device_go_on(device_of(ti));
}

static void remap_postsuspend(struct dm_target *ti)
{
	dm_remap_device_suspend(device_of(ti));
}

/* By main's needs, or the spare's. */
static bool needs_stable_pages(const struct dm_remap_target *t)
{
	return bdev_stable_writes(t->main->bdev) || bdev_stable_writes(t->spare->bdev);
}

static int remap_preresume(struct dm_target *ti)
{
	struct dm_remap_target *t = ti->private;

	/* Nobody else would notice: the mapped device has main's. */
	if (bdev_logical_block_size(t->spare->bdev) > bdev_logical_block_size(t->main->bdev)) {
		DMERR("%s: the spare has come to have a larger logical block than main",
		      dm_table_device_name(ti->table));
		return -EINVAL;
	}
	dm_remap_resume_stable_pages(ti, needs_stable_pages(t));
	return dm_remap_device_resume(t);
}

/* ---- properties ---- */

/*
 * The mapped device is main to all that look at it, so dm is shown main alone. Main's are:
 *
 *	block sizes, alignment, best sizes, segments and sizes of a request;
 *	discards, write-zeroes, NOWAIT and polling;
 *	read-ahead, and whether the disk turns;
 *	persistent reservations, and the disk's id.
 *
 * The spare has a say where data would be lost without it:
 *
 *	logical block	A larger one than main's is refused, by devices_wrong() and at resume.
 *	area		The spare is used in whole blocks of 4 KiB from its start. So they are
 *			whole logical blocks, and the loader checks that they fit.
 *	dma alignment	Buffers from above must suit both: remap_io_hints().
 *	stable pages	If either needs them: remap_io_hints().
 *	write cache	Flushes come as soon as one of the two has one: remap_io_hints().
 *
 * The spare may be unable to do what main can: send_to_spare() in dm-remap-map.c answers that for
 * each bio. The spare's own queue splits a bio that is too large for it. Zones, DAX, secure erase
 * and inline encryption are not handed on. Nor is the profile of T10 PI: a bio with checksums
 * of its own could end on a disk that has no room for them.
 */
static int remap_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct dm_remap_target *t = ti->private;

	return fn(ti, t->main, t->device->main_start, ti->len, data);
}

/*
 * Called at the first load and when a table becomes the live one, after dm has stacked main's
 * limits. These lack main's need of stable pages where it comes with the profile of T10 PI.
 */
static void remap_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct dm_remap_target *t = ti->private;
	struct block_device *main = t->main->bdev, *spare = t->spare->bdev;

	limits->dma_alignment = max(limits->dma_alignment, bdev_dma_alignment(spare));
	dm_remap_hint_stable_pages(ti, limits, needs_stable_pages(t));
	/* dm takes this for a cache and FUA. If main has a cache, both answers are main's. */
	ti->flush_supported = bdev_write_cache(spare) && !bdev_write_cache(main);
}

/* ---- module ---- */

static struct target_type remap_target = {
	.name = "remap",
	.version = { 1, 0, 0 },
	.features = DM_TARGET_SINGLETON | DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = remap_ctr,
	.dtr = remap_dtr,
	.map = dm_remap_map,
	.end_io = dm_remap_end_io,
	.presuspend = remap_presuspend,
	.presuspend_undo = remap_presuspend_undo,
	.postsuspend = remap_postsuspend,
	.preresume = remap_preresume,
	.status = dm_remap_status,
	.message = dm_remap_message,
	.iterate_devices = remap_iterate_devices,
	.io_hints = remap_io_hints,
};

static int __init dm_remap_module_init(void)
{
	int ret = dm_remap_reader_init();

	if (ret)
		return ret;
	ret = dm_remap_autosave_init();
	if (ret)
		goto out_reader;
	ret = dm_remap_sleep_init();
	if (ret)
		goto out_autosave;
	ret = dm_register_target(&remap_target);
	if (ret)
		goto out_sleep;
	return 0;

out_sleep:
	dm_remap_sleep_exit();
out_autosave:
	dm_remap_autosave_exit();
out_reader:
	dm_remap_reader_exit();
	return ret;
}

static void __exit dm_remap_module_exit(void)
{
	dm_unregister_target(&remap_target);
	dm_remap_sleep_exit();
	dm_remap_autosave_exit();
	dm_remap_reader_exit();
	/* Old leaves of the table may still be on their way to be freed. */
	rcu_barrier();
}

module_init(dm_remap_module_init);
module_exit(dm_remap_module_exit);

MODULE_DESCRIPTION("device-mapper target that remaps bad sectors to a spare device");
MODULE_AUTHOR("dm-remap developers");
MODULE_LICENSE("GPL");

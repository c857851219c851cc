// SPDX-License-Identifier: GPL-2.0-only
/*
 * The live devices: which there are, and how one comes and goes.
 *
 *   get (constructor)   finds the live one for a reload, or reads the spare; writes nothing
 *   resume (preresume)  the first that writes: format, heal, new activation
 *   suspend (postsuspend)  stops the workers, checkpoints to CLEAN
 *   put (destructor)
 */
#include "dm-remap.h"

#include <linux/uuid.h>

/* Each I/O reads these. While I/O runs others write what stands beside them, on another line. */
#define LINE(field) (offsetof(struct dm_remap_device, field) / SMP_CACHE_BYTES)
#define APART(a, b) static_assert(!IS_ENABLED(CONFIG_SMP) || LINE(a) != LINE(b))

APART(main_bdev, worker);
APART(counter[DM_REMAP_SLOT_LONG], worker);
APART(metadata.mode, metadata.cache[DM_REMAP_MAIN].underway);
APART(metadata.mode, metadata.commit_lock);
APART(metadata.cache[DM_REMAP_SPARE].written, metadata.cache[DM_REMAP_SPARE].flushed);
APART(metadata.cache[DM_REMAP_SPARE].flushed, metadata.schedule);
APART(metadata.counter_saved[DM_REMAP_NR_COUNTERS - 1], metadata.table.chunk);
APART(metadata.table.chunk, metadata.table.lock);

/*
 * registry_lock is for the decision which tables share a device. Nothing slow is done under it: no
 * memory is allocated, and no device is waited for. A table that is being made takes its place in
 * the lists. Then its spare is read.
 */
static DEFINE_MUTEX(registry_lock);
static LIST_HEAD(registry);
static bool resumes_refused;		/* registry_lock */

void dm_remap_with_each_device(void (*fn)(struct dm_remap_device *d, void *data), void *data)
{
	struct dm_remap_device *d;

	mutex_lock(&registry_lock);
	list_for_each_entry(d, &registry, list)
		fn(d, data);
	mutex_unlock(&registry_lock);
}

void dm_remap_refuse_resumes(bool refuse)
{
	mutex_lock(&registry_lock);
	resumes_refused = refuse;
	mutex_unlock(&registry_lock);
}

/* ---- who main is ---- */

static_assert(DM_REMAP_MAIN_ID_T10 == (int)BLK_UID_T10);
static_assert(DM_REMAP_MAIN_ID_EUI64 == (int)BLK_UID_EUI64);
static_assert(DM_REMAP_MAIN_ID_NAA == (int)BLK_UID_NAA);

/* An id that the disk itself gives, where it has one. */
static void read_disk_id(struct block_device *bdev, struct dm_remap_main *main)
{
	static const enum blk_unique_id types[] = { BLK_UID_NAA, BLK_UID_EUI64, BLK_UID_T10 };
	struct gendisk *disk = bdev->bd_disk;
	unsigned int i;

	if (!disk->fops->get_unique_id)
		return;
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		u8 bytes[DM_REMAP_MAIN_ID_SIZE] = { };

		if (disk->fops->get_unique_id(disk, bytes, types[i]) <= 0)
			continue;
		main->disk_type = types[i];
		memcpy(main->disk_id, bytes, sizeof(main->disk_id));
		return;
	}
}

/* The DM UUID, which may be empty; false: device-mapper did not make the device. */
static bool read_dm_uuid(struct block_device *bdev, char uuid[DM_UUID_LEN])
{
	struct mapped_device *md = dm_get_md(bdev->bd_dev);

	if (!md)
		return false;
	/* One that is being removed has lost it; but we hold it open. */
	if (dm_copy_name_and_uuid(md, NULL, uuid))
		uuid[0] = '\0';
	dm_put(md);
	return true;
}

static void read_main(const struct dm_remap_target *t, struct dm_remap_main *main)
{
	struct block_device *bdev = t->main->bdev;
	char uuid[DM_UUID_LEN];

	memset(main, 0, sizeof(*main));
	main->id.sectors = bdev_nr_sectors(bdev);
	main->id.start = t->device->main_start;
	main->id.partition = get_start_sect(bdev);
	main->granularity = bdev_logical_block_size(bdev) >> SECTOR_SHIFT;
	main->rebind = t->features.rebind;
	read_disk_id(bdev, main);
	dm_remap_main_identify(main, read_dm_uuid(bdev, uuid) ? uuid : NULL);
}

/* ---- making one ---- */

static int device_prepare_format(struct dm_remap_target *t, char **error)
{
	struct dm_remap_device *d = t->device;
	struct dm_remap_format_params *p = &d->format;
	struct dm_remap_main main;
	int ret;

	d->to_format = true;
	p->spare_sectors = bdev_nr_sectors(d->spare_bdev);
	p->granularity = bdev_logical_block_size(d->main_bdev) >> SECTOR_SHIFT;
	p->blank_only = true;
	if (t->features.has_uuid)
		export_uuid(p->uuid, &t->features.uuid);
	else
		generate_random_uuid(p->uuid);
	read_main(t, &main);
	p->main = main.id;
	ret = dm_remap_format_check(&dm_remap_kernel_ops, d, p, &d->report);
	if (ret && d->report.refusal)
		*error = (char *)d->report.refusal;
	return ret;
}

/*
 * Is the spare as new as the table line knows it was? So is memory, if the device is live:
 * it may have begun with an older copy, when nobody asked.
 */
static int device_check_witness(const struct dm_remap_target *t, char **error)
{
	const struct dm_remap_metadata *md = &t->device->metadata;
	const struct dm_remap_witness *least = &t->features.witness;
	struct dm_remap_report report;

	if (!dm_remap_check_witness(md, least, &report))
		return 0;
	DMERR("spare %pg is at generation %llu, sequence %llu; its witness is of %llu and %llu",
	      t->device->spare_bdev, md->sb.generation, md->next_sequence, least->generation,
	      least->sequence);
	*error = (char *)report.refusal;
	return -ESTALE;
}

static void tell_wrong_main(const struct dm_remap_device *d, const struct dm_remap_main *main)
{
	const struct dm_remap_super *sb = &d->metadata.sb;

	DMERR("spare %pg belongs to %s, %llu sectors, start %llu, blocks of %u bytes",
	      d->spare_bdev, sb->main.name[0] ? sb->main.name : "a device without a name",
	      sb->main.sectors, sb->main.start, sb->layout.granularity << SECTOR_SHIFT);
	DMERR("main %pg is %s, %llu sectors, start %llu, blocks of %u bytes", d->main_bdev,
	      main->id.name[0] ? main->id.name : "a device without a name", main->id.sectors,
	      main->id.start, main->granularity << SECTOR_SHIFT);
}

/* Is main the one that the spare knows, or does the table line say that it is? */
static int device_check_main(struct dm_remap_target *t, char **error)
{
	struct dm_remap_device *d = t->device;
	struct dm_remap_report report;
	struct dm_remap_main main;

	read_main(t, &main);
	if (!dm_remap_check_main(&d->metadata, &main, &report))
		return 0;
	tell_wrong_main(d, &main);
	*error = (char *)report.refusal;
	return -ENODEV;
}

/* Is the spare that was loaded the one for this table? */
static int device_check_loaded(struct dm_remap_target *t, char **error)
{
	struct dm_remap_metadata *md = &t->device->metadata;
	uuid_t uuid;
	int ret;

	import_uuid(&uuid, md->sb.uuid);
	if (t->features.has_uuid && !uuid_equal(&uuid, &t->features.uuid)) {
		DMERR("spare %pg has UUID %pUb, the table wants %pUb",
		      t->device->spare_bdev, &uuid, &t->features.uuid);
		*error = "spare has another UUID than the table line says";
		return -ENODEV;
	}
	ret = device_check_main(t, error);
	t->device->rebinding = t->features.rebind;
	return ret ?: device_check_witness(t, error);
}

static int device_load(struct dm_remap_target *t, char **error)
{
	struct dm_remap_device *d = t->device;
	int ret;

	if (t->features.format)
		return device_prepare_format(t, error);
	ret = dm_remap_metadata_recover(d, t->ti->len);
	if (ret) {
		*error = (char *)d->report.refusal;
		return ret;
	}
	return device_check_loaded(t, error);
}

static void device_free(struct dm_remap_device *d)
{
	dm_remap_workers_exit(d);
	dm_remap_inflight_exit(d);
	dm_remap_metadata_exit(&d->metadata);
	bioset_exit(&d->bios);
	mutex_destroy(&d->event_lock);
	kfree(d);
}

static struct dm_remap_device *device_alloc(struct dm_remap_target *t, u64 main_start)
{
	struct dm_remap_device *d = kzalloc(sizeof(*d), GFP_KERNEL);
	int ret;

	if (!d)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&d->list);
	INIT_LIST_HEAD(&d->tables);
	mutex_init(&d->event_lock);
	ratelimit_default_init(&d->warnings);
	d->dm = dm_table_get_md(t->ti->table);
	d->main_devt = t->main->bdev->bd_dev;
	d->spare_devt = t->spare->bdev->bd_dev;
	d->main_start = main_start;
	d->main_bdev = t->main->bdev;
	d->spare_bdev = t->spare->bdev;
	dm_remap_autosave_setup(d);

	ret = bioset_init(&d->bios, 4, 0, BIOSET_NEED_BVECS);
	if (ret)
		goto out_device;
	ret = dm_remap_metadata_init(&d->metadata, &dm_remap_kernel_ops, d);
	if (ret)
		goto out_bios;
	ret = dm_remap_inflight_init(d);
	if (ret)
		goto out_metadata;
	ret = dm_remap_workers_init(d, dm_device_name(d->dm));
	if (ret)
		goto out_inflight;
	return d;

out_inflight:
	dm_remap_inflight_exit(d);
out_metadata:
	dm_remap_metadata_exit(&d->metadata);
out_bios:
	bioset_exit(&d->bios);
out_device:
	kfree(d);
	return ERR_PTR(ret);
}

/* ---- finding one ---- */

static bool ranges_overlap(u64 a, u64 a_length, u64 b, u64 b_length)
{
	return a < b + b_length && b < a + a_length;
}

/* May the mapped device of @d not give up the spare of @d for another? */
static bool spare_in_use(struct dm_remap_device *d)
{
	struct dm_remap_metadata *md = &d->metadata;
	struct dm_remap_totals totals;

	/* A table that was loaded and never served is on the spare, as it was. */
	if (!md->loaded || !READ_ONCE(md->served))
		return false;
	dm_remap_table_totals(&md->table, &totals);
	return totals.records || READ_ONCE(md->doubt);
}

/*
 * Has the kernel given up the disk of the spare? Errors alone do not tell that from a disk that is
 * slow or has lost its link for a time. A device of device-mapper, md, loop or nbd stays as long
 * as it is open. When the disk beneath comes back, the device has its old name.
 */
static bool spare_is_gone(const struct dm_remap_device *d)
{
	return !READ_ONCE(d->spare_devt) ||
	       test_bit(GD_DEAD, &READ_ONCE(d->spare_bdev)->bd_disk->state);
}

#define SPARE_IS_THERE \
	"the spare in use is there and holds records: unremap them, or see recovery.md"
#define SPARE_IS_GONE \
	"the spare in use is gone and holds records: bring that one back, format none"
#define OTHER_START \
	"the spare in use holds records for another start of main; remove the device first"

/*
 * The table @t names another spare than the live device @d of the same mapped device has. Only its
 * own spare, under another name, may go on with the records of @d. 1: try that; 0: @d has none.
 */
static int spare_conflict(struct dm_remap_device *d, const struct dm_remap_target *t,
			  u64 main_start, char **error)
{
	if (!spare_in_use(d))
		return 0;
	if (!spare_is_gone(d))
		*error = SPARE_IS_THERE;
	else if (t->features.format)
		*error = SPARE_IS_GONE;
	else if (d->main_start != main_start)
		*error = OTHER_START;
	else
		return 1;
	return -EBUSY;
}

/*
 * Does the live device @d stand in the way of the table @t (negative), or serve it
 * (1)? dm opens all devices under one claim, so nobody else would notice.
 */
static int device_conflict(struct dm_remap_device *d, const struct dm_remap_target *t,
			   u64 main_start, char **error)
{
	dev_t main = t->main->bdev->bd_dev, spare = t->spare->bdev->bd_dev;
	dev_t live = READ_ONCE(d->spare_devt);
	bool same_dm = d->dm == dm_table_get_md(t->ti->table);

	if (live == main || d->main_devt == spare) {
		*error = "a device cannot be main of one remap device and spare of another";
		return -EBUSY;
	}
	if (live != spare) {
		if (d->main_devt != main ||
		    !ranges_overlap(d->main_start, d->main_claim, main_start, t->ti->len))
			return 0;
		if (!same_dm) {
			*error = "main is in use by another remap device, and the ranges overlap";
			return -EBUSY;
		}
		return spare_conflict(d, t, main_start, error);
	}
	if (!same_dm) {
		*error = "spare is in use by another remap device";
		return -EBUSY;
	}
	if (d->main_devt != main || d->main_start != main_start) {
		*error = "this device uses the spare with another main or start; remove it first";
		return -EBUSY;
	}
	return 1;
}

/* The table @t may go on with the live device. */
static int device_check_shared(struct dm_remap_target *t, char **error)
{
	struct dm_remap_metadata *md = &t->device->metadata;
	struct dm_remap_record r;
	uuid_t uuid;
	int ret = 0;

	if (t->features.format && !t->device->to_format) {
		*error = "spare is formatted already, and in use: leave out the word format";
		return -EEXIST;
	}
	if (!t->features.format && t->device->to_format) {
		*error = "another table is to format this spare: resume or remove that one first";
		return -EEXIST;
	}
	import_uuid(&uuid, t->device->to_format ? t->device->format.uuid : md->sb.uuid);
	if (t->features.has_uuid && !uuid_equal(&uuid, &t->features.uuid)) {
		*error = "spare has another UUID than the table line says";
		return -ENODEV;
	}
	if (md->loaded && dm_remap_table_next(&md->table, t->ti->len, &r)) {
		DMERR("there is a record at sector %llu, length %u", r.main, r.length);
		*error = "main would end before a record; unremap or forget it first";
		return -EBUSY;
	}
	/* A read-only table with the word rebind has proved nothing for those after it. */
	if (READ_ONCE(t->device->rebinding))
		ret = device_check_main(t, error);
	return ret ?: device_check_witness(t, error);
}

static bool names_another_spare(const struct dm_remap_target *t, const struct dm_remap_device *d)
{
	return t->spare->bdev->bd_dev != READ_ONCE(d->spare_devt);
}

/* ---- reading the spare ---- */

/* As device_load, for a new device; a fatal signal ends it. */
static int device_load_killable(struct dm_remap_target *t, char **error)
{
	struct dm_remap_reader *reader = dm_remap_reader_open(t->spare->bdev);
	int ret;

	if (IS_ERR(reader)) {
		*error = "spare cannot be opened once more, to read it";
		return PTR_ERR(reader);
	}
	t->device->reader = reader;
	ret = device_load(t, error);
	dm_remap_reader_close(t->device->reader);
	t->device->reader = NULL;
	return ret;
}

/*
 * Has the spare of the live device come back under another name, as the table has it? Refused now,
 * it leaves the live table as it is. The resume looks once more.
 */
static int device_check_returned(struct dm_remap_target *t, char **error)
{
	struct dm_remap_device *live = t->device, *d = device_alloc(t, live->main_start);
	struct dm_remap_report report;
	int ret;

	if (IS_ERR(d))
		return PTR_ERR(d);
	t->device = d;
	ret = device_load_killable(t, error);
	if (!ret) {
		ret = dm_remap_check_returned(&live->metadata, &d->metadata, &report);
		if (ret)
			*error = (char *)report.refusal;
	}
	t->device = live;
	device_free(d);
	return ret;
}

/* ---- finding one, or making it ---- */

/* The live device that serves @t, NULL if there is none, or an error: all are looked at. */
static struct dm_remap_device *device_find(const struct dm_remap_target *t, u64 main_start,
					   char **error)
{
	struct dm_remap_device *d, *found = NULL;

	list_for_each_entry(d, &registry, list) {
		int ret = device_conflict(d, t, main_start, error);

		if (ret < 0)
			return ERR_PTR(ret);
		if (ret)
			found = d;
	}
	return found;
}

/* Its tables have changed: what of main no other device may have. */
static void device_claim(struct dm_remap_device *d)
{
	const struct dm_remap_target *t;
	u64 claim = 0;

	lockdep_assert_held(&registry_lock);
	list_for_each_entry(t, &d->tables, list)
		claim = max_t(u64, claim, t->ti->len);
	WRITE_ONCE(d->main_claim, claim);
}

/* The table has its place at the device, and is not made yet. */
static void device_reserve(struct dm_remap_target *t, struct dm_remap_device *d)
{
	lockdep_assert_held(&registry_lock);
	t->device = d;
	if (list_empty(&d->tables))
		list_add(&d->list, &registry);
	list_add(&t->list, &d->tables);
	device_claim(d);
}

static bool device_is_made(const struct dm_remap_device *d)
{
	const struct dm_remap_target *t;

	lockdep_assert_held(&registry_lock);
	list_for_each_entry(t, &d->tables, list)
		if (!t->made)
			return false;
	return true;
}

/* The live device that the table is to share. NULL: there is none; or an error. */
static struct dm_remap_device *device_to_share(struct dm_remap_target *t, u64 main_start,
					       char **error)
{
	struct dm_remap_device *d = device_find(t, main_start, error);
	int ret;

	lockdep_assert_held(&registry_lock);
	if (IS_ERR_OR_NULL(d))
		return d;
	if (!device_is_made(d)) {
		*error = "another table of this device is being loaded: try again";
		return ERR_PTR(-EBUSY);
	}
	t->device = d;
	ret = device_check_shared(t, error);
	return ret ? ERR_PTR(ret) : d;
}

/* Reserves the live device, or else @made, and returns it. NULL: there is neither; or an error. */
static struct dm_remap_device *device_take(struct dm_remap_target *t, u64 main_start,
					   struct dm_remap_device *made, char **error)
{
	struct dm_remap_device *d;

	mutex_lock(&registry_lock);
	d = device_to_share(t, main_start, error) ?: made;
	if (!IS_ERR_OR_NULL(d))
		device_reserve(t, d);
	mutex_unlock(&registry_lock);
	return d;
}

/* The same; makes one if there is none. Is it new? */
static struct dm_remap_device *device_find_or_make(struct dm_remap_target *t, u64 main_start,
						   bool *new, char **error)
{
	struct dm_remap_device *d = device_take(t, main_start, NULL, error), *made;

	*new = false;
	if (d)
		return d;
	made = device_alloc(t, main_start);
	if (IS_ERR(made))
		return made;
	/* Another table of the mapped device may have come first. */
	d = device_take(t, main_start, made, error);
	*new = d == made;
	if (!*new)
		device_free(made);
	return d;
}

/*
 * The last table that held the spare open may be gone, and what is left is to bring it back. Then
 * the kernel may give its number to another disk.
 */
static void device_forget_spare(struct dm_remap_device *d)
{
	const struct dm_remap_target *t;

	lockdep_assert_held(&registry_lock);
	list_for_each_entry(t, &d->tables, list)
		if (!names_another_spare(t, d))
			return;
	t = list_first_entry(&d->tables, struct dm_remap_target, list);
	WRITE_ONCE(d->spare_devt, 0);
	WRITE_ONCE(d->spare_bdev, t->spare->bdev);
}

void dm_remap_device_put(struct dm_remap_target *t)
{
	struct dm_remap_device *d = t->device;
	bool last;

	mutex_lock(&registry_lock);
	list_del(&t->list);
	last = list_empty(&d->tables);
	if (last) {
		list_del(&d->list);
	} else {
		device_claim(d);
		device_forget_spare(d);
	}
	mutex_unlock(&registry_lock);
	if (last)
		device_free(d);
}

static int device_make(struct dm_remap_target *t, bool new, char **error)
{
	int ret = 0;

	if (new)
		ret = device_load_killable(t, error);
	else if (names_another_spare(t, t->device))
		ret = device_check_returned(t, error);
	if (ret) {
		dm_remap_device_put(t);
		return ret;
	}
	mutex_lock(&registry_lock);
	t->made = true;
	mutex_unlock(&registry_lock);
	return 0;
}

int dm_remap_device_get(struct dm_remap_target *t, u64 main_start, char **error)
{
	/* The mapped device may be suspended, and then reclaim may wait for its resume. */
	unsigned int noio = memalloc_noio_save();
	struct dm_remap_device *d;
	bool new;
	int ret;

	d = device_find_or_make(t, main_start, &new, error);
	ret = PTR_ERR_OR_ZERO(d) ?: device_make(t, new, error);
	memalloc_noio_restore(noio);
	return ret;
}

/* ---- events ---- */

/* Thresholds of the use of the spare, or of its table, that raise an event. */
static unsigned int percent_step(u64 used, u64 total)
{
	static const unsigned int step[] = { 100, 90, 75, 50 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(step); i++)
		if (used * 100 >= total * step[i])
			return step[i];
	return 0;
}

/* Notes what there is to tell; is it something new? event_lock held. */
static bool event_note(struct dm_remap_device *d)
{
	struct dm_remap_metadata *md = &d->metadata;
	u64 total = dm_remap_alloc_total_sectors(&md->alloc);
	u64 used = total - dm_remap_alloc_free_sectors(&md->alloc);
	unsigned int percent = max(percent_step(used, total),
				   percent_step(dm_remap_records(md),
						dm_remap_max_records(&md->sb.layout)));
	u64 recovered = atomic64_read(&md->counter[DM_REMAP_RECOVERED]);
	struct dm_remap_totals totals;
	bool news;

	lockdep_assert_held(&d->event_lock);
	dm_remap_table_totals(&md->table, &totals);
	news = d->event_mode != md->mode || totals.records > d->event_records ||
	       totals.unreadable > d->event_unreadable ||
	       percent != d->event_percent || md->save_failed != d->event_save_failed ||
	       dm_remap_breaker_open(md) != d->event_breaker ||
	       READ_ONCE(md->refusal) != d->event_refusal || recovered != d->event_recovered;
	d->event_mode = md->mode;
	d->event_records = totals.records;
	d->event_unreadable = totals.unreadable;
	d->event_percent = percent;
	d->event_save_failed = md->save_failed;
	d->event_breaker = dm_remap_breaker_open(md);
	d->event_refusal = READ_ONCE(md->refusal);
	d->event_recovered = recovered;
	return news;
}

/* Before an activation: what was loaded is no news, a mode other than rw is. */
static void event_baseline(struct dm_remap_device *d)
{
	mutex_lock(&d->event_lock);
	event_note(d);
	d->event_mode = DM_REMAP_MODE_RW;
	mutex_unlock(&d->event_lock);
}

void dm_remap_device_event(struct dm_remap_device *d)
{
	mutex_lock(&d->event_lock);
	if (event_note(d) && d->ti)
		dm_table_event(d->ti->table);
	mutex_unlock(&d->event_lock);
}

/* ---- resume and suspend ---- */

/* At the first resume of a table with the word format; what failed is gone on with later. */
static int device_format(struct dm_remap_device *d)
{
	int ret = 0;

	if (d->to_format)
		ret = dm_remap_format(&dm_remap_kernel_ops, d, &d->format, &d->report);
	if (!ret) {
		d->to_format = false;
		ret = dm_remap_metadata_recover(d, d->ti->len);
	}
	if (ret)
		DMERR("%s: format: %s", dm_device_name(d->dm), d->report.refusal ?: "failed");
	return ret;
}

static int device_resize(struct dm_remap_device *d)
{
	struct dm_remap_metadata *md = &d->metadata;
	int ret;

	if (md->main_sectors == d->ti->len)
		return 0;
	ret = dm_remap_metadata_resize(md, d->ti->len);
	if (ret)
		DMERR("%s: the table cannot be resized to %llu sectors (%d)",
		      dm_device_name(d->dm), (u64)d->ti->len, ret);
	return ret;
}

/*
 * Since this table was loaded, the spare of the one before it may have come to hold
 * records. That was the time to go on with it: this one would serve what main holds.
 */
static bool device_superseded(struct dm_remap_device *d)
{
	struct dm_remap_device *other;

	mutex_lock(&registry_lock);
	list_for_each_entry(other, &registry, list)
		if (other != d && other->dm == d->dm && other->main_devt == d->main_devt &&
		    ranges_overlap(other->main_start, READ_ONCE(other->main_claim),
				   d->main_start, READ_ONCE(d->main_claim)) &&
		    spare_in_use(other))
			d->superseded = true;
	mutex_unlock(&registry_lock);
	if (d->superseded)
		DMERR("%s: the spare until now holds records: create the device anew, with that",
		      dm_device_name(d->dm));
	return d->superseded;
}

/* The spare of the table, which is not open under the name that it had, must be the same still. */
static int device_take_back(struct dm_remap_target *t)
{
	struct dm_remap_device *d = t->device;
	struct dm_remap_report report;
	int ret;

	if (!names_another_spare(t, d))
		return 0;
	ret = dm_remap_take_back(&d->metadata, bdev_nr_sectors(d->spare_bdev), &report);
	if (ret)
		DMERR("%s: %s", dm_device_name(d->dm), report.refusal);
	else
		WRITE_ONCE(d->spare_devt, d->spare_bdev->bd_dev);
	return ret;
}

/* Main's physical block in sectors, where the mapped device begins with one; else 0. */
static u32 media_block(const struct dm_remap_device *d)
{
	u32 size = bdev_physical_block_size(d->main_bdev) >> SECTOR_SHIFT;
	u64 start = get_start_sect(d->main_bdev) + d->main_start;

	if (bdev_alignment_offset(d->main_bdev) || !is_power_of_2(size) || start & (size - 1))
		return 0;
	return min_t(u32, size, DM_REMAP_BLOCK_SECTORS);
}

static void go_on(struct dm_remap_device *d)
{
	WRITE_ONCE(d->stop, false);
	WRITE_ONCE(d->metadata.give_up, DM_REMAP_GIVE_UP_NOTHING);
}

static int device_resume(struct dm_remap_target *t, bool writable)
{
	struct dm_remap_device *d = t->device;
	struct dm_remap_metadata *md = &d->metadata;
	struct dm_remap_main main;
	int ret = 0;

	if (device_superseded(d))
		return -EBUSY;
	d->ti = t->ti;
	d->main_bdev = t->main->bdev;
	WRITE_ONCE(d->spare_bdev, t->spare->bdev);
	md->policy = t->features.policy;
	md->main_block = media_block(d);
	snprintf(md->spare_name, sizeof(md->spare_name), "%pg", d->spare_bdev);
	go_on(d);
	if (!md->loaded)
		ret = writable ? device_format(d) : -EROFS;
	ret = ret ?: device_take_back(t);
	ret = ret ?: device_resize(d);
	if (ret) {
		d->ti = NULL;
		return ret;
	}
	event_baseline(d);
	read_main(t, &main);
	dm_remap_breaker_reset(md);
	dm_remap_watch_ends_if_idle(d);
	md->write_nothing = md->sb.compat_ro || !writable;
	ret = dm_remap_activate(md, &main, d->report_due ? &d->report : NULL);
	if (ret) {
		d->ti = NULL;
		return ret;
	}
	if (md->numbered)
		WRITE_ONCE(d->rebinding, false);
	if (writable) {
		d->report_due = false;
		dm_remap_autosave_start(d);
	}
	dm_remap_device_event(d);
	/* Ranges may wait to be looked at again. */
	dm_remap_kick(d);
	return 0;
}

/* 0, or -EBUSY: the machine is about to hibernate. */
static int device_start(struct dm_remap_device *d)
{
	int ret = 0;

	mutex_lock(&registry_lock);
	if (resumes_refused)
		ret = -EBUSY;
	else
		d->starting = true;
	mutex_unlock(&registry_lock);
	if (ret)
		DMERR("%s: not resumed while the machine hibernates: try again when it is done",
		      dm_device_name(d->dm));
	return ret;
}

static void device_started(struct dm_remap_device *d)
{
	mutex_lock(&registry_lock);
	d->starting = false;
	mutex_unlock(&registry_lock);
}

int dm_remap_device_resume(struct dm_remap_target *t)
{
	int ret;

	if (!(dm_table_get_mode(t->ti->table) & BLK_OPEN_WRITE))
		return device_resume(t, false);
	ret = device_start(t->device);
	if (ret)
		return ret;
	ret = device_resume(t, true);
	device_started(t->device);
	return ret;
}

void dm_remap_device_stop(struct dm_remap_device *d, bool noflush)
{
	WRITE_ONCE(d->stop, true);
	dm_remap_workers_give_up(d, noflush ? DM_REMAP_GIVE_UP_ALL : DM_REMAP_GIVE_UP_READS);
}

void dm_remap_device_go_on(struct dm_remap_device *d)
{
	go_on(d);
	dm_remap_kick(d);
}

void dm_remap_device_suspend(struct dm_remap_device *d)
{
	int ret;

	/* A table that was never resumed is suspended too when it goes. */
	if (!d->ti)
		return;
	dm_remap_autosave_stop(d);
	dm_remap_workers_stop(d);
	ret = d->metadata.write_nothing ? 0 : dm_remap_deactivate(&d->metadata);
	/* Of another system that has the spare it was told. */
	if (ret && ret != -ESTALE)
		DMERR("%s: the spare was left as after a crash: the last checkpoint failed (%d)",
		      dm_device_name(d->dm), ret);
	mutex_lock(&d->event_lock);
	d->ti = NULL;
	mutex_unlock(&d->event_lock);
}

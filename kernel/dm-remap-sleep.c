// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hibernation is refused while a writable device is active. The resumed system goes on with the
 * table in its memory. By then the initramfs of the resume may have activated the spare. A
 * commit would notice that (core/dm-remap-owner.c), and all I/O would fail.
 *
 * Tasks run on for a while after that question. Until hibernation has ended no writable device is
 * resumed.
 */
#include "dm-remap.h"

#include <linux/suspend.h>

static void note_active(struct dm_remap_device *d, void *data)
{
	const struct dm_remap_metadata *md = &d->metadata;
	const char **name = data;

	if (d->starting || (READ_ONCE(md->active) && !READ_ONCE(md->write_nothing) &&
			    !READ_ONCE(md->taken)))
		*name = dm_device_name(d->dm);
}

/* 0, or -EBUSY. A notifier that refuses is not told of the end. */
static int sleep_begins(const char *what)
{
	const char *name = NULL;

	dm_remap_refuse_resumes(true);
	dm_remap_with_each_device(note_active, &name);
	if (!name)
		return 0;
	dm_remap_refuse_resumes(false);
	DMERR("%s: %s is refused while the device is active: remove it first, or load it read-only",
	      name, what);
	return -EBUSY;
}

static int sleep_notify(struct notifier_block *nb, unsigned long event, void *unused)
{
	switch (event) {
	case PM_HIBERNATION_PREPARE:
		return notifier_from_errno(sleep_begins("hibernation"));
	case PM_RESTORE_PREPARE:
		return notifier_from_errno(sleep_begins("resume from hibernation"));
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		dm_remap_refuse_resumes(false);
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block sleep_notifier = { .notifier_call = sleep_notify };

/* Without CONFIG_PM_SLEEP, as on s390x, this does nothing, and nothing hibernates. */
int dm_remap_sleep_init(void)
{
	return register_pm_notifier(&sleep_notifier);
}

void dm_remap_sleep_exit(void)
{
	unregister_pm_notifier(&sleep_notifier);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hibernation is refused while a writable device is active. The resumed system goes on with the
 * table in its memory. By then the initramfs of the resume may have activated the spare. A
 * commit would notice that (core/dm-remap-owner.c), and all I/O would fail.
 */
#include "dm-remap.h"

#include <linux/suspend.h>

static void note_active(struct dm_remap_device *d, void *data)
{
	const struct dm_remap_metadata *md = &d->metadata;
	const char **name = data;

	if (READ_ONCE(md->active) && !READ_ONCE(md->write_nothing) && !READ_ONCE(md->taken))
		*name = dm_device_name(d->dm);
}

static int sleep_notify(struct notifier_block *nb, unsigned long event, void *unused)
{
	const char *name = NULL;

	if (event != PM_HIBERNATION_PREPARE && event != PM_RESTORE_PREPARE)
		return NOTIFY_DONE;
	dm_remap_with_each_device(note_active, &name);
	if (!name)
		return NOTIFY_DONE;
	DMERR("%s: %s is refused while the device is active: remove it first, or load it read-only",
	      name, event == PM_HIBERNATION_PREPARE ? "hibernation" : "resume from hibernation");
	return notifier_from_errno(-EBUSY);
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

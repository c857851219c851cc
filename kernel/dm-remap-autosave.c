// SPDX-License-Identifier: GPL-2.0-only
/*
 * The background save: makes soft state durable and keeps the journal short. Each
 * record was durable when it was made; nothing depends on this.
 */
#include "dm-remap.h"

#include <linux/module.h>

#define MIN_INTERVAL	1u
#define MAX_INTERVAL	3600u

static bool enabled = true;
static unsigned int interval = 60;

static struct workqueue_struct *autosave_wq;

/* Between start and stop a device is scheduled; never after stop. */
static DEFINE_MUTEX(schedule_lock);

unsigned int dm_remap_autosave_interval(void)
{
	return READ_ONCE(interval);
}

unsigned int dm_remap_autosave_period(void)
{
	return READ_ONCE(enabled) ? READ_ONCE(interval) : 0;
}

static void schedule_next(struct dm_remap_device *d)
{
	unsigned int period;

	mutex_lock(&schedule_lock);
	period = dm_remap_autosave_period();
	if (!d->autosaving || !period)
		cancel_delayed_work(&d->autosave);
	else
		mod_delayed_work(autosave_wq, &d->autosave, period * HZ);
	mutex_unlock(&schedule_lock);
}

static void do_autosave(struct work_struct *work)
{
	struct dm_remap_device *d = container_of(work, struct dm_remap_device, autosave.work);

	if (!dm_remap_autosave_period())
		return;
	if (dm_remap_autosave(&d->metadata))
		DMWARN("%s: autosave failed; it is tried again in %u s",
		       dm_device_name(d->dm), dm_remap_autosave_period());
	dm_remap_device_event(d);
	schedule_next(d);
}

void dm_remap_autosave_setup(struct dm_remap_device *d)
{
	INIT_DELAYED_WORK(&d->autosave, do_autosave);
}

void dm_remap_autosave_start(struct dm_remap_device *d)
{
	mutex_lock(&schedule_lock);
	d->autosaving = true;
	mutex_unlock(&schedule_lock);
	schedule_next(d);
}

void dm_remap_autosave_stop(struct dm_remap_device *d)
{
	mutex_lock(&schedule_lock);
	d->autosaving = false;
	mutex_unlock(&schedule_lock);
	cancel_delayed_work_sync(&d->autosave);
}

/* ---- module parameters ---- */

static void reschedule(struct dm_remap_device *d, void *unused)
{
	schedule_next(d);
}

/* A new value takes effect at once on every device that runs. */
static int enabled_set(const char *val, const struct kernel_param *kp)
{
	int ret = param_set_bool(val, kp);

	if (!ret)
		dm_remap_with_each_device(reschedule, NULL);
	return ret;
}

static int interval_set(const char *val, const struct kernel_param *kp)
{
	/* ERANGE for what does not even fit an integer is EINVAL like all the rest. */
	if (param_set_uint_minmax(val, kp, MIN_INTERVAL, MAX_INTERVAL))
		return -EINVAL;
	dm_remap_with_each_device(reschedule, NULL);
	return 0;
}

static const struct kernel_param_ops enabled_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = enabled_set,
	.get = param_get_bool,
};

static const struct kernel_param_ops interval_ops = {
	.set = interval_set,
	.get = param_get_uint,
};

module_param_cb(dm_remap_autosave_enabled, &enabled_ops, &enabled, 0644);
MODULE_PARM_DESC(dm_remap_autosave_enabled, "Save in the background (default: on)");
module_param_cb(dm_remap_autosave_interval, &interval_ops, &interval, 0644);
MODULE_PARM_DESC(dm_remap_autosave_interval,
		 "Seconds between two saves in the background, 1 to 3600 (default: 60)");

int dm_remap_autosave_init(void)
{
	autosave_wq = alloc_workqueue("dm-remap-autosave",
				      WQ_MEM_RECLAIM | WQ_FREEZABLE | WQ_UNBOUND, 0);
	return autosave_wq ? 0 : -ENOMEM;
}

void dm_remap_autosave_exit(void)
{
	destroy_workqueue(autosave_wq);
}

// SPDX-License-Identifier: GPL-2.0-only
/* Waiting for bios in flight. */
#include "dm-remap-bio.h"

#include <linux/delay.h>

static unsigned long sum_of(const unsigned long __percpu *counter)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(counter, cpu));
	return sum;
}

/* The slots of a range, and how long its owner waits for them. */
struct drain {
	struct dm_remap_device *d;
	DECLARE_BITMAP(slots, DM_REMAP_SLOTS + 1);
	unsigned long end;		/* jiffies */
	bool no_end;			/* until a suspend or a signal */
};

static void drain_init(struct drain *w, struct dm_remap_device *d, u64 start, u64 length,
		       unsigned int ms)
{
	u64 first = start >> DM_REMAP_REGION_SHIFT;
	u64 last = (start + length - 1) >> DM_REMAP_REGION_SHIFT, region;

	w->d = d;
	w->end = jiffies + msecs_to_jiffies(ms);
	w->no_end = ms == DM_REMAP_NO_END;
	bitmap_zero(w->slots, DM_REMAP_SLOTS + 1);
	/* One that begins in the region before may reach into the first. */
	first -= first > 0;
	last = min(last, first + DM_REMAP_SLOTS - 1);
	for (region = first; region <= last; region++)
		__set_bit(dm_remap_slot_of(region), w->slots);
}

/* False: it has waited long enough. */
static bool pause(const struct drain *w)
{
	if (w->no_end ? dm_remap_stop(w->d) : time_after_eq(jiffies, w->end))
		return false;
	usleep_range(100, 500);
	return true;
}

/* Until none is counted there any more. False: it has waited long enough. */
static bool none_in_flight(const struct drain *w, unsigned long __percpu **counter)
{
	unsigned int slot;

	for_each_set_bit(slot, w->slots, DM_REMAP_SLOTS + 1)
		while (sum_of(counter[slot]))
			if (!pause(w))
				return false;
	smp_rmb(); /* pairs with inflight_leave */
	return true;
}

/* One drain at a time has a slot. In their order; those from @slot on are not locked. */
static bool lock_slots(const struct drain *w, unsigned int *slot)
{
	for_each_set_bit(*slot, w->slots, DM_REMAP_SLOTS + 1)
		while (!mutex_trylock(&w->d->slot_lock[*slot]))
			if (!pause(w))
				return false;
	return true;
}

static void unlock_slots(const struct drain *w, unsigned int end)
{
	unsigned int slot;

	for_each_set_bit(slot, w->slots, end)
		mutex_unlock(&w->d->slot_lock[slot]);
}

/*
 * The caller has marked its range in the table. After the first grace period every map sees that
 * mark; the others have counted themselves. Then the counters are exchanged. A map that read
 * the old counter before the exchange may count after it: the second grace period waits for
 * such maps. From there on the old counters only fall, so that a sum over the CPUs is zero only
 * if all have left. Those that are exchanged for them must have been zero before: they would
 * hide who has been in flight for two drains.
 */
static bool drain_slots(const struct drain *w)
{
	struct dm_remap_device *d = w->d;
	unsigned int slot;

	if (!none_in_flight(w, d->counter_next))
		return false;
	synchronize_rcu_expedited();
	for_each_set_bit(slot, w->slots, DM_REMAP_SLOTS + 1) {
		unsigned long __percpu *old = d->counter[slot];

		WRITE_ONCE(d->counter[slot], d->counter_next[slot]);
		d->counter_next[slot] = old;
	}
	synchronize_rcu_expedited();
	return none_in_flight(w, d->counter_next);
}

static bool drain(const struct drain *w)
{
	unsigned int locked;
	bool none = lock_slots(w, &locked) && drain_slots(w);

	unlock_slots(w, locked);
	return none;
}

bool dm_remap_drain(void *ctx, u64 start, u64 length, unsigned int ms)
{
	struct drain w;

	drain_init(&w, ctx, start, length, ms);
	if (!drain(&w))
		return false;
	/* By itself: all drains have this slot, and none keeps it while it waits for others. */
	bitmap_zero(w.slots, DM_REMAP_SLOTS + 1);
	__set_bit(DM_REMAP_SLOT_LONG, w.slots);
	return drain(&w);
}

void dm_remap_inflight_exit(struct dm_remap_device *d)
{
	unsigned int slot;

	for (slot = 0; slot <= DM_REMAP_SLOTS; slot++)
		mutex_destroy(&d->slot_lock[slot]);
	free_percpu(d->inflight);
}

int dm_remap_inflight_init(struct dm_remap_device *d)
{
	unsigned int slot;

	d->inflight = __alloc_percpu(sizeof(*d->inflight), IO_MARKS + 1);
	if (!d->inflight)
		return -ENOMEM;
	for (slot = 0; slot <= DM_REMAP_SLOTS; slot++) {
		mutex_init(&d->slot_lock[slot]);
		d->counter[slot] = &d->inflight->counter[2 * slot][0];
		d->counter_next[slot] = &d->inflight->counter[2 * slot + 1][0];
	}
	return 0;
}

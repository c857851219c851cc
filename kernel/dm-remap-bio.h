/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The marks of a bio, and the count of those in flight: for dm-remap-map.c, dm-remap-inflight.c and
 * dm-remap-worker.c.
 *
 * In flight. Before a range is copied no write may be on its way to the old place. Before a place
 * on the spare is given up nothing may be on its way there. So writes to main and all I/O to the
 * spare are counted by region, per CPU, in one of two counters of each. A lookup and the count that
 * follows it are one section with preemption off; see dm_remap_drain for the other side. A bio
 * that waits for a worker is not counted. A worker's own I/O goes to ranges that are its job's
 * (dm-remap-schedule.h).
 */
#ifndef DM_REMAP_BIO_H
#define DM_REMAP_BIO_H

#include "dm-remap.h"

/* Marks of a bio. Most have none. All other bits are the counter that it is counted in, or 0. */
#define IO_SPARE	0x1		/* it is on the spare, not on main */
#define IO_SPARE_WRITE	0x2		/* a flush of the spare must cover it */
#define IO_FLUSH	0x4
#define IO_FUA		0x8		/* FUA, for which its device may be flushed behind it */
#define IO_WATCHED	0x10		/* a failure of main waits to be judged */
#define IO_DECIDED	0x20		/* a worker has given it its status */
#define IO_GIVEN_BACK	0x40		/* and that is: dm keeps it until the next resume */
#define IO_MARKS	0x7f

/* A clone's bi_private is the target's, and nearer than dm_per_bio_data. */
static inline unsigned long marks_of(const struct bio *bio)
{
	return (unsigned long)bio->bi_private;
}

static inline void mark(struct bio *bio, unsigned long marks)
{
	bio->bi_private = (void *)marks;
}

static inline struct dm_remap_io *io_of(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct dm_remap_io));
}

static inline enum dm_remap_kind_of_io kind_of(const struct bio *bio)
{
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return DM_REMAP_IO_READ;
	case REQ_OP_WRITE:
		return DM_REMAP_IO_WRITE;
	case REQ_OP_WRITE_ZEROES:
		return DM_REMAP_IO_ZEROES;
	default:
		return DM_REMAP_IO_DISCARD;
	}
}

static inline enum dm_remap_direction direction_of(const struct bio *bio)
{
	return op_is_write(bio_op(bio)) ? DM_REMAP_WRITE : DM_REMAP_READ;
}

/* EAGAIN is an answer to NOWAIT, and a discard is advice. */
static inline void count_error(struct dm_remap_device *d, const struct bio *bio,
			       blk_status_t error)
{
	if (error == BLK_STS_AGAIN || bio_op(bio) == REQ_OP_DISCARD)
		return;
	dm_remap_count(&d->metadata, op_is_write(bio_op(bio)) ? DM_REMAP_WRITE_ERRORS :
								DM_REMAP_READ_ERRORS, 1);
}

/* ---- in flight ---- */

/*
 * A bio is counted in the slot of the region in which it begins. Few regions share a slot, so who
 * waits for one seldom waits for another. No bio is longer than a region but a discard, and
 * those have the last slot.
 */
static inline unsigned int dm_remap_slot_of(u64 region)
{
	return region % DM_REMAP_SLOTS;
}

/* The marks of a bio have the low bits of a counter's address. */
struct dm_remap_inflight {
	unsigned long counter[2 * (DM_REMAP_SLOTS + 1)][(IO_MARKS + 1) / sizeof(unsigned long)];
};

static inline bool is_long(const struct bio *bio)
{
	return bio->bi_iter.bi_size > DM_REMAP_REGION_SECTORS << SECTOR_SHIFT;
}

/* In the section of the lookup that decided where the bio goes. Returns its marks. */
static inline unsigned long inflight_enter(struct dm_remap_device *d, const struct bio *bio,
					   sector_t sector)
{
	unsigned int slot = dm_remap_slot_of(sector >> DM_REMAP_REGION_SHIFT);
	unsigned long __percpu *counter;

	if (unlikely(is_long(bio)))
		slot = DM_REMAP_SLOT_LONG;
	counter = READ_ONCE(d->counter[slot]);
	this_cpu_inc(*counter);
	return (__force unsigned long)counter;
}

static inline void inflight_leave(unsigned long marks)
{
	unsigned long __percpu *counter = (__force unsigned long __percpu *)(marks & ~IO_MARKS);

	if (!counter)
		return;
	smp_wmb(); /* who finds that it has left sees what it did; pairs with none_in_flight */
	this_cpu_dec(*counter);
}

/* ---- dm-remap-worker.c ---- */

/*
 * Waits for a worker. It was @tried before, or not; @pending: main is known not to read it. The bio
 * may be done, and the device be gone, before this returns.
 */
void dm_remap_wait_for_worker(struct dm_remap_device *d, struct bio *bio, bool tried, bool pending);

#endif /* DM_REMAP_BIO_H */

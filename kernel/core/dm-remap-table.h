/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The remap table in memory.
 *
 * The sectors of a device are cut into fixed regions of 4 MiB. A region with
 * records has one leaf: an immutable array of pieces, which are records cut at the
 * region's edges, sorted, no two overlapping. Changing a region means putting
 * another leaf in its place (RCU), so a lookup takes no lock and never sees a
 * change half done. A directory of chunks finds the leaf in two loads; where a
 * chunk or leaf is missing there is no record.
 *
 * Leaves also carry what is known only in memory: DM_REMAP_F_HELD and
 * DM_REMAP_F_DOUBT, on records or, with kind DM_REMAP_NONE, on plain ranges.
 *
 * "Canonical" records are those that go to the disk and that people see: flags
 * left out but for DM_REMAP_F_DURABLE, pieces that continue one another, with the
 * same of these flags, joined across region edges.
 *
 * Locking. One writer at a time prepares and publishes: the caller sees to that
 * (metadata: commit_lock). table->lock is taken inside, for short, by publish and
 * by whoever walks canonical records. Nothing here does I/O.
 */
#ifndef DM_REMAP_TABLE_H
#define DM_REMAP_TABLE_H

#include "dm-remap-codec.h"

#define DM_REMAP_REGION_SHIFT	13			/* sectors: 4 MiB */
#define DM_REMAP_REGION_SECTORS	BIT(DM_REMAP_REGION_SHIFT)
#define DM_REMAP_CHUNK_SHIFT	9			/* regions in a chunk: 2 GiB */
#define DM_REMAP_CHUNK_REGIONS	BIT(DM_REMAP_CHUNK_SHIFT)

/* What a leaf has of a record, in less memory than that takes: there can be millions. */
struct dm_remap_piece {
	u64 spare;
	u32 first_time;
	u32 last_time;
	u16 start;			/* sector of the region */
	u16 end;			/* the one behind it */
	u8 kind;
	u8 reason;
	u16 flags;
};

static_assert(sizeof(struct dm_remap_piece) == 24, "piece");
static_assert(DM_REMAP_REGION_SECTORS <= U16_MAX, "end of a piece");

struct dm_remap_leaf {
	u32 count;			/* of pieces */
	u32 epoch;			/* table->epoch when published */
	struct dm_remap_leaf *older;	/* what the snapshot still wants; table->lock */
	struct dm_remap_piece piece[];
};

struct dm_remap_chunk {
	struct dm_remap_leaf __rcu *leaf[DM_REMAP_CHUNK_REGIONS];
};

struct dm_remap_totals {
	u64 records;			/* canonical, of any kind */
	u64 mapped;			/* sectors */
	u64 unreadable;			/* sectors of them: DM_REMAP_F_UNREADABLE */
	u64 pending;			/* sectors */
	u64 retired;			/* sectors */
};

struct dm_remap_snapshot;

struct dm_remap_table {
	/* Read by each I/O. */
	u64 sectors ____cacheline_aligned_in_smp;	/* keys are 0 to sectors - 1 */
	u64 nr_chunks;
	struct dm_remap_chunk __rcu **chunk;

	/* 0: all is plain. Leaves, and each of the two that follow. */
	atomic64_t busy;
	atomic_t watched;		/* 0 or 1; see dm_remap_table_watch */
	atomic_t closed;		/* 0 or 1; see dm_remap_table_close */

	/* Protects what follows, and publishing. */
	struct mutex lock ____cacheline_aligned_in_smp;
	struct dm_remap_totals totals;
	u32 epoch;
	struct dm_remap_snapshot *snapshot;	/* NULL: none is being taken */
};

/* 0 or -ENOMEM. @sectors up to 2^54. Context: may sleep. */
int dm_remap_table_init(struct dm_remap_table *t, u64 sectors);
/* No reader may be left. Context: may sleep. */
void dm_remap_table_exit(struct dm_remap_table *t);

/*
 * Each holds what the other did. Nobody looks anything up in @a, and no snapshot is taken of
 * it; who walks it may go on. @b is the caller's alone.
 */
void dm_remap_table_swap(struct dm_remap_table *a, struct dm_remap_table *b);

/*
 * A table for @sectors in the place of @t's, records and all. Only while nobody
 * reads, and no snapshot is taken. 0, -ENOMEM, or -EBUSY: a record lies beyond, or
 * a range that is held or in doubt.
 */
int dm_remap_table_resize(struct dm_remap_table *t, u64 sectors);

/* Nothing recorded, held or in doubt, nor watched or closed. Any context, no lock. */
static inline bool dm_remap_table_empty(const struct dm_remap_table *t)
{
	return !atomic64_read(&t->busy);
}

/* Has the region of @sector no leaf? Chunks, once there, stay: no need of RCU. */
static inline bool dm_remap_table_no_leaf(const struct dm_remap_table *t, u64 sector)
{
	u64 region = sector >> DM_REMAP_REGION_SHIFT;
	const struct dm_remap_chunk *chunk;

	if (region >> DM_REMAP_CHUNK_SHIFT >= t->nr_chunks)
		return true;
	chunk = rcu_access_pointer(t->chunk[region >> DM_REMAP_CHUNK_SHIFT]);
	return !chunk || !rcu_access_pointer(chunk->leaf[region & (DM_REMAP_CHUNK_REGIONS - 1)]);
}

/* Nothing is plain any more (dm_remap_table_nothing): the caller looks closer at all I/O. */
void dm_remap_table_close(struct dm_remap_table *t);
/* The same for a time, while @on. Any context. */
void dm_remap_table_watch(struct dm_remap_table *t, bool on);

static inline bool dm_remap_table_watched(const struct dm_remap_table *t)
{
	return atomic_read(&t->watched);
}

/*
 * Is it plain, without a closer look, that nothing is recorded, held or in doubt in
 * the @sectors sectors from @sector on, of which there is at least one? Any context, no
 * lock: for most I/O the answer is yes.
 */
static inline bool dm_remap_table_nothing(const struct dm_remap_table *t, u64 sector, u64 sectors)
{
	u64 last = sector + sectors - 1;

	if (dm_remap_table_empty(t))
		return true;
	if (atomic_read(&t->watched) || atomic_read(&t->closed) ||
	    !dm_remap_table_no_leaf(t, sector))
		return false;
	/* Most lie within one region. */
	if ((sector ^ last) < DM_REMAP_REGION_SECTORS)
		return true;
	return sectors <= DM_REMAP_REGION_SECTORS && dm_remap_table_no_leaf(t, last);
}

/* The answer for the first sectors of a range: they all share it. */
struct dm_remap_extent {
	u64 length;			/* sectors, 1 to what was asked for */
	u64 spare;			/* MAPPED: where the first sector lives */
	u8 kind;			/* NONE, MAPPED or PENDING (or RETIRED) */
	u16 flags;
};

/*
 * What holds at @sector, and for how many of @sectors sectors from there.
 * Context: any; within rcu_read_lock or with preemption off.
 */
void dm_remap_table_lookup(const struct dm_remap_table *t, u64 sector, u64 sectors,
			   struct dm_remap_extent *e);

/*
 * The canonical record that covers @from, or the first after it. False: none.
 * A record that covers @from is returned whole. Takes table->lock.
 */
bool dm_remap_table_next(struct dm_remap_table *t, u64 from, struct dm_remap_record *r);

void dm_remap_table_totals(struct dm_remap_table *t, struct dm_remap_totals *totals);

/*
 * A change in the making: new leaves, not yet seen by anyone. Edits of one
 * update build on one another. All memory is had while it is prepared;
 * publishing cannot fail. Prepare to publish is one critical section of the
 * caller's writer lock.
 */
struct dm_remap_update {
	struct dm_remap_update_node *first;
	struct dm_remap_update_node *last;
};

void dm_remap_update_init(struct dm_remap_update *u);
/* The range of @r (r->main, r->length) holds @r and nothing else. 0 or -ENOMEM. */
int dm_remap_update_set(struct dm_remap_table *t, struct dm_remap_update *u,
			const struct dm_remap_record *r);
/* The range holds nothing, flags included. */
int dm_remap_update_clear(struct dm_remap_table *t, struct dm_remap_update *u,
			  u64 start, u64 length);
/* Turns flags on and off in a range; records stay what they are. */
int dm_remap_update_flags(struct dm_remap_table *t, struct dm_remap_update *u,
			  u64 start, u64 length, u16 on, u16 off);
/* Makes the change, region by region, and frees the old leaves after their readers. */
void dm_remap_update_publish(struct dm_remap_table *t, struct dm_remap_update *u);
/* Forgets the change. */
void dm_remap_update_abandon(struct dm_remap_update *u);

/*
 * Fills an empty table that no one reads yet: canonical records in ascending
 * order, one leaf allocation a region. 0, -ENOMEM, or -EINVAL: out of order.
 * End with dm_remap_build_end, after an error too.
 */
struct dm_remap_build {
	struct dm_remap_table *table;
	struct dm_remap_piece *piece;		/* of the region being filled */
	u32 count;
	u32 room;
	u64 region;
	u64 next;				/* first sector not yet passed */
};

void dm_remap_build_begin(struct dm_remap_build *b, struct dm_remap_table *t);
int dm_remap_build_add(struct dm_remap_build *b, const struct dm_remap_record *r);
int dm_remap_build_end(struct dm_remap_build *b);

/*
 * The canonical records as they are now, read later, while the table changes:
 * until the reader has passed a region, a leaf of it that is replaced is kept.
 * One snapshot at a time. Begin in the writer's critical section, so that it
 * falls between two changes; next and end without.
 */
int dm_remap_snapshot_begin(struct dm_remap_table *t, struct dm_remap_totals *totals);
/* The next canonical record, ascending; false at the end. */
bool dm_remap_snapshot_next(struct dm_remap_table *t, struct dm_remap_record *r);
void dm_remap_snapshot_end(struct dm_remap_table *t);

/* Does @b continue @a, so that on the disk they are one record? */
bool dm_remap_record_joins(const struct dm_remap_record *a, const struct dm_remap_record *b);
/* @a, grown by @b, which continues it. */
void dm_remap_record_join(struct dm_remap_record *a, const struct dm_remap_record *b);

#endif /* DM_REMAP_TABLE_H */

// SPDX-License-Identifier: GPL-2.0-only
#include "dm-remap-table.h"

/*
 * Canonical records are cut at multiples of 1 TiB, so that a length always fits
 * its 32 bits whatever is joined.
 */
#define JOIN_LIMIT_SECTORS BIT_ULL(31)

struct dm_remap_update_node {
	struct rcu_head rcu;
	struct dm_remap_update_node *next;
	u64 region;
	struct dm_remap_leaf *leaf;	/* the new one; once published, the old one */
	u32 room;			/* pieces that the new one has memory for */
};

struct dm_remap_snapshot {
	struct rcu_head rcu;
	u32 epoch;			/* leaves older than this belong to it */
	u64 sector;			/* where the next record is looked for */
	u64 region;			/* what is before has been passed */
	struct dm_remap_leaf *garbage;	/* to be freed at its end, linked by older */
};

static u64 region_of(u64 sector)
{
	return sector >> DM_REMAP_REGION_SHIFT;
}

static u64 region_start(u64 region)
{
	return region << DM_REMAP_REGION_SHIFT;
}

static u64 record_end(const struct dm_remap_record *r)
{
	return r->main + r->length;
}

/* ---- records ---- */

bool dm_remap_record_joins(const struct dm_remap_record *a, const struct dm_remap_record *b)
{
	if (a->kind != b->kind || a->kind == DM_REMAP_NONE || a->reason != b->reason)
		return false;
	if ((a->flags ^ b->flags) & DM_REMAP_F_DURABLE)
		return false;
	if (record_end(a) != b->main || !(b->main & (JOIN_LIMIT_SECTORS - 1)))
		return false;
	return a->kind != DM_REMAP_MAPPED || a->spare + a->length == b->spare;
}

void dm_remap_record_join(struct dm_remap_record *a, const struct dm_remap_record *b)
{
	a->length += b->length;
	a->first_time = min_t(u32, a->first_time, b->first_time);
	a->last_time = max_t(u32, a->last_time, b->last_time);
}

/* The part of @r within [@start, @end), which overlaps it. */
static struct dm_remap_record record_cut(const struct dm_remap_record *r, u64 start, u64 end)
{
	struct dm_remap_record part = *r;

	part.main = max_t(u64, r->main, start);
	part.length = min_t(u64, record_end(r), end) - part.main;
	if (r->kind == DM_REMAP_MAPPED)
		part.spare += part.main - r->main;
	return part;
}

/* ---- pieces ---- */

/* Pieces of one leaf, all or some that follow one another. */
struct span {
	const struct dm_remap_piece *piece;
	u32 count;
	u64 base;		/* where the region starts */
};

static struct span span_all(const struct dm_remap_leaf *leaf, u64 region)
{
	return (struct span){
		.piece = leaf->piece, .count = leaf->count, .base = region_start(region),
	};
}

static struct dm_remap_record span_record(struct span span, u32 i)
{
	const struct dm_remap_piece *piece = &span.piece[i];

	return (struct dm_remap_record){
		.main = span.base + piece->start,
		.spare = piece->spare,
		.length = piece->end - piece->start,
		.kind = piece->kind,
		.reason = piece->reason,
		.flags = piece->flags,
		.first_time = piece->first_time,
		.last_time = piece->last_time,
	};
}

/* @r lies within one region. */
static struct dm_remap_piece piece_of(const struct dm_remap_record *r)
{
	u32 start = r->main & (DM_REMAP_REGION_SECTORS - 1);

	return (struct dm_remap_piece){
		.spare = r->spare,
		.first_time = r->first_time,
		.last_time = r->last_time,
		.start = start,
		.end = start + r->length,
		.kind = r->kind,
		.reason = r->reason,
		.flags = r->flags,
	};
}

/* The first of @count pieces that ends after sector @at of the region; behind them if none does. */
static const struct dm_remap_piece *pieces_search(const struct dm_remap_piece *piece, u32 count,
						  u32 at)
{
	while (count) {
		u32 half = count / 2;

		if (piece[half].end <= at) {
			piece += half + 1;
			count -= half + 1;
		} else {
			count = half;
		}
	}
	return piece;
}

/* The same for any sector of the device: an index. */
static u32 span_search(struct span span, u64 sector)
{
	if (!span.count || sector < span.base)
		return 0;
	return pieces_search(span.piece, span.count,
			     min_t(u64, sector - span.base, DM_REMAP_REGION_SECTORS)) - span.piece;
}

/* ---- directory ---- */

int dm_remap_table_init(struct dm_remap_table *t, u64 sectors)
{
	u64 regions = region_of(sectors + DM_REMAP_REGION_SECTORS - 1);

	memset(t, 0, sizeof(*t));
	t->sectors = sectors;
	t->nr_chunks = (regions + DM_REMAP_CHUNK_REGIONS - 1) >> DM_REMAP_CHUNK_SHIFT;
	t->chunk = dm_remap_zalloc(max_t(u64, t->nr_chunks, 1) * sizeof(*t->chunk));
	if (!t->chunk)
		return -ENOMEM;
	mutex_init(&t->lock);
	return 0;
}

/* For who changes the table, and for walks under table->lock. */
static struct dm_remap_chunk *chunk_at(const struct dm_remap_table *t, u64 region)
{
	return rcu_dereference_protected(t->chunk[region >> DM_REMAP_CHUNK_SHIFT], true);
}

static struct dm_remap_leaf __rcu **leaf_slot(const struct dm_remap_table *t, u64 region)
{
	struct dm_remap_chunk *chunk = chunk_at(t, region);

	return chunk ? &chunk->leaf[region & (DM_REMAP_CHUNK_REGIONS - 1)] : NULL;
}

static struct dm_remap_leaf *leaf_at(const struct dm_remap_table *t, u64 region)
{
	struct dm_remap_leaf __rcu **slot = NULL;

	if (region >> DM_REMAP_CHUNK_SHIFT < t->nr_chunks)
		slot = leaf_slot(t, region);
	return slot ? rcu_dereference_protected(*slot, true) : NULL;
}

/* The first region from @region on that has a leaf; U64_MAX: none. */
static u64 next_region(const struct dm_remap_table *t, u64 region)
{
	u64 limit = region_of(t->sectors + DM_REMAP_REGION_SECTORS - 1);

	while (region < limit) {
		if (!chunk_at(t, region)) {
			region = ((region >> DM_REMAP_CHUNK_SHIFT) + 1) << DM_REMAP_CHUNK_SHIFT;
			continue;
		}
		if (!dm_remap_table_no_leaf(t, region_start(region)))
			return region;
		region++;
	}
	return U64_MAX;
}

void dm_remap_table_exit(struct dm_remap_table *t)
{
	u64 region, i;

	if (!t->chunk)
		return;
	if (t->snapshot)
		dm_remap_snapshot_end(t);
	for (region = next_region(t, 0); region != U64_MAX; region = next_region(t, region + 1))
		dm_remap_free(leaf_at(t, region));
	for (i = 0; i < t->nr_chunks; i++)
		dm_remap_free(rcu_dereference_protected(t->chunk[i], true));
	dm_remap_free(t->chunk);
	t->chunk = NULL;
	mutex_destroy(&t->lock);
}

/* Does anything lie at @sector or behind it, be it a range that is held or in doubt? */
static bool anything_from(const struct dm_remap_table *t, u64 sector)
{
	u64 region = region_of(sector);
	const struct dm_remap_leaf *leaf = leaf_at(t, region);

	if (leaf && span_search(span_all(leaf, region), sector) < leaf->count)
		return true;
	return next_region(t, region + 1) != U64_MAX;
}

static s64 leaves(const struct dm_remap_table *t)
{
	return atomic64_read(&t->busy) - atomic_read(&t->watched) - atomic_read(&t->closed);
}

void dm_remap_table_swap(struct dm_remap_table *a, struct dm_remap_table *b)
{
	s64 more = atomic64_read(&b->busy) - leaves(a);

	mutex_lock(&a->lock);
	swap(a->sectors, b->sectors);
	swap(a->nr_chunks, b->nr_chunks);
	swap(a->chunk, b->chunk);
	atomic64_add(more, &a->busy);
	atomic64_add(-more, &b->busy);
	swap(a->totals, b->totals);
	swap(a->epoch, b->epoch);
	mutex_unlock(&a->lock);
}

void dm_remap_table_close(struct dm_remap_table *t)
{
	atomic64_inc(&t->busy);
	if (atomic_xchg(&t->closed, 1))
		atomic64_add(-1, &t->busy);
}

void dm_remap_table_watch(struct dm_remap_table *t, bool on)
{
	/* Others do the same: busy may be too high meanwhile, and never too low. */
	if (on)
		atomic64_inc(&t->busy);
	if (atomic_xchg(&t->watched, on))
		atomic64_add(-1, &t->busy);
}

int dm_remap_table_resize(struct dm_remap_table *t, u64 sectors)
{
	struct dm_remap_table resized;
	int ret;

	if (anything_from(t, sectors))
		return -EBUSY;
	ret = dm_remap_table_init(&resized, sectors);
	if (ret)
		return ret;
	/* Chunks are moved as they are; those past a new, smaller end are empty. */
	mutex_lock(&t->lock);
	memcpy(resized.chunk, t->chunk,
	       min_t(u64, t->nr_chunks, resized.nr_chunks) * sizeof(*t->chunk));
	for (; resized.nr_chunks < t->nr_chunks; t->nr_chunks--)
		dm_remap_free(rcu_dereference_protected(t->chunk[t->nr_chunks - 1], true));
	dm_remap_free(t->chunk);
	t->chunk = resized.chunk;
	t->nr_chunks = resized.nr_chunks;
	t->sectors = sectors;
	mutex_unlock(&t->lock);
	mutex_destroy(&resized.lock);
	return 0;
}

/* ---- lookup ---- */

/* The reader's way to a leaf: pairs with rcu_assign_pointer in slot_install and chunk_want. */
static const struct dm_remap_leaf *leaf_read(const struct dm_remap_table *t, u64 region)
{
	const struct dm_remap_chunk *chunk;

	if (region >> DM_REMAP_CHUNK_SHIFT >= t->nr_chunks)
		return NULL;
	chunk = rcu_dereference_check(t->chunk[region >> DM_REMAP_CHUNK_SHIFT],
				      rcu_read_lock_any_held());
	if (!chunk)
		return NULL;
	return rcu_dereference_check(chunk->leaf[region & (DM_REMAP_CHUNK_REGIONS - 1)],
				     rcu_read_lock_any_held());
}

/* What holds at @sector, up to the edge of its region: returns where the run ends. */
static u64 region_run(const struct dm_remap_leaf *leaf, u64 sector, struct dm_remap_extent *e)
{
	u64 base = region_start(region_of(sector));
	const struct dm_remap_piece *piece;
	u32 at = sector - base;

	e->kind = DM_REMAP_NONE;
	e->flags = 0;
	e->spare = 0;
	if (!leaf)
		return base + DM_REMAP_REGION_SECTORS;
	piece = pieces_search(leaf->piece, leaf->count, at);
	if (piece == leaf->piece + leaf->count)
		return base + DM_REMAP_REGION_SECTORS;
	if (piece->start > at)
		return base + piece->start;
	e->kind = piece->kind;
	e->flags = piece->flags;
	if (piece->kind == DM_REMAP_MAPPED)
		e->spare = piece->spare + (at - piece->start);
	return base + piece->end;
}

void dm_remap_table_lookup(const struct dm_remap_table *t, u64 sector, u64 sectors,
			   struct dm_remap_extent *e)
{
	u64 end = sector + sectors;
	u64 stop = region_run(leaf_read(t, region_of(sector)), sector, e);

	/* A run that reaches its region's edge may go on behind it. */
	while (stop < end && !(stop & (DM_REMAP_REGION_SECTORS - 1))) {
		struct dm_remap_extent more;
		u64 to = region_run(leaf_read(t, region_of(stop)), stop, &more);

		if (more.kind != e->kind || more.flags != e->flags)
			break;
		if (e->kind == DM_REMAP_MAPPED && more.spare != e->spare + (stop - sector))
			break;
		stop = to;
	}
	e->length = min_t(u64, stop, end) - sector;
}

/* ---- walking canonical records ---- */

/*
 * Which leaf of a region that has one a walk reads: it, or what belongs to the
 * snapshot; NULL: that is none.
 */
static const struct dm_remap_leaf *walk_leaf(const struct dm_remap_table *t, u64 region,
					     const struct dm_remap_snapshot *snapshot)
{
	const struct dm_remap_leaf *leaf = leaf_at(t, region);

	if (snapshot && leaf->epoch >= snapshot->epoch)
		return leaf->older;
	return leaf;
}

/*
 * Joins what follows @r in a leaf, from piece @i on, to it. True: the leaf's end was
 * reached, and @r, if it is one yet (length not 0), may go on in the next region.
 */
static bool walk_one(struct span all, u32 i, struct dm_remap_record *r)
{
	for (; i < all.count; i++) {
		struct dm_remap_record next = span_record(all, i);

		if (!r->length) {
			if (next.kind == DM_REMAP_NONE)
				continue;
			*r = next;
			r->flags &= DM_REMAP_F_DURABLE;
		} else if (dm_remap_record_joins(r, &next)) {
			dm_remap_record_join(r, &next);
		} else {
			return false;
		}
	}
	return true;
}

/* The first canonical record that has a sector at @from or behind, from there or its start on. */
static bool walk(const struct dm_remap_table *t, u64 from,
		 const struct dm_remap_snapshot *snapshot, struct dm_remap_record *r)
{
	u64 region = next_region(t, region_of(from));

	r->length = 0;
	for (; region != U64_MAX; region = next_region(t, region + 1)) {
		const struct dm_remap_leaf *leaf = walk_leaf(t, region, snapshot);
		struct span all;

		if (r->length && record_end(r) != region_start(region))
			break;
		if (!leaf)
			continue;
		all = span_all(leaf, region);
		if (!walk_one(all, span_search(all, from), r))
			break;
	}
	return r->length;
}

/* The piece just before @sector, if there is one that ends there. */
static bool piece_before(const struct dm_remap_table *t, u64 sector, struct dm_remap_record *r)
{
	const struct dm_remap_leaf *leaf = sector ? leaf_at(t, region_of(sector - 1)) : NULL;
	struct span all;
	u32 i;

	if (!leaf)
		return false;
	all = span_all(leaf, region_of(sector - 1));
	i = span_search(all, sector - 1);
	if (i == all.count)
		return false;
	*r = span_record(all, i);
	return r->main < sector;
}

bool dm_remap_table_next(struct dm_remap_table *t, u64 from, struct dm_remap_record *r)
{
	struct dm_remap_record before;
	bool found;

	mutex_lock(&t->lock);
	found = walk(t, from, NULL, r);
	while (found && piece_before(t, r->main, &before) && dm_remap_record_joins(&before, r)) {
		r->main = before.main;
		r->spare = before.spare;
		dm_remap_record_join(r, &before);
	}
	mutex_unlock(&t->lock);
	return found;
}

void dm_remap_table_totals(struct dm_remap_table *t, struct dm_remap_totals *totals)
{
	mutex_lock(&t->lock);
	*totals = t->totals;
	mutex_unlock(&t->lock);
}

/* ---- totals ---- */

static void totals_add(struct dm_remap_totals *totals, const struct dm_remap_record *r, int sign)
{
	u64 sectors = sign * (u64)r->length;

	if (r->kind == DM_REMAP_MAPPED)
		totals->mapped += sectors;
	if (r->kind == DM_REMAP_MAPPED && r->flags & DM_REMAP_F_UNREADABLE)
		totals->unreadable += sectors;
	if (r->kind == DM_REMAP_PENDING)
		totals->pending += sectors;
	else if (r->kind == DM_REMAP_RETIRED)
		totals->retired += sectors;
}

/* Adds (or takes away) what @leaf contributes, joins with its neighbours left out. */
static void totals_leaf(struct dm_remap_totals *totals, const struct dm_remap_leaf *leaf, int sign)
{
	struct dm_remap_record r, before = { .kind = DM_REMAP_NONE };
	u32 i;

	for (i = 0; leaf && i < leaf->count; i++, before = r) {
		/* Whichever region it is. */
		r = span_record(span_all(leaf, 0), i);
		totals_add(totals, &r, sign);
		if (r.kind != DM_REMAP_NONE && !dm_remap_record_joins(&before, &r))
			totals->records += sign;
	}
}

/* 1 if the last record of the region before @region continues in it. */
static u64 joins_at(const struct dm_remap_table *t, u64 region)
{
	const struct dm_remap_leaf *a = region ? leaf_at(t, region - 1) : NULL;
	const struct dm_remap_leaf *b = leaf_at(t, region);
	struct dm_remap_record last, first;

	if (!a || !b || !a->count || !b->count)
		return 0;
	last = span_record(span_all(a, region - 1), a->count - 1);
	first = span_record(span_all(b, region), 0);
	return dm_remap_record_joins(&last, &first);
}

/* Puts @leaf in the place of @old, and keeps the totals right. */
static void slot_install(struct dm_remap_table *t, u64 region, struct dm_remap_leaf *old,
			 struct dm_remap_leaf *leaf)
{
	totals_leaf(&t->totals, old, -1);
	t->totals.records += joins_at(t, region) + joins_at(t, region + 1);
	rcu_assign_pointer(*leaf_slot(t, region), leaf);
	t->totals.records -= joins_at(t, region) + joins_at(t, region + 1);
	totals_leaf(&t->totals, leaf, 1);
	atomic64_add(!!leaf - !!old, &t->busy);
}

/* ---- making a leaf from another ---- */

struct edit {
	u64 start;
	u64 end;
	const struct dm_remap_record *set;	/* NULL: clear, or change flags */
	bool keep;				/* change flags: */
	u16 on;
	u16 off;
};

/* Where pieces go; the first pass only counts (to is NULL). */
struct pieces {
	struct dm_remap_piece *to;
	u32 count;
	struct dm_remap_record last;
};

static void piece_put(struct pieces *p, const struct dm_remap_record *r)
{
	bool joins = p->count && p->last.flags == r->flags &&
		     (dm_remap_record_joins(&p->last, r) ||
		      (p->last.kind == DM_REMAP_NONE && r->kind == DM_REMAP_NONE &&
		       record_end(&p->last) == r->main));

	if (joins) {
		dm_remap_record_join(&p->last, r);
	} else {
		p->last = *r;
		p->count++;
	}
	if (p->to)
		p->to[p->count - 1] = piece_of(&p->last);
}

/* What @from has in [@start, @end). */
static void pieces_copy(struct pieces *p, struct span from, u64 start, u64 end)
{
	u32 i;

	for (i = span_search(from, start); i < from.count; i++) {
		struct dm_remap_record r = span_record(from, i);

		if (r.main >= end)
			break;
		r = record_cut(&r, start, end);
		piece_put(p, &r);
	}
}

static void flags_put(struct pieces *p, struct dm_remap_record part, const struct edit *e)
{
	part.flags = (part.flags | e->on) & ~e->off;
	if (part.kind != DM_REMAP_NONE || part.flags)
		piece_put(p, &part);
}

/* What @from has in [@start, @end), and the gaps between, under changed flags. */
static void pieces_flag(struct pieces *p, struct span from, u64 start, u64 end,
			const struct edit *e)
{
	struct dm_remap_record gap = { .main = start, .kind = DM_REMAP_NONE };
	u32 i;

	for (i = span_search(from, start); i < from.count; i++) {
		struct dm_remap_record r = span_record(from, i);

		if (r.main >= end)
			break;
		r = record_cut(&r, start, end);
		gap.length = r.main - gap.main;
		if (gap.length)
			flags_put(p, gap, e);
		flags_put(p, r, e);
		gap.main = record_end(&r);
	}
	gap.length = end - gap.main;
	if (gap.length)
		flags_put(p, gap, e);
}

/* What becomes of @from by an edit; puts it to @to, or counts. */
static u32 pieces_edit(struct dm_remap_piece *to, struct span from, const struct edit *e)
{
	u64 hi = from.base + DM_REMAP_REGION_SECTORS;
	u64 start = max_t(u64, from.base, e->start), end = min_t(u64, hi, e->end);
	struct pieces p = { .to = to };

	pieces_copy(&p, from, from.base, start);
	if (e->set) {
		struct dm_remap_record part = record_cut(e->set, start, end);

		piece_put(&p, &part);
	} else if (e->keep) {
		pieces_flag(&p, from, start, end, e);
	}
	pieces_copy(&p, from, end, hi);
	return p.count;
}

static struct dm_remap_leaf *leaf_alloc(u32 room)
{
	struct dm_remap_leaf *leaf;

	return dm_remap_zalloc(sizeof(*leaf) + (size_t)room * sizeof(leaf->piece[0]));
}

/* ---- updates ---- */

void dm_remap_update_init(struct dm_remap_update *u)
{
	u->first = NULL;
	u->last = NULL;
}

/* Where the first node at @region or behind it hangs, or would. */
static struct dm_remap_update_node **update_seek(struct dm_remap_update *u, u64 region)
{
	struct dm_remap_update_node **link = &u->first;

	/* Edits mostly come in ascending order. */
	if (u->last && u->last->region < region)
		return &u->last->next;
	while (*link && (*link)->region < region)
		link = &(*link)->next;
	return link;
}

static void update_insert(struct dm_remap_update *u, struct dm_remap_update_node **link,
			  struct dm_remap_update_node *node)
{
	node->next = *link;
	*link = node;
	if (!node->next)
		u->last = node;
}

static void nodes_free(struct dm_remap_update_node *node)
{
	while (node) {
		struct dm_remap_update_node *next = node->next;

		dm_remap_free(node->leaf);
		dm_remap_free(node);
		node = next;
	}
}

static void nodes_free_rcu(struct rcu_head *head)
{
	nodes_free(container_of(head, struct dm_remap_update_node, rcu));
}

void dm_remap_update_abandon(struct dm_remap_update *u)
{
	nodes_free(u->first);
	dm_remap_update_init(u);
}

static void update_dispose(struct dm_remap_update *u)
{
	if (u->first)
		call_rcu(&u->first->rcu, nodes_free_rcu);
	dm_remap_update_init(u);
}

/* The directory has a place for @region from now on. An empty chunk changes no answer. */
static int chunk_want(struct dm_remap_table *t, u64 region)
{
	struct dm_remap_chunk *chunk;

	if (chunk_at(t, region))
		return 0;
	chunk = dm_remap_zalloc(sizeof(*chunk));
	if (!chunk)
		return -ENOMEM;
	rcu_assign_pointer(t->chunk[region >> DM_REMAP_CHUNK_SHIFT], chunk);
	return 0;
}

/*
 * The leaf that an edit of @region starts from. Only the writer replaces a leaf, so
 * it stays while the edit is made; but for an empty one, that stands where a snapshot
 * wants what was there before: that one goes with the snapshot, at any time.
 */
static const struct dm_remap_leaf *edit_base(const struct dm_remap_table *t, u64 region)
{
	const struct dm_remap_leaf *leaf;

	rcu_read_lock_sched();
	leaf = leaf_read(t, region);
	if (leaf && !leaf->count)
		leaf = NULL;
	rcu_read_unlock_sched();
	return leaf;
}

/* A new leaf for @node, from @base or, if that is NULL, none, with room for @more pieces. */
static int node_make(struct dm_remap_update_node *node, const struct dm_remap_leaf *base,
		     const struct edit *e, u32 more)
{
	struct span all = { .count = 0, .base = region_start(node->region) };
	struct dm_remap_leaf *leaf;
	u32 count;

	if (base)
		all = span_all(base, node->region);
	count = pieces_edit(NULL, all, e);
	leaf = leaf_alloc(count + more);
	if (!leaf)
		return -ENOMEM;
	leaf->count = pieces_edit(leaf->piece, all, e);
	node->leaf = leaf;
	node->room = count + more;
	return 0;
}

/* Those that an edit can change: what it overlaps, and the neighbours, which may join. */
static struct span span_of(struct span all, const struct edit *e)
{
	u32 first = span_search(all, e->start), end = first;

	while (end < all.count && all.base + all.piece[end].start < e->end)
		end++;
	if (end < all.count)
		end++;
	if (first)
		first--;
	return (struct span){
		.piece = &all.piece[first], .count = end - first, .base = all.base,
	};
}

/*
 * Once more a region that the update has. Nobody has seen its leaf yet, and a batch
 * often has a hundred edits for it: one that comes to few pieces is made in place,
 * unless most of the memory would be idle then.
 */
static int node_edit(struct dm_remap_update_node *node, const struct edit *e)
{
	struct dm_remap_leaf *leaf = node->leaf;
	struct span span = span_of(span_all(leaf, node->region), e);
	u32 at = span.piece - leaf->piece, behind = leaf->count - at - span.count;
	u32 count = pieces_edit(NULL, span, e), total = at + count + behind;
	struct dm_remap_piece few[8];
	int ret;

	if (count > ARRAY_SIZE(few) || total > node->room || total < node->room / 4) {
		ret = node_make(node, leaf, e, total / 4 + ARRAY_SIZE(few));
		if (!ret)
			dm_remap_free(leaf);
		return ret;
	}
	pieces_edit(few, span, e);
	memmove(&leaf->piece[at + count], &leaf->piece[at + span.count],
		behind * sizeof(leaf->piece[0]));
	memcpy(&leaf->piece[at], few, count * sizeof(few[0]));
	leaf->count = total;
	return 0;
}

/* A region that is new in the update; its node's place is @link. */
static int region_edit(struct dm_remap_table *t, struct dm_remap_update *u,
		       struct dm_remap_update_node **link, u64 region, const struct edit *e)
{
	struct dm_remap_update_node *node;

	if (chunk_want(t, region))
		return -ENOMEM;
	node = dm_remap_zalloc(sizeof(*node));
	if (!node)
		return -ENOMEM;
	node->region = region;
	if (node_make(node, edit_base(t, region), e, 0)) {
		dm_remap_free(node);
		return -ENOMEM;
	}
	update_insert(u, link, node);
	return 0;
}

/*
 * A range can have hundreds of thousands of regions, and so can the edits before it:
 * the two are gone through side by side, each once.
 */
static int range_edit(struct dm_remap_table *t, struct dm_remap_update *u, struct edit *e)
{
	u64 region = region_of(e->start), next;
	struct dm_remap_update_node **link = update_seek(u, region);
	int ret = 0;

	/* A doubt may be older than the table's end, and lie beyond it. */
	e->end = min_t(u64, e->end, t->sectors);
	for (; !ret && max_t(u64, e->start, region_start(region)) < e->end; region = next) {
		while (*link && (*link)->region < region)
			link = &(*link)->next;
		next = region + 1;
		if (*link && (*link)->region == region) {
			ret = node_edit(*link, e);
		} else if (e->set || e->on ||
			   !dm_remap_table_no_leaf(t, region_start(region))) {
			ret = region_edit(t, u, link, region, e);
		} else {
			/* Nothing is set and nothing is there: on to where something is. */
			next = next_region(t, next);
			if (*link)
				next = min_t(u64, next, (*link)->region);
		}
		cond_resched();
	}
	return ret;
}

int dm_remap_update_set(struct dm_remap_table *t, struct dm_remap_update *u,
			const struct dm_remap_record *r)
{
	struct edit e = { .start = r->main, .end = record_end(r), .set = r };

	return range_edit(t, u, &e);
}

int dm_remap_update_clear(struct dm_remap_table *t, struct dm_remap_update *u,
			  u64 start, u64 length)
{
	struct edit e = { .start = start, .end = start + length };

	return range_edit(t, u, &e);
}

int dm_remap_update_flags(struct dm_remap_table *t, struct dm_remap_update *u,
			  u64 start, u64 length, u16 on, u16 off)
{
	struct edit e = { .start = start, .end = start + length, .keep = true,
			  .on = on, .off = off };

	return range_edit(t, u, &e);
}

/* Publishes one region; leaves in node->leaf what is to be freed. */
static void node_publish(struct dm_remap_table *t, struct dm_remap_update_node *node)
{
	const struct dm_remap_snapshot *s = t->snapshot;
	struct dm_remap_leaf *old = leaf_at(t, node->region);
	struct dm_remap_leaf *leaf = node->leaf;

	leaf->epoch = t->epoch;
	node->leaf = old;
	if (old && s && node->region >= s->region) {
		if (old->epoch < s->epoch) {
			leaf->older = old;
			node->leaf = NULL;
		} else {
			leaf->older = old->older;
		}
	}
	if (!leaf->count && !leaf->older) {
		dm_remap_free(leaf);
		leaf = NULL;
	}
	slot_install(t, node->region, old, leaf);
}

void dm_remap_update_publish(struct dm_remap_table *t, struct dm_remap_update *u)
{
	struct dm_remap_update_node *node;

	mutex_lock(&t->lock);
	for (node = u->first; node; node = node->next)
		node_publish(t, node);
	mutex_unlock(&t->lock);
	update_dispose(u);
}

/* ---- building ---- */

void dm_remap_build_begin(struct dm_remap_build *b, struct dm_remap_table *t)
{
	memset(b, 0, sizeof(*b));
	b->table = t;
}

/* Room for one more: few regions hold more than some pieces, and a load is often small. */
static int build_room(struct dm_remap_build *b)
{
	struct dm_remap_piece *piece;
	u32 room = b->room ? 2 * b->room : 64;

	if (b->count < b->room)
		return 0;
	piece = dm_remap_zalloc(room * sizeof(*piece));
	if (!piece)
		return -ENOMEM;
	if (b->count)
		memcpy(piece, b->piece, b->count * sizeof(*piece));
	dm_remap_free(b->piece);
	b->piece = piece;
	b->room = room;
	return 0;
}

static int build_flush(struct dm_remap_build *b)
{
	struct dm_remap_leaf *leaf;

	if (!b->count)
		return 0;
	if (chunk_want(b->table, b->region))
		return -ENOMEM;
	leaf = leaf_alloc(b->count);
	if (!leaf)
		return -ENOMEM;
	leaf->count = b->count;
	memcpy(leaf->piece, b->piece, (size_t)b->count * sizeof(*b->piece));
	slot_install(b->table, b->region, NULL, leaf);
	b->count = 0;
	cond_resched();
	return 0;
}

int dm_remap_build_add(struct dm_remap_build *b, const struct dm_remap_record *r)
{
	u64 start = r->main, end = record_end(r);
	int ret;

	if (start < b->next || !r->length || end > b->table->sectors)
		return -EINVAL;
	b->next = end;
	while (start < end) {
		u64 edge = region_start(region_of(start) + 1);
		struct dm_remap_record part = record_cut(r, start, min_t(u64, edge, end));

		if (region_of(start) != b->region) {
			ret = build_flush(b);
			if (ret)
				return ret;
			b->region = region_of(start);
		}
		ret = build_room(b);
		if (ret)
			return ret;
		b->piece[b->count++] = piece_of(&part);
		start = edge;
	}
	return 0;
}

int dm_remap_build_end(struct dm_remap_build *b)
{
	int ret = build_flush(b);

	dm_remap_free(b->piece);
	b->piece = NULL;
	return ret;
}

/* ---- snapshots ---- */

int dm_remap_snapshot_begin(struct dm_remap_table *t, struct dm_remap_totals *totals)
{
	struct dm_remap_snapshot *s = dm_remap_zalloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	mutex_lock(&t->lock);
	s->epoch = ++t->epoch;
	t->snapshot = s;
	*totals = t->totals;
	mutex_unlock(&t->lock);
	return 0;
}

/*
 * The snapshot needs no region before @to any more. What was kept for it goes to
 * the garbage, as do leaves that stayed only to keep it: a reader may still be in
 * either.
 */
static void snapshot_pass(struct dm_remap_table *t, u64 to)
{
	struct dm_remap_snapshot *s = t->snapshot;
	u64 region;

	for (region = next_region(t, s->region); region < to; region = next_region(t, region + 1)) {
		struct dm_remap_leaf *leaf = leaf_at(t, region);
		struct dm_remap_leaf *older = leaf->older;

		leaf->older = NULL;
		if (older) {
			older->older = s->garbage;
			s->garbage = older;
		}
		if (!leaf->count) {
			slot_install(t, region, leaf, NULL);
			leaf->older = s->garbage;
			s->garbage = leaf;
		}
	}
	s->region = to;
}

bool dm_remap_snapshot_next(struct dm_remap_table *t, struct dm_remap_record *r)
{
	struct dm_remap_snapshot *s = t->snapshot;
	bool found;

	mutex_lock(&t->lock);
	found = walk(t, s->sector, s, r);
	if (found) {
		s->sector = record_end(r);
		snapshot_pass(t, region_of(s->sector));
	}
	mutex_unlock(&t->lock);
	return found;
}

static void snapshot_free_rcu(struct rcu_head *head)
{
	struct dm_remap_snapshot *s = container_of(head, struct dm_remap_snapshot, rcu);

	while (s->garbage) {
		struct dm_remap_leaf *leaf = s->garbage;

		s->garbage = leaf->older;
		dm_remap_free(leaf);
	}
	dm_remap_free(s);
}

void dm_remap_snapshot_end(struct dm_remap_table *t)
{
	struct dm_remap_snapshot *s = t->snapshot;

	mutex_lock(&t->lock);
	snapshot_pass(t, U64_MAX);
	t->snapshot = NULL;
	mutex_unlock(&t->lock);
	call_rcu(&s->rcu, snapshot_free_rcu);
}

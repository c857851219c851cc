// SPDX-License-Identifier: GPL-2.0-only
#include "dm-remap-alloc.h"

#define PAGE_UNITS	32768u
/* One array of all pages would be larger than the kernel allows, of a spare beyond 4 PiB. */
#define GROUP_PAGES	512u

struct dm_remap_alloc_page {
	u32 used;			/* bits set */
	unsigned long bits[PAGE_UNITS / BITS_PER_LONG];
};

struct dm_remap_alloc_group {
	struct dm_remap_alloc_page *page[GROUP_PAGES];	/* NULL: all free */
};

static u64 nr_groups(const struct dm_remap_alloc *a)
{
	return (a->nr_pages + GROUP_PAGES - 1) / GROUP_PAGES;
}

int dm_remap_alloc_init(struct dm_remap_alloc *a, u64 start, u64 end, u32 granularity)
{
	memset(a, 0, sizeof(*a));
	a->start = start;
	a->granularity = granularity;
	a->units = div_u64(end - start, granularity);
	a->nr_pages = (a->units + PAGE_UNITS - 1) / PAGE_UNITS;
	a->free = a->units;
	a->group = dm_remap_zalloc(max_t(u64, nr_groups(a), 1) * sizeof(*a->group));
	if (!a->group)
		return -ENOMEM;
	mutex_init(&a->lock);
	return 0;
}

static void group_free(struct dm_remap_alloc_group *group)
{
	u32 i;

	for (i = 0; group && i < GROUP_PAGES; i++)
		dm_remap_free(group->page[i]);
	dm_remap_free(group);
}

void dm_remap_alloc_exit(struct dm_remap_alloc *a)
{
	u64 i;

	if (!a->group)
		return;
	for (i = 0; i < nr_groups(a); i++)
		group_free(a->group[i]);
	dm_remap_free(a->group);
	a->group = NULL;
	mutex_destroy(&a->lock);
}

void dm_remap_alloc_swap(struct dm_remap_alloc *a, struct dm_remap_alloc *b)
{
	mutex_lock(&a->lock);
	swap(a->start, b->start);
	swap(a->granularity, b->granularity);
	swap(a->units, b->units);
	swap(a->nr_pages, b->nr_pages);
	swap(a->free, b->free);
	swap(a->cursor, b->cursor);
	swap(a->group, b->group);
	mutex_unlock(&a->lock);
}

/* NULL: no page of its group was wanted yet. */
static struct dm_remap_alloc_page **page_slot(const struct dm_remap_alloc *a, u64 index)
{
	struct dm_remap_alloc_group *group = a->group[index / GROUP_PAGES];

	return group ? &group->page[index % GROUP_PAGES] : NULL;
}

/* NULL: no memory. */
static struct dm_remap_alloc_page *page_want(struct dm_remap_alloc *a, u64 index)
{
	struct dm_remap_alloc_group **group = &a->group[index / GROUP_PAGES];
	struct dm_remap_alloc_page **page;

	if (!*group)
		*group = dm_remap_zalloc(sizeof(**group));
	if (!*group)
		return NULL;
	page = page_slot(a, index);
	if (!*page)
		*page = dm_remap_zalloc(sizeof(**page));
	return *page;
}

static u32 page_units(const struct dm_remap_alloc *a, u64 index)
{
	return min_t(u64, PAGE_UNITS, a->units - index * PAGE_UNITS);
}

static bool unit_taken(const struct dm_remap_alloc_page *page, u32 unit)
{
	return page && (page->bits[unit / BITS_PER_LONG] >> (unit % BITS_PER_LONG) & 1);
}

static void unit_flip(struct dm_remap_alloc_page *page, u32 unit)
{
	page->bits[unit / BITS_PER_LONG] ^= 1ul << (unit % BITS_PER_LONG);
}

/* The first free unit of @page from @unit on; @units if there is none. */
static u32 find_free(const struct dm_remap_alloc_page *page, u32 unit, u32 units)
{
	while (unit < units && unit_taken(page, unit)) {
		bool full_word = !(unit % BITS_PER_LONG) &&
				 !~page->bits[unit / BITS_PER_LONG];

		unit += full_word ? BITS_PER_LONG : 1;
	}
	return min_t(u32, unit, units);
}

/* Takes up to @wanted units of one page from @unit on; returns how many, first in *@found. */
static u32 page_take(struct dm_remap_alloc_page *page, u32 unit, u32 units, u32 wanted,
		     u32 *found)
{
	u32 n = 0;

	*found = find_free(page, unit, units);
	for (unit = *found; n < wanted && unit < units && !unit_taken(page, unit); n++)
		unit_flip(page, unit++);
	page->used += n;
	return n;
}

static int take_locked(struct dm_remap_alloc *a, u32 wanted, u64 *unit, u32 *taken)
{
	u64 index = a->cursor / PAGE_UNITS;
	u32 from = a->cursor % PAGE_UNITS;
	u64 tries;

	/* The cursor's page is looked at twice: first from the cursor, at last from its start. */
	for (tries = 0; tries <= a->nr_pages; tries++) {
		struct dm_remap_alloc_page *page;
		u32 found;

		if (index >= a->nr_pages)
			index = 0;
		page = page_want(a, index);
		if (!page)
			return -ENOMEM;
		*taken = page->used == page_units(a, index) ? 0 :
			 page_take(page, from, page_units(a, index), wanted, &found);
		if (*taken) {
			*unit = index * PAGE_UNITS + found;
			a->cursor = *unit + *taken;
			a->free -= *taken;
			return 0;
		}
		index++;
		from = 0;
	}
	return -ENOSPC;
}

int dm_remap_alloc_take(struct dm_remap_alloc *a, u32 sectors, u64 *sector, u32 *taken)
{
	u64 unit = 0;
	u32 n = 0;
	int ret = -ENOSPC;

	mutex_lock(&a->lock);
	if (a->free)
		ret = take_locked(a, sectors / a->granularity, &unit, &n);
	mutex_unlock(&a->lock);
	*sector = a->start + unit * a->granularity;
	*taken = n * a->granularity;
	return ret;
}

static int mark_locked(struct dm_remap_alloc *a, u64 first, u64 n)
{
	u64 unit;

	/* In two passes, so that nothing has changed when a unit turns out taken. */
	for (unit = first; unit < first + n; unit++) {
		struct dm_remap_alloc_page *page = page_want(a, unit / PAGE_UNITS);

		if (!page)
			return -ENOMEM;
		if (unit_taken(page, unit % PAGE_UNITS))
			return -EEXIST;
		if (!(unit % PAGE_UNITS))
			cond_resched();
	}
	for (unit = first; unit < first + n; unit++) {
		struct dm_remap_alloc_page *page = *page_slot(a, unit / PAGE_UNITS);

		unit_flip(page, unit % PAGE_UNITS);
		page->used++;
	}
	a->free -= n;
	return 0;
}

int dm_remap_alloc_mark(struct dm_remap_alloc *a, u64 sector, u64 sectors)
{
	int ret;

	mutex_lock(&a->lock);
	ret = mark_locked(a, div_u64(sector - a->start, a->granularity),
			  div_u64(sectors, a->granularity));
	/* After loading, go on behind what is in use. */
	if (!ret)
		a->cursor = max_t(u64, a->cursor,
				  div_u64(sector + sectors - a->start, a->granularity));
	mutex_unlock(&a->lock);
	return ret;
}

void dm_remap_alloc_release(struct dm_remap_alloc *a, u64 sector, u64 sectors)
{
	u64 unit = div_u64(sector - a->start, a->granularity);
	u64 end = unit + div_u64(sectors, a->granularity);

	mutex_lock(&a->lock);
	for (; unit < end; unit++) {
		struct dm_remap_alloc_page **page = page_slot(a, unit / PAGE_UNITS);

		if (!page || !unit_taken(*page, unit % PAGE_UNITS))
			continue;
		unit_flip(*page, unit % PAGE_UNITS);
		a->free++;
		if (!--(*page)->used) {
			dm_remap_free(*page);
			*page = NULL;
		}
	}
	mutex_unlock(&a->lock);
}

void dm_remap_alloc_return(struct dm_remap_alloc *a, u64 sector, u64 sectors)
{
	u64 unit = div_u64(sector - a->start, a->granularity);

	dm_remap_alloc_release(a, sector, sectors);
	mutex_lock(&a->lock);
	if (a->cursor == unit + div_u64(sectors, a->granularity))
		a->cursor = unit;
	mutex_unlock(&a->lock);
}

u64 dm_remap_alloc_free_sectors(struct dm_remap_alloc *a)
{
	u64 units;

	mutex_lock(&a->lock);
	units = a->free;
	mutex_unlock(&a->lock);
	return units * a->granularity;
}

u64 dm_remap_alloc_total_sectors(const struct dm_remap_alloc *a)
{
	return a->units * a->granularity;
}

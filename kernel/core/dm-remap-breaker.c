// SPDX-License-Identifier: GPL-2.0-only
/*
 * The breaker of each direction: after several requests in a row that main answered nowhere, what
 * fails is not tried again until main answers. It has a lock of its own, so that a person who
 * closes it waits for no request that is being redone.
 */
#include "dm-remap-evidence.h"
#include "dm-remap-mover.h"

/* Seconds. Each error of a disk that is gone is a line in the kernel's log. */
#define LONGEST_PAUSE 320

static void set(struct dm_remap_metadata *md, enum dm_remap_direction direction, bool open)
{
	struct dm_remap_breaker *b = &md->breaker[direction];

	lockdep_assert_held(&md->breaker_lock);
	b->failures = 0;
	if (b->open == open)
		return;
	WRITE_ONCE(b->open, open);
	b->pause = DM_REMAP_BREAKER_PAUSE;
	b->next = md->ops->uptime(md->ctx) + b->pause;
	/* On a disk that changes its mind this is no news for long. */
	dm_remap_log(md, DM_REMAP_LOG_WARN,
		     open ? "breaker open: main %s nothing, so no sector counts as bad for now" :
			    "breaker closed: main %s again",
		     direction == DM_REMAP_WRITE ? "writes" : "reads");
	dm_remap_note(md, DM_REMAP_NOTE_BREAKER, 0, 0, open);
}

void dm_remap_breaker_success(struct dm_remap_metadata *md, enum dm_remap_direction direction)
{
	mutex_lock(&md->breaker_lock);
	set(md, direction, false);
	mutex_unlock(&md->breaker_lock);
}

void dm_remap_breaker_failure(struct dm_remap_metadata *md, enum dm_remap_direction direction)
{
	struct dm_remap_breaker *b = &md->breaker[direction];

	mutex_lock(&md->breaker_lock);
	b->tried = md->ops->uptime(md->ctx);
	b->failure = dm_remap_main_failures(md, direction);
	if (++b->failures >= DM_REMAP_BREAKER_LIMIT)
		set(md, direction, true);
	mutex_unlock(&md->breaker_lock);
}

enum dm_remap_breaker_state dm_remap_breaker(struct dm_remap_metadata *md,
					     enum dm_remap_direction direction)
{
	struct dm_remap_breaker *b = &md->breaker[direction];
	enum dm_remap_breaker_state state = DM_REMAP_BREAKER_CLOSED;

	mutex_lock(&md->breaker_lock);
	if (b->open)
		state = md->ops->uptime(md->ctx) < b->tried + DM_REMAP_BREAKER_PAUSE ?
				DM_REMAP_BREAKER_OPEN : DM_REMAP_BREAKER_DUE;
	/* The caller asks main. Others wait for the next time. */
	if (state == DM_REMAP_BREAKER_DUE)
		b->tried = md->ops->uptime(md->ctx);
	mutex_unlock(&md->breaker_lock);
	return state;
}

/* Has main done something well for others since the breaker's latest failure? */
static bool works_for_others(struct dm_remap_metadata *md, enum dm_remap_direction direction)
{
	const struct dm_remap_breaker *b = &md->breaker[direction];

	return READ_ONCE(b->open) && dm_remap_main_works(md, direction, READ_ONCE(b->failure));
}

bool dm_remap_breaker_due(struct dm_remap_metadata *md)
{
	return works_for_others(md, DM_REMAP_READ) || works_for_others(md, DM_REMAP_WRITE);
}

void dm_remap_breaker_look(struct dm_remap_metadata *md)
{
	enum dm_remap_direction direction;

	for (direction = DM_REMAP_READ; direction < DM_REMAP_DIRECTIONS; direction++)
		if (works_for_others(md, direction))
			dm_remap_breaker_success(md, direction);
}

static void probe(struct dm_remap_mover *m, struct dm_remap_breaker *b)
{
	struct dm_remap_metadata *md = m->md;
	/* One that takes long is the last. */
	struct dm_remap_probe p = {
		.direction = DM_REMAP_READ, .until = md->ops->uptime(md->ctx),
	};
	bool answers;

	dm_remap_redo_begin(m);
	answers = dm_remap_probe(m, &p) == DM_REMAP_ANSWERS;
	dm_remap_redo_end(m);
	if (answers)
		dm_remap_breaker_success(md, DM_REMAP_READ);
	mutex_lock(&md->breaker_lock);
	b->pause = min_t(u32, 2 * b->pause, LONGEST_PAUSE);
	b->next = md->ops->uptime(md->ctx) + b->pause;
	mutex_unlock(&md->breaker_lock);
}

u32 dm_remap_breaker_probe(struct dm_remap_mover *m)
{
	struct dm_remap_metadata *md = m->md;
	struct dm_remap_breaker *b = &md->breaker[DM_REMAP_READ];

	if (READ_ONCE(b->open) && md->ops->uptime(md->ctx) >= b->next)
		probe(m, b);
	if (!READ_ONCE(b->open))
		return 0;
	return max_t(s64, b->next - md->ops->uptime(md->ctx), 1);
}

void dm_remap_breaker_reset(struct dm_remap_metadata *md)
{
	dm_remap_breaker_success(md, DM_REMAP_READ);
	dm_remap_breaker_success(md, DM_REMAP_WRITE);
}

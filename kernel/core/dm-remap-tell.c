// SPDX-License-Identifier: GPL-2.0-only
/*
 * The log tells of relocations: of the first at once, and of those after it in a summary, one a
 * minute. A bad disk loses thousands of sectors.
 */
#include "dm-remap-internal.h"

void dm_remap_moves_note(struct dm_remap_metadata *md, u64 start, u64 sectors)
{
	struct dm_remap_moves *moves = &md->moves;

	mutex_lock(&md->moves_lock);
	if (!moves->sectors) {
		moves->first = start;
		moves->since = md->ops->uptime(md->ctx);
	}
	moves->sectors += sectors;
	mutex_unlock(&md->moves_lock);
}

static void moves_log(struct dm_remap_metadata *md, u64 now)
{
	struct dm_remap_moves *moves = &md->moves;
	const char *s = moves->sectors == 1 ? "" : "s";

	lockdep_assert_held(&md->moves_lock);
	if (now > moves->since)
		dm_remap_log(md, DM_REMAP_LOG_INFO,
			     "%llu sector%s moved to the spare in the last %llu seconds, first %llu",
			     (unsigned long long)moves->sectors, s,
			     (unsigned long long)(now - moves->since),
			     (unsigned long long)moves->first);
	else
		dm_remap_log(md, DM_REMAP_LOG_INFO, "%llu sector%s moved to the spare, first %llu",
			     (unsigned long long)moves->sectors, s,
			     (unsigned long long)moves->first);
	moves->sectors = 0;
	moves->next = now + DM_REMAP_MOVES_PAUSE;
}

u32 dm_remap_moves_tell(struct dm_remap_metadata *md, bool at_once)
{
	struct dm_remap_moves *moves = &md->moves;
	u64 now = md->ops->uptime(md->ctx);
	u32 wait = 0;

	mutex_lock(&md->moves_lock);
	if (moves->sectors && (at_once || now >= moves->next))
		moves_log(md, now);
	else if (moves->sectors)
		wait = moves->next - now;
	mutex_unlock(&md->moves_lock);
	return wait;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Is a target error (BLK_STS_TARGET) one of bad media? Some drives say so of a bad sector: SCSI
 * HARDWARE ERROR 04/32/00 and 04/44/00, and 05/21/00, which libata makes of IDNF. But others refuse
 * a whole range in this way: what is locked, what a bridge does not reach, a namespace that is not
 * ready. That spends no spare. So main must also work behind the block, or fail there in another
 * way. And 64 MiB of records side by side are taken for such a range.
 */
#include "dm-remap-evidence.h"
#include "dm-remap-mover.h"

/* Sectors of records, side by side. */
#define RANGE_REFUSED (64ULL << 11)

/* Would a record here be one of so many that follow one another? */
static bool in_range_refused(struct dm_remap_metadata *md, u64 start, u32 length)
{
	u64 end = min_t(u64, start + length + RANGE_REFUSED, md->table.sectors);
	u64 pos = start - min_t(u64, start, RANGE_REFUSED), run = 0;
	struct dm_remap_extent e;

	for (; pos < end && run < RANGE_REFUSED; pos += e.length) {
		bool here = pos >= start && pos < start + length;

		dm_remap_look(md, pos, pos < start ? start - pos : end - pos, &e);
		if (here)
			e.length = min_t(u64, e.length, start + length - pos);
		run = here || e.kind != DM_REMAP_NONE ? run + e.length : 0;
		cond_resched();
	}
	return run >= RANGE_REFUSED;
}

bool dm_remap_target_passes(struct dm_remap_metadata *md, enum dm_remap_direction direction,
			    u64 sector)
{
	const struct dm_remap_refused_range *r = &md->refused_range[direction];
	bool passes;

	mutex_lock(&md->breaker_lock);
	passes = sector >= r->from && md->ops->uptime(md->ctx) < r->until;
	mutex_unlock(&md->breaker_lock);
	return passes;
}

static int refused(struct dm_remap_metadata *md, enum dm_remap_direction direction, u64 start,
		   u32 length, const char *why)
{
	mutex_lock(&md->breaker_lock);
	md->refused_range[direction] = (struct dm_remap_refused_range) {
		.from = start, .until = md->ops->uptime(md->ctx) + DM_REMAP_BREAKER_PAUSE,
	};
	mutex_unlock(&md->breaker_lock);
	dm_remap_log(md, DM_REMAP_LOG_WARN,
		     "sectors %llu + %u: main fails them as a target, so it may refuse them rather than be bad there: %s",
		     (unsigned long long)start, length, why);
	return DM_REMAP_TARGET_ERROR;
}

static int range_refused(struct dm_remap_metadata *md, u64 start)
{
	if (md->refusal != DM_REMAP_REFUSAL_MAIN_REFUSES)
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "main refuses 64 MiB side by side, around sector %llu: no more is moved there. Is it locked, or does the adapter not reach that far?",
			     (unsigned long long)start);
	WRITE_ONCE(md->refusal, DM_REMAP_REFUSAL_MAIN_REFUSES);
	return DM_REMAP_TARGET_ERROR;
}

int dm_remap_target_error(struct dm_remap_mover *m, struct dm_remap_probe *p, u64 start, u32 length,
			  u64 failure)
{
	struct dm_remap_metadata *md = m->md;

	if (in_range_refused(md, start, length))
		return range_refused(md, start);
	if (dm_remap_main_works_beyond(md, p->direction, failure))
		return 0;
	switch (dm_remap_probe_last(m, p)) {
	case DM_REMAP_ANSWERS:
		return 0;
	case DM_REMAP_SILENT:
		if (dm_remap_may_be_media(p->error) && p->error != DM_REMAP_TARGET_ERROR)
			return 0;
		return refused(md, p->direction, start, length,
			       "its last block fails, too");
	default:
		return refused(md, p->direction, start, length,
			       "its last block could not be asked");
	}
}

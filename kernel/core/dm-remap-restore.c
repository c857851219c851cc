// SPDX-License-Identifier: GPL-2.0-only
/*
 * Is what was acknowledged on the spare, in both replicas? The spare is read once more, beside what
 * is in memory, and compared. That may take long, so others commit and save meanwhile: no lock is
 * held. Damaged parts are written anew.
 */
#include "dm-remap-internal.h"

/* So often the spare is read again, if it is not as memory has it and a save may be why. */
#define TRIES 3

/* Memory and the spare must agree on these. */
struct state {
	u64 generation;		/* a save makes a new one */
	u64 sequence;		/* of the next commit */
	u32 chain;		/* of those before */
};

/* checkpoint_lock held: a save is whole, or has not begun. */
static struct state state_of(struct dm_remap_metadata *md)
{
	struct state s;

	lockdep_assert_held(&md->checkpoint_lock);
	mutex_lock(&md->commit_lock);
	s.generation = READ_ONCE(md->sb.generation);
	s.sequence = md->next_sequence;
	s.chain = md->chain;
	mutex_unlock(&md->commit_lock);
	return s;
}

/*
 * The spare was loaded, with all that memory held @before; its journal goes on to @end. Or that
 * failed with @error. Damaged parts will be written anew.
 */
static int judge(struct dm_remap_metadata *md, const struct dm_remap_metadata *disk,
		 const struct dm_remap_report *report, const struct state *before, u64 end,
		 int error)
{
	const struct state now = state_of(md);

	if (dm_remap_may_try_again(error))
		return error;
	if (now.generation != before->generation)
		return -EAGAIN;
	if (error) {
		dm_remap_log(md, DM_REMAP_LOG_ERR, "restore: %s", report->refusal);
		return -EUCLEAN;
	}
	if (disk->sb.generation != before->generation || disk->sb.table_crc != md->sb.table_crc ||
	    disk->next_sequence != before->sequence || disk->chain != before->chain ||
	    end > now.sequence) {
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "restore: spare holds generation %llu up to sequence %llu, memory %llu and %llu",
			     (unsigned long long)disk->sb.generation, (unsigned long long)end,
			     (unsigned long long)now.generation, (unsigned long long)now.sequence);
		return -EUCLEAN;
	}
	mutex_lock(&md->super_lock);
	md->sb_holders &= disk->sb_holders;
	mutex_unlock(&md->super_lock);
	md->heal |= dm_remap_report_damage(report);
	return 0;
}

/* -EAGAIN: a save came between, which changes what is read; or a suspend. */
static int verify(struct dm_remap_metadata *md, u64 spare_sectors, bool *heal)
{
	struct dm_remap_metadata *disk = dm_remap_beside(md);
	struct dm_remap_report report;
	struct state before;
	u64 end = 0;
	int ret;

	if (!disk)
		return -ENOMEM;
	mutex_lock(&md->checkpoint_lock);
	before = state_of(md);
	mutex_unlock(&md->checkpoint_lock);
	ret = dm_remap_load_until(disk, spare_sectors, md->table.sectors, &report, before.sequence,
				  &end);
	mutex_lock(&md->checkpoint_lock);
	ret = judge(md, disk, &report, &before, end, ret);
	*heal = !ret && (md->heal || md->sb_holders != DM_REMAP_ALL_REPLICAS);
	mutex_unlock(&md->checkpoint_lock);
	dm_remap_beside_free(disk);
	return ret;
}

int dm_remap_restore(struct dm_remap_metadata *md, u64 spare_sectors, bool *healed)
{
	unsigned int tries;
	int ret;

	*healed = false;
	if (md->taken)
		return -ESTALE;
	/* Soft state that can't be committed is still in memory; what is on disk counts here. */
	dm_remap_autosave(md);
	mutex_lock(&md->checkpoint_lock);
	ret = md->active ? dm_remap_look_before_writing(md) : 0;
	mutex_unlock(&md->checkpoint_lock);
	ret = ret ?: verify(md, spare_sectors, healed);
	for (tries = 1; ret == -EAGAIN && tries < TRIES && !md->ops->stop(md->ctx); tries++)
		ret = verify(md, spare_sectors, healed);
	if (*healed)
		ret = dm_remap_checkpoint(md, DM_REMAP_STATE_DIRTY);
	return ret;
}

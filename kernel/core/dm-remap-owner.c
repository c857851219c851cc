// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who has the spare: the superblocks, and the look at them that tells of another system.
 *
 * Two systems may activate one spare: a machine that is resumed from hibernation after its
 * initramfs has used the spare, or two hosts with one disk. Each activation draws a random
 * nonce and puts it into both superblocks (the claim) before it believes what it has read.
 * And whoever is active reads them again when a commit is on both replicas, and only then
 * acknowledges it. So one of the two sees the other: either the claim comes first, and the
 * look finds it; or the commit does, and who claims finds that in the journal.
 */
#include "dm-remap-internal.h"

/* What a superblock that was read says. */
enum found {
	FOUND_OURS,
	FOUND_FAULT,	/* not what is known to be there: the spare's own fault */
	FOUND_OTHER,	/* of another system */
};

static bool holder(const struct dm_remap_metadata *md, int replica)
{
	return md->sb_holders & (1 << replica);
}

/*
 * Whose is the valid superblock @found of @replica? Where that is not known to hold the current
 * generation, it may hold one more: of a write of ours that failed, or of the activation before.
 * No system goes on from there before the other superblock has it, too.
 */
static enum found whose(const struct dm_remap_metadata *md, const struct dm_remap_super *found,
			int replica)
{
	const struct dm_remap_super *sb = &md->sb;

	if (memcmp(found->uuid, sb->uuid, sizeof(sb->uuid)) || found->incompat)
		return FOUND_OTHER;
	if (!holder(md, replica))
		return found->generation > sb->generation + 1 ? FOUND_OTHER : FOUND_OURS;
	if (found->activation > sb->activation ||
	    (found->activation == sb->activation && found->nonce != sb->nonce))
		return FOUND_OTHER;
	if (found->activation < sb->activation || found->generation < sb->generation)
		return FOUND_FAULT;
	/* A copy of this system has gone on: one that was resumed twice from the same memory. */
	if (found->generation > sb->generation || found->journal_start != sb->journal_start)
		return FOUND_OTHER;
	return FOUND_OURS;
}

static enum found super_find(struct dm_remap_metadata *md, int replica)
{
	u64 at = dm_remap_superblock_at(&md->sb.layout, replica);
	struct dm_remap_super found;

	lockdep_assert_held(&md->super_lock);
	if (dm_remap_blocks_read(md, at, 1, md->sb_back))
		return FOUND_FAULT;
	switch (dm_remap_super_decode(&found, md->sb_back, at)) {
	case DM_REMAP_VALID:
		return whose(md, &found, replica);
	case DM_REMAP_NEWER:
		return FOUND_OTHER;
	default:
		return FOUND_FAULT;
	}
}

static int super_look(struct dm_remap_metadata *md, int replica)
{
	switch (super_find(md, replica)) {
	case FOUND_OURS:
		return 0;
	case FOUND_OTHER:
		return -ESTALE;
	default:
		break;
	}
	if (holder(md, replica))
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "superblock %d is damaged, unreadable, or older than it was",
			     replica);
	md->sb_holders &= ~(1 << replica);
	return -EIO;
}

int dm_remap_look_at_supers(struct dm_remap_metadata *md)
{
	int r, ret = 0;

	mutex_lock(&md->super_lock);
	for (r = 0; r < DM_REMAP_REPLICAS && ret != -ESTALE; r++) {
		int error = super_look(md, r);

		ret = error ?: ret;
	}
	md->looked = md->ops->now(md->ctx);
	mutex_unlock(&md->super_lock);
	return ret;
}

void dm_remap_taken(struct dm_remap_metadata *md)
{
	lockdep_assert_held(&md->commit_lock);
	if (!md->taken)
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "another system uses the spare: all I/O fails from now on, and nothing is written there");
	md->taken = true;
	dm_remap_mode_set(md, DM_REMAP_MODE_FAIL);
}

int dm_remap_look_before_writing(struct dm_remap_metadata *md)
{
	int ret = md->taken ? -ESTALE : dm_remap_look_at_supers(md);

	if (ret != -ESTALE)
		return 0;
	mutex_lock(&md->commit_lock);
	dm_remap_taken(md);
	mutex_unlock(&md->commit_lock);
	return ret;
}

int dm_remap_look_after_pause(struct dm_remap_metadata *md)
{
	/* People set the clock; it goes on while the machine sleeps. */
	if (!md->active || READ_ONCE(md->looked) == md->ops->now(md->ctx))
		return 0;
	return dm_remap_look_before_writing(md) ? -EROFS : 0;
}

/* ---- writing superblocks ---- */

/* Superblock @replica says @sb; it is the current one once it is there. */
static int super_write(struct dm_remap_metadata *md, const struct dm_remap_super *sb, int replica)
{
	u64 at = dm_remap_superblock_at(&sb->layout, replica);
	int ret;

	lockdep_assert_held(&md->checkpoint_lock);
	mutex_lock(&md->super_lock);
	dm_remap_super_encode(md->sb_buf, sb, replica);
	/* A failed write may have changed the block or not. */
	md->sb_holders &= ~(1 << replica);
	ret = dm_remap_block_write_checked(md, at, md->sb_buf, DM_REMAP_PREFLUSH | DM_REMAP_FUA,
					   md->sb_back);
	if (ret) {
		dm_remap_log(md, DM_REMAP_LOG_ERR, "superblock %d cannot be written (%d)",
			     replica, ret);
	} else {
		if (sb != &md->sb && sb->generation != md->sb.generation) {
			md->sb = *sb;
			md->sb_holders = 0;
		}
		md->sb_holders |= 1 << replica;
		if (md->sb_holders == DM_REMAP_ALL_REPLICAS)
			WRITE_ONCE(md->witness.generation, md->sb.generation);
	}
	mutex_unlock(&md->super_lock);
	return ret;
}

int dm_remap_supers_equalise(struct dm_remap_metadata *md)
{
	int r, ret;

	for (r = DM_REMAP_REPLICAS - 1; r >= 0; r--) {
		if (holder(md, r))
			continue;
		ret = super_write(md, &md->sb, r);
		if (ret)
			return ret;
	}
	return 0;
}

/* The other end may have been taken since it was looked at. */
static int other_end_is_ours(struct dm_remap_metadata *md, int replica)
{
	enum found found;

	mutex_lock(&md->super_lock);
	found = super_find(md, replica);
	mutex_unlock(&md->super_lock);
	return found == FOUND_OTHER ? -ESTALE : 0;
}

int dm_remap_supers_advance(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	bool numbered = md->numbered || next->activation != md->sb.activation;
	int ret;

	next->generation = md->sb.generation + 1;
	next->written_time = md->ops->now(md->ctx);
	/* What no load would take. */
	if (next->generation > DM_REMAP_MAX_NUMBER || next->activation > DM_REMAP_MAX_NUMBER ||
	    next->journal_start > DM_REMAP_MAX_NUMBER)
		return -EROFS;
	ret = super_write(md, next, 1);
	if (ret)
		return ret;
	md->numbered = numbered;
	ret = other_end_is_ours(md, 0) ?: super_write(md, next, 0);
	md->owned |= numbered && !ret;
	return ret;
}

/* ---- the claim ---- */

/*
 * Both superblocks carry our nonce, and all else as it was: what another system has committed
 * until then is found by a load, whatever becomes of us.
 */
static int write_nonce(struct dm_remap_metadata *md)
{
	struct dm_remap_super next = md->sb;

	if (next.nonce == md->nonce)
		return dm_remap_supers_equalise(md);
	next.nonce = md->nonce;
	return dm_remap_supers_advance(md, &next);
}

int dm_remap_claim(struct dm_remap_metadata *md)
{
	int ret;

	lockdep_assert_held(&md->checkpoint_lock);
	if (md->numbered)
		return 0;
	ret = write_nonce(md);
	if (ret)
		return ret;
	ret = dm_remap_look_at_supers(md);
	/* Once the spare was ours, nobody can have gone on with what we had loaded. */
	if (ret || md->owned)
		return ret;
	return dm_remap_journal_unchanged(md);
}

void dm_remap_claim_begin(struct dm_remap_metadata *md)
{
	md->numbered = false;
	md->nonce = md->ops->random(md->ctx);
	while (!md->nonce || md->nonce == md->sb.nonce)
		md->nonce++;
}

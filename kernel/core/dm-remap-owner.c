// SPDX-License-Identifier: GPL-2.0-only
/*
 * Superblocks, and the look at them that tells of another system.
 *
 * Two systems may activate one spare. Two hosts may share a disk, and a machine may go on from
 * hibernation after its initramfs has used the spare. Each activation draws a random nonce and
 * puts it into both superblocks (the claim) before it believes what it has read. The active
 * system reads them again when a commit is on both replicas, and only then acknowledges it.
 * So one of the two sees the other. Either the claim comes first, and the look finds it; or
 * the commit does, and the other system finds that in the journal.
 */
#include "dm-remap-internal.h"

/* A superblock was read, and is: */
enum found {
	FOUND_OURS,
	FOUND_FAULT,	/* not what is known to be there: the spare's own fault */
	FOUND_OTHER,	/* of another system */
};

/*
 * Has a write of ours landed that failed? It is of this activation, or of the one before it, or
 * says what the other superblock does.
 */
static bool has_landed(const struct dm_remap_metadata *md, const struct dm_remap_super_id *found)
{
	const struct dm_remap_super *sb = &md->sb;

	if (found->nonce == sb->nonce && found->generation == sb->generation)
		return true;
	return found->nonce && (found->nonce == md->nonce || found->nonce == md->former_nonce) &&
	       found->generation <= sb->generation + 1;
}

/*
 * Whose is the valid superblock @found of @replica? If it could not be read when the spare was
 * loaded, it may be one generation ahead, of the activation before. No system goes on from there
 * before the other superblock has it, too.
 */
static enum found whose(const struct dm_remap_metadata *md, const struct dm_remap_super_id *found,
			int replica)
{
	const struct dm_remap_super_id *held = &md->held[replica];
	bool holder = md->sb_holders & (1 << replica);

	if (!holder && has_landed(md, found))
		return FOUND_OURS;
	if (!held->known)
		return found->generation > md->sb.generation + 1 ? FOUND_OTHER : FOUND_OURS;
	if (found->activation > held->activation)
		return FOUND_OTHER;
	/* An old block, or one of a system that came too late: that one looks behind itself. */
	if (found->activation < held->activation)
		return FOUND_FAULT;
	/* A claim, perhaps of an earlier generation; or a block from before our own claim. */
	if (found->nonce != held->nonce) {
		bool before = found->nonce == md->claimed_from &&
			      found->generation <= held->generation;

		return before ? FOUND_FAULT : FOUND_OTHER;
	}
	if (found->generation < held->generation)
		return FOUND_FAULT;
	/* A copy of this system has gone on: one that was resumed twice from the same memory. */
	if (found->generation > held->generation || found->journal_start != held->journal_start)
		return FOUND_OTHER;
	return FOUND_OURS;
}

/* @super: what is there, where that is valid. */
static enum found super_find(struct dm_remap_metadata *md, int replica,
			     struct dm_remap_super *super)
{
	u64 at = dm_remap_superblock_at(&md->sb.layout, replica);
	struct dm_remap_super_id id;

	lockdep_assert_held(&md->super_lock);
	memset(super, 0, sizeof(*super));
	if (dm_remap_blocks_read(md, at, 1, md->sb_back))
		return FOUND_FAULT;
	switch (dm_remap_super_decode(super, md->sb_back, at)) {
	case DM_REMAP_VALID:
		if (memcmp(super->uuid, md->sb.uuid, sizeof(md->sb.uuid)) ||
		    super->incompat & ~DM_REMAP_INCOMPAT_KNOWN)
			return FOUND_OTHER;
		id = dm_remap_super_id(super);
		return whose(md, &id, replica);
	case DM_REMAP_NEWER:
		return FOUND_OTHER;
	default:
		return FOUND_FAULT;
	}
}

static int super_look(struct dm_remap_metadata *md, int replica)
{
	struct dm_remap_super super;

	switch (super_find(md, replica, &super)) {
	case FOUND_OURS:
		return 0;
	case FOUND_OTHER:
		return -ESTALE;
	default:
		break;
	}
	/* It is to be written anew. */
	if (md->sb_holders & (1 << replica))
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

int dm_remap_supers_known(struct dm_remap_metadata *md, const struct dm_remap_metadata *disk)
{
	bool other = false, ours = false;
	int r;

	lockdep_assert_held(&md->checkpoint_lock);
	mutex_lock(&md->super_lock);
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		enum found found = FOUND_FAULT;

		if (disk->held[r].known)
			found = whose(md, &disk->held[r], r);
		other |= found == FOUND_OTHER;
		ours |= found == FOUND_OURS && md->held[r].known;
	}
	mutex_unlock(&md->super_lock);
	return other ? -ESTALE : ours ? 0 : -EUCLEAN;
}

void dm_remap_taken(struct dm_remap_metadata *md)
{
	lockdep_assert_held(&md->commit_lock);
	if (!md->taken)
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "another system uses the spare: all I/O fails from now on, and nothing is written there");
	WRITE_ONCE(md->taken, true);
	dm_remap_table_close(&md->table);
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

/* Nobody has looked in this second. People set the clock; it goes on while the machine sleeps. */
static bool paused(const struct dm_remap_metadata *md)
{
	return md->active && READ_ONCE(md->looked) != md->ops->now(md->ctx);
}

int dm_remap_look_if_paused(struct dm_remap_metadata *md)
{
	return paused(md) && dm_remap_look_at_supers(md) == -ESTALE ? -ESTALE : 0;
}

int dm_remap_look_after_pause(struct dm_remap_metadata *md)
{
	/* Reclaim may be waiting for who waits for these locks. */
	unsigned int reclaim = dm_remap_reclaim_off();
	int ret = READ_ONCE(md->taken) || paused(md) ? dm_remap_look_before_writing(md) : 0;

	dm_remap_reclaim_restore(reclaim);
	return ret ? -EROFS : 0;
}

/* ---- writing superblocks ---- */

/* A write of superblock @replica failed, or something else is there: another system's, perhaps. */
static int super_failed(struct dm_remap_metadata *md, int replica, int error)
{
	struct dm_remap_super super;

	if (super_find(md, replica, &super) == FOUND_OTHER)
		return -ESTALE;
	dm_remap_log(md, DM_REMAP_LOG_WARN, "superblock %d cannot be written (%d)", replica, error);
	return error;
}

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
		ret = super_failed(md, replica, ret);
	} else {
		if (sb->generation != md->sb.generation || sb->nonce != md->sb.nonce) {
			md->sb = *sb;
			md->sb_holders = 0;
		}
		md->sb_holders |= 1 << replica;
		md->held[replica] = dm_remap_super_id(sb);
		if (md->sb_holders == DM_REMAP_ALL_REPLICAS)
			WRITE_ONCE(md->witness.generation, md->sb.generation);
	}
	mutex_unlock(&md->super_lock);
	return ret;
}

/* Of two systems that meet, who goes on? The other comes to the opposite answer. */
static bool other_wins(const struct dm_remap_metadata *md, const struct dm_remap_super *other)
{
	const struct dm_remap_super *sb = &md->sb;

	if (other->activation != sb->activation)
		return other->activation > sb->activation;
	if (other->generation != sb->generation)
		return other->generation > sb->generation;
	return other->nonce > sb->nonce;
}

/* Superblock @replica is to say what the other one says. */
static void put_back(struct dm_remap_metadata *md, const struct dm_remap_super *other, int replica)
{
	dm_remap_super_encode(md->sb_buf, other, replica);
	md->sb_holders &= ~(1 << replica);
	dm_remap_blocks_write(md, dm_remap_superblock_at(&other->layout, replica), 1, md->sb_buf,
			      DM_REMAP_FUA);
}

/*
 * Superblock @replica was written: another system may have written there since it was looked at.
 * The other superblock tells, and what was in this one: who gives way puts that back. 0 or -ESTALE.
 */
static int look_behind(struct dm_remap_metadata *md, int replica)
{
	struct dm_remap_super other;
	int ret = 0;

	mutex_lock(&md->super_lock);
	if (super_find(md, !replica, &other) == FOUND_OTHER) {
		bool same_spare = !memcmp(other.uuid, md->sb.uuid, sizeof(other.uuid));

		ret = -ESTALE;
		if (same_spare && other_wins(md, &other))
			put_back(md, &other, replica);
		else if (same_spare && !md->numbered)
			ret = 0;	/* a claim that gives way to ours */
	}
	mutex_unlock(&md->super_lock);
	return ret;
}

int dm_remap_supers_equalise(struct dm_remap_metadata *md)
{
	int r, ret;

	for (r = DM_REMAP_REPLICAS - 1; r >= 0; r--) {
		if (md->sb_holders & (1 << r))
			continue;
		ret = super_write(md, &md->sb, r) ?: look_behind(md, r);
		if (ret)
			return ret;
	}
	return 0;
}

/* Both say @next. */
static int supers_write(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	bool numbered = md->numbered || next->activation != md->sb.activation;
	int ret;

	next->written_time = md->ops->now(md->ctx);
	/* A commit may have looked meanwhile, and found that one does not hold it any more. */
	ret = dm_remap_supers_equalise(md) ?: super_write(md, next, 1);
	if (ret)
		return ret;
	md->numbered = numbered;
	ret = look_behind(md, 1) ?: super_write(md, next, 0) ?: look_behind(md, 0);
	md->owned |= numbered && !ret;
	return ret;
}

int dm_remap_supers_advance(struct dm_remap_metadata *md, struct dm_remap_super *next)
{
	next->generation = md->sb.generation + 1;
	if (READ_ONCE(md->taken))
		return -ESTALE;
	/* No load would take more. */
	if (next->generation > DM_REMAP_MAX_NUMBER || next->activation > DM_REMAP_MAX_NUMBER ||
	    next->journal_start > DM_REMAP_MAX_NUMBER)
		return -EROFS;
	return supers_write(md, next);
}

/* ---- the claim ---- */

/*
 * Both superblocks get our nonce, and stay as they were in all else, their generation too. So a
 * load still finds the commits of another system, whatever becomes of this one: beside superblocks
 * that the other has written meanwhile, these are the earlier ones.
 */
static int write_nonce(struct dm_remap_metadata *md)
{
	struct dm_remap_super next = md->sb;

	if (next.nonce == md->nonce)
		return dm_remap_supers_equalise(md);
	md->claimed_from = next.nonce;
	next.nonce = md->nonce;
	return supers_write(md, &next);
}

/* Of our claim no superblock is to stay beside one of a system that goes on. */
static void give_way(struct dm_remap_metadata *md)
{
	struct dm_remap_super super[DM_REMAP_REPLICAS];
	enum found found[DM_REMAP_REPLICAS];
	int r;

	mutex_lock(&md->super_lock);
	for (r = 0; r < DM_REMAP_REPLICAS; r++)
		found[r] = super_find(md, r, &super[r]);
	for (r = 0; r < DM_REMAP_REPLICAS; r++)
		if (found[r] == FOUND_OURS && found[!r] == FOUND_OTHER &&
		    other_wins(md, &super[!r]))
			put_back(md, &super[!r], r);
	mutex_unlock(&md->super_lock);
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
	if (ret == -ESTALE)
		give_way(md);
	/* Once the spare was ours, nobody can have gone on with what we had loaded. */
	if (ret || md->owned)
		return ret;
	return dm_remap_journal_unchanged(md);
}

void dm_remap_claim_begin(struct dm_remap_metadata *md)
{
	md->numbered = false;
	/* The one before has not got on the spare, as far as is known: it is used again. */
	if (md->nonce && md->nonce != md->sb.nonce)
		return;
	md->former_nonce = md->nonce;
	md->nonce = md->ops->random(md->ctx);
	while (!md->nonce || md->nonce == md->sb.nonce)
		md->nonce++;
}

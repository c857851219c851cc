// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commits: one journal block, on both replicas, or it did not happen.
 *
 * What makes that hold when it goes wrong: a commit that failed may have reached
 * one replica all the same, and a replay would find it there. Its sequence is
 * therefore never used again (it is burnt), its ranges are in doubt, and the next
 * commit waits for a checkpoint that starts behind it, which withdraws it first. The
 * chain does not go through it: that is how a loader tells it from one that is in the
 * table.
 */
#include "dm-remap-internal.h"

/* One try, and one more for each slot that turns out bad; then the spare is given up. */
#define COMMIT_TRIES 3

/* A table must never outgrow its place: setting stops where clearing still can. */
#define CLEAR_RESERVE ((DM_REMAP_RESERVE_BLOCKS - 2) * DM_REMAP_ENTRIES_PER_BLOCK)

static bool on_main(const struct dm_remap_record *r)
{
	return r->kind == DM_REMAP_MAPPED || r->kind == DM_REMAP_PENDING ||
	       r->kind == DM_REMAP_CLEAR;
}

/* A range is held as a whole, and until its holder releases it, whatever its record becomes. */
static int stays_held(struct dm_remap_metadata *md, struct dm_remap_update *u, u64 start,
		      u64 length)
{
	struct dm_remap_extent e;

	dm_remap_look(md, start, length, &e);
	if (!(e.flags & DM_REMAP_F_HELD))
		return 0;
	return dm_remap_update_flags(&md->table, u, start, length, DM_REMAP_F_HELD, 0);
}

int dm_remap_entry_prepare(struct dm_remap_metadata *md, const struct dm_remap_record *r,
			   struct dm_remap_update *records, struct dm_remap_update *retired)
{
	struct dm_remap_record key = *r;

	switch (r->kind) {
	case DM_REMAP_MAPPED:
	case DM_REMAP_PENDING:
		return dm_remap_update_set(&md->table, records, r) ?:
		       stays_held(md, records, r->main, r->length);
	case DM_REMAP_CLEAR:
		return dm_remap_update_clear(&md->table, records, r->main, r->length) ?:
		       stays_held(md, records, r->main, r->length);
	case DM_REMAP_RETIRED:
		key.main = r->spare;
		key.spare = 0;
		return dm_remap_update_set(&md->retired, retired, &key);
	default:
		return 0;
	}
}

/* ---- doubts ---- */

/*
 * Does a record live at @spare? Of what was to be retired, the place of a record, which
 * was to get another one, stays its own. A walk over all records, but seldom.
 */
static bool lives_at(struct dm_remap_metadata *md, u64 spare)
{
	struct dm_remap_record r;
	u64 from;

	for (from = 0; dm_remap_table_next(&md->table, from, &r); from = r.main + r.length)
		if (r.kind == DM_REMAP_MAPPED && spare >= r.spare && spare - r.spare < r.length)
			return true;
	return false;
}

/* Gives up what a failed commit held. False: no memory to clear the flags, try again later. */
static bool doubt_settle(struct dm_remap_metadata *md, const struct dm_remap_doubt *d)
{
	struct dm_remap_update u;
	unsigned int i;

	dm_remap_update_init(&u);
	for (i = 0; i < d->n; i++) {
		if (on_main(&d->entry[i]) &&
		    dm_remap_update_flags(&md->table, &u, d->entry[i].main, d->entry[i].length,
					  0, DM_REMAP_F_DOUBT)) {
			dm_remap_update_abandon(&u);
			return false;
		}
	}
	dm_remap_update_publish(&md->table, &u);
	for (i = 0; d->abandoned && i < d->n; i++)
		if (d->entry[i].kind == DM_REMAP_MAPPED ||
		    (d->entry[i].kind == DM_REMAP_RETIRED && !lives_at(md, d->entry[i].spare)))
			dm_remap_alloc_release(&md->alloc, d->entry[i].spare, d->entry[i].length);
	return true;
}

void dm_remap_doubts_settle(struct dm_remap_metadata *md, u64 start)
{
	struct dm_remap_doubt **link = &md->doubt;

	lockdep_assert_held(&md->commit_lock);
	while (*link) {
		struct dm_remap_doubt *d = *link;

		if (d->sequence < start && doubt_settle(md, d)) {
			*link = d->next;
			dm_remap_free(d);
		} else {
			link = &d->next;
		}
	}
}

void dm_remap_doubts_drop(struct dm_remap_metadata *md)
{
	while (md->doubt) {
		struct dm_remap_doubt *d = md->doubt;

		md->doubt = d->next;
		dm_remap_free(d);
	}
}

/*
 * The caller of the commit gives up on @sequence. False: a checkpoint has settled it
 * meanwhile, and its spare ranges are the caller's.
 */
static bool doubt_abandon(struct dm_remap_metadata *md, u64 sequence)
{
	struct dm_remap_doubt *d;

	lockdep_assert_held(&md->commit_lock);
	for (d = md->doubt; d && d->sequence != sequence; d = d->next)
		;
	if (d)
		d->abandoned = true;
	return d;
}

/*
 * What was loaded is the last commit before a crash, and known to one replica alone. It may be of
 * a longer device. What no device of this spare can have committed is in no doubt.
 */
int dm_remap_doubt_add(struct dm_remap_metadata *md, u64 sequence,
		       const struct dm_remap_disk_block *block, unsigned int n)
{
	struct dm_remap_doubt *d = dm_remap_zalloc(sizeof(*d));
	unsigned int i;

	if (!d)
		return -ENOMEM;
	d->sequence = sequence;
	for (i = 0; i < n; i++) {
		dm_remap_entry_decode(&d->entry[d->n], &block->entry[i]);
		if (!dm_remap_record_wrong(&d->entry[d->n], &md->sb.layout, DM_REMAP_MAX_SECTORS,
					   true))
			d->n++;
	}
	d->next = md->doubt;
	md->doubt = d;
	return 0;
}

static int doubt_flag(struct dm_remap_metadata *md, const struct dm_remap_doubt *d)
{
	struct dm_remap_update u;
	unsigned int i;
	int ret = 0;

	dm_remap_update_init(&u);
	for (i = 0; !ret && i < d->n; i++)
		if (on_main(&d->entry[i]))
			ret = dm_remap_update_flags(&md->table, &u, d->entry[i].main,
						    d->entry[i].length, DM_REMAP_F_DOUBT, 0);
	if (ret)
		dm_remap_update_abandon(&u);
	else
		dm_remap_update_publish(&md->table, &u);
	return ret;
}

void dm_remap_doubts_flag(struct dm_remap_metadata *md)
{
	struct dm_remap_doubt *d;

	lockdep_assert_held(&md->commit_lock);
	for (d = md->doubt; d; d = d->next)
		while (doubt_flag(md, d))
			cond_resched();
}

/* ---- one commit ---- */

/* Everything that publishing, or failing, will need. */
struct commit {
	struct dm_remap_update records;
	struct dm_remap_update retired;
	struct dm_remap_update in_doubt;
};

static void commit_abandon(struct commit *c)
{
	dm_remap_update_abandon(&c->records);
	dm_remap_update_abandon(&c->retired);
	dm_remap_update_abandon(&c->in_doubt);
}

static int commit_prepare(struct dm_remap_metadata *md, struct commit *c,
			  const struct dm_remap_record *entry, unsigned int n)
{
	unsigned int i;
	int ret = 0;

	dm_remap_update_init(&c->records);
	dm_remap_update_init(&c->retired);
	dm_remap_update_init(&c->in_doubt);
	if (!md->doubt_reserve)
		md->doubt_reserve = dm_remap_zalloc(sizeof(*md->doubt_reserve));
	if (!md->doubt_reserve)
		return -ENOMEM;
	for (i = 0; !ret && i < n; i++) {
		ret = dm_remap_entry_prepare(md, &entry[i], &c->records, &c->retired);
		if (!ret && on_main(&entry[i]))
			ret = dm_remap_update_flags(&md->table, &c->in_doubt, entry[i].main,
						    entry[i].length, DM_REMAP_F_DOUBT, 0);
	}
	if (ret)
		commit_abandon(c);
	return ret;
}

/*
 * The part of a soft record in [@start, @end). The record around a marked block is no part of the
 * change, and must not be in doubt with it.
 */
static struct dm_remap_record soft_cut(const struct dm_remap_record *r, u64 start, u64 end)
{
	struct dm_remap_record part = *r;

	if (r->kind != DM_REMAP_MAPPED)
		return part;
	part.main = max_t(u64, r->main, start);
	part.length = min_t(u64, r->main + r->length, end) - part.main;
	part.spare += part.main - r->main;
	return part;
}

/* How far into the soft ranges a commit got. */
struct soft_mark {
	u64 index;
	u64 start;		/* what is left of that range begins here */
};

/*
 * Soft records, as far as they still are of that kind and there is room beside the
 * @n entries of a commit. They come first: what those entries say holds. Returns
 * their number.
 */
static unsigned int soft_encode(struct dm_remap_metadata *md, struct dm_remap_disk_entry *to,
				unsigned int n, struct soft_mark *mark)
{
	unsigned int used = 0;

	mark->start = 0;
	for (mark->index = md->soft_first; mark->index < md->soft_next; mark->index++) {
		const struct dm_remap_soft *soft = &md->soft[mark->index % DM_REMAP_SOFT_RANGES];
		u64 end = soft->start + soft->length;
		struct dm_remap_record r, soft_part;

		for (mark->start = soft->start;
		     dm_remap_table_next(&md->table, mark->start, &r) && r.main < end;
		     mark->start = r.main + r.length) {
			if (r.kind != soft->kind)
				continue;
			if (used + n == DM_REMAP_ENTRIES_PER_BLOCK)
				return used;
			soft_part = soft_cut(&r, mark->start, end);
			dm_remap_entry_encode(&to[used++], &soft_part);
		}
	}
	return used;
}

/* What is before @mark is durable. */
static void soft_advance(struct dm_remap_metadata *md, const struct soft_mark *mark)
{
	struct dm_remap_soft *soft = &md->soft[mark->index % DM_REMAP_SOFT_RANGES];

	WRITE_ONCE(md->soft_first, mark->index);
	if (mark->index < md->soft_next && mark->start > soft->start) {
		soft->length = soft->start + soft->length - mark->start;
		soft->start = mark->start;
	}
}

static int journal_write(struct dm_remap_metadata *md, const struct dm_remap_record *entry,
			 unsigned int n, struct soft_mark *mark, u32 *chain)
{
	struct dm_remap_disk_block *block = md->journal_buf;
	u64 sequence = md->next_sequence, at;
	unsigned int soft, i;
	int r, ret;

	memset(block, 0, sizeof(*block));
	soft = soft_encode(md, block->entry, n, mark);
	dm_remap_header_fill(&block->header, DM_REMAP_JOURNAL, &md->sb, sequence, md->chain,
			     soft + n);
	for (i = 0; i < n; i++)
		dm_remap_entry_encode(&block->entry[soft + i], &entry[i]);
	*chain = dm_remap_chain_value(block, dm_remap_journal_at(&md->sb.layout, 0, sequence));

	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		at = dm_remap_journal_at(&md->sb.layout, r, sequence);
		dm_remap_block_seal(block, at);
		/* A block that comes too late may hit another system's; at least not on both. */
		ret = dm_remap_look_if_paused(md);
		ret = ret ?: dm_remap_block_write_checked(md, at, block, DM_REMAP_FUA,
							  md->journal_back);
		if (ret) {
			dm_remap_log(md, DM_REMAP_LOG_WARN,
				     "journal sequence %llu: replica %d cannot be written (%d)",
				     (unsigned long long)sequence, r, ret);
			return ret;
		}
	}
	return 0;
}

/* Sequence is burnt: whoever replays may find it or not. */
static void commit_failed(struct dm_remap_metadata *md, struct commit *c,
			  const struct dm_remap_record *entry, unsigned int n)
{
	struct dm_remap_doubt *d = md->doubt_reserve;

	md->doubt_reserve = NULL;
	d->sequence = md->next_sequence - 1;
	d->n = n;
	memcpy(d->entry, entry, n * sizeof(*entry));
	d->next = md->doubt;
	md->doubt = d;
	md->burnt = true;
	dm_remap_update_publish(&md->table, &c->in_doubt);
	commit_abandon(c);
}

/*
 * A block that counts no entries, which no commit is: the sequence is withdrawn. What it
 * holds beyond says what is in doubt as long as a replica may have the commit.
 */
static int withdrawal_write(struct dm_remap_metadata *md, u64 sequence, int replica)
{
	struct dm_remap_disk_block *block = md->journal_buf;
	u64 at = dm_remap_journal_at(&md->sb.layout, replica, sequence);

	lockdep_assert_held(&md->commit_lock);
	dm_remap_header_fill(&block->header, DM_REMAP_JOURNAL, &md->sb, sequence, md->chain, 0);
	dm_remap_block_seal(block, at);
	return dm_remap_block_write_checked(md, at, block, DM_REMAP_FUA, md->journal_back);
}

/*
 * The replica whose write failed may hold the block all the same. Then both do, and who has
 * only the older superblock takes it for acknowledged. One withdrawal is enough. journal_buf
 * has the block still: no commit came after.
 */
int dm_remap_burnt_withdraw(struct dm_remap_metadata *md)
{
	int r, ret = 0, failed = 0;

	lockdep_assert_held(&md->commit_lock);
	for (r = 0; md->burnt && r < DM_REMAP_REPLICAS; r++) {
		ret = withdrawal_write(md, md->next_sequence - 1, r);
		failed += !!ret;
	}
	return failed == DM_REMAP_REPLICAS ? ret : 0;
}

/*
 * The last commit, which load left in journal_buf, gets to where it was not read from. It is
 * there until that is done: who activates may have to try again.
 */
static int last_commit_write(struct dm_remap_metadata *md)
{
	struct dm_remap_disk_block *block = md->journal_buf;
	const struct dm_remap_layout *layout = &md->sb.layout;
	u64 sequence = md->next_sequence - 1, at = dm_remap_journal_at(layout, 0, sequence);
	u64 from = le64_to_cpu(block->header.block);
	int ret;

	lockdep_assert_held(&md->commit_lock);
	if (le64_to_cpu(block->header.sequence) != sequence)
		return 0;
	if (from == at)
		at = dm_remap_journal_at(layout, 1, sequence);
	dm_remap_block_seal(block, at);
	ret = dm_remap_block_write_checked(md, at, block, DM_REMAP_FUA, md->journal_back);
	if (ret)
		dm_remap_block_seal(block, from);
	return ret;
}

int dm_remap_end_withdraw(struct dm_remap_metadata *md, bool one_sided)
{
	int ret = 0;

	mutex_lock(&md->commit_lock);
	if (one_sided)
		ret = last_commit_write(md);
	if (!ret) {
		memset(md->journal_buf, 0, sizeof(*md->journal_buf));
		ret = withdrawal_write(md, md->next_sequence, 0);
	}
	mutex_unlock(&md->commit_lock);
	return ret;
}

/* Does clearing @r cut a record in two? */
static bool clear_splits(struct dm_remap_metadata *md, const struct dm_remap_record *r)
{
	struct dm_remap_record old;

	return dm_remap_table_next(&md->table, r->main, &old) && old.main < r->main &&
	       old.main + old.length > r->main + r->length;
}

/* How many records more the entries can make, at most; and what is to be left for CLEAR. */
static u64 room_wanted(struct dm_remap_metadata *md, const struct dm_remap_record *entry,
		       unsigned int n)
{
	u64 want = 0, reserve = 0;
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (entry[i].kind == DM_REMAP_CLEAR) {
			want += clear_splits(md, &entry[i]);
		} else if (entry[i].kind != DM_REMAP_COUNTER) {
			/* It may split another besides. */
			want += 2;
			reserve = CLEAR_RESERVE;
		}
	}
	return want ? want + reserve : 0;
}

u64 dm_remap_records(struct dm_remap_metadata *md)
{
	struct dm_remap_totals records, retired;

	dm_remap_table_totals(&md->table, &records);
	dm_remap_table_totals(&md->retired, &retired);
	return records.records + retired.records;
}

u64 dm_remap_room(struct dm_remap_metadata *md)
{
	u64 taken = dm_remap_records(md) + CLEAR_RESERVE;
	u64 capacity = dm_remap_table_capacity(&md->sb.layout);

	return taken < capacity ? (capacity - taken) / 2 : 0;
}

static bool table_has_room(struct dm_remap_metadata *md, u64 want)
{
	return !want || dm_remap_records(md) + want <= dm_remap_table_capacity(&md->sb.layout);
}

/* No entry gets on the disk that load would refuse; flags do by dm_remap_mark() alone. */
static bool entries_valid(struct dm_remap_metadata *md, const struct dm_remap_record *entry,
			  unsigned int n)
{
	unsigned int i;

	if (!n || n > DM_REMAP_ENTRIES_PER_BLOCK)
		return false;
	for (i = 0; i < n; i++)
		if (entry[i].flags ||
		    dm_remap_record_wrong(&entry[i], &md->sb.layout, md->table.sectors, true))
			return false;
	return true;
}

static int commit_locked(struct dm_remap_metadata *md, const struct dm_remap_record *entry,
			 unsigned int n)
{
	struct commit c;
	struct soft_mark mark;
	u32 chain;
	int ret;

	lockdep_assert_held(&md->commit_lock);
	if (!entries_valid(md, entry, n))
		return -EINVAL;
	if (!table_has_room(md, room_wanted(md, entry, n)))
		return -ENOSPC;
	ret = commit_prepare(md, &c, entry, n);
	if (ret)
		return ret;
	ret = journal_write(md, entry, n, &mark, &chain);
	/* Not before: who takes the spare now, and reads the journal, finds this in it. */
	ret = ret ?: dm_remap_look_at_supers(md);
	WRITE_ONCE(md->next_sequence, md->next_sequence + 1);
	if (ret == -ESTALE)
		dm_remap_taken(md);
	if (ret) {
		commit_failed(md, &c, entry, n);
		return -EUCLEAN;
	}
	md->chain = chain;
	WRITE_ONCE(md->witness.sequence, md->next_sequence);
	dm_remap_update_publish(&md->table, &c.records);
	dm_remap_update_publish(&md->retired, &c.retired);
	dm_remap_update_abandon(&c.in_doubt);
	soft_advance(md, &mark);
	return 0;
}

/*
 * There are flags that no superblock announces. An older module must refuse the spare as one that
 * is newer than itself, and not take a flag for damage.
 */
static bool flags_unannounced(struct dm_remap_metadata *md)
{
	struct dm_remap_totals totals;

	dm_remap_table_totals(&md->table, &totals);
	return totals.unreadable && !md->flags_announced;
}

/* Takes commit_lock with room in the journal for one more block; or fails, without it. */
static int commit_begin(struct dm_remap_metadata *md)
{
	for (;;) {
		int ret = 0;

		mutex_lock(&md->commit_lock);
		if (!md->active || md->mode >= DM_REMAP_MODE_RO ||
		    md->next_sequence >= DM_REMAP_MAX_NUMBER)
			ret = -EROFS;
		else if (md->closing)
			ret = -EAGAIN;
		else if (!md->burnt && !flags_unannounced(md) &&
			 md->next_sequence - md->oldest_start < md->sb.layout.journal_blocks)
			return 0;
		mutex_unlock(&md->commit_lock);
		ret = ret ?: dm_remap_checkpoint(md, DM_REMAP_STATE_DIRTY);
		if (ret)
			return ret;
	}
}

static int commit_with_tries(struct dm_remap_metadata *md, const struct dm_remap_record *entry,
			     unsigned int n)
{
	u64 sequence = 0;
	unsigned int tries;
	int ret = dm_remap_look_after_pause(md);

	if (ret)
		return ret;
	for (tries = 0; tries < COMMIT_TRIES; tries++) {
		/* After a failed try this is what passes the bad slot, and settles the doubt. */
		ret = commit_begin(md);
		if (ret)
			break;
		ret = commit_locked(md, entry, n);
		sequence = md->next_sequence - 1;
		mutex_unlock(&md->commit_lock);
		if (ret != -EUCLEAN)
			return ret;
	}
	if (!tries)
		return ret;
	mutex_lock(&md->commit_lock);
	if (doubt_abandon(md, sequence)) {
		ret = -EUCLEAN;
		if (tries == COMMIT_TRIES)
			dm_remap_mode_set(md, DM_REMAP_MODE_RO);
	} else if (ret == -EUCLEAN) {
		ret = -EIO;
	}
	mutex_unlock(&md->commit_lock);
	return ret;
}

int dm_remap_commit(struct dm_remap_metadata *md, const struct dm_remap_record *entry,
		    unsigned int n)
{
	unsigned int reclaim = dm_remap_reclaim_off();
	int ret = commit_with_tries(md, entry, n);

	dm_remap_reclaim_restore(reclaim);
	return ret;
}

/* ---- soft state ---- */

bool dm_remap_dirty(const struct dm_remap_metadata *md)
{
	unsigned int i;

	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		if ((u64)atomic64_read(&md->counter[i]) != READ_ONCE(md->counter_saved[i]))
			return true;
	return READ_ONCE(md->soft_first) != READ_ONCE(md->soft_next);
}

u64 dm_remap_journal_used(const struct dm_remap_metadata *md)
{
	s64 used = READ_ONCE(md->next_sequence) - READ_ONCE(md->oldest_start);

	/* Commits and a checkpoint may fall between the two. */
	return clamp_t(s64, used, 0, md->sb.layout.journal_blocks);
}

/* The soft ranges ride in every commit. */
int dm_remap_soft_commit(struct dm_remap_metadata *md)
{
	struct dm_remap_record entry[DM_REMAP_NR_COUNTERS] = { };
	unsigned int i;
	int ret;

	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++) {
		entry[i].kind = DM_REMAP_COUNTER;
		entry[i].length = i;
		entry[i].main = atomic64_read(&md->counter[i]);
	}
	ret = dm_remap_commit(md, entry, DM_REMAP_NR_COUNTERS);
	for (i = 0; !ret && i < DM_REMAP_NR_COUNTERS; i++)
		WRITE_ONCE(md->counter_saved[i], entry[i].main);
	return ret;
}

/*
 * May one more soft range be noted, in no mode beyond @most? 0; -EBUSY: a commit must come before,
 * or another errno. commit_lock held.
 */
static int soft_room(const struct dm_remap_metadata *md, enum dm_remap_mode most)
{
	lockdep_assert_held(&md->commit_lock);
	if (!md->active || md->mode > most)
		return -EROFS;
	if (md->closing)
		return -EAGAIN;
	return dm_remap_soft_full(md) ? -EBUSY : 0;
}

/* Takes commit_lock with room for one more soft range, or fails without it. */
static int soft_begin(struct dm_remap_metadata *md, enum dm_remap_mode most)
{
	int ret;

	for (;;) {
		mutex_lock(&md->commit_lock);
		ret = soft_room(md, most);
		if (!ret)
			return 0;
		mutex_unlock(&md->commit_lock);
		if (ret != -EBUSY)
			return ret;
		ret = dm_remap_soft_commit(md);
		if (ret)
			return ret;
	}
}

/* The same without I/O. -EBUSY: another has the lock, or there is no room. */
static int soft_try(struct dm_remap_metadata *md, enum dm_remap_mode most)
{
	int ret;

	if (!mutex_trylock(&md->commit_lock))
		return -EBUSY;
	ret = soft_room(md, most);
	if (ret)
		mutex_unlock(&md->commit_lock);
	return ret;
}

static void soft_add(struct dm_remap_metadata *md, u64 start, u64 length, u8 kind)
{
	struct dm_remap_soft soft = { .start = start, .length = length, .kind = kind };

	md->soft[md->soft_next % DM_REMAP_SOFT_RANGES] = soft;
	WRITE_ONCE(md->soft_next, md->soft_next + 1);
}

static int pending_prepare(struct dm_remap_metadata *md, struct dm_remap_update *u,
			   struct dm_remap_record *r, u64 end)
{
	struct dm_remap_extent e;
	unsigned int pieces = 0;
	int ret = 0;

	for (; !ret && r->main < end; r->main += e.length) {
		dm_remap_look(md, r->main, end - r->main, &e);
		r->length = e.length;
		if (e.kind != DM_REMAP_NONE || (e.flags & DM_REMAP_F_DOUBT))
			continue;
		/* As room_wanted: each may split another. */
		ret = table_has_room(md, 2 * ++pieces + CLEAR_RESERVE) ?
		      dm_remap_update_set(&md->table, u, r) : -ENOSPC;
	}
	return ret;
}

static int pending_add(struct dm_remap_metadata *md, u64 start, u64 length, u8 reason,
		       int (*begin)(struct dm_remap_metadata *md, enum dm_remap_mode most))
{
	u32 now = md->ops->now(md->ctx);
	struct dm_remap_record r = {
		.main = start, .length = length, .kind = DM_REMAP_PENDING, .reason = reason,
		.first_time = now, .last_time = now,
	};
	struct dm_remap_update u;
	int ret;

	if (r.length != length || !entries_valid(md, &r, 1))
		return -EINVAL;
	ret = begin(md, DM_REMAP_MODE_DEGRADED);
	if (ret)
		return ret;
	dm_remap_update_init(&u);
	ret = pending_prepare(md, &u, &r, start + length);
	if (ret) {
		dm_remap_update_abandon(&u);
	} else if (u.first) {
		dm_remap_update_publish(&md->table, &u);
		soft_add(md, start, length, DM_REMAP_PENDING);
		dm_remap_note(md, DM_REMAP_NOTE_PENDING, start, length, 0);
	}
	mutex_unlock(&md->commit_lock);
	return ret;
}

int dm_remap_pending_add(struct dm_remap_metadata *md, u64 start, u64 length, u8 reason)
{
	return pending_add(md, start, length, reason, soft_begin);
}

int dm_remap_pending_try(struct dm_remap_metadata *md, u64 start, u64 length, u8 reason)
{
	return pending_add(md, start, length, reason, soft_try);
}

static int mark_prepare(struct dm_remap_metadata *md, struct dm_remap_update *u, u64 start,
			u64 end, bool unreadable)
{
	u16 on = unreadable ? DM_REMAP_F_UNREADABLE : 0, off = on ^ DM_REMAP_F_UNREADABLE;
	struct dm_remap_extent e;
	unsigned int pieces = 0;
	int ret = 0;

	for (; !ret && start < end; start += e.length) {
		dm_remap_look(md, start, end - start, &e);
		if (e.kind != DM_REMAP_MAPPED || (e.flags & DM_REMAP_F_UNREADABLE) == on)
			continue;
		/* As room_wanted: each may split a record. */
		ret = table_has_room(md, 2 * ++pieces + CLEAR_RESERVE) ?
		      dm_remap_update_flags(&md->table, u, start, e.length, on, off) : -ENOSPC;
	}
	return ret;
}

int dm_remap_mark(struct dm_remap_metadata *md, u64 start, u64 length, bool unreadable)
{
	unsigned int reclaim = dm_remap_reclaim_off();
	struct dm_remap_update u;
	int ret = soft_begin(md, DM_REMAP_MODE_RO);

	if (ret)
		goto out;
	dm_remap_update_init(&u);
	ret = mark_prepare(md, &u, start, start + length, unreadable);
	if (ret) {
		dm_remap_update_abandon(&u);
	} else if (u.first) {
		dm_remap_update_publish(&md->table, &u);
		soft_add(md, start, length, DM_REMAP_MAPPED);
	}
	mutex_unlock(&md->commit_lock);
out:
	dm_remap_reclaim_restore(reclaim);
	return ret;
}

static int save_count(struct dm_remap_metadata *md, int ret)
{
	WRITE_ONCE(md->save_failed, !!ret);
	if (ret) {
		WRITE_ONCE(md->save_errors, md->save_errors + 1);
	} else {
		WRITE_ONCE(md->saves, md->saves + 1);
		WRITE_ONCE(md->last_save, md->ops->now(md->ctx));
	}
	return ret;
}

int dm_remap_save(struct dm_remap_metadata *md)
{
	return save_count(md, dm_remap_checkpoint(md, DM_REMAP_STATE_DIRTY));
}

int dm_remap_autosave(struct dm_remap_metadata *md)
{
	u64 used = dm_remap_journal_used(md);

	if (!md->active || md->write_nothing || md->taken)
		return 0;
	/* A doubt that stands is of a commit that failed, or there was no memory to settle it. */
	if (md->save_failed || md->heal || READ_ONCE(md->doubt) ||
	    md->mode != DM_REMAP_MODE_RW || used * 2 >= md->sb.layout.journal_blocks)
		return dm_remap_save(md);
	if (dm_remap_dirty(md))
		return save_count(md, dm_remap_soft_commit(md));
	return 0;
}

void dm_remap_count(struct dm_remap_metadata *md, enum dm_remap_counter counter, u64 n)
{
	atomic64_add(n, &md->counter[counter]);
}

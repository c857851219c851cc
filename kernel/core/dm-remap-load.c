// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reading a spare's metadata. The one question everywhere here: is it proved that
 * this is all of the table, as it was last acknowledged? If not, refuse, and say
 * what would help.
 */
#include "dm-remap-internal.h"

/* A journal block of one replica, as read. */
struct slot {
	enum dm_remap_verdict verdict;	/* VALID: at its place in this ring */
	u64 sequence;
	u64 activation;
	bool empty;			/* no commit: withdrawn, or from format */
};

struct loader {
	struct dm_remap_metadata *md;
	struct dm_remap_report *report;
	u64 spare_blocks;			/* the device as it is now */
	bool journal_alone;			/* records are not asked for */
	struct dm_remap_super sb[DM_REMAP_REPLICAS];
	void *block;				/* while the superblocks are looked for */
	void *buf[DM_REMAP_REPLICAS];		/* a batch of table blocks */
	u8 unreadable[DM_REMAP_REPLICAS][DM_REMAP_BATCH_BLOCKS];	/* flags of the batch */
	u64 records;				/* of the table, so far */
	int prefer;				/* replica whose blocks count, if both are whole */
	bool differ;				/* some are, and do not say the same */
	struct dm_remap_disk_block *ring[DM_REMAP_REPLICAS];
	struct slot *slot[DM_REMAP_REPLICAS];
	u32 behind[DM_REMAP_REPLICAS];		/* of the latest commits, those that it lacks */
	u64 until;				/* commits from this sequence on come meanwhile */
	u64 end;				/* behind the last of those, as far as is known */
};

#define JOURNAL_LOST \
	"acknowledged journal blocks are lost in both copies; see dm-remapctl check"
#define CHAIN_BROKEN "the journal's chain is broken; see dm-remapctl check"
#define ENTRY_IMPOSSIBLE \
	"the journal holds an entry that is not possible here; see dm-remapctl check"

static int refuse(struct loader *l, int error, const char *why)
{
	l->report->refusal = why;
	return error;
}

/*
 * Asked at every step that may take long: a device that takes its time for each bad block, or one
 * entry that concerns as many regions as there are. Nobody need wait for a ring of them.
 */
static int load_stop(struct loader *l)
{
	int ret = l->md->ops->stop ? l->md->ops->stop(l->md->ctx) : 0;

	return ret ? refuse(l, ret, "loading was interrupted") : 0;
}

/* Reads @n blocks. 1: some of them cannot be read; or an error that is not the spare's. */
static int read_once(struct loader *l, u64 block, u32 n, void *buf)
{
	int ret = load_stop(l);

	if (ret)
		return ret;
	ret = dm_remap_blocks_read(l->md, block, n, buf);
	if (dm_remap_may_try_again(ret))
		return refuse(l, ret, "loading was interrupted");
	return !!ret;
}

/* Reads @n blocks; where that fails, one by one, so that one bad block costs only itself. */
static int read_blocks(struct loader *l, u64 block, u32 n, void *buf, u8 *unreadable)
{
	int ret = read_once(l, block, n, buf);
	u32 i;

	memset(unreadable, 0, n);
	for (i = 0; ret > 0 && i < n; i++) {
		int one = read_once(l, block + i, 1, (u8 *)buf + (size_t)i * DM_REMAP_BLOCK_SIZE);

		unreadable[i] = one > 0;
		ret = one < 0 ? one : ret;
	}
	return min_t(int, ret, 0);
}

/* ---- superblocks ---- */

/* Its verdict is in the report. 0 or an error that is not the spare's. */
static int read_super(struct loader *l, int replica, u64 at)
{
	struct dm_remap_replica_report *r = &l->report->replica[replica];
	int ret = at < l->spare_blocks ? read_once(l, at, 1, l->block) : 1;

	r->superblock_at = at;
	r->superblock = ret ? DM_REMAP_UNREADABLE :
			      dm_remap_super_decode(&l->sb[replica], l->block, at);
	return min_t(int, ret, 0);
}

static bool is_head_journal(const struct dm_remap_disk_block *block, u64 at)
{
	return le32_to_cpu(block->header.magic) == DM_REMAP_MAGIC &&
	       le32_to_cpu(block->header.crc) == dm_remap_block_crc(block, sizeof(*block)) &&
	       block->header.type == DM_REMAP_JOURNAL && le64_to_cpu(block->header.block) == at;
}

/*
 * Where the spare ended when it was formatted, if superblock 0 can't tell: every
 * journal block says it, and the first ones are next to the superblock. *end becomes 0 if
 * none does. 0 or an error that is not the spare's.
 */
static int end_from_journal(struct loader *l, u64 *end)
{
	const struct dm_remap_disk_block *block = l->block;
	u64 last = min_t(u64, 1 + DM_REMAP_MIN_JOURNAL_BLOCKS, l->spare_blocks), at;
	int ret = 0;

	*end = 0;
	for (at = 1; ret >= 0 && !*end && at < last; at++) {
		ret = read_once(l, at, 1, l->block);
		if (!ret && is_head_journal(block, at))
			*end = le64_to_cpu(block->header.device_blocks);
	}
	return min_t(int, ret, 0);
}

/*
 * The device's own end is the last to be asked. If its size has changed, what is there
 * may be the tail of an earlier format.
 */
static int read_supers(struct loader *l)
{
	int ret = read_super(l, 0, 0);
	u64 end = 0;

	if (ret)
		return ret;
	if (l->report->replica[0].superblock == DM_REMAP_VALID)
		end = l->sb[0].layout.device_blocks;
	else
		ret = end_from_journal(l, &end);
	return ret ?: read_super(l, 1, (end ?: l->spare_blocks) - 1);
}

/* Neither superblock is valid. */
static int refuse_supers(struct loader *l)
{
	enum dm_remap_verdict head = l->report->replica[0].superblock;
	enum dm_remap_verdict tail = l->report->replica[1].superblock;

	if (head == DM_REMAP_NEWER || tail == DM_REMAP_NEWER)
		return refuse(l, -EPROTONOSUPPORT,
			      "spare has a newer metadata version; update dm-remap");
	if (head == DM_REMAP_BLANK && tail == DM_REMAP_BLANK)
		return refuse(l, -ENODATA,
			      "spare is blank: find out who wiped it, or if it is new, format it with dm-remapctl format");
	if (head == DM_REMAP_DAMAGED || tail == DM_REMAP_DAMAGED)
		return refuse(l, -EUCLEAN,
			      "both superblocks of the spare are lost; see dm-remapctl check");
	if (head == DM_REMAP_UNREADABLE || tail == DM_REMAP_UNREADABLE)
		return refuse(l, -EIO,
			      "no superblock of the spare can be read; check the device and its cabling");
	return refuse(l, -EINVAL,
		      "spare holds no dm-remap metadata: find the right device; dm-remapctl check says what is on it");
}

static bool same_content(const struct dm_remap_super *a, const struct dm_remap_super *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/*
 * Two systems that activated the spare at once left one superblock each. They differ in who says
 * so, but in nothing that has been recorded: neither has committed, or it would have found the
 * other.
 */
static bool both_activated(const struct dm_remap_super *a, const struct dm_remap_super *b)
{
	struct dm_remap_super same = *b;

	same.nonce = a->nonce;
	same.written_time = a->written_time;
	same.activation = a->activation;
	same.activation_sequence = a->activation_sequence;
	same.state = a->state;
	same.main = a->main;
	return a->nonce != b->nonce && same_content(a, &same);
}

/* Both superblocks are valid: do they belong together? Returns the newer's index, or an error. */
static int pair_supers(struct loader *l)
{
	const struct dm_remap_super *a = &l->sb[0], *b = &l->sb[1];
	int newer = b->generation > a->generation ||
		    (b->generation == a->generation && b->activation > a->activation);
	u64 apart = newer ? b->generation - a->generation : a->generation - b->generation;

	if (memcmp(a->uuid, b->uuid, sizeof(a->uuid))) {
		if (a->state == DM_REMAP_STATE_FORMATTING || b->state == DM_REMAP_STATE_FORMATTING)
			return refuse(l, -EUCLEAN, DM_REMAP_HALF_FORMATTED);
		return refuse(l, -EUCLEAN,
			      "the two ends of the spare carry different UUIDs; see dm-remapctl check");
	}
	if (apart > 1 || memcmp(&a->layout, &b->layout, sizeof(a->layout)))
		return refuse(l, -EUCLEAN,
			      "the superblocks of the spare are from different times; see dm-remapctl check");
	if (!apart && !same_content(a, b) && !both_activated(a, b))
		return refuse(l, -EUCLEAN,
			      "the superblocks of the spare contradict each other; see dm-remapctl check");
	l->report->lagging = apart;
	return newer;
}

static int choose_super(struct loader *l)
{
	struct dm_remap_metadata *md = l->md;
	bool head = l->report->replica[0].superblock == DM_REMAP_VALID;
	bool tail = l->report->replica[1].superblock == DM_REMAP_VALID;
	int chosen, r;

	if (!head && !tail)
		return refuse_supers(l);
	if ((head && l->sb[0].incompat & ~DM_REMAP_INCOMPAT_KNOWN) ||
	    (tail && l->sb[1].incompat & ~DM_REMAP_INCOMPAT_KNOWN))
		return refuse(l, -EPROTONOSUPPORT,
			      "spare uses metadata features unknown to this version; update dm-remap");
	if (l->report->replica[0].superblock == DM_REMAP_NEWER ||
	    l->report->replica[1].superblock == DM_REMAP_NEWER)
		return refuse(l, -EPROTONOSUPPORT,
			      "one end of the spare has a newer metadata version; update dm-remap");
	chosen = head && tail ? pair_supers(l) : tail;
	if (chosen < 0)
		return chosen;

	md->sb = l->sb[chosen];
	md->sb_holders = head && tail && same_content(&l->sb[0], &l->sb[1]) ?
			 DM_REMAP_ALL_REPLICAS : 1 << chosen;
	for (r = 0; r < DM_REMAP_REPLICAS; r++)
		if (l->report->replica[r].superblock == DM_REMAP_VALID)
			md->held[r] = dm_remap_super_id(&l->sb[r]);
	md->oldest_start = md->sb.journal_start;
	if (head && tail)
		md->oldest_start = min_t(u64, l->sb[0].journal_start, l->sb[1].journal_start);
	md->write_nothing = md->sb.compat_ro;
	if (md->sb.state == DM_REMAP_STATE_FORMATTING)
		return refuse(l, -EUCLEAN, DM_REMAP_HALF_FORMATTED);
	if (md->sb.layout.device_blocks > l->spare_blocks)
		return refuse(l, -EUCLEAN,
			      "spare is smaller than when it was formatted: part of it is missing");
	return 0;
}

/*
 * As dm_remap_record_wrong. Flags that the superblock does not announce are nobody's: both
 * superblocks do, before the first commit or table that has one.
 */
static const char *entry_wrong(const struct loader *l, const struct dm_remap_record *r,
			       bool journal)
{
	const struct dm_remap_metadata *md = l->md;

	if (!dm_remap_flags_announced(&md->sb, r))
		return "unknown flags";
	return dm_remap_record_wrong(r, &md->sb.layout, md->main_sectors, journal);
}

/* ---- table ---- */

/*
 * The block to believe at index @i of the batch, or NULL; counts the bad ones. Of two that are
 * whole and differ one is of a try of this table that failed.
 */
static const struct dm_remap_disk_block *table_block(struct loader *l, u32 first, u32 i)
{
	const struct dm_remap_super *sb = &l->md->sb;
	const struct dm_remap_disk_block *good[DM_REMAP_REPLICAS] = { NULL, NULL };
	u64 at = dm_remap_table_at(&sb->layout, 0, sb->active_table) + first + i;
	int r;

	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		const struct dm_remap_disk_block *block =
			(const struct dm_remap_disk_block *)l->buf[r] + i;
		u64 start = dm_remap_table_at(&sb->layout, r, sb->active_table);

		if (!(sb->table_copies & (1 << r)))
			continue;
		if (l->unreadable[r][i] || !dm_remap_table_block_is(block, sb, start, first + i))
			l->report->replica[r].bad_table_blocks++;
		else
			good[r] = block;
	}
	if (good[0] && good[1] &&
	    dm_remap_chain_value(good[0], at) != dm_remap_chain_value(good[1], at)) {
		l->report->replica[!l->prefer].bad_table_blocks++;
		l->differ = true;
	}
	return good[l->prefer] ?: good[!l->prefer];
}

/* The two tables a record can go to while loading. */
struct builds {
	struct dm_remap_build records;
	struct dm_remap_build retired;
};

static int load_record(struct loader *l, struct builds *b, const struct dm_remap_disk_entry *entry)
{
	struct dm_remap_metadata *md = l->md;
	struct dm_remap_record r;
	const char *wrong;
	int ret;

	dm_remap_entry_decode(&r, entry);
	wrong = entry_wrong(l, &r, false);
	if (wrong) {
		dm_remap_log(md, DM_REMAP_LOG_ERR,
			     "record at main sector %llu, spare sector %llu: %s",
			     (unsigned long long)r.main, (unsigned long long)r.spare, wrong);
		return refuse(l, -EUCLEAN,
			      "the table holds a record that is not possible here; see dm-remapctl check");
	}
	if (r.kind == DM_REMAP_RETIRED) {
		r.main = r.spare;
		r.spare = 0;
		ret = dm_remap_build_add(&b->retired, &r);
	} else {
		ret = dm_remap_build_add(&b->records, &r);
	}
	if (ret == -EINVAL)
		return refuse(l, -EUCLEAN, "the table is out of order; see dm-remapctl check");
	return ret;
}

static int load_batch(struct loader *l, struct builds *b, u32 first, u32 n, u32 *crc)
{
	struct dm_remap_super *sb = &l->md->sb;
	u64 at[DM_REMAP_REPLICAS];
	u32 i, k;
	int r, ret;

	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		at[r] = dm_remap_table_at(&sb->layout, r, sb->active_table) + first;
		if (!(sb->table_copies & (1 << r)))
			continue;
		ret = read_blocks(l, at[r], n, l->buf[r], l->unreadable[r]);
		if (ret)
			return ret;
	}
	for (i = 0; i < n; i++) {
		const struct dm_remap_disk_block *block = table_block(l, first, i);

		if (!block)
			return refuse(l, -EUCLEAN,
				      "a block of the table is lost in every copy; see dm-remapctl check");
		*crc = dm_remap_table_crc(*crc, block, at[0] + i);
		l->records += le16_to_cpu(block->header.count);
		for (k = 0; k < le16_to_cpu(block->header.count); k++) {
			ret = load_record(l, b, &block->entry[k]);
			if (ret)
				return ret;
		}
	}
	return 0;
}

static int load_blocks(struct loader *l, struct builds *b)
{
	const struct dm_remap_super *sb = &l->md->sb;
	u32 first, n, crc = 0;
	int r, ret;

	/* The least that does: most tables are a block or two. */
	n = min_t(u32, sb->table_count, DM_REMAP_BATCH_BLOCKS);
	for (r = 0; n && r < DM_REMAP_REPLICAS; r++) {
		l->buf[r] = dm_remap_zalloc((size_t)n * DM_REMAP_BLOCK_SIZE);
		if (!l->buf[r])
			return -ENOMEM;
	}
	for (first = 0; first < sb->table_count; first += n) {
		n = min_t(u32, sb->table_count - first, DM_REMAP_BATCH_BLOCKS);
		ret = load_batch(l, b, first, n, &crc);
		if (ret)
			return ret;
		cond_resched();
	}
	if (crc != sb->table_crc || l->records != sb->records)
		return refuse(l, -EUCLEAN,
			      "the table is not the one that the superblock names; see dm-remapctl check");
	return 0;
}

static int load_table_once(struct loader *l)
{
	struct dm_remap_metadata *md = l->md;
	struct builds b;
	int ret, end;

	ret = dm_remap_table_init(&md->table, md->main_sectors);
	if (ret)
		return ret;
	ret = dm_remap_table_init(&md->retired, dm_remap_data_end(&md->sb.layout));
	if (ret)
		return ret;
	dm_remap_build_begin(&b.records, &md->table);
	dm_remap_build_begin(&b.retired, &md->retired);
	ret = load_blocks(l, &b);
	end = dm_remap_build_end(&b.records);
	ret = ret ?: end;
	end = dm_remap_build_end(&b.retired);
	return ret ?: end;
}

/* Forgets what was loaded of the table. */
static void table_unload(struct loader *l)
{
	int r;

	dm_remap_table_exit(&l->md->table);
	dm_remap_table_exit(&l->md->retired);
	l->records = 0;
	l->report->refusal = NULL;
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		l->report->replica[r].bad_table_blocks = 0;
		dm_remap_free(l->buf[r]);
		l->buf[r] = NULL;
	}
}

/*
 * A checkpoint that failed is done once more under the same generation, perhaps with another
 * commit in its table. If the spare has lost the second write of a block, the first one is whole,
 * in one copy. The table's CRC in the superblocks tells which copy that is.
 */
static int load_table(struct loader *l)
{
	int ret = load_table_once(l);

	if (ret != -EUCLEAN || !l->differ)
		return ret;
	table_unload(l);
	l->prefer = 1;
	return load_table_once(l);
}

/* ---- journal ---- */

/*
 * Reads one replica's ring and notes what each slot holds. A block of a newer version
 * is no end of the journal, now or later: only who wrote it knows what it says.
 */
static int read_ring(struct loader *l, int r)
{
	const struct dm_remap_super *sb = &l->md->sb;
	u32 n = sb->layout.journal_blocks, first, batch, i, place;
	u64 at = dm_remap_journal_at(&sb->layout, r, 0);
	int ret;

	for (first = 0; first < n; first += batch) {
		batch = min_t(u32, n - first, DM_REMAP_BATCH_BLOCKS);
		ret = read_blocks(l, at + first, batch, l->ring[r] + first, l->unreadable[r]);
		if (ret)
			return ret;
		for (i = first; i < first + batch; i++) {
			const struct dm_remap_disk_block *block = &l->ring[r][i];
			struct slot *slot = &l->slot[r][i];

			slot->sequence = le64_to_cpu(block->header.sequence);
			slot->activation = le64_to_cpu(block->header.activation);
			slot->empty = !block->header.count;
			div_u64_rem(slot->sequence, n, &place);
			if (l->unreadable[r][i - first])
				slot->verdict = DM_REMAP_UNREADABLE;
			else
				slot->verdict = dm_remap_block_verdict(block, DM_REMAP_JOURNAL, sb,
								       at + i);
			if (slot->verdict == DM_REMAP_NEWER)
				return refuse(l, -EPROTONOSUPPORT,
					      "journal has a newer metadata version; update dm-remap");
			if (slot->verdict == DM_REMAP_VALID && place != i)
				slot->verdict = DM_REMAP_MISPLACED;
		}
		cond_resched();
	}
	return 0;
}

/*
 * Does @slot speak of @sequence? Not if it is of this activation's sequences, but an
 * earlier one wrote it: when this one began it was not seen, because it could not be
 * read then, and all that was done since was done without it.
 */
static bool slot_is_of(const struct loader *l, const struct slot *slot, u64 sequence)
{
	const struct dm_remap_super *sb = &l->md->sb;

	return slot->verdict == DM_REMAP_VALID && slot->sequence == sequence &&
	       (sequence < sb->activation_sequence || slot->activation >= sb->activation);
}

static bool slot_holds(const struct loader *l, const struct slot *slot, u64 sequence)
{
	return slot_is_of(l, slot, sequence) && !slot->empty;
}

static bool slot_withdraws(const struct loader *l, const struct slot *slot, u64 sequence)
{
	return slot_is_of(l, slot, sequence) && slot->empty;
}

/*
 * Which replica's copy of @sequence counts: of two valid ones that of the higher
 * activation. -ENOENT: neither is valid, and at least one could be read, so the
 * commit was never acknowledged: here the journal ends.
 */
static int pick_copy(struct loader *l, u64 sequence, u32 i)
{
	const struct slot *a = &l->slot[0][i], *b = &l->slot[1][i];
	bool in_a = slot_holds(l, a, sequence), in_b = slot_holds(l, b, sequence);

	if (in_a && in_b) {
		u64 at = dm_remap_journal_at(&l->md->sb.layout, 0, sequence);

		if (a->activation != b->activation)
			return b->activation > a->activation;
		if (dm_remap_chain_value(&l->ring[0][i], at) !=
		    dm_remap_chain_value(&l->ring[1][i], at))
			return refuse(l, -EUCLEAN,
				      "the journal copies contradict each other; see dm-remapctl check");
		return 0;
	}
	if (in_a || in_b)
		return in_b;
	if (a->verdict == DM_REMAP_UNREADABLE && b->verdict == DM_REMAP_UNREADABLE)
		return refuse(l, -EIO,
			      "a journal block can be read in neither copy; see dm-remapctl check");
	return -ENOENT;
}

static int replay_entry(struct dm_remap_metadata *md, const struct dm_remap_record *r)
{
	struct dm_remap_update records, retired;
	int ret;

	if (r->kind == DM_REMAP_COUNTER) {
		if (r->length < DM_REMAP_NR_COUNTERS)
			atomic64_set(&md->counter[r->length], r->main);
		return 0;
	}
	dm_remap_update_init(&records);
	dm_remap_update_init(&retired);
	ret = dm_remap_entry_prepare(md, r, &records, &retired);
	if (ret) {
		dm_remap_update_abandon(&records);
		dm_remap_update_abandon(&retired);
		return ret;
	}
	dm_remap_update_publish(&md->table, &records);
	dm_remap_update_publish(&md->retired, &retired);
	return 0;
}

static int replay_block(struct loader *l, const struct dm_remap_disk_block *block)
{
	struct dm_remap_metadata *md = l->md;
	u32 k;

	for (k = 0; !l->journal_alone && k < le16_to_cpu(block->header.count); k++) {
		struct dm_remap_record r;
		const char *wrong;
		int ret = load_stop(l);

		if (ret)
			return ret;
		dm_remap_entry_decode(&r, &block->entry[k]);
		wrong = entry_wrong(l, &r, true);
		if (wrong) {
			dm_remap_log(md, DM_REMAP_LOG_ERR, "journal sequence %llu, entry %u: %s",
				     (unsigned long long)le64_to_cpu(block->header.sequence), k,
				     wrong);
			return refuse(l, -EUCLEAN, ENTRY_IMPOSSIBLE);
		}
		ret = replay_entry(md, &r);
		if (ret)
			return ret;
	}
	return 0;
}

/* Notes which replica misses @sequence, which counts as @winner's. */
static void note_copies(struct loader *l, u64 sequence, u32 i, int winner)
{
	const struct slot *other = &l->slot[!winner][i];

	l->report->one_sided = !slot_holds(l, other, sequence) ||
			       other->activation != l->slot[winner][i].activation;
	l->report->other_unread = other->verdict == DM_REMAP_UNREADABLE;
	if (l->report->one_sided)
		l->report->replica[!winner].bad_journal_blocks++;
}

/*
 * A replica of an earlier time lacks the latest commits: where they belong it has whole
 * blocks of what was there before.
 */
static void note_behind(struct loader *l, u64 sequence, u32 i)
{
	int r;

	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		const struct slot *slot = &l->slot[r][i];

		if (slot_holds(l, slot, sequence))
			l->behind[r] = 0;
		else if (slot->verdict == DM_REMAP_VALID && slot->sequence < sequence)
			l->behind[r]++;
	}
}

/*
 * What the older superblock does not count, and the newer one has in its table. What
 * neither replica holds was no commit.
 */
static void note_behind_start(struct loader *l)
{
	const struct dm_remap_metadata *md = l->md;
	u32 n = md->sb.layout.journal_blocks, i;
	u64 sequence = max_t(u64, md->oldest_start, md->sb.journal_start - n);

	for (; sequence < md->sb.journal_start; sequence++) {
		div_u64_rem(sequence, n, &i);
		if (slot_holds(l, &l->slot[0][i], sequence) ||
		    slot_holds(l, &l->slot[1][i], sequence))
			note_behind(l, sequence, i);
	}
}

/*
 * Of what came last a crash leaves one replica without one thing: a commit, or a superblock.
 * Two are of another time, and so are the data sectors beside them.
 */
static int check_times(struct loader *l)
{
	int r;

	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		bool lags = l->report->lagging && !(l->md->sb_holders & (1 << r));

		if (l->behind[r] + lags > 1)
			return refuse(l, -EUCLEAN,
				      "the two ends of the spare are from different times; see dm-remapctl check");
	}
	return 0;
}

/* Others may write it while this is read. Notes where the last one ends. */
static bool came_meanwhile(struct loader *l, const struct slot *slot)
{
	if (slot->verdict != DM_REMAP_VALID || slot->sequence < l->until)
		return false;
	l->end = max_t(u64, l->end, slot->sequence + !slot->empty);
	return true;
}

/*
 * A commit behind the end, even one that was withdrawn, would mean that the end itself had
 * been acknowledged: one is in flight at a time, and a checkpoint passes what failed. Then
 * the journal has a hole, not an end. So it has if this activation found more than there is
 * now. Who withdrew what would be next knew the last commit.
 */
static int check_end(struct loader *l, u64 end)
{
	u32 i;
	int r;

	l->end = end;
	if (end < l->md->sb.activation_sequence)
		return refuse(l, -EUCLEAN, JOURNAL_LOST);
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		for (i = 0; i < l->md->sb.layout.journal_blocks; i++) {
			const struct slot *slot = &l->slot[r][i];

			if (came_meanwhile(l, slot))
				continue;
			if (slot->verdict == DM_REMAP_VALID && slot->sequence > end)
				return refuse(l, -EUCLEAN, JOURNAL_LOST);
			if (slot_withdraws(l, slot, end) &&
			    le32_to_cpu(l->ring[r][i].header.chain) != l->md->chain)
				return refuse(l, -EUCLEAN, CHAIN_BROKEN);
		}
	}
	return 0;
}

/* Does @block follow what was replayed so far? Activations never go back, either. */
static bool follows(const struct loader *l, const struct dm_remap_disk_block *block,
		    u64 activation)
{
	const struct dm_remap_super *sb = &l->md->sb;
	u64 own = le64_to_cpu(block->header.activation);
	bool latest = le64_to_cpu(block->header.sequence) >= sb->activation_sequence;

	return le32_to_cpu(block->header.chain) == l->md->chain && own >= activation &&
	       (latest ? own == sb->activation : own < sb->activation);
}

/*
 * How many entries a withdrawal tells of, none of which counts; or an error. What lies behind the
 * journal's start may be of a longer device.
 */
static int withdrawn_entries(struct loader *l, const struct dm_remap_disk_block *block)
{
	struct dm_remap_metadata *md = l->md;
	bool behind = le64_to_cpu(block->header.sequence) < md->sb.journal_start;
	int n;

	for (n = 0; n < DM_REMAP_ENTRIES_PER_BLOCK && block->entry[n].kind; n++) {
		struct dm_remap_record r;

		dm_remap_entry_decode(&r, &block->entry[n]);
		if (!behind && entry_wrong(l, &r, true))
			return refuse(l, -EUCLEAN, ENTRY_IMPOSSIBLE);
	}
	return n;
}

/*
 * If one replica withdraws @sequence and the other cannot be read, the commit may be there all
 * the same: what it says is in doubt, as of sequence @doubted. 1: so it is; 0: it is not; or an
 * error.
 */
static int doubt_withdrawn(struct loader *l, u64 sequence, u64 doubted)
{
	int r, n, ret;
	u32 i;

	div_u64_rem(sequence, l->md->sb.layout.journal_blocks, &i);
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		const struct dm_remap_disk_block *block = &l->ring[r][i];

		if (l->slot[!r][i].verdict != DM_REMAP_UNREADABLE ||
		    !slot_withdraws(l, &l->slot[r][i], sequence))
			continue;
		n = withdrawn_entries(l, block);
		if (n <= 0)
			return n;
		ret = dm_remap_doubt_add(l->md, doubted, block, n);
		return ret ?: 1;
	}
	return 0;
}

/*
 * The journal ends where neither replica holds the next sequence. What one of them withdraws may
 * be in doubt until a checkpoint, whose activation number hides it. And replica 0 is written
 * first: if its slot cannot be read, there may be a commit that nobody knows. Not after an
 * orderly stop: then none came after.
 */
static int load_end(struct loader *l, u64 sequence)
{
	int ret;
	u32 i;

	if (l->md->sb.state == DM_REMAP_STATE_CLEAN)
		return 0;
	ret = doubt_withdrawn(l, sequence, sequence - 1);
	if (ret)
		return min_t(int, ret, 0);
	div_u64_rem(sequence, l->md->sb.layout.journal_blocks, &i);
	l->report->end_unread = l->slot[0][i].verdict == DM_REMAP_UNREADABLE;
	return 0;
}

static int replay(struct loader *l)
{
	struct dm_remap_metadata *md = l->md;
	const struct dm_remap_disk_block *block = NULL;
	u64 sequence = md->sb.journal_start, activation = 0;
	u64 end = min_t(u64, sequence + md->sb.layout.journal_blocks, l->until);
	int winner = -ENOENT, ret;

	md->chain = md->sb.journal_chain;
	for (; sequence < end; sequence++) {
		u32 i;

		div_u64_rem(sequence, md->sb.layout.journal_blocks, &i);
		winner = pick_copy(l, sequence, i);
		if (winner < 0)
			break;
		block = &l->ring[winner][i];
		if (!follows(l, block, activation))
			return refuse(l, -EUCLEAN, CHAIN_BROKEN);
		ret = replay_block(l, block);
		if (ret)
			return ret;
		note_copies(l, sequence, i, winner);
		note_behind(l, sequence, i);
		activation = l->slot[winner][i].activation;
		md->chain = dm_remap_chain_value(block, dm_remap_journal_at(&md->sb.layout, 0,
									    sequence));
	}
	if (winner < 0 && winner != -ENOENT)
		return winner;
	l->report->replayed = sequence - md->sb.journal_start;
	md->next_sequence = sequence;
	ret = check_times(l) ?: check_end(l, sequence);
	if (!ret && winner == -ENOENT)
		ret = load_end(l, sequence);
	if (!ret && l->report->one_sided) {
		/* Who activates may have to put it on the other replica. */
		*md->journal_buf = *block;
		ret = dm_remap_doubt_add(md, sequence - 1, block,
					 le16_to_cpu(block->header.count));
	}
	return ret;
}

/*
 * One end alone is known to start where replay began. The other may start a commit
 * earlier, and find that one, or not: as long as it may, what that commit says is in doubt,
 * unless both find it, and it is the one that the table has and the chain goes on from. But
 * not once this start was on both ends, as it was before the next commit, and before the
 * next generation.
 *
 * An end that is out of reach with its superblock, and with its copy of the commit, leaves
 * it open whether that is there. Then it is as if it were: to doubt it would be to refuse
 * what was acknowledged whenever an end is lost.
 */
static int doubt_between_ends(struct loader *l)
{
	struct dm_remap_metadata *md = l->md;
	const struct dm_remap_super *sb = &md->sb;
	u64 sequence = sb->journal_start - 1, at = dm_remap_journal_at(&sb->layout, 0, sequence);
	int r, ret;
	u32 i;

	if (md->sb_holders == DM_REMAP_ALL_REPLICAS || l->report->replayed ||
	    sb->generation != sb->table_generation)
		return 0;
	ret = min_t(int, doubt_withdrawn(l, sequence, sequence), 0);
	div_u64_rem(sequence, sb->layout.journal_blocks, &i);
	for (r = 0; !ret && r < DM_REMAP_REPLICAS; r++) {
		const struct dm_remap_disk_block *block = &l->ring[r][i];
		const struct slot *other = &l->slot[!r][i];
		bool known = l->report->lagging || other->verdict != DM_REMAP_UNREADABLE;

		if (!slot_holds(l, &l->slot[r][i], sequence))
			continue;
		if ((known && !slot_holds(l, other, sequence)) ||
		    dm_remap_chain_value(block, at) != sb->journal_chain)
			ret = dm_remap_doubt_add(md, sequence, block,
						 le16_to_cpu(block->header.count));
	}
	return ret;
}

static int read_journal(struct loader *l)
{
	struct dm_remap_metadata *md = l->md;
	u32 n = md->sb.layout.journal_blocks;
	int r, i, ret;

	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		atomic64_set(&md->counter[i], md->sb.counter[i]);
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		l->ring[r] = dm_remap_zalloc((size_t)n * DM_REMAP_BLOCK_SIZE);
		l->slot[r] = dm_remap_zalloc(n * sizeof(*l->slot[r]));
		if (!l->ring[r] || !l->slot[r])
			return -ENOMEM;
		ret = read_ring(l, r);
		if (ret)
			return ret;
	}
	note_behind_start(l);
	return replay(l) ?: doubt_between_ends(l);
}

/* ---- allocator ---- */

/* A checkpoint must find room for what the journal added. */
static int check_room(struct loader *l)
{
	if (dm_remap_records(l->md) > dm_remap_table_capacity(&l->md->sb.layout))
		return refuse(l, -EUCLEAN,
			      "table and journal hold more records than fit; see dm-remapctl check");
	return 0;
}

/* Every spare sector of a record is taken, and by that record alone. */
static int mark_taken(struct loader *l)
{
	struct dm_remap_metadata *md = l->md;
	const struct dm_remap_layout *layout = &md->sb.layout;
	struct dm_remap_record r;
	u64 from;
	int ret;

	ret = dm_remap_alloc_init(&md->alloc, dm_remap_data_start(layout),
				  dm_remap_data_end(layout), layout->granularity);
	for (from = 0; !ret && dm_remap_table_next(&md->table, from, &r);
	     from = r.main + r.length)
		if (r.kind == DM_REMAP_MAPPED)
			ret = dm_remap_alloc_mark(&md->alloc, r.spare, r.length);
	for (from = 0; !ret && dm_remap_table_next(&md->retired, from, &r);
	     from = r.main + r.length)
		ret = dm_remap_alloc_mark(&md->alloc, r.main, r.length);
	if (ret == -EEXIST)
		return refuse(l, -EUCLEAN,
			      "two records claim the same sectors of the spare; see dm-remapctl check");
	return ret;
}

/* ---- all of it ---- */

/* The end that does not have the last generation, or the last commit, may be the one that stays. */
static void set_witness(struct dm_remap_metadata *md)
{
	bool both = md->sb_holders == DM_REMAP_ALL_REPLICAS;

	md->witness.generation = md->sb.generation;
	if (!both && md->witness.generation)
		md->witness.generation--;
	md->witness.sequence = md->next_sequence - (!both || md->doubt);
}

static int load_all(struct loader *l, u64 main_sectors)
{
	struct dm_remap_metadata *md = l->md;
	int i, ret;

	l->block = dm_remap_zalloc(DM_REMAP_BLOCK_SIZE);
	if (!l->block)
		return -ENOMEM;
	ret = read_supers(l) ?: choose_super(l);
	if (ret)
		return ret;
	md->main_sectors = main_sectors ?: min_t(u64, md->sb.main.sectors - md->sb.main.start,
						 DM_REMAP_MAX_SECTORS);
	ret = l->journal_alone ? 0 : load_table(l);
	ret = ret ?: read_journal(l);
	if (ret || l->journal_alone)
		return ret;
	ret = check_room(l) ?: mark_taken(l);
	if (ret)
		return ret;
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		md->counter_saved[i] = atomic64_read(&md->counter[i]);
	set_witness(md);
	md->loaded = true;
	return 0;
}

static void loader_free(struct loader *l)
{
	int r;

	dm_remap_free(l->block);
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		dm_remap_free(l->buf[r]);
		dm_remap_free(l->ring[r]);
		dm_remap_free(l->slot[r]);
	}
	dm_remap_free(l);
}

static int load_spare(struct dm_remap_metadata *md, u64 spare_sectors, u64 main_sectors,
		      struct dm_remap_report *report, bool journal_alone, u64 until, u64 *end)
{
	/* Two superblocks are too much for the stack. */
	struct loader *l = dm_remap_zalloc(sizeof(*l));
	int ret = -ENOMEM;

	memset(report, 0, sizeof(*report));
	if (!l)
		goto out;
	l->md = md;
	l->report = report;
	l->spare_blocks = spare_sectors / DM_REMAP_BLOCK_SECTORS;
	l->journal_alone = journal_alone;
	l->until = until;
	if (l->spare_blocks < 2)
		ret = refuse(l, -ENOSPC, "spare is too small to hold any metadata");
	else
		ret = load_all(l, main_sectors);
	if (ret) {
		/* So that it may be tried again. */
		dm_remap_doubts_drop(md);
		dm_remap_table_exit(&md->table);
		dm_remap_table_exit(&md->retired);
		dm_remap_alloc_exit(&md->alloc);
	} else if (end) {
		*end = l->end;
	}
	loader_free(l);
out:
	/* Every other error has said why. */
	if (ret == -ENOMEM)
		report->refusal = "not enough memory to load the metadata";
	return ret;
}

int dm_remap_load(struct dm_remap_metadata *md, u64 spare_sectors, u64 main_sectors,
		  struct dm_remap_report *report)
{
	return load_spare(md, spare_sectors, main_sectors, report, false, U64_MAX, NULL);
}

int dm_remap_load_until(struct dm_remap_metadata *md, u64 spare_sectors, u64 main_sectors,
			struct dm_remap_report *report, u64 sequence, u64 *end)
{
	return load_spare(md, spare_sectors, main_sectors, report, false, sequence, end);
}

int dm_remap_load_journal(struct dm_remap_metadata *md, u64 spare_sectors,
			  struct dm_remap_report *report)
{
	/* Entries are not looked at, so no size of main matters. */
	return load_spare(md, spare_sectors, DM_REMAP_MAX_SECTORS, report, true, U64_MAX, NULL);
}

/* ---- is it older than somebody remembers? ---- */

int dm_remap_check_witness(const struct dm_remap_metadata *md,
			   const struct dm_remap_witness *least, struct dm_remap_report *report)
{
	report->refusal = NULL;
	if (READ_ONCE(md->sb.generation) < least->generation ||
	    READ_ONCE(md->next_sequence) < least->sequence)
		report->refusal =
			"spare is older than its witness: a copy? use the newest; see recovery.md";
	return report->refusal ? -ESTALE : 0;
}

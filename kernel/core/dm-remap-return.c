// SPDX-License-Identifier: GPL-2.0-only
/*
 * A spare that was unplugged while it was in use, and has come back.
 *
 * Memory has served meanwhile, and what memory holds is what stays. All that was acknowledged is
 * on the spare, too: a commit is durable on both replicas before. So both must say the same, but
 * in two things. A commit that failed is in doubt: the spare may hold it or not. And what no
 * commit has carried yet (soft state) need not be there. The activation that follows settles both.
 */
#include "dm-remap-internal.h"

#define ANOTHER_SPARE \
	"this is another spare, and the one in use holds records: bring that one back"
#define USED_ELSEWHERE \
	"another system has used the spare meanwhile: remove the device, see recovery.md"
#define OLDER_COPY \
	"this is an older copy of the spare in use: bring back the one that was unplugged"
#define OTHER_RECORDS \
	"spare does not hold the records in use: remove the device, see recovery.md"

/* A table in memory, and the same as it was loaded. */
struct pair {
	struct dm_remap_metadata *md;
	struct dm_remap_table *memory;
	struct dm_remap_table *disk;
	bool retired;			/* it is the one by spare sector */
};

/* Sectors that share one answer in memory, and one on the disk. */
struct stretch {
	u64 start;
	u64 length;
	struct dm_remap_extent memory;
	struct dm_remap_extent disk;
};

/* The first record of either table from @from on. False: there is none. */
static bool stretch_find(const struct pair *p, u64 from, struct stretch *s)
{
	struct dm_remap_table * const table[] = { p->memory, p->disk };
	u64 start, end = 0;
	unsigned int i;

	s->start = U64_MAX;
	for (i = 0; i < ARRAY_SIZE(table); i++) {
		struct dm_remap_record r;

		if (!dm_remap_table_next(table[i], from, &r))
			continue;
		start = max_t(u64, r.main, from);
		if (start >= s->start)
			continue;
		s->start = start;
		end = r.main + r.length;
	}
	if (!end)
		return false;
	rcu_read_lock_sched();
	dm_remap_table_lookup(p->memory, s->start, end - s->start, &s->memory);
	dm_remap_table_lookup(p->disk, s->start, end - s->start, &s->disk);
	rcu_read_unlock_sched();
	s->length = min_t(u64, s->memory.length, s->disk.length);
	return true;
}

static bool same(const struct dm_remap_extent *a, const struct dm_remap_extent *b)
{
	return a->kind == b->kind && !((a->flags ^ b->flags) & DM_REMAP_F_DURABLE) &&
	       (a->kind != DM_REMAP_MAPPED || a->spare == b->spare);
}

/* The disk has what this entry of a commit that failed says: for how many sectors of @s? */
static u64 entry_explains(const struct pair *p, const struct dm_remap_record *entry,
			  const struct stretch *s)
{
	u64 start = p->retired ? entry->spare : entry->main;
	u8 kind = entry->kind == DM_REMAP_CLEAR ? DM_REMAP_NONE : entry->kind;
	bool retired = entry->kind == DM_REMAP_RETIRED;

	if (entry->kind == DM_REMAP_COUNTER || retired != p->retired ||
	    s->start < start || s->start - start >= entry->length || s->disk.kind != kind)
		return 0;
	if (kind == DM_REMAP_MAPPED && s->disk.spare != entry->spare + (s->start - start))
		return 0;
	return start + entry->length - s->start;
}

static u64 doubt_explains(const struct pair *p, const struct stretch *s)
{
	const struct dm_remap_doubt *d;
	u64 length = 0;
	unsigned int i;

	for (d = p->md->doubt; d; d = d->next)
		for (i = 0; i < d->n; i++)
			length = max_t(u64, length, entry_explains(p, &d->entry[i], s));
	return length;
}

/* Soft state in memory, which is newer than the last commit: a pending record, or a mark. */
static u64 soft_explains(const struct pair *p, const struct stretch *s)
{
	bool marked = s->memory.kind == DM_REMAP_MAPPED && s->disk.kind == DM_REMAP_MAPPED &&
		      s->memory.spare == s->disk.spare;
	bool added = s->memory.kind == DM_REMAP_PENDING && s->disk.kind == DM_REMAP_NONE;
	const struct dm_remap_metadata *md = p->md;
	u64 i, length = 0;

	for (i = md->soft_first; (marked || added) && !p->retired && i < md->soft_next; i++) {
		const struct dm_remap_soft *soft = &md->soft[i % DM_REMAP_SOFT_RANGES];

		if (soft->kind == s->memory.kind && s->start >= soft->start &&
		    s->start - soft->start < soft->length)
			length = max_t(u64, length, soft->start + soft->length - s->start);
	}
	return length;
}

static bool pair_agrees(const struct pair *p)
{
	struct stretch s;
	u64 from;

	for (from = 0; stretch_find(p, from, &s); from = s.start + s.length) {
		u64 explained;

		cond_resched();
		if (same(&s.memory, &s.disk))
			continue;
		explained = max_t(u64, doubt_explains(p, &s), soft_explains(p, &s));
		if (!explained) {
			dm_remap_log(p->md, DM_REMAP_LOG_ERR,
				     "spare and memory differ in the record of %s sector %llu",
				     p->retired ? "spare" : "main", (unsigned long long)s.start);
			return false;
		}
		s.length = min_t(u64, s.length, explained);
	}
	return true;
}

static bool records_agree(struct dm_remap_metadata *md, struct dm_remap_metadata *disk)
{
	const struct pair records = { .md = md, .memory = &md->table, .disk = &disk->table };
	const struct pair retired = {
		.md = md, .memory = &md->retired, .disk = &disk->retired, .retired = true,
	};

	return pair_agrees(&records) && pair_agrees(&retired);
}

/* The last commit may have failed: then it counts in memory, and need not be on the disk. */
static bool journals_agree(const struct dm_remap_metadata *md,
			   const struct dm_remap_metadata *disk)
{
	if (disk->next_sequence == md->next_sequence)
		return md->burnt || disk->chain == md->chain;
	return disk->next_sequence < md->next_sequence;
}

/* Why @disk cannot take the place of the spare of @md; NULL: it can. */
static const char *why_not(struct dm_remap_metadata *md, struct dm_remap_metadata *disk)
{
	struct dm_remap_report older;
	int ret;

	lockdep_assert_held(&md->commit_lock);
	if (memcmp(disk->sb.uuid, md->sb.uuid, sizeof(md->sb.uuid)))
		return ANOTHER_SPARE;
	ret = md->taken ? -ESTALE : dm_remap_supers_known(md, disk);
	if (ret == -ESTALE)
		return USED_ELSEWHERE;
	if (ret || dm_remap_check_witness(disk, &md->witness, &older))
		return OLDER_COPY;
	if (!journals_agree(md, disk) || !records_agree(md, disk))
		return OTHER_RECORDS;
	return NULL;
}

int dm_remap_check_returned(struct dm_remap_metadata *md, struct dm_remap_metadata *disk,
			    struct dm_remap_report *report)
{
	mutex_lock(&md->checkpoint_lock);
	mutex_lock(&md->commit_lock);
	report->refusal = why_not(md, disk);
	mutex_unlock(&md->commit_lock);
	mutex_unlock(&md->checkpoint_lock);
	return report->refusal ? -ESTALE : 0;
}

/* The spare is ours. The activation writes its metadata anew, and settles doubts. */
static void taken_back(struct dm_remap_metadata *md)
{
	mutex_lock(&md->checkpoint_lock);
	md->heal = true;
	mutex_unlock(&md->checkpoint_lock);
	dm_remap_log(md, DM_REMAP_LOG_INFO, "the spare has come back as %s", md->spare_name);
	if (dm_remap_spare_cache_lost(md))
		dm_remap_log(md, DM_REMAP_LOG_WARN,
			     "writes to the spare had not been flushed: the next flush fails");
}

int dm_remap_take_back(struct dm_remap_metadata *md, u64 spare_sectors,
		       struct dm_remap_report *report)
{
	struct dm_remap_metadata *disk = dm_remap_beside(md);
	int ret;

	memset(report, 0, sizeof(*report));
	if (!disk) {
		report->refusal = "not enough memory to load the metadata";
		return -ENOMEM;
	}
	ret = dm_remap_load(disk, spare_sectors, md->main_sectors, report) ?:
	      dm_remap_check_returned(md, disk, report);
	if (!ret)
		taken_back(md);
	dm_remap_beside_free(disk);
	return ret;
}

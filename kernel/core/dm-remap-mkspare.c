// SPDX-License-Identifier: GPL-2.0-only
/*
 * Making a device a spare: empty metadata in every place, on a device that was seen to keep
 * what is written to it.
 */
#include "dm-remap-internal.h"

/*
 * A device may answer from memory of its own. After so many blocks more (64 MiB) it reads what was
 * written before from the media.
 */
#define FILL_BLOCKS 16384u

/*
 * Blocks all over the spare, each different: at powers of two and at halves of halves,
 * counted from either end. Some devices drop the upper bits of an address; others have half of
 * the size that they claim, or a quarter. There two of these blocks are one place.
 */
#define PROBES (4 * 64)

#define DOES_NOT_KEEP \
	"spare does not keep what is written: worn out, or smaller than it claims; use another"

struct formatter {
	const struct dm_remap_ops *ops;
	void *ctx;
	struct dm_remap_report *report;
	struct dm_remap_super sb;
	u8 *buf;			/* DM_REMAP_BATCH_BLOCKS */
	u8 *back;			/* as much again, to read back into */
	bool probe_failed[PROBES];	/* it is a bad block, which is no lie */
};

static int refuse(struct formatter *f, int error, const char *why)
{
	f->report->refusal = why;
	return error;
}

static int fmt_read(struct formatter *f, u64 block, u32 n, u8 *to)
{
	return f->ops->read(f->ctx, DM_REMAP_SPARE, block * DM_REMAP_BLOCK_SECTORS,
			    n * DM_REMAP_BLOCK_SECTORS, to);
}

static int fmt_write(struct formatter *f, u64 block, u32 n, unsigned int flags)
{
	return f->ops->write(f->ctx, DM_REMAP_SPARE, block * DM_REMAP_BLOCK_SECTORS,
			     n * DM_REMAP_BLOCK_SECTORS, f->buf, flags);
}

/* Does the spare hold what is in buf? */
static int fmt_compare(struct formatter *f, u64 block, u32 n)
{
	int ret = fmt_read(f, block, n, f->back);

	if (ret || !memcmp(f->buf, f->back, (size_t)n * DM_REMAP_BLOCK_SIZE))
		return ret;
	f->ops->log(f->ctx, DM_REMAP_LOG_ERR,
		    "blocks %llu + %u of the spare do not hold what was written there",
		    (unsigned long long)block, n);
	return refuse(f, -EIO, DOES_NOT_KEEP);
}

/* Blocks of journal and both tables of one replica, which follow one another. */
static u64 area_blocks(const struct dm_remap_layout *l)
{
	return l->journal_blocks + 2 * (u64)l->table_blocks;
}

/* ---- is it blank? ---- */

/* Something is there already: what? */
static int refuse_content(struct formatter *f, u64 at)
{
	struct dm_remap_super sb;

	switch (dm_remap_super_decode(&sb, f->buf, at)) {
	case DM_REMAP_VALID:
		if (sb.state == DM_REMAP_STATE_FORMATTING)
			return refuse(f, -EUCLEAN, DM_REMAP_HALF_FORMATTED);
		return refuse(f, -EEXIST,
			      "spare is formatted already: dm-remapctl check says what it holds; leave out the word format to use that");
	case DM_REMAP_NEWER:
	case DM_REMAP_DAMAGED:
		return refuse(f, -EEXIST,
			      "spare holds dm-remap metadata that is damaged or newer; see dm-remapctl check");
	default:
		return refuse(f, -EEXIST,
			      "spare is not blank; dm-remapctl format says what is on it, and can overwrite it");
	}
}

static int check_blank(struct formatter *f, u64 block, u64 blocks)
{
	while (blocks) {
		u32 n = min_t(u64, blocks, DM_REMAP_BATCH_BLOCKS);
		int ret = fmt_read(f, block, n, f->buf);

		if (dm_remap_may_try_again(ret))
			return refuse(f, ret, "the spare was not read to its end: try again");
		if (ret)
			return refuse(f, -EIO, "spare cannot be read where its metadata would be");
		if (!dm_remap_is_zero(f->buf, (size_t)n * DM_REMAP_BLOCK_SIZE))
			return refuse_content(f, block);
		block += n;
		blocks -= n;
		cond_resched();
	}
	return 0;
}

/* ---- probes ---- */

/* May lie beyond the device. */
static u64 probe_at(const struct formatter *f, unsigned int i)
{
	u64 blocks = f->sb.layout.device_blocks;
	u64 distance = i & 1 ? blocks >> (i >> 2) : BIT_ULL(i >> 2);

	return i & 2 ? blocks - 1 - distance : distance;
}

/* The spare's UUID is new with each format: an old probe is no new one. */
static void probe_make(struct formatter *f, u8 *block, u64 at)
{
	__le64 word[2] = { cpu_to_le64(at), cpu_to_le64(~at) };
	u8 *end = block + DM_REMAP_BLOCK_SIZE;

	static_assert(DM_REMAP_BLOCK_SIZE % (DM_REMAP_UUID_SIZE + sizeof(word)) == 0, "probe");
	while (block < end) {
		memcpy(block, f->sb.uuid, DM_REMAP_UUID_SIZE);
		block += DM_REMAP_UUID_SIZE;
		memcpy(block, word, sizeof(word));
		block += sizeof(word);
	}
}

/* Does the error leave it open that one block of the spare is bad? Others can be used then. */
static int unless_media(struct formatter *f, unsigned int i, int error)
{
	if (f->report->refusal || !dm_remap_may_be_media(error))
		return error;
	f->probe_failed[i] = true;
	return 0;
}

static int probe_blank(struct formatter *f, unsigned int i)
{
	return check_blank(f, probe_at(f, i), 1);
}

static int probe_write(struct formatter *f, unsigned int i)
{
	u64 at = probe_at(f, i);

	probe_make(f, f->buf, at);
	return unless_media(f, i, fmt_write(f, at, 1, 0));
}

static int probe_compare(struct formatter *f, unsigned int i)
{
	u64 at = probe_at(f, i);

	if (f->probe_failed[i])
		return 0;
	probe_make(f, f->buf, at);
	return unless_media(f, i, fmt_compare(f, at, 1));
}

/* Between the superblocks, which are at both ends. */
static int each_probe(struct formatter *f, int (*what)(struct formatter *f, unsigned int i))
{
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < PROBES; i++) {
		u64 at = probe_at(f, i);

		if (at && at < f->sb.layout.device_blocks - 1)
			ret = what(f, i);
		cond_resched();
	}
	return ret;
}

/* The blocks of the spare that are filled: behind its middle, or all between the superblocks. */
static u32 fill_range(const struct formatter *f, u64 *first)
{
	u64 most = f->sb.layout.device_blocks - 2;

	*first = most <= FILL_BLOCKS ? 1 :
		 min_t(u64, f->sb.layout.device_blocks / 2, 1 + most - FILL_BLOCKS);
	return min_t(u64, most, FILL_BLOCKS);
}

/* Each block gets the content that it has as a probe: the probes among them stay as they are. */
static int fill(struct formatter *f)
{
	u64 first;
	u32 left = fill_range(f, &first), n, i;
	int ret = 0;

	for (; !ret && left; left -= n, first += n) {
		n = min_t(u32, left, DM_REMAP_BATCH_BLOCKS);
		for (i = 0; i < n; i++)
			probe_make(f, f->buf + (size_t)i * DM_REMAP_BLOCK_SIZE, first + i);
		/* The probes are durable before the first of these, and the last is by itself. */
		ret = fmt_write(f, first, n, DM_REMAP_PREFLUSH | DM_REMAP_FUA);
		if (dm_remap_may_be_media(ret))
			ret = 0;
		cond_resched();
	}
	return ret;
}

static int check_all_blank(struct formatter *f)
{
	const struct dm_remap_layout *l = &f->sb.layout;
	int r, ret = 0;
	u64 first;
	u32 n;

	for (r = 0; !ret && r < DM_REMAP_REPLICAS; r++)
		ret = check_blank(f, dm_remap_superblock_at(l, r), 1);
	for (r = 0; !ret && r < DM_REMAP_REPLICAS; r++)
		ret = check_blank(f, dm_remap_journal_at(l, r, 0), area_blocks(l));
	n = fill_range(f, &first);
	return ret ?: each_probe(f, probe_blank) ?: check_blank(f, first, n);
}

/* ---- writing ---- */

static int supers_compare(struct formatter *f)
{
	int r, ret = 0;

	for (r = 0; !ret && r < DM_REMAP_REPLICAS; r++) {
		dm_remap_super_encode(f->buf, &f->sb, r);
		ret = fmt_compare(f, dm_remap_superblock_at(&f->sb.layout, r), 1);
	}
	return ret;
}

/* Superblock 1, then superblock 0, each durable before the next step. */
static int write_supers(struct formatter *f)
{
	int r, ret;

	for (r = DM_REMAP_REPLICAS - 1; r >= 0; r--) {
		dm_remap_super_encode(f->buf, &f->sb, r);
		ret = fmt_write(f, dm_remap_superblock_at(&f->sb.layout, r), 1,
				DM_REMAP_PREFLUSH | DM_REMAP_FUA);
		if (ret)
			return ret;
	}
	return supers_compare(f);
}

/*
 * Writes all probes, then more than the device can have in memory, then reads the probes. If a part
 * of the device is missing, or is another part once more, one of them is not there.
 */
static int probe(struct formatter *f)
{
	return each_probe(f, probe_write) ?: fill(f) ?: each_probe(f, probe_compare) ?:
	       supers_compare(f);
}

/*
 * Every slot holds a block from the start, of the lap before the first: what is no
 * valid journal block later on is damage, and not merely unused. Sequence k lies in
 * slot k; the first commit has the number of the ring's size.
 */
static int write_journal(struct formatter *f, int r)
{
	const struct dm_remap_layout *l = &f->sb.layout;
	struct dm_remap_disk_block *block = (struct dm_remap_disk_block *)f->buf;
	u64 at = dm_remap_journal_at(l, r, 0);
	u32 first, n, i;
	int ret;

	for (first = 0; first < l->journal_blocks; first += n) {
		n = min_t(u32, l->journal_blocks - first, DM_REMAP_BATCH_BLOCKS);
		memset(f->buf, 0, (size_t)n * DM_REMAP_BLOCK_SIZE);
		for (i = 0; i < n; i++) {
			dm_remap_header_fill(&block[i].header, DM_REMAP_JOURNAL, &f->sb, first + i,
					     0, 0);
			dm_remap_block_seal(&block[i], at + first + i);
		}
		ret = fmt_write(f, at + first, n, 0) ?: fmt_compare(f, at + first, n);
		if (ret)
			return ret;
	}
	return 0;
}

/* Nothing reads an empty table: zeroing shows that the place can be written. */
static int write_tables(struct formatter *f, int r)
{
	u64 at = dm_remap_table_at(&f->sb.layout, r, 0);
	u64 blocks = 2 * (u64)f->sb.layout.table_blocks;
	int ret;

	memset(f->buf, 0, DM_REMAP_BATCH_BLOCKS * DM_REMAP_BLOCK_SIZE);
	while (blocks) {
		u32 n = min_t(u64, blocks, DM_REMAP_BATCH_BLOCKS);

		ret = fmt_write(f, at, n, 0);
		if (ret)
			return ret;
		at += n;
		blocks -= n;
		cond_resched();
	}
	return 0;
}

static int write_all(struct formatter *f)
{
	int r, ret;

	f->sb.state = DM_REMAP_STATE_FORMATTING;
	ret = write_supers(f) ?: probe(f);
	for (r = 0; r < DM_REMAP_REPLICAS; r++) {
		ret = ret ?: write_journal(f, r);
		ret = ret ?: write_tables(f, r);
	}
	f->sb.state = DM_REMAP_STATE_CLEAN;
	f->sb.generation = 1;
	return ret ?: write_supers(f);
}

/* ---- entry points ---- */

static int fmt_begin(struct formatter *f, const struct dm_remap_format_params *p)
{
	struct dm_remap_super *sb = &f->sb, decoded;

	memset(f->report, 0, sizeof(*f->report));
	switch (dm_remap_layout_choose(&sb->layout, p->spare_sectors, p->granularity,
				       p->journal_blocks, p->max_records)) {
	case 0:
		break;
	case -ENOSPC:
		return refuse(f, -ENOSPC, "spare is too small for its metadata and a data sector");
	default:
		return refuse(f, -EINVAL, "no spare can be laid out with these numbers");
	}
	memcpy(sb->uuid, p->uuid, sizeof(sb->uuid));
	sb->main = p->main;
	sb->table_copies = DM_REMAP_ALL_REPLICAS;
	sb->journal_start = sb->layout.journal_blocks;
	sb->activation_sequence = sb->journal_start;
	sb->formatted_time = f->ops->now(f->ctx);
	sb->written_time = sb->formatted_time;
	f->buf = dm_remap_zalloc(DM_REMAP_BATCH_BLOCKS * DM_REMAP_BLOCK_SIZE);
	f->back = dm_remap_zalloc(DM_REMAP_BATCH_BLOCKS * DM_REMAP_BLOCK_SIZE);
	if (!f->buf || !f->back)
		return -ENOMEM;
	/* What load would not take is not written. */
	dm_remap_super_encode(f->buf, sb, 0);
	if (dm_remap_super_decode(&decoded, f->buf, 0) != DM_REMAP_VALID)
		return refuse(f, -EINVAL, "no spare can be laid out with these numbers");
	return 0;
}

int dm_remap_format_check(const struct dm_remap_ops *ops, void *ctx,
			  const struct dm_remap_format_params *params,
			  struct dm_remap_report *report)
{
	struct formatter f = { .ops = ops, .ctx = ctx, .report = report };
	int ret = fmt_begin(&f, params);

	if (!ret && params->blank_only)
		ret = check_all_blank(&f);
	dm_remap_free(f.buf);
	dm_remap_free(f.back);
	return ret;
}

int dm_remap_format(const struct dm_remap_ops *ops, void *ctx,
		    const struct dm_remap_format_params *params, struct dm_remap_report *report)
{
	struct formatter f = { .ops = ops, .ctx = ctx, .report = report };
	int ret = fmt_begin(&f, params);

	if (!ret && params->blank_only)
		ret = check_all_blank(&f);
	if (!ret) {
		ret = write_all(&f);
		if (ret && !report->refusal)
			refuse(&f, ret, "spare cannot be written where its metadata belongs");
	}
	dm_remap_free(f.buf);
	dm_remap_free(f.back);
	return ret;
}

// SPDX-License-Identifier: GPL-2.0-only
#include "dm-remap-codec.h"

const char *dm_remap_verdict_name(enum dm_remap_verdict verdict)
{
	static const char * const name[] = {
		[DM_REMAP_VALID] = "valid",
		[DM_REMAP_UNREADABLE] = "unreadable",
		[DM_REMAP_BLANK] = "blank",
		[DM_REMAP_FOREIGN] = "foreign",
		[DM_REMAP_DAMAGED] = "damaged",
		[DM_REMAP_MISPLACED] = "misplaced",
		[DM_REMAP_NEWER] = "newer",
	};

	return name[verdict];
}

const char *dm_remap_kind_name(u8 kind)
{
	switch (kind) {
	case DM_REMAP_MAPPED:
		return "mapped";
	case DM_REMAP_PENDING:
		return "pending";
	case DM_REMAP_RETIRED:
		return "retired";
	case DM_REMAP_CLEAR:
		return "clear";
	case DM_REMAP_COUNTER:
		return "counter";
	default:
		return "none";
	}
}

const char *dm_remap_reason_name(u8 reason)
{
	static const char * const name[] = {
		[0] = "none",
		[DM_REMAP_REASON_MANUAL] = "manual",
		[DM_REMAP_REASON_READ_ERROR] = "read_error",
		[DM_REMAP_REASON_WRITE_ERROR] = "write_error",
		[DM_REMAP_REASON_RESCUED] = "rescued",
		[DM_REMAP_REASON_PENDING_WRITE] = "pending_write",
	};

	return reason <= DM_REMAP_REASON_MAX ? name[reason] : "unknown";
}

const char *dm_remap_counter_name(unsigned int counter)
{
	static const char * const name[DM_REMAP_NR_COUNTERS] = {
		[DM_REMAP_READ_ERRORS] = "read_errors",
		[DM_REMAP_WRITE_ERRORS] = "write_errors",
		[DM_REMAP_RELOCATED] = "relocated",
		[DM_REMAP_RESCUED] = "rescued",
		[DM_REMAP_REFUSED] = "refused",
		[DM_REMAP_RECOVERED] = "recovered",
	};

	return counter < DM_REMAP_NR_COUNTERS ? name[counter] : "unknown";
}

/* ---- layout ---- */

static u64 metadata_blocks(u32 journal_blocks, u32 table_blocks)
{
	return DM_REMAP_REPLICAS * (1 + (u64)journal_blocks + 2 * (u64)table_blocks);
}

static u32 table_blocks_for(u64 max_records)
{
	return div_u64(max_records + DM_REMAP_ENTRIES_PER_BLOCK - 1, DM_REMAP_ENTRIES_PER_BLOCK) +
	       DM_REMAP_RESERVE_BLOCKS;
}

bool dm_remap_layout_valid(const struct dm_remap_layout *l)
{
	if (!l->granularity || l->granularity > DM_REMAP_BLOCK_SECTORS ||
	    (l->granularity & (l->granularity - 1)))
		return false;
	if (l->journal_blocks < DM_REMAP_MIN_JOURNAL_BLOCKS ||
	    l->journal_blocks > DM_REMAP_MAX_JOURNAL_BLOCKS)
		return false;
	if (l->table_blocks <= DM_REMAP_RESERVE_BLOCKS ||
	    l->table_blocks > table_blocks_for(DM_REMAP_MAX_RECORDS))
		return false;
	if (l->device_blocks > (U64_MAX >> 12))
		return false;
	return metadata_blocks(l->journal_blocks, l->table_blocks) < l->device_blocks;
}

int dm_remap_layout_choose(struct dm_remap_layout *l, u64 device_sectors, u32 granularity,
			   u32 journal_blocks, u64 max_records)
{
	u64 blocks = device_sectors / DM_REMAP_BLOCK_SECTORS;

	if (!max_records)
		max_records = clamp_t(u64, blocks, DM_REMAP_ENTRIES_PER_BLOCK,
				      DM_REMAP_MAX_RECORDS);
	if (max_records > DM_REMAP_MAX_RECORDS)
		return -EINVAL;

	l->device_blocks = blocks;
	l->granularity = granularity;
	l->table_blocks = table_blocks_for(max_records);
	/* A checkpoint rewrites the table: a ring that grows with it keeps its share small. */
	l->journal_blocks = journal_blocks ?: clamp_t(u32, l->table_blocks / 4, 32, 1024);
	if (metadata_blocks(l->journal_blocks, l->table_blocks) >= blocks)
		return -ENOSPC;
	return dm_remap_layout_valid(l) ? 0 : -EINVAL;
}

u64 dm_remap_superblock_at(const struct dm_remap_layout *l, int replica)
{
	return replica ? l->device_blocks - 1 : 0;
}

/* First block of @replica's journal, table A and table B, which follow one another. */
static u64 area_start(const struct dm_remap_layout *l, int replica)
{
	if (!replica)
		return 1;
	return l->device_blocks - 1 - l->journal_blocks - 2 * (u64)l->table_blocks;
}

u64 dm_remap_journal_at(const struct dm_remap_layout *l, int replica, u64 sequence)
{
	u32 slot;

	div_u64_rem(sequence, l->journal_blocks, &slot);
	return area_start(l, replica) + slot;
}

u64 dm_remap_table_at(const struct dm_remap_layout *l, int replica, int table)
{
	return area_start(l, replica) + l->journal_blocks + (table ? l->table_blocks : 0);
}

u64 dm_remap_data_start(const struct dm_remap_layout *l)
{
	return (dm_remap_table_at(l, 0, 1) + l->table_blocks) * DM_REMAP_BLOCK_SECTORS;
}

u64 dm_remap_data_end(const struct dm_remap_layout *l)
{
	return area_start(l, 1) * DM_REMAP_BLOCK_SECTORS;
}

u64 dm_remap_max_records(const struct dm_remap_layout *l)
{
	return (u64)(l->table_blocks - DM_REMAP_RESERVE_BLOCKS) * DM_REMAP_ENTRIES_PER_BLOCK;
}

u64 dm_remap_table_capacity(const struct dm_remap_layout *l)
{
	return (u64)l->table_blocks * DM_REMAP_ENTRIES_PER_BLOCK;
}

/* ---- checksums ---- */

#define CRC_OFFSET offsetof(struct dm_remap_disk_header, crc)
#define PLACE_OFFSET offsetof(struct dm_remap_disk_header, block)

u32 dm_remap_block_crc(const void *block, size_t size)
{
	static const u8 zero[sizeof(__le32)];
	const u8 *p = block;
	u32 crc = dm_remap_crc32(0, p, CRC_OFFSET);

	crc = dm_remap_crc32(crc, zero, sizeof(zero));
	return dm_remap_crc32(crc, p + CRC_OFFSET + sizeof(zero),
			      size - CRC_OFFSET - sizeof(zero));
}

u32 dm_remap_chain_value(const struct dm_remap_disk_block *block, u64 at)
{
	static const u8 zero[sizeof(__le32)];
	const u8 *p = (const u8 *)block;
	__le64 place = cpu_to_le64(at);
	u32 crc = dm_remap_crc32(0, p, CRC_OFFSET);

	crc = dm_remap_crc32(crc, zero, sizeof(zero));
	crc = dm_remap_crc32(crc, p + CRC_OFFSET + sizeof(zero),
			     PLACE_OFFSET - CRC_OFFSET - sizeof(zero));
	crc = dm_remap_crc32(crc, (const u8 *)&place, sizeof(place));
	return dm_remap_crc32(crc, p + PLACE_OFFSET + sizeof(place),
			      DM_REMAP_BLOCK_SIZE - PLACE_OFFSET - sizeof(place));
}

bool dm_remap_is_zero(const void *p, size_t size)
{
	const u8 *byte = p;

	return !byte[0] && !memcmp(byte, byte + 1, size - 1);
}

/* ---- superblock ---- */

static void main_id_encode(struct dm_remap_disk_superblock *d, const struct dm_remap_main_id *id)
{
	d->main_sectors = cpu_to_le64(id->sectors);
	d->main_start = cpu_to_le64(id->start);
	d->main_partition = cpu_to_le64(id->partition);
	d->main_id_type = id->id_type;
	memcpy(d->main_id, id->id, sizeof(d->main_id));
	memcpy(d->main_name, id->name, sizeof(d->main_name));
}

static void main_id_decode(struct dm_remap_main_id *id, const struct dm_remap_disk_superblock *d)
{
	id->sectors = le64_to_cpu(d->main_sectors);
	id->start = le64_to_cpu(d->main_start);
	id->partition = le64_to_cpu(d->main_partition);
	id->id_type = d->main_id_type;
	memcpy(id->id, d->main_id, sizeof(id->id));
	memcpy(id->name, d->main_name, sizeof(id->name));
	id->name[sizeof(id->name) - 1] = '\0';
}

void dm_remap_super_encode(void *block, const struct dm_remap_super *sb, int replica)
{
	struct dm_remap_disk_superblock *d = block;
	unsigned int i;

	memset(block, 0, DM_REMAP_BLOCK_SIZE);
	dm_remap_header_fill(&d->header, DM_REMAP_SUPERBLOCK, sb, sb->generation,
			     sb->journal_chain, 0);
	d->header.block = cpu_to_le64(dm_remap_superblock_at(&sb->layout, replica));

	d->compat = cpu_to_le32(sb->compat);
	d->compat_ro = cpu_to_le32(sb->compat_ro);
	d->incompat = cpu_to_le32(sb->incompat);
	d->state = cpu_to_le32(sb->state);
	d->journal_blocks = cpu_to_le32(sb->layout.journal_blocks);
	d->table_blocks = cpu_to_le32(sb->layout.table_blocks);
	d->granularity = cpu_to_le32(sb->layout.granularity);
	d->active_table = sb->active_table;
	d->table_copies = sb->table_copies;
	d->table_count = cpu_to_le32(sb->table_count);
	d->table_crc = cpu_to_le32(sb->table_crc);
	d->table_generation = cpu_to_le64(sb->table_generation);
	d->activation_sequence = cpu_to_le64(sb->activation_sequence);
	d->nonce = cpu_to_le64(sb->nonce);
	d->records = cpu_to_le64(sb->records);
	d->journal_start = cpu_to_le64(sb->journal_start);
	main_id_encode(d, &sb->main);
	d->formatted_time = cpu_to_le64(sb->formatted_time);
	d->written_time = cpu_to_le64(sb->written_time);
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		d->counter[i] = cpu_to_le64(sb->counter[i]);

	d->header.crc = cpu_to_le32(dm_remap_block_crc(d, sizeof(*d)));
}

/* Under a right CRC, is what the superblock says possible at all? */
static bool super_plausible(const struct dm_remap_super *sb)
{
	return dm_remap_layout_valid(&sb->layout) && sb->active_table <= 1 &&
	       sb->table_copies && sb->table_copies <= 3 &&
	       sb->records <= dm_remap_table_capacity(&sb->layout) &&
	       sb->table_count == div_u64(sb->records + DM_REMAP_ENTRIES_PER_BLOCK - 1,
					  DM_REMAP_ENTRIES_PER_BLOCK) &&
	       sb->journal_start >= sb->layout.journal_blocks &&
	       sb->journal_start <= DM_REMAP_MAX_NUMBER &&
	       sb->generation <= DM_REMAP_MAX_NUMBER && sb->activation <= DM_REMAP_MAX_NUMBER &&
	       sb->main.sectors <= (U64_MAX >> 10) && sb->main.start <= sb->main.sectors;
}

enum dm_remap_verdict dm_remap_super_decode(struct dm_remap_super *sb, const void *block, u64 at)
{
	const struct dm_remap_disk_superblock *d = block;
	const struct dm_remap_disk_header *h = &d->header;
	unsigned int i;

	if (dm_remap_is_zero(block, DM_REMAP_BLOCK_SIZE))
		return DM_REMAP_BLANK;
	if (le32_to_cpu(h->magic) != DM_REMAP_MAGIC)
		return DM_REMAP_FOREIGN;
	if (le32_to_cpu(h->crc) != dm_remap_block_crc(block, sizeof(*d)))
		return DM_REMAP_DAMAGED;
	if (h->version != DM_REMAP_VERSION)
		return DM_REMAP_NEWER;
	if (h->type != DM_REMAP_SUPERBLOCK || le64_to_cpu(h->block) != at)
		return DM_REMAP_MISPLACED;

	memset(sb, 0, sizeof(*sb));
	memcpy(sb->uuid, h->uuid, sizeof(sb->uuid));
	sb->generation = le64_to_cpu(h->sequence);
	sb->activation = le64_to_cpu(h->activation);
	sb->activation_sequence = le64_to_cpu(d->activation_sequence);
	sb->nonce = le64_to_cpu(d->nonce);
	sb->journal_chain = le32_to_cpu(h->chain);
	sb->layout.device_blocks = le64_to_cpu(h->device_blocks);
	sb->layout.journal_blocks = le32_to_cpu(d->journal_blocks);
	sb->layout.table_blocks = le32_to_cpu(d->table_blocks);
	sb->layout.granularity = le32_to_cpu(d->granularity);
	sb->compat = le32_to_cpu(d->compat);
	sb->compat_ro = le32_to_cpu(d->compat_ro);
	sb->incompat = le32_to_cpu(d->incompat);
	sb->state = le32_to_cpu(d->state);
	sb->active_table = d->active_table;
	sb->table_copies = d->table_copies;
	sb->table_count = le32_to_cpu(d->table_count);
	sb->table_crc = le32_to_cpu(d->table_crc);
	sb->table_generation = le64_to_cpu(d->table_generation);
	sb->records = le64_to_cpu(d->records);
	sb->journal_start = le64_to_cpu(d->journal_start);
	main_id_decode(&sb->main, d);
	sb->formatted_time = le64_to_cpu(d->formatted_time);
	sb->written_time = le64_to_cpu(d->written_time);
	for (i = 0; i < DM_REMAP_NR_COUNTERS; i++)
		sb->counter[i] = le64_to_cpu(d->counter[i]);

	/* Whoever understands the flag understands the fields; the caller refuses. */
	if (sb->incompat & ~DM_REMAP_INCOMPAT_KNOWN)
		return DM_REMAP_VALID;
	return super_plausible(sb) ? DM_REMAP_VALID : DM_REMAP_DAMAGED;
}

/* ---- entries ---- */

void dm_remap_entry_encode(struct dm_remap_disk_entry *d, const struct dm_remap_record *r)
{
	d->main = cpu_to_le64(r->main);
	d->spare = cpu_to_le64(r->spare);
	d->length = cpu_to_le32(r->length);
	d->kind = r->kind;
	d->reason = r->reason;
	d->flags = cpu_to_le16(r->flags & DM_REMAP_F_DURABLE);
	d->first_time = cpu_to_le32(r->first_time);
	d->last_time = cpu_to_le32(r->last_time);
}

void dm_remap_entry_decode(struct dm_remap_record *r, const struct dm_remap_disk_entry *d)
{
	r->main = le64_to_cpu(d->main);
	r->spare = le64_to_cpu(d->spare);
	r->length = le32_to_cpu(d->length);
	r->kind = d->kind;
	r->reason = d->reason;
	r->flags = le16_to_cpu(d->flags);
	r->first_time = le32_to_cpu(d->first_time);
	r->last_time = le32_to_cpu(d->last_time);
}

/* Does [start, start + length) lie within [lo, hi), on whole logical blocks? */
static bool range_fits(u64 start, u32 length, u64 lo, u64 hi, u32 granularity)
{
	return length && start >= lo && start < hi && length <= hi - start &&
	       !((start | length) & (granularity - 1));
}

const char *dm_remap_record_wrong(const struct dm_remap_record *r,
				  const struct dm_remap_layout *l, u64 main_sectors, bool journal)
{
	bool set = r->kind == DM_REMAP_MAPPED || r->kind == DM_REMAP_PENDING ||
		   r->kind == DM_REMAP_RETIRED;
	bool on_main = r->kind == DM_REMAP_MAPPED || r->kind == DM_REMAP_PENDING ||
		       r->kind == DM_REMAP_CLEAR;
	bool on_spare = r->kind == DM_REMAP_MAPPED || r->kind == DM_REMAP_RETIRED;

	if (!set && !(journal && (r->kind == DM_REMAP_CLEAR || r->kind == DM_REMAP_COUNTER)))
		return "unknown kind";
	if (r->flags & ~(r->kind == DM_REMAP_MAPPED ? DM_REMAP_F_UNREADABLE : 0))
		return "unknown flags";
	if (set ? !r->reason || r->reason > DM_REMAP_REASON_MAX : r->reason)
		return "unknown reason";
	if (on_main && !range_fits(r->main, r->length, 0, main_sectors, l->granularity))
		return "range outside the mapped device, or not on whole logical blocks";
	if (on_spare && !range_fits(r->spare, r->length, dm_remap_data_start(l),
				    dm_remap_data_end(l), l->granularity))
		return "range outside the spare's data sectors, or not on whole logical blocks";
	if ((!on_spare && r->spare) || (r->kind == DM_REMAP_RETIRED && r->main))
		return "a sector number where none belongs";
	return NULL;
}

/* ---- journal and table blocks ---- */

void dm_remap_header_fill(struct dm_remap_disk_header *h, enum dm_remap_block_type type,
			  const struct dm_remap_super *sb, u64 sequence, u32 chain, u16 count)
{
	h->magic = cpu_to_le32(DM_REMAP_MAGIC);
	h->crc = 0;
	memcpy(h->uuid, sb->uuid, sizeof(h->uuid));
	h->block = 0;
	h->sequence = cpu_to_le64(sequence);
	h->activation = cpu_to_le64(sb->activation);
	h->chain = cpu_to_le32(chain);
	h->count = cpu_to_le16(count);
	h->type = type;
	h->version = DM_REMAP_VERSION;
	h->device_blocks = cpu_to_le64(sb->layout.device_blocks);
}

void dm_remap_block_seal(struct dm_remap_disk_block *block, u64 at)
{
	block->header.block = cpu_to_le64(at);
	block->header.crc = cpu_to_le32(dm_remap_block_crc(block, sizeof(*block)));
}

enum dm_remap_verdict dm_remap_block_verdict(const struct dm_remap_disk_block *block,
					     enum dm_remap_block_type type,
					     const struct dm_remap_super *sb, u64 at)
{
	const struct dm_remap_disk_header *h = &block->header;

	if (dm_remap_is_zero(block, sizeof(*block)))
		return DM_REMAP_BLANK;
	if (le32_to_cpu(h->magic) != DM_REMAP_MAGIC)
		return DM_REMAP_FOREIGN;
	if (le32_to_cpu(h->crc) != dm_remap_block_crc(block, sizeof(*block)))
		return DM_REMAP_DAMAGED;
	if (h->version != DM_REMAP_VERSION)
		return DM_REMAP_NEWER;
	if (h->type != type || le64_to_cpu(h->block) != at ||
	    memcmp(h->uuid, sb->uuid, sizeof(h->uuid)))
		return DM_REMAP_MISPLACED;
	if (le16_to_cpu(h->count) > DM_REMAP_ENTRIES_PER_BLOCK ||
	    le64_to_cpu(h->device_blocks) != sb->layout.device_blocks)
		return DM_REMAP_DAMAGED;
	return DM_REMAP_VALID;
}

bool dm_remap_table_block_is(const struct dm_remap_disk_block *block,
			     const struct dm_remap_super *sb, u64 start, u32 index)
{
	return dm_remap_block_verdict(block, DM_REMAP_TABLE, sb, start + index) ==
		       DM_REMAP_VALID &&
	       le64_to_cpu(block->header.sequence) == sb->table_generation &&
	       le32_to_cpu(block->header.chain) == index;
}

u32 dm_remap_table_crc(u32 crc, const struct dm_remap_disk_block *block, u64 at)
{
	__le32 chain = cpu_to_le32(dm_remap_chain_value(block, at));

	return dm_remap_crc32(crc, (const u8 *)&chain, sizeof(chain));
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Between the disk format and the structures the core works with. Pure
 * functions: no I/O, no locks, any context.
 */
#ifndef DM_REMAP_CODEC_H
#define DM_REMAP_CODEC_H

#include "dm-remap-format.h"

/* A record, or an entry of the journal, in CPU byte order. Units as on disk. */
struct dm_remap_record {
	u64 main;
	u64 spare;
	u32 length;
	u8 kind;
	u8 reason;
	u16 flags;	/* DM_REMAP_F_*; on the disk DM_REMAP_F_DURABLE of them */
	u32 first_time;
	u32 last_time;
};

/* The low byte goes to the disk as it is; the rest is known in memory alone. */
#define DM_REMAP_F_DURABLE	0xff
/* MAPPED: the place on the spare could not be read. A write to it is read back. */
#define DM_REMAP_F_UNREADABLE	DM_REMAP_ENTRY_UNREADABLE
/* I/O to the range waits until the flag goes (dm-remap-relocate.h). */
#define DM_REMAP_F_HELD		0x100
/* A failed commit may yet be on the disk: I/O to the range fails. */
#define DM_REMAP_F_DOUBT	0x200

/* Where things are on a spare: all of it follows from these four numbers. */
struct dm_remap_layout {
	u64 device_blocks;	/* blocks of 4 KiB, as formatted */
	u32 journal_blocks;	/* one replica's ring */
	u32 table_blocks;	/* one table copy */
	u32 granularity;	/* sectors: 1 to 8, a power of two */
};

/* A main device as a spare knows it, so that another one can be refused. */
struct dm_remap_main_id {
	u64 sectors;		/* its size */
	u64 start;		/* where the mapped device begins on it, sectors */
	u64 partition;		/* where it begins on its disk, sectors */
	u8 id_type;		/* enum dm_remap_main_id_type */
	u8 id[DM_REMAP_MAIN_ID_SIZE];
	char name[DM_REMAP_MAIN_NAME_SIZE];	/* terminated; for people */
};

/* A superblock in CPU byte order. */
struct dm_remap_super {
	u8 uuid[DM_REMAP_UUID_SIZE];
	u64 generation;
	u64 activation;
	u64 activation_sequence;	/* the first that this activation writes */
	u64 nonce;			/* of whoever activated it; 0: by an older module */
	struct dm_remap_layout layout;
	u32 compat;
	u32 compat_ro;
	u32 incompat;
	u32 state;		/* enum dm_remap_disk_state */
	u8 active_table;
	u8 table_copies;
	u32 table_count;
	u32 table_crc;
	u64 table_generation;	/* the generation that wrote the active table */
	u64 records;
	u64 journal_start;
	u32 journal_chain;	/* chain value of the last commit in the table */
	struct dm_remap_main_id main;
	u64 formatted_time;
	u64 written_time;
	u64 counter[DM_REMAP_NR_COUNTERS];
};

/* What a block that was read turned out to be. */
enum dm_remap_verdict {
	DM_REMAP_VALID,
	DM_REMAP_UNREADABLE,	/* the device returned an error */
	DM_REMAP_BLANK,		/* all zero */
	DM_REMAP_FOREIGN,	/* no dm-remap block */
	DM_REMAP_DAMAGED,	/* the CRC is wrong, or a field is nonsense under a right one */
	DM_REMAP_MISPLACED,	/* of another spare or another place */
	DM_REMAP_NEWER,		/* a version this code does not know */
};

const char *dm_remap_verdict_name(enum dm_remap_verdict verdict);
const char *dm_remap_kind_name(u8 kind);
const char *dm_remap_reason_name(u8 reason);
const char *dm_remap_counter_name(unsigned int counter);

/*
 * Lays out a spare of @device_sectors. @journal_blocks and @max_records may be 0:
 * then they are chosen for the size, one record for each 4 KiB of spare.
 * Returns 0, -ENOSPC (too small) or -EINVAL (a number out of range).
 */
int dm_remap_layout_choose(struct dm_remap_layout *l, u64 device_sectors, u32 granularity,
			   u32 journal_blocks, u64 max_records);
bool dm_remap_layout_valid(const struct dm_remap_layout *l);

/* Block numbers. @table is 0 for A, 1 for B. */
u64 dm_remap_superblock_at(const struct dm_remap_layout *l, int replica);
u64 dm_remap_journal_at(const struct dm_remap_layout *l, int replica, u64 sequence);
u64 dm_remap_table_at(const struct dm_remap_layout *l, int replica, int table);
/* The data sectors of the spare are [start, end). */
u64 dm_remap_data_start(const struct dm_remap_layout *l);
u64 dm_remap_data_end(const struct dm_remap_layout *l);
/* How many records may be set; and how many the table holds after CLEAR has split some. */
u64 dm_remap_max_records(const struct dm_remap_layout *l);
u64 dm_remap_table_capacity(const struct dm_remap_layout *l);

/* CRC of a block's first @size bytes, its crc field taken as zero. */
u32 dm_remap_block_crc(const void *block, size_t size);

/*
 * What ties a block to its successor: the CRC of its copy in replica 0. @block
 * may be the copy of either replica, at @at in replica 0.
 */
u32 dm_remap_chain_value(const struct dm_remap_disk_block *block, u64 at);

/* @block: 4 KiB, all of it filled. */
void dm_remap_super_encode(void *block, const struct dm_remap_super *sb, int replica);
/* @at: the block number it was read from. */
enum dm_remap_verdict dm_remap_super_decode(struct dm_remap_super *sb, const void *block, u64 at);

void dm_remap_entry_encode(struct dm_remap_disk_entry *disk, const struct dm_remap_record *r);
void dm_remap_entry_decode(struct dm_remap_record *r, const struct dm_remap_disk_entry *disk);

/*
 * Is @r a record that a spare laid out as @l may hold for a mapped device of
 * @main_sectors? @journal admits CLEAR and COUNTER too. Returns NULL, or what is
 * wrong with it. dm_remap_flags_announced() looks at the superblock.
 */
const char *dm_remap_record_wrong(const struct dm_remap_record *r,
				  const struct dm_remap_layout *l, u64 main_sectors,
				  bool journal);

/* Does the superblock announce the flags of @r, so that an older module refuses the spare? */
static inline bool dm_remap_flags_announced(const struct dm_remap_super *sb,
					    const struct dm_remap_record *r)
{
	return !(r->flags & DM_REMAP_F_UNREADABLE) || sb->incompat & DM_REMAP_INCOMPAT_UNREADABLE;
}

/* Fills in everything of @block's header but the CRC. */
void dm_remap_header_fill(struct dm_remap_disk_header *h, enum dm_remap_block_type type,
			  const struct dm_remap_super *sb, u64 sequence, u32 chain, u16 count);
/* Gives @block its place, and then its CRC. */
void dm_remap_block_seal(struct dm_remap_disk_block *block, u64 at);
/* Is @block the journal or table block of the spare @sb that belongs at @at? */
enum dm_remap_verdict dm_remap_block_verdict(const struct dm_remap_disk_block *block,
					     enum dm_remap_block_type type,
					     const struct dm_remap_super *sb, u64 at);

/* Is @block number @index of the table that @sb names, in the copy that begins at @start? */
bool dm_remap_table_block_is(const struct dm_remap_disk_block *block,
			     const struct dm_remap_super *sb, u64 start, u32 index);
/* The table's CRC so far, @crc, with one more block, which lies at @at in replica 0. */
u32 dm_remap_table_crc(u32 crc, const struct dm_remap_disk_block *block, u64 at);

/* @size: at least 1. */
bool dm_remap_is_zero(const void *p, size_t size);

#endif /* DM_REMAP_CODEC_H */

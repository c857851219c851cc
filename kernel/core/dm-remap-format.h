/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * On-disk format, version 1. docs/on-disk-format.md explains it field by field.
 *
 * Everything on the spare that is not user data is a 4 KiB block, little-endian,
 * that says what it is, whose it is, and where it belongs, under one CRC32:
 *
 *   head: [superblock 0][journal 0][table A 0][table B 0] data sectors ...
 *   tail: ... [journal 1][table A 1][table B 1][superblock 1]
 *
 * Units: "block" is 4 KiB, "sector" is 512 bytes. Block numbers count from the
 * start of the spare.
 */
#ifndef DM_REMAP_FORMAT_H
#define DM_REMAP_FORMAT_H

#include "dm-remap-port.h"

#define DM_REMAP_VERSION		1
#define DM_REMAP_SECTOR_SIZE		512
#define DM_REMAP_BLOCK_SIZE		4096
#define DM_REMAP_BLOCK_SECTORS		(DM_REMAP_BLOCK_SIZE / DM_REMAP_SECTOR_SIZE)
#define DM_REMAP_REPLICAS		2
#define DM_REMAP_ALL_REPLICAS		3	/* a bit for each */
#define DM_REMAP_UUID_SIZE		16
#define DM_REMAP_ENTRIES_PER_BLOCK	126
#define DM_REMAP_MAX_RECORDS		(8u << 20)	/* the format's own ceiling */
/* Of the mapped device: 32 PiB. Keeps the table's directory within 128 MiB. */
#define DM_REMAP_MAX_SECTORS		BIT_ULL(46)
/* Of generations, activations and sequences: no life is that long. None is written beyond. */
#define DM_REMAP_MAX_NUMBER		(U64_MAX >> 1)
/* Room beyond what may be set, so that CLEAR entries, which can split records, go on. */
#define DM_REMAP_RESERVE_BLOCKS		4
#define DM_REMAP_MIN_JOURNAL_BLOCKS	16
#define DM_REMAP_MAX_JOURNAL_BLOCKS	4096

/* "dmRM", as the bytes read on the disk. */
#define DM_REMAP_MAGIC			0x4d526d64u

/* dm_remap_disk_header.type */
enum dm_remap_block_type {
	DM_REMAP_SUPERBLOCK	= 1,
	DM_REMAP_JOURNAL	= 2,
	DM_REMAP_TABLE		= 3,
};

/*
 * Head of every block. The CRC is CRC-32 (IEEE 802.3, as zlib's crc32()) over
 * the block with the crc field taken as zero: over 4,096 bytes, but over the
 * first 512 for a superblock, which disks write whole.
 */
struct dm_remap_disk_header {
	__le32 magic;			/*  0: DM_REMAP_MAGIC */
	__le32 crc;			/*  4 */
	u8 uuid[DM_REMAP_UUID_SIZE];	/*  8: of the spare, new with each format */
	__le64 block;			/* 24: where this block belongs */
	__le64 sequence;		/* 32: journal: sequence; else: generation */
	__le64 activation;		/* 40: which activation wrote it */
	__le32 chain;			/* 48: chain value of the predecessor */
	__le16 count;			/* 52: entries used, 0 to 126 */
	u8 type;			/* 54: enum dm_remap_block_type */
	u8 version;			/* 55: DM_REMAP_VERSION */
	__le64 device_blocks;		/* 56: size of the spare when formatted */
} __packed;				/* 64 bytes */

/* dm_remap_disk_entry.kind: records, in the table and as SET in the journal. */
enum dm_remap_kind {
	DM_REMAP_NONE		= 0,	/* never on disk: no record */
	DM_REMAP_MAPPED		= 1,	/* main range lives on the spare */
	DM_REMAP_PENDING	= 2,	/* main range is unreadable, not moved */
	DM_REMAP_RETIRED	= 3,	/* spare range is bad, not to be used */
	/* In the journal alone. */
	DM_REMAP_CLEAR		= 16,	/* main range has no record any more */
	DM_REMAP_COUNTER	= 17,	/* one counter's value */
};

/* dm_remap_disk_entry.reason: why a record was made. */
enum dm_remap_reason {
	DM_REMAP_REASON_MANUAL		= 1,	/* message `remap` */
	DM_REMAP_REASON_READ_ERROR	= 2,
	DM_REMAP_REASON_WRITE_ERROR	= 3,
	DM_REMAP_REASON_RESCUED		= 4,	/* read came back on retry */
	DM_REMAP_REASON_PENDING_WRITE	= 5,	/* write to a pending range */
	DM_REMAP_REASON_MAX		= DM_REMAP_REASON_PENDING_WRITE,
};

/* dm_remap_disk_entry.flags, only while dm_remap_disk_superblock.incompat announces it. */
#define DM_REMAP_ENTRY_UNREADABLE	0x1	/* MAPPED: the spare could not read the range */

/* dm_remap_disk_superblock.incompat */
#define DM_REMAP_INCOMPAT_UNREADABLE	0x1	/* entries may have DM_REMAP_ENTRY_UNREADABLE */
#define DM_REMAP_INCOMPAT_KNOWN		DM_REMAP_INCOMPAT_UNREADABLE

/*
 * A record or a journal entry. Sectors of `main` count from the start of the
 * mapped device, those of `spare` from the start of the spare device. All are
 * multiples of the granularity.
 *
 *		main		spare		length
 * MAPPED	first sector	first sector	sectors
 * PENDING	first sector	0		sectors
 * RETIRED	0		first sector	sectors
 * CLEAR	first sector	0		sectors
 * COUNTER	value		0		enum dm_remap_counter
 */
struct dm_remap_disk_entry {
	__le64 main;			/*  0 */
	__le64 spare;			/*  8 */
	__le32 length;			/* 16 */
	u8 kind;			/* 20: enum dm_remap_kind */
	u8 reason;			/* 21: enum dm_remap_reason; 0 for CLEAR, COUNTER */
	__le16 flags;			/* 22: DM_REMAP_ENTRY_*; all others 0 */
	__le32 first_time;		/* 24: seconds since 1970 UTC, unsigned */
	__le32 last_time;		/* 28 */
} __packed;				/* 32 bytes */

/* A journal block or a table block. Unused entries are zero. */
struct dm_remap_disk_block {
	struct dm_remap_disk_header header;				/*    0 */
	struct dm_remap_disk_entry entry[DM_REMAP_ENTRIES_PER_BLOCK];	/*   64 */
} __packed;								/* 4096 bytes */

/* Counters that survive a restart; their place on disk. Only ever added to. */
enum dm_remap_counter {
	DM_REMAP_READ_ERRORS,		/* reads of main or spare that failed */
	DM_REMAP_WRITE_ERRORS,		/* writes that failed */
	DM_REMAP_RELOCATED,		/* ranges moved after a write */
	DM_REMAP_RESCUED,		/* ranges moved after a read came back */
	DM_REMAP_REFUSED,		/* relocations asked for and not done */
	DM_REMAP_RECOVERED,		/* ranges that were pending, and main read them again */
	DM_REMAP_NR_COUNTERS,
	DM_REMAP_MAX_COUNTERS = 12,	/* room in the superblock */
};

/* dm_remap_disk_superblock.state: a hint for people, nothing is decided by it. */
enum dm_remap_disk_state {
	DM_REMAP_STATE_FORMATTING	= 1,
	DM_REMAP_STATE_CLEAN		= 2,
	DM_REMAP_STATE_DIRTY		= 3,
	DM_REMAP_STATE_ERROR		= 4,
};

/* dm_remap_disk_superblock.main_id_type; 1 to 3, of a disk, as enum blk_unique_id */
enum dm_remap_main_id_type {
	DM_REMAP_MAIN_ID_NONE		= 0,	/* none known */
	DM_REMAP_MAIN_ID_T10		= 1,
	DM_REMAP_MAIN_ID_EUI64		= 2,
	DM_REMAP_MAIN_ID_NAA		= 3,
	/* With one of these three: of the disk below a main that device-mapper made. */
	DM_REMAP_MAIN_ID_BELOW		= 0x40,
	DM_REMAP_MAIN_ID_DM_UUID	= 0x80,	/* hash of a DM UUID, see on-disk-format.md */
};

#define DM_REMAP_MAIN_ID_SIZE		16
#define DM_REMAP_MAIN_NAME_SIZE		64

/* First 512 bytes of a superblock's block; the rest is zero and not looked at. */
struct dm_remap_disk_superblock {
	struct dm_remap_disk_header header;	/*   0: chain: of the last commit in the table */
	__le32 compat;				/*  64: unknown bits: go on */
	__le32 compat_ro;			/*  68: unknown bits: write nothing */
	__le32 incompat;			/*  72: unknown bits: refuse; DM_REMAP_INCOMPAT_* */
	__le32 state;				/*  76: enum dm_remap_disk_state */

	__le32 journal_blocks;			/*  80: ring size of one replica */
	__le32 table_blocks;			/*  84: room of one table copy */
	__le32 granularity;			/*  88: sectors: logical block of main */
	u8 active_table;			/*  92: 0 is A, 1 is B */
	u8 table_copies;			/*  93: bit r: replica r holds it */
	u8 pad0[2];				/*  94: 0 */

	__le32 table_count;			/*  96: blocks in the active table */
	__le32 table_crc;			/* 100: over the chain values of its blocks */
	__le64 records;				/* 104: records in the active table */
	__le64 journal_start;			/* 112: first sequence not in the table */

	__le64 main_sectors;			/* 120: size of main */
	__le64 main_start;			/* 128: sector 0 of the mapped device on main */
	__le64 main_partition;			/* 136: start of main on its disk, sectors */
	u8 main_id_type;			/* 144 */
	u8 pad1[7];				/* 145: 0 */
	u8 main_id[DM_REMAP_MAIN_ID_SIZE];	/* 152: zero padded */
	char main_name[DM_REMAP_MAIN_NAME_SIZE]; /* 168: WWN, serial, tail of DM UUID: for people */

	__le64 formatted_time;			/* 232: seconds since 1970 UTC */
	__le64 written_time;			/* 240 */
	__le64 counter[DM_REMAP_MAX_COUNTERS];	/* 248 */
	__le64 table_generation;		/* 344: sequence of the active table's blocks */
	__le64 activation_sequence;		/* 352: first sequence of header.activation */
	__le64 nonce;				/* 360: of header.activation; 0: none */
	u8 pad2[144];				/* 368: 0 */
} __packed;					/* 512 bytes */

static_assert(sizeof(struct dm_remap_disk_header) == 64, "header");
static_assert(sizeof(struct dm_remap_disk_entry) == 32, "entry");
static_assert(sizeof(struct dm_remap_disk_block) == DM_REMAP_BLOCK_SIZE, "block");
static_assert(sizeof(struct dm_remap_disk_superblock) == DM_REMAP_SECTOR_SIZE, "superblock");
static_assert(offsetof(struct dm_remap_disk_superblock, main_id) == 152, "main_id");
static_assert(offsetof(struct dm_remap_disk_superblock, counter) == 248, "counter");
static_assert(offsetof(struct dm_remap_disk_superblock, pad2) == 368, "pad2");

#endif /* DM_REMAP_FORMAT_H */

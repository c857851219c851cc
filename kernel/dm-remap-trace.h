/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints for what we decide; the I/O itself is the block layer's to trace.
 * Sectors are those of the mapped device, unless a field says spare.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dm_remap

#if !defined(DM_REMAP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DM_REMAP_TRACE_H

#include <linux/blk_types.h>
#include <linux/tracepoint.h>

/* A request came back with an error that may come from bad media. */
TRACE_EVENT(dm_remap_error,
	TP_PROTO(dev_t dev, u64 sector, u32 sectors, bool write, int error),
	TP_ARGS(dev, sector, sectors, write, error),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, sector)
		__field(u32, sectors)
		__field(bool, write)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->write = write;
		__entry->error = error;
	),
	TP_printk("%d:%d %s %llu + %u error %d", MAJOR(__entry->dev), MINOR(__entry->dev),
		  __entry->write ? "write" : "read", __entry->sector, __entry->sectors,
		  __entry->error)
);

/* Blocks that failed again while main did something else. */
TRACE_EVENT(dm_remap_bad,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors, bool write),
	TP_ARGS(dev, sector, sectors, write),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, sector)
		__field(u64, sectors)
		__field(bool, write)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->write = write;
	),
	TP_printk("%d:%d %s %llu + %llu", MAJOR(__entry->dev), MINOR(__entry->dev),
		  __entry->write ? "write" : "read", __entry->sector, __entry->sectors)
);

DECLARE_EVENT_CLASS(dm_remap_moved,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors, u64 spare),
	TP_ARGS(dev, sector, sectors, spare),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, sector)
		__field(u64, sectors)
		__field(u64, spare)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->spare = spare;
	),
	TP_printk("%d:%d %llu + %llu spare %llu", MAJOR(__entry->dev), MINOR(__entry->dev),
		  __entry->sector, __entry->sectors, __entry->spare)
);

/* To the spare, and its record committed: after a write, or by hand. */
DEFINE_EVENT(dm_remap_moved, dm_remap_relocated,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors, u64 spare),
	TP_ARGS(dev, sector, sectors, spare)
);

/* To the spare after a read that came back on a further try. */
DEFINE_EVENT(dm_remap_moved, dm_remap_rescued,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors, u64 spare),
	TP_ARGS(dev, sector, sectors, spare)
);

/* Main holds the data again, from the spare (0: from a write). */
DEFINE_EVENT(dm_remap_moved, dm_remap_cleared,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors, u64 spare),
	TP_ARGS(dev, sector, sectors, spare)
);

/* The place on the spare could not be read: what is written there is read back. */
DEFINE_EVENT(dm_remap_moved, dm_remap_unreadable,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors, u64 spare),
	TP_ARGS(dev, sector, sectors, spare)
);

DECLARE_EVENT_CLASS(dm_remap_range,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors),
	TP_ARGS(dev, sector, sectors),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, sector)
		__field(u64, sectors)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
	),
	TP_printk("%d:%d %llu + %llu", MAJOR(__entry->dev), MINOR(__entry->dev),
		  __entry->sector, __entry->sectors)
);

/* Unreadable, or, with no_auto_remap, not writable: recorded, not moved. */
DEFINE_EVENT(dm_remap_range, dm_remap_pending,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors),
	TP_ARGS(dev, sector, sectors)
);

/* Sectors of the spare, not to be used any more. */
DEFINE_EVENT(dm_remap_range, dm_remap_retired,
	TP_PROTO(dev_t dev, u64 sector, u64 sectors),
	TP_ARGS(dev, sector, sectors)
);

TRACE_EVENT(dm_remap_mode,
	TP_PROTO(dev_t dev, const char *mode),
	TP_ARGS(dev, mode),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(char, mode, 16)
	),
	TP_fast_assign(
		__entry->dev = dev;
		strscpy(__entry->mode, mode, sizeof(__entry->mode));
	),
	TP_printk("%d:%d %s", MAJOR(__entry->dev), MINOR(__entry->dev), __entry->mode)
);

TRACE_EVENT(dm_remap_breaker,
	TP_PROTO(dev_t dev, bool open),
	TP_ARGS(dev, open),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(bool, open)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->open = open;
	),
	TP_printk("%d:%d %s", MAJOR(__entry->dev), MINOR(__entry->dev),
		  __entry->open ? "open" : "closed")
);

#endif /* DM_REMAP_TRACE_H */

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE dm-remap-trace
#include <trace/define_trace.h>

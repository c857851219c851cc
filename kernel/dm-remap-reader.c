// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads of a spare that a fatal signal ends. While a table is loaded its spare may never answer. It
 * may lie on a device that is suspended, or behind paths that are all down.
 *
 * So the reader owns what a read needs: the pages, the bio, and the block device, which is opened
 * once more. Nobody else need be there any more when the read ends.
 */
#include "dm-remap.h"

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/highmem.h>
#include <linux/module.h>

/* Of one read. */
#define PAGES 64u

/* Submits; and closes when a read ends that nobody waits for. Either may block. */
static struct workqueue_struct *queue;

/* Of a read. The later one of the last two has the reader from then on. */
enum { UNDERWAY, ENDED, LEFT };

struct dm_remap_reader {
	void *opened;			/* dm_remap_open_bdev() */
	atomic_t state;
	struct bio bio;
	struct bio_vec vec[PAGES];
	struct page *page[PAGES];
	struct completion done;
	struct work_struct submit;
	struct work_struct close;
};

/* ---- coming and going ---- */

static void reader_free(struct dm_remap_reader *r)
{
	unsigned int i;

	for (i = 0; i < PAGES && r->page[i]; i++)
		__free_page(r->page[i]);
	kfree(r);
}

static void reader_close(struct dm_remap_reader *r)
{
	dm_remap_close_bdev(r->opened);
	reader_free(r);
	/* dm_remap_reader_exit() waits for the end of this function yet. */
	module_put(THIS_MODULE);
}

static void do_close(struct work_struct *work)
{
	struct dm_remap_reader *r = container_of(work, struct dm_remap_reader, close);

	bio_uninit(&r->bio);
	reader_close(r);
}

static void do_submit(struct work_struct *work)
{
	submit_bio(&container_of(work, struct dm_remap_reader, submit)->bio);
}

static struct dm_remap_reader *reader_alloc(void)
{
	struct dm_remap_reader *r = kzalloc(sizeof(*r), GFP_KERNEL);
	unsigned int i;

	if (!r)
		return NULL;
	for (i = 0; i < PAGES; i++) {
		r->page[i] = alloc_page(GFP_KERNEL);
		if (!r->page[i]) {
			reader_free(r);
			return NULL;
		}
	}
	init_completion(&r->done);
	INIT_WORK(&r->submit, do_submit);
	INIT_WORK(&r->close, do_close);
	return r;
}

struct dm_remap_reader *dm_remap_reader_open(struct block_device *bdev)
{
	struct dm_remap_reader *r = reader_alloc();
	void *opened;

	if (!r)
		return ERR_PTR(-ENOMEM);
	opened = dm_remap_open_bdev(bdev->bd_dev);
	if (IS_ERR(opened)) {
		reader_free(r);
		return opened;
	}
	r->opened = opened;
	__module_get(THIS_MODULE);
	return r;
}

void dm_remap_reader_close(struct dm_remap_reader *r)
{
	if (!IS_ERR(r))
		reader_close(r);
}

/* ---- one read ---- */

/* Context: any. */
static void read_ended(struct bio *bio)
{
	struct dm_remap_reader *r = bio->bi_private;

	if (atomic_xchg(&r->state, ENDED) == LEFT)
		queue_work(queue, &r->close);
	else
		complete(&r->done);
}

static void prepare_bio(struct dm_remap_reader *r, u64 sector, unsigned int size)
{
	unsigned int i;

	bio_init(&r->bio, dm_remap_opened_bdev(r->opened), r->vec, PAGES, REQ_OP_READ | REQ_SYNC);
	r->bio.bi_iter.bi_sector = sector;
	r->bio.bi_end_io = read_ended;
	r->bio.bi_private = r;
	for (i = 0; size; i++) {
		unsigned int n = min_t(unsigned int, size, PAGE_SIZE);

		__bio_add_page(&r->bio, r->page[i], n, 0);
		size -= n;
	}
}

static void copy_out(const struct dm_remap_reader *r, void *to, unsigned int size)
{
	unsigned int i;

	for (i = 0; size; i++) {
		unsigned int n = min_t(unsigned int, size, PAGE_SIZE);

		memcpy_from_page(to, r->page[i], 0, n);
		to += n;
		size -= n;
	}
}

/* False: a signal came first, and the reader is not ours any more. */
static bool wait_for_end(struct dm_remap_reader *r)
{
	if (!wait_for_completion_killable(&r->done))
		return true;
	if (atomic_xchg(&r->state, LEFT) != ENDED)
		return false;
	wait_for_completion(&r->done);
	return true;
}

static int read_once(struct dm_remap_reader *r, u64 sector, unsigned int size, void *buf)
{
	int ret;

	prepare_bio(r, sector, size);
	atomic_set(&r->state, UNDERWAY);
	reinit_completion(&r->done);
	queue_work(queue, &r->submit);
	if (!wait_for_end(r))
		return -EINTR;
	ret = dm_remap_errno_of(r->bio.bi_status);
	bio_uninit(&r->bio);
	if (!ret)
		copy_out(r, buf, size);
	return ret;
}

int dm_remap_reader_read(struct dm_remap_reader **r, u64 sector, u32 sectors, void *buf)
{
	int ret = PTR_ERR_OR_ZERO(*r);
	u32 n;

	for (; !ret && sectors; sectors -= n) {
		n = min_t(u32, sectors, PAGES << (PAGE_SHIFT - SECTOR_SHIFT));
		ret = read_once(*r, sector, n << SECTOR_SHIFT, buf);
		sector += n;
		buf += n << SECTOR_SHIFT;
	}
	/* errno of a bio is never this one. */
	if (ret == -EINTR)
		*r = ERR_PTR(-EINTR);
	return ret;
}

/* ---- module ---- */

int dm_remap_reader_init(void)
{
	queue = alloc_workqueue("dm-remap-reader", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return queue ? 0 : -ENOMEM;
}

void dm_remap_reader_exit(void)
{
	destroy_workqueue(queue);
}

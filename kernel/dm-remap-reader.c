// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads of a spare that a fatal signal ends. While a table is loaded its spare may never answer. It
 * may lie on a device that is suspended, or behind paths that are all down.
 *
 * So a read owns what it needs: the pages, the bio, and the block device, which is opened once
 * more. Nobody else need be there any more when it ends.
 */
#include "dm-remap.h"

#include <linux/completion.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/refcount.h>

/* Pages of one bio. */
#define MOST_PAGES 64u

/* Submits, and closes what is read yet when the loader has gone. Each may block. */
static struct workqueue_struct *queue;

struct dm_remap_reader {
	refcount_t users;		/* who loads, and each read */
	void *opened;			/* dm_remap_open_bdev() */
	struct work_struct close;
};

struct reading {
	refcount_t users;		/* who waits, and the device */
	struct dm_remap_reader *reader;
	struct work_struct submit;
	struct completion done;
	struct bio *bio;
};

/* ---- the device ---- */

static void close_reader(struct dm_remap_reader *r)
{
	dm_remap_close_bdev(r->opened);
	kfree(r);
	/* dm_remap_reader_exit() waits for the end of this function yet. */
	module_put(THIS_MODULE);
}

static void do_close(struct work_struct *work)
{
	close_reader(container_of(work, struct dm_remap_reader, close));
}

struct dm_remap_reader *dm_remap_reader_open(struct block_device *bdev)
{
	struct dm_remap_reader *r = kzalloc(sizeof(*r), GFP_KERNEL);
	void *opened;

	if (!r)
		return ERR_PTR(-ENOMEM);
	opened = dm_remap_open_bdev(bdev->bd_dev);
	if (IS_ERR(opened)) {
		kfree(r);
		return opened;
	}
	r->opened = opened;
	refcount_set(&r->users, 1);
	INIT_WORK(&r->close, do_close);
	__module_get(THIS_MODULE);
	return r;
}

void dm_remap_reader_put(struct dm_remap_reader *r)
{
	if (refcount_dec_and_test(&r->users))
		close_reader(r);
}

/* ---- one read ---- */

/* Context: any. */
static void reading_put(struct reading *x)
{
	struct dm_remap_reader *r = x->reader;

	if (!refcount_dec_and_test(&x->users))
		return;
	bio_free_pages(x->bio);
	bio_put(x->bio);
	kfree(x);
	if (refcount_dec_and_test(&r->users))
		queue_work(queue, &r->close);
}

static void reading_ended(struct bio *bio)
{
	struct reading *x = bio->bi_private;

	complete(&x->done);
	reading_put(x);
}

static void do_submit(struct work_struct *work)
{
	submit_bio(container_of(work, struct reading, submit)->bio);
}

static int add_pages(struct bio *bio, unsigned int size)
{
	while (bio->bi_iter.bi_size < size) {
		unsigned int n = min_t(unsigned int, size - bio->bi_iter.bi_size, PAGE_SIZE);
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page)
			return -ENOMEM;
		__bio_add_page(bio, page, n, 0);
	}
	return 0;
}

/* It is the caller's. NULL: no memory. */
static struct reading *reading_alloc(struct dm_remap_reader *r, u64 sector, unsigned int size)
{
	struct reading *x = kzalloc(sizeof(*x), GFP_KERNEL);

	if (!x)
		return NULL;
	x->bio = bio_alloc(dm_remap_opened_bdev(r->opened), MOST_PAGES, REQ_OP_READ | REQ_SYNC,
			   GFP_KERNEL);
	x->bio->bi_iter.bi_sector = sector;
	x->bio->bi_end_io = reading_ended;
	x->bio->bi_private = x;
	x->reader = r;
	refcount_inc(&r->users);
	refcount_set(&x->users, 1);
	init_completion(&x->done);
	INIT_WORK(&x->submit, do_submit);
	if (!add_pages(x->bio, size))
		return x;
	reading_put(x);
	return NULL;
}

static void copy_out(struct bio *bio, void *to)
{
	struct bvec_iter_all iter;
	struct bio_vec *bv;

	bio_for_each_segment_all(bv, bio, iter) {
		memcpy_from_bvec(to, bv);
		to += bv->bv_len;
	}
}

static int read_once(struct dm_remap_reader *r, u64 sector, unsigned int size, void *buf)
{
	struct reading *x = reading_alloc(r, sector, size);
	int ret;

	if (!x)
		return -ENOMEM;
	refcount_inc(&x->users);
	queue_work(queue, &x->submit);
	ret = wait_for_completion_killable(&x->done) ? -EINTR :
						       dm_remap_errno_of(x->bio->bi_status);
	if (!ret)
		copy_out(x->bio, buf);
	reading_put(x);
	return ret;
}

int dm_remap_reader_read(struct dm_remap_reader *r, u64 sector, u32 sectors, void *buf)
{
	u32 n;
	int ret = 0;

	for (; !ret && sectors; sectors -= n) {
		n = min_t(u32, sectors, MOST_PAGES << (PAGE_SHIFT - SECTOR_SHIFT));
		ret = read_once(r, sector, n << SECTOR_SHIFT, buf);
		sector += n;
		buf += n << SECTOR_SHIFT;
	}
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

// SPDX-License-Identifier: GPL-2.0-only
/*
 * When a job comes it counts those before it that overlap. Each of them takes itself off that count
 * when it is done. A job without any has its turn.
 */
#include "dm-remap-schedule.h"

void dm_remap_schedule_init(struct dm_remap_schedule *s, void (*kick)(void *ctx), void *ctx)
{
	unsigned int kind;

	memset(s, 0, sizeof(*s));
	spin_lock_init(&s->lock);
	for (kind = 0; kind < DM_REMAP_JOB_KINDS; kind++)
		s->ready[kind].last = &s->ready[kind].first;
	s->kick = kick;
	s->ctx = ctx;
}

static void kick(struct dm_remap_schedule *s)
{
	if (s->kick)
		s->kick(s->ctx);
}

static bool overlap(const struct dm_remap_job *a, const struct dm_remap_job *b)
{
	return a->start < b->end && b->start < a->end;
}

/* ---- coming and going ---- */

static void append(struct dm_remap_schedule *s, struct dm_remap_job *job)
{
	const struct dm_remap_job *other;

	lockdep_assert_held(&s->lock);
	job->before = 0;
	for (other = s->first; other; other = other->next)
		job->before += overlap(other, job);
	job->prev = s->last;
	job->next = NULL;
	if (s->last)
		s->last->next = job;
	else
		s->first = job;
	s->last = job;
}

static void unlink_job(struct dm_remap_schedule *s, struct dm_remap_job *job)
{
	lockdep_assert_held(&s->lock);
	if (job->prev)
		job->prev->next = job->next;
	else
		s->first = job->next;
	if (job->next)
		job->next->prev = job->prev;
	else
		s->last = job->prev;
}

static void make_ready(struct dm_remap_schedule *s, struct dm_remap_job *job)
{
	lockdep_assert_held(&s->lock);
	if (job->kind == DM_REMAP_JOB_CLAIM)
		return;
	job->next_ready = NULL;
	*s->ready[job->kind].last = job;
	s->ready[job->kind].last = &job->next_ready;
}

static struct dm_remap_job *take(struct dm_remap_schedule *s, enum dm_remap_job_kind kind)
{
	struct dm_remap_job *job = s->ready[kind].first;

	lockdep_assert_held(&s->lock);
	if (!job)
		return NULL;
	s->ready[kind].first = job->next_ready;
	if (!job->next_ready)
		s->ready[kind].last = &s->ready[kind].first;
	s->running[kind]++;
	return job;
}

static void set(struct dm_remap_job *job, enum dm_remap_job_kind kind, u64 start, u64 length)
{
	job->kind = kind;
	job->start = start;
	job->end = start + length;
}

/* ---- jobs for a mover ---- */

void dm_remap_job_add(struct dm_remap_schedule *s, struct dm_remap_job *job,
		      enum dm_remap_job_kind kind, u64 start, u64 length)
{
	unsigned long flags;

	set(job, kind, start, length);
	spin_lock_irqsave(&s->lock, flags);
	append(s, job);
	if (!job->before) {
		make_ready(s, job);
		kick(s);
	}
	spin_unlock_irqrestore(&s->lock, flags);
}

struct dm_remap_job *dm_remap_job_next(struct dm_remap_schedule *s, enum dm_remap_mover_role role)
{
	struct dm_remap_job *job = NULL;
	unsigned long flags;

	spin_lock_irqsave(&s->lock, flags);
	/* Those of neither kind keep the others from their turn. */
	if (role == DM_REMAP_FOR_READS && !s->running[DM_REMAP_JOB_PENDING])
		job = take(s, DM_REMAP_JOB_PENDING);
	if (role != DM_REMAP_FOR_WRITES && !job)
		job = take(s, DM_REMAP_JOB_READ);
	if (role == DM_REMAP_FOR_ANY && !job)
		job = take(s, DM_REMAP_JOB_SPARE);
	if (role == DM_REMAP_FOR_ANY && !job && !s->running[DM_REMAP_JOB_PENDING])
		job = take(s, DM_REMAP_JOB_PENDING);
	if (role != DM_REMAP_FOR_READS && !job)
		job = take(s, DM_REMAP_JOB_WRITE);
	spin_unlock_irqrestore(&s->lock, flags);
	return job;
}

void dm_remap_job_done(struct dm_remap_schedule *s, struct dm_remap_job *job)
{
	struct dm_remap_job *later;
	unsigned long flags;

	spin_lock_irqsave(&s->lock, flags);
	for (later = job->next; later; later = later->next) {
		if (!overlap(later, job) || --later->before)
			continue;
		make_ready(s, later);
	}
	unlink_job(s, job);
	if (job->kind != DM_REMAP_JOB_CLAIM)
		s->running[job->kind]--;
	kick(s);
	spin_unlock_irqrestore(&s->lock, flags);
}

bool dm_remap_schedule_is_idle(struct dm_remap_schedule *s)
{
	unsigned long flags;
	bool idle;

	spin_lock_irqsave(&s->lock, flags);
	idle = !s->first && !s->n_unrecorded;
	spin_unlock_irqrestore(&s->lock, flags);
	return idle;
}

void dm_remap_write_on_main(struct dm_remap_schedule *s)
{
	unsigned long flags;

	spin_lock_irqsave(&s->lock, flags);
	s->on_main++;
	spin_unlock_irqrestore(&s->lock, flags);
}

void dm_remap_write_off_main(struct dm_remap_schedule *s, u64 now)
{
	unsigned long flags;

	spin_lock_irqsave(&s->lock, flags);
	s->on_main--;
	s->left_main = now;
	spin_unlock_irqrestore(&s->lock, flags);
}

bool dm_remap_writes_use_main(struct dm_remap_schedule *s, u64 now)
{
	unsigned long flags;
	bool run;

	spin_lock_irqsave(&s->lock, flags);
	run = s->running[DM_REMAP_JOB_WRITE] && (s->on_main || now <= s->left_main + 1);
	spin_unlock_irqrestore(&s->lock, flags);
	return run;
}

/* ---- claims ---- */

bool dm_remap_job_claim_now(struct dm_remap_schedule *s, struct dm_remap_job *job, u64 start,
			    u64 length)
{
	unsigned long flags;
	bool free;

	set(job, DM_REMAP_JOB_CLAIM, start, length);
	spin_lock_irqsave(&s->lock, flags);
	append(s, job);
	free = !job->before;
	if (!free)
		unlink_job(s, job);
	spin_unlock_irqrestore(&s->lock, flags);
	return free;
}

void dm_remap_job_claim(struct dm_remap_schedule *s, struct dm_remap_job *job, u64 start,
			u64 length)
{
	unsigned long flags;

	set(job, DM_REMAP_JOB_CLAIM, start, length);
	spin_lock_irqsave(&s->lock, flags);
	append(s, job);
	spin_unlock_irqrestore(&s->lock, flags);
}

bool dm_remap_job_claimed(struct dm_remap_schedule *s, const struct dm_remap_job *job)
{
	unsigned long flags;
	bool claimed;

	spin_lock_irqsave(&s->lock, flags);
	claimed = !job->before;
	spin_unlock_irqrestore(&s->lock, flags);
	return claimed;
}

/* ---- what main could not read just now ---- */

unsigned int dm_remap_unread_begin(struct dm_remap_schedule *s, u64 start, u64 length)
{
	unsigned long flags;
	unsigned int number;

	spin_lock_irqsave(&s->lock, flags);
	number = s->next_reading++;
	s->reading[number % DM_REMAP_MOVERS] = (struct dm_remap_unread) {
		.start = start, .end = start + length, .being_read = true,
	};
	spin_unlock_irqrestore(&s->lock, flags);
	return number;
}

void dm_remap_unread_add(struct dm_remap_schedule *s, unsigned int number, u64 start, u64 length,
			 u64 took, u64 now)
{
	const struct dm_remap_unread *r = &s->reading[number % DM_REMAP_MOVERS];
	unsigned long flags;

	spin_lock_irqsave(&s->lock, flags);
	if (r->being_read && r->start <= start && start + length <= r->end)
		s->unread[s->next_unread++ % DM_REMAP_UNREAD] = (struct dm_remap_unread) {
			.start = start, .end = start + length,
			.until = now + min_t(u64, took, DM_REMAP_UNREAD_PAUSE),
		};
	spin_unlock_irqrestore(&s->lock, flags);
}

void dm_remap_unread_end(struct dm_remap_schedule *s, unsigned int number)
{
	unsigned long flags;

	spin_lock_irqsave(&s->lock, flags);
	s->reading[number % DM_REMAP_MOVERS].being_read = false;
	spin_unlock_irqrestore(&s->lock, flags);
}

static void remove_unrecorded(struct dm_remap_schedule *s, unsigned int i)
{
	lockdep_assert_held(&s->lock);
	s->unrecorded[i] = s->unrecorded[s->n_unrecorded - 1];
	WRITE_ONCE(s->n_unrecorded, s->n_unrecorded - 1);
}

static bool touches(const struct dm_remap_unread *u, u64 start, u64 length)
{
	return u->start < start + length && start < u->end;
}

void dm_remap_unread_forget(struct dm_remap_schedule *s, u64 start, u64 length)
{
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&s->lock, flags);
	for (i = 0; i < DM_REMAP_UNREAD; i++)
		if (touches(&s->unread[i], start, length))
			s->unread[i].until = 0;
	for (i = 0; i < DM_REMAP_MOVERS; i++)
		if (touches(&s->reading[i], start, length))
			s->reading[i].being_read = false;
	for (i = s->n_unrecorded; i--;)
		if (s->unrecorded[i].start < start + length && start < s->unrecorded[i].end)
			remove_unrecorded(s, i);
	spin_unlock_irqrestore(&s->lock, flags);
}

bool dm_remap_unread(struct dm_remap_schedule *s, u64 start, u64 *length, u64 now)
{
	unsigned long flags;
	bool unread = false;
	unsigned int i;

	spin_lock_irqsave(&s->lock, flags);
	for (i = 0; i < DM_REMAP_UNREAD; i++) {
		const struct dm_remap_unread *u = &s->unread[i];

		if (now >= u->until || u->end <= start || start + *length <= u->start)
			continue;
		if (start < u->start) {
			*length = u->start - start;
			continue;
		}
		*length = min_t(u64, *length, u->end - start);
		unread = true;
		break;
	}
	spin_unlock_irqrestore(&s->lock, flags);
	return unread;
}

/* ---- what has no record yet ---- */

static unsigned int find_unrecorded(const struct dm_remap_schedule *s, u64 start, u64 end)
{
	unsigned int i;

	for (i = 0; i < s->n_unrecorded; i++)
		if (s->unrecorded[i].start == start && s->unrecorded[i].end == end)
			break;
	return i;
}

void dm_remap_unrecorded_add(struct dm_remap_schedule *s, u64 start, u64 length)
{
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&s->lock, flags);
	i = find_unrecorded(s, start, start + length);
	if (i == s->n_unrecorded && i < DM_REMAP_UNRECORDED) {
		s->unrecorded[i] = (struct dm_remap_unrecorded) {
			.start = start, .end = start + length,
		};
		WRITE_ONCE(s->n_unrecorded, i + 1);
	}
	spin_unlock_irqrestore(&s->lock, flags);
}

bool dm_remap_unrecorded_get(struct dm_remap_schedule *s, unsigned int i,
			     struct dm_remap_unrecorded *u)
{
	unsigned long flags;
	bool there;

	spin_lock_irqsave(&s->lock, flags);
	there = i < s->n_unrecorded;
	if (there)
		*u = s->unrecorded[i];
	spin_unlock_irqrestore(&s->lock, flags);
	return there;
}

void dm_remap_unrecorded_drop(struct dm_remap_schedule *s, const struct dm_remap_unrecorded *u)
{
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&s->lock, flags);
	i = find_unrecorded(s, u->start, u->end);
	if (i < s->n_unrecorded)
		remove_unrecorded(s, i);
	spin_unlock_irqrestore(&s->lock, flags);
}

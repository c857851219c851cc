/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Those names of the kernel that the core uses, outside the kernel. Not part of the
 * module, and included by dm-remap-port.h alone.
 */
#ifndef DM_REMAP_USER_H
#define DM_REMAP_USER_H

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <libdeflate.h>
#include <limits.h>
#include <linux/types.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#define cpu_to_le16(x) htole16(x)
#define cpu_to_le32(x) htole32(x)
#define cpu_to_le64(x) htole64(x)
#define le16_to_cpu(x) le16toh(x)
#define le32_to_cpu(x) le32toh(x)
#define le64_to_cpu(x) le64toh(x)

#define __packed __attribute__((packed))
#define __printf(a, b) __attribute__((format(printf, a, b)))
#define __rcu
#define ____cacheline_aligned_in_smp
#define __must_check __attribute__((warn_unused_result))

#define BIT(n) (1ul << (n))
#define BIT_ULL(n) (1ull << (n))
#define U16_MAX UINT16_MAX
#define U32_MAX UINT32_MAX
#define U64_MAX UINT64_MAX
#define BITS_PER_LONG (8 * (unsigned int)sizeof(long))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* As in the kernel, each argument is evaluated once: it may be a call. */
#define min_t(type, a, b) ({ type min_a = (a), min_b = (b); min_a < min_b ? min_a : min_b; })
#define max_t(type, a, b) ({ type max_a = (a), max_b = (b); max_a > max_b ? max_a : max_b; })
#define clamp_t(type, v, lo, hi) min_t(type, max_t(type, v, lo), hi)

#define READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELAXED)

#ifndef __cplusplus /* which has one of its own */
#define swap(a, b) do { __typeof__(a) swap_a = (a); (a) = (b); (b) = swap_a; } while (0)
#endif

static inline u64 div_u64(u64 a, u32 b)
{
	return a / b;
}

static inline u64 div_u64_rem(u64 a, u32 b, u32 *rem)
{
	*rem = (u32)(a % b);
	return a / b;
}

/*
 * Outside the kernel one thread works on a table. Lookups still go through
 * acquire and release, so that a test may run readers beside the writer; freeing
 * after the readers is then the test's business (see dm_remap_call_rcu_hook).
 */
struct rcu_head {
	void (*func)(struct rcu_head *head);
	struct rcu_head *next;
};

#define rcu_dereference_check(p, c) __atomic_load_n(&(p), __ATOMIC_ACQUIRE)
#define rcu_dereference_protected(p, c) (p)
#define rcu_access_pointer(p) __atomic_load_n(&(p), __ATOMIC_RELAXED)
#define rcu_assign_pointer(p, v) __atomic_store_n(&(p), v, __ATOMIC_RELEASE)
#define RCU_INIT_POINTER(p, v) ((p) = (v))

typedef struct {
	int64_t value;
} atomic64_t;

#define atomic64_read(a) __atomic_load_n(&(a)->value, __ATOMIC_RELAXED)
#define atomic64_set(a, v) __atomic_store_n(&(a)->value, v, __ATOMIC_RELAXED)
#define atomic64_add(n, a) ((void)__atomic_fetch_add(&(a)->value, n, __ATOMIC_RELAXED))
#define atomic64_inc(a) atomic64_add(1, a)
#define atomic64_inc_return(a) (__atomic_add_fetch(&(a)->value, 1, __ATOMIC_SEQ_CST))
#define atomic64_try_cmpxchg(a, old, new) \
	__atomic_compare_exchange_n(&(a)->value, old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)

typedef struct {
	int value;
} atomic_t;

#define atomic_read(a) __atomic_load_n(&(a)->value, __ATOMIC_RELAXED)
#define atomic_read_acquire(a) __atomic_load_n(&(a)->value, __ATOMIC_ACQUIRE)
#define atomic_set(a, v) __atomic_store_n(&(a)->value, v, __ATOMIC_RELAXED)
#define atomic_inc(a) ((void)__atomic_fetch_add(&(a)->value, 1, __ATOMIC_RELAXED))
#define atomic_dec(a) ((void)__atomic_fetch_sub(&(a)->value, 1, __ATOMIC_RELAXED))
#define atomic_xchg(a, v) __atomic_exchange_n(&(a)->value, v, __ATOMIC_SEQ_CST)
#define smp_mb__before_atomic() __atomic_thread_fence(__ATOMIC_SEQ_CST)

/*
 * A mutex that catches what a single thread can get wrong. With dm_remap_lock_hook it is one for
 * threads that take turns.
 */
struct mutex {
	int held;
};

#define mutex_init(m) ((m)->held = 0)
#define mutex_destroy(m) assert(!(m)->held)
#define mutex_lock(m) do {				\
	if (dm_remap_lock_hook)				\
		dm_remap_lock_hook(m);			\
	assert(!(m)->held);				\
	(m)->held = 1;					\
} while (0)
#define mutex_trylock(m) ((m)->held ? 0 : ((m)->held = 1))
#define mutex_unlock(m) do { assert((m)->held); (m)->held = 0; } while (0)

/* Nothing is done under one that could give the turn to another thread. */
typedef struct {
	int held;
} spinlock_t;

#define spin_lock_init(l) ((l)->held = 0)
#define spin_lock_irqsave(l, flags) do { (flags) = 0; assert(!(l)->held); (l)->held = 1; } while (0)
#define spin_unlock_irqrestore(l, flags) do { (void)(flags); (l)->held = 0; } while (0)

#define lockdep_assert_held(m) assert((m)->held)
#define rcu_read_lock_any_held() true
#define rcu_read_lock_sched() do { } while (0)
#define rcu_read_unlock_sched() do { } while (0)
#define cond_resched() do { } while (0)
#define dm_remap_reclaim_off() 0
#define dm_remap_reclaim_restore(saved) ((void)(saved))

#define dm_remap_crc32(crc, p, len) libdeflate_crc32(crc, p, len)

void *dm_remap_zalloc(size_t size);
void dm_remap_free(void *p);
void call_rcu(struct rcu_head *head, void (*func)(struct rcu_head *head));

/*
 * For tests, NULL otherwise: says whether an allocation of @size succeeds; takes
 * what call_rcu would free at once, and frees it when the readers are gone; returns when
 * @lock is free.
 */
extern bool (*dm_remap_zalloc_hook)(size_t size);
extern void (*dm_remap_call_rcu_hook)(struct rcu_head *head, void (*func)(struct rcu_head *head));
extern void (*dm_remap_lock_hook)(struct mutex *lock);

#endif /* DM_REMAP_USER_H */

/* A pool of threads for short jobs.
 *
 * A job is a number of chunks. Each thread begins with a share of its own, chunks that follow each other, so that
 * it reads weights in the order of memory; then it takes what is left of the others' shares. The caller waits only
 * for workers that have begun a chunk: one that the system does not let run in time misses the job and holds
 * nobody up. Waiting threads spin briefly, then sleep: a decoder's step has some 200 jobs of 20 to 200
 * microseconds, and spinning for long would take the processor away from whoever has work to do.
 */

#include "internal.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPINS 4000 /* some 50 to 100 microseconds */

struct member { /* on cache lines of its own */
    _Alignas(64) atomic_int next; /* chunk of its share */
    int end;
    struct pool *pool;
    pthread_t thread;
};

struct pool {
    atomic_uint state; /* twice the job's number, plus 1 while it may be joined */
    atomic_int active;
    pool_task task;
    void *job;
    atomic_int sleeping, stopping;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int threads; /* the caller, which is the first member, and the workers */
    pid_t owner; /* the process that has them: after fork(), the child has none */
    struct member members[];
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_chunks(struct pool *pool, int first_share) {
    for (int i = 0, chunk; i < pool->threads; i++) {
        struct member *member = &pool->members[(first_share + i) % pool->threads];
        while ((chunk = atomic_fetch_add(&member->next, 1)) < member->end) pool->task(pool->job, chunk);
    }
}

/* Wait for a job other than `seen`; return its state. */
static unsigned wait_for_job(struct pool *pool, unsigned seen) {
    for (int spin = 0; spin < SPINS; spin++) {
        unsigned state = atomic_load(&pool->state);
        if ((state & 1) && state != seen) return state;
        if (atomic_load(&pool->stopping)) return seen;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    unsigned state;
    while (!(((state = atomic_load(&pool->state)) & 1) && state != seen) && !atomic_load(&pool->stopping))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
    return state;
}

static void *work(void *argument) {
    struct member *member = argument;
    struct pool *pool = member->pool;
    unsigned seen = 0;
    while (!atomic_load(&pool->stopping)) {
        unsigned state = wait_for_job(pool, seen);
        if (state == seen || !(state & 1)) continue;
        /* Announce first, then look again: the caller closes a job before it looks at `active`. */
        atomic_fetch_add(&pool->active, 1);
        if (atomic_load(&pool->state) == state) take_chunks(pool, (int)(member - pool->members));
        atomic_fetch_sub(&pool->active, 1);
        seen = state;
    }
    return NULL;
}

struct pool *pool_new(int threads) {
    size_t members = threads > 1 ? (size_t)threads : 1;
    size_t size = sizeof(struct pool) + sizeof(struct member) * members;
    struct pool *pool = aligned_alloc(_Alignof(struct pool), size);
    if (!pool) return NULL;
    memset(pool, 0, size);
    for (size_t i = 0; i < members; i++) pool->members[i].pool = pool;
    pool->owner = getpid();
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    /* Signals are for the caller's threads, so that Ctrl-C reaches Python. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    size_t made = 1;
    while (made < members && !pthread_create(&pool->members[made].thread, NULL, work, &pool->members[made]))
        made++; /* fewer threads than asked for are no failure */
    pool->threads = (int)made;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool;
}

static void wake_all(struct pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

void pool_free(struct pool *pool) {
    if (!pool) return;
    if (pool->owner != getpid()) {
        free(pool); /* waiting for the parent's workers, or destroying what they wait for, would hang */
        return;
    }
    atomic_store(&pool->stopping, 1);
    wake_all(pool);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->members[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

void pool_run(struct pool *pool, pool_task task, void *job, int chunks) {
    if (chunks <= 1 || pool->threads == 1 || pool->owner != getpid()) {
        for (int chunk = 0; chunk < chunks; chunk++) task(job, chunk);
        return;
    }
    pool->task = task;
    pool->job = job;
    for (int i = 0; i < pool->threads; i++) {
        struct member *member = &pool->members[i];
        member->end = (int)((long)chunks * (i + 1) / pool->threads);
        atomic_store(&member->next, (int)((long)chunks * i / pool->threads));
    }
    atomic_fetch_add(&pool->state, 1); /* open */
    if (atomic_load(&pool->sleeping)) wake_all(pool);
    take_chunks(pool, 0);
    atomic_fetch_add(&pool->state, 1); /* closed: no worker joins any more */
    for (int spin = 0; atomic_load(&pool->active); spin++) {
        if (spin < SPINS) relax();
        else sched_yield();
    }
}

/* A pool of threads for short jobs.
 *
 * A job is a number of chunks, which the caller and the workers take from one counter. The caller waits only for
 * workers that have begun a chunk: one that the system does not let run in time misses the job and holds nobody up.
 * Waiting threads spin briefly, then sleep: a decoder's step has some 200 jobs of 20 to 200 microseconds, and spinning
 * for long would take the processor away from whoever has work to do.
 */

#include "internal.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define SPINS 4000 /* some 50 to 100 microseconds */

struct pool {
    atomic_uint state; /* twice the job's number, plus 1 while it may be joined */
    atomic_int next, active;
    pool_task task;
    void *job;
    int chunks;
    atomic_int sleeping, stopping;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int threads; /* workers, without the caller */
    pid_t owner; /* the process that has them: after fork(), the child has none */
    pthread_t workers[];
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_chunks(struct pool *pool) {
    int chunk;
    while ((chunk = atomic_fetch_add(&pool->next, 1)) < pool->chunks) pool->task(pool->job, chunk);
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
    struct pool *pool = argument;
    unsigned seen = 0;
    while (!atomic_load(&pool->stopping)) {
        unsigned state = wait_for_job(pool, seen);
        if (state == seen || !(state & 1)) continue;
        /* Announce first, then look again: the caller closes a job before it looks at `active`. */
        atomic_fetch_add(&pool->active, 1);
        if (atomic_load(&pool->state) == state) take_chunks(pool);
        atomic_fetch_sub(&pool->active, 1);
        seen = state;
    }
    return NULL;
}

struct pool *pool_new(int threads) {
    int workers = threads > 1 ? threads - 1 : 0;
    struct pool *pool = calloc(1, sizeof *pool + sizeof(pthread_t) * (size_t)workers);
    if (!pool) return NULL;
    pool->owner = getpid();
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    /* Signals are for the caller's threads, so that Ctrl-C reaches Python. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->threads < workers && !pthread_create(&pool->workers[pool->threads], NULL, work, pool))
        pool->threads++; /* fewer threads than asked for are no failure */
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
    for (int i = 0; i < pool->threads; i++) pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

void pool_run(struct pool *pool, pool_task task, void *job, int chunks) {
    if (chunks <= 1 || !pool->threads || pool->owner != getpid()) {
        for (int chunk = 0; chunk < chunks; chunk++) task(job, chunk);
        return;
    }
    pool->task = task;
    pool->job = job;
    pool->chunks = chunks;
    atomic_store(&pool->next, 0);
    atomic_fetch_add(&pool->state, 1); /* open */
    if (atomic_load(&pool->sleeping)) wake_all(pool);
    take_chunks(pool);
    atomic_fetch_add(&pool->state, 1); /* closed: no worker joins any more */
    for (int spin = 0; atomic_load(&pool->active); spin++) {
        if (spin < SPINS) relax();
        else sched_yield();
    }
}

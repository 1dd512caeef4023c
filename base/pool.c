#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"

int64_t vl_cpu_count(void) {
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 0 ? count : 1;
}

struct VlPool {
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    VlTask *first, *last;  // waiting to be run
    bool closing;
    int64_t threads;
    pthread_t *thread;
};

static void *run_tasks(void *argument) {
    VlPool *pool = argument;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->first && !pool->closing) vl_wait_for_change(&pool->work, &pool->lock);
        if (pool->closing) break;
        VlTask *task = pool->first;
        pool->first = task->next;
        if (!pool->first) pool->last = NULL;
        pthread_mutex_unlock(&pool->lock);
        vl_error_clear();
        task->error = vl_error_take(task->run(task->argument));
        pthread_mutex_lock(&pool->lock);
        task->done = true;
        pthread_cond_broadcast(&pool->finished);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

VlStatus vl_pool_open(VlPool **out, int64_t threads) {
    VlPool *pool;
    if (threads < 1 || threads > 4096) {
        return vl_error(VL_INVALID, "%lld threads were asked for; 1 to 4096 are possible", (long long)threads);
    }
    VL_TRY(VL_NEW(&pool, 1));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    VlStatus status = VL_NEW(&pool->thread, threads);
    // Signals are for the thread that runs the program, which checks for them between steps.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!status && pool->threads < threads) {
        int problem = pthread_create(&pool->thread[pool->threads], NULL, run_tasks, pool);
        if (problem) {
            status = vl_error(VL_IO, "cannot start thread %lld of %lld: %s; set `threads` lower",
                              (long long)pool->threads + 1, (long long)threads, strerror(problem));
        } else {
            pool->threads++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status) {
        vl_pool_close(pool);
        return status;
    }
    *out = pool;
    return VL_OK;
}

void vl_pool_close(VlPool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int64_t i = 0; i < pool->threads; i++) pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    vl_free(pool->thread);
    vl_free(pool);
}

int64_t vl_pool_threads(const VlPool *pool) { return pool->threads; }

void vl_pool_submit(VlPool *pool, VlTask *task, bool urgent) {
    VL_ASSERT(!task->submitted);
    task->submitted = true;
    task->done = false;
    pthread_mutex_lock(&pool->lock);
    task->next = urgent ? pool->first : NULL;
    if (urgent) {
        pool->first = task;
    } else if (pool->last) {
        pool->last->next = task;
    } else {
        pool->first = task;
    }
    if (!task->next) pool->last = task;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

VlStatus vl_pool_wait(VlPool *pool, VlTask *task) {
    if (!task->submitted) return VL_OK;
    pthread_mutex_lock(&pool->lock);
    while (!task->done) vl_wait_for_change(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    task->submitted = false;
    return task->error.status ? vl_error_raise(&task->error) : VL_OK;
}

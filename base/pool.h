// Threads that run tasks in the order they were submitted. Who submits tasks and waits for them one after the other
// gets results in an order that does not depend on the number of threads, and bounds the memory by how far it submits
// ahead.
#ifndef VL_BASE_POOL_H
#define VL_BASE_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

// Processors that this process may use (its affinity mask).
int64_t vl_cpu_count(void);

typedef struct VlPool VlPool;

// Belongs to the one who submits it and must live until it was waited for. A task must not wait for another one.
typedef struct VlTask {
    VlStatus (*run)(void *argument);  // in a thread of the pool; its error text travels with the task
    void *argument;
    VlError error;   // what `run` returned
    bool submitted;  // between vl_pool_submit and vl_pool_wait
    bool done;
    struct VlTask *next;
} VlTask;

// Starts `threads` threads (at least 1). Errors: VL_INVALID, VL_OUT_OF_MEMORY, VL_IO (no more threads to be had).
VlStatus vl_pool_open(VlPool **pool, int64_t threads);
// Tasks that no thread has begun are dropped, those that run are waited for. Then the threads end. NULL is allowed.
void vl_pool_close(VlPool *pool);
int64_t vl_pool_threads(const VlPool *pool);

// Hands over task->run and task->argument. `urgent`: before the tasks that wait already.
void vl_pool_submit(VlPool *pool, VlTask *task, bool urgent);
// Waits for the task; returns its status, with its error text. A task that was never submitted gives VL_OK at once.
VlStatus vl_pool_wait(VlPool *pool, VlTask *task);

#endif

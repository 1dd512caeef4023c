// The device: its memory, its arenas, and the context that every operation takes first.
//
// Two kinds of backend exist today. "cpu" computes. "plan" computes nothing: its operations only pass the shape checks
// and count FLOPs, its memory has no address; running the same model code on it gives the memory table and the FLOPs of
// a configuration before anything is allocated (`vl2 plan`), and the sizes with which the arenas are then bound.
//
// Tensors live in device memory. Outside of operations nobody may touch what they point to, except through
// vl_copy_to_host, vl_copy_from_host and a vl_device_open/close window. With VL2_GUARD=1 the CPU backend takes this
// literally: its memory is protected by mprotect while no operation and no window is active.
#ifndef VL_OPS_CONTEXT_H
#define VL_OPS_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/tensor.h"
#include "ops/flops.h"

typedef struct VlBackend VlBackend;
typedef struct VlContext VlContext;

// A stack of device memory: push on the way forward, release to a mark on the way back. `peak` is the plan's answer.
typedef struct VlArena {
    const char *name;
    char *base;    // NULL while planning
    int64_t size;  // bytes bound; INT64_MAX while planning
    int64_t used, peak;
} VlArena;

struct VlContext {
    const VlBackend *backend;
    int64_t threads;        // scratch depends on it: plan with as many as will run
    bool planning;          // the backend is the plan backend
    VlArena activations;    // what forward saves for backward, and the features in between
    VlArena scratch;        // temporaries of one function
    VlFlops flops;          // of the operations run, or planned, so far
    int64_t multiplied;     // FLOPs of the products that the CPU backend computed outside of attention
    struct VlGuard *guard;  // guarded regions (VL2_GUARD=1), else NULL
};

// A context on the backend named "cpu" or "plan". threads 0: as many as the process may use. The arenas of a planning
// context are bound, those of others have no memory until vl_arena_bind. vl_context_free unbinds both.
//
// Scratch of operations. An operation does not allocate: its temporaries are pushed on context->scratch by one function
// per row, vl_scratch_NAME (ops/scratch*.h), which is called twice between a mark and its release: by the row's check,
// so that the plan sees the peak and too small an arena is an error before anything is computed, and by the kernel,
// which uses them.
VlStatus vl_context_create(VlContext **context, const char *backend, int64_t threads);
void vl_context_free(VlContext *context);

// Zeroed device memory, aligned to 64 bytes. While planning *memory is NULL.
VlStatus vl_device_allocate(VlContext *context, int64_t bytes, void **memory);
void vl_device_free(VlContext *context, void *memory);
VlStatus vl_copy_to_host(VlContext *context, void *host, VlTensor from);
VlStatus vl_copy_from_host(VlContext *context, VlTensor to, const void *host);

// A window in which host code may touch device memory of the CPU backend (communication buffers). Windows nest and may
// overlap between threads.
void vl_device_open(VlContext *context);
void vl_device_close(VlContext *context);

// Binds an arena of `size` bytes of device memory (planning: without memory); vl_arena_unbind gives it back.
VlStatus vl_arena_bind(VlContext *context, VlArena *arena, const char *name, int64_t size);
void vl_arena_unbind(VlContext *context, VlArena *arena);
// The next tensor of an arena, aligned to 64 bytes, content undefined. Too small an arena: VL_OUT_OF_MEMORY with its
// name.
VlStatus vl_arena_push_make(VlArena *arena, VlTensor *tensor, VlDtype dtype, int32_t dims, const int64_t *dim);
#define vl_arena_push(arena, tensor, dtype, ...)                                                                  \
    vl_arena_push_make((arena), (tensor), (dtype), (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
                       (int64_t[]){__VA_ARGS__})
static inline int64_t vl_arena_mark(const VlArena *arena) { return arena->used; }
void vl_arena_release(VlArena *arena, int64_t mark);

#endif

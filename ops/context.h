// The device: its memory, its arenas, and the context that every operation takes first.
//
// "cpu" and "cuda" compute. A planning context computes nothing: its operations only pass the shape checks and count
// FLOPs, its memory has no address; running the same model code on it gives the memory table and the FLOPs of a
// configuration before anything is allocated (`vl2 plan`), and the sizes with which the arenas are then bound.
//
// Tensors live in device memory. Outside of operations nobody may touch what they point to, except through
// vl_copy_to_host, vl_copy_from_host and, on the CPU, a vl_device_open/close window. With VL2_GUARD=1 the CPU backend
// takes this literally: its memory is protected by mprotect while no operation and no window is active; and the CUDA
// backend waits after every operation, so that an error is found where it happens.
#ifndef VL_OPS_CONTEXT_H
#define VL_OPS_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/tensor.h"
#include "ops/flops.h"
#include "ops/roofline.h"

typedef struct VlBackend VlBackend;
typedef struct VlContext VlContext;
typedef struct VlProfile VlProfile;

// A stack of device memory: push on the way forward, release to a mark on the way back. `peak` is the plan's answer.
typedef struct VlArena {
    const char *name;
    char *base;    // NULL while planning
    int64_t size;  // bytes bound; INT64_MAX while planning
    int64_t used, peak;
} VlArena;

typedef enum VlDevice { VL_DEVICE_CPU, VL_DEVICE_CUDA, VL_DEVICE_COUNT } VlDevice;
const char *vl_device_name(VlDevice device);  // "cpu", "cuda"
// The device that a word names: "cpu", "cuda", or "auto", which is cuda where the build knows it and the machine has
// one, else cpu; where there was a choice, the log has a line of it. Errors: VL_USAGE for another word.
VlStatus vl_device_choose(VlDevice *device, const char *word);

struct VlContext {
    const VlBackend *backend;
    VlDevice device;        // where it runs; when planning, what it plans for
    int64_t threads;        // of the CPU; scratch depends on it: plan with as many as will run
    bool planning;          // the backend is the plan backend
    VlArena activations;    // what forward saves for backward, and the features in between
    VlArena scratch;        // temporaries of one function
    VlFlops flops;          // of the operations run, or planned, so far
    VlRoofline roofline;    // of the operations so far, at rates that were set; without rates nothing is counted
    VlProfile *profile;     // of the operations so far (ops/profile.h); NULL: none is kept
    int64_t multiplied;     // FLOPs of the products that the CPU backend computed outside of attention
    struct VlGuard *guard;  // guarded regions of the CPU (VL2_GUARD=1), else NULL
    char model[128];        // of the GPU, in its driver's words; "" otherwise
    void *state;            // the backend's own
};

// A context that computes on the device, or that plans for it. threads 0: as many as the process may use. The arenas of
// a planning context are bound, those of others have no memory until vl_arena_bind. vl_context_free unbinds both.
// One thread uses a context: operations, copies and allocations are not asked for from two at once.
// Errors: VL_UNSUPPORTED when the build or the machine has no such device.
//
// Scratch of operations. An operation does not allocate: its temporaries are pushed on context->scratch by one function
// per row, vl_scratch_NAME (ops/scratch*.h), which is called twice between a mark and its release: by the row's check,
// so that the plan sees the peak and too small an arena is an error before anything is computed, and by the kernel,
// which uses them.
VlStatus vl_context_create(VlContext **context, VlDevice device, int64_t threads);
VlStatus vl_context_create_plan(VlContext **context, VlDevice device, int64_t threads);
void vl_context_free(VlContext *context);

// Zeroed device memory, aligned to 64 bytes. While planning *memory is NULL.
VlStatus vl_device_allocate(VlContext *context, int64_t bytes, void **memory);
void vl_device_free(VlContext *context, void *memory);
// A copy to the host waits for the operations before it; one from the host has taken what it needs of `host` when it
// returns, whether or not the device has it yet.
VlStatus vl_copy_to_host(VlContext *context, void *host, VlTensor from);
VlStatus vl_copy_from_host(VlContext *context, VlTensor to, const void *host);
// Returns when all operations so far are done; their errors come to light. For clocks: results are waited for by
// vl_copy_to_host.
VlStatus vl_device_wait(VlContext *context);
// Bytes of the device's memory (of the CPU: the machine's), and how many of them can still be had. While planning there
// is no end to either.
VlStatus vl_device_memory(VlContext *context, int64_t *left, int64_t *whole);

// What an index tensor (i64) holds, readable by the host until the tensor is written again: on the CPU its own memory,
// within a vl_device_open window; elsewhere what vl_copy_from_host last put there. NULL when the device alone knows, as
// of what an operation wrote (route, group_slots), and while planning.
const int64_t *vl_indices(VlContext *context, VlTensor tensor);

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

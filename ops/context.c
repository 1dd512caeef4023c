#include "ops/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/pool.h"
#include "ops/backend.h"
#include "ops/guard.h"

enum { ALIGNMENT = 64 };

static const VlBackend *const backends[VL_DEVICE_COUNT] = {&vl_backend_cpu, &vl_backend_cuda};

const char *vl_device_name(VlDevice device) { return backends[device]->name; }

VlStatus vl_device_choose(VlDevice *device, const char *word) {
    static const char *const words[] = {"auto", "cpu", "cuda"};
    enum { AUTO, CPU, CUDA, WORDS };
    int choice = 0;
    while (choice < WORDS && strcmp(word, words[choice]) != 0) choice++;
    if (choice == WORDS) {
        const char *nearest = vl_nearest_word(word, words, WORDS);
        return vl_error(VL_USAGE, "device '%s' is unknown; possible are: auto, cpu, cuda%s%s", word,
                        nearest ? "; nearest: " : "", nearest ? nearest : "");
    }
    *device = choice == CUDA ? VL_DEVICE_CUDA : VL_DEVICE_CPU;
    if (choice != AUTO || !vl_backend_cuda.present) return VL_OK;
    if (vl_backend_cuda.present()) *device = VL_DEVICE_CUDA;
    return VL_OK;
}

static VlStatus create(VlContext **context, const VlBackend *backend, VlDevice device, int64_t threads) {
    enum { MOST_THREADS = 4096 };
    *context = NULL;
    if (threads < 0 || threads > MOST_THREADS) {
        return vl_error(VL_INVALID, "threads is %lld: give 0 (as many as the process may use) to %d",
                        (long long)threads, MOST_THREADS);
    }
    VlContext *made;
    VL_TRY(VL_NEW(&made, 1));
    made->backend = backend;
    made->device = device;
    made->planning = backend == &vl_backend_plan;
    made->threads = threads ? threads : vl_cpu_count();
    int64_t size = made->planning ? INT64_MAX : 0;
    made->activations = (VlArena){.name = "activations", .size = size};
    made->scratch = (VlArena){.name = "scratch", .size = size};
    const char *guard = getenv("VL2_GUARD");
    VlStatus status = VL_OK;
    if (backend == &vl_backend_cpu && guard && strcmp(guard, "1") == 0) status = vl_guard_create(&made->guard);
    if (status == VL_OK && backend->open) status = backend->open(made);
    if (status != VL_OK) {
        vl_free(made);
        return vl_error_frame(status, __func__, __FILE__, __LINE__);
    }
    *context = made;
    return VL_OK;
}

VlStatus vl_context_create(VlContext **context, VlDevice device, int64_t threads) {
    return create(context, backends[device], device, threads);
}

VlStatus vl_context_create_plan(VlContext **context, VlDevice device, int64_t threads) {
    return create(context, &vl_backend_plan, device, threads);
}

void vl_context_free(VlContext *context) {
    if (!context) return;
    vl_arena_unbind(context, &context->activations);
    vl_arena_unbind(context, &context->scratch);
    if (context->backend->close) context->backend->close(context);
    vl_guard_free(context->guard);
    vl_free(context);
}

VlStatus vl_device_allocate(VlContext *context, int64_t bytes, void **memory) {
    *memory = NULL;
    VL_TRY(context->backend->allocate(context, bytes, memory));
    return VL_OK;
}

void vl_device_free(VlContext *context, void *memory) {
    if (memory) context->backend->release(context, memory);
}

VlStatus vl_copy_to_host(VlContext *context, void *host, VlTensor from) {
    vl_device_open(context);
    VlStatus status = context->backend->copy_to_host(context, host, from);
    vl_device_close(context);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

VlStatus vl_copy_from_host(VlContext *context, VlTensor to, const void *host) {
    vl_device_open(context);
    VlStatus status = context->backend->copy_from_host(context, to, host);
    vl_device_close(context);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

VlStatus vl_device_wait(VlContext *context) {
    if (context->backend->wait) VL_TRY(context->backend->wait(context));
    return VL_OK;
}

VlStatus vl_device_memory(VlContext *context, int64_t *left, int64_t *whole) {
    VL_TRY(context->backend->memory(context, left, whole));
    return VL_OK;
}

const int64_t *vl_indices(VlContext *context, VlTensor tensor) { return context->backend->indices(context, tensor); }

void vl_device_open(VlContext *context) { vl_guard_open(context->guard); }

void vl_device_close(VlContext *context) { vl_guard_close(context->guard); }

VlStatus vl_arena_bind(VlContext *context, VlArena *arena, const char *name, int64_t size) {
    VL_ASSERT(!arena->base && !arena->used);
    void *memory;
    VL_TRY_CONTEXT(vl_device_allocate(context, size, &memory), "arena %s", name);
    *arena = (VlArena){.name = name, .base = memory, .size = context->planning ? INT64_MAX : size};
    return VL_OK;
}

void vl_arena_unbind(VlContext *context, VlArena *arena) {
    vl_device_free(context, arena->base);
    *arena = (VlArena){.name = arena->name, .size = context->planning ? INT64_MAX : 0};
}

VlStatus vl_arena_push_make(VlArena *arena, VlTensor *tensor, VlDtype dtype, int32_t dims, const int64_t *dim) {
    VL_ASSERT(dims >= 1 && dims <= VL_MAX_DIMS);
    int64_t bytes = vl_dtype_size(dtype), end;
    bool valid = true;
    for (int32_t i = 0; i < dims; i++) valid = vl_multiply(bytes, dim[i], &bytes) && valid;
    valid = valid && vl_add(bytes, ALIGNMENT - 1, &bytes);
    bytes -= bytes % ALIGNMENT;
    if (!valid || !vl_add(arena->used, bytes, &end)) {
        return vl_error(VL_INVALID, "arena %s: a tensor of %d extents [%lld,...] has no valid size", arena->name, dims,
                        (long long)dim[0]);
    }
    if (end > arena->size) {
        return vl_error(VL_OUT_OF_MEMORY, "arena %s is full: %lld of its %lld bytes are used and %lld more are needed",
                        arena->name, (long long)arena->used, (long long)arena->size, (long long)bytes);
    }
    *tensor = vl_tensor_make(arena->base ? arena->base + arena->used : NULL, dtype, dims, dim);
    arena->used = end;
    if (end > arena->peak) arena->peak = end;
    return VL_OK;
}

void vl_arena_release(VlArena *arena, int64_t mark) {
    VL_ASSERT(mark >= 0 && mark <= arena->used);
    arena->used = mark;
}

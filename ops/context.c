#include "ops/context.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/pool.h"
#include "ops/backend.h"
#include "ops/guard.h"

enum { ALIGNMENT = 64 };

static const VlBackend *const backends[] = {&vl_backend_cpu, &vl_backend_plan};
enum { BACKENDS = sizeof backends / sizeof *backends };

static const VlBackend *find_backend(const char *name) {
    for (int i = 0; i < BACKENDS; i++) {
        if (strcmp(name, backends[i]->name) == 0) return backends[i];
    }
    return NULL;
}

VlStatus vl_context_create(VlContext **context, const char *backend, int64_t threads) {
    enum { MOST_THREADS = 4096 };
    *context = NULL;
    const VlBackend *found = find_backend(backend);
    if (!found) return vl_error(VL_INVALID, "device '%s' is unknown: this build has cpu and plan", backend);
    if (threads < 0 || threads > MOST_THREADS) {
        return vl_error(VL_INVALID, "threads is %lld: give 0 (as many as the process may use) to %d",
                        (long long)threads, MOST_THREADS);
    }
    VlContext *made;
    VL_TRY(VL_NEW(&made, 1));
    made->backend = found;
    made->planning = found == &vl_backend_plan;
    made->threads = threads ? threads : vl_cpu_count();
    int64_t size = made->planning ? INT64_MAX : 0;
    made->activations = (VlArena){.name = "activations", .size = size};
    made->scratch = (VlArena){.name = "scratch", .size = size};
    const char *guard = getenv("VL2_GUARD");
    if (found == &vl_backend_cpu && guard && strcmp(guard, "1") == 0) {
        VlStatus status = vl_guard_create(&made->guard);
        if (status != VL_OK) {
            vl_free(made);
            return vl_error_frame(status, __func__, __FILE__, __LINE__);
        }
    }
    *context = made;
    return VL_OK;
}

void vl_context_free(VlContext *context) {
    if (!context) return;
    vl_arena_unbind(context, &context->activations);
    vl_arena_unbind(context, &context->scratch);
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

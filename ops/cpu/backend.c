#include <string.h>
#include <unistd.h>

#include "ops/backend.h"
#include "ops/cpu/cpu.h"
#include "ops/guard.h"

static VlStatus allocate(VlContext *context, int64_t bytes, void **memory) {
    VL_TRY(vl_guard_map(context->guard, bytes, memory));
    return VL_OK;
}

static void release(VlContext *context, void *memory) { vl_guard_unmap(context->guard, memory); }

static VlStatus copy_to_host(VlContext *context, void *host, VlTensor from) {
    (void)context;
    if (vl_bytes(from)) memcpy(host, from.data, (size_t)vl_bytes(from));
    return VL_OK;
}

static VlStatus copy_from_host(VlContext *context, VlTensor to, const void *host) {
    (void)context;
    if (vl_bytes(to)) memcpy(to.data, host, (size_t)vl_bytes(to));
    return VL_OK;
}

static const int64_t *indices(VlContext *context, VlTensor tensor) {
    (void)context;
    return tensor.data;
}

// Memory that holds files can be had, too, but the kernel tells of it in a text file only: what is left is said to be
// all.
static VlStatus memory(VlContext *context, int64_t *left, int64_t *whole) {
    (void)context;
    *left = *whole = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    return VL_OK;
}

static bool present(void) { return true; }

// A row without its backward does not link.
const VlBackend vl_backend_cpu = {
    .name = "cpu",
    .present = present,
    .allocate = allocate,
    .release = release,
    .copy_to_host = copy_to_host,
    .copy_from_host = copy_from_host,
    .indices = indices,
    .memory = memory,
    .ops =
        {
#define OP(name, forward, forward_names, backward, backward_names) \
    .name##_forward = &vl_cpu_##name##_forward, .name##_backward = &vl_cpu_##name##_backward,
#define OP_NO_GRADIENT(name, parameters, names, reason) .name = &vl_cpu_##name,
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT
        },
};

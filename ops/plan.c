// The plan backend: memory without an address, operations that compute nothing. The checks in front of them see the
// shapes, count the FLOPs and measure the scratch.
#include <string.h>

#include "ops/backend.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

static VlStatus allocate(VlContext *context, int64_t bytes, void **memory) {
    *memory = NULL;
    return VL_OK;
}

static void release(VlContext *context, void *memory) {}

static VlStatus copy_to_host(VlContext *context, void *host, VlTensor from) {
    memset(host, 0, (size_t)vl_bytes(from));
    return VL_OK;
}

static VlStatus copy_from_host(VlContext *context, VlTensor to, const void *host) { return VL_OK; }

static const int64_t *indices(VlContext *context, VlTensor tensor) { return NULL; }

static VlStatus memory(VlContext *context, int64_t *left, int64_t *whole) {
    *left = *whole = INT64_MAX;
    return VL_OK;
}

#define OP(name, forward, forward_names, backward, backward_names) \
    static VlStatus name##_forward forward { return VL_OK; }       \
    static VlStatus name##_backward backward { return VL_OK; }
#define OP_NO_GRADIENT(name, parameters, names, reason) \
    static VlStatus name parameters { return VL_OK; }
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT

const VlBackend vl_backend_plan = {
    .name = "plan",
    .allocate = allocate,
    .release = release,
    .copy_to_host = copy_to_host,
    .copy_from_host = copy_from_host,
    .indices = indices,
    .memory = memory,
    .ops =
        {
#define OP(name, forward, forward_names, backward, backward_names) \
    .name##_forward = name##_forward, .name##_backward = name##_backward,
#define OP_NO_GRADIENT(name, parameters, names, reason) .name = name,
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT
        },
};

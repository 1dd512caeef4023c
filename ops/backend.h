// What a backend is: memory and a table of operations. Included by backends, the checks, context.c and dispatch.c only.
#ifndef VL_OPS_BACKEND_H
#define VL_OPS_BACKEND_H

#include "ops/ops.h"

struct VlBackend {
    const char *name;
    bool (*present)(void);                 // whether this machine has the device; NULL: the build lacks it
    VlStatus (*open)(VlContext *context);  // sets context->state; NULL: nothing to open
    void (*close)(VlContext *context);
    VlStatus (*allocate)(VlContext *context, int64_t bytes, void **memory);  // zeroed
    void (*release)(VlContext *context, void *memory);
    VlStatus (*copy_to_host)(VlContext *context, void *host, VlTensor from);
    VlStatus (*copy_from_host)(VlContext *context, VlTensor to, const void *host);
    const int64_t *(*indices)(VlContext *context, VlTensor tensor);  // see vl_indices
    VlStatus (*wait)(VlContext *context);                            // NULL: operations are done when they return
    VlStatus (*memory)(VlContext *context, int64_t *left, int64_t *whole);
    VlOps ops;
};

extern const VlBackend vl_backend_cpu;
extern const VlBackend vl_backend_cuda;  // without CUDA in the build its `open` refuses (ops/cuda_none.c)
extern const VlBackend vl_backend_plan;

// The checks of each row: shapes and types against what ops_list.h says, and the FLOPs added to the context. One
// function per public function, called before the backend's; the operation's name is put in front of its error by
// dispatch.c. A check that reads device memory opens a window, and skips that part while planning. Helpers:
// ops/check.h.
#define OP(name, forward, forward_names, backward, backward_names) \
    VlStatus vl_check_##name##_forward forward;                    \
    VlStatus vl_check_##name##_backward backward;
#define OP_NO_GRADIENT(name, parameters, names, reason) VlStatus vl_check_##name parameters;
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT

#endif

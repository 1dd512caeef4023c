// The public functions: check, open the guard, hand over to the backend, close.
#include "ops/backend.h"

static VlStatus finish(VlStatus status, const char *name, int line) {
    if (status == VL_OK) return VL_OK;
    vl_error_frame(status, name, __FILE__, line);
    return vl_error_context(status, "%s", name);
}

#define DISPATCH(name, parameters, names)              \
    VlStatus vl_##name parameters {                    \
        VlStatus status = vl_check_##name names;       \
        if (status == VL_OK) {                         \
            vl_device_open(context);                   \
            status = context->backend->ops.name names; \
            vl_device_close(context);                  \
        }                                              \
        return finish(status, #name, __LINE__);        \
    }
#define OP(name, forward, forward_names, backward, backward_names) \
    DISPATCH(name##_forward, forward, forward_names)               \
    DISPATCH(name##_backward, backward, backward_names)
#define OP_NO_GRADIENT(name, parameters, names, reason) DISPATCH(name, parameters, names)
#include "ops/ops_list.h"

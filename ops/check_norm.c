// Checks of rmsnorm and layernorm.
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/scratch.h"
#include "ops/scratch_norm.h"

// Groups of rows as many as keep a large GPU busy; few where there are two sums, whose threads take more registers.
VlStatus vl_scratch_norm(VlContext *context, VlTensor *parts, int64_t rows, int64_t columns, int64_t sums) {
    enum { LEAST_ROWS = 4, ONE_SUM = 512 * 4096, TWO_SUMS = 384 * 4096 };
    *parts = VL_EMPTY;
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    int64_t groups = (rows + LEAST_ROWS - 1) / LEAST_ROWS, most = (sums == 1 ? ONE_SUM : TWO_SUMS) / columns;
    if (groups > most) groups = most;
    VL_TRY(vl_arena_push(&context->scratch, parts, VL_F32, sums, groups > 0 ? groups : 1, columns));
    return VL_OK;
}

static VlStatus check_scratch(VlContext *context, int64_t rows, int64_t columns, int64_t sums) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor parts, column_parts;
    VlStatus status = vl_scratch_norm(context, &parts, rows, columns, sums);
    if (status == VL_OK) status = vl_scratch_column_sums(context, &column_parts, rows, columns, sums);
    vl_arena_release(&context->scratch, mark);
    return status;
}

// A row of no columns has no mean.
static VlStatus check_rows(const VlContext *context, const char *name, VlTensor x) {
    VL_TRY(vl_check_floating(context, name, x, 2));
    if (x.dim[1] > 0) return VL_OK;
    return vl_error(VL_INVALID, "%s is %s, it must have at least one column", name, vl_describe(x));
}

// The gradient of a vector of parameters, or empty.
static VlStatus check_gradient(const VlContext *context, const char *name, VlTensor gradient, int64_t columns) {
    if (!vl_is_empty(gradient)) VL_TRY(vl_check_tensor(context, name, gradient, VL_F32, columns));
    return VL_OK;
}

VlStatus vl_check_rmsnorm_forward(VlContext *context, VlTensor y, VlTensor rstd, VlTensor x, VlTensor w, float eps) {
    (void)eps;
    VL_TRY(check_rows(context, "x", x));
    VL_TRY(vl_check_like(context, "y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_tensor(context, "rstd", rstd, VL_F32, x.dim[0]));
    VL_TRY(vl_check_tensor(context, "w", w, x.dtype, x.dim[1]));
    return VL_OK;
}

VlStatus vl_check_rmsnorm_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x, VlTensor w,
                                   VlTensor rstd, VlMode mode) {
    (void)mode;
    VL_TRY(check_rows(context, "dy", dy));
    if (!vl_is_empty(dx)) VL_TRY(vl_check_like(context, "dx", dx, "dy", dy));
    VL_TRY(check_gradient(context, "dw", dw, dy.dim[1]));
    VL_TRY(vl_check_like(context, "x", x, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "x", x));
    VL_TRY(vl_check_tensor(context, "w", w, dy.dtype, dy.dim[1]));
    VL_TRY(vl_check_tensor(context, "rstd", rstd, VL_F32, dy.dim[0]));
    if (!vl_is_empty(dw)) VL_TRY(check_scratch(context, dy.dim[0], dy.dim[1], 1));
    return VL_OK;
}

VlStatus vl_check_layernorm_forward(VlContext *context, VlTensor y, VlTensor mean, VlTensor rstd, VlTensor x,
                                    VlTensor w, VlTensor b, float eps) {
    (void)eps;
    VL_TRY(check_rows(context, "x", x));
    VL_TRY(vl_check_like(context, "y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_tensor(context, "mean", mean, VL_F32, x.dim[0]));
    VL_TRY(vl_check_tensor(context, "rstd", rstd, VL_F32, x.dim[0]));
    VL_TRY(vl_check_tensor(context, "w", w, x.dtype, x.dim[1]));
    if (!vl_is_empty(b)) VL_TRY(vl_check_tensor(context, "b", b, x.dtype, x.dim[1]));
    return VL_OK;
}

VlStatus vl_check_layernorm_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x,
                                     VlTensor w, VlTensor mean, VlTensor rstd, VlMode mode) {
    (void)mode;
    VL_TRY(check_rows(context, "dy", dy));
    if (!vl_is_empty(dx)) VL_TRY(vl_check_like(context, "dx", dx, "dy", dy));
    VL_TRY(check_gradient(context, "dw", dw, dy.dim[1]));
    VL_TRY(check_gradient(context, "db", db, dy.dim[1]));
    VL_TRY(vl_check_like(context, "x", x, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "x", x));
    VL_TRY(vl_check_tensor(context, "w", w, dy.dtype, dy.dim[1]));
    VL_TRY(vl_check_tensor(context, "mean", mean, VL_F32, dy.dim[0]));
    VL_TRY(vl_check_tensor(context, "rstd", rstd, VL_F32, dy.dim[0]));
    if (!vl_is_empty(dw) || !vl_is_empty(db)) VL_TRY(check_scratch(context, dy.dim[0], dy.dim[1], 2));
    return VL_OK;
}

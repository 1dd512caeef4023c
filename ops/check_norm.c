// Checks of rmsnorm and layernorm.
#include "ops/backend.h"
#include "ops/check.h"

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
    return VL_OK;
}

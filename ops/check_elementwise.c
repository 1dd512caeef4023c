// Checks of the rows that go element by element: rotary, swiglu, activation, add_tensors, zero, cast, square_sum,
// adamw.
#include <math.h>

#include "ops/backend.h"
#include "ops/check.h"
#include "ops/scratch_norm.h"

// Any extents, but not the empty view.
static VlStatus check_present(const char *name, VlTensor tensor) {
    if (!vl_is_empty(tensor)) return VL_OK;
    return vl_error(VL_INVALID, "%s is the empty view, it must be a tensor", name);
}

// The same memory, or none in common.
static VlStatus check_in_place(const char *name, VlTensor tensor, const char *other_name, VlTensor other) {
    if (tensor.data != other.data) VL_TRY(vl_check_apart(name, tensor, other_name, other));
    return VL_OK;
}

static VlStatus check_floating(const VlContext *context, const char *name, VlTensor tensor) {
    VL_TRY(check_present(name, tensor));
    VL_TRY(vl_check_floating(context, name, tensor, tensor.dims));
    return VL_OK;
}

VlStatus vl_check_rotary_table(VlContext *context, VlTensor table, VlTensor positions, double theta) {
    VL_TRY(vl_check_tensor(context, "positions", positions, VL_I64, VL_ANY));
    VL_TRY(vl_check_tensor(context, "table", table, VL_F32, positions.dim[0], VL_ANY));
    if (table.dim[1] % 2) {
        return vl_error(VL_INVALID, "table is %s, its rows must have an even size", vl_describe(table));
    }
    if (!(theta > 0) || !isfinite(theta)) return vl_error(VL_INVALID, "theta is %g, it must be positive", theta);
    return VL_OK;
}

static VlStatus check_rotary(const VlContext *context, const char *y_name, VlTensor y, const char *x_name, VlTensor x,
                             VlTensor table, int64_t heads) {
    VL_TRY(vl_check_floating(context, x_name, x, 2));
    if (!vl_is_empty(y)) VL_TRY(vl_check_like(context, y_name, y, x_name, x));
    VL_TRY(check_in_place(y_name, y, x_name, x));
    if (heads < 1 || x.dim[1] % (2 * heads)) {
        return vl_error(VL_INVALID, "%s is %s, its rows must be %lld heads of an even size", x_name, vl_describe(x),
                        (long long)heads);
    }
    VL_TRY(vl_check_tensor(context, "table", table, VL_F32, x.dim[0], x.dim[1] / heads));
    return VL_OK;
}

VlStatus vl_check_rotary_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor table, int64_t heads) {
    VL_TRY(check_present("y", y));
    VL_TRY(check_rotary(context, "y", y, "x", x, table, heads));
    return VL_OK;
}

VlStatus vl_check_rotary_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor table, int64_t heads) {
    VL_TRY(check_rotary(context, "dx", dx, "dy", dy, table, heads));
    return VL_OK;
}

VlStatus vl_check_swiglu_forward(VlContext *context, VlTensor y, VlTensor gate, VlTensor up) {
    VL_TRY(check_floating(context, "y", y));
    VL_TRY(vl_check_like(context, "gate", gate, "y", y));
    VL_TRY(vl_check_like(context, "up", up, "y", y));
    VL_TRY(vl_check_apart("y", y, "gate", gate));
    VL_TRY(vl_check_apart("y", y, "up", up));
    return VL_OK;
}

VlStatus vl_check_swiglu_backward(VlContext *context, VlTensor dgate, VlTensor dup, VlTensor dy, VlTensor gate,
                                  VlTensor up) {
    VL_TRY(check_floating(context, "dy", dy));
    if (!vl_is_empty(dgate)) VL_TRY(vl_check_like(context, "dgate", dgate, "dy", dy));
    if (!vl_is_empty(dup)) VL_TRY(vl_check_like(context, "dup", dup, "dy", dy));
    VL_TRY(vl_check_like(context, "gate", gate, "dy", dy));
    VL_TRY(vl_check_like(context, "up", up, "dy", dy));
    VL_TRY(vl_check_apart("dgate", dgate, "dup", dup));
    VL_TRY(vl_check_apart("dgate", dgate, "dy", dy));
    VL_TRY(vl_check_apart("dgate", dgate, "up", up));
    VL_TRY(check_in_place("dgate", dgate, "gate", gate));
    VL_TRY(vl_check_apart("dup", dup, "dy", dy));
    VL_TRY(vl_check_apart("dup", dup, "gate", gate));
    VL_TRY(check_in_place("dup", dup, "up", up));
    return VL_OK;
}

static VlStatus check_kind(VlActivation kind) {
    if (kind >= VL_SILU && kind <= VL_QUICK_GELU) return VL_OK;
    return vl_error(VL_INVALID, "kind is %d, which is no activation", (int)kind);
}

VlStatus vl_check_activation_forward(VlContext *context, VlTensor y, VlTensor x, VlActivation kind) {
    VL_TRY(check_floating(context, "y", y));
    VL_TRY(vl_check_like(context, "x", x, "y", y));
    VL_TRY(check_in_place("y", y, "x", x));
    VL_TRY(check_kind(kind));
    return VL_OK;
}

VlStatus vl_check_activation_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor x, VlActivation kind) {
    VL_TRY(check_floating(context, "dy", dy));
    if (!vl_is_empty(dx)) VL_TRY(vl_check_like(context, "dx", dx, "dy", dy));
    VL_TRY(vl_check_like(context, "x", x, "dy", dy));
    VL_TRY(check_in_place("dx", dx, "dy", dy));
    VL_TRY(vl_check_apart("dx", dx, "x", x));
    VL_TRY(check_kind(kind));
    return VL_OK;
}

VlStatus vl_check_add_tensors(VlContext *context, VlTensor y, VlTensor a, float scale, VlTensor b) {
    (void)scale;
    VL_TRY(check_floating(context, "y", y));
    VL_TRY(vl_check_like(context, "a", a, "y", y));
    if (!vl_is_empty(b)) VL_TRY(vl_check_like(context, "b", b, "y", y));
    VL_TRY(check_in_place("y", y, "a", a));
    VL_TRY(check_in_place("y", y, "b", b));
    return VL_OK;
}

VlStatus vl_check_zero(VlContext *context, VlTensor y) {
    VL_TRY(check_present("y", y));
    VL_TRY(vl_check_like(context, "y", y, "y", y));
    return VL_OK;
}

VlStatus vl_check_cast(VlContext *context, VlTensor y, VlTensor x) {
    VL_TRY(check_present("y", y));
    bool floating = (y.dtype == VL_F32 || y.dtype == VL_BF16) && (x.dtype == VL_F32 || x.dtype == VL_BF16);
    VlTensor like = y;
    like.dtype = floating ? x.dtype : y.dtype;
    VL_TRY(vl_check_like(context, "y", y, "y", y));
    VL_TRY(vl_check_like(context, "x", x, "y", like));
    VL_TRY(vl_check_apart("y", y, "x", x));
    return VL_OK;
}

// Four blocks for each multiprocessor of a large GPU.
VlStatus vl_scratch_square_sum(VlContext *context, VlTensor *parts, int64_t elements) {
    enum { MOST = 528, LEAST_ELEMENTS = 4096 };
    *parts = VL_EMPTY;
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    int64_t blocks = (elements + LEAST_ELEMENTS - 1) / LEAST_ELEMENTS;
    VL_TRY(vl_arena_push(&context->scratch, parts, VL_F64, blocks < MOST ? blocks : MOST));
    return VL_OK;
}

VlStatus vl_check_square_sum(VlContext *context, VlTensor sum, VlTensor x) {
    VL_TRY(vl_check_tensor(context, "sum", sum, VL_F64, 1));
    VL_TRY(check_present("x", x));
    VL_TRY(vl_check_tensor_make(context, "x", x, VL_F32, x.dims, x.dim));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor parts;
    VlStatus status = vl_scratch_square_sum(context, &parts, vl_elements(x));
    vl_arena_release(&context->scratch, mark);
    return status;
}

VlStatus vl_check_adamw(VlContext *context, VlTensor weight, VlTensor remainder, VlTensor moment1, VlTensor moment2,
                        VlTensor gradient, VlAdamW settings) {
    VL_TRY(vl_check_floating(context, "weight", weight, 1));
    if (weight.dtype == VL_BF16) {
        VL_TRY(vl_check_tensor(context, "remainder", remainder, VL_I16, weight.dim[0]));
    } else if (!vl_is_empty(remainder)) {
        return vl_error(VL_INVALID, "remainder is %s, it must be empty beside an f32 weight", vl_describe(remainder));
    }
    VL_TRY(vl_check_tensor(context, "moment1", moment1, VL_F32, weight.dim[0]));
    VL_TRY(vl_check_tensor(context, "moment2", moment2, VL_F32, weight.dim[0]));
    VL_TRY(vl_check_tensor(context, "gradient", gradient, VL_F32, weight.dim[0]));
    if (settings.step < 1) {
        return vl_error(VL_INVALID, "step is %lld, steps count from 1", (long long)settings.step);
    }
    bool betas = settings.beta1 >= 0 && settings.beta1 < 1 && settings.beta2 >= 0 && settings.beta2 < 1;
    if (betas && settings.eps >= 0) return VL_OK;
    return vl_error(VL_INVALID, "beta1 is %g, beta2 %g, eps %g: the betas must be in [0, 1), eps at least 0",
                    settings.beta1, settings.beta2, settings.eps);
}

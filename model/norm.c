#include "model/norm.h"

#include <stdio.h>

#include "model/linear.h"

VlStatus vl_norm_plan_rmsnorm(VlParams *params, VlNorm *norm, const char *prefix, VlGroup group, int64_t size,
                              float eps) {
    char name[512];
    *norm = (VlNorm){.size = size, .eps = eps};
    snprintf(name, sizeof name, "%s.weight", prefix);
    VL_TRY(vl_params_register(params, &norm->weight, name, group, (VlInit){.kind = VL_INIT_ONES}, false, size));
    return VL_OK;
}

VlStatus vl_norm_plan_layernorm(VlParams *params, VlNorm *norm, const char *prefix, VlGroup group, int64_t size,
                                float eps) {
    char name[512];
    VL_TRY(vl_norm_plan_rmsnorm(params, norm, prefix, group, size, eps));
    snprintf(name, sizeof name, "%s.bias", prefix);
    VL_TRY(vl_params_register(params, &norm->bias, name, group, (VlInit){.kind = VL_INIT_ZEROS}, false, size));
    return VL_OK;
}

VlStatus vl_norm_forward(VlContext *context, const VlNorm *norm, VlTensor y, VlTensor x, VlArena *arena,
                         VlNormSaved *saved) {
    VlTensor from = vl_as_rows(x, norm->size), to = vl_as_rows(y, norm->size);
    *saved = (VlNormSaved){0};
    VL_TRY(vl_arena_push(arena, &saved->rstd, VL_F32, from.dim[0]));
    if (!norm->bias) {
        VL_TRY(vl_rmsnorm_forward(context, to, saved->rstd, from, norm->weight->value, norm->eps));
        return VL_OK;
    }
    VL_TRY(vl_arena_push(arena, &saved->mean, VL_F32, from.dim[0]));
    VL_TRY(vl_layernorm_forward(context, to, saved->mean, saved->rstd, from, norm->weight->value, norm->bias->value,
                                norm->eps));
    return VL_OK;
}

VlStatus vl_norm_again(VlContext *context, const VlNorm *norm, bool wanted, VlTensor x, VlTensor *y) {
    VlNormSaved statistics;
    *y = x;
    if (!wanted) return VL_OK;
    VL_TRY(vl_arena_push(&context->scratch, y, x.dtype, x.dim[0], x.dim[1]));
    return vl_norm_forward(context, norm, *y, x, &context->scratch, &statistics);
}

VlStatus vl_norm_backward(VlContext *context, const VlNorm *norm, VlTensor dx, VlTensor dy, VlTensor x,
                          const VlNormSaved *saved, VlMode mode) {
    VlTensor dw = norm->weight->gradient, db = norm->bias ? norm->bias->gradient : VL_EMPTY;
    if (vl_is_empty(dx) && vl_is_empty(dw) && vl_is_empty(db)) return VL_OK;
    VlTensor to = vl_is_empty(dx) ? VL_EMPTY : vl_as_rows(dx, norm->size);
    VlTensor from = vl_as_rows(x, norm->size), above = vl_as_rows(dy, norm->size);
    if (norm->bias) {
        VL_TRY(vl_layernorm_backward(context, to, dw, db, above, from, norm->weight->value, saved->mean, saved->rstd,
                                     mode));
    } else {
        VL_TRY(vl_rmsnorm_backward(context, to, dw, above, from, norm->weight->value, saved->rstd, mode));
    }
    return VL_OK;
}

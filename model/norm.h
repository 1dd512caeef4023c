// A normalisation over the last extent: LayerNorm (weight and bias) or RMSNorm (weight alone).
#ifndef VL_MODEL_NORM_H
#define VL_MODEL_NORM_H

#include "model/params.h"

typedef struct VlNorm {
    VlParam *weight;
    VlParam *bias;  // NULL: this is an RMSNorm
    int64_t size;
    float eps;
} VlNorm;

// What forward leaves for backward: f32, one element per row. mean is empty for RMSNorm.
typedef struct VlNormSaved {
    VlTensor mean, rstd;
} VlNormSaved;

// Registers PREFIX.weight (ones) and, for LayerNorm, PREFIX.bias (zeros); no weight decay.
VlStatus vl_norm_plan_layernorm(VlParams *params, VlNorm *norm, const char *prefix, VlGroup group, int64_t size,
                                float eps);
VlStatus vl_norm_plan_rmsnorm(VlParams *params, VlNorm *norm, const char *prefix, VlGroup group, int64_t size,
                              float eps);

// y = norm(x) over rows of `size`; the statistics are pushed onto `arena` (activations to keep them, else scratch).
VlStatus vl_norm_forward(VlContext *context, const VlNorm *norm, VlTensor y, VlTensor x, VlArena *arena,
                         VlNormSaved *saved);
// In backward: *y = norm(x) again, on scratch, where it is `wanted`. A frozen layer's backward does not read its input:
// there x, which has the same extents, stands in.
VlStatus vl_norm_again(VlContext *context, const VlNorm *norm, bool wanted, VlTensor x, VlTensor *y);
// dx (+)= the gradient of x; adds the gradients of weight and bias where they are trained. dx empty: not wanted.
VlStatus vl_norm_backward(VlContext *context, const VlNorm *norm, VlTensor dx, VlTensor dy, VlTensor x,
                          const VlNormSaved *saved, VlMode mode);

#endif

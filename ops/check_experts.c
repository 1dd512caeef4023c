// Checks of the rows of a mixture of experts: route, group_slots, grouped_linear, combine.
#include "ops/backend.h"
#include "ops/check.h"

// ---- route -----------------------------------------------------------------

static VlStatus check_choice(const VlContext *context, VlTensor weights, VlTensor experts, const char *logits_name,
                             VlTensor logits) {
    VL_TRY(vl_check_floating(context, logits_name, logits, 2));
    VL_TRY(vl_check_tensor(context, "weights", weights, VL_F32, logits.dim[0], VL_ANY));
    VL_TRY(vl_check_tensor(context, "experts", experts, VL_I64, logits.dim[0], weights.dim[1]));
    if (weights.dim[1] >= 1 && weights.dim[1] <= logits.dim[1]) return VL_OK;
    return vl_error(VL_INVALID, "weights are %s, a token has at least one expert and at most the %lld of %s %s",
                    vl_describe(weights), (long long)logits.dim[1], logits_name, vl_describe(logits));
}

VlStatus vl_check_route_forward(VlContext *context, VlTensor weights, VlTensor experts, VlTensor logits) {
    VL_TRY(check_choice(context, weights, experts, "logits", logits));
    VL_TRY(vl_check_apart("weights", weights, "logits", logits));
    VL_TRY(vl_check_apart("experts", experts, "logits", logits));
    return vl_check_apart("experts", experts, "weights", weights);
}

VlStatus vl_check_route_backward(VlContext *context, VlTensor dlogits, VlTensor dweights, VlTensor weights,
                                 VlTensor experts) {
    VL_TRY(vl_check_tensor(context, "dweights", dweights, VL_F32, VL_ANY, VL_ANY));
    VL_TRY(vl_check_like(context, "weights", weights, "dweights", dweights));
    VL_TRY(vl_check_tensor(context, "experts", experts, VL_I64, weights.dim[0], weights.dim[1]));
    if (vl_is_empty(dlogits)) return VL_OK;
    VL_TRY(check_choice(context, weights, experts, "dlogits", dlogits));
    VL_TRY(vl_check_apart("dlogits", dlogits, "dweights", dweights));
    VL_TRY(vl_check_apart("dlogits", dlogits, "weights", weights));
    VL_TRY(vl_check_apart("dlogits", dlogits, "experts", experts));
    return vl_check_indices(context, "experts", experts, dlogits.dim[1]);
}

// ---- group_slots -----------------------------------------------------------

VlStatus vl_check_group_slots(VlContext *context, VlTensor offsets, VlTensor tokens, VlTensor places,
                              VlTensor experts) {
    VL_TRY(vl_check_tensor(context, "experts", experts, VL_I64, VL_ANY, VL_ANY));
    VL_TRY(vl_check_tensor(context, "offsets", offsets, VL_I64, VL_ANY));
    if (offsets.dim[0] < 1) {
        return vl_error(VL_INVALID, "offsets is %s, it must hold at least one offset", vl_describe(offsets));
    }
    VL_TRY(vl_check_tensor(context, "tokens", tokens, VL_I64, vl_elements(experts)));
    VL_TRY(vl_check_like(context, "places", places, "tokens", tokens));
    const VlTensor all[] = {offsets, tokens, places, experts};
    static const char *const names[] = {"offsets", "tokens", "places", "experts"};
    for (int i = 0; i < 3; i++) {
        for (int j = i + 1; j < 4; j++) VL_TRY(vl_check_apart(names[i], all[i], names[j], all[j]));
    }
    return vl_check_indices(context, "experts", experts, offsets.dim[0] - 1);
}

// ---- grouped_linear --------------------------------------------------------

static VlStatus check_experts(VlContext *context, VlTensor w, VlTensor offsets, const char *x_name, VlTensor x) {
    VL_TRY(vl_check_floating(context, "w", w, 3));
    if (w.dtype != x.dtype) {
        return vl_error(VL_INVALID, "w is %s and %s is %s, they must be of one type", vl_describe(w), x_name,
                        vl_describe(x));
    }
    VL_TRY(vl_check_tensor(context, "offsets", offsets, VL_I64, w.dim[0] + 1));
    return vl_check_sequences(context, "offsets", offsets, x_name, x.dim[0]);
}

VlStatus vl_check_grouped_linear_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor offsets,
                                         VlMode mode) {
    (void)mode;
    VL_TRY(vl_check_floating(context, "x", x, 2));
    VL_TRY(check_experts(context, w, offsets, "x", x));
    int64_t rows = x.dim[0], in = x.dim[1], out = w.dim[1];
    VL_TRY(vl_check_tensor(context, "w", w, x.dtype, w.dim[0], out, in));
    VL_TRY(vl_check_tensor(context, "y", y, x.dtype, rows, out));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "w", w));
    context->flops.of[VL_PRODUCT_GROUPED_LINEAR][VL_PASS_FORWARD] += 2 * rows * in * out;
    return VL_OK;
}

VlStatus vl_check_grouped_linear_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x,
                                          VlTensor w, VlTensor offsets, VlMode mode) {
    (void)mode;
    VL_TRY(vl_check_floating(context, "dy", dy, 2));
    VL_TRY(check_experts(context, w, offsets, "dy", dy));
    int64_t rows = dy.dim[0], in = w.dim[2], out = w.dim[1], *flops = context->flops.of[VL_PRODUCT_GROUPED_LINEAR];
    VL_TRY(vl_check_tensor(context, "dy", dy, dy.dtype, rows, out));
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_check_tensor(context, "dx", dx, dy.dtype, rows, in));
        VL_TRY(vl_check_apart("dx", dx, "dy", dy));
        VL_TRY(vl_check_apart("dx", dx, "w", w));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_check_tensor(context, "x", x, dy.dtype, rows, in));
        VL_TRY(vl_check_tensor(context, "dw", dw, VL_F32, w.dim[0], out, in));
        VL_TRY(vl_check_apart("dx", dx, "x", x));
    }
    if (!vl_is_empty(dx)) flops[VL_PASS_INPUTS] += 2 * rows * in * out;
    if (!vl_is_empty(dw)) flops[VL_PASS_WEIGHTS] += 2 * rows * in * out;
    return VL_OK;
}

// ---- combine ---------------------------------------------------------------

static VlStatus check_combine(VlContext *context, const char *y_name, VlTensor y, VlTensor x, VlTensor weights,
                              VlTensor places) {
    VL_TRY(vl_check_floating(context, "x", x, 2));
    VL_TRY(vl_check_tensor(context, "weights", weights, VL_F32, VL_ANY, VL_ANY));
    VL_TRY(vl_check_tensor(context, "x", x, x.dtype, vl_elements(weights), x.dim[1]));
    VL_TRY(vl_check_tensor(context, y_name, y, x.dtype, weights.dim[0], x.dim[1]));
    VL_TRY(vl_check_tensor(context, "places", places, VL_I64, x.dim[0]));
    return vl_check_indices(context, "places", places, x.dim[0]);
}

VlStatus vl_check_combine_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor weights, VlTensor places,
                                  VlMode mode) {
    (void)mode;
    VL_TRY(check_combine(context, "y", y, x, weights, places));
    VL_TRY(vl_check_apart("y", y, "x", x));
    return vl_check_apart("y", y, "weights", weights);
}

VlStatus vl_check_combine_backward(VlContext *context, VlTensor dx, VlTensor dweights, VlTensor dy, VlTensor x,
                                   VlTensor weights, VlTensor places) {
    VL_TRY(check_combine(context, "dy", dy, x, weights, places));
    const VlTensor inputs[] = {dy, x, weights};
    static const char *const names[] = {"dy", "x", "weights"};
    if (!vl_is_empty(dx)) VL_TRY(vl_check_like(context, "dx", dx, "x", x));
    if (!vl_is_empty(dweights)) VL_TRY(vl_check_like(context, "dweights", dweights, "weights", weights));
    for (int i = 0; i < 3; i++) {
        VL_TRY(vl_check_apart("dx", dx, names[i], inputs[i]));
        VL_TRY(vl_check_apart("dweights", dweights, names[i], inputs[i]));
    }
    return vl_check_apart("dx", dx, "dweights", dweights);
}

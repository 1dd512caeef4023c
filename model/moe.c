#include "model/moe.h"

#include <stdio.h>

// PREFIX.experts.E.NAME.weight [output, input] of all experts, one right behind the other.
static VlStatus plan_experts(VlParams *params, VlExperts *experts, const char *prefix, const char *name,
                             const VlDecoderConfig *config, int64_t output, int64_t input) {
    VlInit init = {VL_INIT_NORMAL, config->initializer_range};
    *experts = (VlExperts){.count = config->experts};
    for (int64_t i = 0; i < experts->count; i++) {
        char full[200];
        VlParam *param;
        snprintf(full, sizeof full, "%s.experts.%lld.%s.weight", prefix, (long long)i, name);
        VL_TRY(vl_params_register(params, &param, full, VL_GROUP_LLM, init, true, output, input));
        param->joined = i > 0;
        if (i == 0) experts->first = param;
    }
    return VL_OK;
}

VlStatus vl_moe_plan(VlParams *params, VlMoe *moe, const char *prefix, const VlDecoderConfig *config) {
    int64_t hidden = config->hidden, intermediate = config->intermediate;
    char router[160];
    *moe = (VlMoe){
        .experts = config->experts, .experts_per_token = config->experts_per_token, .intermediate = intermediate};
    snprintf(router, sizeof router, "%s.gate", prefix);
    VlInit init = {VL_INIT_NORMAL, config->initializer_range};
    VL_TRY(vl_linear_layer_plan(params, &moe->router, router, VL_GROUP_LLM, init, config->experts, hidden, false));
    VL_TRY(plan_experts(params, &moe->gate, prefix, "w1", config, intermediate, hidden));
    VL_TRY(plan_experts(params, &moe->up, prefix, "w3", config, intermediate, hidden));
    return plan_experts(params, &moe->down, prefix, "w2", config, hidden, intermediate);
}

// The first expert's matrix, with those of the others behind it; an empty one stays empty.
static VlTensor together(VlTensor first, int64_t experts) {
    if (vl_is_empty(first)) return VL_EMPTY;
    return vl_tensor(first.data, first.dtype, experts, first.dim[0], first.dim[1]);
}

static VlStatus experts_forward(VlContext *context, const VlExperts *experts, VlTensor y, VlTensor x,
                                VlTensor offsets) {
    VlTensor weight = together(experts->first->value, experts->count);
    return vl_grouped_linear_forward(context, y, x, weight, offsets, VL_WRITE);
}

static VlStatus experts_backward(VlContext *context, const VlExperts *experts, VlTensor dx, VlTensor dy, VlTensor x,
                                 VlTensor offsets, VlMode mode) {
    VlTensor weight = together(experts->first->value, experts->count);
    VlTensor dweight = together(experts->first->gradient, experts->count);
    return vl_grouped_linear_backward(context, dx, dweight, dy, x, weight, offsets, mode);
}

// Which experts a token goes to, with which weights, and the slots in the order of their experts.
static VlStatus route(VlContext *context, VlMoe *moe, VlTensor x, VlArena *arena) {
    int64_t tokens = x.dim[0], slots = tokens * moe->experts_per_token;
    VlTensor logits;
    VL_TRY(vl_arena_push(arena, &moe->saved.weights, VL_F32, tokens, moe->experts_per_token));
    VL_TRY(vl_arena_push(arena, &moe->saved.chosen, VL_I64, tokens, moe->experts_per_token));
    VL_TRY(vl_arena_push(arena, &moe->saved.offsets, VL_I64, moe->experts + 1));
    VL_TRY(vl_arena_push(arena, &moe->saved.tokens, VL_I64, slots));
    VL_TRY(vl_arena_push(arena, &moe->saved.places, VL_I64, slots));
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(vl_arena_push(&context->scratch, &logits, x.dtype, tokens, moe->experts));
    VL_TRY(vl_linear_layer_forward(context, &moe->router, logits, x, VL_WRITE));
    VL_TRY(vl_route_forward(context, moe->saved.weights, moe->saved.chosen, logits));
    VL_TRY(vl_group_slots(context, moe->saved.offsets, moe->saved.tokens, moe->saved.places, moe->saved.chosen));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_moe_forward(VlContext *context, VlMoe *moe, VlTensor y, VlTensor x, bool keep) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    int64_t mark = vl_arena_mark(&context->scratch), slots = x.dim[0] * moe->experts_per_token;
    VlTensor gathered, gate, up, product, output;
    VL_TRY(route(context, moe, x, arena));
    VlTensor offsets = moe->saved.offsets;
    VL_TRY(vl_arena_push(arena, &gate, x.dtype, slots, moe->intermediate));
    VL_TRY(vl_arena_push(arena, &up, x.dtype, slots, moe->intermediate));
    VL_TRY(vl_arena_push(arena, &output, x.dtype, slots, x.dim[1]));
    int64_t inner = vl_arena_mark(&context->scratch);
    VL_TRY(vl_arena_push(&context->scratch, &gathered, x.dtype, slots, x.dim[1]));
    VL_TRY(vl_gather_rows_forward(context, gathered, x, moe->saved.tokens));
    VL_TRY(experts_forward(context, &moe->gate, gate, gathered, offsets));
    VL_TRY(experts_forward(context, &moe->up, up, gathered, offsets));
    vl_arena_release(&context->scratch, inner);
    VL_TRY(vl_arena_push(&context->scratch, &product, x.dtype, slots, moe->intermediate));
    VL_TRY(vl_swiglu_forward(context, product, gate, up));
    VL_TRY(experts_forward(context, &moe->down, output, product, offsets));
    VL_TRY(vl_combine_forward(context, y, output, moe->saved.weights, moe->saved.places, VL_ADD));
    moe->saved.gate = gate;
    moe->saved.up = up;
    moe->saved.output = output;
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

// From the gradient of the sum to those of the router's logits and, in the place of what was saved, of gate and up.
static VlStatus outputs_backward(VlContext *context, VlMoe *moe, VlTensor dlogits, VlTensor d) {
    int64_t mark = vl_arena_mark(&context->scratch), slots = moe->saved.gate.dim[0];
    VlTensor gate = moe->saved.gate, up = moe->saved.up, weights = moe->saved.weights;
    VlTensor doutput, dweights, dproduct, product = gate;  // not read when down is frozen
    VL_TRY(vl_arena_push(&context->scratch, &dproduct, d.dtype, slots, moe->intermediate));
    VL_TRY(vl_arena_push(&context->scratch, &doutput, d.dtype, slots, d.dim[1]));
    VL_TRY(vl_arena_push(&context->scratch, &dweights, VL_F32, weights.dim[0], weights.dim[1]));
    VL_TRY(vl_combine_backward(context, doutput, dweights, d, moe->saved.output, weights, moe->saved.places));
    VL_TRY(vl_route_backward(context, dlogits, dweights, weights, moe->saved.chosen));
    if (moe->down.first->trainable) {
        VL_TRY(vl_arena_push(&context->scratch, &product, d.dtype, slots, moe->intermediate));
        VL_TRY(vl_swiglu_forward(context, product, gate, up));
    }
    VL_TRY(experts_backward(context, &moe->down, dproduct, doutput, product, moe->saved.offsets, VL_WRITE));
    VL_TRY(vl_swiglu_backward(context, gate, up, dproduct, gate, up));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

// dx[T,H] from the gradients of gate and up, and that of the logits; x is read only where the layers train.
static VlStatus inputs_backward(VlContext *context, VlMoe *moe, VlTensor dx, VlTensor dlogits, VlTensor x) {
    int64_t mark = vl_arena_mark(&context->scratch), slots = moe->saved.gate.dim[0];
    VlTensor gathered = moe->saved.output, dgathered, offsets = moe->saved.offsets;
    VL_TRY(vl_arena_push(&context->scratch, &dgathered, dx.dtype, slots, dx.dim[1]));
    if (moe->gate.first->trainable) VL_TRY(vl_gather_rows_forward(context, gathered, x, moe->saved.tokens));
    VL_TRY(experts_backward(context, &moe->gate, dgathered, moe->saved.gate, gathered, offsets, VL_WRITE));
    VL_TRY(experts_backward(context, &moe->up, dgathered, moe->saved.up, gathered, offsets, VL_ADD));
    VL_TRY(vl_gather_rows_backward(context, dx, dgathered, moe->saved.tokens));
    VL_TRY(vl_linear_layer_backward(context, &moe->router, dx, dlogits, x, VL_ADD));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_moe_backward(VlContext *context, VlMoe *moe, VlTensor d, VlTensor y, const VlNorm *norm,
                         const VlNormSaved *statistics) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor dlogits, x, dx;
    VL_TRY(vl_arena_push(&context->scratch, &dlogits, d.dtype, d.dim[0], moe->experts));
    VL_TRY(outputs_backward(context, moe, dlogits, d));
    VL_TRY(vl_norm_again(context, norm, moe->router.weight->trainable, y, &x));
    VL_TRY(vl_arena_push(&context->scratch, &dx, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(inputs_backward(context, moe, dx, dlogits, x));
    VL_TRY(vl_norm_backward(context, norm, d, dx, y, statistics, VL_ADD));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

#include <math.h>
#include <stdio.h>

#include "model/beats.h"

static VlStatus plan_linear(VlParams *params, VlLinear *layer, const char *prefix, const char *name, float deviation,
                            int64_t output, int64_t input) {
    char path[384];
    snprintf(path, sizeof path, "%s.%s", prefix, name);
    VL_TRY(vl_linear_layer_plan(params, layer, path, VL_GROUP_AUDIO_TOWER,
                                (VlInit){.kind = VL_INIT_NORMAL, .scale = deviation}, output, input, true));
    return VL_OK;
}

static VlStatus plan_norm(VlParams *params, VlNorm *norm, const char *prefix, const char *name, int64_t size) {
    char path[384];
    snprintf(path, sizeof path, "%s.%s", prefix, name);
    VL_TRY(vl_norm_plan_layernorm(params, norm, path, VL_GROUP_AUDIO_TOWER, size, VL_BEATS_EPS));
    return VL_OK;
}

VlStatus vl_beats_block_plan(VlParams *params, VlBeatsBlock *block, const char *prefix, const VlAudioConfig *config) {
    enum { GATE_ROWS = 8 };
    int64_t hidden = config->hidden, middle = config->intermediate, heads = config->heads;
    char path[384];
    // Deep norm's initialisation: what feeds a residual is smaller by (8 layers)^(1/4).
    float wide = (float)(1 / sqrt((double)hidden)), deep = wide / (float)pow(8.0 * (double)config->layers, 0.25);
    *block = (VlBeatsBlock){
        .heads = heads, .residual = (float)pow(2.0 * (double)config->layers, 0.25), .decay = config->gradient_decay};
    VL_TRY(plan_linear(params, &block->query, prefix, "self_attn.q_proj", wide, hidden, hidden));
    VL_TRY(plan_linear(params, &block->key, prefix, "self_attn.k_proj", wide, hidden, hidden));
    VL_TRY(plan_linear(params, &block->value, prefix, "self_attn.v_proj", deep, hidden, hidden));
    VL_TRY(plan_linear(params, &block->out, prefix, "self_attn.out_proj", deep, hidden, hidden));
    VL_TRY(plan_linear(params, &block->gate, prefix, "self_attn.grep_linear", wide, GATE_ROWS, hidden / heads));
    snprintf(path, sizeof path, "%s.self_attn.grep_a", prefix);
    VL_TRY(vl_params_register(params, &block->gate_scale, path, VL_GROUP_AUDIO_TOWER, (VlInit){.kind = VL_INIT_ONES},
                              false, 1, heads, 1, 1));
    VL_TRY(plan_norm(params, &block->attention_norm, prefix, "self_attn_layer_norm", hidden));
    VL_TRY(plan_linear(params, &block->fc1, prefix, "fc1", deep, middle, hidden));
    VL_TRY(plan_linear(params, &block->fc2, prefix, "fc2", deep, hidden, middle));
    VL_TRY(plan_norm(params, &block->final_norm, prefix, "final_layer_norm", hidden));
    return VL_OK;
}

static VlTensor scale_values(const VlBeatsBlock *block) { return vl_reshape(block->gate_scale->value, block->heads); }

// norm(residual * x + y); y is where the sum is left.
static VlStatus add_and_norm(VlContext *context, const VlBeatsBlock *block, const VlNorm *norm, VlTensor out,
                             VlTensor x, VlTensor y, VlArena *arena, VlNormSaved *statistics) {
    VL_TRY(vl_add_tensors(context, y, x, block->residual, y));
    VL_TRY(vl_norm_forward(context, norm, out, y, arena, statistics));
    return VL_OK;
}

// y = out_proj(attention(x)).
static VlStatus forward_attention(VlContext *context, VlBeatsBlock *block, VlTensor x, VlTensor y,
                                  const VlBeatsPass *pass) {
    VlArena *arena = pass->keep ? &context->activations : &context->scratch;
    int64_t rows = x.dim[0], hidden = x.dim[1];
    VlTensor q, k, v, o, lse = VL_EMPTY, gate;
    VL_TRY(vl_arena_push(arena, &q, x.dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &k, x.dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &v, x.dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &o, x.dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &gate, VL_F32, rows, block->heads));
    if (pass->keep) VL_TRY(vl_arena_push(arena, &lse, VL_F32, block->heads, rows));
    VL_TRY(vl_linear_layer_forward(context, &block->query, q, x, VL_WRITE));
    VL_TRY(vl_linear_layer_forward(context, &block->key, k, x, VL_WRITE));
    VL_TRY(vl_linear_layer_forward(context, &block->value, v, x, VL_WRITE));
    VL_TRY(vl_relative_gate_forward(context, gate, q, block->gate.weight->value, block->gate.bias->value,
                                    scale_values(block)));
    VL_TRY(vl_biased_attention_forward(context, o, lse, q, k, v, pass->bias, gate, pass->cu_seqlens, block->heads));
    VL_TRY(vl_linear_layer_forward(context, &block->out, y, o, VL_WRITE));
    if (pass->keep) {
        block->saved.q = q, block->saved.k = k, block->saved.v = v, block->saved.o = o, block->saved.lse = lse;
        block->saved.gate_values = gate;
    }
    return VL_OK;
}

// y = fc2(gelu(fc1(x))).
static VlStatus forward_mlp(VlContext *context, VlBeatsBlock *block, VlTensor x, VlTensor y, bool keep) {
    VlTensor hidden, active;
    VL_TRY(
        vl_arena_push(keep ? &context->activations : &context->scratch, &hidden, x.dtype, x.dim[0], block->fc1.output));
    active = hidden;
    if (keep) VL_TRY(vl_arena_push(&context->scratch, &active, x.dtype, x.dim[0], block->fc1.output));
    VL_TRY(vl_linear_layer_forward(context, &block->fc1, hidden, x, VL_WRITE));
    VL_TRY(vl_activation_forward(context, active, hidden, VL_GELU_ERF));
    VL_TRY(vl_linear_layer_forward(context, &block->fc2, y, active, VL_WRITE));
    if (keep) block->saved.hidden = hidden;
    return VL_OK;
}

VlStatus vl_beats_block_forward(VlContext *context, VlBeatsBlock *block, VlTensor *x, const VlBeatsPass *pass) {
    if (block->dropped) return VL_OK;
    VlArena *arena = pass->keep ? &context->activations : &context->scratch;
    int64_t mark = vl_arena_mark(&context->scratch), rows = x->dim[0], hidden = x->dim[1];
    VlTensor y = *x, middle, summed1, summed2;
    VlNormSaved statistics1, statistics2;
    if (pass->keep) VL_TRY(vl_arena_push(arena, &y, x->dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &middle, x->dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &summed1, x->dtype, rows, hidden));
    int64_t temporaries = vl_arena_mark(&context->scratch);
    VL_TRY(forward_attention(context, block, *x, summed1, pass));
    VL_TRY(add_and_norm(context, block, &block->attention_norm, middle, *x, summed1, arena, &statistics1));
    vl_arena_release(&context->scratch, temporaries);
    summed2 = summed1;
    if (pass->keep) VL_TRY(vl_arena_push(arena, &summed2, x->dtype, rows, hidden));
    VL_TRY(forward_mlp(context, block, middle, summed2, pass->keep));
    VL_TRY(add_and_norm(context, block, &block->final_norm, y, middle, summed2, arena, &statistics2));
    vl_arena_release(&context->scratch, mark);
    if (pass->keep) {
        block->saved.x = *x, block->saved.middle = middle;
        block->saved.summed1 = summed1, block->saved.statistics1 = statistics1;
        block->saved.summed2 = summed2, block->saved.statistics2 = statistics2;
    }
    *x = y;
    return VL_OK;
}

// d of the block's output becomes d of `middle`.
static VlStatus backward_mlp(VlContext *context, VlBeatsBlock *block, VlTensor d) {
    VlArena *scratch = &context->scratch;
    VlTensor hidden = block->saved.hidden, dsummed, active, dhidden;
    VL_TRY(vl_arena_push(scratch, &dsummed, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_arena_push(scratch, &active, d.dtype, hidden.dim[0], hidden.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dhidden, d.dtype, hidden.dim[0], hidden.dim[1]));
    VL_TRY(vl_norm_backward(context, &block->final_norm, dsummed, d, block->saved.summed2, &block->saved.statistics2,
                            VL_WRITE));
    VL_TRY(vl_activation_forward(context, active, hidden, VL_GELU_ERF));
    VL_TRY(vl_linear_layer_backward(context, &block->fc2, dhidden, dsummed, active, VL_WRITE));
    VL_TRY(vl_activation_backward(context, dhidden, dhidden, hidden, VL_GELU_ERF));
    VL_TRY(vl_add_tensors(context, d, dsummed, block->residual, VL_EMPTY));
    VL_TRY(vl_linear_layer_backward(context, &block->fc1, d, dhidden, block->saved.middle, VL_ADD));
    return VL_OK;
}

// d of `middle` becomes d of the block's input.
static VlStatus backward_attention(VlContext *context, VlBeatsBlock *block, VlTensor d, const VlBeatsPass *pass) {
    VlArena *scratch = &context->scratch;
    VlTensor x = block->saved.x, dsummed, d_o, dq, dk, dv, dgate;
    VL_TRY(vl_arena_push(scratch, &dsummed, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_arena_push(scratch, &d_o, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dq, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dk, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dv, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dgate, VL_F32, d.dim[0], block->heads));
    VL_TRY(vl_norm_backward(context, &block->attention_norm, dsummed, d, block->saved.summed1,
                            &block->saved.statistics1, VL_WRITE));
    VL_TRY(vl_linear_layer_backward(context, &block->out, d_o, dsummed, block->saved.o, VL_WRITE));
    VL_TRY(vl_biased_attention_backward(context, dq, dk, dv, pass->dbias, dgate, d_o, block->saved.q, block->saved.k,
                                        block->saved.v, block->saved.o, block->saved.lse, pass->bias,
                                        block->saved.gate_values, pass->cu_seqlens, block->heads));
    VlTensor dscale = block->gate_scale->gradient;
    if (!vl_is_empty(dscale)) dscale = vl_reshape(dscale, block->heads);
    VL_TRY(vl_relative_gate_backward(context, dq, block->gate.weight->gradient, block->gate.bias->gradient, dscale,
                                     dgate, block->saved.q, block->gate.weight->value, block->gate.bias->value,
                                     scale_values(block), VL_ADD));
    VL_TRY(vl_add_tensors(context, d, dsummed, block->residual, VL_EMPTY));
    VL_TRY(vl_linear_layer_backward(context, &block->query, d, dq, x, VL_ADD));
    VL_TRY(vl_linear_layer_backward(context, &block->key, d, dk, x, VL_ADD));
    VL_TRY(vl_linear_layer_backward(context, &block->value, d, dv, x, VL_ADD));
    return VL_OK;
}

VlStatus vl_beats_block_backward(VlContext *context, VlBeatsBlock *block, VlTensor d, const VlBeatsPass *pass) {
    int64_t mark = vl_arena_mark(&context->scratch);
    if (!block->dropped) {
        VL_TRY(backward_mlp(context, block, d));
        vl_arena_release(&context->scratch, mark);
        VL_TRY(backward_attention(context, block, d, pass));
        vl_arena_release(&context->scratch, mark);
    }
    if (block->decay != 1) VL_TRY(vl_add_tensors(context, d, d, block->decay, VL_EMPTY));
    return VL_OK;
}

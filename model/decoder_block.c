#include "model/decoder_block.h"

#include <stdio.h>

static VlStatus plan_linear(VlParams *params, VlLinear *layer, const char *block, const char *name,
                            const VlDecoderConfig *config, int64_t output, int64_t input, bool bias) {
    char prefix[160];
    snprintf(prefix, sizeof prefix, "%s.%s", block, name);
    VlInit init = {VL_INIT_NORMAL, config->initializer_range};
    return vl_linear_layer_plan(params, layer, prefix, VL_GROUP_LLM, init, output, input, bias);
}

static VlStatus plan_mlp(VlParams *params, VlDecoderBlock *block, const char *prefix, const VlDecoderConfig *config) {
    VL_TRY(plan_linear(params, &block->gate, prefix, "mlp.gate_proj", config, config->intermediate, config->hidden,
                       false));
    VL_TRY(plan_linear(params, &block->up, prefix, "mlp.up_proj", config, config->intermediate, config->hidden, false));
    return plan_linear(params, &block->down, prefix, "mlp.down_proj", config, config->hidden, config->intermediate,
                       false);
}

static VlStatus plan_moe(VlParams *params, VlDecoderBlock *block, const char *prefix, const VlDecoderConfig *config) {
    char full[160];
    snprintf(full, sizeof full, "%s.block_sparse_moe", prefix);
    return vl_moe_plan(params, &block->moe, full, config);
}

VlStatus vl_decoder_block_plan(VlParams *params, VlDecoderBlock *block, const VlDecoderConfig *config, int64_t number) {
    int64_t hidden = config->hidden, queries = config->heads * config->head_size,
            keys = config->kv_heads * config->head_size;
    char prefix[64], norm[160];
    snprintf(prefix, sizeof prefix, "model.layers.%lld", (long long)number);
    *block = (VlDecoderBlock){.number = number,
                              .heads = config->heads,
                              .kv_heads = config->kv_heads,
                              .head_size = config->head_size,
                              .intermediate = config->intermediate,
                              .first_row = params->count};
    snprintf(norm, sizeof norm, "%s.input_layernorm", prefix);
    VL_TRY(vl_norm_plan_rmsnorm(params, &block->input_norm, norm, VL_GROUP_LLM, hidden, config->eps));
    VL_TRY(plan_linear(params, &block->query, prefix, "self_attn.q_proj", config, queries, hidden, config->qkv_bias));
    VL_TRY(plan_linear(params, &block->key, prefix, "self_attn.k_proj", config, keys, hidden, config->qkv_bias));
    VL_TRY(plan_linear(params, &block->value, prefix, "self_attn.v_proj", config, keys, hidden, config->qkv_bias));
    VL_TRY(plan_linear(params, &block->out, prefix, "self_attn.o_proj", config, hidden, queries, false));
    snprintf(norm, sizeof norm, "%s.post_attention_layernorm", prefix);
    VL_TRY(vl_norm_plan_rmsnorm(params, &block->middle_norm, norm, VL_GROUP_LLM, hidden, config->eps));
    VL_TRY(config->experts > 0 ? plan_moe(params, block, prefix, config) : plan_mlp(params, block, prefix, config));
    block->rows = params->count - block->first_row;
    return VL_OK;
}

// What a layer's output is added to: a copy of x on activations with `keep`, else x itself.
static VlStatus begin_sum(VlContext *context, VlTensor *y, VlTensor x, bool keep) {
    *y = x;
    if (!keep) return VL_OK;
    VL_TRY(vl_arena_push(&context->activations, y, x.dtype, x.dim[0], x.dim[1]));
    return vl_cast(context, *y, x);
}

// Keys and values of this pass, rotated, and all that the queries see: the cache up to here, or the same again.
static VlStatus project_keys(VlContext *context, VlDecoderBlock *block, const VlDecoderPass *pass, VlTensor normed,
                             VlArena *arena, VlTensor *k, VlTensor *v) {
    int64_t tokens = normed.dim[0], width = block->kv_heads * block->head_size;
    VlKvCache *cache = pass->cache;
    VlTensor new_k, new_v;
    if (cache) {
        VlTensor keys = cache->keys[block->number], values = cache->values[block->number];
        new_k = vl_rows(keys, cache->length, tokens);
        new_v = vl_rows(values, cache->length, tokens);
        *k = vl_rows(keys, 0, cache->length + tokens);
        *v = vl_rows(values, 0, cache->length + tokens);
    } else {
        VL_TRY(vl_arena_push(arena, &new_k, normed.dtype, tokens, width));
        VL_TRY(vl_arena_push(arena, &new_v, normed.dtype, tokens, width));
        *k = new_k;
        *v = new_v;
    }
    VL_TRY(vl_linear_layer_forward(context, &block->key, new_k, normed, VL_WRITE));
    VL_TRY(vl_linear_layer_forward(context, &block->value, new_v, normed, VL_WRITE));
    return vl_rotary_forward(context, new_k, new_k, pass->table, block->kv_heads);
}

// *x += attention(norm(*x))
static VlStatus attention_forward(VlContext *context, VlDecoderBlock *block, const VlDecoderPass *pass, VlTensor *x,
                                  bool keep) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    int64_t mark = vl_arena_mark(&context->scratch), tokens = x->dim[0], width = block->heads * block->head_size;
    VlTensor normed, q, k, v, o, lse = VL_EMPTY, y;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(&context->scratch, &normed, x->dtype, tokens, x->dim[1]));
    VL_TRY(vl_norm_forward(context, &block->input_norm, normed, *x, arena, &statistics));
    VL_TRY(vl_arena_push(arena, &q, x->dtype, tokens, width));
    VL_TRY(vl_linear_layer_forward(context, &block->query, q, normed, VL_WRITE));
    VL_TRY(vl_rotary_forward(context, q, q, pass->table, block->heads));
    VL_TRY(project_keys(context, block, pass, normed, arena, &k, &v));
    VL_TRY(vl_arena_push(arena, &o, x->dtype, tokens, width));
    if (keep) VL_TRY(vl_arena_push(arena, &lse, VL_F32, block->heads, tokens));
    VL_TRY(vl_attention_forward(context, o, lse, q, k, v, pass->cu_q, pass->cu_k, block->heads, block->kv_heads, true));
    VL_TRY(begin_sum(context, &y, *x, keep));
    VL_TRY(vl_linear_layer_forward(context, &block->out, y, o, VL_ADD));
    if (keep) {
        block->saved.x = *x;
        block->saved.input_norm = statistics;
        block->saved.q = q;
        block->saved.k = k;
        block->saved.v = v;
        block->saved.o = o;
        block->saved.lse = lse;
        block->saved.middle = y;
    }
    *x = y;
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

// y += mlp(x)
static VlStatus mlp_forward(VlContext *context, VlDecoderBlock *block, VlTensor y, VlTensor x, bool keep) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    int64_t mark = vl_arena_mark(&context->scratch), tokens = x.dim[0];
    VlTensor gate, up, product;
    VL_TRY(vl_arena_push(arena, &gate, x.dtype, tokens, block->intermediate));
    VL_TRY(vl_linear_layer_forward(context, &block->gate, gate, x, VL_WRITE));
    VL_TRY(vl_arena_push(arena, &up, x.dtype, tokens, block->intermediate));
    VL_TRY(vl_linear_layer_forward(context, &block->up, up, x, VL_WRITE));
    VL_TRY(vl_arena_push(&context->scratch, &product, x.dtype, tokens, block->intermediate));
    VL_TRY(vl_swiglu_forward(context, product, gate, up));
    VL_TRY(vl_linear_layer_forward(context, &block->down, y, product, VL_ADD));
    if (keep) {
        block->saved.gate = gate;
        block->saved.up = up;
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

// *x += mlp(norm(*x)), or experts(norm(*x))
static VlStatus feed_forward(VlContext *context, VlDecoderBlock *block, VlTensor *x, bool keep) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor normed, y;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(&context->scratch, &normed, x->dtype, x->dim[0], x->dim[1]));
    VL_TRY(vl_norm_forward(context, &block->middle_norm, normed, *x, arena, &statistics));
    VL_TRY(begin_sum(context, &y, *x, keep));
    VL_TRY(block->moe.experts > 0 ? vl_moe_forward(context, &block->moe, y, normed, keep)
                                  : mlp_forward(context, block, y, normed, keep));
    if (keep) block->saved.middle_norm = statistics;
    *x = y;
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_decoder_block_forward(VlContext *context, VlDecoderBlock *block, const VlDecoderPass *pass, VlTensor *x,
                                  bool keep) {
    VL_TRY(attention_forward(context, block, pass, x, keep));
    VL_TRY(feed_forward(context, block, x, keep));
    return VL_OK;
}

static VlStatus mlp_backward(VlContext *context, VlDecoderBlock *block, VlTensor d) {
    int64_t mark = vl_arena_mark(&context->scratch), tokens = d.dim[0];
    VlTensor gate = block->saved.gate, up = block->saved.up, middle = block->saved.middle;
    VlTensor product = gate, dproduct, normed, dnormed;  // not read when down is frozen
    if (block->down.weight->trainable) {
        VL_TRY(vl_arena_push(&context->scratch, &product, d.dtype, tokens, block->intermediate));
        VL_TRY(vl_swiglu_forward(context, product, gate, up));
    }
    VL_TRY(vl_arena_push(&context->scratch, &dproduct, d.dtype, tokens, block->intermediate));
    VL_TRY(vl_linear_layer_backward(context, &block->down, dproduct, d, product, VL_WRITE));
    VL_TRY(vl_swiglu_backward(context, gate, up, dproduct, gate, up));
    vl_arena_release(&context->scratch, mark);

    VL_TRY(vl_norm_again(context, &block->middle_norm, block->gate.weight->trainable, middle, &normed));
    VL_TRY(vl_arena_push(&context->scratch, &dnormed, d.dtype, tokens, d.dim[1]));
    VL_TRY(vl_linear_layer_backward(context, &block->gate, dnormed, gate, normed, VL_WRITE));
    VL_TRY(vl_linear_layer_backward(context, &block->up, dnormed, up, normed, VL_ADD));
    VL_TRY(vl_norm_backward(context, &block->middle_norm, d, dnormed, middle, &block->saved.middle_norm, VL_ADD));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

static VlStatus attention_backward(VlContext *context, VlDecoderBlock *block, const VlDecoderPass *pass, VlTensor d) {
    VlArena *scratch = &context->scratch;
    int64_t mark = vl_arena_mark(scratch), tokens = d.dim[0];
    VlTensor q = block->saved.q, k = block->saved.k, v = block->saved.v, o = block->saved.o, x = block->saved.x;
    VlTensor d_o, dq, dk, dv, normed, dnormed;
    VL_TRY(vl_arena_push(scratch, &dq, d.dtype, tokens, q.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dk, d.dtype, tokens, k.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dv, d.dtype, tokens, v.dim[1]));
    int64_t inner = vl_arena_mark(scratch);
    VL_TRY(vl_arena_push(scratch, &d_o, d.dtype, tokens, o.dim[1]));
    VL_TRY(vl_linear_layer_backward(context, &block->out, d_o, d, o, VL_WRITE));
    VL_TRY(vl_attention_backward(context, dq, dk, dv, d_o, q, k, v, o, block->saved.lse, pass->cu_q, pass->cu_k,
                                 block->heads, block->kv_heads, true));
    VL_TRY(vl_rotary_backward(context, dq, dq, pass->table, block->heads));
    VL_TRY(vl_rotary_backward(context, dk, dk, pass->table, block->kv_heads));
    vl_arena_release(scratch, inner);

    VL_TRY(vl_norm_again(context, &block->input_norm, block->query.weight->trainable, x, &normed));
    VL_TRY(vl_arena_push(scratch, &dnormed, d.dtype, tokens, d.dim[1]));
    VL_TRY(vl_linear_layer_backward(context, &block->query, dnormed, dq, normed, VL_WRITE));
    VL_TRY(vl_linear_layer_backward(context, &block->key, dnormed, dk, normed, VL_ADD));
    VL_TRY(vl_linear_layer_backward(context, &block->value, dnormed, dv, normed, VL_ADD));
    VL_TRY(vl_norm_backward(context, &block->input_norm, d, dnormed, x, &block->saved.input_norm, VL_ADD));
    vl_arena_release(scratch, mark);
    return VL_OK;
}

VlStatus vl_decoder_block_backward(VlContext *context, VlDecoderBlock *block, const VlDecoderPass *pass, VlTensor d) {
    VL_TRY(block->moe.experts > 0 ? vl_moe_backward(context, &block->moe, d, block->saved.middle, &block->middle_norm,
                                                    &block->saved.middle_norm)
                                  : mlp_backward(context, block, d));
    VL_TRY(attention_backward(context, block, pass, d));
    return VL_OK;
}

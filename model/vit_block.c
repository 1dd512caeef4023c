#include <math.h>
#include <stdio.h>

#include "model/vit.h"

static VlStatus plan_linear(VlParams *params, VlLinear *layer, const char *prefix, const char *name, double deviation,
                            int64_t output, int64_t input) {
    char path[384];
    snprintf(path, sizeof path, "%s.%s", prefix, name);
    VL_TRY(vl_linear_layer_plan(params, layer, path, VL_GROUP_VISION_TOWER,
                                (VlInit){.kind = VL_INIT_NORMAL, .scale = (float)deviation}, output, input, true));
    return VL_OK;
}

static VlStatus plan_norm(VlParams *params, VlNorm *norm, const char *prefix, const char *name,
                          const VlVisionConfig *config) {
    char path[384];
    snprintf(path, sizeof path, "%s.%s", prefix, name);
    VL_TRY(vl_norm_plan_layernorm(params, norm, path, VL_GROUP_VISION_TOWER, config->hidden, config->eps));
    return VL_OK;
}

// The initialisation is CLIP's (Radford et al., 2021): what feeds a residual shrinks with the depth.
VlStatus vl_vit_block_plan(VlParams *params, VlVitBlock *block, const char *prefix, const VlVisionConfig *config) {
    int64_t hidden = config->hidden, middle = config->intermediate;
    double wide = 1 / sqrt((double)hidden), deep = wide / sqrt(2.0 * (double)config->layers), up = wide / sqrt(2.0);
    *block = (VlVitBlock){.heads = config->heads, .activation = config->activation};
    VL_TRY(plan_norm(params, &block->norm1, prefix, "layer_norm1", config));
    VL_TRY(plan_linear(params, &block->query, prefix, "self_attn.q_proj", deep, hidden, hidden));
    VL_TRY(plan_linear(params, &block->key, prefix, "self_attn.k_proj", deep, hidden, hidden));
    VL_TRY(plan_linear(params, &block->value, prefix, "self_attn.v_proj", deep, hidden, hidden));
    VL_TRY(plan_linear(params, &block->out, prefix, "self_attn.out_proj", wide, hidden, hidden));
    VL_TRY(plan_norm(params, &block->norm2, prefix, "layer_norm2", config));
    VL_TRY(plan_linear(params, &block->fc1, prefix, "mlp.fc1", up, middle, hidden));
    VL_TRY(plan_linear(params, &block->fc2, prefix, "mlp.fc2", deep, hidden, middle));
    return VL_OK;
}

// One chunk of frames of the attention: each frame is a sequence of its own.
typedef struct Chunk {
    int64_t begin, count, tokens;
    VlTensor cu;
} Chunk;

static bool next_chunk(Chunk *chunk, VlTensor cu_seqlens, int64_t frames) {
    chunk->begin += chunk->count;
    if (chunk->begin >= frames) return false;
    chunk->count = frames - chunk->begin < VL_VIT_CHUNK ? frames - chunk->begin : VL_VIT_CHUNK;
    chunk->cu = vl_rows(cu_seqlens, 0, chunk->count + 1);
    return true;
}

static VlTensor chunk_rows(const Chunk *chunk, VlTensor x) {
    return vl_rows(x, chunk->begin * chunk->tokens, chunk->count * chunk->tokens);
}

// lse [N,heads*L] holds [heads,n*L] for each chunk of n frames.
static VlTensor chunk_lse(const Chunk *chunk, VlTensor lse, int64_t heads) {
    if (vl_is_empty(lse)) return VL_EMPTY;
    return vl_reshape(vl_rows(lse, chunk->begin, chunk->count), heads, chunk->count * chunk->tokens);
}

static VlStatus attention_forward(VlContext *context, const VlVitBlock *block, VlTensor o, VlTensor lse, VlTensor q,
                                  VlTensor k, VlTensor v, VlTensor cu_seqlens, int64_t frames) {
    Chunk chunk = {.tokens = q.dim[0] / frames};
    while (next_chunk(&chunk, cu_seqlens, frames)) {
        VL_TRY(vl_attention_forward(context, chunk_rows(&chunk, o), chunk_lse(&chunk, lse, block->heads),
                                    chunk_rows(&chunk, q), chunk_rows(&chunk, k), chunk_rows(&chunk, v), chunk.cu,
                                    chunk.cu, block->heads, block->heads, false));
    }
    return VL_OK;
}

static VlStatus attention_backward(VlContext *context, const VlVitBlock *block, VlTensor dq, VlTensor dk, VlTensor dv,
                                   VlTensor d_o, VlTensor cu_seqlens, int64_t frames) {
    Chunk chunk = {.tokens = d_o.dim[0] / frames};
    while (next_chunk(&chunk, cu_seqlens, frames)) {
        VL_TRY(vl_attention_backward(
            context, chunk_rows(&chunk, dq), chunk_rows(&chunk, dk), chunk_rows(&chunk, dv), chunk_rows(&chunk, d_o),
            chunk_rows(&chunk, block->saved.q), chunk_rows(&chunk, block->saved.k), chunk_rows(&chunk, block->saved.v),
            chunk_rows(&chunk, block->saved.o), chunk_lse(&chunk, block->saved.lse, block->heads), chunk.cu, chunk.cu,
            block->heads, block->heads, false));
    }
    return VL_OK;
}

// A new tensor on activations with the content of x.
static VlStatus push_copy(VlContext *context, VlTensor *copy, VlTensor x) {
    VL_TRY(vl_arena_push_make(&context->activations, copy, x.dtype, x.dims, x.dim));
    VL_TRY(vl_cast(context, *copy, x));
    return VL_OK;
}

static VlStatus forward_attention_part(VlContext *context, VlVitBlock *block, VlTensor x, VlTensor y,
                                       VlTensor cu_seqlens, int64_t frames, bool keep) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    int64_t rows = x.dim[0], hidden = x.dim[1];
    VlTensor q, k, v, o, lse = VL_EMPTY, h;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(arena, &q, x.dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &k, x.dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &v, x.dtype, rows, hidden));
    VL_TRY(vl_arena_push(arena, &o, x.dtype, rows, hidden));
    if (keep) VL_TRY(vl_arena_push(arena, &lse, VL_F32, frames, block->heads * (rows / frames)));
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(vl_arena_push(&context->scratch, &h, x.dtype, rows, hidden));
    VL_TRY(vl_norm_forward(context, &block->norm1, h, x, &context->scratch, &statistics));
    VL_TRY(vl_linear_layer_forward(context, &block->query, q, h, VL_WRITE));
    VL_TRY(vl_linear_layer_forward(context, &block->key, k, h, VL_WRITE));
    VL_TRY(vl_linear_layer_forward(context, &block->value, v, h, VL_WRITE));
    vl_arena_release(&context->scratch, mark);
    VL_TRY(attention_forward(context, block, o, lse, q, k, v, cu_seqlens, frames));
    VL_TRY(vl_linear_layer_forward(context, &block->out, y, o, VL_ADD));
    if (keep) block->saved.q = q, block->saved.k = k, block->saved.v = v, block->saved.o = o, block->saved.lse = lse;
    return VL_OK;
}

static VlStatus forward_mlp_part(VlContext *context, VlVitBlock *block, VlTensor x, VlTensor y, bool keep) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    VlTensor hidden, active, h;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(arena, &hidden, x.dtype, x.dim[0], block->fc1.output));
    VL_TRY(vl_arena_push(&context->scratch, &h, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_norm_forward(context, &block->norm2, h, x, &context->scratch, &statistics));
    VL_TRY(vl_linear_layer_forward(context, &block->fc1, hidden, h, VL_WRITE));
    active = hidden;
    if (keep) VL_TRY(vl_arena_push(&context->scratch, &active, x.dtype, x.dim[0], block->fc1.output));
    VL_TRY(vl_activation_forward(context, active, hidden, block->activation));
    VL_TRY(vl_linear_layer_forward(context, &block->fc2, y, active, VL_ADD));
    if (keep) block->saved.hidden = hidden;
    return VL_OK;
}

VlStatus vl_vit_block_forward(VlContext *context, VlVitBlock *block, VlTensor *x, VlTensor cu_seqlens, int64_t frames,
                              bool keep) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor middle = *x, y = *x;
    if (keep) VL_TRY(push_copy(context, &middle, *x));
    VL_TRY(forward_attention_part(context, block, *x, middle, cu_seqlens, frames, keep));
    vl_arena_release(&context->scratch, mark);
    if (keep) VL_TRY(push_copy(context, &y, middle));
    VL_TRY(forward_mlp_part(context, block, middle, y, keep));
    vl_arena_release(&context->scratch, mark);
    if (keep) block->saved.x = *x, block->saved.middle = middle;
    *x = y;
    return VL_OK;
}

static VlStatus backward_mlp_part(VlContext *context, VlVitBlock *block, VlTensor d) {
    VlArena *scratch = &context->scratch;
    VlTensor x = block->saved.middle, hidden = block->saved.hidden, active, dhidden, h, dh;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(scratch, &h, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_norm_forward(context, &block->norm2, h, x, scratch, &statistics));
    VL_TRY(vl_arena_push(scratch, &active, x.dtype, x.dim[0], hidden.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dhidden, x.dtype, x.dim[0], hidden.dim[1]));
    VL_TRY(vl_activation_forward(context, active, hidden, block->activation));
    VL_TRY(vl_linear_layer_backward(context, &block->fc2, dhidden, d, active, VL_WRITE));
    VL_TRY(vl_activation_backward(context, dhidden, dhidden, hidden, block->activation));
    VL_TRY(vl_arena_push(scratch, &dh, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_linear_layer_backward(context, &block->fc1, dh, dhidden, h, VL_WRITE));
    VL_TRY(vl_norm_backward(context, &block->norm2, d, dh, x, &statistics, VL_ADD));
    return VL_OK;
}

static VlStatus backward_attention_part(VlContext *context, VlVitBlock *block, VlTensor d, VlTensor cu_seqlens,
                                        int64_t frames) {
    VlArena *scratch = &context->scratch;
    VlTensor x = block->saved.x, h, dh, dq, dk, dv;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(scratch, &h, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dh, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dq, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dk, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dv, x.dtype, x.dim[0], x.dim[1]));
    VL_TRY(vl_linear_layer_backward(context, &block->out, dh, d, block->saved.o, VL_WRITE));
    VL_TRY(attention_backward(context, block, dq, dk, dv, dh, cu_seqlens, frames));
    VL_TRY(vl_norm_forward(context, &block->norm1, h, x, scratch, &statistics));
    VL_TRY(vl_linear_layer_backward(context, &block->query, dh, dq, h, VL_WRITE));
    VL_TRY(vl_linear_layer_backward(context, &block->key, dh, dk, h, VL_ADD));
    VL_TRY(vl_linear_layer_backward(context, &block->value, dh, dv, h, VL_ADD));
    VL_TRY(vl_norm_backward(context, &block->norm1, d, dh, x, &statistics, VL_ADD));
    return VL_OK;
}

VlStatus vl_vit_block_backward(VlContext *context, VlVitBlock *block, VlTensor d, VlTensor cu_seqlens, int64_t frames) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(backward_mlp_part(context, block, d));
    vl_arena_release(&context->scratch, mark);
    VL_TRY(backward_attention_part(context, block, d, cu_seqlens, frames));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

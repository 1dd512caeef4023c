#include "model/decoder.h"

#include "base/memory.h"

VlStatus vl_decoder_plan(VlParams *params, VlDecoder *decoder, const VlDecoderConfig *config) {
    VlInit init = {VL_INIT_NORMAL, config->initializer_range};
    *decoder = (VlDecoder){.config = *config};
    VL_TRY(VL_NEW(&decoder->blocks, config->layers));
    VL_TRY(vl_params_register(params, &decoder->embed_tokens, "model.embed_tokens.weight", VL_GROUP_LLM, init, true,
                              config->vocabulary, config->hidden));
    for (int64_t i = 0; i < config->layers; i++) {
        VL_TRY(vl_decoder_block_plan(params, &decoder->blocks[i], config, i));
    }
    VL_TRY(vl_norm_plan_rmsnorm(params, &decoder->norm, "model.norm", VL_GROUP_LLM, config->hidden, config->eps));
    decoder->lm_head = decoder->embed_tokens;
    if (!config->tied) {
        VL_TRY(vl_params_register(params, &decoder->lm_head, "lm_head.weight", VL_GROUP_LLM, init, true,
                                  config->vocabulary, config->hidden));
    }
    return VL_OK;
}

void vl_decoder_free(VlDecoder *decoder) {
    vl_free(decoder->blocks);
    *decoder = (VlDecoder){0};
}

// An i64 tensor on activations, filled from host memory.
static VlStatus upload(VlContext *context, VlTensor *tensor, const int64_t *host, int64_t count) {
    VL_TRY(vl_arena_push(&context->activations, tensor, VL_I64, count));
    return vl_copy_from_host(context, *tensor, host);
}

// Sequence boundaries, of the batch's own keys or of those in the cache as well, and the rotary angles.
static VlStatus begin_pass(VlContext *context, VlDecoder *decoder, const VlBatch *batch, VlKvCache *cache) {
    VlDecoderPass *pass = &decoder->pass;
    VlTensor positions;
    *pass = (VlDecoderPass){.cache = cache};
    const int64_t *boundaries = batch->cu_seqlens, cached[2] = {0, cache ? cache->length + batch->tokens : 0};
    if (cache) {
        VL_ASSERT(batch->sequences == 1);
        if (batch->tokens > cache->capacity - cache->length) {
            return vl_error(VL_INVALID, "the cache holds %lld of at most %lld tokens: %lld more do not fit",
                            (long long)cache->length, (long long)cache->capacity, (long long)batch->tokens);
        }
        boundaries = cached;
    }
    VL_TRY(upload(context, &pass->cu_q, batch->cu_seqlens, batch->sequences + 1));
    VL_TRY(upload(context, &pass->cu_k, boundaries, batch->sequences + 1));
    VL_TRY(vl_arena_push(&context->activations, &pass->table, VL_F32, batch->tokens, decoder->config.head_size));
    int64_t mark = vl_arena_mark(&context->activations);
    VL_TRY(upload(context, &positions, batch->positions, batch->tokens));
    VL_TRY(vl_rotary_table(context, pass->table, positions, decoder->config.rope_theta));
    vl_arena_release(&context->activations, mark);
    return VL_OK;
}

// x [T,H]: embedded text with the visual tokens in their places.
static VlStatus embed(VlContext *context, VlDecoder *decoder, const VlBatch *batch, VlTensor visual_tokens,
                      VlTensor x) {
    VlTensor table = decoder->embed_tokens->value, text;
    VL_TRY(upload(context, &decoder->saved.text_ids, batch->text_ids, batch->text_tokens));
    decoder->saved.source = VL_EMPTY;
    if (vl_is_empty(visual_tokens)) return vl_embedding_forward(context, x, table, decoder->saved.text_ids);
    VL_TRY(upload(context, &decoder->saved.source, batch->source, batch->tokens));
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(vl_arena_push(&context->scratch, &text, x.dtype, batch->text_tokens, x.dim[1]));
    VL_TRY(vl_embedding_forward(context, text, table, decoder->saved.text_ids));
    VL_TRY(vl_splice_forward(context, x, text, visual_tokens, decoder->saved.source));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_decoder_forward(VlContext *context, VlDecoder *decoder, const VlBatch *batch, VlTensor visual_tokens,
                            VlKvCache *cache, bool keep, VlTensor *hidden) {
    VlArena *activations = &context->activations;
    VlDtype dtype = decoder->embed_tokens->value.dtype;
    int64_t width = decoder->config.hidden;
    VlTensor x;
    VL_TRY(begin_pass(context, decoder, batch, cache));
    VL_TRY(vl_arena_push(activations, &x, dtype, batch->tokens, width));
    VL_TRY(embed(context, decoder, batch, visual_tokens, x));
    for (int64_t i = 0; i < decoder->config.layers; i++) {
        VL_TRY_CONTEXT(vl_decoder_block_forward(context, &decoder->blocks[i], &decoder->pass, &x, keep), "layer %lld",
                       (long long)i);
    }
    decoder->saved.last = x;
    VL_TRY(vl_arena_push(activations, hidden, dtype, batch->tokens, width));
    VL_TRY(vl_norm_forward(context, &decoder->norm, *hidden, x, activations, &decoder->saved.norm));
    if (cache) cache->length += batch->tokens;
    return VL_OK;
}

VlStatus vl_gradient_announce(const VlGradientHook *hook, int64_t first, int64_t count) {
    if (!hook || !hook->ready || count == 0) return VL_OK;
    return hook->ready(hook->user, first, count);
}

// d[T,H]: gradient of what embed made.
static VlStatus embed_backward(VlContext *context, VlDecoder *decoder, VlTensor d, VlTensor dvisual_tokens) {
    VlTensor dtable = decoder->embed_tokens->gradient, ids = decoder->saved.text_ids, dtext = VL_EMPTY;
    if (vl_is_empty(decoder->saved.source)) {
        return vl_is_empty(dtable) ? VL_OK : vl_embedding_backward(context, dtable, d, ids);
    }
    int64_t mark = vl_arena_mark(&context->scratch);
    if (!vl_is_empty(dtable)) VL_TRY(vl_arena_push(&context->scratch, &dtext, d.dtype, ids.dim[0], d.dim[1]));
    VL_TRY(vl_splice_backward(context, dtext, dvisual_tokens, d, decoder->saved.source));
    if (!vl_is_empty(dtable)) VL_TRY(vl_embedding_backward(context, dtable, dtext, ids));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_decoder_backward(VlContext *context, VlDecoder *decoder, VlTensor dhidden, VlTensor dvisual_tokens,
                             const VlGradientHook *hook) {
    bool wanted = !vl_is_empty(dhidden);
    int64_t mark = vl_arena_mark(&context->scratch), norm = decoder->norm.weight->index;
    VlTensor d;
    if (wanted) {
        VL_TRY(vl_arena_push(&context->scratch, &d, dhidden.dtype, dhidden.dim[0], dhidden.dim[1]));
        VL_TRY(
            vl_norm_backward(context, &decoder->norm, d, dhidden, decoder->saved.last, &decoder->saved.norm, VL_WRITE));
    }
    VL_TRY(vl_gradient_announce(hook, norm, decoder->config.tied ? 1 : 2));
    for (int64_t i = decoder->config.layers - 1; i >= 0; i--) {
        VlDecoderBlock *block = &decoder->blocks[i];
        if (wanted) {
            VL_TRY_CONTEXT(vl_decoder_block_backward(context, block, &decoder->pass, d), "layer %lld, backward",
                           (long long)i);
        }
        VL_TRY(vl_gradient_announce(hook, block->first_row, block->rows));
    }
    if (wanted) VL_TRY(embed_backward(context, decoder, d, dvisual_tokens));
    VL_TRY(vl_gradient_announce(hook, decoder->embed_tokens->index, 1));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_decoder_logits(VlContext *context, const VlDecoder *decoder, VlTensor logits, VlTensor hidden) {
    return vl_linear_forward(context, logits, hidden, decoder->lm_head->value, VL_EMPTY, VL_WRITE);
}

// The language model: token embedding, blocks, final norm, head. Works on the spliced stream of a packed batch.
#ifndef VL_MODEL_DECODER_H
#define VL_MODEL_DECODER_H

#include "model/batch.h"
#include "model/decoder_block.h"

typedef struct VlDecoder {
    VlDecoderConfig config;
    VlParam *embed_tokens;
    VlDecoderBlock *blocks;  // [config.layers]
    VlNorm norm;
    VlParam *lm_head;  // embed_tokens when they are tied
    VlDecoderPass pass;
    struct {
        VlTensor text_ids, source;  // i64; source is empty without visual tokens
        VlTensor last;              // [T,H] output of the last block
        VlNormSaved norm;
    } saved;
} VlDecoder;

// Registers model.embed_tokens, model.layers.*, model.norm and lm_head; allocates `blocks`, freed by vl_decoder_free.
VlStatus vl_decoder_plan(VlParams *params, VlDecoder *decoder, const VlDecoderConfig *config);
void vl_decoder_free(VlDecoder *decoder);

// *hidden [T,H] after the final norm, pushed onto context->activations, of the batch's text with visual_tokens[*,H]
// (empty: none) in their places. cache NULL: a packed batch. Otherwise one sequence whose first position is
// cache->length: its keys and values are added to the cache. With `keep` the backward pass is possible. Errors:
// VL_INVALID when the cache is too small.
VlStatus vl_decoder_forward(VlContext *context, VlDecoder *decoder, const VlBatch *batch, VlTensor visual_tokens,
                            VlKvCache *cache, bool keep, VlTensor *hidden);

// From dhidden[T,H]: adds the gradients of trained parameters (those of the head itself come from the loss) and writes
// dvisual_tokens (empty: not wanted). dhidden empty: no gradient is wanted here and nothing is computed. Either way
// `hook` hears of every part, top to bottom, as soon as it is complete.
VlStatus vl_decoder_backward(VlContext *context, VlDecoder *decoder, VlTensor dhidden, VlTensor dvisual_tokens,
                             const VlGradientHook *hook);

// logits[M,V] f32 of hidden[M,H].
VlStatus vl_decoder_logits(VlContext *context, const VlDecoder *decoder, VlTensor logits, VlTensor hidden);

// Calls the hook for rows [first, first + count), where there is one.
VlStatus vl_gradient_announce(const VlGradientHook *hook, int64_t first, int64_t count);

#endif

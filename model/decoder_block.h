// One block of the language model: RMSNorm -> grouped-query attention with rotary embedding -> residual -> RMSNorm ->
// SwiGLU, or a mixture of such experts (model/moe.h) -> residual. Jiang et al., "Mistral 7B", 2023; Su et al.,
// "RoFormer", 2021; Shazeer, "GLU variants improve Transformer", 2020.
#ifndef VL_MODEL_DECODER_BLOCK_H
#define VL_MODEL_DECODER_BLOCK_H

#include "model/config.h"
#include "model/kv_cache.h"
#include "model/linear.h"
#include "model/moe.h"
#include "model/norm.h"
#include "model/params.h"

// What all blocks of one pass share.
typedef struct VlDecoderPass {
    VlTensor cu_q, cu_k;  // i64 [sequences + 1]: where the sequences' queries and keys begin
    VlTensor table;       // [T, head_size] f32: rotary angles
    VlKvCache *cache;     // NULL: keys and values are those of this pass
} VlDecoderPass;

typedef struct VlDecoderBlock {
    int64_t number;  // from 0
    int64_t heads, kv_heads, head_size, intermediate;
    VlNorm input_norm, middle_norm;
    VlLinear query, key, value, out;
    VlLinear gate, up, down;
    VlMoe moe;                // in their place where it has experts
    int64_t first_row, rows;  // of its parameters in the registry
    // What the last forward pass with keep left. Normed inputs and the SwiGLU product are computed again in backward.
    struct {
        VlTensor x;  // [T,H] the block's input
        VlNormSaved input_norm, middle_norm;
        VlTensor q, k, v;  // after the rotation
        VlTensor o, lse;
        VlTensor middle;    // x + attention
        VlTensor gate, up;  // [T,F]
    } saved;
} VlDecoderBlock;

// Registers model.layers.NUMBER.*.
VlStatus vl_decoder_block_plan(VlParams *params, VlDecoderBlock *block, const VlDecoderConfig *config, int64_t number);
// *x [T,H] is replaced by the block's output in place; with `keep` *x becomes a new tensor on context->activations, and
// what backward needs is pushed there too.
VlStatus vl_decoder_block_forward(VlContext *context, VlDecoderBlock *block, const VlDecoderPass *pass, VlTensor *x,
                                  bool keep);
// d[T,H] holds the gradient of the block's output and receives that of its input; adds the gradients of trained
// parameters. Overwrites what the MLP or the experts saved.
VlStatus vl_decoder_block_backward(VlContext *context, VlDecoderBlock *block, const VlDecoderPass *pass, VlTensor d);

#endif

// The audio tower: BEATs. Chen et al., "BEATs: audio pre-training with acoustic tokenizers", 2023; deep norm: Wang et
// al., "DeepNet", 2022.
//
// fbank -> patches of 16 x 16 -> linear -> layer_norm -> (post_extract_proj) -> + gelu(positional convolution) ->
// layer_norm -> post-norm blocks whose attention has a gated relative position bias, of one table for all of them.
#ifndef VL_MODEL_BEATS_H
#define VL_MODEL_BEATS_H

#include "base/sound.h"
#include "model/config.h"
#include "model/linear.h"
#include "model/norm.h"
#include "model/params.h"

// What all blocks of a pass share.
typedef struct VlBeatsPass {
    VlTensor cu_seqlens;  // i64 [sounds + 1], in tokens
    VlTensor bias;        // f32 [heads,2L-1]
    VlTensor dbias;       // f32, backward; empty: not wanted
    bool keep;
} VlBeatsPass;

typedef struct VlBeatsBlock {
    VlLinear query, key, value, out, gate, fc1, fc2;
    VlParam *gate_scale;  // grep_a [1,heads,1,1]
    VlNorm attention_norm, final_norm;
    int64_t heads;
    float residual;  // deep norm's factor of the input
    float decay;     // of the gradient of the block's input
    bool dropped;    // the block hands its input on as it is; its gradient is decayed all the same
    struct {
        VlTensor x;                 // [T,D] the block's input
        VlTensor q, k, v, o, lse;   // of the attention
        VlTensor gate_values;       // f32 [T,heads]
        VlTensor summed1, summed2;  // inputs of the two norms
        VlNormSaved statistics1, statistics2;
        VlTensor middle;  // [T,D] output of the first norm
        VlTensor hidden;  // [T,F] fc1 before the activation
    } saved;
} VlBeatsBlock;

typedef struct VlBeats {
    VlAudioConfig config;
    VlLinear patch, project;  // project.weight NULL: both widths are equal
    VlNorm patch_norm, norm;
    VlParam *conv_gain, *conv_direction, *conv_bias;  // weight_g, weight_v, bias
    VlParam *bias_table;                              // relative_attention_bias.weight of layer 0
    VlBeatsBlock *blocks;                             // [config.layers]
    struct {
        VlTensor fbank, embedded, normed, projected, convolved, summed, bias, cu_seqlens;
        VlNormSaved patch_norm, norm;
    } saved;
} VlBeats;

// Tokens of a sound of `rows` fbank rows: rows that fill no patch are left out.
int64_t vl_beats_tokens(const VlAudioConfig *config, int64_t rows);

// Registers model.audio_tower.*; allocates `blocks`, freed by vl_beats_free.
VlStatus vl_beats_plan(VlParams *params, VlBeats *beats, const VlAudioConfig *config);
void vl_beats_free(VlBeats *beats);

// Which blocks the passes from now on leave out (layer drop): each with `probability`, by a draw that is a pure
// function of (seed, step, block), the same for all sounds of a step. 0: none.
void vl_beats_drop_blocks(VlBeats *beats, double probability, uint64_t seed, int64_t step);

// features[T,D] (pushed onto context->activations) of the sounds whose rows fbank[R,128] f32, normalised, holds one
// behind the other: sound s has rows[s] of them. With `keep` the backward pass is possible: then fbank must stay, and
// what backward needs is pushed after the features. Errors: VL_INVALID for a sound of less than one patch.
VlStatus vl_beats_forward(VlContext *context, VlBeats *beats, VlTensor fbank, int64_t sounds, const int64_t *rows,
                          bool keep, VlTensor *features);
// Adds the gradients of the tower's trained parameters. dfeatures[T,D].
VlStatus vl_beats_backward(VlContext *context, VlBeats *beats, int64_t sounds, const int64_t *rows, VlTensor dfeatures);

// beats_block.c.
VlStatus vl_beats_block_plan(VlParams *params, VlBeatsBlock *block, const char *prefix, const VlAudioConfig *config);
// x[T,D] is replaced by the block's output in place; with pass->keep *x becomes a new tensor on context->activations.
VlStatus vl_beats_block_forward(VlContext *context, VlBeatsBlock *block, VlTensor *x, const VlBeatsPass *pass);
// d[T,D] holds the gradient of the block's output and receives that of its input.
VlStatus vl_beats_block_backward(VlContext *context, VlBeatsBlock *block, VlTensor d, const VlBeatsPass *pass);

#endif

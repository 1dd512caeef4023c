// The vision tower: CLIP's ViT, and SigLIP's by its configuration. Dosovitskiy et al., "An image is worth 16x16 words",
// 2021.
//
// patches -> linear -> (class token, position) -> (pre_layrnorm) -> run_layers pre-norm blocks -> class token dropped.
// The blocks after run_layers, post_layernorm and SigLIP's pooling head belong to the checkpoint but are never run:
// they are registered as unused parameters.
#ifndef VL_MODEL_VIT_H
#define VL_MODEL_VIT_H

#include "model/config.h"
#include "model/linear.h"
#include "model/norm.h"
#include "model/params.h"

// Frames that go through the tower together, and through one call of attention: bounds the scratch memory of a forward
// pass that keeps nothing.
enum { VL_VIT_CHUNK = 8 };

// One pre-norm transformer block with biases. `saved` is what the last forward pass with keep left.
typedef struct VlVitBlock {
    VlNorm norm1, norm2;
    VlLinear query, key, value, out, fc1, fc2;
    int64_t heads;
    VlActivation activation;
    struct {
        VlTensor x;  // [N*L,D] the block's input
        VlTensor q, k, v, o, lse;
        VlTensor middle;  // x + attention
        VlTensor hidden;  // [N*L,F] fc1 before the activation
    } saved;
} VlVitBlock;

typedef struct VlVit {
    VlVisionConfig config;
    int64_t patches;  // per frame: P
    int64_t tokens;   // per frame: L = P, + 1 with a class token
    VlParam *class_token, *position;
    VlLinear patch;
    VlNorm pre_norm;
    VlVitBlock *blocks;  // [config.run_layers]
    struct {
        VlTensor pixels, embedded;
        VlNormSaved pre_norm;
    } saved;
} VlVit;

// Registers model.vision_tower.vision_tower.vision_model.*; allocates `blocks`, freed by vl_vit_free.
VlStatus vl_vit_plan(VlParams *params, VlVit *vit, const VlVisionConfig *config);
void vl_vit_free(VlVit *vit);

// features[N,P,D] (pushed onto context->activations) of pixels[N,3,h,w] f32. With `keep` the backward pass is possible:
// then `pixels` must stay, and what backward needs is pushed after the features.
VlStatus vl_vit_forward(VlContext *context, VlVit *vit, VlTensor pixels, bool keep, VlTensor *features);
// Adds the gradients of the tower's trained parameters. dfeatures[N,P,D].
VlStatus vl_vit_backward(VlContext *context, VlVit *vit, VlTensor dfeatures);

// vit_block.c. A batch of N frames of L tokens each; cu_seqlens i64 [min(N,VL_VIT_CHUNK) + 1] = 0, L, 2L, ...
VlStatus vl_vit_block_plan(VlParams *params, VlVitBlock *block, const char *prefix, const VlVisionConfig *config);
// x[N*L,D] is replaced by the block's output in place; with `keep` *x becomes a new tensor on context->activations.
VlStatus vl_vit_block_forward(VlContext *context, VlVitBlock *block, VlTensor *x, VlTensor cu_seqlens, int64_t frames,
                              bool keep);
// d[N*L,D] holds the gradient of the block's output and receives that of its input.
VlStatus vl_vit_block_backward(VlContext *context, VlVitBlock *block, VlTensor d, VlTensor cu_seqlens, int64_t frames);

#endif

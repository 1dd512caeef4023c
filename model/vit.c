#include "model/vit.h"

#include <math.h>
#include <stdio.h>

#include "base/memory.h"

#define PREFIX "model.vision_tower.vision_tower.vision_model"

static const VlInit zeros = {.kind = VL_INIT_ZEROS}, normal = {.kind = VL_INIT_NORMAL, .scale = 0.02F};

// Rows [first, end) belong to the checkpoint only.
static void mark_unused(VlParams *params, int64_t first) {
    for (int64_t i = first; i < params->count; i++) params->rows[i]->unused = params->rows[i]->optional = true;
}

static VlStatus plan_pooling_head(VlParams *params, const VlVisionConfig *config) {
    VlLinear linear;
    VlNorm norm;
    int64_t hidden = config->hidden, middle = config->intermediate;
    VL_TRY(vl_params_register(params, NULL, PREFIX ".head.probe", VL_GROUP_VISION_TOWER, normal, false, 1, 1, hidden));
    VL_TRY(vl_params_register(params, NULL, PREFIX ".head.attention.in_proj_weight", VL_GROUP_VISION_TOWER, normal,
                              true, 3 * hidden, hidden));
    VL_TRY(vl_params_register(params, NULL, PREFIX ".head.attention.in_proj_bias", VL_GROUP_VISION_TOWER, zeros, false,
                              3 * hidden));
    VL_TRY(vl_linear_layer_plan(params, &linear, PREFIX ".head.attention.out_proj", VL_GROUP_VISION_TOWER, normal,
                                hidden, hidden, true));
    VL_TRY(vl_norm_plan_layernorm(params, &norm, PREFIX ".head.layernorm", VL_GROUP_VISION_TOWER, hidden, config->eps));
    VL_TRY(vl_linear_layer_plan(params, &linear, PREFIX ".head.mlp.fc1", VL_GROUP_VISION_TOWER, normal, middle, hidden,
                                true));
    VL_TRY(vl_linear_layer_plan(params, &linear, PREFIX ".head.mlp.fc2", VL_GROUP_VISION_TOWER, normal, hidden, middle,
                                true));
    return VL_OK;
}

static VlStatus plan_embeddings(VlParams *params, VlVit *vit) {
    const VlVisionConfig *config = &vit->config;
    int64_t hidden = config->hidden, patch = config->patch_size;
    if (config->class_token) {
        VlInit wide = {.kind = VL_INIT_NORMAL, .scale = (float)(1 / sqrt((double)hidden))};
        VL_TRY(vl_params_register(params, &vit->class_token, PREFIX ".embeddings.class_embedding",
                                  VL_GROUP_VISION_TOWER, wide, false, hidden));
    }
    VL_TRY(vl_linear_layer_plan_convolution(params, &vit->patch, PREFIX ".embeddings.patch_embedding",
                                            VL_GROUP_VISION_TOWER, normal, 4, (int64_t[]){hidden, 3, patch, patch},
                                            config->patch_bias));
    VL_TRY(vl_params_register(params, &vit->position, PREFIX ".embeddings.position_embedding.weight",
                              VL_GROUP_VISION_TOWER, normal, false, vit->tokens, hidden));
    if (config->pre_norm) {
        VL_TRY(vl_norm_plan_layernorm(params, &vit->pre_norm, PREFIX ".pre_layrnorm", VL_GROUP_VISION_TOWER, hidden,
                                      config->eps));
    }
    return VL_OK;
}

VlStatus vl_vit_plan(VlParams *params, VlVit *vit, const VlVisionConfig *config) {
    int64_t side = config->image_size / config->patch_size;
    *vit = (VlVit){.config = *config, .patches = side * side, .tokens = side * side + config->class_token};
    VL_TRY(VL_NEW(&vit->blocks, config->run_layers));
    VL_TRY(plan_embeddings(params, vit));
    char name[256];
    for (int64_t i = 0; i < config->run_layers; i++) {
        snprintf(name, sizeof name, PREFIX ".encoder.layers.%lld", (long long)i);
        VL_TRY(vl_vit_block_plan(params, &vit->blocks[i], name, config));
    }
    int64_t first_unused = params->count;
    for (int64_t i = config->run_layers; i < config->layers; i++) {
        VlVitBlock block;
        snprintf(name, sizeof name, PREFIX ".encoder.layers.%lld", (long long)i);
        VL_TRY(vl_vit_block_plan(params, &block, name, config));
    }
    VlNorm norm;
    VL_TRY(vl_norm_plan_layernorm(params, &norm, PREFIX ".post_layernorm", VL_GROUP_VISION_TOWER, config->hidden,
                                  config->eps));
    if (!config->class_token) VL_TRY(plan_pooling_head(params, config));
    mark_unused(params, first_unused);
    return VL_OK;
}

void vl_vit_free(VlVit *vit) {
    vl_free(vit->blocks);
    *vit = (VlVit){0};
}

// cu_seqlens of up to VL_VIT_CHUNK frames, on scratch.
static VlStatus push_cu_seqlens(VlContext *context, const VlVit *vit, int64_t frames, VlTensor *cu_seqlens) {
    int64_t host[VL_VIT_CHUNK + 1], count = frames < VL_VIT_CHUNK ? frames : VL_VIT_CHUNK;
    for (int64_t i = 0; i <= count; i++) host[i] = i * vit->tokens;
    VL_TRY(vl_arena_push(&context->scratch, cu_seqlens, VL_I64, count + 1));
    VL_TRY(vl_copy_from_host(context, *cu_seqlens, host));
    return VL_OK;
}

// columns[N*P,3*p*p] and, from them, the embedded patches; both on scratch.
static VlStatus push_columns(VlContext *context, const VlVit *vit, VlTensor pixels, VlTensor *columns) {
    int64_t patch = vit->config.patch_size;
    VL_TRY(vl_arena_push(&context->scratch, columns, vit->position->value.dtype, pixels.dim[0] * vit->patches,
                         3 * patch * patch));
    VL_TRY(vl_patches(context, *columns, pixels, patch));
    return VL_OK;
}

// *x [N*L,D] on `arena`: patches and class token with their positions, before and after pre_layrnorm.
static VlStatus embed(VlContext *context, VlVit *vit, VlTensor pixels, bool keep, VlTensor *x) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    VlDtype dtype = vit->position->value.dtype;
    int64_t frames = pixels.dim[0], hidden = vit->config.hidden;
    VlTensor columns, patches, embedded;
    VL_TRY(vl_arena_push(arena, x, dtype, frames * vit->tokens, hidden));
    embedded = *x;
    if (keep && vit->config.pre_norm) VL_TRY(vl_arena_push(arena, &embedded, dtype, frames * vit->tokens, hidden));
    VlNormSaved statistics = {0};
    int64_t mark = vl_arena_mark(&context->scratch);
    if (!keep && vit->config.pre_norm) {
        VL_TRY(vl_arena_push(&context->scratch, &embedded, dtype, frames * vit->tokens, hidden));
    }
    VL_TRY(push_columns(context, vit, pixels, &columns));
    VL_TRY(vl_arena_push(&context->scratch, &patches, dtype, frames, vit->patches, hidden));
    VL_TRY(vl_linear_layer_forward(context, &vit->patch, patches, columns, VL_WRITE));
    VL_TRY(vl_vit_embedding_forward(context, vl_reshape(embedded, frames, vit->tokens, hidden), patches,
                                    vit->class_token ? vit->class_token->value : VL_EMPTY, vit->position->value));
    if (vit->config.pre_norm) VL_TRY(vl_norm_forward(context, &vit->pre_norm, *x, embedded, arena, &statistics));
    vl_arena_release(&context->scratch, mark);
    if (keep) vit->saved.pixels = pixels, vit->saved.embedded = embedded, vit->saved.pre_norm = statistics;
    return VL_OK;
}

// The patches of each frame between `features` [N,P,D] and x[N*L,D], which has the class token in front of them.
static VlStatus copy_patches(VlContext *context, const VlVit *vit, VlTensor features, VlTensor x, bool backward) {
    int64_t hidden = vit->config.hidden, skipped = vit->tokens - vit->patches;
    for (int64_t i = 0; i < features.dim[0]; i++) {
        VlTensor outside = vl_reshape(vl_rows(features, i, 1), vit->patches, hidden);
        VlTensor inside = vl_rows(x, i * vit->tokens + skipped, vit->patches);
        VL_TRY(vl_cast(context, backward ? inside : outside, backward ? outside : inside));
    }
    return VL_OK;
}

static VlStatus forward_frames(VlContext *context, VlVit *vit, VlTensor pixels, bool keep, VlTensor features) {
    int64_t mark = vl_arena_mark(&context->scratch), frames = pixels.dim[0];
    VlTensor x, cu_seqlens;
    VL_TRY(push_cu_seqlens(context, vit, frames, &cu_seqlens));
    VL_TRY(embed(context, vit, pixels, keep, &x));
    for (int64_t i = 0; i < vit->config.run_layers; i++) {
        VL_TRY(vl_vit_block_forward(context, &vit->blocks[i], &x, cu_seqlens, frames, keep));
    }
    VL_TRY(copy_patches(context, vit, features, x, false));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_vit_forward(VlContext *context, VlVit *vit, VlTensor pixels, bool keep, VlTensor *features) {
    const VlVisionConfig *config = &vit->config;
    if (pixels.dims != 4 || pixels.dim[1] != 3 || pixels.dim[2] != config->image_size ||
        pixels.dim[3] != config->image_size) {
        return vl_error(VL_INVALID, "pixel values are %s: the vision tower takes [frames,3,%lld,%lld] f32",
                        vl_describe(pixels), (long long)config->image_size, (long long)config->image_size);
    }
    int64_t frames = pixels.dim[0], chunk = keep ? frames : VL_VIT_CHUNK;
    VL_TRY(vl_arena_push(&context->activations, features, vit->position->value.dtype, frames, vit->patches,
                         config->hidden));
    for (int64_t begin = 0; begin < frames; begin += chunk) {
        int64_t count = frames - begin < chunk ? frames - begin : chunk;
        VL_TRY(forward_frames(context, vit, vl_rows(pixels, begin, count), keep, vl_rows(*features, begin, count)));
    }
    return VL_OK;
}

static VlTensor gradient_of(const VlParam *param) { return param ? param->gradient : VL_EMPTY; }

// d[N*L,D] is the gradient of the first block's input.
static VlStatus backward_embedding(VlContext *context, VlVit *vit, VlTensor d) {
    int64_t frames = vit->saved.pixels.dim[0], hidden = vit->config.hidden;
    VlTensor dembedded = d, dpatches, columns;
    if (vit->config.pre_norm) {
        VL_TRY(vl_arena_push(&context->scratch, &dembedded, d.dtype, d.dim[0], d.dim[1]));
        VL_TRY(vl_norm_backward(context, &vit->pre_norm, dembedded, d, vit->saved.embedded, &vit->saved.pre_norm,
                                VL_WRITE));
    }
    VL_TRY(vl_arena_push(&context->scratch, &dpatches, d.dtype, frames, vit->patches, hidden));
    VL_TRY(vl_vit_embedding_backward(context, dpatches, gradient_of(vit->class_token), gradient_of(vit->position),
                                     vl_reshape(dembedded, frames, vit->tokens, hidden)));
    VL_TRY(push_columns(context, vit, vit->saved.pixels, &columns));
    VL_TRY(vl_linear_layer_backward(context, &vit->patch, VL_EMPTY, dpatches, columns, VL_WRITE));
    return VL_OK;
}

VlStatus vl_vit_backward(VlContext *context, VlVit *vit, VlTensor dfeatures) {
    int64_t mark = vl_arena_mark(&context->scratch), frames = dfeatures.dim[0];
    VlTensor d, cu_seqlens;
    VL_TRY(push_cu_seqlens(context, vit, frames, &cu_seqlens));
    VL_TRY(vl_arena_push(&context->scratch, &d, dfeatures.dtype, frames * vit->tokens, vit->config.hidden));
    VL_TRY(vl_zero(context, d));
    VL_TRY(copy_patches(context, vit, dfeatures, d, true));
    for (int64_t i = vit->config.run_layers - 1; i >= 0; i--) {
        VL_TRY(vl_vit_block_backward(context, &vit->blocks[i], d, cu_seqlens, frames));
    }
    VL_TRY(backward_embedding(context, vit, d));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

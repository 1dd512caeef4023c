#include "model/beats.h"

#include <math.h>
#include <stdio.h>

#include "base/memory.h"
#include "base/random.h"

#define PREFIX "model.audio_tower"

static const VlInit zeros = {.kind = VL_INIT_ZEROS}, normal = {.kind = VL_INIT_NORMAL, .scale = 0.02F};

int64_t vl_beats_tokens(const VlAudioConfig *config, int64_t rows) {
    return rows / config->patch_size * (VL_FBANK_BINS / config->patch_size);
}

static VlStatus plan_embeddings(VlParams *params, VlBeats *beats) {
    const VlAudioConfig *config = &beats->config;
    int64_t width = config->embedding, patch = config->patch_size;
    VL_TRY(vl_linear_layer_plan_convolution(params, &beats->patch, PREFIX ".patch_embedding", VL_GROUP_AUDIO_TOWER,
                                            vl_linear_default_init(patch * patch), 4,
                                            (int64_t[]){width, 1, patch, patch}, false));
    VL_TRY(vl_norm_plan_layernorm(params, &beats->patch_norm, PREFIX ".layer_norm", VL_GROUP_AUDIO_TOWER, width,
                                  VL_BEATS_EPS));
    if (width == config->hidden) return VL_OK;
    return vl_linear_layer_plan(params, &beats->project, PREFIX ".post_extract_proj", VL_GROUP_AUDIO_TOWER,
                                vl_linear_default_init(width), config->hidden, width, true);
}

// The gain starts as the norm that the direction has by its own initialisation.
static VlStatus plan_position_convolution(VlParams *params, VlBeats *beats) {
    const VlAudioConfig *config = &beats->config;
    int64_t hidden = config->hidden, taps = config->conv_taps, width = hidden / config->conv_groups;
    double deviation = sqrt(4.0 / ((double)taps * (double)hidden));
    VlInit direction = {.kind = VL_INIT_NORMAL, .scale = (float)deviation};
    VL_TRY(vl_params_register(params, &beats->conv_bias, PREFIX ".encoder.pos_conv.0.bias", VL_GROUP_AUDIO_TOWER, zeros,
                              false, hidden));
    VL_TRY(vl_params_register(params, &beats->conv_gain, PREFIX ".encoder.pos_conv.0.weight_g", VL_GROUP_AUDIO_TOWER,
                              (VlInit){.kind = VL_INIT_ONES}, true, 1, 1, taps));
    VL_TRY(vl_params_register(params, &beats->conv_direction, PREFIX ".encoder.pos_conv.0.weight_v",
                              VL_GROUP_AUDIO_TOWER, direction, true, hidden, width, taps));
    return VL_OK;
}

static VlStatus plan_unused(VlParams *params, const VlAudioConfig *config) {
    char name[256];
    VlParam *row;
    for (int64_t i = 1; i < config->layers; i++) {
        snprintf(name, sizeof name, PREFIX ".encoder.layers.%lld.self_attn.relative_attention_bias.weight",
                 (long long)i);
        VL_TRY(
            vl_params_register(params, &row, name, VL_GROUP_AUDIO_TOWER, normal, true, config->buckets, config->heads));
        row->unused = row->optional = true;
    }
    if (config->predictor_classes == 0) return VL_OK;
    VlLinear predictor;
    VL_TRY(vl_linear_layer_plan(params, &predictor, PREFIX ".predictor", VL_GROUP_AUDIO_TOWER, normal,
                                config->predictor_classes, config->hidden, true));
    predictor.weight->unused = predictor.weight->optional = true;
    predictor.bias->unused = predictor.bias->optional = true;
    return VL_OK;
}

VlStatus vl_beats_plan(VlParams *params, VlBeats *beats, const VlAudioConfig *config) {
    char name[256];
    *beats = (VlBeats){.config = *config};
    VL_TRY(VL_NEW(&beats->blocks, config->layers));
    VL_TRY(plan_embeddings(params, beats));
    VL_TRY(plan_position_convolution(params, beats));
    VL_TRY(vl_norm_plan_layernorm(params, &beats->norm, PREFIX ".encoder.layer_norm", VL_GROUP_AUDIO_TOWER,
                                  config->hidden, VL_BEATS_EPS));
    VL_TRY(vl_params_register(params, &beats->bias_table,
                              PREFIX ".encoder.layers.0.self_attn.relative_attention_bias.weight", VL_GROUP_AUDIO_TOWER,
                              normal, true, config->buckets, config->heads));
    for (int64_t i = 0; i < config->layers; i++) {
        snprintf(name, sizeof name, PREFIX ".encoder.layers.%lld", (long long)i);
        VL_TRY(vl_beats_block_plan(params, &beats->blocks[i], name, config));
    }
    return plan_unused(params, config);
}

void vl_beats_free(VlBeats *beats) {
    vl_free(beats->blocks);
    *beats = (VlBeats){0};
}

void vl_beats_drop_blocks(VlBeats *beats, double probability, uint64_t seed, int64_t step) {
    VlRandom random = vl_random(seed, vl_hash_string("layer_drop") + (uint64_t)step);
    for (int64_t i = 0; i < beats->config.layers; i++) {
        beats->blocks[i].dropped = vl_random_uniform(&random) < probability;
    }
}

// ---- Forward ---------------------------------------------------------------

// columns[T,p*p] of all sounds, on scratch.
static VlStatus push_columns(VlContext *context, const VlBeats *beats, VlTensor fbank, int64_t sounds,
                             const int64_t *rows, int64_t tokens, VlTensor *columns) {
    int64_t patch = beats->config.patch_size, row = 0, token = 0;
    VL_TRY(vl_arena_push(&context->scratch, columns, beats->patch.weight->value.dtype, tokens, patch * patch));
    for (int64_t s = 0; s < sounds; s++) {
        int64_t count = vl_beats_tokens(&beats->config, rows[s]);
        VlTensor picture = vl_reshape(vl_rows(fbank, row, rows[s]), 1, 1, rows[s], VL_FBANK_BINS);
        VL_TRY(vl_patches(context, vl_rows(*columns, token, count), picture, patch));
        row += rows[s];
        token += count;
    }
    return VL_OK;
}

// w[D,K,D/G] of the positional convolution, on scratch.
static VlStatus push_convolution(VlContext *context, const VlBeats *beats, VlTensor *w) {
    VlTensor v = beats->conv_direction->value;
    VL_TRY(vl_arena_push(&context->scratch, w, v.dtype, v.dim[0], v.dim[2], v.dim[1]));
    VL_TRY(vl_weight_norm_forward(context, *w, vl_reshape(beats->conv_gain->value, v.dim[2]), v));
    return VL_OK;
}

// *x [T,hidden]: patches, embedded, normalised and projected.
static VlStatus embed(VlContext *context, VlBeats *beats, VlTensor fbank, int64_t sounds, const int64_t *rows,
                      int64_t tokens, VlArena *arena, VlTensor *x) {
    VlDtype dtype = beats->patch.weight->value.dtype;
    VlTensor columns, embedded, normed;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(arena, &embedded, dtype, tokens, beats->config.embedding));
    VL_TRY(vl_arena_push(arena, &normed, dtype, tokens, beats->config.embedding));
    *x = normed;
    if (beats->project.weight) VL_TRY(vl_arena_push(arena, x, dtype, tokens, beats->config.hidden));
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(push_columns(context, beats, fbank, sounds, rows, tokens, &columns));
    VL_TRY(vl_linear_layer_forward(context, &beats->patch, embedded, columns, VL_WRITE));
    if (arena != &context->scratch) vl_arena_release(&context->scratch, mark);
    VL_TRY(vl_norm_forward(context, &beats->patch_norm, normed, embedded, arena, &statistics));
    if (beats->project.weight) VL_TRY(vl_linear_layer_forward(context, &beats->project, *x, normed, VL_WRITE));
    beats->saved.fbank = fbank, beats->saved.embedded = embedded, beats->saved.normed = normed;
    beats->saved.patch_norm = statistics, beats->saved.projected = *x;
    return VL_OK;
}

// *x = layer_norm(*x + gelu(positional convolution of *x)).
static VlStatus add_positions(VlContext *context, VlBeats *beats, VlTensor cu_seqlens, VlArena *arena, VlTensor *x) {
    VlTensor w, convolved, summed, out;
    VlNormSaved statistics;
    VL_TRY(vl_arena_push(arena, &convolved, x->dtype, x->dim[0], x->dim[1]));
    VL_TRY(vl_arena_push(arena, &summed, x->dtype, x->dim[0], x->dim[1]));
    VL_TRY(vl_arena_push(arena, &out, x->dtype, x->dim[0], x->dim[1]));
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(push_convolution(context, beats, &w));
    VL_TRY(vl_convolution1d_forward(context, convolved, *x, w, beats->conv_bias->value, cu_seqlens,
                                    beats->config.conv_groups));
    vl_arena_release(&context->scratch, mark);
    VL_TRY(vl_activation_forward(context, summed, convolved, VL_GELU_ERF));
    VL_TRY(vl_add_tensors(context, summed, summed, 1, *x));
    VL_TRY(vl_norm_forward(context, &beats->norm, out, summed, arena, &statistics));
    beats->saved.convolved = convolved, beats->saved.summed = summed, beats->saved.norm = statistics;
    *x = out;
    return VL_OK;
}

// cu_seqlens of the sounds' tokens and the bias for the longest of them; *tokens of all.
static VlStatus describe_sounds(VlContext *context, VlBeats *beats, int64_t sounds, const int64_t *rows, VlArena *arena,
                                int64_t *tokens) {
    int64_t longest = 0, *offsets;
    *tokens = 0;
    for (int64_t s = 0; s < sounds; s++) {
        int64_t count = vl_beats_tokens(&beats->config, rows[s]);
        if (count == 0) {
            return vl_error(VL_INVALID, "sound %lld has %lld fbank rows: the audio tower needs at least %lld",
                            (long long)s, (long long)rows[s], (long long)beats->config.patch_size);
        }
        if (count > longest) longest = count;
        *tokens += count;
    }
    VL_TRY(vl_arena_push(arena, &beats->saved.cu_seqlens, VL_I64, sounds + 1));
    VL_TRY(vl_arena_push(arena, &beats->saved.bias, VL_F32, beats->config.heads, 2 * longest - 1));
    VL_TRY(VL_NEW(&offsets, sounds + 1));
    for (int64_t s = 0; s < sounds; s++) offsets[s + 1] = offsets[s] + vl_beats_tokens(&beats->config, rows[s]);
    VlStatus status = vl_copy_from_host(context, beats->saved.cu_seqlens, offsets);
    vl_free(offsets);
    VL_TRY(status);
    return vl_relative_bias_forward(context, beats->saved.bias, beats->bias_table->value, beats->config.max_distance);
}

VlStatus vl_beats_forward(VlContext *context, VlBeats *beats, VlTensor fbank, int64_t sounds, const int64_t *rows,
                          bool keep, VlTensor *features) {
    VlArena *arena = keep ? &context->activations : &context->scratch;
    int64_t mark = vl_arena_mark(&context->scratch), tokens = 0;
    for (int64_t s = 0; s < sounds; s++) tokens += vl_beats_tokens(&beats->config, rows[s]);
    VL_TRY(
        vl_arena_push(&context->activations, features, beats->norm.weight->value.dtype, tokens, beats->config.hidden));
    VL_TRY(describe_sounds(context, beats, sounds, rows, arena, &tokens));
    VlTensor x;
    VL_TRY(embed(context, beats, fbank, sounds, rows, tokens, arena, &x));
    VL_TRY(add_positions(context, beats, beats->saved.cu_seqlens, arena, &x));
    VlBeatsPass pass = {.cu_seqlens = beats->saved.cu_seqlens, .bias = beats->saved.bias, .keep = keep};
    for (int64_t i = 0; i < beats->config.layers; i++) {
        VL_TRY(vl_beats_block_forward(context, &beats->blocks[i], &x, &pass));
    }
    VL_TRY(vl_cast(context, *features, x));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

// ---- Backward --------------------------------------------------------------

// d of the first block's input becomes d of `projected`.
static VlStatus backward_positions(VlContext *context, VlBeats *beats, VlTensor d) {
    VlArena *scratch = &context->scratch;
    int64_t mark = vl_arena_mark(scratch);
    VlTensor v = beats->conv_direction->value, gain = vl_reshape(beats->conv_gain->value, v.dim[2]), w, dsummed;
    VlTensor dconvolved, dw = VL_EMPTY, dgain = beats->conv_gain->gradient;
    VL_TRY(vl_arena_push(scratch, &dsummed, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_arena_push(scratch, &dconvolved, d.dtype, d.dim[0], d.dim[1]));
    VL_TRY(vl_norm_backward(context, &beats->norm, dsummed, d, beats->saved.summed, &beats->saved.norm, VL_WRITE));
    VL_TRY(vl_activation_backward(context, dconvolved, dsummed, beats->saved.convolved, VL_GELU_ERF));
    VL_TRY(push_convolution(context, beats, &w));
    if (!vl_is_empty(dgain)) {
        dgain = vl_reshape(dgain, v.dim[2]);
        VL_TRY(vl_arena_push(scratch, &dw, VL_F32, v.dim[0], v.dim[2], v.dim[1]));
        VL_TRY(vl_zero(context, dw));
    }
    VL_TRY(vl_cast(context, d, dsummed));
    VL_TRY(vl_convolution1d_backward(context, d, dw, beats->conv_bias->gradient, dconvolved, beats->saved.projected, w,
                                     beats->saved.cu_seqlens, beats->config.conv_groups, VL_ADD));
    if (!vl_is_empty(dgain)) {
        VL_TRY(vl_weight_norm_backward(context, dgain, beats->conv_direction->gradient, dw, gain, v));
    }
    vl_arena_release(scratch, mark);
    return VL_OK;
}

static VlStatus backward_embedding(VlContext *context, VlBeats *beats, int64_t sounds, const int64_t *rows,
                                   VlTensor d) {
    VlArena *scratch = &context->scratch;
    VlTensor embedded = beats->saved.embedded, dnormed = d, dembedded, columns;
    if (beats->project.weight) {
        VL_TRY(vl_arena_push(scratch, &dnormed, d.dtype, d.dim[0], embedded.dim[1]));
        VL_TRY(vl_linear_layer_backward(context, &beats->project, dnormed, d, beats->saved.normed, VL_WRITE));
    }
    VL_TRY(vl_arena_push(scratch, &dembedded, d.dtype, d.dim[0], embedded.dim[1]));
    VL_TRY(vl_norm_backward(context, &beats->patch_norm, dembedded, dnormed, embedded, &beats->saved.patch_norm,
                            VL_WRITE));
    VL_TRY(push_columns(context, beats, beats->saved.fbank, sounds, rows, d.dim[0], &columns));
    VL_TRY(vl_linear_layer_backward(context, &beats->patch, VL_EMPTY, dembedded, columns, VL_WRITE));
    return VL_OK;
}

VlStatus vl_beats_backward(VlContext *context, VlBeats *beats, int64_t sounds, const int64_t *rows,
                           VlTensor dfeatures) {
    VlArena *scratch = &context->scratch;
    int64_t mark = vl_arena_mark(scratch);
    VlTensor d, dtable = beats->bias_table->gradient;
    VlBeatsPass pass = {.cu_seqlens = beats->saved.cu_seqlens, .bias = beats->saved.bias, .keep = true};
    VL_TRY(vl_arena_push(scratch, &d, dfeatures.dtype, dfeatures.dim[0], dfeatures.dim[1]));
    VL_TRY(vl_cast(context, d, dfeatures));
    if (!vl_is_empty(dtable)) {
        VL_TRY(vl_arena_push(scratch, &pass.dbias, VL_F32, pass.bias.dim[0], pass.bias.dim[1]));
        VL_TRY(vl_zero(context, pass.dbias));
    }
    for (int64_t i = beats->config.layers - 1; i >= 0; i--) {
        VL_TRY(vl_beats_block_backward(context, &beats->blocks[i], d, &pass));
    }
    if (!vl_is_empty(dtable)) {
        VL_TRY(vl_relative_bias_backward(context, dtable, pass.dbias, beats->config.max_distance));
    }
    VL_TRY(backward_positions(context, beats, d));
    VL_TRY(backward_embedding(context, beats, sounds, rows, d));
    vl_arena_release(scratch, mark);
    return VL_OK;
}

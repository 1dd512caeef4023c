// A tiny random model with a tower, an STC connector and a decoder, and sequences for it: for the tests of the whole
// model.
#ifndef VL_TESTS_MODEL_TINY_MODEL_H
#define VL_TESTS_MODEL_TINY_MODEL_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "model/batch_build.h"
#include "model/generate.h"
#include "model/vlm.h"

#define CHECK(expression)                                                            \
    do {                                                                             \
        if ((expression) != VL_OK) fail_msg("%s: %s", #expression, vl_error_text()); \
    } while (0)

enum { TINY_VOCABULARY = 50, TINY_SIDE = 42, TINY_FRAMES = 3 };

#define TINY_BOTH (VL_GROUP_BIT(VL_GROUP_CONNECTOR) | VL_GROUP_BIT(VL_GROUP_LLM))

typedef struct Tiny {
    VlContext *context;
    VlVlm *model;
    float pixels[TINY_FRAMES * 3 * TINY_SIDE * TINY_SIDE];
} Tiny;

typedef enum TinyKind {
    TINY_PLAIN,
    TINY_TIED,        // the head is the embedding
    TINY_EXPERTS,     // two of five experts for a token; an expert's elements are no multiple of 16
    TINY_ALL_EXPERTS  // all three of them: the loss is smooth in the router's weights
} TinyKind;

static inline VlModelConfig tiny_config(TinyKind kind) {
    static const int64_t experts[] = {[TINY_EXPERTS] = 5, [TINY_ALL_EXPERTS] = 3};
    static const int64_t experts_per_token[] = {[TINY_EXPERTS] = 2, [TINY_ALL_EXPERTS] = 3};
    return (VlModelConfig){
        .model_type = "videollama2_qwen2",
        .has_vision = true,
        .vision = {.hidden = 24,
                   .intermediate = 40,
                   .layers = 3,
                   .heads = 3,
                   .image_size = TINY_SIDE,
                   .patch_size = 14,
                   .run_layers = 2,
                   .class_token = true,
                   .pre_norm = true,
                   .activation = VL_QUICK_GELU,
                   .eps = 1e-5f},
        .connector =
            {.kind = VL_CONNECTOR_STC, .depth = 4, .kt = 2, .kh = 2, .kw = 2, .padding = 1, .input = 24, .output = 36},
        .decoder = {.hidden = 36,
                    .intermediate = experts[kind] > 0 ? 15 : 52,
                    .layers = 3,
                    .heads = 6,
                    .kv_heads = 2,
                    .head_size = 10,
                    .vocabulary = TINY_VOCABULARY,
                    .eps = 1e-5f,
                    .rope_theta = 10000,
                    .qkv_bias = true,
                    .tied = kind == TINY_TIED,
                    .experts = experts[kind],
                    .experts_per_token = experts_per_token[kind],
                    .initializer_range = 0.2f},
        .num_frames = 2,
        .stops = 1,
        .stop = {2},
    };
}

// Seeded weights; norm weights spread around 1, so that every one of them shows.
static inline void tiny_fill(Tiny *tiny) {
    VlParams *params = vl_vlm_params(tiny->model);
    for (int64_t i = 0; i < params->count; i++) {
        VlParam *row = params->rows[i];
        CHECK(vl_params_initialise(tiny->context, params, row, 7));
        if (row->init.kind != VL_INIT_ONES && row->init.kind != VL_INIT_ZEROS) continue;
        int64_t count = vl_elements(row->shape);
        float *values;
        CHECK(VL_NEW(&values, count));
        VlRandom random = vl_random(7, vl_hash_string(row->name));
        float center = row->init.kind == VL_INIT_ONES ? 1 : 0;
        for (int64_t k = 0; k < count; k++) values[k] = center + 0.3f * (float)vl_random_normal(&random);
        CHECK(vl_params_set(tiny->context, row, values, VL_F32));
        vl_free(values);
    }
}

static inline void tiny_open(Tiny *tiny, VlGroups trainable, TinyKind kind) {
    VlModelConfig config = tiny_config(kind);
    CHECK(vl_context_create(&tiny->context, VL_DEVICE_CPU, 2));
    CHECK(vl_vlm_create(&tiny->model, tiny->context, &config, trainable));
    CHECK(vl_params_bind(tiny->context, vl_vlm_params(tiny->model), VL_F32));
    tiny_fill(tiny);
    VlRandom random = vl_random(11, 0);
    for (size_t i = 0; i < sizeof tiny->pixels / sizeof *tiny->pixels; i++) {
        tiny->pixels[i] = (float)vl_random_normal(&random);
    }
}

static inline void tiny_close(Tiny *tiny) {
    vl_vlm_free(tiny->model);
    vl_context_free(tiny->context);
}

// Ids and labels of three sequences: text, video, image.
static const int64_t tiny_text_ids[] = {1, 5, 9, 33, 21, 8, 49, 0};
static const int64_t tiny_text_labels[] = {-100, -100, -100, 33, 21, 8, 49, 0};
static const int64_t tiny_video_ids[] = {1, 7, VL_VIDEO_ID, 12, 30, 44, 2};
static const int64_t tiny_video_labels[] = {-100, -100, -100, 12, -100, 44, 2};
static const int64_t tiny_image_ids[] = {VL_IMAGE_ID, 3, 17, 17, 2};
static const int64_t tiny_image_labels[] = {-100, -100, 17, 17, 2};

typedef struct TinySequences {
    VlMedium video, image;
    VlSequence all[3];
} TinySequences;

static inline void tiny_sequences(const Tiny *tiny, TinySequences *sequences) {
    sequences->video = (VlMedium){.frames = TINY_FRAMES, .pixels = tiny->pixels};
    sequences->image = (VlMedium){.frames = 1, .pixels = tiny->pixels + 3 * TINY_SIDE * TINY_SIDE};
    sequences->all[0] = (VlSequence){8, tiny_text_ids, tiny_text_labels, 0, NULL};
    sequences->all[1] = (VlSequence){7, tiny_video_ids, tiny_video_labels, 1, &sequences->video};
    sequences->all[2] = (VlSequence){5, tiny_image_ids, tiny_image_labels, 1, &sequences->image};
}

// Forward (and backward), and the sum of the losses; losses may be NULL.
static inline double tiny_loss(Tiny *tiny, const VlBatch *batch, bool backward, const VlGradientHook *hook,
                               float *losses) {
    float buffer[64];
    if (!losses) losses = buffer;
    assert_true(batch->labels <= 64);
    VlVlmForward forward;
    CHECK(vl_vlm_prepare(tiny->model, batch, backward));
    CHECK(vl_vlm_forward(tiny->model, batch, backward, &forward));
    CHECK(vl_vlm_loss(tiny->model, batch, &forward, backward, 1, hook, losses));
    vl_vlm_release(tiny->model);
    double sum = 0;
    for (int64_t i = 0; i < batch->labels; i++) sum += losses[i];
    return sum;
}

// A trainable row's gradient on the host; free with vl_free.
static inline float *tiny_gradient(Tiny *tiny, const VlParam *row) {
    float *values;
    CHECK(VL_NEW(&values, vl_elements(row->shape)));
    CHECK(vl_copy_to_host(tiny->context, values, row->gradient));
    return values;
}

// |a - b| / |b|
static inline double relative_error(const float *a, const float *b, int64_t count) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference) / (sqrt(norm) + 1e-30);
}

#endif

// The vision tower: golden features, chunks, gradients, the parameters that take no part.
#include "tests/model/vision_parts.h"

static void golden_case(const char *name) {
    VlModelConfig config;
    VlParams params = {0};
    VlVit vit;
    VlContext *context = open_context(64 << 20);
    VlSafetensors input, expected;
    VlTensor shape, wanted, features;
    assert_ok(vl_model_config_load(&config, golden_path(name, "model")));
    assert_ok(vl_vit_plan(&params, &vit, &config.vision));
    assert_ok(vl_params_bind(context, &params, VL_F32));
    load_golden(context, &params, name);
    assert_ok(vl_safetensors_open(&input, golden_path(name, "input.safetensors")));
    assert_ok(vl_safetensors_open(&expected, golden_path(name, "expected.safetensors")));
    float *pixels = read_tensor(&input, "pixel_values", &shape);
    float *reference = read_tensor(&expected, "vision_features", &wanted);
    assert_ok(vl_vit_forward(context, &vit, upload(context, pixels, VL_F32, 4, shape.dim), false, &features));
    assert_int_equal(features.dim[0], shape.dim[0]);
    int64_t frame = wanted.dim[1] * wanted.dim[2];
    assert_int_equal(vl_elements(features), shape.dim[0] * frame);
    float *found = download(context, features);
    // An image's features are repeated in the expected numbers.
    for (int64_t i = 0; i < wanted.dim[0]; i++) {
        double error = relative_error(found + (i % shape.dim[0]) * frame, reference + i * frame, frame);
        if (!(error <= 1e-5)) fail_msg("%s, frame %d: relative error %g", name, (int)i, error);
    }
    vl_free(found);
    vl_free(pixels);
    vl_free(reference);
    vl_safetensors_close(&input);
    vl_safetensors_close(&expected);
    vl_vit_free(&vit);
    vl_params_free(context, &params);
    vl_context_free(context);
}

static void golden(void **state) {
    (void)state;
    golden_case("mistral_clip_stc");
    golden_case("mistral_clip_image");
    golden_case("conn_linear");
    golden_case("conn_mlp2x_gelu");
    golden_case("conn_stp");
    golden_case("conn_spatial_conv");
    golden_case("conn_spatial_pool");
    golden_case("qwen2_siglip_v35");
}

static const VlVisionConfig clip = {.hidden = 24,
                                    .intermediate = 28,
                                    .layers = 3,
                                    .heads = 3,
                                    .image_size = 17,
                                    .patch_size = 5,
                                    .run_layers = 2,
                                    .class_token = true,
                                    .pre_norm = true,
                                    .activation = VL_QUICK_GELU,
                                    .eps = 1e-3F};
static const VlVisionConfig siglip = {.hidden = 18,
                                      .intermediate = 25,
                                      .layers = 2,
                                      .heads = 2,
                                      .image_size = 8,
                                      .patch_size = 3,
                                      .run_layers = 1,
                                      .patch_bias = true,
                                      .activation = VL_GELU_TANH,
                                      .eps = 1e-6F};

// One head of 72 as in so400m; pixels are left over at the right and below.
static const VlVisionConfig wide_heads = {.hidden = 72,
                                          .intermediate = 30,
                                          .layers = 2,
                                          .heads = 1,
                                          .image_size = 11,
                                          .patch_size = 4,
                                          .run_layers = 1,
                                          .patch_bias = true,
                                          .activation = VL_GELU_TANH,
                                          .eps = 1e-6F};

// A tower with seeded weights, frames for it, and an upstream gradient.
typedef struct Tower {
    VlContext *context;
    VlParams params;
    VlVit vit;
    int64_t frames, mark;
    VlTensor pixels;
    float *upstream;
} Tower;

static void open_tower(Tower *tower, const VlVisionConfig *config, VlDtype dtype, int64_t frames, VlGroups trainable) {
    *tower = (Tower){.context = open_context(64 << 20), .frames = frames};
    assert_ok(vl_vit_plan(&tower->params, &tower->vit, config));
    vl_params_set_trainable(&tower->params, trainable);
    assert_ok(vl_params_bind(tower->context, &tower->params, dtype));
    fill_params(tower->context, &tower->params, 3);
    int64_t side = config->image_size;
    float *pixels = random_values(frames * 3 * side * side, 5);
    tower->pixels = upload(tower->context, pixels, VL_F32, 4, (int64_t[]){frames, 3, side, side});
    vl_free(pixels);
    tower->upstream = random_values(frames * tower->vit.patches * config->hidden, 6);
    tower->mark = vl_arena_mark(&tower->context->activations);
}

static void close_tower(Tower *tower) {
    vl_free(tower->upstream);
    vl_vit_free(&tower->vit);
    vl_params_free(tower->context, &tower->params);
    vl_context_free(tower->context);
}

// The features on the host; what the pass took from the arenas is given back.
static float *run(Tower *tower, VlTensor pixels, bool keep) {
    VlTensor features;
    assert_ok(vl_vit_forward(tower->context, &tower->vit, pixels, keep, &features));
    assert_int_equal(tower->context->scratch.used, 0);
    float *values = download(tower->context, features);
    vl_arena_release(&tower->context->activations, tower->mark);
    return values;
}

static double evaluate(void *user) {
    Tower *tower = user;
    float *features = run(tower, tower->pixels, false);
    double sum = dot(features, tower->upstream, tower->frames * tower->vit.patches * tower->vit.config.hidden);
    vl_free(features);
    return sum;
}

static void gradients_of(const VlVisionConfig *config, int64_t frames) {
    Tower tower;
    open_tower(&tower, config, VL_F32, frames, VL_GROUP_BIT(VL_GROUP_VISION_TOWER));
    VlTensor features, upstream;
    for (int i = 0; i < 2; i++) {  // gradients are added: two passes give twice the gradient
        assert_ok(vl_vit_forward(tower.context, &tower.vit, tower.pixels, true, &features));
        upstream = upload(tower.context, tower.upstream, VL_F32, 3, features.dim);
        assert_ok(vl_vit_backward(tower.context, &tower.vit, upstream));
        assert_int_equal(tower.context->scratch.used, 0);
        vl_arena_release(&tower.context->activations, tower.mark);
    }
    int64_t count = tower.params.trainable_elements;
    float *doubled = download(tower.context, tower.params.flat_gradient);
    for (int64_t i = 0; i < count; i++) doubled[i] *= 0.5F;
    assert_ok(vl_copy_from_host(tower.context, tower.params.flat_gradient, doubled));
    vl_free(doubled);
    check_param_gradients(tower.context, &tower.params, evaluate, &tower, 0.02);
    close_tower(&tower);
}

static void gradients(void **state) {
    (void)state;
    gradients_of(&clip, 3);
    gradients_of(&siglip, 2);
    gradients_of(&siglip, VL_VIT_CHUNK + 1);
    gradients_of(&wide_heads, 2);
}

// Frames do not depend on each other, on their number, nor on what is kept.
static void chunks(void **state) {
    (void)state;
    Tower tower;
    enum { FRAMES = 2 * VL_VIT_CHUNK + 3 };
    open_tower(&tower, &clip, VL_F32, FRAMES, 0);
    int64_t size = tower.vit.patches * clip.hidden;
    float *all = run(&tower, tower.pixels, false), *kept = run(&tower, tower.pixels, true);
    double error = relative_error(kept, all, FRAMES * size);
    if (!(error <= 1e-6)) fail_msg("keeping changes the features by %g", error);
    for (int64_t i = 0; i < FRAMES; i++) {
        float *alone = run(&tower, vl_rows(tower.pixels, i, 1), false);
        error = relative_error(alone, all + i * size, size);
        if (!(error <= 1e-6)) fail_msg("frame %d alone differs by %g", (int)i, error);
        vl_free(alone);
    }
    vl_free(all);
    vl_free(kept);
    close_tower(&tower);
}

static void bf16(void **state) {
    (void)state;
    Tower exact, rounded;
    open_tower(&exact, &clip, VL_F32, 3, 0);
    open_tower(&rounded, &clip, VL_BF16, 3, 0);
    float *a = run(&rounded, rounded.pixels, false), *b = run(&exact, exact.pixels, false);
    double error = relative_error(a, b, 3 * exact.vit.patches * clip.hidden);
    if (!(error <= 3e-2 && error > 1e-5)) fail_msg("bf16 differs by %g", error);
    vl_free(a);
    vl_free(b);
    close_tower(&exact);
    close_tower(&rounded);
}

static void unused_parameters(void **state) {
    (void)state;
    VlParams params = {0};
    VlVit vit;
    VlVisionConfig config = clip;
    assert_ok(vl_vit_plan(&params, &vit, &config));
    vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_VISION_TOWER));
    int64_t unused = 0;
    for (int64_t i = 0; i < params.count; i++) {
        const VlParam *row = params.rows[i];
        bool outside = strstr(row->name, ".layers.2.") || strstr(row->name, ".post_layernorm.");
        assert_int_equal(row->unused, outside);
        assert_int_equal(row->optional, outside);
        assert_int_equal(row->trainable, !outside);
        unused += outside;
    }
    assert_int_equal(unused, 18);
    assert_int_equal(params.count, 5 + 3 * 16 + 2);
    vl_vit_free(&vit);
    vl_params_free(NULL, &params);
    assert_ok(vl_vit_plan(&params, &vit, &siglip));
    assert_non_null(
        vl_params_find(&params, "model.vision_tower.vision_tower.vision_model.head.attention.in_proj_weight"));
    assert_non_null(vl_params_find(&params, "model.vision_tower.vision_tower.vision_model.head.mlp.fc2.bias"));
    assert_int_equal(params.count, 3 + 2 * 16 + 2 + 11);
    vl_vit_free(&vit);
    vl_params_free(NULL, &params);
}

// The scratch memory of a pass that keeps nothing does not grow with the number of frames; the planning context tells.
static int64_t planned_scratch(int64_t frames, bool keep) {
    VlContext *context;
    VlParams params = {0};
    VlVit vit;
    VlTensor pixels, features;
    assert_ok(vl_context_create_plan(&context, VL_DEVICE_CPU, 0));
    assert_ok(vl_vit_plan(&params, &vit, &clip));
    vl_params_set_trainable(&params, VL_GROUP_BIT(VL_GROUP_VISION_TOWER));
    assert_ok(vl_params_bind(context, &params, VL_F32));
    assert_ok(vl_arena_push(&context->activations, &pixels, VL_F32, frames, 3, clip.image_size, clip.image_size));
    assert_ok(vl_vit_forward(context, &vit, pixels, keep, &features));
    if (keep) assert_ok(vl_vit_backward(context, &vit, features));
    assert_int_equal(context->scratch.used, 0);
    assert_true(vl_flops_total(&context->flops) > 0);
    int64_t peak = context->scratch.peak;
    vl_vit_free(&vit);
    vl_params_free(context, &params);
    vl_context_free(context);
    return peak;
}

static void planning(void **state) {
    (void)state;
    assert_int_equal(planned_scratch(VL_VIT_CHUNK, false), planned_scratch(5 * VL_VIT_CHUNK + 1, false));
    assert_true(planned_scratch(VL_VIT_CHUNK, false) > planned_scratch(1, false));
    assert_true(planned_scratch(5, true) > 0);
}

static void wrong_pixels(void **state) {
    (void)state;
    Tower tower;
    open_tower(&tower, &clip, VL_F32, 1, 0);
    VlTensor pixels, features;
    assert_ok(vl_arena_push(&tower.context->activations, &pixels, VL_F32, 1, 3, 17, 16));
    assert_error(vl_vit_forward(tower.context, &tower.vit, pixels, false, &features), VL_INVALID, "[1,3,17,16]");
    close_tower(&tower);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),       cmocka_unit_test(gradients), cmocka_unit_test(chunks),
        cmocka_unit_test(bf16),         cmocka_unit_test(planning),  cmocka_unit_test(unused_parameters),
        cmocka_unit_test(wrong_pixels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// The audio tower against the golden cases, and its gradients against differences of the forward pass.
#include "model/beats.h"
#include "model/config_audio.h"
#include "tests/model/vision_parts.h"

static VlAudioConfig golden_config(const char *test_case) {
    VlModelConfig config = {.decoder.hidden = 48};
    json_t *json;
    const char *path = golden_path(test_case, "model/config.json");
    assert_ok(vl_json_load(path, 1 << 20, &json));
    assert_ok(vl_config_audio_load(&config, json, path));
    json_decref(json);
    assert_true(config.has_audio);
    return config.audio;
}

typedef struct Tower {
    VlContext *context;
    VlParams params;
    VlBeats beats;
    VlTensor fbank;
    int64_t sounds, rows[3];
    float *upstream;  // of the features
} Tower;

static void tower_open(Tower *tower, const VlAudioConfig *config, bool trains, VlDtype dtype) {
    *tower = (Tower){.context = open_context(256 << 20)};
    assert_ok(vl_beats_plan(&tower->params, &tower->beats, config));
    if (trains) vl_params_set_trainable(&tower->params, VL_GROUP_BIT(VL_GROUP_AUDIO_TOWER));
    assert_ok(vl_params_bind(tower->context, &tower->params, dtype));
}

static void tower_close(Tower *tower) {
    vl_beats_free(&tower->beats);
    vl_params_free(tower->context, &tower->params);
    vl_context_free(tower->context);
    vl_free(tower->upstream);
}

static float *forward(Tower *tower, bool keep, int64_t *count) {
    int64_t mark = vl_arena_mark(&tower->context->activations);
    VlTensor features;
    assert_ok(
        vl_beats_forward(tower->context, &tower->beats, tower->fbank, tower->sounds, tower->rows, keep, &features));
    *count = vl_elements(features);
    float *values = download(tower->context, features);
    if (!keep) vl_arena_release(&tower->context->activations, mark);
    return values;
}

static void golden_features(const char *test_case, VlDtype dtype, double tolerance) {
    Tower tower;
    VlAudioConfig config = golden_config(test_case);
    VlSafetensors input, expected;
    VlTensor shape;
    tower_open(&tower, &config, false, dtype);
    load_golden(tower.context, &tower.params, test_case);
    assert_ok(vl_safetensors_open(&input, golden_path(test_case, "input.safetensors")));
    assert_ok(vl_safetensors_open(&expected, golden_path(test_case, "expected.safetensors")));
    float *fbank = read_tensor(&input, "fbank", &shape), *want;
    for (int64_t i = 0; i < vl_elements(shape); i++) fbank[i] = (float)(((double)fbank[i] - 15.41663) / (2 * 6.55582));
    tower.fbank = upload(tower.context, fbank, VL_F32, 2, shape.dim);
    tower.sounds = 1;
    tower.rows[0] = shape.dim[0];
    want = read_tensor(&expected, "audio_features", &shape);
    for (int keep = 0; keep < 2; keep++) {
        int64_t count;
        float *found = forward(&tower, keep, &count);
        assert_int_equal(count, vl_elements(shape));
        double error = relative_error(found, want, count);
        if (!(error <= tolerance)) fail_msg("%s: features are %.3g off", test_case, error);
        vl_free(found);
    }
    vl_free(fbank);
    vl_free(want);
    vl_safetensors_close(&input);
    vl_safetensors_close(&expected);
    tower_close(&tower);
}

static void test_golden(void **state) {
    (void)state;
    static const char *const cases[] = {"audio_qwen2", "audio_qwen2_nodecay", "av_qwen2_siglip"};
    for (int i = 0; i < 3; i++) {
        golden_features(cases[i], VL_F32, 2e-6);
        golden_features(cases[i], VL_BF16, 6e-2);
    }
}

// Sizes that do not divide evenly, two sounds of other lengths, equal widths without a projection.
static VlAudioConfig small_config(int64_t embedding, float decay) {
    return (VlAudioConfig){.embedding = embedding,
                           .hidden = 24,
                           .intermediate = 20,
                           .layers = 2,
                           .heads = 3,
                           .patch_size = 16,
                           .conv_taps = 7,
                           .conv_groups = 4,
                           .buckets = 16,
                           .max_distance = 9,
                           .gradient_decay = decay};
}

static void open_small(Tower *tower, const VlAudioConfig *config) {
    static const int64_t dim[2] = {35 + 16 + 50, VL_FBANK_BINS};
    tower_open(tower, config, true, VL_F32);
    fill_params(tower->context, &tower->params, 60);
    float *fbank = random_values(dim[0] * dim[1], 61);
    tower->fbank = upload(tower->context, fbank, VL_F32, 2, dim);
    tower->sounds = 3;
    tower->rows[0] = 35, tower->rows[1] = 16, tower->rows[2] = 50;
    vl_free(fbank);
}

static double evaluate(void *user) {
    Tower *tower = user;
    int64_t count;
    float *features = forward(tower, false, &count);
    double sum = dot(features, tower->upstream, count);
    vl_free(features);
    return sum;
}

static void add_gradients(Tower *tower) {
    int64_t count, mark = vl_arena_mark(&tower->context->activations);
    vl_free(forward(tower, true, &count));
    tower->upstream = random_values(count, 62);
    VlTensor d = upload(tower->context, tower->upstream, VL_F32, 2, (int64_t[]){count / 24, 24});
    assert_ok(vl_beats_backward(tower->context, &tower->beats, tower->sounds, tower->rows, d));
    vl_arena_release(&tower->context->activations, mark);
}

static void test_gradients(void **state) {
    (void)state;
    for (int projected = 0; projected < 2; projected++) {
        Tower tower;
        VlAudioConfig config = small_config(projected ? 10 : 24, 1);
        open_small(&tower, &config);
        add_gradients(&tower);
        // The sum over the features is about 30, its f32 rounding shows 1000-fold in a difference with step 1e-3.
        check_param_gradients(tower.context, &tower.params, evaluate, &tower, 1e-2);
        tower_close(&tower);
    }
}

// With the factor r each block's input gradient is multiplied by r: layer i of L sees r^(L-1-i), all before it r^L.
static void test_decay(void **state) {
    (void)state;
    Tower plain, decayed;
    VlAudioConfig config = small_config(10, 1);
    open_small(&plain, &config);
    config.gradient_decay = 0.5F;
    open_small(&decayed, &config);
    add_gradients(&plain);
    add_gradients(&decayed);
    for (int64_t i = 0; i < plain.params.count; i++) {
        const VlParam *row = plain.params.rows[i];
        if (!row->trainable || strstr(row->name, "relative_attention_bias")) continue;
        float factor = strstr(row->name, "layers.1.") ? 1 : strstr(row->name, "layers.0.") ? 0.5F : 0.25F;
        float *one = download(plain.context, row->gradient);
        float *other = download(decayed.context, decayed.params.rows[i]->gradient);
        for (int64_t k = 0; k < vl_elements(row->shape); k++) one[k] *= factor;
        double error = relative_error(other, one, vl_elements(row->shape));
        if (!(error <= 1e-6)) fail_msg("%s: %.3g off", row->name, error);
        vl_free(one);
        vl_free(other);
    }
    tower_close(&plain);
    tower_close(&decayed);
}

// Each dropped block hands its input on, forward and backward, and its part of the decay stays.
static void test_dropped_blocks(void **state) {
    (void)state;
    for (int dropped = 1; dropped < 4; dropped++) {
        Tower plain, decayed;
        VlAudioConfig config = small_config(10, 1);
        open_small(&plain, &config);
        config.gradient_decay = 0.5F;
        open_small(&decayed, &config);
        for (int i = 0; i < 2; i++) plain.beats.blocks[i].dropped = decayed.beats.blocks[i].dropped = dropped >> i & 1;
        add_gradients(&plain);
        add_gradients(&decayed);
        check_param_gradients(plain.context, &plain.params, evaluate, &plain, 1e-2);
        for (int64_t i = 0; i < plain.params.count; i++) {
            const VlParam *row = plain.params.rows[i];
            const char *block = strstr(row->name, ".layers.");
            int64_t elements = vl_elements(row->shape);
            if (!row->trainable || strstr(row->name, "relative_attention_bias")) continue;
            bool out = block && (dropped >> (block[8] - '0') & 1);
            float factor = !block ? 0.25F : block[8] == '0' ? 0.5F : 1;
            float *one = download(plain.context, row->gradient);
            float *other = download(decayed.context, decayed.params.rows[i]->gradient);
            for (int64_t k = 0; k < elements; k++) {
                if (out && (one[k] != 0 || other[k] != 0)) fail_msg("%s: a dropped block has a gradient", row->name);
                one[k] *= factor;
            }
            double error = out ? 0 : relative_error(other, one, elements);
            if (!(error <= 1e-6)) fail_msg("%s: %.3g off", row->name, error);
            vl_free(one);
            vl_free(other);
        }
        tower_close(&plain);
        tower_close(&decayed);
    }
}

// The draw is a pure function of seed, step and block, with the probability that was asked for.
static void test_draws(void **state) {
    (void)state;
    enum { STEPS = 4000 };
    Tower tower;
    VlAudioConfig config = small_config(10, 1);
    int64_t dropped[2] = {0}, both = 0, others = 0;
    bool first[STEPS][2];
    open_small(&tower, &config);
    VlBeatsBlock *blocks = tower.beats.blocks;
    for (int64_t step = 0; step < STEPS; step++) {
        vl_beats_drop_blocks(&tower.beats, 0.3, 42, step);
        for (int i = 0; i < 2; i++) dropped[i] += first[step][i] = blocks[i].dropped;
        both += blocks[0].dropped && blocks[1].dropped;
        vl_beats_drop_blocks(&tower.beats, 0.3, 43, step);
        others += blocks[0].dropped != first[step][0];
    }
    for (int64_t step = STEPS - 1; step >= 0; step--) {
        vl_beats_drop_blocks(&tower.beats, 0.3, 42, step);
        for (int i = 0; i < 2; i++) assert_int_equal(blocks[i].dropped, first[step][i]);
    }
    // Five standard deviations of 4000 draws.
    for (int i = 0; i < 2; i++) assert_true(dropped[i] > 0.3 * STEPS - 145 && dropped[i] < 0.3 * STEPS + 145);
    assert_true(both > 0.09 * STEPS - 91 && both < 0.09 * STEPS + 91);
    assert_true(others > 0.42 * STEPS - 157 && others < 0.42 * STEPS + 157);
    vl_beats_drop_blocks(&tower.beats, 0, 42, 0);
    assert_false(blocks[0].dropped || blocks[1].dropped);
    tower_close(&tower);
}

// Sounds in one batch have the features that they have alone.
static void test_packing(void **state) {
    (void)state;
    Tower tower;
    VlAudioConfig config = small_config(10, 1);
    open_small(&tower, &config);
    int64_t all, count, begin = 0, row = 0;
    float *together = forward(&tower, false, &all);
    Tower alone = tower;
    alone.sounds = 1;
    for (int s = 0; s < 3; s++) {
        alone.rows[0] = tower.rows[s];
        alone.fbank = vl_rows(tower.fbank, row, tower.rows[s]);
        float *features = forward(&alone, false, &count);
        assert_int_equal(count, vl_beats_tokens(&config, tower.rows[s]) * 24);
        double error = relative_error(together + begin, features, count);
        if (!(error <= 1e-6)) fail_msg("sound %d: %.3g off", s, error);
        row += tower.rows[s];
        begin += count;
        vl_free(features);
    }
    assert_int_equal(begin, all);
    vl_free(together);
    tower_close(&tower);
}

static void test_refusals(void **state) {
    (void)state;
    Tower tower;
    VlTensor features;
    VlAudioConfig config = small_config(10, 1);
    open_small(&tower, &config);
    const int64_t rows[] = {35, 15, 50};
    assert_error(vl_beats_forward(tower.context, &tower.beats, tower.fbank, 3, rows, false, &features), VL_INVALID,
                 "sound 1 has 15 fbank rows: the audio tower needs at least 16");
    tower_close(&tower);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),  cmocka_unit_test(test_gradients), cmocka_unit_test(test_decay),
        cmocka_unit_test(test_packing), cmocka_unit_test(test_refusals),  cmocka_unit_test(test_dropped_blocks),
        cmocka_unit_test(test_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

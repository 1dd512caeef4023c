// The connectors: golden tokens, several visuals together, gradients, sizes.
#include "tests/model/vision_parts.h"

typedef struct Connected {
    VlContext *context;
    VlParams params;
    VlConnector connector;
    VlTensor features;
    int64_t visuals, mark;
    const VlVisual *visual;
    float *upstream;
    int64_t outputs;
} Connected;

static void golden_case(const char *name) {
    VlModelConfig config;
    VlParams params = {0};
    VlConnector connector;
    VlContext *context = open_context(64 << 20);
    VlSafetensors expected;
    VlTensor shape, wanted, tokens;
    assert_ok(vl_model_config_load(&config, golden_path(name, "model")));
    assert_ok(vl_connector_plan(&params, &connector, &config.connector));
    assert_ok(vl_params_bind(context, &params, VL_F32));
    load_golden(context, &params, name);
    assert_ok(vl_safetensors_open(&expected, golden_path(name, "expected.safetensors")));
    float *features = read_tensor(&expected, "vision_features", &shape);
    float *reference = read_tensor(&expected, "video_tokens", &wanted);
    // As a video, and the first frame repeated where all are equal.
    bool image = strcmp(name, "mistral_clip_image") == 0;
    VlVisual visual = {.frames = shape.dim[0], .repeat = 1};
    for (int i = 0; i < 1 + image; i++) {
        VlTensor stored = upload(context, features, VL_F32, 3, shape.dim);
        assert_ok(vl_connector_forward(context, &connector, stored, 1, &visual, false, &tokens));
        assert_int_equal(context->scratch.used, 0);
        assert_true(vl_same_shape(tokens, wanted));
        float *found = download(context, tokens);
        double error = relative_error(found, reference, vl_elements(wanted));
        if (!(error <= 1e-5)) fail_msg("%s: relative error %g", name, error);
        vl_free(found);
        visual = (VlVisual){.frames = 1, .repeat = shape.dim[0]};
        shape.dim[0] = 1;
    }
    vl_free(features);
    vl_free(reference);
    vl_safetensors_close(&expected);
    vl_connector_free(&connector);
    vl_params_free(context, &params);
    vl_context_free(context);
}

static void golden(void **state) {
    (void)state;
    golden_case("conn_linear");
    golden_case("conn_mlp2x_gelu");
    golden_case("conn_stp");
    golden_case("conn_spatial_conv");
    golden_case("conn_spatial_pool");
    golden_case("mistral_clip_stc");
    golden_case("mistral_clip_image");
}

enum { INPUT = 14, OUTPUT = 20 };
static const VlConnectorConfig kinds[] = {
    {.kind = VL_CONNECTOR_MLP, .depth = 1, .input = INPUT, .output = OUTPUT},
    {.kind = VL_CONNECTOR_MLP, .depth = 2, .input = INPUT, .output = OUTPUT},
    {.kind = VL_CONNECTOR_STC, .depth = 4, .kt = 2, .kh = 2, .kw = 2, .padding = 1, .input = INPUT, .output = OUTPUT},
    {.kind = VL_CONNECTOR_STC, .depth = 4, .kt = 2, .kh = 2, .kw = 2, .padding = 0, .input = OUTPUT, .output = OUTPUT},
    {.kind = VL_CONNECTOR_STP, .depth = 4, .kt = 2, .kh = 2, .kw = 2, .input = INPUT, .output = OUTPUT},
    {.kind = VL_CONNECTOR_SPATIAL_CONV, .kt = 1, .kh = 2, .kw = 2, .padding = 1, .input = OUTPUT, .output = OUTPUT},
    {.kind = VL_CONNECTOR_SPATIAL_POOL, .kt = 1, .kh = 2, .kw = 2, .input = OUTPUT, .output = OUTPUT},
};
enum { KINDS = sizeof kinds / sizeof *kinds, SIDE = 3 };

// Videos of unequal length, images, and two equal videos in a row.
static const VlVisual mixed[] = {{0, 3, 1}, {3, 1, 4}, {4, 2, 1}, {6, 2, 1}, {8, 2, 2}, {10, 1, 4}, {11, 1, 4}};
enum { MIXED = sizeof mixed / sizeof *mixed, FRAMES = 12 };

static void open_connected(Connected *c, const VlConnectorConfig *config, VlDtype dtype, VlGroups trainable) {
    *c = (Connected){.context = open_context(16 << 20), .visuals = MIXED, .visual = mixed};
    assert_ok(vl_connector_plan(&c->params, &c->connector, config));
    vl_params_set_trainable(&c->params, trainable);
    assert_ok(vl_params_bind(c->context, &c->params, dtype));
    fill_params(c->context, &c->params, 11);
    int64_t count = FRAMES * SIDE * SIDE * config->input;
    float *features = random_values(count, 12);
    c->features = upload(c->context, features, dtype, 3, (int64_t[]){FRAMES, SIDE * SIDE, config->input});
    vl_free(features);
    for (int i = 0; i < MIXED; i++) {
        c->outputs += vl_connector_tokens(config, mixed[i].frames * mixed[i].repeat, SIDE) * config->output;
    }
    c->upstream = random_values(c->outputs, 13);
    c->mark = vl_arena_mark(&c->context->activations);
}

static void close_connected(Connected *c) {
    vl_free(c->upstream);
    vl_connector_free(&c->connector);
    vl_params_free(c->context, &c->params);
    vl_context_free(c->context);
}

static float *run(Connected *c, VlTensor features, int64_t visuals, const VlVisual *visual, bool keep, int64_t *count) {
    VlTensor tokens;
    assert_ok(vl_connector_forward(c->context, &c->connector, features, visuals, visual, keep, &tokens));
    assert_int_equal(c->context->scratch.used, 0);
    *count = vl_elements(tokens);
    float *values = download(c->context, tokens);
    vl_arena_release(&c->context->activations, c->mark);
    return values;
}

// A mixed batch gives what each visual gives alone, and an image what its video of repeated frames gives.
static void several_visuals(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        Connected c;
        int64_t count, done = 0, size = SIDE * SIDE * kinds[kind].input;
        open_connected(&c, &kinds[kind], VL_F32, 0);
        float *all = run(&c, c.features, MIXED, mixed, false, &count),
              *kept = run(&c, c.features, MIXED, mixed, true, &count);
        assert_int_equal(count, c.outputs);
        double error = relative_error(kept, all, count);
        if (!(error <= 1e-6)) fail_msg("kind %d: keeping changes the tokens by %g", kind, error);
        float *features = download(c.context, c.features), *frames;
        int64_t start = c.mark;
        for (int i = 0; i < MIXED; i++) {
            int64_t total = mixed[i].frames * mixed[i].repeat;
            assert_ok(VL_NEW(&frames, total * size));
            for (int64_t k = 0; k < total; k++) {
                const float *from = features + (mixed[i].first_frame + k / mixed[i].repeat) * size;
                memcpy(frames + k * size, from, (size_t)size * sizeof *from);
            }
            VlTensor alone = upload(c.context, frames, VL_F32, 3, (int64_t[]){total, SIDE * SIDE, kinds[kind].input});
            c.mark = vl_arena_mark(&c.context->activations);
            float *tokens = run(&c, alone, 1, &(VlVisual){.frames = total, .repeat = 1}, false, &count);
            error = relative_error(all + done, tokens, count);
            if (!(error <= 2e-6)) fail_msg("kind %d, visual %d: differs from itself alone by %g", kind, i, error);
            done += count;
            vl_free(tokens);
            vl_free(frames);
            vl_arena_release(&c.context->activations, start);
        }
        assert_int_equal(done, c.outputs);
        vl_free(features);
        vl_free(all);
        vl_free(kept);
        close_connected(&c);
    }
}

static double evaluate(void *user) {
    Connected *c = user;
    int64_t count;
    float *tokens = run(c, c->features, c->visuals, c->visual, false, &count);
    double sum = dot(tokens, c->upstream, count);
    vl_free(tokens);
    return sum;
}

static void set_features(void *user, const float *values) {
    Connected *c = user;
    assert_ok(vl_copy_from_host(c->context, c->features, values));
}

// Forward and backward; the gradient of the features on the host where it is wanted.
static float *pass(Connected *c, bool want_features) {
    VlTensor tokens, upstream, dfeatures = VL_EMPTY;
    float *values = NULL;
    assert_ok(vl_connector_forward(c->context, &c->connector, c->features, MIXED, mixed, true, &tokens));
    upstream = upload(c->context, c->upstream, VL_F32, 2, tokens.dim);
    if (want_features) assert_ok(vl_arena_push_make(&c->context->activations, &dfeatures, VL_F32, 3, c->features.dim));
    assert_ok(vl_connector_backward(c->context, &c->connector, dfeatures, upstream));
    assert_int_equal(c->context->scratch.used, 0);
    if (want_features) values = download(c->context, dfeatures);
    vl_arena_release(&c->context->activations, c->mark);
    return values;
}

static void gradients(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        Connected c;
        char name[32];
        snprintf(name, sizeof name, "features of kind %d", kind);
        open_connected(&c, &kinds[kind], VL_F32, VL_GROUP_BIT(VL_GROUP_CONNECTOR));
        float *dfeatures = pass(&c, true), *features = download(c.context, c.features);
        check_param_gradients(c.context, &c.params, evaluate, &c, 0.06);
        check_gradient(name, &(Probe){evaluate, set_features, &c}, features, dfeatures, vl_elements(c.features), 0.06);
        vl_free(dfeatures);
        vl_free(features);
        close_connected(&c);
    }
}

// Gradients are added; those of the parameters are the same when the features' is not wanted, and that of the features
// when the connector is frozen.
static void what_is_wanted(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        Connected c, frozen;
        open_connected(&c, &kinds[kind], VL_F32, VL_GROUP_BIT(VL_GROUP_CONNECTOR));
        open_connected(&frozen, &kinds[kind], VL_F32, 0);
        float *a = pass(&c, true), *b = pass(&frozen, true);
        assert_memory_equal(a, b, (size_t)vl_bytes(c.features));
        int64_t count = c.params.trainable_elements;
        if (count > 0) {
            float *once = download(c.context, c.params.flat_gradient);
            assert_null(pass(&c, false));
            float *twice = download(c.context, c.params.flat_gradient);
            for (int64_t i = 0; i < count; i++) once[i] *= 2;
            double error = relative_error(twice, once, count);
            if (!(error <= 1e-6)) fail_msg("kind %d: two passes give not twice the gradient, by %g", kind, error);
            vl_free(once);
            vl_free(twice);
        }
        vl_free(a);
        vl_free(b);
        close_connected(&c);
        close_connected(&frozen);
    }
}

static void bf16(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        Connected exact, rounded;
        int64_t count;
        open_connected(&exact, &kinds[kind], VL_F32, 0);
        open_connected(&rounded, &kinds[kind], VL_BF16, 0);
        float *a = run(&rounded, rounded.features, MIXED, mixed, false, &count);
        float *b = run(&exact, exact.features, MIXED, mixed, false, &count);
        double error = relative_error(a, b, count);
        if (!(error <= 6e-2 && error > 1e-5)) fail_msg("kind %d: bf16 differs by %g", kind, error);
        vl_free(a);
        vl_free(b);
        close_connected(&exact);
        close_connected(&rounded);
    }
}

static void token_counts(void **state) {
    (void)state;
    const VlConnectorConfig *stc = &kinds[2], *v35 = &kinds[3], *stp = &kinds[4], *conv = &kinds[5], *pool = &kinds[6];
    assert_int_equal(vl_connector_tokens(stc, 8, 24), 845);
    assert_int_equal(vl_connector_tokens(stc, 16, 24), 1521);
    assert_int_equal(vl_connector_tokens(v35, 16, 27), 1352);
    assert_int_equal(vl_connector_tokens(stp, 5, 3), 2);
    assert_int_equal(vl_connector_tokens(stp, 1, 3), 0);
    assert_int_equal(vl_connector_tokens(conv, 4, 3), 6 * 2 * 2);
    assert_int_equal(vl_connector_tokens(pool, 4, 5), 4 * 2 * 2);
    assert_int_equal(vl_connector_tokens(pool, 4, 1), 0);
    assert_int_equal(vl_connector_tokens(&kinds[0], 7, 5), 25);
}

// A quarter of the channels, ties to even: 14 -> 4, 18 -> 4, 20 -> 5, 22 -> 6.
static void squeeze(void **state) {
    (void)state;
    static const int64_t pairs[][2] = {{14, 4}, {18, 4}, {20, 5}, {22, 6}, {24, 6}, {17, 4}, {19, 5}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        VlParams params = {0};
        VlRegStage stage;
        assert_ok(vl_regstage_plan(&params, &stage, "s", VL_GROUP_CONNECTOR, 2, pairs[i][0], 40));
        assert_int_equal(vl_params_find(&params, "s.b1.se.fc1.weight")->shape.dim[0], pairs[i][1]);
        assert_int_equal(vl_params_find(&params, "s.b2.se.fc1.weight")->shape.dim[0], 10);
        assert_int_equal(vl_params_find(&params, "s.b1.se.fc1.weight")->shape.dim[1], 40);
        assert_non_null(vl_params_find(&params, "s.b1.downsample.bn.bias"));
        assert_null(vl_params_find(&params, "s.b2.downsample.bn.bias"));
        vl_params_free(NULL, &params);
    }
}

static void bad_visuals(void **state) {
    (void)state;
    Connected c;
    VlTensor tokens, odd;
    open_connected(&c, &kinds[4], VL_F32, 0);
    VlVisual single[] = {{0, 11, 1}, {11, 1, 1}};
    assert_error(vl_connector_forward(c.context, &c.connector, c.features, 2, single, false, &tokens), VL_INVALID,
                 "visual 1: 1 frames of 3x3 patches give no token");
    assert_error(vl_connector_forward(c.context, &c.connector, c.features, 1, single, false, &tokens), VL_INVALID,
                 "the visuals have 11 frames");
    VlVisual gap[] = {{0, 4, 1}, {5, 7, 1}};
    assert_error(vl_connector_forward(c.context, &c.connector, c.features, 2, gap, false, &tokens), VL_INVALID,
                 "visual 1: frames [5, +7)");
    assert_ok(vl_arena_push(&c.context->activations, &odd, VL_F32, 4, 8, INPUT));
    assert_error(vl_connector_forward(c.context, &c.connector, odd, 1, gap, false, &tokens), VL_INVALID, "[4,8,14]");
    close_connected(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),    cmocka_unit_test(several_visuals),
        cmocka_unit_test(gradients), cmocka_unit_test(what_is_wanted),
        cmocka_unit_test(bf16),      cmocka_unit_test(token_counts),
        cmocka_unit_test(squeeze),   cmocka_unit_test(bad_visuals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

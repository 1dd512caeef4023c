// Whole runs on one rank against the reference's: token ids, curve, weights; then the same run cut up in other ways.
#include "data/loader.h"
#include "data/pack.h"
#include "tests/train/golden_curve.h"

static VlComm *comm;
static const char *const stages[] = {"pretrain", "finetune", "audio_pretrain", "audio_finetune", "joint"};
enum { STAGES = sizeof stages / sizeof *stages };

// ---- Token ids and labels of every sample, as the loader gives them to training

static const json_t *find_sample(const json_t *list, const char *id) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *sample = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(sample, "id")), id) == 0) return sample;
    }
    fail_msg("sample %s is not expected", id);
    return NULL;
}

static void check_list(const char *id, const json_t *list, const int64_t *found, int64_t count) {
    if ((int64_t)json_array_size(list) != count)
        fail_msg("%s: %lld tokens, not %zu", id, (long long)count, json_array_size(list));
    for (int64_t i = 0; i < count; i++) {
        int64_t expected = json_integer_value(json_array_get(list, (size_t)i));
        if (found[i] != expected)
            fail_msg("%s[%lld]: %lld, not %lld", id, (long long)i, (long long)found[i], (long long)expected);
    }
}

static int64_t few_tokens(void *user, VlModal modal, int64_t frames, int64_t rows) {
    (void)user;
    (void)modal;
    return frames + rows / 16;
}

static void check_tokens(const char *folder, const char *stage) {
    char path[VL_PATH_MAX], shards[VL_PATH_MAX], model[VL_PATH_MAX];
    char fingerprint[VL_PREPROCESSING_MAX], sound[VL_SOUND_PREPROCESSING_MAX] = "";
    const GoldenRun *run = golden_run(stage);
    json_t *expected;
    VlTokenizer *tokenizer;
    VlPreprocessConfig preprocess;
    VlLoader *loader;
    VlSample *samples;
    int64_t count;
    double wait;
    VlAspect aspect;
    VlProtocol protocol;
    bool plain = vl_ends_with(stage, "pretrain");
    join(model, GOLDEN, run->model);
    snprintf(path, sizeof path, "%s/expected/%s/tokens.json", GOLDEN, stage);
    snprintf(shards, sizeof shards, "%.3000s/%s-shards", folder, stage);
    assert_ok(vl_json_load(path, 1 << 20, &expected));
    assert_ok(vl_tokenizer_load(&tokenizer, model));
    assert_ok(vl_preprocess_load(&preprocess, model));
    assert_ok(vl_aspect_parse(&aspect, run->aspect));
    assert_ok(vl_protocol_parse(&protocol, run->protocol));
    assert_ok(vl_pack_fingerprint(&preprocess, aspect, protocol, 4, fingerprint));
    if (strcmp(run->model, "model_av") == 0) vl_pack_sound_fingerprint(30, false, sound);
    VlSource source = {shards, 1};
    VlLoaderOptions options = {.sources = 1,
                               .source = &source,
                               .mix = "proportional",
                               .seed = 1,
                               .global_batch = run->batch,
                               .ranks = 1,
                               .threads = 1,
                               .prefetch = 1,
                               .tokenizer = tokenizer,
                               .protocol = protocol,
                               .mode = plain ? VL_PROMPT_TRAIN_PLAIN : VL_PROMPT_TRAIN_SFT,
                               .max_tokens = 2048,
                               .num_frames = 4,
                               .media_tokens = few_tokens,
                               .height = preprocess.height,
                               .width = preprocess.width,
                               .preprocessing = fingerprint,
                               .sound = sound};
    assert_ok(vl_loader_open(&loader, &options));
    assert_ok(vl_loader_next(loader, 0, &samples, &count, &wait));
    assert_int_equal(count, run->batch);
    assert_int_equal(json_array_size(expected), count);
    for (int64_t i = 0; i < count; i++) {
        assert_false(samples[i].bad);
        const json_t *sample = find_sample(expected, samples[i].id);
        check_list(samples[i].id, json_object_get(sample, "input_ids"), samples[i].ids, samples[i].tokens);
        check_list(samples[i].id, json_object_get(sample, "labels"), samples[i].labels, samples[i].tokens);
    }
    vl_loader_close(loader);
    vl_tokenizer_free(tokenizer);
    json_decref(expected);
}

static void tokens_equal_the_references(void **state) {
    for (int i = 0; i < STAGES; i++) check_tokens(*state, stages[i]);
}

// ---- Curves

static void golden_curve(void **state, const char *stage) {
    const char *run = scratch(state, stage);
    assert_ok(train(comm, *state, stage, run));
    check_curve(run, stage);
    check_weights(run, stage);
}

static void golden_curves(void **state) {
    golden_curve(state, "pretrain");
    golden_curve(state, "finetune");
}

static void golden_curves_with_sound(void **state) {
    golden_curve(state, "audio_pretrain");
    golden_curve(state, "audio_finetune");
    golden_curve(state, "joint");
}

// Micro-batches of one sample each, and of a few: the same sums in another order.
static void many_micro_batches(void **state) {
    static const struct {
        const char *stage, *run, *budget;
    } cases[] = {{"finetune", "parts-2", "train.micro_tokens=2"},
                 {"finetune", "parts-200", "train.micro_tokens=200"},
                 {"joint", "joint-parts-2", "train.micro_tokens=2"},
                 {"joint", "joint-parts-2000", "train.micro_tokens=2000"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Curve whole, parts;
        const char *run = scratch(state, cases[i].run);
        assert_ok(train(comm, *state, cases[i].stage, run, cases[i].budget, "threads=2"));
        check_curve(run, cases[i].stage);
        read_curve(scratch(state, cases[i].stage), &whole);
        read_curve(run, &parts);
        double distance = loss_distance(&parts, &whole, 0, whole.steps);
        if (!(distance <= 2e-5)) fail_msg("%s: %.2g away", cases[i].run, distance);
    }
}

// A run that was stopped after a checkpoint gives the bits of the one that was not, and its record is the same, too.
static void resumed_runs_give_the_same_bits(void **state) {
    for (int i = 0; i < STAGES; i++) {
        const GoldenRun *golden = golden_run(stages[i]);
        for (int64_t step = golden->every; step <= golden->steps; step += golden->every) {
            char name[64];
            snprintf(name, sizeof name, "%s-from-%lld", stages[i], (long long)step);
            const char *run = scratch(state, stages[i]), *again = scratch(state, name);
            Curve whole, resumed;
            copy_run_at(run, step, again);
            assert_ok(train(comm, *state, stages[i], again));
            read_curve(run, &whole);
            read_curve(again, &resumed);
            assert_true(same_bits(&whole, &resumed));
            assert_true(same_weights(run, again));
        }
    }
    assert_false(same_weights(scratch(state, stages[0]), scratch(state, stages[1])));  // the comparison can fail
}

static int set_up(void **state) {
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_WARNING, 0);
    assert_ok(vl_comm_open(&comm, 0));
    for (int i = 0; i < STAGES; i++) pack_stage(*state, stages[i]);
    return 0;
}

static int tear_down(void **state) {
    vl_comm_close(comm);
    return remove_scratch(state);
}

// test_curve [NAME]: only the tests of that name.
int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_equal_the_references),     cmocka_unit_test(golden_curves),
        cmocka_unit_test(golden_curves_with_sound),        cmocka_unit_test(many_micro_batches),
        cmocka_unit_test(resumed_runs_give_the_same_bits),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

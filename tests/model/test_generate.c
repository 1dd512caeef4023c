// Decoding through the cache gives what the whole forward pass gives; the rules of choosing a token.
#include "tests/model/tiny_model.h"

// Logits of every position of a prompt with a video, whole and in pieces through the cache.
static void check_cache(TinyKind kind) {
    static const int64_t tail[] = {12, 30, 44, 2, 9, 3, 5};
    enum { TAIL = sizeof tail / sizeof *tail, PREFIX = 4 };
    Tiny tiny;
    TinySequences sequences;
    VlBatch batch, prefix;
    VlVlmForward forward;
    VlKvCache cache;
    float *logits, piece[TAIL * TINY_VOCABULARY];
    tiny_open(&tiny, 0, kind);
    tiny_sequences(&tiny, &sequences);
    int64_t ids[PREFIX + TAIL] = {1, 7, VL_VIDEO_ID, 8};
    memcpy(ids + PREFIX, tail, sizeof tail);
    VlSequence sequence = {PREFIX + TAIL, ids, NULL, 1, &sequences.video};
    CHECK(vl_batch_build(&batch, vl_vlm_config(tiny.model), 1, &sequence));
    sequence.tokens = PREFIX;
    CHECK(vl_batch_build(&prefix, vl_vlm_config(tiny.model), 1, &sequence));
    CHECK(VL_NEW(&logits, batch.tokens * TINY_VOCABULARY));
    CHECK(vl_vlm_prepare(tiny.model, &batch, false));
    CHECK(vl_vlm_forward(tiny.model, &batch, false, &forward));
    CHECK(vl_vlm_logits(tiny.model, &forward, 0, batch.tokens, logits));
    vl_vlm_release(tiny.model);

    CHECK(vl_kv_cache_create(tiny.context, &cache, &vl_vlm_config(tiny.model)->decoder, batch.tokens, VL_F32));
    CHECK(vl_vlm_forward_cached(tiny.model, &prefix, &cache, &forward));
    CHECK(vl_vlm_logits(tiny.model, &forward, prefix.tokens - 1, 1, piece));
    vl_vlm_release(tiny.model);
    double error = relative_error(piece, logits + (prefix.tokens - 1) * TINY_VOCABULARY, TINY_VOCABULARY);
    if (!(error <= 1e-5)) fail_msg("prompt: logits differ by %g", error);
    static const int64_t pieces[] = {1, 1, 3, 2};
    for (int64_t p = 0, done = 0; p < 4; done += pieces[p++]) {
        int64_t boundaries[] = {0, pieces[p]}, positions[3];
        for (int64_t i = 0; i < pieces[p]; i++) positions[i] = cache.length + i;
        VlBatch next = {.sequences = 1,
                        .tokens = pieces[p],
                        .cu_seqlens = boundaries,
                        .positions = positions,
                        .text_tokens = pieces[p],
                        .text_ids = (int64_t *)tail + done};
        CHECK(vl_vlm_forward_cached(tiny.model, &next, &cache, &forward));
        CHECK(vl_vlm_logits(tiny.model, &forward, 0, pieces[p], piece));
        vl_vlm_release(tiny.model);
        error = relative_error(piece, logits + (prefix.tokens + done) * TINY_VOCABULARY, pieces[p] * TINY_VOCABULARY);
        if (!(error <= 1e-5)) fail_msg("piece %lld: logits differ by %g", (long long)p, error);
    }
    assert_int_equal(cache.length, batch.tokens);
    assert_int_equal(vl_vlm_forward_cached(tiny.model, &prefix, &cache, &forward), VL_INVALID);
    assert_int_equal(cache.length, batch.tokens);
    vl_kv_cache_free(tiny.context, &cache);
    vl_free(logits);
    vl_batch_free(&prefix);
    vl_batch_free(&batch);
    tiny_close(&tiny);
}

static void test_cache(void **state) {
    (void)state;
    check_cache(TINY_PLAIN);
    check_cache(TINY_EXPERTS);
}

typedef struct Heard {
    int64_t count, ids[32];
} Heard;

static VlStatus hear(void *user, int64_t id) {
    Heard *heard = user;
    heard->ids[heard->count++] = id;
    return VL_OK;
}

// The greedy ids are the likeliest of the whole forward pass at every step; a stop id ends the answer; the listener
// hears all.
static void test_greedy(void **state) {
    (void)state;
    enum { NEW = 8 };
    Tiny tiny;
    TinySequences sequences;
    int64_t ids[NEW], count, stopped[NEW], all[7 + NEW];
    Heard heard = {0};
    tiny_open(&tiny, 0, TINY_PLAIN);
    tiny_sequences(&tiny, &sequences);
    VlSequence prompt = sequences.all[1];
    VlGenerateOptions options = {.max_new_tokens = NEW, .top_p = 1, .token = hear, .user = &heard};
    CHECK(vl_generate(tiny.model, &prompt, &options, ids, &count));
    assert_int_equal(count, NEW);
    assert_int_equal(heard.count, NEW);
    assert_memory_equal(heard.ids, ids, sizeof ids);
    memcpy(all, prompt.ids, 7 * sizeof *all);
    for (int64_t n = 0; n < NEW; n++) {
        VlBatch batch;
        VlVlmForward forward;
        float logits[TINY_VOCABULARY];
        VlSequence sequence = {7 + n, all, NULL, 1, &sequences.video};
        CHECK(vl_batch_build(&batch, vl_vlm_config(tiny.model), 1, &sequence));
        CHECK(vl_vlm_prepare(tiny.model, &batch, false));
        CHECK(vl_vlm_forward(tiny.model, &batch, false, &forward));
        CHECK(vl_vlm_logits(tiny.model, &forward, batch.tokens - 1, 1, logits));
        vl_vlm_release(tiny.model);
        for (int64_t i = 0; i < TINY_VOCABULARY; i++) {
            if (logits[i] > logits[ids[n]] + 1e-4f) fail_msg("step %lld: %lld is likelier", (long long)n, (long long)i);
        }
        all[7 + n] = ids[n];
        vl_batch_free(&batch);
    }
    options.stops = 1;
    options.stop = &ids[3];
    int64_t first = 0;
    while (ids[first] != ids[3]) first++;
    CHECK(vl_generate(tiny.model, &prompt, &options, stopped, &count));
    assert_int_equal(count, first + 1);
    assert_memory_equal(stopped, ids, (size_t)count * sizeof *ids);
    tiny_close(&tiny);
}

static void test_sampling_is_seeded(void **state) {
    (void)state;
    enum { NEW = 12 };
    Tiny tiny;
    int64_t a[NEW], b[NEW], c[NEW], count;
    tiny_open(&tiny, 0, TINY_PLAIN);
    VlSequence prompt = {8, tiny_text_ids, NULL, 0, NULL};
    VlGenerateOptions options = {.max_new_tokens = NEW, .temperature = 2, .top_p = 1, .seed = 5};
    CHECK(vl_generate(tiny.model, &prompt, &options, a, &count));
    CHECK(vl_generate(tiny.model, &prompt, &options, b, &count));
    assert_memory_equal(a, b, sizeof a);
    options.seed = 6;
    CHECK(vl_generate(tiny.model, &prompt, &options, c, &count));
    assert_memory_not_equal(a, c, sizeof a);
    tiny_close(&tiny);
}

// Draws follow the softmax at the temperature, cut to the smallest likeliest set of probability top_p.
static void test_distribution(void **state) {
    (void)state;
    enum { VOCABULARY = 5, DRAWS = 20000 };
    const float logits[VOCABULARY] = {0.1f, 2.0f, -1.0f, 1.2f, 0.1f};
    VlGenerateOptions options = {.temperature = 0.7, .top_p = 0.93, .seed = 3};
    double expected[VOCABULARY], total = 0;
    int64_t seen[VOCABULARY] = {0}, order[VOCABULARY], id;
    for (int i = 0; i < VOCABULARY; i++) total += expected[i] = exp(logits[i] / options.temperature);
    // Probabilities: 0.68 (1), 0.22 (3), 0.045 (0), 0.045 (4), 0.009 (2); 0.93 is reached with 0, the first of the two
    // equal ones.
    assert_true(expected[1] + expected[3] < 0.93 * total && expected[1] + expected[3] + expected[0] > 0.93 * total);
    expected[2] = expected[4] = 0;
    total = expected[0] + expected[1] + expected[3];
    for (int64_t d = 0; d < DRAWS; d++) {
        CHECK(vl_generate_choose(&options, logits, VOCABULARY, d, order, &id));
        seen[id]++;
    }
    for (int i = 0; i < VOCABULARY; i++) {
        double p = expected[i] / total, tolerance = 5 * sqrt(p * (1 - p) / DRAWS);
        if (!(fabs((double)seen[i] / DRAWS - p) <= tolerance)) {
            fail_msg("token %d: %lld of %d draws, expected a share of %g", i, (long long)seen[i], DRAWS, p);
        }
    }
    options.top_p = 1e-6;
    CHECK(vl_generate_choose(&options, logits, VOCABULARY, 0, order, &id));
    assert_int_equal(id, 1);
    options.temperature = 0;
    CHECK(vl_generate_choose(&options, logits, VOCABULARY, 0, order, &id));
    assert_int_equal(id, 1);
}

// Of at most top_k tokens, and then by top_p of what they hold together.
static void test_top_k(void **state) {
    (void)state;
    enum { VOCABULARY = 4, DRAWS = 4000 };
    const float logits[VOCABULARY] = {0.9f, 1.0f, 0.8f, 0.7f};
    VlGenerateOptions options = {.temperature = 1, .top_p = 1, .top_k = 2, .seed = 9};
    int64_t seen[VOCABULARY] = {0}, order[VOCABULARY], id;
    for (int64_t d = 0; d < DRAWS; d++) {
        CHECK(vl_generate_choose(&options, logits, VOCABULARY, d, order, &id));
        seen[id]++;
    }
    assert_true(seen[2] == 0 && seen[3] == 0);
    double p = 1 / (1 + exp(-0.1)), tolerance = 5 * sqrt(p * (1 - p) / DRAWS);
    if (!(fabs((double)seen[1] / DRAWS - p) <= tolerance)) fail_msg("%lld draws of the first", (long long)seen[1]);
    options.top_p = p - 0.01;  // of the two, not of all: the first alone
    for (int64_t d = 0; d < 100; d++) {
        CHECK(vl_generate_choose(&options, logits, VOCABULARY, d, order, &id));
        assert_int_equal(id, 1);
    }
}

// The window of the model counts for the prompt with its longest answer.
static void test_window(void **state) {
    (void)state;
    Tiny tiny;
    int64_t ids[8], count;
    VlModelConfig config = tiny_config(TINY_PLAIN);
    config.decoder.window = 12;
    CHECK(vl_context_create(&tiny.context, VL_DEVICE_CPU, 2));
    CHECK(vl_vlm_create(&tiny.model, tiny.context, &config, 0));
    CHECK(vl_params_bind(tiny.context, vl_vlm_params(tiny.model), VL_F32));
    tiny_fill(&tiny);
    VlSequence prompt = {8, tiny_text_ids, NULL, 0, NULL};
    VlGenerateOptions options = {.max_new_tokens = 4, .top_p = 1};
    CHECK(vl_generate(tiny.model, &prompt, &options, ids, &count));
    assert_int_equal(count, 4);
    options.max_new_tokens = 5;
    assert_int_equal(vl_generate(tiny.model, &prompt, &options, ids, &count), VL_UNSUPPORTED);
    assert_non_null(strstr(vl_error_text(), "sliding_window 12"));
    assert_non_null(strstr(vl_error_text(), "max_new_tokens 5"));
    tiny_close(&tiny);
}

static void test_refused(void **state) {
    (void)state;
    Tiny tiny;
    int64_t ids[4], count, order[2];
    const float damaged[2] = {0, NAN};
    tiny_open(&tiny, 0, TINY_PLAIN);
    VlSequence prompt = {8, tiny_text_ids, NULL, 0, NULL}, empty = {0, tiny_text_ids, NULL, 0, NULL};
    const VlGenerateOptions good = {.max_new_tokens = 4, .top_p = 1};
    VlGenerateOptions options = good;
    assert_int_equal(vl_generate(tiny.model, &empty, &options, ids, &count), VL_INVALID);
    options.max_new_tokens = 0;
    assert_int_equal(vl_generate(tiny.model, &prompt, &options, ids, &count), VL_INVALID);
    options = good;
    options.temperature = -1;
    assert_int_equal(vl_generate(tiny.model, &prompt, &options, ids, &count), VL_INVALID);
    options = good;
    options.top_p = 0;
    assert_int_equal(vl_generate(tiny.model, &prompt, &options, ids, &count), VL_INVALID);
    options = good;
    options.top_k = -1;
    assert_int_equal(vl_generate(tiny.model, &prompt, &options, ids, &count), VL_INVALID);
    options = good;
    options.repetition_penalty = -1;
    assert_int_equal(vl_generate(tiny.model, &prompt, &options, ids, &count), VL_INVALID);
    assert_int_equal(vl_generate_choose(&good, damaged, 2, 0, order, ids), VL_INVALID);
    tiny_close(&tiny);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache),        cmocka_unit_test(test_greedy),  cmocka_unit_test(test_sampling_is_seeded),
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_refused), cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// 200 random mixes of modalities on 1, 2 and 4 ranks, micro-batches cut at random too: ranks that lack a modality, or
// any sample at all, take part in every step, and the losses are the same.
#include "data/loader.h"
#include "data/pack.h"
#include "tests/train/call_ranks.h"
#include "tests/train/mixes.h"

#define AV GOLDEN "/model_av"

static Process process;

// ---- The samples: a pool of each kind, in two sources

static int64_t add(char *text, int64_t used, int64_t size, const char *media, bool heard, const char *tag) {
    static const char *const words[] = {"red", "low", "falls", "blue", "two", "hum", "left", "fast", "dark"};
    int n = (int)(used % 7);
    int written =
        snprintf(text + used, (size_t)(size - used),
                 "%s{\"id\": \"s%lld\", %s%s\"conversations\": [{\"from\": \"human\", \"value\": \"%sWhat?\"},"
                 " {\"from\": \"gpt\", \"value\": \"%s %s %s.\"}]}",
                 used > 1 ? ",\n" : "", (long long)used, media, heard ? "\"va\": true, " : "", tag, words[n],
                 words[n + 2], words[(n * 3) % 9]);
    assert_true(written > 0 && used + written < size);
    return used + written;
}

static void write_samples(const char *folder) {
    char text[16384], media[64], path[VL_PATH_MAX];
    int64_t used = snprintf(text, sizeof text, "[");
    for (int i = 0; i < 12; i++) {
        bool sound = i >= 4 && i < 8;
        snprintf(media, sizeof media, sound ? "\"audio\": \"media/a%d.wav\", " : "\"video\": \"media/v%d.mkv\", ",
                 sound ? i - 4 : i % 2);
        used = i < 8 ? add(text, used, sizeof text, media, !sound, sound ? "<audio>\\n" : "<video>\\n")
                     : add(text, used, sizeof text, "", false, "");
    }
    snprintf(text + used, sizeof text - (size_t)used, "]");
    join(path, folder, "hearing.json");
    put_file(path, text, (int64_t)strlen(text));
    used = snprintf(text, sizeof text, "[");
    for (int i = 0; i < 9; i++) {
        snprintf(media, sizeof media, i < 3 ? "\"video\": \"media/v%d.mkv\", " : "\"image\": \"media/f%d.png\", ",
                 i % 8);
        used = i < 7 ? add(text, used, sizeof text, media, false, i < 3 ? "<video>\\n" : "<image>\\n")
                     : add(text, used, sizeof text, "", false, "");
    }
    snprintf(text + used, sizeof text - (size_t)used, "]");
    join(path, folder, "seeing.json");
    put_file(path, text, (int64_t)strlen(text));
}

static void write_mixes(const char *folder) {
    char path[VL_PATH_MAX], text[16384];
    snprintf(text, sizeof text,
             "stage: joint\n"
             "model: {path: " AV
             "}\n"
             "data:\n"
             "  sources:\n"
             "    - {annotations: %.2000s/hearing.json, media: " GOLDEN
             "/data, shards: %.2000s/hearing}\n"
             "    - {annotations: %.2000s/seeing.json, media: " GOLDEN
             "/data, shards: %.2000s/seeing, weight: 0.8}\n"
             "  sound_seconds: 1\n"
             "train: {dtype: f32}\n"
             "optim: {lr: 1.0e-3, warmup_ratio: 0.1}\n"
             "checkpoint: {every: 0}\n"
             "threads: 1\n",
             folder, folder, folder, folder);
    join(path, folder, "mixes.yaml");
    put_file(path, text, (int64_t)strlen(text));
}

static int set_up(void **state) {
    VlConfig config;
    if (make_scratch(state)) return -1;
    vl_log_configure(VL_LOG_ERROR, 0);
    write_samples(*state);
    write_mixes(*state);
    assert_ok(load_config(&config, *state, "mixes", "", (const char *const[]){NULL}));
    assert_ok(vl_pack_sources(&config));
    vl_config_free(&config);
    return 0;
}

// ---- What the steps hold: a letter a sample

static int64_t no_tokens(void *user, VlModal modal, int64_t frames, int64_t rows) {
    (void)user;
    (void)modal;
    (void)frames;
    (void)rows;
    return 1;
}

typedef struct Census {
    int64_t steps, distinct, deaf, blind, texts;  // steps without any sound, without any frame, with neither
    char seen[MIX_RUNS * MIX_STEPS][16];
} Census;

static void count_step(Census *census, const VlSample *samples, int64_t count) {
    bool heard = false, seen = false, known = false;
    char letters[16] = "";
    for (int64_t i = 0; i < count; i++) {
        assert_false(samples[i].bad);
        heard |= samples[i].rows > 0;
        seen |= samples[i].frames > 0;
        letters[i] = samples[i].modal == VL_MODAL_VIDEO && samples[i].rows > 0 ? 'B' : "TIVA"[samples[i].modal];
    }
    census->deaf += !heard;
    census->blind += !seen;
    census->texts += !heard && !seen;
    for (int64_t i = 0; i < census->distinct; i++) known |= strcmp(census->seen[i], letters) == 0;
    if (!known) memcpy(census->seen[census->distinct++], letters, sizeof letters);
    census->steps++;
}

static void count_mix(Census *census, const char *folder, int64_t number) {
    Mix mix = draw_mix(number);
    char hearing[VL_PATH_MAX], seeing[VL_PATH_MAX];
    char fingerprint[VL_PREPROCESSING_MAX], sound[VL_SOUND_PREPROCESSING_MAX];
    VlTokenizer *tokenizer;
    VlPreprocessConfig preprocess;
    VlLoader *loader;
    join(hearing, folder, "hearing");
    join(seeing, folder, "seeing");
    const VlSource sources[] = {{hearing, 1}, {seeing, 0.8}};
    assert_ok(vl_tokenizer_load(&tokenizer, AV));
    assert_ok(vl_preprocess_load(&preprocess, AV));
    assert_ok(vl_pack_fingerprint(&preprocess, VL_ASPECT_PAD, VL_PROTOCOL_AV, 4, fingerprint));
    vl_pack_sound_fingerprint(1, false, sound);
    VlLoaderOptions options = {.sources = 2,
                               .source = sources,
                               .mix = "proportional",
                               .seed = (uint64_t)mix.seed,
                               .global_batch = mix.global_batch,
                               .ranks = 1,
                               .threads = 1,
                               .prefetch = 1,
                               .tokenizer = tokenizer,
                               .protocol = VL_PROTOCOL_AV,
                               .mode = VL_PROMPT_TRAIN_SFT,
                               .max_tokens = 2048,
                               .num_frames = 4,
                               .media_tokens = no_tokens,
                               .height = preprocess.height,
                               .width = preprocess.width,
                               .preprocessing = fingerprint,
                               .sound = sound};
    assert_ok(vl_loader_open(&loader, &options));
    for (int64_t step = 0; step < MIX_STEPS; step++) {
        VlSample *samples;
        int64_t count;
        double wait;
        assert_ok(vl_loader_next(loader, step, &samples, &count, &wait));
        count_step(census, samples, count);
    }
    vl_loader_close(loader);
    vl_tokenizer_free(tokenizer);
}

static void mixes_are_many(void **state) {
    Census census = {0};
    for (int64_t i = 0; i < MIX_RUNS; i++) count_mix(&census, *state, i);
    print_message("%lld steps, %lld orders of kinds; %lld without sound, %lld without a picture, %lld with neither\n",
                  (long long)census.steps, (long long)census.distinct, (long long)census.deaf, (long long)census.blind,
                  (long long)census.texts);
    assert_int_equal(census.steps, 200);
    assert_true(census.distinct >= 120 && census.deaf >= 10 && census.blind >= 10 && census.texts >= 3);
}

// ---- The runs

static void losses_are_equal(void **state) {
    static const char *const ranks[] = {"1", "2", "4"};
    double worst[2] = {0};
    for (int i = 0; i < 3; i++) call_ranks(&process, 240, ranks[i], VL_MIXES_PROGRAM, *state, NULL);
    for (int64_t number = 0; number < MIX_RUNS; number++) {
        Curve one, some;
        char run[VL_PATH_MAX];
        mix_path(run, *state, 1, number);
        read_curve(run, &one);
        assert_int_equal(one.steps, MIX_STEPS);
        for (int i = 1; i < 3; i++) {
            mix_path(run, *state, atoi(ranks[i]), number);
            read_curve(run, &some);
            assert_int_equal(some.steps, MIX_STEPS);
            for (int64_t step = 0; step < MIX_STEPS; step++) {
                double loss = relative(some.loss[step], one.loss[step]),
                       norm = relative(some.norm[step], one.norm[step]);
                if (!(loss <= 2e-5 && norm <= 2e-4)) {
                    fail_msg("mix %lld, step %lld: loss %.9g, norm %.9g on %s ranks; %.9g, %.9g on one",
                             (long long)number, (long long)step + 1, some.loss[step], some.norm[step], ranks[i],
                             one.loss[step], one.norm[step]);
                }
                worst[0] = loss > worst[0] ? loss : worst[0];
                worst[1] = norm > worst[1] ? norm : worst[1];
            }
        }
    }
    print_message("1, 2 and 4 ranks: losses within %.1e, gradient norms within %.1e\n", worst[0], worst[1]);
}

int main(void) {
    if (!process_exists("mpirun")) {
        printf("skipped: mpirun is missing\n");
        return TEST_SKIPPED;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(mixes_are_many), cmocka_unit_test(losses_are_equal)};
    return cmocka_run_group_tests(tests, set_up, remove_scratch);
}

#include "data/loader.h"

#include "base/crc32c.h"
#include "data/deal.h"
#include "data/sample_read.h"
#include "tests/data/packing.h"

enum { VISUAL_TOKENS = 5, SOUND_TOKENS = 7, GLOBAL_BATCH = 12, STEPS = 9 };

static char *work;  // two packed sources: "a" (2 shards of 20 samples), "b" (1 shard of 15)
static VlTokenizer *tokenizer;

static int64_t media_tokens(void *user, VlModal modal, int64_t frames, int64_t rows) {
    (void)user;
    return VISUAL_TOKENS * (modal == VL_MODAL_IMAGE ? FRAMES : frames) + SOUND_TOKENS * rows;
}

// What the medium adds to a sample's ids.
static int64_t extra_tokens(const VlSample *sample) {
    return sample->modal == VL_MODAL_TEXT ? 0 : media_tokens(NULL, sample->modal, sample->frames, sample->rows) - 1;
}

static int set_up(void **state) {
    (void)state;
    work = make_folder();
    make_packed(in_folder(work, "a"), 0, 2, 20);
    make_packed(in_folder(work, "b"), 100, 1, 15);
    assert_ok(vl_tokenizer_load(&tokenizer, MODEL));
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    vl_tokenizer_free(tokenizer);
    remove_folder(work);
    return 0;
}

typedef struct Setting {
    VlSource source[2];
    VlLoaderOptions options;
} Setting;

static void set(Setting *setting, int64_t rank, int64_t ranks, int64_t threads, int64_t prefetch) {
    setting->source[0] = (VlSource){in_folder(work, "a"), 1.0};
    setting->source[1] = (VlSource){in_folder(work, "b"), 1.0};
    setting->options = (VlLoaderOptions){.sources = 2,
                                         .source = setting->source,
                                         .mix = "proportional",
                                         .seed = 11,
                                         .global_batch = GLOBAL_BATCH,
                                         .rank = rank,
                                         .ranks = ranks,
                                         .threads = threads,
                                         .prefetch = prefetch,
                                         .tokenizer = tokenizer,
                                         .protocol = VL_PROTOCOL_AV,
                                         .mode = VL_PROMPT_TRAIN_SFT,
                                         .max_tokens = 2048,
                                         .truncate_expanded = true,
                                         .num_frames = FRAMES,
                                         .media_tokens = media_tokens,
                                         .height = SIDE,
                                         .width = SIDE,
                                         .preprocessing = PREPROCESSING,
                                         .sound = SOUND_PREPROCESSING};
}

// Everything that a sample holds, in one number; 0 for a bad one.
static uint32_t digest(const VlSample *sample) {
    if (sample->bad) return 0;
    uint32_t crc = vl_crc32c(0, sample->ids, sample->tokens * 8);
    crc = vl_crc32c(crc, sample->labels, sample->tokens * 8);
    crc = vl_crc32c(crc, sample->id, (int64_t)strlen(sample->id));
    crc = vl_crc32c(crc, sample->kind, (int64_t)strlen(sample->kind));
    crc = vl_crc32c(crc, sample->fbank, sample->rows * VL_FBANK_BINS * 4);
    return vl_crc32c(crc, sample->pixels, sample->frames * sample->height * sample->width * 3);
}

typedef struct Seen {
    int64_t times, source, index, bad;
    uint32_t digest;
} Seen;

// Runs a loader over [first, first + steps) and notes what it hands out.
static void watch(Setting *setting, int64_t first, int64_t steps, Seen *seen) {
    VlLoader *loader;
    VlSample *samples;
    int64_t count;
    double seconds = -1.0;
    assert_ok(vl_loader_open(&loader, &setting->options));
    for (int64_t step = first; step < first + steps; step++) {
        assert_ok(vl_loader_next(loader, step, &samples, &count, &seconds));
        assert_true(seconds >= 0.0);
        for (int64_t i = 0; i < count; i++) {
            assert_in_range(samples[i].position, step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH - 1);
            if (i > 0) assert_true(samples[i].position > samples[i - 1].position);
            Seen *entry = &seen[samples[i].position];
            *entry = (Seen){entry->times + 1, samples[i].source, samples[i].index, samples[i].bad, digest(&samples[i])};
        }
    }
    vl_loader_close(loader);
}

static void assert_equal_seen(const Seen *a, const Seen *b, int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; i++) {
        assert_int_equal(a[i].times, 1);
        assert_int_equal(b[i].times, 1);
        assert_int_equal(a[i].source, b[i].source);
        assert_int_equal(a[i].index, b[i].index);
        assert_int_equal(a[i].digest, b[i].digest);
    }
}

static void test_content(void **state) {
    (void)state;
    Setting setting;
    VlLoader *loader;
    VlSample *samples;
    int64_t count, texts = 0;
    double seconds;
    set(&setting, 0, 1, 2, 2);
    assert_ok(vl_loader_open(&loader, &setting.options));
    assert_int_equal(vl_loader_epoch_samples(loader), 55);
    assert_ok(vl_loader_next(loader, 0, &samples, &count, &seconds));
    assert_int_equal(count, GLOBAL_BATCH);
    for (int64_t i = 0; i < count; i++) {
        const VlSample *sample = &samples[i];
        int64_t n = sample->source * 100 + sample->index, media = 0, labelled = 0, length;
        char id[32], answer[64], *text;
        snprintf(id, sizeof id, "sample-%d", (int)n);
        snprintf(answer, sizeof answer, "Number %d: word0", (int)n);
        assert_false(sample->bad);
        assert_string_equal(sample->id, id);
        assert_string_equal(sample->kind, n % 2 ? "odd" : "even");
        assert_int_equal(sample->modal, made_modal(n));
        assert_int_equal(sample->frames, made_frames(n));
        assert_int_equal(sample->rows, made_rows(n));
        for (int64_t k = 0; k < sample->frames * SIDE * SIDE * 3; k++)
            assert_int_equal(sample->pixels[k], made_pixel(n, k));
        for (int64_t k = 0; k < sample->rows * VL_FBANK_BINS; k++) assert_true(sample->fbank[k] == made_value(n, k));
        for (int64_t k = 0; k < sample->tokens; k++) {
            media += sample->ids[k] == vl_modal_id(sample->modal) && sample->ids[k] < 0;
            assert_true(sample->labels[k] == -100 || sample->labels[k] == sample->ids[k]);
            if (sample->labels[k] >= 0) labelled++;
        }
        assert_int_equal(media, sample->modal != VL_MODAL_TEXT);
        assert_true(labelled > 5 && labelled < sample->tokens);
        assert_ok(
            vl_tokenizer_decode(tokenizer, sample->ids + sample->tokens - labelled, labelled, true, &text, &length));
        assert_non_null(strstr(text, answer));
        vl_free(text);
        texts += sample->modal == VL_MODAL_TEXT;
    }
    assert_true(texts > 0 && texts < count);
    vl_loader_close(loader);
}

static void test_ranks_share_every_batch(void **state) {
    (void)state;
    static Seen one[STEPS * GLOBAL_BATCH], many[STEPS * GLOBAL_BATCH];
    static const int64_t ranks[] = {2, 3, 4, 8, 17};
    Setting setting;
    memset(one, 0, sizeof one);
    set(&setting, 0, 1, 2, 2);
    watch(&setting, 0, STEPS, one);
    for (size_t r = 0; r < sizeof ranks / sizeof *ranks; r++) {
        memset(many, 0, sizeof many);
        for (int64_t rank = 0; rank < ranks[r]; rank++) {
            set(&setting, rank, ranks[r], 1, 1);
            watch(&setting, 0, STEPS, many);
        }
        assert_equal_seen(one, many, 0, STEPS * GLOBAL_BATCH);
    }
}

// The costliest rank of a step against dealing in turns, over all steps.
static void test_ranks_get_even_work(void **state) {
    (void)state;
    enum { RANKS = 3 };
    int64_t dealt[STEPS][RANKS] = {{0}}, turns[STEPS][RANKS] = {{0}}, most_dealt = 0, most_turns = 0;
    Setting setting;
    for (int64_t rank = 0; rank < RANKS; rank++) {
        VlLoader *loader;
        VlSample *samples;
        int64_t count;
        double seconds;
        set(&setting, rank, RANKS, 1, 1);
        assert_ok(vl_loader_open(&loader, &setting.options));
        for (int64_t step = 0; step < STEPS; step++) {
            assert_ok(vl_loader_next(loader, step, &samples, &count, &seconds));
            for (int64_t i = 0; i < count; i++) {
                int64_t n = samples[i].source * 100 + samples[i].index;
                int64_t tokens = 20 + 3 * (n % 13) + extra_tokens(&samples[i]);
                dealt[step][rank] += vl_deal_cost(tokens);
                turns[step][samples[i].position % RANKS] += vl_deal_cost(tokens);
            }
        }
        vl_loader_close(loader);
    }
    for (int64_t step = 0; step < STEPS; step++) {
        int64_t dealt_here = 0, turns_here = 0;
        for (int64_t rank = 0; rank < RANKS; rank++) {
            if (dealt[step][rank] > dealt_here) dealt_here = dealt[step][rank];
            if (turns[step][rank] > turns_here) turns_here = turns[step][rank];
        }
        most_dealt += dealt_here;
        most_turns += turns_here;
    }
    if (!((double)most_dealt < 0.95 * (double)most_turns)) {
        fail_msg("%lld against %lld in turns", (long long)most_dealt, (long long)most_turns);
    }
}

static void test_threads_and_prefetch_change_nothing(void **state) {
    (void)state;
    static Seen first[STEPS * GLOBAL_BATCH], second[STEPS * GLOBAL_BATCH];
    Setting setting;
    memset(first, 0, sizeof first);
    memset(second, 0, sizeof second);
    set(&setting, 0, 1, 1, 1);
    watch(&setting, 0, STEPS, first);
    set(&setting, 0, 1, 7, 5);
    watch(&setting, 0, STEPS, second);
    assert_equal_seen(first, second, 0, STEPS * GLOBAL_BATCH);
}

static void test_resume_in_the_middle(void **state) {
    (void)state;
    static Seen whole[STEPS * GLOBAL_BATCH], rest[STEPS * GLOBAL_BATCH];
    Setting setting;
    memset(whole, 0, sizeof whole);
    memset(rest, 0, sizeof rest);
    set(&setting, 0, 1, 2, 2);
    watch(&setting, 0, STEPS, whole);
    watch(&setting, 5, STEPS - 5, rest);
    assert_equal_seen(whole, rest, 5 * GLOBAL_BATCH, (STEPS - 5) * GLOBAL_BATCH);
    // One loader that is sent back and forth.
    static const int64_t steps[] = {7, 2, 3, 2, 8, 0, 1, 2, 3};
    VlLoader *loader;
    assert_ok(vl_loader_open(&loader, &setting.options));
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        VlSample *samples;
        int64_t count;
        double seconds;
        assert_ok(vl_loader_next(loader, steps[s], &samples, &count, &seconds));
        assert_int_equal(count, GLOBAL_BATCH);
        for (int64_t i = 0; i < count; i++) {
            assert_int_equal(samples[i].position, steps[s] * GLOBAL_BATCH + i);
            assert_int_equal(digest(&samples[i]), whole[samples[i].position].digest);
        }
    }
    vl_loader_close(loader);
}

static void test_every_sample_in_a_pass(void **state) {
    (void)state;
    static Seen seen[5 * GLOBAL_BATCH];
    int times[2][40] = {{0}};
    Setting setting;
    memset(seen, 0, sizeof seen);
    set(&setting, 0, 1, 2, 2);
    watch(&setting, 0, 5, seen);
    for (int64_t i = 0; i < 55; i++) times[seen[i].source][seen[i].index]++;
    for (int i = 0; i < 40; i++) assert_int_equal(times[0][i], 1);
    for (int i = 0; i < 15; i++) assert_int_equal(times[1][i], 1);
}

static void test_damaged_sample_keeps_its_slot(void **state) {
    (void)state;
    static Seen whole[STEPS * GLOBAL_BATCH], broken[STEPS * GLOBAL_BATCH];
    Setting setting;
    int64_t size, bad = 0;
    memset(whole, 0, sizeof whole);
    memset(broken, 0, sizeof broken);
    set(&setting, 0, 1, 2, 2);
    watch(&setting, 0, STEPS, whole);
    char *copy = make_folder();
    make_packed(in_folder(copy, "a"), 0, 2, 20);
    const char *shard = in_folder(copy, "a/shard-00001.h5");
    char *data = read_all(shard, &size), *frame = memmem(data, (size_t)size, "\x28\xb5\x2f\xfd", 4);
    assert_non_null(frame);
    flip(shard, frame - data + 60, 0xff);
    vl_free(data);
    setting.source[0].shards = in_folder(copy, "a");
    watch(&setting, 0, STEPS, broken);
    for (int64_t i = 0; i < STEPS * GLOBAL_BATCH; i++) {
        assert_int_equal(whole[i].source, broken[i].source);
        assert_int_equal(whole[i].index, broken[i].index);
        if (broken[i].bad) {
            assert_true(broken[i].source == 0 && broken[i].index >= 20);
            bad++;
        } else {
            assert_int_equal(whole[i].digest, broken[i].digest);
        }
    }
    assert_true(bad >= 2 && bad < 20);
    VlLoader *loader;
    VlSample *samples;
    int64_t count;
    double seconds;
    bool named = false;
    assert_ok(vl_loader_open(&loader, &setting.options));
    for (int64_t step = 0; step < STEPS; step++) {
        assert_ok(vl_loader_next(loader, step, &samples, &count, &seconds));
        for (int64_t i = 0; i < count; i++) {
            if (!samples[i].bad) continue;
            named = strstr(samples[i].reason, "shard-00001.h5") && strstr(samples[i].reason, "annotation");
            assert_null(samples[i].ids);
            assert_null(samples[i].pixels);
            assert_int_equal(samples[i].tokens, 0);
        }
    }
    assert_true(named);
    vl_loader_close(loader);
    remove_folder(copy);
}

static void test_truncation(void **state) {
    (void)state;
    Setting setting;
    VlLoader *loader;
    VlSample *samples, *whole;
    VlLoader *uncut;
    int64_t count, bad = 0, cut = 0;
    double seconds;
    set(&setting, 0, 1, 2, 2);
    assert_ok(vl_loader_open(&uncut, &setting.options));
    assert_ok(vl_loader_next(uncut, 0, &whole, &count, &seconds));
    int64_t longest = 0, limit;
    for (int64_t i = 0; i < count; i++) longest = whole[i].tokens > longest ? whole[i].tokens : longest;
    limit = longest - 4;
    setting.options.max_tokens = limit;
    for (int expanded = 0; expanded < 2; expanded++) {
        int64_t wanted = 0;
        setting.options.truncate_expanded = expanded;
        assert_ok(vl_loader_open(&loader, &setting.options));
        assert_ok(vl_loader_next(loader, 0, &samples, &count, &seconds));
        for (int64_t i = 0; i < count; i++) {
            int64_t extra = expanded ? extra_tokens(&whole[i]) : 0;
            int64_t kept = whole[i].tokens + extra > limit ? limit - extra : whole[i].tokens;
            assert_false(samples[i].bad);
            assert_int_equal(samples[i].tokens, kept);
            assert_memory_equal(samples[i].ids, whole[i].ids, (size_t)kept * 8);
            assert_memory_equal(samples[i].labels, whole[i].labels, (size_t)kept * 8);
            wanted += kept < whole[i].tokens;
        }
        assert_true(wanted > 0);
        assert_int_equal(vl_loader_truncated(loader), wanted);
        cut += wanted;
        vl_loader_close(loader);
    }
    assert_true(cut > 2);
    // A limit inside a medium's span refuses the sample, and only those that have a medium.
    setting.options.max_tokens = VISUAL_TOKENS + 1;
    setting.options.truncate_expanded = true;
    assert_ok(vl_loader_open(&loader, &setting.options));
    assert_ok(vl_loader_next(loader, 0, &samples, &count, &seconds));
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(samples[i].bad, whole[i].modal != VL_MODAL_TEXT);
        if (samples[i].bad) assert_non_null(strstr(samples[i].reason, "max_tokens"));
        if (!samples[i].bad) assert_int_equal(samples[i].tokens, VISUAL_TOKENS + 1);
        bad += samples[i].bad;
    }
    assert_true(bad > 0 && bad < count);
    vl_loader_close(loader);
    vl_loader_close(uncut);
}

static void test_close_at_any_time(void **state) {
    (void)state;
    VlSample *samples;
    int64_t count;
    double seconds;
    for (int64_t i = 0; i < 40; i++) {
        VlLoader *loader;
        Setting setting;
        set(&setting, 0, 1, 1 + i % 4, 1 + i % 6);
        assert_ok(vl_loader_open(&loader, &setting.options));
        if (i % 3) assert_ok(vl_loader_next(loader, i, &samples, &count, &seconds));
        if (i % 3 == 2) assert_ok(vl_loader_next(loader, i / 2, &samples, &count, &seconds));
        vl_loader_close(loader);
    }
    vl_loader_close(NULL);
}

static void test_pattern(void **state) {
    (void)state;
    Setting setting;
    VlLoader *loader;
    VlSample *samples;
    int64_t count;
    double seconds;
    set(&setting, 0, 1, 2, 2);
    setting.options.mix = "av,i,t,v,a,av";
    assert_ok(vl_loader_open(&loader, &setting.options));
    for (int64_t step = 0; step < 3; step++) {
        assert_ok(vl_loader_next(loader, step, &samples, &count, &seconds));
        for (int64_t i = 0; i < count; i++) {
            static const VlModal wanted[] = {VL_MODAL_VIDEO, VL_MODAL_IMAGE, VL_MODAL_TEXT,
                                             VL_MODAL_VIDEO, VL_MODAL_AUDIO, VL_MODAL_VIDEO};
            assert_int_equal(samples[i].modal, wanted[i % 6]);
            assert_int_equal(samples[i].rows > 0, i % 6 == 0 || i % 6 >= 4);
        }
    }
    vl_loader_close(loader);
}

static void test_refusals(void **state) {
    (void)state;
    VlLoader *loader;
    Setting setting;
    set(&setting, 0, 1, 1, 1);
    setting.options.height = SIDE + 1;
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    assert_error_names("shard-00000.h5");
    set(&setting, 0, 1, 1, 1);
    setting.options.preprocessing = "another";
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    set(&setting, 0, 1, 1, 1);
    setting.options.num_frames = FRAMES * 2;
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    set(&setting, 0, 1, 1, 1);
    setting.options.sound = "another";
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    assert_error_names("data.sound_seconds");
    assert_error_names("shard-00000.h5");
    setting.options.sound = NULL;
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    assert_error_names("no audio tower");
    set(&setting, 0, 1, 1, 1);
    setting.options.mix = "v,i,t,av";
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    assert_error_names("audio samples");
    set(&setting, 2, 2, 1, 1);
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    set(&setting, 0, 1, 0, 1);
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    set(&setting, 0, 1, 1, 1);
    setting.options.mix = "t,t,x";
    assert_status(vl_loader_open(&loader, &setting.options), VL_USAGE);
    set(&setting, 0, 1, 1, 1);
    setting.source[1].shards = in_folder(work, "none");
    assert_status(vl_loader_open(&loader, &setting.options), VL_IO);
    assert_error_names("none");
    set(&setting, 0, 1, 1, 1);
    setting.source[1].weight = 0.0;
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
}

// A shard answers only for what it holds: without sounds any preprocessing of sounds will do, without frames any of
// frames.
static void test_only_what_is_held_counts(void **state) {
    (void)state;
    VlLoader *loader;
    Setting setting;
    make_packed(in_folder(work, "seen"), 0, 1, 4);
    make_packed(in_folder(work, "heard"), 4, 1, 1);
    set(&setting, 0, 1, 1, 1);
    setting.options.sources = 1;
    setting.source[0].shards = in_folder(work, "seen");
    setting.options.sound = "another";
    assert_ok(vl_loader_open(&loader, &setting.options));
    assert_false(vl_loader_has_sound(loader));
    vl_loader_close(loader);
    setting.options.sound = NULL;
    assert_ok(vl_loader_open(&loader, &setting.options));
    vl_loader_close(loader);
    setting.source[0].shards = in_folder(work, "heard");
    assert_status(vl_loader_open(&loader, &setting.options), VL_INVALID);
    setting.options.sound = SOUND_PREPROCESSING;
    setting.options.height = setting.options.width = 0;
    setting.options.preprocessing = "another";
    assert_ok(vl_loader_open(&loader, &setting.options));
    assert_true(vl_loader_has_sound(loader));
    vl_loader_close(loader);
}

// A text record that speaks of another medium than the one that is stored makes a bad sample.
static void test_text_against_medium(void **state) {
    (void)state;
    enum { CASES = 3 };
    static const char *const texts[CASES] = {
        "{\"id\":\"\",\"kind\":\"\",\"modal\":\"video\",%s\"conversations\":[{\"from\":\"human\",\"value\":\"<video>"
        "\\nA\"},"
        "{\"from\":\"gpt\",\"value\":\"B\"}]}",
        "{\"id\":\"\",\"kind\":\"\",\"modal\":\"audio\",%s\"conversations\":[{\"from\":\"human\",\"value\":\"<audio>"
        "\\nA\"},"
        "{\"from\":\"gpt\",\"value\":\"B\"}]}",
        "{\"id\":\"\",\"kind\":\"\",\"modal\":\"text\",%s\"conversations\":[{\"from\":\"human\",\"value\":\"A\"},"
        "{\"from\":\"gpt\",\"value\":\"B\"}]}"};
    VlShardHeader header = made_header();
    VlShardScratch scratch = {0};
    VlSampleRules rules = {.tokenizer = tokenizer,
                           .prompt = {.protocol = VL_PROTOCOL_AV, .mode = VL_PROMPT_TRAIN_SFT},
                           .max_tokens = 2048,
                           .media_tokens = media_tokens};
    uint8_t pixels[FRAMES * SIDE * SIDE * 3] = {0};
    float fbank[ROWS * VL_FBANK_BINS] = {0};
    VlFrameTime times[FRAMES] = {{0}};
    VlShardMedium medium = {.frames = 2, .pixels = pixels, .times = times, .rows = ROWS, .fbank = fbank};
    VlShardWriter *writer;
    VlShard *shard;
    VlPool *pool;
    const char *path = in_folder(work, "against.h5");
    assert_ok(vl_pool_open(&pool, 1));
    assert_ok(vl_shard_writer_open(&writer, path, &header, pool));
    int32_t row;
    assert_ok(vl_shard_writer_media(writer, &medium, &row));
    for (int i = 0; i <= CASES; i++) {
        char text[512];
        snprintf(text, sizeof text, texts[i % CASES], i == CASES ? "\"va\":true," : "");
        VlShardSample sample = {
            .id = "", .text = text, .length = (int64_t)strlen(text), .media = row, .modality = VL_MODAL_VIDEO};
        assert_ok(vl_shard_writer_sample(writer, &sample));
    }
    assert_ok(vl_shard_writer_commit(writer));
    assert_ok(vl_shard_open(&shard, path));
    for (int i = 0; i <= CASES; i++) {
        VlSample sample = {0};
        bool cut;
        assert_status(vl_sample_read(shard, i, &rules, &scratch, &sample, &cut), i == CASES ? VL_OK : VL_FORMAT);
        if (i < CASES) assert_error_names("different modalities");
        assert_int_equal(sample.rows, ROWS);
        vl_sample_clear(&sample);
    }
    vl_shard_scratch_free(&scratch);
    vl_shard_close(shard);
    vl_pool_close(pool);
}

static void test_data_hash(void **state) {
    (void)state;
    Setting setting;
    VlLoader *first, *same, *other;
    set(&setting, 0, 1, 1, 1);
    assert_ok(vl_loader_open(&first, &setting.options));
    set(&setting, 0, 2, 3, 2);
    assert_ok(vl_loader_open(&same, &setting.options));
    setting.options.sources = 1;
    assert_ok(vl_loader_open(&other, &setting.options));
    assert_true(vl_loader_data_hash(first) == vl_loader_data_hash(same));
    assert_true(vl_loader_data_hash(first) != vl_loader_data_hash(other));
    vl_loader_close(first);
    vl_loader_close(same);
    vl_loader_close(other);
}

// The n-th allocation or read fails, for every n: an error, or a bad slot, never a hang.
static void test_every_failure(void **state) {
    (void)state;
    Setting setting;
    int64_t n = 0, clean = 0;
    set(&setting, 0, 1, 2, 1);
    for (; n < 6000 && clean < 3; n += 1 + n / 20) {
        VlLoader *loader;
        VlSample *samples;
        int64_t count = 0, bad = 0;
        double seconds;
        vl_fault_arm(n);
        VlStatus status = vl_loader_open(&loader, &setting.options);
        if (!status) {
            status = vl_loader_next(loader, 0, &samples, &count, &seconds);
            for (int64_t i = 0; !status && i < count; i++) bad += samples[i].bad;
            vl_loader_close(loader);
        }
        vl_fault_arm(-1);
        if (status) assert_true(status == VL_OUT_OF_MEMORY || status == VL_IO || status == VL_FORMAT);
        assert_in_range(bad, 0, 1);
        clean += !status && !bad;
    }
    assert_true(n > 50);
    assert_true(clean >= 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_ranks_share_every_batch),
        cmocka_unit_test(test_ranks_get_even_work),
        cmocka_unit_test(test_threads_and_prefetch_change_nothing),
        cmocka_unit_test(test_resume_in_the_middle),
        cmocka_unit_test(test_every_sample_in_a_pass),
        cmocka_unit_test(test_damaged_sample_keeps_its_slot),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_close_at_any_time),
        cmocka_unit_test(test_pattern),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_only_what_is_held_counts),
        cmocka_unit_test(test_text_against_medium),
        cmocka_unit_test(test_data_hash),
        cmocka_unit_test(test_every_failure),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

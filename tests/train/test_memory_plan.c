// The memory plan holds what runs then take: the arenas of any batch within the budget, and the process as a whole.
#include "base/random.h"
#include "data/preprocess.h"
#include "model/batch_build.h"
#include "model/beats.h"
#include "model/load.h"
#include "tests/base/support.h"
#include "train/bench_train.h"
#include "train/memory_plan.h"

#define MODEL VL_SOURCE_DIR "/tests/golden/train/model_vl"
#define MODEL_WITH_SOUND VL_SOURCE_DIR "/tests/golden/train/model_av"
enum { MOST = 64, TEXT = 400, ROWS = 160 };
typedef enum Kind { TEXTS, VIDEOS, PICTURES, ANYTHING_SEEN, SOUNDS, VIDEOS_WITH_SOUND, ANYTHING, KINDS } Kind;

typedef struct Mixture {
    VlBatch batch;
    int64_t ids[MOST][TEXT];
    VlSequence sequences[MOST];
    VlMedium medium[MOST];
} Mixture;

// Of one kind of the mixture's; ANYTHING and ANYTHING_SEEN have texts as well.
static Kind draw_kind(VlRandom *random, Kind of) {
    static const Kind kinds[] = {TEXTS, VIDEOS, PICTURES, SOUNDS, VIDEOS_WITH_SOUND};
    if (of == ANYTHING_SEEN) return kinds[vl_random_below(random, 3)];
    return of == ANYTHING ? kinds[vl_random_below(random, 5)] : of;
}

// Samples within a budget of tokens, of one kind with little text or of any.
static void draw(Mixture *mixture, const VlModelConfig *config, VlRandom *random, int64_t budget, int64_t longest,
                 Kind of, const float *pixels) {
    int64_t count = 0, left = budget;
    while (count < MOST) {
        Kind kind = draw_kind(random, of);
        VlMedium *medium = &mixture->medium[count];
        *medium = (VlMedium){.pixels = pixels};
        if (kind == VIDEOS || kind == VIDEOS_WITH_SOUND) medium->frames = config->num_frames;
        if (kind == PICTURES) medium->frames = 1;
        if (kind == SOUNDS || kind == VIDEOS_WITH_SOUND) medium->rows = ROWS;
        int64_t media = medium->frames > 0 ? vl_model_visual_tokens(config, config->num_frames) : 0, at = 0;
        if (medium->rows > 0) media += vl_beats_tokens(&config->audio, ROWS);
        int64_t most = (left < longest ? left : longest) - media;
        if (most < 2) break;
        if (most > TEXT - 1) most = TEXT - 1;
        bool any = of == ANYTHING || of == ANYTHING_SEEN;
        int64_t text = of == TEXTS ? most : any ? 2 + vl_random_below(random, most - 1) : 2;
        VlSequence *sequence = &mixture->sequences[count];
        *sequence = (VlSequence){.ids = mixture->ids[count], .labels = mixture->ids[count]};
        if (kind != TEXTS) {
            sequence->medium = medium;
            sequence->media = 1;
            mixture->ids[count][at++] = kind == PICTURES ? VL_IMAGE_ID : kind == SOUNDS ? VL_AUDIO_ID : VL_VIDEO_ID;
        }
        for (int64_t i = 0; i < text; i++) mixture->ids[count][at++] = 3 + vl_random_below(random, 300);
        sequence->tokens = at;
        left -= text + media;
        count++;
    }
    for (int64_t i = 0; i < count; i++) {  // all of the text is labelled
        static int64_t labels[MOST][TEXT];
        for (int64_t t = 0; t < mixture->sequences[i].tokens; t++)
            labels[i][t] = mixture->ids[i][t] < 0 ? VL_IGNORE : mixture->ids[i][t];
        mixture->sequences[i].labels = labels[i];
    }
    assert_ok(vl_batch_build(&mixture->batch, config, count, mixture->sequences));
    assert_true(mixture->batch.tokens <= budget);
}

// Runs forward and backward, and leaves the arenas' peaks in the context.
static void run(VlVlm *model, const VlBatch *batch) {
    VlVlmForward forward;
    float *losses;
    assert_ok(VL_NEW(&losses, batch->labels));
    assert_ok(vl_vlm_prepare(model, batch, true));
    assert_ok(vl_vlm_forward(model, batch, true, &forward));
    assert_ok(vl_vlm_loss(model, batch, &forward, true, 1, NULL, losses));
    vl_vlm_release(model);
    vl_free(losses);
}

static void within_plan(const char *folder, VlGroups trainable, VlDtype dtype, int64_t budget, int64_t longest,
                        int64_t threads) {
    static Mixture mixture;
    VlModelConfig config;
    VlContext *context;
    VlVlm *model;
    VlMemoryPlan worst, own;
    VlPlanOptions options = {.trainable = trainable,
                             .dtype = dtype,
                             .micro_tokens = budget,
                             .max_tokens = longest,
                             .frames = 4,
                             .rows = ROWS,
                             .threads = threads,
                             .backward = true};
    VlRandom random = vl_random(8, (uint64_t)budget);
    float *pixels;
    assert_ok(vl_model_config_load(&config, folder));
    assert_ok(VL_NEW(&pixels, config.num_frames * 3 * 42 * 42));
    assert_ok(vl_memory_plan(&config, &options, &worst));
    assert_ok(vl_context_create(&context, VL_DEVICE_CPU, threads));
    assert_ok(vl_vlm_create(&model, context, &config, trainable));
    assert_ok(vl_params_bind(context, vl_vlm_params(model), dtype));
    assert_ok(vl_model_load(context, vl_vlm_params(model), &config, 1, true, NULL));
    assert_int_equal(worst.frozen_bytes, vl_vlm_params(model)->frozen_bytes);
    assert_int_equal(worst.trainable_bytes, vl_vlm_params(model)->trainable_bytes);
    assert_int_equal(worst.gradient_bytes, vl_vlm_params(model)->gradient_bytes);
    assert_int_equal(worst.remainder_bytes, vl_vlm_params(model)->remainder_bytes);
    int kinds = config.has_audio ? KINDS : ANYTHING_SEEN + 1;
    for (int i = 0; i < 2 * kinds; i++) {
        context->activations.peak = context->scratch.peak = 0;
        draw(&mixture, &config, &random, budget, longest, (Kind)(i % kinds), pixels);
        assert_ok(vl_memory_plan_batch(&config, &options, &mixture.batch, &own));
        run(model, &mixture.batch);
        int64_t activations = context->activations.peak, scratch = context->scratch.peak;
        assert_true(activations > 0 && scratch > 0);
        if (activations > own.activation_bytes || scratch > own.scratch_bytes) {
            fail_msg("a batch takes %lld + %lld bytes, %lld + %lld were planned for it", (long long)activations,
                     (long long)scratch, (long long)own.activation_bytes, (long long)own.scratch_bytes);
        }
        if (activations > worst.activation_bytes || scratch > worst.scratch_bytes) {
            fail_msg("budget %lld, mixture %d: a batch takes %lld + %lld bytes, at worst %lld + %lld were planned",
                     (long long)budget, i % kinds, (long long)activations, (long long)scratch,
                     (long long)worst.activation_bytes, (long long)worst.scratch_bytes);
        }
        vl_batch_free(&mixture.batch);
    }
    vl_free(pixels);
    vl_vlm_free(model);
    vl_context_free(context);
}

static void batches_stay_within_the_plan(void **state) {
    (void)state;
    const VlGroups connector = VL_GROUP_BIT(VL_GROUP_CONNECTOR), llm = VL_GROUP_BIT(VL_GROUP_LLM);
    const VlGroups all = connector | llm | VL_GROUP_BIT(VL_GROUP_VISION_TOWER);
    within_plan(MODEL, connector, VL_F32, 500, 200, 2);
    within_plan(MODEL, connector | llm, VL_F32, 500, 200, 2);
    within_plan(MODEL, connector | llm, VL_BF16, 1000, 300, 1);
    within_plan(MODEL, all, VL_F32, 500, 300, 3);
    within_plan(MODEL, connector | llm, VL_F32, 60, 350, 2);  // one sample may be over the budget
    const VlGroups projector = VL_GROUP_BIT(VL_GROUP_AUDIO_PROJECTOR);
    const VlGroups heard = projector | VL_GROUP_BIT(VL_GROUP_AUDIO_TOWER);
    within_plan(MODEL_WITH_SOUND, projector, VL_F32, 500, 200, 2);
    within_plan(MODEL_WITH_SOUND, heard, VL_F32, 700, 300, 1);
    within_plan(MODEL_WITH_SOUND, heard | connector | llm, VL_F32, 500, 200, 2);
    within_plan(MODEL_WITH_SOUND, heard | connector | llm, VL_BF16, 1000, 400, 2);
}

// A model of a size where tensors outweigh the program; config.json alone.
static void write_model(void **state) {
    static const char text[] =
        "{\"model_type\": \"videollama2_mistral\", \"hidden_size\": 256, \"intermediate_size\": 896, "
        "\"num_hidden_layers\": 6, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 8000, "
        "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"hidden_act\": "
        "\"silu\", \"tie_word_embeddings\": false, \"mm_vision_tower\": \"clip-tiny\", \"mm_hidden_size\": 48, "
        "\"mm_projector_type\": \"stc_connector\", \"mm_vision_select_layer\": -2, \"mm_vision_select_feature\": "
        "\"patch\", \"num_frames\": 4, \"bos_token_id\": 1, \"eos_token_id\": 2}";
    char path[VL_PATH_MAX], *tower;
    int64_t size;
    assert_ok(vl_make_folders(scratch(state, "model/clip-tiny")));
    assert_ok(vl_read_file(MODEL "/clip-tiny/config.json", 1 << 20, &tower, &size));
    assert_ok(vl_path_join(path, *state, "model/clip-tiny/config.json"));
    put_file(path, tower, size);
    vl_free(tower);
    put_file(scratch(state, "model/config.json"), text, (int64_t)strlen(text));
}

static void the_process_stays_within_the_plan(void **state) {
#ifdef __SANITIZE_ADDRESS__
    skip();  // the sanitizer's own memory is in no plan
#endif
    static const int64_t texts[][4] = {{500, 0, 0, 0}, {200, 300, 400, 100}};
    static const int64_t counts[] = {1, 4}, frames[] = {0, 4};
    write_model(state);
    for (int i = 0; i < 4; i++) {
        VlBenchTrainOptions options = {.model = scratch(state, "model"),
                                       .trainable = VL_GROUP_BIT(VL_GROUP_CONNECTOR) | VL_GROUP_BIT(VL_GROUP_LLM),
                                       .dtype = VL_F32,
                                       .frames = frames[i % 2],
                                       .samples = counts[i / 2],
                                       .text_tokens = texts[i / 2],
                                       .threads = 2,
                                       .steps = 1};
        VlBenchTrainResult result;
        assert_ok(vl_bench_train(&options, &result));
        assert_true(result.tokens > 0 && result.seconds_min > 0 && result.model_gflop > 0);
        assert_true(result.seconds_min <= result.seconds_median);
        print_message("%lld tokens: peak %.0f MB, planned %.0f MB\n", (long long)result.tokens,
                      (double)result.peak_rss_bytes / 1e6, (double)result.planned_bytes / 1e6);
        assert_true((double)result.peak_rss_bytes <= 1.05 * (double)result.planned_bytes + 100e6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_process_stays_within_the_plan),
        cmocka_unit_test(batches_stay_within_the_plan),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}

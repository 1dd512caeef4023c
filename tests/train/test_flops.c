// Nothing frozen costs a backward: what the plan counts for the parts of the model, and for each operation, is what
// runs count and what the kernels multiply, for the parts that each stage trains.
#include "base/random.h"
#include "model/batch_build.h"
#include "model/beats.h"
#include "model/load.h"
#include "ops/profile.h"
#include "tests/base/support.h"
#include "train/bench_train.h"
#include "train/config.h"
#include "train/memory_plan.h"

#define MODEL VL_SOURCE_DIR "/tests/golden/model/av_qwen2_siglip/model"
#define EXPERTS VL_SOURCE_DIR "/tests/golden/model/mixtral_clip_stc/model"
enum { TEXT = 12, FRAMES = 2, ROWS = 64 };

static const VlSampleShape shapes[] = {
    {.modal = VL_MODAL_TEXT, .tokens = TEXT},
    {.modal = VL_MODAL_IMAGE, .tokens = TEXT, .frames = 1},
    {.modal = VL_MODAL_VIDEO, .tokens = TEXT, .frames = FRAMES},
    {.modal = VL_MODAL_AUDIO, .tokens = TEXT, .rows = ROWS},
    {.modal = VL_MODAL_VIDEO, .tokens = TEXT, .frames = FRAMES, .rows = ROWS},
};

// The parts that a stage trains by its own defaults.
static VlGroups stage_groups(const char *stage) {
    VlConfig config;
    VlGroups groups;
    char choice[64];
    snprintf(choice, sizeof choice, "stage=%s", stage);
    assert_ok(vl_config_load(&config, NULL, 1, (const char *const[]){choice}));
    assert_ok(vl_groups_parse(config.train.trainable, &groups));
    vl_config_free(&config);
    return groups;
}

static void make_batch(const VlModelConfig *config, const VlSampleShape *shape, VlBatch *batch) {
    static const int64_t modality_ids[] = {0, VL_IMAGE_ID, VL_VIDEO_ID, VL_AUDIO_ID};  // by VlModal
    int64_t ids[TEXT], labels[TEXT], side = config->vision.image_size;
    VlRandom random = vl_random(3, 0);
    float *pixels, *fbank;
    assert_ok(VL_NEW(&pixels, shape->frames * 3 * side * side));
    assert_ok(VL_NEW(&fbank, shape->rows * VL_FBANK_BINS));
    for (int64_t i = 0; i < shape->frames * 3 * side * side; i++) pixels[i] = (float)vl_random_normal(&random);
    for (int64_t i = 0; i < shape->rows * VL_FBANK_BINS; i++) fbank[i] = (float)(15 + 6 * vl_random_normal(&random));
    for (int i = 0; i < TEXT; i++) ids[i] = labels[i] = 3 + vl_random_below(&random, 40);
    bool medium = shape->modal != VL_MODAL_TEXT;
    if (medium) ids[0] = modality_ids[shape->modal], labels[0] = VL_IGNORE;
    VlMedium it = {.frames = shape->frames, .pixels = pixels, .rows = shape->rows, .fbank = fbank};
    VlSequence sequence = {.tokens = TEXT, .ids = ids, .labels = labels, .media = medium, .medium = &it};
    assert_ok(vl_batch_build(batch, config, 1, &sequence));
    vl_free(pixels);
    vl_free(fbank);
}

typedef struct Counts {
    VlFlops flops;
    VlPartFlops parts;
    int64_t multiplied;
} Counts;

// Of a forward and backward pass on the CPU, or of their plan.
static Counts count(bool planning, const VlModelConfig *config, VlGroups groups, const VlBatch *batch) {
    VlContext *context;
    VlVlm *model;
    VlVlmForward forward;
    float losses[TEXT];
    Counts counts = {0};
    assert_ok((planning ? vl_context_create_plan : vl_context_create)(&context, VL_DEVICE_CPU, 1));
    assert_ok(vl_vlm_create(&model, context, config, groups));
    assert_ok(vl_params_bind(context, vl_vlm_params(model), VL_F32));
    if (context->planning) {
        assert_ok(vl_vlm_plan(model, batch, true));
    } else {
        assert_ok(vl_model_load(context, vl_vlm_params(model), config, 1, true, NULL));
        assert_ok(vl_vlm_prepare(model, batch, true));
        assert_ok(vl_vlm_forward(model, batch, true, &forward));
        assert_ok(vl_vlm_loss(model, batch, &forward, true, 1, NULL, losses));
        vl_vlm_release(model);
    }
    counts = (Counts){context->flops, *vl_vlm_flops(model), context->multiplied};
    vl_vlm_free(model);
    vl_context_free(context);
    return counts;
}

static bool takes_part(VlGroup group, const VlSampleShape *shape) {
    if (group == VL_GROUP_LLM) return true;
    return group == VL_GROUP_VISION_TOWER || group == VL_GROUP_CONNECTOR ? shape->frames > 0 : shape->rows > 0;
}

// Whether a gradient has to pass through the part: it trains, or something trains before it that takes part.
static bool passes(VlGroup group, VlGroups groups, const VlSampleShape *shape) {
    static const VlGroups before[VL_GROUP_COUNT] = {
        [VL_GROUP_CONNECTOR] = VL_GROUP_BIT(VL_GROUP_VISION_TOWER),
        [VL_GROUP_AUDIO_PROJECTOR] = VL_GROUP_BIT(VL_GROUP_AUDIO_TOWER),
        [VL_GROUP_LLM] = (VlGroups)~VL_GROUP_BIT(VL_GROUP_LLM),
    };
    bool wanted = false;
    for (int g = 0; g < VL_GROUP_COUNT; g++) {
        bool counts = g == (int)group || before[group] & VL_GROUP_BIT(g);
        wanted = wanted || (counts && groups & VL_GROUP_BIT(g) && takes_part((VlGroup)g, shape));
    }
    return wanted;
}

static void expect_only_what_trains(const char *stage, VlGroups groups, const VlSampleShape *shape,
                                    const VlPartFlops *parts) {
    for (int g = 0; g < VL_GROUP_COUNT; g++) {
        const int64_t *of = parts->of[g];
        bool there = takes_part((VlGroup)g, shape), inputs = there && passes((VlGroup)g, groups, shape);
        bool weights = there && groups & VL_GROUP_BIT(g);
        if ((of[VL_PASS_FORWARD] > 0) != there || (of[VL_PASS_INPUTS] > 0) != inputs ||
            (of[VL_PASS_WEIGHTS] > 0) != weights) {
            fail_msg("%s, sample of %lld frames and %lld rows: %s counts %lld, %lld and %lld", stage,
                     (long long)shape->frames, (long long)shape->rows, vl_group_name((VlGroup)g),
                     (long long)of[VL_PASS_FORWARD], (long long)of[VL_PASS_INPUTS], (long long)of[VL_PASS_WEIGHTS]);
        }
    }
}

// What is multiplied outside of attention is what the operations count, no product more.
static void expect_multiplied(const char *stage, const Counts *run) {
    int64_t counted = 0;
    for (int pass = 0; pass < VL_PASSES; pass++) {
        counted += run->flops.of[VL_PRODUCT_LINEAR][pass] + run->flops.of[VL_PRODUCT_CONVOLUTION1D][pass] +
                   run->flops.of[VL_PRODUCT_GROUPED_LINEAR][pass] +
                   run->flops.of[VL_PRODUCT_LINEAR_CROSS_ENTROPY][pass];
    }
    if (counted != run->multiplied || counted == 0)
        fail_msg("%s: the kernels multiplied %lld, %lld are counted", stage, (long long)run->multiplied,
                 (long long)counted);
}

static void expect_equal(const char *stage, const VlSampleShape *shape, const Counts *plan, const Counts *run,
                         const VlPartFlops *told) {
    for (int pass = 0; pass < VL_PASSES; pass++) {
        for (int p = 0; p < VL_PRODUCTS; p++) {
            if (plan->flops.of[p][pass] != run->flops.of[p][pass])
                fail_msg("%s, %lld frames, %lld rows: operation %d, pass %d: %lld planned, %lld counted", stage,
                         (long long)shape->frames, (long long)shape->rows, p, pass, (long long)plan->flops.of[p][pass],
                         (long long)run->flops.of[p][pass]);
        }
        for (int g = 0; g < VL_GROUP_COUNT; g++) {
            assert_int_equal(plan->parts.of[g][pass], run->parts.of[g][pass]);
            assert_int_equal(told->of[g][pass], run->parts.of[g][pass]);
        }
    }
}

static void expect_plans_count_what_runs_do(const char *model, size_t stage_count) {
    static const char *const stages[] = {"pretrain", "finetune", "audio-pretrain", "audio-finetune", "joint"};
    VlModelConfig config;
    assert_ok(vl_model_config_load(&config, model));
    config.num_frames = FRAMES;
    for (size_t s = 0; s < stage_count; s++) {
        VlGroups groups = stage_groups(stages[s]);
        VlPlanOptions options = {.trainable = groups,
                                 .dtype = VL_F32,
                                 .micro_tokens = 512,
                                 .max_tokens = 256,
                                 .frames = FRAMES,
                                 .rows = ROWS,
                                 .threads = 1,
                                 .backward = true};
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            VlBatch batch;
            VlPartFlops told;
            if (shapes[i].rows > 0 && !config.has_audio) continue;
            make_batch(&config, &shapes[i], &batch);
            Counts plan = count(true, &config, groups, &batch), run = count(false, &config, groups, &batch);
            assert_ok(vl_plan_sample_flops(&config, &options, shapes[i], &told));
            expect_equal(stages[s], &shapes[i], &plan, &run, &told);
            expect_multiplied(stages[s], &run);
            expect_only_what_trains(stages[s], groups, &shapes[i], &run.parts);
            vl_batch_free(&batch);
        }
    }
}

static void plans_count_what_runs_do(void **state) {
    (void)state;
    expect_plans_count_what_runs_do(MODEL, 5);
    expect_plans_count_what_runs_do(EXPERTS, 2);
}

// Elements of the part's matrices that are multiplied with every token.
static int64_t matrix_elements(const VlParams *params, VlGroup group) {
    static const char *const others[] = {"embed_tokens", "lm_head", "grep_linear", "relative_attention_bias",
                                         "weight_g",     "grep_a",  "predictor"};
    int64_t elements = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const VlParam *row = params->rows[i];
        bool multiplied = row->group == group && row->shape.dims >= 2;
        for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
            multiplied = multiplied && !strstr(row->name, others[o]);
        }
        if (multiplied) elements += vl_elements(row->shape);
    }
    return elements;
}

// The numbers themselves, from the weights' extents: a sound in audio-finetune and in joint.
static void counts_are_those_of_the_extents(void **state) {
    (void)state;
    const VlSampleShape shape = {.modal = VL_MODAL_AUDIO, .tokens = TEXT, .rows = ROWS};
    VlModelConfig config;
    VlContext *context;
    VlVlm *model;
    VlBatch batch;
    assert_ok(vl_model_config_load(&config, MODEL));
    assert_ok(vl_context_create_plan(&context, VL_DEVICE_CPU, 1));
    assert_ok(vl_vlm_create(&model, context, &config, 0));
    make_batch(&config, &shape, &batch);
    int64_t sound = batch.sound_tokens, tokens = batch.tokens, head_size = config.decoder.head_size;
    int64_t tower = 2 * sound * matrix_elements(vl_vlm_params(model), VL_GROUP_AUDIO_TOWER);
    int64_t heard = 4 * sound * sound * config.audio.hidden * config.audio.layers;  // two products of attention
    int64_t projector = 2 * sound * matrix_elements(vl_vlm_params(model), VL_GROUP_AUDIO_PROJECTOR);
    int64_t llm = 2 * tokens * matrix_elements(vl_vlm_params(model), VL_GROUP_LLM);
    int64_t head = 2 * batch.labels * config.decoder.hidden * config.decoder.vocabulary;
    int64_t attention = 4 * tokens * (tokens + 1) / 2 * config.decoder.heads * head_size * config.decoder.layers;
    int64_t patch = 2 * sound * config.audio.embedding * config.audio.patch_size * config.audio.patch_size;
    assert_int_equal(sound, ROWS / 16 * 8);
    for (int joint = 0; joint < 2; joint++) {
        Counts run = count(false, &config, stage_groups(joint ? "joint" : "audio-finetune"), &batch);
        const int64_t expected[VL_GROUP_COUNT][VL_PASSES] = {
            [VL_GROUP_LLM] = {llm + head + attention, llm + head + 2 * attention, joint ? llm + head : 0},
            [VL_GROUP_AUDIO_PROJECTOR] = {projector, projector, projector},
            [VL_GROUP_AUDIO_TOWER] = {tower + heard, tower - patch + 2 * heard, tower}};
        for (int g = 0; g < VL_GROUP_COUNT; g++) {
            for (int pass = 0; pass < VL_PASSES; pass++) {
                if (run.parts.of[g][pass] != expected[g][pass])
                    fail_msg("joint %d: %s, pass %d: %lld, not %lld", joint, vl_group_name((VlGroup)g), pass,
                             (long long)run.parts.of[g][pass], (long long)expected[g][pass]);
            }
        }
    }
    vl_batch_free(&batch);
    vl_vlm_free(model);
    vl_context_free(context);
}

// A token is multiplied with the experts that it takes, not with all of them.
static void experts_count_what_a_token_takes(void **state) {
    (void)state;
    const VlSampleShape shape = {.modal = VL_MODAL_TEXT, .tokens = TEXT};
    VlModelConfig config;
    VlContext *context;
    VlVlm *model;
    VlBatch batch;
    assert_ok(vl_model_config_load(&config, EXPERTS));
    assert_ok(vl_context_create_plan(&context, VL_DEVICE_CPU, 1));
    assert_ok(vl_vlm_create(&model, context, &config, 0));
    make_batch(&config, &shape, &batch);
    const VlDecoderConfig *decoder = &config.decoder;
    int64_t expert = 3 * decoder->hidden * decoder->intermediate * decoder->layers, tokens = batch.tokens;
    int64_t all = matrix_elements(vl_vlm_params(model), VL_GROUP_LLM);
    int64_t taken = all - (decoder->experts - decoder->experts_per_token) * expert;
    int64_t head = 2 * batch.labels * decoder->hidden * decoder->vocabulary;
    int64_t attention = 4 * tokens * (tokens + 1) / 2 * decoder->heads * decoder->head_size * decoder->layers;
    Counts run = count(false, &config, VL_GROUP_BIT(VL_GROUP_LLM), &batch);
    int64_t products = 2 * tokens * taken + head;
    assert_int_equal(run.parts.of[VL_GROUP_LLM][VL_PASS_FORWARD], products + attention);
    assert_int_equal(run.parts.of[VL_GROUP_LLM][VL_PASS_INPUTS], products + 2 * attention);
    assert_int_equal(run.parts.of[VL_GROUP_LLM][VL_PASS_WEIGHTS], products);
    assert_int_equal(run.flops.of[VL_PRODUCT_GROUPED_LINEAR][VL_PASS_FORWARD],
                     2 * tokens * decoder->experts_per_token * expert);
    vl_batch_free(&batch);
    vl_vlm_free(model);
    vl_context_free(context);
}

// The benchmark's sample carries a sound, a video, or both.
static void bench_steps_hear(void **state) {
    (void)state;
    VlModelConfig config;
    const int64_t text[] = {TEXT, 5};
    assert_ok(vl_model_config_load(&config, MODEL));
    double gflop = 0;
    for (int frames = 0; frames <= FRAMES; frames += FRAMES) {
        VlBenchTrainOptions options = {.model = MODEL,
                                       .trainable = stage_groups("audio-finetune"),
                                       .frames = frames,
                                       .audio_rows = ROWS,
                                       .samples = 2,
                                       .text_tokens = text,
                                       .threads = 1,
                                       .steps = 1};
        VlBenchTrainResult result;
        assert_ok(vl_bench_train(&options, &result));
        int64_t visual = frames > 0 ? vl_model_visual_tokens(&config, frames) : 0;
        assert_int_equal(result.tokens, TEXT - 1 + 5 + vl_beats_tokens(&config.audio, ROWS) + visual);
        assert_true(result.model_gflop > gflop);
        gflop = result.model_gflop;
    }
    VlBenchTrainOptions negative = {.model = MODEL, .audio_rows = -1, .samples = 1, .text_tokens = text, .steps = 1};
    VlBenchTrainResult result;
    assert_int_equal(vl_bench_train(&negative, &result), VL_USAGE);
}

// A profile has every product of a step, by the part that it belongs to.
static void profiles_hold_every_product(void **state) {
    (void)state;
    static VlProfile profile;
    const int64_t text[] = {TEXT, 5};
    VlBenchTrainOptions options = {.model = EXPERTS,
                                   .trainable = stage_groups("finetune"),
                                   .frames = FRAMES,
                                   .samples = 2,
                                   .text_tokens = text,
                                   .threads = 1,
                                   .steps = 2,
                                   .profile = &profile};
    VlBenchTrainResult result;
    VlModelConfig config;
    assert_ok(vl_model_config_load(&config, EXPERTS));
    assert_ok(vl_bench_train(&options, &result));
    const VlProfileRow(*of)[VL_CALLS] = profile.of;
    int64_t layers = config.decoder.layers;
    assert_int_equal(of[VL_GROUP_LLM][VL_CALL_attention_forward].calls, layers);
    assert_int_equal(of[VL_GROUP_LLM][VL_CALL_attention_backward].calls, layers);
    assert_int_equal(of[VL_GROUP_LLM][VL_CALL_grouped_linear_backward].calls, 3 * layers);
    assert_int_equal(of[VL_GROUP_VISION_TOWER][VL_CALL_attention_forward].calls, config.vision.run_layers);
    assert_int_equal(of[VL_GROUP_VISION_TOWER][VL_CALL_attention_backward].calls, 0);
    assert_true(of[VL_GROUP_CONNECTOR][VL_CALL_linear_backward].calls > 0);
    assert_true(of[VL_BENCH_OPTIMIZER][VL_CALL_adamw].calls > 0);
    double seconds = 0;
    for (int call = 0; call < VL_CALLS; call++) {
        assert_int_equal(profile.open[call].calls, 0);  // all is charged to some part
        for (int part = 0; part < VL_PROFILE_PARTS; part++) {
            assert_true(part <= VL_BENCH_OPTIMIZER || of[part][call].calls == 0);
            assert_true(of[part][call].calls == 0 || of[part][call].limit > 0);
            assert_true(of[part][call].seconds >= 0);  // 0: no longer than the smallest operation takes
            seconds += of[part][call].seconds;
        }
    }
    assert_true(seconds > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_count_what_runs_do),         cmocka_unit_test(counts_are_those_of_the_extents),
        cmocka_unit_test(experts_count_what_a_token_takes), cmocka_unit_test(bench_steps_hear),
        cmocka_unit_test(profiles_hold_every_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

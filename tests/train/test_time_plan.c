// How long a run takes: steps and FLOPs by the packed samples, and the time at a rate.
#include "train/time_plan.h"

#include "data/packed.h"
#include "tests/train/runs.h"
#include "train/run_plan.h"

static VlStatus make_plan(const VlConfig *config, VlModelConfig *model, VlPlanOptions *options, VlTimePlan *plan) {
    assert_ok(vl_model_config_load(model, GOLDEN "/model_vl"));
    model->num_frames = config->data.frames;
    *options = (VlPlanOptions){.trainable = VL_GROUP_BIT(VL_GROUP_CONNECTOR) | VL_GROUP_BIT(VL_GROUP_LLM),
                               .dtype = VL_F32,
                               .micro_tokens = 512,
                               .max_tokens = 256,
                               .frames = config->data.frames,
                               .threads = 1,
                               .backward = true};
    return vl_time_plan(config, model, options, plan);
}

static int64_t sample_flops(const VlModelConfig *model, const VlPlanOptions *options, int64_t tokens, bool image) {
    VlPartFlops parts;
    int64_t total = 0;
    VlSampleShape shape = {.modal = image ? VL_MODAL_IMAGE : VL_MODAL_TEXT, .tokens = tokens, .frames = image};
    assert_ok(vl_plan_sample_flops(model, options, shape, &parts));
    for (int part = 0; part < VL_GROUP_COUNT; part++) {
        for (int pass = 0; pass < VL_PASSES; pass++) total += parts.of[part][pass];
    }
    return total;
}

// The golden sources: 16 samples, 4 of them text and 12 pictures.
static void counts_what_is_packed(void **state) {
    VlConfig config;
    VlModelConfig model;
    VlPlanOptions options;
    VlTimePlan plan, larger;
    VlPacked packed;
    pack_stage(*state, "finetune");
    assert_ok(
        load_config(&config, *state, "finetune", "", (const char *const[]){"train.steps=0", "train.epochs=5", NULL}));
    assert_ok(make_plan(&config, &model, &options, &plan));
    assert_true(plan.packed);
    assert_int_equal(plan.epoch_samples, 16);
    assert_int_equal(plan.steps, 5);
    double tokens[2] = {0}, flops = 0, length = 0;
    assert_ok(vl_packed_open(&packed, config.data.source[0].shards));
    for (int64_t i = 0; i < packed.samples; i++) {
        int64_t row;
        const VlShardRow *sample = vl_shard_row(vl_packed_find(&packed, i, &row), i);
        tokens[sample->modality == VL_MODAL_IMAGE] += sample->tokens;
    }
    vl_packed_close(&packed);
    int64_t visual = vl_model_visual_tokens(&model, 4), text = llround(tokens[0] / 4), image = llround(tokens[1] / 12);
    int64_t flops_text = sample_flops(&model, &options, text, false),
            flops_image = sample_flops(&model, &options, image, true);
    assert_true(flops_image > flops_text && flops_text > 0);
    flops = 4.0 * (double)flops_text + 12.0 * (double)flops_image;
    length = (4.0 * (double)text + 12.0 * (double)(image + visual - 1)) / 16;
    if (!(fabs(plan.step_flops / flops - 1) < 1e-9)) fail_msg("a step: %g FLOPs, not %g", plan.step_flops, flops);
    if (!(fabs(plan.sample_tokens / length - 1) < 1e-9)) fail_msg("%g tokens, not %g", plan.sample_tokens, length);
    // Half of the source, twice the batch.
    config.data.source[0].weight = 0.5;
    config.train.global_batch = 32;
    assert_ok(make_plan(&config, &model, &options, &larger));
    assert_int_equal(larger.epoch_samples, 8);
    assert_int_equal(larger.steps, 2);
    assert_true(fabs(larger.step_flops / plan.step_flops - 2) < 1e-9);
    vl_config_free(&config);
}

// The matrix products of the language model alone are 6 FLOPs per token and weight (2 forward, 4 backward); a text
// sample takes at least these and not much more.
static void flops_are_those_of_the_weights(void **state) {
    (void)state;
    enum { TOKENS = 100 };
    VlModelConfig model;
    VlMemoryPlan memory;
    VlPlanOptions options = {.trainable = VL_GROUP_BIT(VL_GROUP_LLM),
                             .dtype = VL_F32,
                             .micro_tokens = 512,
                             .max_tokens = 256,
                             .frames = 4,
                             .threads = 1,
                             .backward = true};
    assert_ok(vl_model_config_load(&model, GOLDEN "/model_vl"));
    assert_ok(vl_memory_plan(&model, &options, &memory));
    int64_t flops = sample_flops(&model, &options, TOKENS, false),
            twice = sample_flops(&model, &options, 2 * TOKENS, false);
    double weights = (double)memory.trainable_parameters - (double)(model.decoder.vocabulary * model.decoder.hidden);
    double least = 6.0 * weights * TOKENS;
    if (!((double)flops > 0.97 * least && (double)flops < 1.6 * least))
        fail_msg("%g FLOPs, at least %g", (double)flops, least);
    assert_true(twice > 2 * flops && twice < 3 * flops);
}

static void without_shards_the_longest_counts(void **state) {
    VlConfig config;
    VlModelConfig model;
    VlPlanOptions options;
    VlTimePlan plan;
    write_config(*state, "pretrain");
    assert_ok(load_config(&config, *state, "pretrain", "", (const char *const[]){"train.steps=7", NULL}));
    assert_ok(make_plan(&config, &model, &options, &plan));
    assert_false(plan.packed);
    assert_int_equal(plan.steps, 7);
    assert_true(plan.sample_tokens == 256);
    config.train.steps = 0;
    assert_ok(make_plan(&config, &model, &options, &plan));
    assert_int_equal(plan.steps, 0);
    vl_config_free(&config);
}

// `parts` stands behind the first line.
static void expect_print(const VlTimePlan *plan, int64_t ranks, double rate, const char *first, const char *parts,
                         const char *rest) {
    char expected[1024];
    snprintf(expected, sizeof expected, "%s%s%s", first, parts, rest);
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    assert_non_null(file);
    vl_time_plan_print(file, plan, 16, ranks, rate);
    assert_int_equal(fclose(file), 0);
    assert_string_equal(text, expected);
    free(text);
}

static void prints_the_time(void **state) {
    (void)state;
    static const char parts[] =
        "  TFLOP                     forward  input gradients  weight gradients\n"
        "  connector                       1                2                 3\n"
        "  llm                           145              200               200\n";
    VlTimePlan plan = {
        .packed = true,
        .epoch_samples = 1000,
        .steps = 188,
        .sample_tokens = 926,
        .step_flops = 551e12,
        .step_parts = {[VL_GROUP_CONNECTOR] = {1e12, 2e12, 3e12}, [VL_GROUP_LLM] = {145e12, 200e12, 200e12}}};
    expect_print(&plan, 1, 4e12, "A step: 16 samples of 926 tokens (the mean of the shards), 551 TFLOP\n", parts,
                 "The run: 188 steps, 103.6 PFLOP\n"
                 "Time at 4 TFLOP/s per rank: 138 s a step, 7.2 h in all\n");
    expect_print(&plan, 8, 4e12, "A step: 16 samples of 926 tokens (the mean of the shards), 551 TFLOP\n", parts,
                 "The run: 188 steps, 103.6 PFLOP\n"
                 "Time at 4 TFLOP/s per rank: 17.2 s a step, 54 min in all\n");
    plan =
        (VlTimePlan){.sample_tokens = 2048, .step_flops = 3e9, .step_parts = {[VL_GROUP_AUDIO_TOWER] = {1e9, 0, 2e9}}};
    expect_print(&plan, 1, 0,
                 "A step: 16 samples of 2048 tokens (the longest; the sources are not packed yet), 3 GFLOP\n",
                 "  GFLOP                     forward  input gradients  weight gradients\n"
                 "  audio_tower                     1                0                 2\n",
                 "The run: as many steps as the packed samples give; pack them, or set train.steps\n"
                 "Time: give --tflops X, what one rank reaches (vl2 bench train on a model of this shape tells)\n");
}

// A step on a GPU: not below its FLOPs at the peak, longer with the shares that are expected, shorter on more ranks.
static void tells_a_gpus_time(void **state) {
    VlConfig config;
    VlModelConfig model;
    VlPlanOptions options;
    VlTimePlan plain, limits, expected;
    write_config(*state, "finetune");
    assert_ok(load_config(&config, *state, "finetune", "", (const char *const[]){"train.steps=7", NULL}));
    assert_ok(make_plan(&config, &model, &options, &plain));
    assert_true(vl_roofline_seconds(&plain.sample_time) == 0 && plain.optimizer_seconds == 0);
    assert_ok(vl_gpu_parse(&options.gpu, "h200"));
    options.device = VL_DEVICE_CUDA;
    options.dtype = VL_BF16;
    options.shares = vl_gpu_limits;
    assert_ok(vl_time_plan(&config, &model, &options, &limits));
    options.shares = vl_gpu_expected;
    assert_ok(vl_time_plan(&config, &model, &options, &expected));
    double one = vl_time_plan_gpu_seconds(&limits, 16, 1), four = vl_time_plan_gpu_seconds(&limits, 16, 4);
    assert_true(limits.step_flops == plain.step_flops);
    assert_true(one > limits.step_flops / 989e12);
    assert_true(vl_time_plan_gpu_seconds(&expected, 16, 1) > 1.15 * one);
    assert_true(limits.optimizer_seconds > 0 && fabs(one - 4 * four + 3 * limits.optimizer_seconds) < 1e-9 * one);
    // The optimizer moves 28 bytes a parameter, and 4 each for clearing the gradient and for its norm.
    VlMemoryPlan memory;
    options.shares = vl_gpu_limits;
    assert_ok(vl_memory_plan(&model, &options, &memory));
    double bytes = limits.optimizer_seconds * 4.8e12 / (double)memory.trainable_parameters;
    if (!(bytes >= 36 && bytes < 36.5)) fail_msg("%g bytes a parameter", bytes);
    assert_int_equal(memory.device_bytes + memory.host_bytes, memory.total_bytes);
    vl_config_free(&config);
}

static void knows_gpus(void **state) {
    (void)state;
    const VlGpu *gpu;
    assert_ok(vl_gpu_parse(&gpu, "h100"));
    assert_true(gpu == vl_gpu_of_model("NVIDIA H100 80GB HBM3"));
    assert_true(vl_gpu_of_model("NVIDIA H200") != gpu && vl_gpu_of_model("NVIDIA H200"));
    assert_null(vl_gpu_of_model("NVIDIA GeForce RTX 4090"));
    assert_int_equal(vl_gpu_parse(&gpu, "h20"), VL_USAGE);
    assert_non_null(strstr(vl_error_text(), "'h20' is unknown; possible are: a100, h100, h200; nearest: h"));
}

// Too large a plan ends a run on a GPU before it begins, and is a warning on the CPU.
static void memory_is_held_against_the_device(void **state) {
    (void)state;
    VlContext *context;
    int64_t left, whole;
    assert_ok(vl_context_create(&context, VL_DEVICE_CPU, 1));
    assert_ok(vl_device_memory(context, &left, &whole));
    VlMemoryPlan plan = {.device_bytes = left, .optimizer_bytes = left};
    assert_ok(vl_run_check_memory(&plan, context, 2));
    plan.host_bytes = 1;
    assert_ok(vl_run_check_memory(&plan, context, 2));
    // The host's memory is no concern of a GPU; what CUDA's libraries take, and with other ranks NCCL, is.
    context->device = VL_DEVICE_CUDA;
    plan.device_bytes = left - ((int64_t)512 << 20);
    assert_ok(vl_run_check_memory(&plan, context, 1));
    assert_int_equal(vl_run_check_memory(&plan, context, 2), VL_OUT_OF_MEMORY);
    plan.device_bytes++;
    assert_int_equal(vl_run_check_memory(&plan, context, 1), VL_OUT_OF_MEMORY);
    assert_non_null(strstr(vl_error_text(), "lower train.micro_tokens"));
    context->device = VL_DEVICE_CPU;
    vl_context_free(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_is_packed),
        cmocka_unit_test(flops_are_those_of_the_weights),
        cmocka_unit_test(without_shards_the_longest_counts),
        cmocka_unit_test(prints_the_time),
        cmocka_unit_test(tells_a_gpus_time),
        cmocka_unit_test(knows_gpus),
        cmocka_unit_test(memory_is_held_against_the_device),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}

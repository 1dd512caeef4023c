#include "train/bench_train.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/batch_build.h"
#include "model/beats.h"
#include "model/load.h"
#include "ops/profile.h"
#include "optim/optimizer.h"
#include "train/bench_machine.h"
#include "train/run_plan.h"

typedef struct Bench {
    const VlBenchTrainOptions *options;
    VlModelConfig config;
    VlContext *context;
    VlVlm *model;
    VlOptimizer optimizer;
    VlBatch batch;
    VlMemoryPlan plan;
    void *device_losses;  // [batch.labels] f32
    float *losses;
    double *seconds;  // [steps]
} Bench;

// Normalised pixels of a video, and a filter bank with about the mean and deviation of real ones.
static VlStatus make_medium(const Bench *bench, VlRandom *random, float **pixels, float **fbank) {
    int64_t size = bench->config.has_vision ? bench->config.vision.image_size : 0;
    int64_t elements = bench->options->frames * 3 * size * size, bins = bench->options->audio_rows * VL_FBANK_BINS;
    VL_TRY(VL_NEW(pixels, elements));
    VL_TRY(VL_NEW(fbank, bins));
    for (int64_t i = 0; i < elements; i++) (*pixels)[i] = (float)vl_random_normal(random);
    for (int64_t i = 0; i < bins; i++) (*fbank)[i] = (float)(15 + 6 * vl_random_normal(random));
    return VL_OK;
}

// Random ids; of each sample's text the last three quarters are labelled.
static VlStatus make_batch(Bench *bench) {
    const VlBenchTrainOptions *options = bench->options;
    int64_t total = 0, used = 0, *ids = NULL, *labels = NULL;
    float *pixels = NULL, *fbank = NULL;
    VlSequence *sequences = NULL;
    VlRandom random = vl_random(1, 0);
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < options->samples; i++) total += options->text_tokens[i];
    VL_TRY_GOTO(status, VL_NEW(&ids, total), done);
    VL_TRY_GOTO(status, VL_NEW(&labels, total), done);
    VL_TRY_GOTO(status, make_medium(bench, &random, &pixels, &fbank), done);
    VL_TRY_GOTO(status, VL_NEW(&sequences, options->samples), done);
    VlMedium medium = {.frames = options->frames, .pixels = pixels, .rows = options->audio_rows, .fbank = fbank};
    for (int64_t i = 0; i < options->samples; i++) {
        int64_t tokens = options->text_tokens[i], *sample_ids = ids + used, *sample_labels = labels + used;
        for (int64_t t = 0; t < tokens; t++) {
            sample_ids[t] = vl_random_below(&random, bench->config.decoder.vocabulary);
            sample_labels[t] = t >= tokens / 4 ? sample_ids[t] : VL_IGNORE;
        }
        sequences[i] = (VlSequence){.tokens = tokens, .ids = sample_ids, .labels = sample_labels};
        if (i == 0 && (options->frames > 0 || options->audio_rows > 0)) {
            sample_ids[0] = options->frames > 0 ? VL_VIDEO_ID : VL_AUDIO_ID;
            sample_labels[0] = VL_IGNORE;
            sequences[i].media = 1;
            sequences[i].medium = &medium;
        }
        used += tokens;
    }
    status = vl_batch_build(&bench->batch, &bench->config, options->samples, sequences);
done:
    vl_free(ids);
    vl_free(labels);
    vl_free(pixels);
    vl_free(fbank);
    vl_free(sequences);
    return status;
}

static VlStatus plan_memory(Bench *bench) {
    const VlBenchTrainOptions *options = bench->options;
    VlPlanOptions plan = {.trainable = options->trainable,
                          .dtype = options->dtype,
                          .threads = options->threads,
                          .backward = true,
                          .device = options->device};
    VL_TRY(vl_memory_plan_batch(&bench->config, &plan, &bench->batch, &bench->plan));
    return vl_run_check_memory(&bench->plan, bench->context, 1);
}

// A folder without weights gives random ones: of each parameter the first values of its initialisation, again and
// again. To draw all of a large model's would take longer than its steps.
static VlStatus make_weights(Bench *bench) {
    enum { PATTERN = 1 << 16 };
    const VlParams *params = vl_vlm_params(bench->model);
    float *values;
    VlStatus status = VL_OK;
    VL_TRY(VL_NEW(&values, PATTERN));
    for (int64_t p = 0; p < params->count; p++) {
        VlParam *param = params->rows[p];
        int64_t count = vl_elements(param->shape);
        vl_init_values(param->init, param->name, 1, 0, count < PATTERN ? count : PATTERN, values);
        for (int64_t begin = 0; begin < count; begin += PATTERN) {
            int64_t length = count - begin < PATTERN ? count - begin : PATTERN;
            VL_TRY_GOTO(status, vl_params_set_part(bench->context, param, begin, length, values, VL_F32), done);
        }
    }
done:
    vl_free(values);
    return status;
}

static VlStatus load_weights(Bench *bench) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_weights_locate(path, bench->config.folder));
    if (!*path) return make_weights(bench);
    return vl_model_load(bench->context, vl_vlm_params(bench->model), &bench->config, 1, false, NULL);
}

static VlStatus set_up(Bench *bench) {
    const VlBenchTrainOptions *options = bench->options;
    VL_TRY(vl_model_config_load(&bench->config, options->model));
    if (options->frames > 0) bench->config.num_frames = options->frames;
    VL_TRY(vl_context_create(&bench->context, options->device, options->threads));
    VL_TRY(make_batch(bench));
    VL_TRY(plan_memory(bench));
    VL_TRY(vl_vlm_create(&bench->model, bench->context, &bench->config, options->trainable));
    VL_TRY(vl_params_bind(bench->context, vl_vlm_params(bench->model), options->dtype));
    VL_TRY(load_weights(bench));
    VlOptimizerSettings settings = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip_norm = 1.0};
    VL_TRY(vl_optimizer_create(&bench->optimizer, bench->context, vl_vlm_params(bench->model), settings));
    VL_TRY(VL_NEW(&bench->losses, bench->batch.labels));
    VL_TRY(VL_NEW(&bench->seconds, options->steps));
    VL_TRY(vl_device_allocate(bench->context, bench->batch.labels * (int64_t)sizeof(float), &bench->device_losses));
    return vl_vlm_reserve(bench->model, bench->plan.activation_bytes, bench->plan.scratch_bytes);
}

// What a clock that is read in the middle of a step waits for.
static VlStatus look_at_clock(Bench *bench, bool waiting, double begin, double *seconds) {
    if (waiting) VL_TRY(vl_device_wait(bench->context));
    *seconds = vl_seconds() - begin;
    return VL_OK;
}

// times: after forward, after backward, at the end; relative to the begin. Without `split` only the last one is meant:
// a GPU still works at the first two then.
static VlStatus step(Bench *bench, bool split, double times[3]) {
    VlVlmForward forward;
    double begin = vl_seconds(), norm;
    VlTensor losses = vl_tensor(bench->device_losses, VL_F32, bench->batch.labels);
    bench->context->flops = (VlFlops){0};
    VL_TRY(vl_optimizer_clear_gradients(&bench->optimizer));
    vl_profile_charge(bench->context->profile, VL_BENCH_OPTIMIZER);
    VL_TRY(vl_vlm_forward(bench->model, &bench->batch, true, &forward));
    VL_TRY(look_at_clock(bench, split, begin, &times[0]));
    VL_TRY(vl_vlm_device_loss(bench->model, &bench->batch, &forward, true, 1.0f / (float)bench->batch.labels, NULL,
                              losses));
    vl_vlm_release(bench->model);
    VL_TRY(look_at_clock(bench, split, begin, &times[1]));
    VL_TRY(vl_optimizer_gradient_norm(&bench->optimizer, &norm));
    VL_TRY(vl_copy_to_host(bench->context, bench->losses, losses));
    VL_TRY(vl_optimizer_step(&bench->optimizer, 1e-5, norm));
    vl_profile_charge(bench->context->profile, VL_BENCH_OPTIMIZER);
    return look_at_clock(bench, true, begin, &times[2]);
}

static void keep_split(VlBenchTrainResult *result, const double times[3]) {
    result->forward = times[0];
    result->backward = times[1] - times[0];
    result->optimizer = times[2] - times[1];
}

// What products and copies reach on this machine, measured while nothing else is in its memory.
static VlStatus measure_limits(const VlBenchTrainOptions *options, VlRoofline *roofline) {
    VlContext *context;
    double peak, triad;
    int64_t size = options->device == VL_DEVICE_CPU ? 2048 : 8192;
    VL_TRY(vl_context_create(&context, options->device, options->threads));
    VlStatus status = vl_measure_gemm_peak(context, options->dtype, size, 1.0, &peak);
    if (status == VL_OK) status = vl_measure_bandwidth(context, 1.0, &roofline->bytes_per_second, &triad);
    vl_context_free(context);
    for (int product = 0; status == VL_OK && product < VL_PRODUCTS; product++) {
        roofline->flops_per_second[product] = peak;
    }
    return status;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// How long the smallest operation takes: launching it, and waiting for it.
static VlStatus measure_overhead(VlContext *context, double *seconds) {
    enum { TURNS = 51 };
    double turns[TURNS];
    VlTensor one;
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(vl_arena_push(&context->scratch, &one, VL_F32, 1));
    for (int i = 0; i < TURNS; i++) {
        double begin = vl_seconds();
        VL_TRY(vl_zero(context, one));
        VL_TRY(vl_device_wait(context));
        turns[i] = vl_seconds() - begin;
    }
    qsort(turns, TURNS, sizeof *turns, ascending);
    *seconds = turns[TURNS / 2];
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

static VlStatus profile(Bench *bench, const VlRoofline *limits) {
    double times[3];
    VL_TRY(measure_overhead(bench->context, &bench->options->profile->overhead));
    bench->context->roofline = *limits;
    bench->context->profile = bench->options->profile;
    return step(bench, false, times);
}

static VlStatus measure(Bench *bench, VlBenchTrainResult *result) {
    double times[3];
    bool split = bench->options->device == VL_DEVICE_CPU;
    VL_TRY(step(bench, split, times));
    int64_t steps = bench->options->steps;
    for (int64_t i = 0; i < steps; i++) {
        VL_TRY(step(bench, split, times));
        bench->seconds[i] = times[2];
        if (i > 0 && times[2] >= result->seconds_min) continue;
        result->seconds_min = times[2];
        keep_split(result, times);
    }
    if (!split) {
        VL_TRY(step(bench, true, times));
        keep_split(result, times);
    }
    qsort(bench->seconds, (size_t)steps, sizeof *bench->seconds, ascending);
    result->seconds_median =
        steps % 2 ? bench->seconds[steps / 2] : 0.5 * (bench->seconds[steps / 2 - 1] + bench->seconds[steps / 2]);
    result->tokens = bench->batch.tokens;
    result->model_gflop = (double)vl_flops_total(&bench->context->flops) / 1e9;
    result->threads = bench->context->threads;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    result->peak_rss_bytes = (int64_t)usage.ru_maxrss * 1024;
    result->planned_bytes = bench->plan.total_bytes;
    if (split) return VL_OK;
    int64_t left, whole;
    VL_TRY(vl_device_memory(bench->context, &left, &whole));
    result->device_bytes = whole - left;
    result->planned_bytes = bench->plan.device_bytes;
    snprintf(result->gpu, sizeof result->gpu, "%s", bench->context->model);
    return vl_peak_flops(bench->context, bench->options->dtype, &result->peak_flops);
}

VlStatus vl_bench_train(const VlBenchTrainOptions *options, VlBenchTrainResult *result) {
    Bench bench = {.options = options};
    VlRoofline limits = {0};
    *result = (VlBenchTrainResult){0};
    if (options->steps < 1 || options->samples < 1)
        return vl_error(VL_USAGE, "at least one step and one sample are needed");
    if (options->frames < 0 || options->audio_rows < 0)
        return vl_error(VL_USAGE, "%lld frames and %lld rows of a filter bank: neither may be negative",
                        (long long)options->frames, (long long)options->audio_rows);
    if (options->profile) VL_TRY(measure_limits(options, &limits));
    VlStatus status = set_up(&bench);
    if (status == VL_OK) status = measure(&bench, result);
    if (status == VL_OK && options->profile) status = profile(&bench, &limits);
    vl_batch_free(&bench.batch);
    vl_free(bench.losses);
    vl_free(bench.seconds);
    vl_optimizer_free(&bench.optimizer);
    vl_vlm_free(bench.model);
    if (bench.context) vl_device_free(bench.context, bench.device_losses);
    vl_context_free(bench.context);
    return status;
}

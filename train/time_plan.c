#include "train/time_plan.h"

#include <inttypes.h>
#include <math.h>

#include "data/packed.h"
#include "train/micro_batch.h"

typedef struct Kind {
    double samples;               // of a pass, weighted
    double tokens, frames, rows;  // sums
} Kind;

// A video with its sound is a kind of its own.
enum { VIDEO_WITH_SOUND = VL_MODAL_AUDIO + 1, KINDS };

typedef struct Census {
    Kind kind[KINDS];
} Census;

static int64_t least(int64_t value, int64_t bound) { return value < bound ? value : bound; }

static VlStatus count_source(const VlConfigSource *source, Census *census, int64_t *epoch_samples) {
    VlPacked packed;
    VL_TRY(vl_packed_open(&packed, source->shards));
    for (int64_t i = 0; i < packed.samples; i++) {
        int64_t place;
        const VlShard *shard = vl_packed_find(&packed, i, &place);
        const VlShardRow *row = vl_shard_row(shard, place);
        int64_t rows = vl_shard_rows(shard, place);
        Kind *kind = &census->kind[row->modality == VL_MODAL_VIDEO && rows > 0 ? VIDEO_WITH_SOUND : row->modality];
        kind->samples += source->weight;
        kind->tokens += source->weight * row->tokens;
        kind->frames += source->weight * (double)vl_shard_frames(shard, place);
        kind->rows += source->weight * (double)rows;
    }
    *epoch_samples += llround((double)packed.samples * source->weight);
    vl_packed_close(&packed);
    return VL_OK;
}

static VlStatus count_sources(const VlConfig *config, Census *census, VlTimePlan *plan) {
    for (int64_t i = 0; i < config->data.sources; i++) {
        if (!vl_folder_holds(config->data.source[i].shards, VL_PACK_MANIFEST)) return VL_OK;
    }
    for (int64_t i = 0; i < config->data.sources; i++) {
        VL_TRY(count_source(&config->data.source[i], census, &plan->epoch_samples));
    }
    plan->packed = plan->epoch_samples > 0;
    return VL_OK;
}

// Adds the time of `share` of a sample: a part of a micro-batch of as many such samples as fit.
static VlStatus add_time(const VlModelConfig *model, const VlPlanOptions *options, VlSampleShape shape, int64_t tokens,
                         int64_t global_batch, double share, VlTimePlan *plan) {
    int64_t count = least(options->micro_tokens / tokens, global_batch);
    VlMemoryPlan memory;
    if (count < 1) count = 1;
    VL_TRY(vl_plan_samples(model, options, shape, count, &memory));
    for (int product = 0; product < VL_PRODUCTS; product++) {
        plan->sample_time.product_seconds[product] +=
            share / (double)count * memory.micro_time.product_seconds[product];
    }
    plan->sample_time.memory_seconds += share / (double)count * memory.micro_time.memory_seconds;
    plan->optimizer_seconds = memory.optimizer_seconds;
    return VL_OK;
}

// Adds the FLOPs and tokens of `share` of a sample.
static VlStatus add_kind(const VlModelConfig *model, const VlPlanOptions *options, int which, const Kind *kind,
                         int64_t global_batch, double share, VlTimePlan *plan) {
    VlSampleShape shape = {.modal = which == VIDEO_WITH_SOUND ? VL_MODAL_VIDEO : (VlModal)which,
                           .frames = llround(kind->frames / kind->samples),
                           .rows = llround(kind->rows / kind->samples)};
    int64_t media = vl_media_tokens(model, shape.modal, shape.frames, shape.rows), beside = media > 0 ? media - 1 : 0;
    VlPartFlops flops;
    shape.tokens = least(llround(kind->tokens / kind->samples), options->max_tokens - beside);
    if (shape.tokens < 2) shape.tokens = 2;
    VL_TRY(vl_plan_sample_flops(model, options, shape, &flops));
    for (int part = 0; part < VL_GROUP_COUNT; part++) {
        for (int pass = 0; pass < VL_PASSES; pass++) {
            plan->step_parts[part][pass] += share * (double)flops.of[part][pass];
        }
    }
    plan->sample_tokens += share * (double)(shape.tokens + beside);
    if (options->gpu) VL_TRY(add_time(model, options, shape, shape.tokens + beside, global_batch, share, plan));
    return VL_OK;
}

VlStatus vl_time_plan(const VlConfig *config, const VlModelConfig *model, const VlPlanOptions *options,
                      VlTimePlan *plan) {
    Census census = {0};
    double samples = 0;
    *plan = (VlTimePlan){.steps = config->train.steps};
    VL_TRY(count_sources(config, &census, plan));
    if (!plan->packed) {
        double frames = model->has_vision ? (double)options->frames : 0,
               rows = model->has_audio ? (double)options->rows : 0;
        int kind = frames > 0 ? (rows > 0 ? VIDEO_WITH_SOUND : VL_MODAL_VIDEO)
                   : rows > 0 ? VL_MODAL_AUDIO
                              : VL_MODAL_TEXT;
        census.kind[kind] = (Kind){1, (double)options->max_tokens, frames, rows};
    } else if (plan->steps == 0) {
        int64_t batch = config->train.global_batch;
        plan->steps = (plan->epoch_samples * config->train.epochs + batch - 1) / batch;
    }
    for (int i = 0; i < KINDS; i++) samples += census.kind[i].samples;
    for (int i = 0; i < KINDS; i++) {
        const Kind *kind = &census.kind[i];
        if (kind->samples > 0) {
            VL_TRY(add_kind(model, options, i, kind, config->train.global_batch, kind->samples / samples, plan));
        }
    }
    for (int part = 0; part < VL_GROUP_COUNT; part++) {
        for (int pass = 0; pass < VL_PASSES; pass++) {
            plan->step_parts[part][pass] *= (double)config->train.global_batch;
            plan->step_flops += plan->step_parts[part][pass];
        }
    }
    return VL_OK;
}

static const char *flops_unit(double *flops) {
    static const char *const units[] = {"GFLOP", "TFLOP", "PFLOP", "EFLOP"};
    int unit = 0;
    *flops /= 1e9;
    for (; unit < 3 && *flops >= 1000; unit++) *flops /= 1000;
    return units[unit];
}

static void print_duration(FILE *file, double seconds) {
    if (seconds < 600) {
        fprintf(file, "%.3g s", seconds);
    } else if (seconds < 2 * 3600) {
        fprintf(file, "%.0f min", seconds / 60);
    } else if (seconds < 48 * 3600) {
        fprintf(file, "%.1f h", seconds / 3600);
    } else {
        fprintf(file, "%.1f days", seconds / 86400);
    }
}

// The parts that compute anything, a line each; in the unit of the whole step.
static void print_parts(FILE *file, const VlTimePlan *plan) {
    double step = plan->step_flops;
    const char *unit = flops_unit(&step);
    double divisor = step > 0 ? plan->step_flops / step : 1;
    fprintf(file, "  %-18s %14s %16s %17s\n", unit, "forward", "input gradients", "weight gradients");
    for (int part = 0; part < VL_GROUP_COUNT; part++) {
        const double *of = plan->step_parts[part];
        if (of[VL_PASS_FORWARD] == 0) continue;
        fprintf(file, "  %-18s %14.4g %16.4g %17.4g\n", vl_group_name((VlGroup)part), of[VL_PASS_FORWARD] / divisor,
                of[VL_PASS_INPUTS] / divisor, of[VL_PASS_WEIGHTS] / divisor);
    }
}

void vl_time_plan_print(FILE *file, const VlTimePlan *plan, int64_t global_batch, int64_t ranks, double rate) {
    double step = plan->step_flops, run = plan->step_flops * (double)plan->steps;
    const char *step_unit = flops_unit(&step), *run_unit = flops_unit(&run);
    fprintf(file, "A step: %" PRId64 " samples of %.0f tokens (%s), %.4g %s\n", global_batch, plan->sample_tokens,
            plan->packed ? "the mean of the shards" : "the longest; the sources are not packed yet", step, step_unit);
    print_parts(file, plan);
    if (plan->steps > 0) {
        fprintf(file, "The run: %" PRId64 " steps, %.4g %s\n", plan->steps, run, run_unit);
    } else {
        fprintf(file, "The run: as many steps as the packed samples give; pack them, or set train.steps\n");
    }
    if (rate <= 0 && vl_roofline_seconds(&plan->sample_time) > 0) return;  // a GPU's table follows
    if (rate <= 0) {
        fprintf(file,
                "Time: give --tflops X, what one rank reaches (vl2 bench train on a model of this shape tells)\n");
        return;
    }
    double seconds = plan->step_flops / ((double)ranks * rate);
    fprintf(file, "Time at %.4g TFLOP/s per rank: ", rate / 1e12);
    print_duration(file, seconds);
    fprintf(file, " a step");
    if (plan->steps > 0) {
        fprintf(file, ", ");
        print_duration(file, seconds * (double)plan->steps);
        fprintf(file, " in all");
    }
    fprintf(file, "\n");
}

double vl_time_plan_gpu_seconds(const VlTimePlan *plan, int64_t global_batch, int64_t ranks) {
    return vl_roofline_seconds(&plan->sample_time) * (double)global_batch / (double)ranks + plan->optimizer_seconds;
}

static void print_seconds(FILE *file, const char *name, double limit, double expected) {
    if (limit > 0) fprintf(file, "  %-22s %14.4g %14.4g\n", name, limit, expected);
}

void vl_time_plan_print_gpu(FILE *file, const VlTimePlan *limits, const VlTimePlan *expected, const VlGpu *gpu,
                            VlDtype dtype, int64_t global_batch, int64_t ranks) {
    static const char *const names[VL_PRODUCTS] = {"linear",      "attention", "biased attention",
                                                   "convolution", "experts",   "head and loss"};
    double peak = dtype == VL_BF16 ? gpu->bf16 : gpu->f32, samples = (double)global_batch / (double)ranks;
    double least_seconds = vl_time_plan_gpu_seconds(limits, global_batch, ranks);
    double seconds = vl_time_plan_gpu_seconds(expected, global_batch, ranks);
    double flops = limits->step_flops / (double)ranks;
    fprintf(file,
            "A step on %" PRId64 " x %s (%.4g TFLOP/s in %s, %.3g TB/s), seconds of a rank without communication:\n",
            ranks, gpu->name, peak / 1e12, vl_dtype_name(dtype), gpu->bandwidth / 1e12);
    fprintf(file, "  %-22s %14s %14s\n", "", "at the limits", "expected");
    for (int product = 0; product < VL_PRODUCTS; product++) {
        print_seconds(file, names[product], samples * limits->sample_time.product_seconds[product],
                      samples * expected->sample_time.product_seconds[product]);
    }
    print_seconds(file, "memory-bound rows", samples * limits->sample_time.memory_seconds,
                  samples * expected->sample_time.memory_seconds);
    print_seconds(file, "optimizer", limits->optimizer_seconds, expected->optimizer_seconds);
    print_seconds(file, "step", least_seconds, seconds);
    print_seconds(file, "tokens/s of a rank", samples * limits->sample_tokens / least_seconds,
                  samples * expected->sample_tokens / seconds);
    print_seconds(file, "MFU, %", 100 * flops / least_seconds / peak, 100 * flops / seconds / peak);
    fprintf(file, "  (expected: %.0f %% of the peak in products, %.0f %% in attention, %.0f %% of the bandwidth)\n",
            100 * vl_gpu_expected.gemm, 100 * vl_gpu_expected.attention, 100 * vl_gpu_expected.bandwidth);
    if (limits->steps == 0) return;
    fprintf(file, "The run: ");
    print_duration(file, least_seconds * (double)limits->steps);
    fprintf(file, " at the limits, ");
    print_duration(file, seconds * (double)limits->steps);
    fprintf(file, " expected\n");
}

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

// Adds the FLOPs and tokens of `share` of a sample.
static VlStatus add_kind(const VlModelConfig *model, const VlPlanOptions *options, int which, const Kind *kind,
                         double share, VlTimePlan *plan) {
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
            VL_TRY(add_kind(model, options, i, kind, kind->samples / samples, plan));
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

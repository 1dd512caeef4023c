#include "train/time_plan.h"

#include <inttypes.h>
#include <math.h>

#include "data/packed.h"

typedef struct Kind {
    double samples;         // of a pass, weighted
    double tokens, frames;  // sums
} Kind;

typedef struct Census {
    Kind kind[VL_MODAL_AUDIO + 1];
} Census;

static int64_t least(int64_t value, int64_t bound) { return value < bound ? value : bound; }

static VlStatus count_source(const VlConfigSource *source, Census *census, int64_t *epoch_samples) {
    VlPacked packed;
    VL_TRY(vl_packed_open(&packed, source->shards));
    for (int64_t i = 0; i < packed.samples; i++) {
        int64_t place;
        const VlShard *shard = vl_packed_find(&packed, i, &place);
        const VlShardRow *row = vl_shard_row(shard, place);
        Kind *kind = &census->kind[row->modality];
        kind->samples += source->weight;
        kind->tokens += source->weight * row->tokens;
        kind->frames += source->weight * (double)vl_shard_frames(shard, place);
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

// Adds the FLOPs and tokens of `share` of a sample; a picture is shown in the place of every frame.
static VlStatus add_kind(const VlModelConfig *model, const VlPlanOptions *options, VlModal modal, const Kind *kind,
                         double share, VlTimePlan *plan) {
    int64_t frames = modal == VL_MODAL_TEXT    ? 0
                     : modal == VL_MODAL_IMAGE ? model->num_frames
                                               : llround(kind->frames / kind->samples);
    int64_t visual = frames > 0 ? vl_model_visual_tokens(model, frames) : 0, flops = 0;
    int64_t text = least(llround(kind->tokens / kind->samples), options->max_tokens - (visual ? visual - 1 : 0));
    if (text < 2) text = 2;
    VL_TRY(vl_plan_sample_flops(model, options, text, frames, &flops));
    plan->step_flops += share * (double)flops;
    plan->sample_tokens += share * (double)(text + (visual ? visual - 1 : 0));
    return VL_OK;
}

VlStatus vl_time_plan(const VlConfig *config, const VlModelConfig *model, const VlPlanOptions *options,
                      VlTimePlan *plan) {
    Census census = {0};
    double samples = 0;
    *plan = (VlTimePlan){.steps = config->train.steps};
    VL_TRY(count_sources(config, &census, plan));
    if (!plan->packed) {
        VlModal modal = model->has_vision ? VL_MODAL_VIDEO : VL_MODAL_TEXT;
        census.kind[modal] = (Kind){1, (double)options->max_tokens, (double)options->frames};
    } else if (plan->steps == 0) {
        int64_t batch = config->train.global_batch;
        plan->steps = (plan->epoch_samples * config->train.epochs + batch - 1) / batch;
    }
    for (int modal = 0; modal <= VL_MODAL_AUDIO; modal++) samples += census.kind[modal].samples;
    for (int modal = 0; modal <= VL_MODAL_AUDIO; modal++) {
        const Kind *kind = &census.kind[modal];
        if (kind->samples > 0) VL_TRY(add_kind(model, options, (VlModal)modal, kind, kind->samples / samples, plan));
    }
    plan->step_flops *= (double)config->train.global_batch;
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

void vl_time_plan_print(FILE *file, const VlTimePlan *plan, int64_t global_batch, int64_t ranks, double rate) {
    double step = plan->step_flops, run = plan->step_flops * (double)plan->steps;
    const char *step_unit = flops_unit(&step), *run_unit = flops_unit(&run);
    fprintf(file, "A step: %" PRId64 " samples of %.0f tokens (%s), %.4g %s\n", global_batch, plan->sample_tokens,
            plan->packed ? "the mean of the shards" : "the longest; the sources are not packed yet", step, step_unit);
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

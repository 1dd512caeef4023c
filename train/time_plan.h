// How long a run takes: its steps, the FLOPs of a step by the samples that are packed, and a rate.
#ifndef VL_TRAIN_TIME_PLAN_H
#define VL_TRAIN_TIME_PLAN_H

#include "train/config.h"
#include "train/memory_plan.h"

typedef struct VlTimePlan {
    bool packed;            // counted from the sources' shards; else every sample is taken for the longest
    int64_t epoch_samples;  // of one pass over the sources; 0: not packed yet
    int64_t steps;          // of the run; 0: cannot be told before the sources are packed
    double sample_tokens;   // mean, the media's tokens counted
    double step_flops;      // mean, forward and backward of the whole batch, over all ranks
    double step_parts[VL_GROUP_COUNT][VL_PASSES];  // their sum is step_flops
    // On options->gpu, where one is given: the mean sample's share of a micro-batch of such samples, and what a step
    // takes once, on every rank.
    VlRoofline sample_time;
    double optimizer_seconds;
} VlTimePlan;

// Reads the shards' tables where all sources are packed. A sample counts as one of its modality's mean length. Not
// collective. Errors: VL_IO, VL_FORMAT (damaged shards).
VlStatus vl_time_plan(const VlConfig *config, const VlModelConfig *model, const VlPlanOptions *options,
                      VlTimePlan *plan);
// Seconds of a step on one of `ranks` GPUs that share its samples, without communication.
double vl_time_plan_gpu_seconds(const VlTimePlan *plan, int64_t global_batch, int64_t ranks);
// A table of these seconds by what they are spent on: plans with the limits of the GPU, and with what is expected.
void vl_time_plan_print_gpu(FILE *file, const VlTimePlan *limits, const VlTimePlan *expected, const VlGpu *gpu,
                            VlDtype dtype, int64_t global_batch, int64_t ranks);
// The plan as lines. `rate`: FLOP/s that one rank reaches in training; 0: not given, no time is told.
void vl_time_plan_print(FILE *file, const VlTimePlan *plan, int64_t global_batch, int64_t ranks, double rate);

#endif

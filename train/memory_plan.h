// What a run takes: memory per rank and FLOPs per step, from the model's own code on the plan backend.
#ifndef VL_TRAIN_MEMORY_PLAN_H
#define VL_TRAIN_MEMORY_PLAN_H

#include <stdio.h>

#include "model/vlm.h"

typedef struct VlMemoryPlan {
    int64_t parameters, trainable_parameters;
    int64_t frozen_bytes, trainable_bytes, gradient_bytes, master_bytes, optimizer_bytes;
    int64_t activation_bytes, scratch_bytes;  // of the worst micro-batch
    int64_t host_bytes;                       // batches, prefetched samples, the program itself
    int64_t total_bytes;
    int64_t micro_flops;  // of that micro-batch, forward and backward
    int64_t micro_tokens;
} VlMemoryPlan;

typedef struct VlPlanOptions {
    VlGroups trainable;
    VlDtype dtype;
    int64_t micro_tokens;   // budget of a micro-batch
    int64_t max_tokens;     // longest sample, its visual tokens included; alone it may be over the budget
    int64_t frames;         // of a video
    int64_t threads;        // that will compute (0: as many as the process may use): scratch depends on them
    int64_t samples_ahead;  // that the loader holds ready, each taken for a video
    bool backward;
} VlPlanOptions;

// Plans the micro-batches that take the most: one of text alone, one of as many videos as fit. Not collective.
VlStatus vl_memory_plan(const VlModelConfig *config, const VlPlanOptions *options, VlMemoryPlan *plan);
// The same for one given batch (only its shape is read).
VlStatus vl_memory_plan_batch(const VlModelConfig *config, const VlPlanOptions *options, const VlBatch *batch,
                              VlMemoryPlan *plan);
// FLOPs, forward and backward, of one sample of `tokens` text tokens, all of them labelled, the id of its video or
// picture of `frames` frames counted as one (0 frames: text).
VlStatus vl_plan_sample_flops(const VlModelConfig *config, const VlPlanOptions *options, int64_t tokens, int64_t frames,
                              int64_t *flops);
void vl_memory_plan_print(FILE *file, const VlMemoryPlan *plan);

#endif

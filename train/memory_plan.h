// What a run takes: memory per rank and FLOPs per step, from the model's own code on the plan backend.
#ifndef VL_TRAIN_MEMORY_PLAN_H
#define VL_TRAIN_MEMORY_PLAN_H

#include <stdio.h>

#include "data/sample.h"
#include "model/vlm.h"
#include "train/gpu.h"

typedef struct VlMemoryPlan {
    VlDevice device;
    int64_t parameters, trainable_parameters;
    int64_t frozen_bytes, trainable_bytes, gradient_bytes, remainder_bytes, optimizer_bytes;
    int64_t activation_bytes, scratch_bytes;  // of the worst micro-batch
    int64_t host_bytes;                       // batches, prefetched samples, the program itself
    int64_t driver_bytes;                     // a GPU's driver and libraries
    int64_t device_bytes;                     // of all of these but the host's; on the CPU the host's memory, too
    int64_t total_bytes;
    int64_t micro_flops;       // of that micro-batch, forward and backward
    VlRoofline micro_time;     // the same in seconds, on options->gpu
    double optimizer_seconds;  // of gradients cleared, their norm and the update, there
    VlPartFlops micro_parts;
    int64_t micro_tokens;
} VlMemoryPlan;

typedef struct VlPlanOptions {
    VlGroups trainable;
    VlDtype dtype;
    int64_t micro_tokens;   // budget of a micro-batch
    int64_t max_tokens;     // longest sample, its visual tokens included; alone it may be over the budget
    int64_t frames;         // of a video
    int64_t rows;           // of a sound's filter bank; 0: the run has no sounds
    int64_t threads;        // that will compute (0: as many as the process may use): scratch depends on them
    int64_t samples_ahead;  // that the loader holds ready, each taken for a video with its sound
    bool backward;
    VlDevice device;
    const VlGpu *gpu;  // to tell times for; NULL: none
    VlGpuShares shares;
} VlPlanOptions;

// Plans the micro-batches that take the most: one of text alone, others of as many videos, sounds and videos with sound
// as fit; the numbers of the micro-batch are those of the last of these, of videos where the model sees. Not
// collective.
VlStatus vl_memory_plan(const VlModelConfig *config, const VlPlanOptions *options, VlMemoryPlan *plan);
// The same for one given batch (only its shape is read).
VlStatus vl_memory_plan_batch(const VlModelConfig *config, const VlPlanOptions *options, const VlBatch *batch,
                              VlMemoryPlan *plan);
// A sample of `tokens` text tokens, all of them labelled, the id of its medium counted as one.
typedef struct VlSampleShape {
    VlModal modal;
    int64_t tokens;
    int64_t frames, rows;  // of its medium: stored frames (of a picture 1), and rows of its sound's filter bank
} VlSampleShape;
// The plan of a micro-batch of `count` such samples.
VlStatus vl_plan_samples(const VlModelConfig *config, const VlPlanOptions *options, VlSampleShape shape, int64_t count,
                         VlMemoryPlan *plan);
// FLOPs, forward and backward, of one sample.
VlStatus vl_plan_sample_flops(const VlModelConfig *config, const VlPlanOptions *options, VlSampleShape shape,
                              VlPartFlops *flops);
void vl_memory_plan_print(FILE *file, const VlMemoryPlan *plan);

#endif

// Whole training steps on synthetic input, timed.
#ifndef VL_TRAIN_BENCH_TRAIN_H
#define VL_TRAIN_BENCH_TRAIN_H

#include "model/vlm.h"

typedef struct VlBenchTrainOptions {
    const char *model;  // model folder; weights in it are used, what it lacks is initialised
    VlGroups trainable;
    VlDtype dtype;
    int64_t frames;      // of the video in the first sample; 0: none
    int64_t audio_rows;  // of the filter bank of the first sample's sound; 0: none
    int64_t samples;
    const int64_t *text_tokens;  // [samples]; the first sample has one less beside its video or sound
    int64_t threads, steps;
    VlDevice device;
    VlProfile *profile;  // receives one more step's operations, the limits being measured ones; NULL: not wanted
} VlBenchTrainOptions;

enum { VL_BENCH_OPTIMIZER = VL_GROUP_COUNT };  // the profile's part beside those of the model's groups

typedef struct VlBenchTrainResult {
    int64_t tokens;  // of a step, text and modality
    double seconds_min, seconds_median;
    double forward, backward, optimizer;  // of the fastest step; on a GPU of a step of its own that waits in between
    int64_t peak_rss_bytes, planned_bytes;
    // On a GPU, where planned_bytes are those of its memory: what of it is taken at the end, vl_peak_flops, its name.
    int64_t device_bytes;
    double peak_flops;
    char gpu[128];
    double model_gflop;  // needed by a step
    int64_t threads;
} VlBenchTrainResult;

// One warm-up step, then the timed ones: forward, backward, clipping, AdamW, as in training. What the whole takes is
// held against the device's memory first. Errors: VL_USAGE, VL_OUT_OF_MEMORY, those of the model folder.
VlStatus vl_bench_train(const VlBenchTrainOptions *options, VlBenchTrainResult *result);

#endif

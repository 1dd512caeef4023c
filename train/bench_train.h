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
} VlBenchTrainOptions;

typedef struct VlBenchTrainResult {
    int64_t tokens;  // of a step, text and modality
    double seconds_min, seconds_median;
    double forward, backward, optimizer;  // of the fastest step
    int64_t peak_rss_bytes, planned_bytes;
    double model_gflop;  // needed by a step
    int64_t threads;
} VlBenchTrainResult;

// One warm-up step, then the timed ones: forward, backward, clipping, AdamW, as in training.
VlStatus vl_bench_train(const VlBenchTrainOptions *options, VlBenchTrainResult *result);

#endif

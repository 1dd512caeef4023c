// The data side, timed: decoding and preprocessing.
#ifndef VL_TRAIN_BENCH_DATA_H
#define VL_TRAIN_BENCH_DATA_H

#include "data/preprocess.h"

typedef struct VlBenchDataOptions {
    const char *video, *audio;  // one of them; the other is NULL
    int64_t frames, image_size, threads;
    VlAspect aspect;
    double seconds;
} VlBenchDataOptions;

typedef struct VlBenchDataResult {
    int64_t samples;
    double seconds;
} VlBenchDataResult;

// Each thread reads the video from its file to preprocessed frames, or the sound from its file to filter banks, until
// the time is over.
VlStatus vl_bench_data(const VlBenchDataOptions *options, VlBenchDataResult *result);

#endif

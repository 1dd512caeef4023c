// What a run says of itself: metrics.jsonl (one object per step), TensorBoard event files, and a line or bar on the
// terminal.
#ifndef VL_TRAIN_METRICS_H
#define VL_TRAIN_METRICS_H

#include <stdint.h>
#include <stdio.h>

#include "base/files.h"

typedef struct VlStepMetrics {
    int64_t step;  // from 1
    double loss, grad_norm, lr;
    int64_t tokens, label_tokens, samples;  // of all ranks
    double seconds, tokens_per_s, mfu, data_wait;
} VlStepMetrics;

typedef struct VlMetrics {
    FILE *lines;  // NULL on ranks other than 0: then every call does nothing
    FILE *events;
    int64_t last_step;
    double started;  // clock at the first step of this process
    int64_t done;    // steps of this process
    double mean_seconds;
} VlMetrics;

// Opens RUN/metrics.jsonl and RUN/tensorboard/. Lines of steps after `step` (of a run that was stopped after its last
// checkpoint) are dropped first, there and in heldout.jsonl and quarantine.jsonl, so that the files are those of a run
// that never stopped.
VlStatus vl_metrics_open(VlMetrics *metrics, const char *run, int64_t step, int64_t last_step);
VlStatus vl_metrics_step(VlMetrics *metrics, const VlStepMetrics *step);
// A value at a step outside of the per-step record (held-out loss, accuracy), to TensorBoard.
VlStatus vl_metrics_scalar(VlMetrics *metrics, int64_t step, const char *tag, double value);
void vl_metrics_close(VlMetrics *metrics);

#endif

// How long a sample can get in the model, by the configuration's rules.
#ifndef VL_TRAIN_SAMPLE_LENGTH_H
#define VL_TRAIN_SAMPLE_LENGTH_H

#include "model/config.h"
#include "train/config.h"

// Tokens of the longest sample, modality tokens counted: data.max_tokens, or, where data.truncate cuts the text alone,
// that and the tokens of a video with its sound. `model` has the run's num_frames.
int64_t vl_sample_longest(const VlConfig *config, const VlModelConfig *model);
// VL_USAGE naming data.max_tokens and the model's sliding_window when the longest sample is longer than the window.
VlStatus vl_sample_check_longest(const VlConfig *config, const VlModelConfig *model);

#endif

// A rank's samples of one step, cut into micro-batches that fit a token budget, and turned into what the model takes.
#ifndef VL_TRAIN_MICRO_BATCH_H
#define VL_TRAIN_MICRO_BATCH_H

#include "data/preprocess.h"
#include "data/sample.h"
#include "model/batch_build.h"

// Tokens in the place of a modality id: a picture is shown num_frames times, a video's sound stands behind its frames.
// What the model has no tower for gives none.
int64_t vl_media_tokens(const VlModelConfig *config, VlModal modal, int64_t frames, int64_t rows);
// The same as a VlMediaTokens; `user` is the VlModelConfig.
int64_t vl_media_tokens_of_user(void *user, VlModal modal, int64_t frames, int64_t rows);

// Tokens of a sample after its medium is spliced in. 0 for a bad sample.
int64_t vl_sample_expanded_tokens(const VlModelConfig *config, const VlSample *sample);

// The end of the micro-batch that begins at samples[begin]: as many samples as fit `budget` tokens, in order, at least
// one.
int64_t vl_micro_batch_end(const VlModelConfig *config, const VlSample *samples, int64_t count, int64_t begin,
                           int64_t budget);

// Builds the batch of `count` samples, bad ones left out, in place of what *batch holds (zeroed before the first call;
// vl_batch_free gives the memory back). The frames have the size that the model takes (vl_model_config_check_frames).
VlStatus vl_micro_batch_build(VlBatch *batch, const VlModelConfig *config, const VlPreprocessConfig *preprocess,
                              int64_t count, const VlSample *samples);

#endif

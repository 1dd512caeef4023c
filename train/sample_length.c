#include "train/sample_length.h"

#include <inttypes.h>
#include <string.h>

#include "data/audio.h"
#include "train/micro_batch.h"

int64_t vl_sample_longest(const VlConfig *config, const VlModelConfig *model) {
    int64_t rows = vl_audio_rows(config->data.sound_seconds), frames = model->num_frames;
    if (strcmp(config->data.truncate, "text") != 0) return config->data.max_tokens;
    return config->data.max_tokens + vl_media_tokens(model, VL_MODAL_VIDEO, frames, rows);
}

VlStatus vl_sample_check_longest(const VlConfig *config, const VlModelConfig *model) {
    int64_t longest = vl_sample_longest(config, model);
    if (vl_model_config_check_length(model, longest) == VL_OK) return VL_OK;
    return vl_error(VL_USAGE,
                    "data.max_tokens %" PRId64 " allows samples of %" PRId64
                    " tokens; the sliding_window of %s is %" PRId64
                    " and longer sequences are not part of this version: lower data.max_tokens",
                    config->data.max_tokens, longest, model->folder, model->decoder.window);
}

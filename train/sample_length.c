#include "train/sample_length.h"

#include <inttypes.h>
#include <string.h>

int64_t vl_sample_longest(const VlConfig *config, const VlModelConfig *model) {
    int64_t longest = config->data.max_tokens;
    bool text = strcmp(config->data.truncate, "text") == 0;
    return model->has_vision && text ? longest + vl_model_visual_tokens(model, model->num_frames) : longest;
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

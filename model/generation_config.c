#include "model/generation_config.h"

#include <string.h>

#include "model/config_vision.h"

// Keys of GenerationConfig that change which tokens come, with the values that leave them alone. Those of beam search
// (length_penalty, early_stopping, diversity_penalty) mean nothing without it.
static const VlConfigFixed fixed_keys[] = {
    {"num_beams", "1"},
    {"penalty_alpha", NULL},
    {"min_length", "0"},
    {"min_new_tokens", NULL},
    {"stop_strings", NULL},
    {"min_p", NULL},
    {"typical_p", "1.0"},
    {"epsilon_cutoff", "0.0"},
    {"eta_cutoff", "0.0"},
    {"encoder_repetition_penalty", "1.0"},
    {"no_repeat_ngram_size", "0"},
    {"encoder_no_repeat_ngram_size", "0"},
    {"bad_words_ids", NULL},
    {"force_words_ids", NULL},
    {"constraints", NULL},
    {"forced_bos_token_id", NULL},
    {"forced_eos_token_id", NULL},
    {"forced_decoder_ids", NULL},
    {"remove_invalid_values", "false"},
    {"exponential_decay_length_penalty", NULL},
    {"suppress_tokens", NULL},
    {"begin_suppress_tokens", NULL},
    {"sequence_bias", NULL},
    {"token_healing", "false"},
    {"guidance_scale", NULL},
    {"watermarking_config", NULL},
};

static VlStatus load_members(VlGenerationConfig *generation, const json_t *json, const char *path, int64_t vocabulary) {
    if (!json_is_object(json)) return vl_error(VL_FORMAT, "%s: not a JSON object", path);
    VL_TRY(vl_config_check_fixed(json, path, fixed_keys, (int64_t)(sizeof fixed_keys / sizeof *fixed_keys)));
    VL_TRY(vl_config_token_ids(json, path, "eos_token_id", vocabulary, generation->stop, &generation->stops));
    VL_TRY(vl_config_int(json, path, "top_k", false, 0, INT64_MAX, &generation->top_k));
    VL_TRY(vl_json_get_double(json, path, "repetition_penalty", false, &generation->repetition_penalty));
    if (!(generation->repetition_penalty > 0 && generation->repetition_penalty < 1e6)) {
        return vl_error(VL_INVALID, "%s: repetition_penalty is %g; possible is 0 < penalty < 1e6", path,
                        generation->repetition_penalty);
    }
    return VL_OK;
}

VlStatus vl_generation_config_load(VlGenerationConfig *generation, const VlModelConfig *config) {
    char path[VL_PATH_MAX];
    json_t *json;
    *generation = (VlGenerationConfig){.stops = config->stops, .repetition_penalty = 1};
    memcpy(generation->stop, config->stop, sizeof config->stop);
    VL_TRY(vl_path_join(path, config->folder, "generation_config.json"));
    if (!vl_path_exists(path)) VL_TRY(vl_path_join(path, config->folder, "config.json"));
    VL_TRY(vl_json_load(path, VL_CONFIG_LIMIT, &json));
    VlStatus status = load_members(generation, json, path, config->decoder.vocabulary);
    json_decref(json);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

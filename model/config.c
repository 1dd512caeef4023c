#include "model/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/config_audio.h"
#include "model/config_vision.h"
#include "model/connector.h"

enum { MOST_EXTENT = 1 << 24, MOST_LAYERS = 4096 };

// A config.json of Hugging Face holds many keys that have no bearing on the numbers (names, versions, training
// leftovers). So unknown keys are ignored, except those that begin with mm_ (a part of the model that this version does
// not know) and those listed here. An absent sliding_window means none, as in Mistral v0.2.
static const VlConfigFixed fixed_keys[] = {
    {"hidden_act", "\"silu\""},
    {"sliding_window", NULL},
    {"rope_scaling", NULL},
    {"rope_parameters", NULL},
    {"partial_rotary_factor", "1.0"},
    {"attention_bias", "false"},
    {"qkv_bias", "false"},
    {"mlp_bias", "false"},
    {"attention_dropout", "0.0"},
    {"hidden_dropout", "0.0"},
    {"embedding_dropout", "0.0"},
    {"quantization_config", NULL},
    {"layer_types", NULL},
    {"no_rope_layers", NULL},
    {"attention_chunk_size", NULL},
    {"attn_logit_softcapping", NULL},
    {"final_logit_softcapping", NULL},
    {"query_pre_attn_scalar", NULL},
    {"use_qk_norm", "false"},
    {"embedding_multiplier", "1.0"},
    {"residual_multiplier", "1.0"},
    {"attention_multiplier", NULL},
    {"logits_scaling", "1.0"},
    {"logit_scale", NULL},
    {"num_local_experts", NULL},
    {"num_experts", NULL},
    {"num_experts_per_tok", NULL},
    {"mm_use_im_start_end", "false"},
    {"mm_use_im_patch_token", "false"},
    {"mm_vision_select_feature", "\"patch\""},
};

// Keys mm_* that are read elsewhere, or that say how a model was trained. Those of the audio parts mean nothing without
// mm_audio_tower.
static const char *const known_mm_keys[] = {
    "mm_vision_tower",          "mm_hidden_size",      "mm_projector_type",   "mm_vision_select_layer",
    "mm_vision_select_feature", "mm_audio_tower",      "mm_use_im_start_end", "mm_use_im_patch_token",
    "mm_projector_lr",          "mm_projector_a_type", "mm_hidden_size_a",    "mm_audio_config",
    "mm_patch_merge_type",      "mm_vision_tower_lr",
};
enum { KNOWN_MM_KEYS = sizeof known_mm_keys / sizeof *known_mm_keys };

VlStatus vl_config_int(const json_t *json, const char *path, const char *key, bool required, int64_t low, int64_t high,
                       int64_t *out) {
    VL_TRY(vl_json_get_int(json, path, key, required, out));
    const json_t *member = json_object_get(json, key);
    if (member && !json_is_null(member) && (*out < low || *out > high)) {
        return vl_error(VL_INVALID, "%s: %s is %lld; possible are %lld to %lld", path, key, (long long)*out,
                        (long long)low, (long long)high);
    }
    return VL_OK;
}

static bool equals_text(const json_t *value, const char *text) {
    json_t *accepted = json_loads(text, JSON_DECODE_ANY, NULL);
    bool equal = json_is_number(value) && json_is_number(accepted)
                     ? json_number_value(value) == json_number_value(accepted)
                     : json_equal(value, accepted);
    json_decref(accepted);
    return equal;
}

VlStatus vl_config_check_fixed(const json_t *json, const char *path, const VlConfigFixed *fixed, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(json, fixed[i].key);
        if (!value || json_is_null(value)) continue;
        if (fixed[i].accepted && equals_text(value, fixed[i].accepted)) continue;
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        VlStatus status = vl_error(VL_UNSUPPORTED, "%s: %s is %.100s; this version knows only %s", path, fixed[i].key,
                                   text ? text : "?", fixed[i].accepted ? fixed[i].accepted : "null");
        free(text);
        return status;
    }
    return VL_OK;
}

static VlStatus check_mm_keys(json_t *json, const char *path) {
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        if (strncmp(key, "mm_", 3) != 0) continue;
        bool known = false;
        for (int i = 0; i < KNOWN_MM_KEYS; i++) known = known || strcmp(key, known_mm_keys[i]) == 0;
        if (known) continue;
        const char *nearest = vl_nearest_word(key, known_mm_keys, KNOWN_MM_KEYS);
        return vl_error(VL_UNSUPPORTED, "%s: the key %s is unknown to this version%s%s", path, key,
                        nearest ? "; nearest: " : "", nearest ? nearest : "");
    }
    return VL_OK;
}

static VlStatus load_model_type(VlModelConfig *config, const json_t *json, const char *path) {
    static const char *const known[] = {"videollama2_mistral", "mistral"};
    const char *type;
    VL_TRY(vl_json_get_string(json, path, "model_type", true, &type));
    if (strcmp(type, known[0]) != 0 && strcmp(type, known[1]) != 0) {
        return vl_error(VL_UNSUPPORTED, "%s: model_type is '%.60s'; this version knows %s and %s", path, type, known[0],
                        known[1]);
    }
    memcpy(config->model_type, type, strlen(type) + 1);
    return VL_OK;
}

static VlStatus load_token_id(const json_t *json, const char *path, const char *key, int64_t vocabulary, int64_t *id) {
    *id = -1;
    if (json_is_array(json_object_get(json, key))) {
        return vl_error(VL_UNSUPPORTED, "%s: %s is a list; this version knows a single id", path, key);
    }
    VL_TRY(vl_config_int(json, path, key, false, 0, vocabulary - 1, id));
    return VL_OK;
}

static VlStatus load_head_size(VlDecoderConfig *decoder, const json_t *json, const char *path) {
    decoder->head_size = 0;
    VL_TRY(vl_config_int(json, path, "head_dim", false, 2, MOST_EXTENT, &decoder->head_size));
    if (decoder->heads % decoder->kv_heads != 0) {
        return vl_error(VL_INVALID, "%s: num_attention_heads %lld is no multiple of num_key_value_heads %lld", path,
                        (long long)decoder->heads, (long long)decoder->kv_heads);
    }
    if (decoder->head_size == 0) {
        if (decoder->hidden % decoder->heads != 0) {
            return vl_error(VL_INVALID, "%s: hidden_size %lld is no multiple of num_attention_heads %lld", path,
                            (long long)decoder->hidden, (long long)decoder->heads);
        }
        decoder->head_size = decoder->hidden / decoder->heads;
    }
    if (decoder->head_size % 2 != 0) {
        return vl_error(VL_INVALID, "%s: heads of %lld elements cannot be rotated in pairs; the size must be even",
                        path, (long long)decoder->head_size);
    }
    return VL_OK;
}

static VlStatus load_decoder(VlDecoderConfig *decoder, const json_t *json, const char *path) {
    VL_TRY(vl_config_int(json, path, "hidden_size", true, 1, MOST_EXTENT, &decoder->hidden));
    VL_TRY(vl_config_int(json, path, "intermediate_size", true, 1, MOST_EXTENT, &decoder->intermediate));
    VL_TRY(vl_config_int(json, path, "num_hidden_layers", true, 1, MOST_LAYERS, &decoder->layers));
    VL_TRY(vl_config_int(json, path, "num_attention_heads", true, 1, MOST_EXTENT, &decoder->heads));
    VL_TRY(vl_config_int(json, path, "num_key_value_heads", true, 1, MOST_EXTENT, &decoder->kv_heads));
    VL_TRY(vl_config_int(json, path, "vocab_size", true, 1, MOST_EXTENT, &decoder->vocabulary));
    VL_TRY(load_head_size(decoder, json, path));
    double eps = 1e-6, range = 0.02;
    decoder->rope_theta = 10000;
    decoder->tied = false;
    VL_TRY(vl_json_get_double(json, path, "rms_norm_eps", false, &eps));
    VL_TRY(vl_json_get_double(json, path, "rope_theta", false, &decoder->rope_theta));
    VL_TRY(vl_json_get_double(json, path, "initializer_range", false, &range));
    VL_TRY(vl_json_get_bool(json, path, "tie_word_embeddings", false, &decoder->tied));
    if (!(eps > 0 && eps < 1))
        return vl_error(VL_INVALID, "%s: rms_norm_eps is %g; possible is 0 < eps < 1", path, eps);
    if (!(decoder->rope_theta > 1 && decoder->rope_theta < 1e15)) {
        return vl_error(VL_INVALID, "%s: rope_theta is %g; possible is 1 < theta < 1e15", path, decoder->rope_theta);
    }
    if (!(range >= 0 && range < 100)) {
        return vl_error(VL_INVALID, "%s: initializer_range is %g; possible is 0 <= range < 100", path, range);
    }
    decoder->eps = (float)eps;
    decoder->initializer_range = (float)range;
    return VL_OK;
}

static VlStatus load_members(VlModelConfig *config, json_t *json, const char *path) {
    if (!json_is_object(json)) return vl_error(VL_FORMAT, "%s: not a JSON object", path);
    VL_TRY(load_model_type(config, json, path));
    VL_TRY(vl_config_check_fixed(json, path, fixed_keys, (int64_t)(sizeof fixed_keys / sizeof *fixed_keys)));
    VL_TRY(check_mm_keys(json, path));
    VL_TRY(load_decoder(&config->decoder, json, path));
    VL_TRY(load_token_id(json, path, "bos_token_id", config->decoder.vocabulary, &config->bos));
    VL_TRY(load_token_id(json, path, "eos_token_id", config->decoder.vocabulary, &config->eos));
    config->num_frames = 8;
    VL_TRY(vl_config_int(json, path, "num_frames", false, 1, 1 << 20, &config->num_frames));
    VL_TRY(vl_config_vision_load(config, json, path));
    VL_TRY(vl_config_audio_load(config, json, path));
    return VL_OK;
}

VlStatus vl_model_config_load(VlModelConfig *config, const char *folder) {
    char path[VL_PATH_MAX];
    *config = (VlModelConfig){0};
    VL_TRY(vl_path_join(config->folder, "", folder));
    VL_TRY(vl_path_join(path, folder, "config.json"));
    json_t *json;
    VL_TRY(vl_json_load(path, VL_CONFIG_LIMIT, &json));
    VlStatus status = load_members(config, json, path);
    json_decref(json);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

static int64_t side(const VlModelConfig *config) { return config->vision.image_size / config->vision.patch_size; }

VlStatus vl_model_config_check_frames(const VlModelConfig *config, int64_t height, int64_t width) {
    int64_t side = config->vision.image_size;
    if (!config->has_vision || (height == side && width == side)) return VL_OK;
    return vl_error(VL_INVALID,
                    "the preprocessing of %s gives pictures of %lld x %lld, the vision tower's image_size is %lld: "
                    "preprocessor_config.json and config.json of the tower do not belong together",
                    config->folder, (long long)height, (long long)width, (long long)side);
}

int64_t vl_model_patches(const VlModelConfig *config) { return config->has_vision ? side(config) * side(config) : 0; }

int64_t vl_model_visual_tokens(const VlModelConfig *config, int64_t frames) {
    return config->has_vision ? vl_connector_tokens(&config->connector, frames, side(config)) : 0;
}

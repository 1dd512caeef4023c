#include "model/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/config_audio.h"
#include "model/config_vision.h"
#include "model/connector.h"

enum { MOST_EXTENT = 1 << 24, MOST_LAYERS = 4096, MOST_EXPERTS = 1024 };

// A language model's family: what its class fixes, and the values that its class gives to absent keys.
typedef struct Family {
    const char *const types[3];  // model_type
    bool qkv_bias, experts;
    double rms_norm_eps, rope_theta;
    bool always_window;  // sliding_window counts without use_sliding_window
    int64_t window;      // 0: none
    int64_t eos;         // -1: none
} Family;

static const Family families[] = {
    {.types = {"videollama2_mistral", "videollama2", "mistral"},
     .rms_norm_eps = 1e-6,
     .rope_theta = 1e4,
     .always_window = true,
     .window = 4096,
     .eos = 2},
    {.types = {"videollama2_mixtral", "mixtral"},
     .experts = true,
     .rms_norm_eps = 1e-5,
     .rope_theta = 1e6,
     .always_window = true,
     .eos = 2},
    {.types = {"videollama2_qwen2", "qwen2"},
     .qkv_bias = true,
     .rms_norm_eps = 1e-6,
     .rope_theta = 1e4,
     .window = 4096,
     .eos = -1},
};

// A config.json of Hugging Face holds many keys that have no bearing on the numbers (names, versions, training
// leftovers); docs/models.md lists them. So unknown keys are ignored, except those that begin with mm_ (a part of the
// model that this version does not know) and those listed here.
static const VlConfigFixed fixed_keys[] = {
    {"hidden_act", "\"silu\""},
    {"hidden_activation", "\"silu\""},
    {"partial_rotary_factor", "1.0"},
    {"rope_interleaved", "false"},
    {"attention_bias", "false"},
    {"mlp_bias", "false"},
    {"lm_head_bias", "false"},
    {"attention_dropout", "0.0"},
    {"hidden_dropout", "0.0"},
    {"resid_pdrop", "0.0"},
    {"embd_pdrop", "0.0"},
    {"embedding_dropout", "0.0"},
    {"pruned_heads", "{}"},
    {"quantization_config", NULL},
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
    {"num_experts", NULL},
    {"mm_use_im_start_end", "false"},
    {"mm_use_im_patch_token", "false"},
    {"mm_vision_select_feature", "\"patch\""},
};

static const VlConfigFixed dense_keys[] = {{"num_local_experts", NULL}, {"num_experts_per_tok", NULL}};
// Without a balance loss and without noise at the router, which are the class's defaults.
static const VlConfigFixed expert_keys[] = {{"output_router_logits", "false"}, {"router_jitter_noise", "0.0"}};

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

static VlStatus load_model_type(VlModelConfig *config, const Family **family, const json_t *json, const char *path) {
    enum { FAMILIES = sizeof families / sizeof *families, TYPES = sizeof families->types / sizeof *families->types };
    const char *type;
    VL_TRY(vl_json_get_string(json, path, "model_type", true, &type));
    for (int i = 0; i < FAMILIES; i++) {
        for (int k = 0; k < TYPES && families[i].types[k]; k++) {
            if (strcmp(type, families[i].types[k]) != 0) continue;
            *family = &families[i];
            memcpy(config->model_type, type, strlen(type) + 1);
            return VL_OK;
        }
    }
    return vl_error(VL_UNSUPPORTED,
                    "%s: model_type is '%.60s'; this version knows videollama2_mistral (videollama2, mistral), "
                    "videollama2_mixtral (mixtral) and videollama2_qwen2 (qwen2)",
                    path, type);
}

VlStatus vl_config_token_ids(const json_t *json, const char *path, const char *key, int64_t vocabulary, int64_t *stop,
                             int64_t *stops) {
    const json_t *member = json_object_get(json, key);
    bool list = json_is_array(member);
    int64_t count = list ? (int64_t)json_array_size(member) : 1;
    if (!member || json_is_null(member)) return VL_OK;
    if (count > VL_MOST_STOPS) {
        return vl_error(VL_UNSUPPORTED, "%s: %s lists %lld ids; at most %d are possible", path, key, (long long)count,
                        VL_MOST_STOPS);
    }
    for (int64_t i = 0; i < count; i++) {
        const json_t *id = list ? json_array_get(member, (size_t)i) : member;
        if (!json_is_integer(id)) return vl_error(VL_FORMAT, "%s: %s is neither an id nor a list of ids", path, key);
        stop[i] = json_integer_value(id);
        if (stop[i] < 0 || stop[i] >= vocabulary) {
            return vl_error(VL_INVALID, "%s: %s is %lld; possible are 0 to %lld", path, key, (long long)stop[i],
                            (long long)vocabulary - 1);
        }
    }
    *stops = count;
    return VL_OK;
}

// A window over which attention looks back. An absent key has the value of the family's class.
static VlStatus load_window(VlDecoderConfig *decoder, const Family *family, const json_t *json, const char *path) {
    int64_t window = family->window, first_full_layer = 28;
    bool used = family->always_window;
    const json_t *member = json_object_get(json, "sliding_window");
    VL_TRY(vl_config_int(json, path, "sliding_window", false, 1, INT64_MAX, &window));
    if (!family->always_window) {
        VL_TRY(vl_json_get_bool(json, path, "use_sliding_window", false, &used));
        VL_TRY(vl_config_int(json, path, "max_window_layers", false, 0, INT64_MAX, &first_full_layer));
        used = used && first_full_layer > 0;
    }
    decoder->window = used && !json_is_null(member) ? window : 0;
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

// rope_theta, and the object that newer files have in its place (rope_parameters) or beside it (rope_scaling): any
// scaling of the positions is refused.
static VlStatus load_rope(VlDecoderConfig *decoder, const Family *family, const json_t *json, const char *path) {
    static const char *const objects[] = {"rope_scaling", "rope_parameters"};
    decoder->rope_theta = family->rope_theta;
    VL_TRY(vl_json_get_double(json, path, "rope_theta", false, &decoder->rope_theta));
    for (int i = 0; i < 2; i++) {
        json_t *object = json_object_get(json, objects[i]), *value;
        const char *key;
        if (!object || json_is_null(object)) continue;
        bool known = json_is_object(object);
        json_object_foreach(object, key, value) {
            bool type = strcmp(key, "rope_type") == 0 || strcmp(key, "type") == 0;
            const char *text = json_string_value(value);
            known = known && (strcmp(key, "rope_theta") == 0 || (type && text && strcmp(text, "default") == 0));
        }
        if (!known) {
            return vl_error(VL_UNSUPPORTED,
                            "%s: %s scales positions or is no object; this version knows only null and "
                            "the type 'default' with a rope_theta",
                            path, objects[i]);
        }
        VL_TRY(vl_json_get_double(object, path, "rope_theta", false, &decoder->rope_theta));
    }
    if (decoder->rope_theta > 1 && decoder->rope_theta < 1e15) return VL_OK;
    return vl_error(VL_INVALID, "%s: rope_theta is %g; possible is 1 < theta < 1e15", path, decoder->rope_theta);
}

// Newer files list what each layer attends to.
static VlStatus check_layer_types(const json_t *json, const char *path) {
    const json_t *list = json_object_get(json, "layer_types");
    if (!list || json_is_null(list)) return VL_OK;
    bool full = json_is_array(list);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *type = json_string_value(json_array_get(list, i));
        full = full && type && strcmp(type, "full_attention") == 0;
    }
    if (full) return VL_OK;
    return vl_error(VL_UNSUPPORTED,
                    "%s: layer_types holds another type than full_attention, which is all that this version "
                    "knows",
                    path);
}

static VlStatus load_experts(VlDecoderConfig *decoder, const Family *family, const json_t *json, const char *path) {
    decoder->experts = decoder->experts_per_token = 0;
    if (!family->experts) return vl_config_check_fixed(json, path, dense_keys, 2);
    VL_TRY(vl_config_check_fixed(json, path, expert_keys, 2));
    decoder->experts = 8;
    decoder->experts_per_token = 2;
    VL_TRY(vl_config_int(json, path, "num_local_experts", false, 1, MOST_EXPERTS, &decoder->experts));
    VL_TRY(vl_config_int(json, path, "num_experts_per_tok", false, 1, decoder->experts, &decoder->experts_per_token));
    if (decoder->experts_per_token <= decoder->experts) return VL_OK;
    return vl_error(VL_INVALID, "%s: num_experts_per_tok is %lld where it is absent, num_local_experts %lld", path,
                    (long long)decoder->experts_per_token, (long long)decoder->experts);
}

static VlStatus load_decoder(VlDecoderConfig *decoder, const Family *family, const json_t *json, const char *path) {
    VL_TRY(vl_config_int(json, path, "hidden_size", true, 1, MOST_EXTENT, &decoder->hidden));
    VL_TRY(vl_config_int(json, path, "intermediate_size", true, 1, MOST_EXTENT, &decoder->intermediate));
    VL_TRY(vl_config_int(json, path, "num_hidden_layers", true, 1, MOST_LAYERS, &decoder->layers));
    VL_TRY(vl_config_int(json, path, "num_attention_heads", true, 1, MOST_EXTENT, &decoder->heads));
    decoder->kv_heads = decoder->heads;  // what null stands for
    VL_TRY(vl_config_int(json, path, "num_key_value_heads", json_object_get(json, "num_key_value_heads") == NULL, 1,
                         MOST_EXTENT, &decoder->kv_heads));
    VL_TRY(vl_config_int(json, path, "vocab_size", true, 1, MOST_EXTENT, &decoder->vocabulary));
    VL_TRY(load_head_size(decoder, json, path));
    VL_TRY(load_window(decoder, family, json, path));
    VL_TRY(load_experts(decoder, family, json, path));
    double eps = family->rms_norm_eps, range = 0.02;
    decoder->qkv_bias = family->qkv_bias;
    decoder->tied = false;
    VL_TRY(vl_json_get_double(json, path, "rms_norm_eps", false, &eps));
    VL_TRY(load_rope(decoder, family, json, path));
    VL_TRY(check_layer_types(json, path));
    VL_TRY(vl_json_get_double(json, path, "initializer_range", false, &range));
    VL_TRY(vl_json_get_bool(json, path, "tie_word_embeddings", false, &decoder->tied));
    bool qkv_bias = decoder->qkv_bias;
    VL_TRY(vl_json_get_bool(json, path, "qkv_bias", false, &qkv_bias));
    if (qkv_bias != decoder->qkv_bias) {
        return vl_error(VL_UNSUPPORTED, "%s: qkv_bias is %s; this model_type knows only %s", path,
                        qkv_bias ? "true" : "false", decoder->qkv_bias ? "true" : "false");
    }
    if (!(eps > 0 && eps < 1))
        return vl_error(VL_INVALID, "%s: rms_norm_eps is %g; possible is 0 < eps < 1", path, eps);
    if (!(range >= 0 && range < 100)) {
        return vl_error(VL_INVALID, "%s: initializer_range is %g; possible is 0 <= range < 100", path, range);
    }
    decoder->eps = (float)eps;
    decoder->initializer_range = (float)range;
    return VL_OK;
}

static VlStatus load_stops(VlModelConfig *config, const Family *family, const json_t *json, const char *path) {
    int64_t vocabulary = config->decoder.vocabulary;
    bool absent = json_object_get(json, "eos_token_id") == NULL;
    if (absent && family->eos >= 0 && family->eos < vocabulary) config->stop[config->stops++] = family->eos;
    return vl_config_token_ids(json, path, "eos_token_id", vocabulary, config->stop, &config->stops);
}

static VlStatus load_members(VlModelConfig *config, json_t *json, const char *path) {
    if (!json_is_object(json)) return vl_error(VL_FORMAT, "%s: not a JSON object", path);
    const Family *family = NULL;
    VL_TRY(load_model_type(config, &family, json, path));
    VL_TRY(vl_config_check_fixed(json, path, fixed_keys, (int64_t)(sizeof fixed_keys / sizeof *fixed_keys)));
    VL_TRY(check_mm_keys(json, path));
    VL_TRY(load_decoder(&config->decoder, family, json, path));
    VL_TRY(load_stops(config, family, json, path));
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

VlStatus vl_model_config_check_length(const VlModelConfig *config, int64_t tokens) {
    int64_t window = config->decoder.window;
    if (window == 0 || tokens <= window) return VL_OK;
    return vl_error(VL_UNSUPPORTED,
                    "a sequence of %lld tokens is longer than %s's sliding_window %lld%s: attention over a window is "
                    "not part of this version; shorten the sequence",
                    (long long)tokens, *config->folder ? config->folder : "the model", (long long)window,
                    window == 4096 ? " (4096 where config.json of Mistral names none; write null for no window)" : "");
}

int64_t vl_model_patches(const VlModelConfig *config) { return config->has_vision ? side(config) * side(config) : 0; }

int64_t vl_model_visual_tokens(const VlModelConfig *config, int64_t frames) {
    return config->has_vision ? vl_connector_tokens(&config->connector, frames, side(config)) : 0;
}

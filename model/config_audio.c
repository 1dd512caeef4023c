#include "model/config_audio.h"

#include <string.h>

#include "model/audio_file.h"
#include "model/config_vision.h"

enum { MOST_EXTENT = 1 << 20, MOST_LAYERS = 4096 };

static const VlAudioConfig beats_defaults = {.embedding = 512,
                                             .hidden = 768,
                                             .intermediate = 3072,
                                             .layers = 12,
                                             .heads = 12,
                                             .patch_size = 16,
                                             .conv_taps = 128,
                                             .conv_groups = 16,
                                             .buckets = 320,
                                             .max_distance = 800,
                                             .predictor_classes = 527,
                                             .gradient_decay = 0.6F,
                                             .layer_drop = 0.05F};

// Switches of BEATs that this version knows in one position only.
static const VlConfigFixed fixed_keys[] = {
    {"deep_norm", "true"},
    {"gru_rel_pos", "true"},
    {"conv_bias", "false"},
    {"activation_fn", "\"gelu\""},
    {"layer_norm_first", "false"},
    {"relative_position_embedding", "true"},
    {"dropout", "0.0"},
    {"attention_dropout", "0.0"},
    {"activation_dropout", "0.0"},
    {"dropout_input", "0.0"},
    {"predictor_dropout", "0.0"},
};
enum { FIXED_KEYS = sizeof fixed_keys / sizeof *fixed_keys };

static const char *const read_keys[] = {
    "input_patch_size",
    "embed_dim",
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "conv_pos",
    "conv_pos_groups",
    "num_buckets",
    "max_distance",
    "layer_wise_gradient_decay_ratio",
    "encoder_layerdrop",
    "finetuned_model",
    "predictor_class",
    "hidden_size",
};
enum { READ_KEYS = sizeof read_keys / sizeof *read_keys };

static VlStatus check_keys(json_t *json, const char *path) {
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        bool known = false;
        for (int i = 0; i < READ_KEYS; i++) known = known || strcmp(key, read_keys[i]) == 0;
        for (int i = 0; i < FIXED_KEYS; i++) known = known || strcmp(key, fixed_keys[i].key) == 0;
        if (known) continue;
        const char *nearest = vl_nearest_word(key, read_keys, READ_KEYS);
        return vl_error(VL_UNSUPPORTED, "%s: mm_audio_config: the key %s is unknown to this version%s%s", path, key,
                        nearest ? "; nearest: " : "", nearest ? nearest : "");
    }
    return vl_config_check_fixed(json, path, fixed_keys, FIXED_KEYS);
}

static VlStatus check_numbers(const VlAudioConfig *audio, const char *path) {
    if (audio->hidden % audio->heads != 0 || audio->hidden % audio->conv_groups != 0) {
        return vl_error(
            VL_INVALID,
            "%s: mm_audio_config: encoder_embed_dim %lld is no multiple of encoder_attention_heads %lld and "
            "conv_pos_groups %lld",
            path, (long long)audio->hidden, (long long)audio->heads, (long long)audio->conv_groups);
    }
    if (audio->buckets % 4 != 0 || audio->max_distance <= audio->buckets / 4) {
        return vl_error(
            VL_INVALID,
            "%s: mm_audio_config: num_buckets %lld must be a multiple of 4, max_distance %lld above a quarter "
            "of it",
            path, (long long)audio->buckets, (long long)audio->max_distance);
    }
    if (!(audio->gradient_decay > 0 && audio->gradient_decay <= 1 && audio->layer_drop >= 0 && audio->layer_drop < 1)) {
        return vl_error(
            VL_INVALID,
            "%s: mm_audio_config: layer_wise_gradient_decay_ratio %g must be in (0, 1], encoder_layerdrop %g "
            "in [0, 1)",
            path, (double)audio->gradient_decay, (double)audio->layer_drop);
    }
    return VL_OK;
}

static VlStatus load_tower(VlAudioConfig *audio, json_t *json, const char *path) {
    double decay = (double)audio->gradient_decay, drop = (double)audio->layer_drop;
    bool finetuned = true;
    VL_TRY(check_keys(json, path));
    VL_TRY(vl_config_int(json, path, "input_patch_size", false, 1, 128, &audio->patch_size));
    VL_TRY(vl_config_int(json, path, "embed_dim", false, 1, MOST_EXTENT, &audio->embedding));
    VL_TRY(vl_config_int(json, path, "encoder_layers", false, 1, MOST_LAYERS, &audio->layers));
    VL_TRY(vl_config_int(json, path, "encoder_embed_dim", false, 1, MOST_EXTENT, &audio->hidden));
    VL_TRY(vl_config_int(json, path, "encoder_ffn_embed_dim", false, 1, MOST_EXTENT, &audio->intermediate));
    VL_TRY(vl_config_int(json, path, "encoder_attention_heads", false, 1, MOST_EXTENT, &audio->heads));
    VL_TRY(vl_config_int(json, path, "conv_pos", false, 1, 1 << 16, &audio->conv_taps));
    VL_TRY(vl_config_int(json, path, "conv_pos_groups", false, 1, MOST_EXTENT, &audio->conv_groups));
    VL_TRY(vl_config_int(json, path, "num_buckets", false, 4, MOST_EXTENT, &audio->buckets));
    VL_TRY(vl_config_int(json, path, "max_distance", false, 1, MOST_EXTENT, &audio->max_distance));
    VL_TRY(vl_json_get_double(json, path, "layer_wise_gradient_decay_ratio", false, &decay));
    VL_TRY(vl_json_get_double(json, path, "encoder_layerdrop", false, &drop));
    VL_TRY(vl_json_get_bool(json, path, "finetuned_model", false, &finetuned));
    VL_TRY(vl_config_int(json, path, "predictor_class", false, 1, MOST_EXTENT, &audio->predictor_classes));
    if (!finetuned) audio->predictor_classes = 0;
    audio->gradient_decay = (float)decay;
    audio->layer_drop = (float)drop;
    return check_numbers(audio, path);
}

// `own` may be NULL. Its hidden_size is what the reference takes for hidden_size_a.
static VlStatus load_projector(VlModelConfig *config, const json_t *json, const json_t *own, const char *path) {
    const char *type = "mlp2x_gelu";
    int64_t input = config->audio.hidden, output = config->decoder.hidden;
    if (own) VL_TRY(vl_config_int(own, path, "hidden_size", false, 1, 1 << 24, &output));
    VL_TRY(vl_json_get_string(json, path, "mm_projector_a_type", false, &type));
    if (strcmp(type, "mlp2x_gelu") != 0) {
        return vl_error(VL_UNSUPPORTED, "%s: mm_projector_a_type is '%.60s'; this version knows mlp2x_gelu", path,
                        type);
    }
    VL_TRY(vl_config_int(json, path, "mm_hidden_size_a", false, 1, MOST_EXTENT, &input));
    VL_TRY(vl_config_int(json, path, "hidden_size_a", false, 1, 1 << 24, &output));
    if (input != config->audio.hidden || output != config->decoder.hidden) {
        return vl_error(VL_INVALID,
                        "%s: mm_hidden_size_a %lld and hidden_size_a %lld must be the audio tower's width %lld and the "
                        "language model's %lld",
                        path, (long long)input, (long long)output, (long long)config->audio.hidden,
                        (long long)config->decoder.hidden);
    }
    return VL_OK;
}

static VlStatus load_parts(VlModelConfig *config, const json_t *json, json_t *own, const char *path) {
    if (own && !json_is_object(own)) return vl_error(VL_FORMAT, "%s: mm_audio_config is not an object", path);
    if (own) VL_TRY(load_tower(&config->audio, own, path));
    return load_projector(config, json, own, path);
}

VlStatus vl_config_audio_load(VlModelConfig *config, const json_t *json, const char *path) {
    const json_t *tower = json_object_get(json, "mm_audio_tower");
    config->has_audio = tower && !json_is_null(tower);
    if (!config->has_audio) return VL_OK;
    json_t *own = json_object_get(json, "mm_audio_config"), *stored = NULL;
    config->audio = beats_defaults;
    if (json_is_string(tower)) VL_TRY(vl_audio_file_find(config->audio_file, config->folder, json_string_value(tower)));
    if (own && !json_is_null(own)) return load_parts(config, json, own, path);
    if (config->audio_file[0]) VL_TRY(vl_audio_file_config(config->audio_file, &stored));
    VlStatus status = load_parts(config, json, stored, stored ? config->audio_file : path);
    json_decref(stored);
    return status;
}

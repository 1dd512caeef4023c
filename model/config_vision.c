#include "model/config_vision.h"

#include <stdio.h>
#include <string.h>

#include "base/vision_tower.h"
#include "model/connector.h"

enum { MOST_EXTENT = 1 << 20, MOST_LAYERS = 4096 };

static const VlVisionConfig clip_defaults = {.hidden = 768,
                                             .intermediate = 3072,
                                             .layers = 12,
                                             .heads = 12,
                                             .image_size = 224,
                                             .patch_size = 32,
                                             .class_token = true,
                                             .pre_norm = true,
                                             .activation = VL_QUICK_GELU,
                                             .eps = 1e-5F};
static const VlVisionConfig siglip_defaults = {.hidden = 768,
                                               .intermediate = 3072,
                                               .layers = 12,
                                               .heads = 12,
                                               .image_size = 224,
                                               .patch_size = 16,
                                               .patch_bias = true,
                                               .activation = VL_GELU_TANH,
                                               .eps = 1e-6F};

static const VlConfigFixed fixed_keys[] = {
    {"num_channels", "3"},  {"attention_dropout", "0.0"},  {"dropout", "0.0"},
    {"pruned_heads", "{}"}, {"quantization_config", NULL},
};

static VlStatus load_activation(VlActivation *activation, const json_t *json, const char *path) {
    static const char *const names[] = {"quick_gelu", "gelu", "gelu_pytorch_tanh"};
    static const VlActivation kinds[] = {VL_QUICK_GELU, VL_GELU_ERF, VL_GELU_TANH};
    const char *name = NULL;
    VL_TRY(vl_json_get_string(json, path, "hidden_act", false, &name));
    if (!name) return VL_OK;
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) {
            *activation = kinds[i];
            return VL_OK;
        }
    }
    return vl_error(VL_UNSUPPORTED,
                    "%s: hidden_act is '%.60s'; this version knows quick_gelu, gelu and gelu_pytorch_tanh", path, name);
}

static VlStatus check_tower(const VlVisionConfig *vision, const char *path) {
    if (vision->hidden % vision->heads != 0) {
        return vl_error(VL_INVALID, "%s: hidden_size %lld is no multiple of num_attention_heads %lld", path,
                        (long long)vision->hidden, (long long)vision->heads);
    }
    if (vision->patch_size > vision->image_size) {
        return vl_error(VL_INVALID, "%s: patch_size %lld is larger than image_size %lld", path,
                        (long long)vision->patch_size, (long long)vision->image_size);
    }
    return VL_OK;
}

static VlStatus set_defaults(VlVisionConfig *vision, const char *type, const char *path) {
    if (strcmp(type, "clip_vision_model") == 0) {
        *vision = clip_defaults;
    } else if (strcmp(type, "siglip_vision_model") == 0) {
        *vision = siglip_defaults;
    } else {
        return vl_error(VL_UNSUPPORTED,
                        "%s: model_type is '%.60s'; this version knows clip_vision_model and siglip_vision_model", path,
                        type);
    }
    return VL_OK;
}

// A CLIPVisionConfig or SiglipVisionConfig; keys that are absent have the values of those classes. `type` is for an
// object without a model_type of its own, as the vision_config of a whole CLIP may be; NULL: it must have one.
static VlStatus load_tower_object(VlVisionConfig *vision, const json_t *json, const char *type, const char *path) {
    VL_TRY(vl_json_get_string(json, path, "model_type", type == NULL, &type));
    VL_TRY(set_defaults(vision, type, path));
    VL_TRY(vl_config_check_fixed(json, path, fixed_keys, (int64_t)(sizeof fixed_keys / sizeof *fixed_keys)));
    VL_TRY(vl_config_int(json, path, "hidden_size", false, 1, MOST_EXTENT, &vision->hidden));
    VL_TRY(vl_config_int(json, path, "intermediate_size", false, 1, MOST_EXTENT, &vision->intermediate));
    VL_TRY(vl_config_int(json, path, "num_hidden_layers", false, 1, MOST_LAYERS, &vision->layers));
    VL_TRY(vl_config_int(json, path, "num_attention_heads", false, 1, MOST_EXTENT, &vision->heads));
    VL_TRY(vl_config_int(json, path, "image_size", false, 1, 1 << 14, &vision->image_size));
    VL_TRY(vl_config_int(json, path, "patch_size", false, 1, 1 << 14, &vision->patch_size));
    VL_TRY(load_activation(&vision->activation, json, path));
    double eps = vision->eps;
    VL_TRY(vl_json_get_double(json, path, "layer_norm_eps", false, &eps));
    if (!(eps > 0 && eps < 1))
        return vl_error(VL_INVALID, "%s: layer_norm_eps is %g; possible is 0 < eps < 1", path, eps);
    vision->eps = (float)eps;
    VL_TRY(check_tower(vision, path));
    return VL_OK;
}

// The tower's own config.json, or that of a whole CLIP or SigLIP with the tower's numbers inside `vision_config`.
static VlStatus load_tower_document(VlVisionConfig *vision, const json_t *json, const char *path) {
    const json_t *inner = json_object_get(json, "vision_config");
    const char *whole = NULL, *type = NULL;
    char name[VL_PATH_MAX + 32];
    if (!json_is_object(json)) return vl_error(VL_FORMAT, "%s: not a JSON object", path);
    if (!inner) return load_tower_object(vision, json, NULL, path);
    snprintf(name, sizeof name, "%s, vision_config", path);
    if (!json_is_object(inner)) return vl_error(VL_FORMAT, "%s: not a JSON object", name);
    VL_TRY(vl_json_get_string(json, path, "model_type", false, &whole));
    if (whole && strcmp(whole, "clip") == 0) type = "clip_vision_model";
    if (whole && strcmp(whole, "siglip") == 0) type = "siglip_vision_model";
    return load_tower_object(vision, inner, type, name);
}

VlStatus vl_vision_config_load(VlVisionConfig *vision, const char *path) {
    json_t *json;
    VL_TRY(vl_json_load(path, VL_CONFIG_LIMIT, &json));
    VlStatus status = load_tower_document(vision, json, path);
    json_decref(json);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

static VlStatus load_tower(VlModelConfig *config, const char *tower, const char *path) {
    VlTowerPlace place;
    VlVisionConfig *vision = &config->vision;
    char file[VL_PATH_MAX];
    VL_TRY(vl_tower_find(&place, config->folder, path, tower));
    if (!place.hub) {
        memcpy(config->vision_folder, place.folder, sizeof place.folder);
        VL_TRY(vl_path_join(file, place.folder, "config.json"));
        return vl_vision_config_load(vision, file);
    }
    VL_TRY(set_defaults(vision, place.hub->model_type, path));
    vision->hidden = place.hub->hidden;
    vision->intermediate = place.hub->intermediate;
    vision->layers = place.hub->layers;
    vision->heads = place.hub->heads;
    vision->image_size = place.hub->image_size;
    vision->patch_size = place.hub->patch_size;
    return VL_OK;
}

// hidden_states[layer] counts from the embeddings: layer 0; from the end: -1 is the output of the last block.
static VlStatus load_select_layer(VlVisionConfig *vision, const json_t *json, const char *path) {
    int64_t layer = -2;
    VL_TRY(vl_json_get_int(json, path, "mm_vision_select_layer", false, &layer));
    if (layer < -vision->layers || layer > vision->layers || layer == 0) {
        return vl_error(
            VL_INVALID, "%s: mm_vision_select_layer is %lld; possible with %lld layers are %lld to -1 and 1 to %lld",
            path, (long long)layer, (long long)vision->layers, (long long)-vision->layers, (long long)vision->layers);
    }
    vision->run_layers = layer > 0 ? layer : vision->layers + 1 + layer;
    return VL_OK;
}

static VlStatus load_connector_kind(VlConnectorConfig *connector, const json_t *json, const char *path) {
    static const struct {
        const char *name;
        VlConnectorConfig config;
    } kinds[] = {
        {"linear", {.kind = VL_CONNECTOR_MLP, .depth = 1}},
        {"mlp2x_gelu", {.kind = VL_CONNECTOR_MLP, .depth = 2}},
        {"stc_connector", {.kind = VL_CONNECTOR_STC, .depth = 4, .kt = 2, .kh = 2, .kw = 2, .padding = 1}},
        {"stc_connector_v35", {.kind = VL_CONNECTOR_STC, .depth = 4, .kt = 2, .kh = 2, .kw = 2}},
        {"stp_connector", {.kind = VL_CONNECTOR_STP, .depth = 4, .kt = 2, .kh = 2, .kw = 2}},
        {"spatial_conv", {.kind = VL_CONNECTOR_SPATIAL_CONV, .kt = 1, .kh = 2, .kw = 2, .padding = 1}},
        {"spatial_pool", {.kind = VL_CONNECTOR_SPATIAL_POOL, .kt = 1, .kh = 2, .kw = 2}},
    };
    enum { KINDS = sizeof kinds / sizeof *kinds };
    const char *type = "linear", *names[KINDS];
    VL_TRY(vl_json_get_string(json, path, "mm_projector_type", false, &type));
    for (int i = 0; i < KINDS; i++) {
        names[i] = kinds[i].name;
        if (strcmp(type, names[i]) == 0) {
            *connector = kinds[i].config;
            return VL_OK;
        }
    }
    const char *nearest = vl_nearest_word(type, names, KINDS);
    return vl_error(
        VL_UNSUPPORTED,
        "%s: mm_projector_type is '%.60s'; possible are linear, mlp2x_gelu, stc_connector, stc_connector_v35, "
        "stp_connector, spatial_conv and spatial_pool%s%s",
        path, type, nearest ? "; nearest: " : "", nearest ? nearest : "");
}

static VlStatus load_connector(VlModelConfig *config, const json_t *json, const char *path) {
    VlConnectorConfig *connector = &config->connector;
    VL_TRY(load_connector_kind(connector, json, path));
    VL_TRY(vl_config_int(json, path, "mm_hidden_size", true, 1, MOST_EXTENT, &connector->input));
    connector->output = config->decoder.hidden;
    if (connector->input != config->vision.hidden) {
        return vl_error(VL_INVALID,
                        "%s: mm_hidden_size is %lld, the vision tower's hidden_size %lld; they must be equal", path,
                        (long long)connector->input, (long long)config->vision.hidden);
    }
    bool mapped = connector->kind == VL_CONNECTOR_MLP || connector->depth > 0;
    if (!mapped && connector->input != connector->output) {
        return vl_error(
            VL_INVALID,
            "%s: mm_hidden_size %lld and hidden_size %lld differ, and a spatial connector has nothing that maps "
            "one to the other; take stc_connector or stp_connector",
            path, (long long)connector->input, (long long)connector->output);
    }
    if (vl_model_visual_tokens(config, config->num_frames) == 0) {
        int64_t side = config->vision.image_size / config->vision.patch_size;
        return vl_error(VL_INVALID, "%s: num_frames %lld of %lldx%lld patches give no token after the connector", path,
                        (long long)config->num_frames, (long long)side, (long long)side);
    }
    return VL_OK;
}

VlStatus vl_config_vision_load(VlModelConfig *config, const json_t *json, const char *path) {
    const char *tower = NULL;
    bool use_connector = true;
    VL_TRY(vl_json_get_string(json, path, "mm_vision_tower", false, &tower));
    config->has_vision = tower && *tower;
    if (!config->has_vision) return VL_OK;
    VL_TRY(vl_json_get_bool(json, path, "use_mm_proj", false, &use_connector));
    if (!use_connector) {
        return vl_error(VL_UNSUPPORTED, "%s: use_mm_proj is false; a vision tower without its connector has no use",
                        path);
    }
    VL_TRY(load_tower(config, tower, path));
    VL_TRY(load_select_layer(&config->vision, json, path));
    VL_TRY(load_connector(config, json, path));
    return VL_OK;
}

// A model folder or checkpoint as a source, and upon it the checkpoints of a run's stages.
#include <string.h>

#include "base/memory.h"
#include "base/vision_tower.h"
#include "model/audio_file.h"
#include "model/vlm.h"
#include "train/convert_source.h"
#include "train/model_source.h"

#define TOWER "model.vision_tower."

static VlStatus open_manifest(VlConvertSource *source, const char *path, VlManifest **manifest, VlWeights **set,
                              const char ***hashes) {
    if (source->manifests == VL_CONVERT_SETS || source->sets == VL_CONVERT_SETS)
        return vl_error(VL_INVALID, "more than %d places to take tensors from", VL_CONVERT_SETS);
    *manifest = &source->manifest[source->manifests];
    VL_TRY(vl_manifest_open(*manifest, path));
    source->hashes[source->manifests] = NULL;
    source->manifests++;
    VL_TRY(vl_manifest_verify_files(*manifest));
    VL_TRY(vl_manifest_verify_rest(*manifest, 0, 1));
    *set = &source->set[source->sets];
    VL_TRY(vl_manifest_weights(*manifest, *set, hashes));
    source->sets++;
    source->hashes[source->manifests - 1] = *hashes;
    return VL_OK;
}

static bool holds_tensor(const VlConvertSource *source, const char *prefix) {
    for (int64_t i = 0; i < source->count; i++) {
        if (strncmp(source->tensors[i].name, prefix, strlen(prefix)) == 0) return true;
    }
    return false;
}

// Whether a relative path stays where it begins.
static bool stays_inside(const char *path) {
    return *path != '/' && strcmp(path, "..") != 0 && strncmp(path, "../", 3) != 0 && !strstr(path, "/..");
}

// The vision tower's own folder: its files, under a name inside the model folder; and its weights, unless the model's
// files hold them.
static VlStatus add_tower(VlConvertSource *source, const char *folder, json_t *config) {
    VlTowerPlace place = {0};
    char path[VL_PATH_MAX], weights[VL_PATH_MAX] = "";
    const char *name = NULL;
    VL_TRY(vl_path_join(path, folder, "config.json"));
    VL_TRY(vl_json_get_string(config, path, "mm_vision_tower", false, &name));
    if (!name || !*name) return VL_OK;
    VL_TRY(vl_tower_find(&place, folder, path, name));
    if (place.hub) return VL_OK;
    char inside[VL_PATH_MAX];
    VL_TRY(vl_path_join(inside, "", stays_inside(name) ? name : vl_path_last(place.folder)));
    VL_TRY(vl_convert_source_add_files(source, place.folder, inside));
    if (strcmp(inside, name) != 0) {
        if (json_object_set_new(config, "mm_vision_tower", json_string(inside)) != 0)
            return vl_error(VL_OUT_OF_MEMORY, "out of memory for config.json");
        VL_TRY(vl_convert_source_set_document(source, "config.json", config));
    }
    if (holds_tensor(source, TOWER)) return VL_OK;
    VL_TRY(vl_weights_locate(weights, place.folder));
    if (!*weights) return VL_OK;
    VlWeights *set;
    VL_TRY(vl_convert_source_open_set(source, weights, &set));
    return vl_convert_source_add(source, set, NULL, "vision_model.", TOWER "vision_tower.vision_model.");
}

// The audio tower's own file, which does not come along: its weights, unless the model's files hold the tower, and its
// numbers, unless config.json has them.
static VlStatus add_audio_tower(VlConvertSource *source, const char *folder, json_t *config) {
    char path[VL_PATH_MAX];
    json_t *own = NULL;
    const char *name = json_string_value(json_object_get(config, "mm_audio_tower"));
    if (!name) return VL_OK;
    VL_TRY(vl_audio_file_find(path, folder, name));
    if (!*path) return VL_OK;
    if (!holds_tensor(source, VL_AUDIO_TOWER_PREFIX)) VL_TRY(vl_convert_source_add_audio_file(source, path));
    if (!json_is_object(json_object_get(config, "mm_audio_config"))) VL_TRY(vl_audio_file_config(path, &own));
    if (!own) return VL_OK;
    if (json_object_set_new(config, "mm_audio_config", own) != 0)
        return vl_error(VL_OUT_OF_MEMORY, "out of memory for config.json");
    return vl_convert_source_set_document(source, "config.json", config);
}

static VlStatus add_folder(VlConvertSource *source, const char *folder, bool with_weights) {
    char weights[VL_PATH_MAX] = "";
    VlWeights *set;
    json_t *config;
    VL_TRY(vl_convert_source_add_files(source, folder, ""));
    if (with_weights) VL_TRY(vl_weights_locate(weights, folder));
    if (*weights) {
        VL_TRY(vl_convert_source_open_set(source, weights, &set));
        VL_TRY(vl_convert_source_add(source, set, NULL, "", ""));
    }
    VL_TRY(vl_convert_source_load_document(source, "config.json", &config));
    VlStatus status = add_tower(source, folder, config);
    if (status == VL_OK) status = add_audio_tower(source, folder, config);
    json_decref(config);
    return status;
}

// What a run's checkpoint holds, upon what is there: in the type of the tensor that it replaces, or in f32.
static VlStatus add_checkpoint(VlConvertSource *source, const char *path) {
    VlManifest *manifest;
    VlWeights *set;
    const char **hashes;
    VL_TRY(open_manifest(source, path, &manifest, &set, &hashes));
    return vl_convert_source_add(source, set, hashes, "", "");
}

// ---- What no file holds ---------------------------------------------------------

static VlStatus add_initialised(VlConvertSource *source, const VlParams *params, uint64_t seed) {
    bool stored[VL_GROUP_COUNT] = {false};
    for (int64_t i = 0; i < params->count; i++) {
        const VlParam *row = params->rows[i];
        if (!row->optional && vl_convert_source_find(source, row->name)) stored[row->group] = true;
    }
    for (int64_t i = 0; i < params->count; i++) {
        const VlParam *row = params->rows[i];
        VlConvertTensor *tensor;
        if (vl_convert_source_find(source, row->name) || (row->optional && stored[row->group])) continue;
        VL_TRY(vl_convert_source_add_tensor(source, row->name, &tensor));
        tensor->shape = row->shape;
        tensor->to = VL_F32;
        tensor->init = row->init;
        tensor->seed = seed;
    }
    return VL_OK;
}

// Parameters of the model that are in no file have the values that the run gave them, by its seed.
static VlStatus complete(VlConvertSource *source, const VlModelSource *chain) {
    VlModelConfig config;
    VlContext *context;
    VlVlm *model = NULL;
    VL_TRY(vl_model_config_load(&config, chain->folder));
    VL_TRY(vl_context_create_plan(&context, VL_DEVICE_CPU, 1));
    VlStatus status = vl_vlm_create(&model, context, &config, 0);
    if (status == VL_OK) status = add_initialised(source, vl_vlm_params(model), (uint64_t)chain->seed);
    vl_vlm_free(model);
    vl_context_free(context);
    return status;
}

// ---- Copies of what has trained ---------------------------------------------------

static void follow(VlConvertTensor *copy, const VlConvertTensor *original) {
    if (copy->weights == original->weights) return;
    copy->shape = original->shape;
    copy->weights = original->weights;
    copy->entry = original->entry;
    copy->hash = original->hash;
}

// A file may hold a tied tensor under several names: the head beside the embedding, the audio tower's table of
// position biases under every layer. A run trains it under the first.
static void follow_ties(VlConvertSource *source, bool tied) {
    static const char layer[] = "model.audio_tower.encoder.layers.",
                      bias[] = ".self_attn.relative_attention_bias.weight";
    VlConvertTensor *embedding = vl_convert_source_find(source, "model.embed_tokens.weight");
    VlConvertTensor *head = vl_convert_source_find(source, "lm_head.weight");
    if (tied && embedding && head) follow(head, embedding);
    VlConvertTensor *first =
        vl_convert_source_find(source, "model.audio_tower.encoder.layers.0.self_attn.relative_attention_bias.weight");
    for (int64_t i = 0; first && i < source->count; i++) {
        VlConvertTensor *tensor = &source->tensors[i];
        size_t length = strlen(tensor->name);
        if (tensor != first && strncmp(tensor->name, layer, sizeof layer - 1) == 0 && length > sizeof bias - 1 &&
            strcmp(tensor->name + length - (sizeof bias - 1), bias) == 0)
            follow(tensor, first);
    }
}

// What the run changed of the configuration: the frames of a video, and how pictures are brought to a square.
static VlStatus set_configuration(VlConvertSource *source, const VlModelSource *chain) {
    json_t *config;
    bool changed = false, tied = false;
    int64_t frames = -1;
    VL_TRY(vl_convert_source_load_document(source, "config.json", &config));
    VlStatus status = vl_json_get_int(config, "config.json", "num_frames", false, &frames);
    if (status == VL_OK) status = vl_json_get_bool(config, "config.json", "tie_word_embeddings", false, &tied);
    if (status == VL_OK && chain->frames > 0 && frames != chain->frames) {
        json_object_set_new(config, "num_frames", json_integer((json_int_t)chain->frames));
        changed = true;
    }
    const char *aspect = json_string_value(json_object_get(config, "image_aspect_ratio"));
    bool pad = strcmp(chain->aspect, "pad") == 0;
    if (status == VL_OK && *chain->aspect && pad != (aspect && strcmp(aspect, "pad") == 0)) {
        json_object_set_new(config, "image_aspect_ratio", pad ? json_string("pad") : json_null());
        changed = true;
    }
    if (status == VL_OK && changed) status = vl_convert_source_set_document(source, "config.json", config);
    if (status == VL_OK) follow_ties(source, tied);
    json_decref(config);
    return status;
}

// ---- All of it --------------------------------------------------------------------

static VlStatus open_chain(VlConvertSource *source, const VlModelSource *chain) {
    VlManifest *manifest;
    VlWeights *set;
    const char **hashes;
    source->checkpoint = *chain->model || chain->checkpoints > 0;
    if (*chain->model) {
        VL_TRY(open_manifest(source, chain->model, &manifest, &set, &hashes));
        VL_TRY(vl_convert_source_add(source, set, hashes, "", ""));
    }
    VL_TRY(add_folder(source, chain->folder, !*chain->model));
    if (chain->checkpoints > 0) {
        VL_TRY(vl_model_source_check(chain));
        for (int64_t i = 0; i < chain->checkpoints; i++) VL_TRY(add_checkpoint(source, chain->checkpoint[i]));
        VL_TRY(set_configuration(source, chain));
        VL_TRY(complete(source, chain));
    }
    if (source->count == 0)
        return vl_error(VL_INVALID, "%s holds no weights: there is nothing to convert", chain->path);
    return VL_OK;
}

VlStatus vl_convert_source_open(VlConvertSource *source, const char *path) {
    VlModelSource *chain;
    VL_TRY(VL_NEW(&chain, 1));
    VlStatus status = vl_model_source_open(chain, path, 0);
    if (status == VL_OK) status = open_chain(source, chain);
    vl_free(chain);
    return status;
}

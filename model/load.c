#include "model/load.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/audio_file.h"

#define TOWER_PREFIX "model.vision_tower.vision_tower."
enum { CHUNK = 1 << 20 };  // elements that are read at a time

typedef struct Loader {
    VlContext *context;
    VlParams *params;
    const VlModelConfig *config;
    uint64_t seed;
    VlWeights main, tower, audio;                             // without entries where there is no file
    const char *audio_prefix;                                 // of the audio tower's names in its own file
    bool *found;                                              // [params->count] a file has it
    int64_t missing[VL_GROUP_COUNT], stored[VL_GROUP_COUNT];  // of the parameters that are not optional
    VlLoadReport report;
} Loader;

// Opens the weights of a folder; a folder without any leaves the set empty.
static VlStatus open_weights(VlWeights *set, const char *folder) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_weights_locate(path, folder));
    if (*path) VL_TRY(vl_weights_open(set, path));
    return VL_OK;
}

// lm_head.weight comes here only if it is tied to the embedding.
bool vl_model_load_skips(const char *name) {
    return strcmp(name, "lm_head.weight") == 0 || vl_ends_with(name, ".rotary_emb.inv_freq") ||
           vl_ends_with(name, ".embeddings.position_ids");
}

static const VlWeightsEntry *find_entry(const Loader *loader, const VlParam *param, const VlWeights **set) {
    const VlWeightsEntry *entry = vl_weights_find(&loader->main, param->name);
    *set = &loader->main;
    if (!entry && loader->audio.count > 0 && param->group == VL_GROUP_AUDIO_TOWER) {
        char name[512];
        snprintf(name, sizeof name, "%s%.400s", loader->audio_prefix, param->name + strlen(VL_AUDIO_TOWER_PREFIX));
        *set = &loader->audio;
        return vl_weights_find(&loader->audio, name);
    }
    if (entry || strncmp(param->name, TOWER_PREFIX, strlen(TOWER_PREFIX)) != 0) return entry;
    *set = &loader->tower;
    return vl_weights_find(&loader->tower, param->name + strlen(TOWER_PREFIX));
}

static bool tower_is_in_main(const Loader *loader) {
    for (int64_t i = 0; i < loader->params->count; i++) {
        const VlParam *param = loader->params->rows[i];
        if (param->group == VL_GROUP_VISION_TOWER && !param->optional && !vl_weights_find(&loader->main, param->name)) {
            return false;
        }
    }
    return true;
}

// Any tensor of it: a tower is never made of two files.
static bool main_has_audio_tower(const Loader *loader) {
    for (int64_t i = 0; i < loader->main.count; i++) {
        const char *name = loader->main.entries[i].name;
        if (strncmp(name, VL_AUDIO_TOWER_PREFIX, strlen(VL_AUDIO_TOWER_PREFIX)) == 0) return true;
    }
    return false;
}

// Tensors of a part's own file, whose names begin with `prefix` there and with `full` in the model, must be parameters;
// other tensors may stand in the file.
static VlStatus check_left_over_in(Loader *loader, const VlWeights *weights, const char *prefix, const char *full,
                                   const char *where) {
    for (int64_t i = 0; i < weights->count; i++) {
        char name[512];
        if (strncmp(weights->entries[i].name, prefix, strlen(prefix)) != 0) continue;
        snprintf(name, sizeof name, "%s%.400s", full, weights->entries[i].name + strlen(prefix));
        if (vl_params_find(loader->params, name)) continue;
        if (!vl_model_load_skips(name)) {
            return vl_error(VL_FORMAT,
                            "%s: tensor %.200s belongs to no part of the tower that its configuration describes", where,
                            weights->entries[i].name);
        }
        loader->report.skipped++;
    }
    return VL_OK;
}

// Every tensor of the model's files must be a parameter. A vision tower's folder may hold a whole CLIP: only
// `vision_model.` counts there.
static VlStatus check_left_over(Loader *loader) {
    for (int64_t i = 0; i < loader->main.count; i++) {
        const char *name = loader->main.entries[i].name;
        if (vl_params_find(loader->params, name)) continue;
        if (!vl_model_load_skips(name)) {
            return vl_error(VL_FORMAT, "%s: tensor %.200s belongs to no part of the model that config.json describes",
                            loader->config->folder, name);
        }
        loader->report.skipped++;
    }
    VL_TRY(check_left_over_in(loader, &loader->tower, "vision_model.", TOWER_PREFIX "vision_model.",
                              loader->config->vision_folder));
    return check_left_over_in(loader, &loader->audio, loader->audio.count > 0 ? loader->audio_prefix : "",
                              VL_AUDIO_TOWER_PREFIX, loader->config->audio_file);
}

static VlStatus check_tensor(const VlParam *param, const VlWeightsEntry *entry) {
    if (!vl_same_shape(param->shape, entry->tensor)) {
        VlTensor wanted = param->shape;
        wanted.dtype = entry->tensor.dtype;
        return vl_error(VL_FORMAT, "tensor %s is %s in the file, the configuration asks for %s", entry->name,
                        vl_describe(entry->tensor), vl_describe(wanted));
    }
    VlDtype dtype = entry->tensor.dtype;
    if (dtype != VL_F32 && dtype != VL_BF16 && dtype != VL_F16 && dtype != VL_F64) {
        return vl_error(VL_UNSUPPORTED, "tensor %s is stored as %s; possible are f32, bf16, f16 and f64", entry->name,
                        vl_dtype_name(dtype));
    }
    return VL_OK;
}

// What is stored and what is not, before anything is read.
static VlStatus take_stock(Loader *loader) {
    for (int64_t i = 0; i < loader->params->count; i++) {
        const VlParam *param = loader->params->rows[i];
        const VlWeights *set;
        const VlWeightsEntry *entry = find_entry(loader, param, &set);
        loader->found[i] = entry != NULL;
        if (entry) {
            VL_TRY_CONTEXT(check_tensor(param, entry), "%s",
                           set == &loader->main    ? loader->config->folder
                           : set == &loader->audio ? loader->config->audio_file
                                                   : loader->config->vision_folder);
        }
        if (param->optional) continue;
        loader->stored[param->group] += entry != NULL;
        loader->missing[param->group] += entry == NULL;
    }
    return VL_OK;
}

static const VlParam *first_missing(const Loader *loader, VlGroup group) {
    for (int64_t i = 0; i < loader->params->count; i++) {
        const VlParam *param = loader->params->rows[i];
        if (param->group == group && !param->optional && !loader->found[i]) return param;
    }
    return NULL;
}

static VlStatus check_complete(const Loader *loader) {
    bool any = loader->main.count > 0 || loader->tower.count > 0 || loader->audio.count > 0;
    for (int group = 0; group < VL_GROUP_COUNT; group++) {
        const VlParam *param = first_missing(loader, (VlGroup)group);
        if (!param) continue;
        if (loader->stored[group] > 0) {
            return vl_error(VL_FORMAT, "%s: tensor %s is missing, and %lld more of %s; %lld others are there",
                            loader->config->folder, param->name, (long long)loader->missing[group] - 1,
                            vl_group_name((VlGroup)group), (long long)loader->stored[group]);
        }
        if (group == VL_GROUP_VISION_TOWER && any) {
            return vl_error(VL_FORMAT,
                            "%s: the vision tower's weights (%s, ...) are missing%s%s; put them into that folder",
                            loader->config->folder, param->name, *loader->config->vision_folder ? ", in " : "",
                            loader->config->vision_folder);
        }
        if (group == VL_GROUP_AUDIO_TOWER && any) {
            return vl_error(
                VL_FORMAT,
                "%s: the audio tower's weights (%s, ...) are missing: neither the model's files nor the file "
                "that mm_audio_tower names holds them; vl2 convert --from DIR --audio FILE puts them in",
                loader->config->folder, param->name);
        }
        if (group == VL_GROUP_LLM && loader->main.count > 0) {
            return vl_error(VL_FORMAT, "%s: the language model's weights (%s, ...) are missing", loader->config->folder,
                            param->name);
        }
    }
    return VL_OK;
}

static VlStatus read_tensor(Loader *loader, VlParam *param, const VlWeights *set, const VlWeightsEntry *entry,
                            void *buffer) {
    int64_t count = vl_elements(param->shape);
    for (int64_t begin = 0; begin < count; begin += CHUNK) {
        int64_t length = count - begin < CHUNK ? count - begin : CHUNK;
        VL_TRY(vl_weights_read_part(set, entry, begin, length, buffer));
        VL_TRY(vl_params_set_part(loader->context, param, begin, length, buffer, entry->tensor.dtype));
    }
    return VL_OK;
}

static VlStatus fill(Loader *loader) {
    if (loader->context->planning) return VL_OK;
    void *buffer;
    VL_TRY(vl_allocate(&buffer, CHUNK, vl_dtype_size(VL_F64)));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < loader->params->count && status == VL_OK; i++) {
        VlParam *param = loader->params->rows[i];
        const VlWeights *set;
        const VlWeightsEntry *entry = find_entry(loader, param, &set);
        if (entry) {
            status = read_tensor(loader, param, set, entry, buffer);
            loader->report.loaded++;
        } else {
            status = vl_params_initialise(loader->context, loader->params, param, loader->seed);
            loader->report.initialised[param->group] += !param->optional;
        }
    }
    vl_free(buffer);
    return status == VL_OK ? VL_OK : vl_error_frame(status, __func__, __FILE__, __LINE__);
}

static VlStatus fill_from_sets(Loader *loader, bool strict) {
    VL_TRY(VL_NEW(&loader->found, loader->params->count));
    VL_TRY(check_left_over(loader));
    VL_TRY(take_stock(loader));
    if (strict) VL_TRY(check_complete(loader));
    for (int group = 0; group < VL_GROUP_COUNT; group++) {
        loader->report.stored[group] = loader->stored[group];
        loader->report.missing[group] = first_missing(loader, (VlGroup)group);
    }
    return fill(loader);
}

static VlStatus load_folder(Loader *loader, bool strict) {
    VL_TRY(open_weights(&loader->main, loader->config->folder));
    if (*loader->config->vision_folder && !tower_is_in_main(loader)) {
        VL_TRY(open_weights(&loader->tower, loader->config->vision_folder));
    }
    if (*loader->config->audio_file && !main_has_audio_tower(loader)) {
        VL_TRY(vl_weights_open(&loader->audio, loader->config->audio_file));
        VL_TRY(vl_audio_file_prefix(&loader->audio, loader->config->audio_file, &loader->audio_prefix));
    }
    return fill_from_sets(loader, strict);
}

VlStatus vl_model_load(VlContext *context, VlParams *params, const VlModelConfig *config, uint64_t seed, bool strict,
                       VlLoadReport *report) {
    Loader loader = {.context = context, .params = params, .config = config, .seed = seed};
    VlStatus status = load_folder(&loader, strict);
    vl_weights_close(&loader.main);
    vl_weights_close(&loader.tower);
    vl_weights_close(&loader.audio);
    vl_free(loader.found);
    if (status != VL_OK) return vl_error_frame(status, __func__, __FILE__, __LINE__);
    if (report) *report = loader.report;
    return VL_OK;
}

VlStatus vl_model_load_weights(VlContext *context, VlParams *params, const VlModelConfig *config,
                               const VlWeights *weights, uint64_t seed, bool strict, VlLoadReport *report) {
    Loader loader = {.context = context, .params = params, .config = config, .seed = seed, .main = *weights};
    VlStatus status = fill_from_sets(&loader, strict);
    vl_free(loader.found);
    if (status != VL_OK) return vl_error_frame(status, __func__, __FILE__, __LINE__);
    if (report) *report = loader.report;
    return VL_OK;
}

#include "train/model_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "train/checkpoint.h"
#include "train/checkpoint_manifest.h"

static VlStatus make_absolute(char out[VL_PATH_MAX], const char *path) {
    char *resolved = realpath(path, NULL);
    if (!resolved) return vl_error(VL_IO, "cannot find %s: %s", path, strerror(errno));
    VlStatus status = strlen(resolved) < VL_PATH_MAX ? VL_OK : vl_error(VL_INVALID, "%s: the path is too long", path);
    if (status == VL_OK) memcpy(out, resolved, strlen(resolved) + 1);
    free(resolved);
    return status;
}

// Walks from the newest checkpoint down to the folder at the root; the list is filled from its end.
static VlStatus walk(VlModelSource *source, const char *path, int64_t depth) {
    char here[VL_PATH_MAX], newest[VL_PATH_MAX];
    VlCheckpointInfo info;
    VL_TRY(make_absolute(here, path));
    if (!vl_folder_holds(here, VL_MANIFEST) && vl_folder_holds(here, "checkpoints")) {
        VL_TRY(vl_checkpoint_newest(here, -1, newest));
        if (!newest[0]) return vl_error(VL_INVALID, "%s is a run without a complete checkpoint", path);
        memcpy(here, newest, VL_PATH_MAX);
    }
    if (depth == 0) memcpy(source->path, here, VL_PATH_MAX);
    if (!vl_folder_holds(here, VL_MANIFEST)) {
        if (!vl_folder_holds(here, "config.json")) {
            return vl_error(VL_INVALID,
                            "%s is no model: neither a folder with config.json, nor a checkpoint, nor a run's output",
                            path);
        }
        memcpy(source->folder, here, VL_PATH_MAX);
        return VL_OK;
    }
    if (depth == VL_SOURCE_CHECKPOINTS)
        return vl_error(VL_INVALID, "%s: more than %d stages upon one another", path, (int)depth);
    VL_TRY(vl_checkpoint_info(here, &info));
    if (info.model) {
        memcpy(source->model, here, VL_PATH_MAX);
        return vl_path_join(source->folder, here, VL_MODEL_FOLDER);
    }
    VL_TRY_CONTEXT(walk(source, info.base, depth + 1), "the model that %s was trained from", here);
    if (source->checkpoints == 0) source->seed = info.seed;
    memcpy(source->checkpoint[source->checkpoints++], here, VL_PATH_MAX);
    return VL_OK;
}

// How the newest run's data were made: what is asked later is prepared in the same way.
static VlStatus inherit(VlModelSource *source) {
    char path[VL_PATH_MAX];
    VlConfig config;
    VL_TRY(vl_path_join(path, source->checkpoint[source->checkpoints - 1], "config.resolved.yaml"));
    VL_TRY(vl_config_load(&config, path, 0, NULL));
    source->frames = config.data.frames;
    source->sound_seconds = config.data.sound_seconds;
    memcpy(source->fbank_dtype, config.data.fbank_dtype, sizeof source->fbank_dtype);
    memcpy(source->aspect, config.data.aspect, sizeof source->aspect);
    memcpy(source->protocol, config.data.protocol, sizeof source->protocol);
    vl_config_free(&config);
    return VL_OK;
}

VlStatus vl_model_source_open(VlModelSource *source, const char *path, int64_t seed) {
    *source = (VlModelSource){.seed = seed};
    VL_TRY(walk(source, path, 0));
    return source->checkpoints > 0 ? inherit(source) : VL_OK;
}

// Weights, configurations and the tokenizer.
static bool counts_for_hash(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (strcmp(dot, ".safetensors") == 0 || strcmp(dot, ".bin") == 0 || strcmp(dot, ".json") == 0);
}

static VlStatus mix_file(const char *path, uint64_t *mixed) {
    char hex[33];
    VL_TRY(vl_hash_file(path, hex));
    mixed[0] = mixed[0] * 0x9E3779B97F4A7C15u + vl_hash_string(hex);
    mixed[1] = (mixed[1] ^ vl_hash_string(vl_path_last(path))) * 0xC2B2AE3D27D4EB4Fu + mixed[0];
    return VL_OK;
}

// The hash of hashes of a folder's files.
static VlStatus hash_folder(const char *folder, uint64_t *mixed) {
    char path[VL_PATH_MAX], **names;
    int64_t count;
    VL_TRY(vl_list_folder(folder, &names, &count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count && status == VL_OK; i++) {
        status = vl_path_join(path, folder, names[i]);
        if (status != VL_OK) break;
        if (!vl_path_is_folder(path) && counts_for_hash(names[i])) status = mix_file(path, mixed);
    }
    vl_free_names(names, count);
    return status;
}

static VlStatus hash_source(const VlModelSource *source, char hex[33]) {
    const char *checkpoint = source->checkpoints > 0 ? source->checkpoint[source->checkpoints - 1] : source->model;
    if (*checkpoint) {  // its manifest names the hashes of all that it holds, and of what lies below
        char manifest[VL_PATH_MAX];
        VL_TRY(vl_path_join(manifest, checkpoint, VL_MANIFEST));
        return vl_hash_file(manifest, hex);
    }
    uint64_t mixed[2] = {0};
    VlModelConfig config;
    VL_TRY(vl_model_config_load(&config, source->folder));
    VL_TRY(hash_folder(source->folder, mixed));
    if (config.vision_folder[0]) VL_TRY(hash_folder(config.vision_folder, mixed));
    if (config.audio_file[0]) VL_TRY(mix_file(config.audio_file, mixed));
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)mixed[0], (unsigned long long)mixed[1]);
    return VL_OK;
}

VlStatus vl_model_source_identify(VlModelSource *source, VlComm *comm) {
    VlStatus status = vl_comm_rank(comm) == 0 ? hash_source(source, source->hash) : VL_OK;
    VL_TRY(vl_comm_agree(comm, status));
    return vl_comm_broadcast(comm, source->hash, sizeof source->hash, 0);
}

// The parts below checkpoint number `i` are those that it was trained upon.
static VlStatus check_base(const VlModelSource *source, int64_t i) {
    VlCheckpointInfo info;
    VlModelSource below = *source;
    char hex[33];
    below.checkpoints = i;
    VL_TRY(vl_checkpoint_info(source->checkpoint[i], &info));
    VL_TRY(hash_source(&below, hex));
    if (strcmp(hex, info.base_hash) != 0) {
        return vl_error(VL_FORMAT, "%s has changed since %s was trained upon it: its frozen parts would not fit",
                        info.base, source->checkpoint[i]);
    }
    return VL_OK;
}

VlStatus vl_model_source_check(const VlModelSource *source) {
    for (int64_t i = 0; i < source->checkpoints; i++) VL_TRY(check_base(source, i));
    return VL_OK;
}

VlStatus vl_model_source_load_root(const VlModelSource *source, VlContext *context, VlVlm *model,
                                   VlLoadReport *report) {
    VlManifest manifest;
    VlWeights weights;
    const VlModelConfig *config = vl_vlm_config(model);
    if (!*source->model)
        return vl_model_load(context, vl_vlm_params(model), config, (uint64_t)source->seed, true, report);
    VL_TRY(vl_manifest_open(&manifest, source->model));
    VlStatus status = vl_manifest_weights(&manifest, &weights, NULL);
    if (status == VL_OK) {
        status = vl_model_load_weights(context, vl_vlm_params(model), config, &weights, (uint64_t)source->seed, true,
                                       report);
        vl_weights_close(&weights);
    }
    vl_manifest_close(&manifest);
    return status;
}

VlStatus vl_model_source_load(const VlModelSource *source, VlContext *context, VlVlm *model, VlComm *comm,
                              bool complete) {
    VlStatus status = VL_OK;
    VlLoadReport report;
    if (vl_comm_rank(comm) == 0) status = vl_model_source_check(source);
    VL_TRY(vl_comm_agree(comm, status));
    for (int64_t i = 0; i < source->checkpoints; i++) VL_TRY(vl_checkpoint_verify(comm, source->checkpoint[i]));
    if (*source->model) VL_TRY(vl_checkpoint_verify(comm, source->model));
    VL_TRY(vl_model_source_load_root(source, context, model, &report));
    for (int group = 0; source->checkpoints == 0 && group < VL_GROUP_COUNT; group++) {
        if (report.initialised[group] == 0) continue;
        if (!complete) {
            vl_log(VL_LOG_INFO, "%s: %lld parameters are in no file, initialised from seed %lld",
                   vl_group_name((VlGroup)group), (long long)report.initialised[group], (long long)source->seed);
            continue;
        }
        return vl_error(VL_FORMAT, "%s: %lld parameters of the %s are missing; the folder must hold the whole model",
                        source->folder, (long long)report.initialised[group], vl_group_name((VlGroup)group));
    }
    for (int64_t i = 0; i < source->checkpoints; i++) {
        VL_TRY(vl_checkpoint_load(context, source->checkpoint[i], vl_vlm_params(model), NULL));
    }
    return VL_OK;
}

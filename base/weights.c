#include "base/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/safetensors_internal.h"
#include "base/shard_index.h"

// ---- Where they are --------------------------------------------------------

VlStatus vl_weights_locate(char *path, const char *folder) {
    static const char *const known[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                        "pytorch_model.bin.index.json"};
    static const char *const endings[] = {".safetensors", ".bin", ".pt", ".pth"};
    char **names, foreign[256] = "";
    int64_t count;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        VL_TRY(vl_path_join(path, folder, known[i]));
        if (vl_path_exists(path)) return VL_OK;
    }
    path[0] = '\0';
    VL_TRY(vl_list_folder(folder, &names, &count));
    for (int64_t i = 0; i < count; i++) {
        for (size_t j = 0; j < sizeof endings / sizeof *endings; j++) {
            if (vl_ends_with(names[i], endings[j])) snprintf(foreign, sizeof foreign, "%s", names[i]);
        }
    }
    vl_free_names(names, count);
    if (!foreign[0]) return VL_OK;
    return vl_error(VL_UNSUPPORTED,
                    "%s: has weights (%s) but neither model.safetensors nor pytorch_model.bin, nor an index of one "
                    "(%s, %s)",
                    folder, foreign, known[1], known[3]);
}

// ---- Opening ---------------------------------------------------------------

static int compare_names(const void *a, const void *b) {
    return strcmp(((const VlWeightsEntry *)a)->name, ((const VlWeightsEntry *)b)->name);
}

static VlStatus open_safetensors(VlWeights *weights, const char *path) {
    weights->format = VL_WEIGHTS_SAFETENSORS;
    VL_TRY(vl_safetensors_open(&weights->safetensors, path));
    weights->files = weights->safetensors.files;
    VL_TRY(VL_NEW(&weights->entries, weights->safetensors.count));
    for (int64_t i = 0; i < weights->safetensors.count; i++) {
        const VlSafetensorsEntry *entry = &weights->safetensors.entries[i];
        weights->entries[weights->count++] = (VlWeightsEntry){
            .name = entry->name, .tensor = entry->tensor, .scalar = entry->scalar, .file = entry->file, .position = i};
    }
    return VL_OK;
}

static VlStatus open_torch(VlWeights *weights, const char *folder, const char *const *names, int64_t count) {
    char path[VL_PATH_MAX];
    int64_t total = 0;
    weights->format = VL_WEIGHTS_TORCH;
    VL_TRY(VL_NEW(&weights->torch, count));
    for (; weights->files < count; weights->files++) {
        VL_TRY(vl_path_join(path, folder, names[weights->files]));
        VL_TRY(vl_torch_open(&weights->torch[weights->files], path));
        total += weights->torch[weights->files].count;
    }
    VL_TRY(VL_NEW(&weights->entries, total));
    for (int64_t file = 0; file < count; file++) {
        for (int64_t i = 0; i < weights->torch[file].count; i++) {
            const VlTorchEntry *entry = &weights->torch[file].entries[i];
            weights->entries[weights->count++] = (VlWeightsEntry){
                .name = entry->name, .tensor = entry->tensor, .scalar = entry->scalar, .file = file, .position = i};
        }
    }
    if (count > 1) qsort(weights->entries, (size_t)weights->count, sizeof *weights->entries, compare_names);
    return VL_OK;
}

static void get_tensor(const void *set, int64_t i, const char **name, int64_t *file) {
    const VlWeights *weights = set;
    *name = weights->entries[i].name;
    *file = weights->entries[i].file;
}

static VlStatus open_torch_index(VlWeights *weights, const char *path) {
    VlShardIndex index;
    char folder[VL_PATH_MAX];
    VL_TRY(vl_path_folder(folder, path));
    VL_TRY(vl_shard_index_load(&index, path));
    VlStatus status = open_torch(weights, folder, index.names, index.files);
    if (!status) status = vl_shard_index_check(&index, weights, weights->count, get_tensor);
    vl_shard_index_free(&index);
    return status ? vl_error_context(status, "%s", path) : VL_OK;
}

static VlStatus open_path(VlWeights *weights, const char *path) {
    char found[VL_PATH_MAX];
    VL_TRY(vl_path_join(found, NULL, path));
    if (vl_path_is_folder(path)) {
        VL_TRY(vl_weights_locate(found, path));
        if (!found[0]) {
            return vl_error(VL_IO, "the folder '%s' holds no weights: neither model.safetensors nor pytorch_model.bin",
                            path);
        }
    }
    if (vl_ends_with(found, ".safetensors") || vl_ends_with(found, ".safetensors.index.json")) {
        return open_safetensors(weights, found);
    }
    if (vl_ends_with(found, ".index.json")) return open_torch_index(weights, found);
    return open_torch(weights, "", &(const char *){found}, 1);
}

VlStatus vl_weights_open(VlWeights *weights, const char *path) {
    *weights = (VlWeights){0};
    VlStatus status = open_path(weights, path);
    if (status) vl_weights_close(weights);
    return status;
}

void vl_weights_close(VlWeights *weights) {
    for (int64_t i = 0; i < weights->files && weights->torch; i++) vl_torch_close(&weights->torch[i]);
    vl_free(weights->torch);
    vl_safetensors_close(&weights->safetensors);
    vl_free(weights->entries);
    *weights = (VlWeights){0};
}

// ---- Looking ---------------------------------------------------------------

const VlWeightsEntry *vl_weights_find(const VlWeights *weights, const char *name) {
    VlWeightsEntry wanted = {.name = name};
    if (!weights->count) return NULL;
    return bsearch(&wanted, weights->entries, (size_t)weights->count, sizeof *weights->entries, compare_names);
}

const char *vl_weights_format_name(const VlWeights *weights) {
    return weights->format == VL_WEIGHTS_TORCH ? "PyTorch" : "safetensors";
}

const char *vl_weights_path(const VlWeights *weights, int64_t file) {
    return weights->format == VL_WEIGHTS_TORCH ? weights->torch[file].reader.path
                                               : weights->safetensors.readers[file].path;
}

const json_t *vl_weights_data(const VlWeights *weights, int64_t file) {
    return weights->format == VL_WEIGHTS_TORCH ? weights->torch[file].data : NULL;
}

// ---- Reading ---------------------------------------------------------------

VlStatus vl_weights_read_part(const VlWeights *weights, const VlWeightsEntry *entry, int64_t begin, int64_t count,
                              void *data) {
    if (weights->format == VL_WEIGHTS_TORCH) {
        const VlTorchFile *file = &weights->torch[entry->file];
        return vl_torch_read_part(file, &file->entries[entry->position], begin, count, data);
    }
    return vl_safetensors_read_part(&weights->safetensors, &weights->safetensors.entries[entry->position], begin, count,
                                    data);
}

VlStatus vl_weights_read(const VlWeights *weights, const VlWeightsEntry *entry, void *data) {
    return vl_weights_read_part(weights, entry, 0, vl_elements(entry->tensor), data);
}

static VlStatus read_elements(const void *weights, const void *entry, int64_t begin, int64_t count, void *data) {
    return vl_weights_read_part(weights, entry, begin, count, data);
}

VlStatus vl_weights_read_as(const VlWeights *weights, const VlWeightsEntry *entry, VlDtype dtype, void *data) {
    return vl_read_converted(entry->name, entry->tensor, dtype, data, read_elements, weights, entry);
}

VlStatus vl_weights_verify(const VlWeights *weights) {
    for (int64_t i = 0; i < weights->files && weights->format == VL_WEIGHTS_TORCH; i++) {
        VL_TRY(vl_torch_verify(&weights->torch[i]));
    }
    return VL_OK;
}

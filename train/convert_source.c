#include "train/convert_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { DOCUMENT_LIMIT = 64 << 20 };

// ---- Tensors ------------------------------------------------------------------

VlConvertTensor *vl_convert_source_find(const VlConvertSource *source, const char *name) {
    for (int64_t i = 0; i < source->count; i++) {
        if (strcmp(source->tensors[i].name, name) == 0) return &source->tensors[i];
    }
    return NULL;
}

VlStatus vl_convert_source_open_set(VlConvertSource *source, const char *path, VlWeights **set) {
    if (source->sets == VL_CONVERT_SETS)
        return vl_error(VL_INVALID, "more than %d places to take tensors from", VL_CONVERT_SETS);
    *set = &source->set[source->sets];
    VL_TRY(vl_weights_open(*set, path));
    source->sets++;
    return VL_OK;
}

VlStatus vl_convert_source_add_tensor(VlConvertSource *source, const char *name, VlConvertTensor **tensor) {
    VL_TRY(vl_reserve(&source->tensors, &source->capacity, source->count + 1, (int64_t)sizeof *source->tensors));
    *tensor = &source->tensors[source->count];
    **tensor = (VlConvertTensor){0};
    VL_TRY(vl_duplicate_string(&(*tensor)->name, name));
    source->count++;
    return VL_OK;
}

// Where an entry lies, to read files from their beginning to their end.
typedef struct Place {
    int64_t file, offset, entry;
} Place;

static int compare_places(const void *a, const void *b) {
    const Place *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static VlStatus list_places(const VlWeights *set, Place **places) {
    VL_TRY(VL_NEW(places, set->count));
    for (int64_t i = 0; i < set->count; i++) {
        const VlWeightsEntry *entry = &set->entries[i];
        int64_t offset = set->format == VL_WEIGHTS_SAFETENSORS
                             ? set->safetensors.entries[entry->position].offset
                             : set->torch[entry->file].entries[entry->position].offset;
        (*places)[i] = (Place){entry->file, offset, i};
    }
    if (set->count) qsort(*places, (size_t)set->count, sizeof **places, compare_places);
    return VL_OK;
}

static VlStatus add_entry(VlConvertSource *source, const VlWeights *set, const VlWeightsEntry *entry, const char *hash,
                          const char *name) {
    VlConvertTensor *tensor = vl_convert_source_find(source, name);
    if (!tensor) {
        VL_TRY(vl_convert_source_add_tensor(source, name, &tensor));
        tensor->to = entry->tensor.dtype;
    }
    tensor->shape = entry->tensor;
    tensor->scalar = entry->scalar;
    tensor->weights = set;
    tensor->entry = entry;
    tensor->hash = hash;
    return VL_OK;
}

VlStatus vl_convert_source_add(VlConvertSource *source, const VlWeights *set, const char **hashes, const char *from,
                               const char *to) {
    Place *places;
    char name[1024];
    VL_TRY(list_places(set, &places));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < set->count && status == VL_OK; i++) {
        const VlWeightsEntry *entry = &set->entries[places[i].entry];
        if (strncmp(entry->name, from, strlen(from)) != 0) continue;
        if (snprintf(name, sizeof name, "%s%s", to, entry->name + strlen(from)) >= (int)sizeof name) {
            status =
                vl_error(VL_FORMAT, "a tensor's name is longer than %zu bytes: %.100s...", sizeof name, entry->name);
            break;
        }
        status = add_entry(source, set, entry, hashes ? hashes[places[i].entry] : NULL, name);
    }
    vl_free(places);
    return status;
}

VlStatus vl_convert_source_cast(VlConvertSource *source, VlDtype dtype) {
    const char *word = dtype == VL_F32 ? "float32" : dtype == VL_BF16 ? "bfloat16" : "float16";
    for (int64_t i = 0; i < source->count; i++) {
        VlConvertTensor *tensor = &source->tensors[i];
        if (vl_dtype_is_floating(tensor->to)) tensor->to = dtype;
    }
    json_t *config;
    if (!vl_convert_source_find_document(source, "config.json")) return VL_OK;
    VL_TRY(vl_convert_source_load_document(source, "config.json", &config));
    const char *key =
        json_object_get(config, "dtype") && !json_object_get(config, "torch_dtype") ? "dtype" : "torch_dtype";
    const char *recorded = json_string_value(json_object_get(config, key));
    VlStatus status = VL_OK;
    if (!recorded || strcmp(recorded, word) != 0) {
        status = json_object_set_new(config, key, json_string(word)) == 0
                     ? vl_convert_source_set_document(source, "config.json", config)
                     : vl_error(VL_OUT_OF_MEMORY, "out of memory for config.json");
    }
    json_decref(config);
    return status;
}

void vl_convert_source_close(VlConvertSource *source) {
    for (int64_t i = 0; i < source->count; i++) vl_free(source->tensors[i].name);
    vl_free(source->tensors);
    for (int64_t i = 0; i < source->documents; i++) vl_free(source->document[i].text);
    vl_free(source->document);
    for (int64_t i = 0; i < source->sets; i++) vl_weights_close(&source->set[i]);
    for (int64_t i = 0; i < source->manifests; i++) {
        vl_manifest_close(&source->manifest[i]);
        vl_free(source->hashes[i]);
    }
    *source = (VlConvertSource){0};
}

// ---- Files beside the weights -----------------------------------------------------

VlConvertDocument *vl_convert_source_find_document(const VlConvertSource *source, const char *name) {
    for (int64_t i = 0; i < source->documents; i++) {
        if (strcmp(source->document[i].name, name) == 0) return &source->document[i];
    }
    return NULL;
}

static VlStatus add_document(VlConvertSource *source, const char *name, VlConvertDocument **document) {
    *document = vl_convert_source_find_document(source, name);
    if (*document) return VL_OK;
    VL_TRY(vl_reserve(&source->document, &source->document_capacity, source->documents + 1,
                      (int64_t)sizeof *source->document));
    *document = &source->document[source->documents];
    **document = (VlConvertDocument){0};
    VL_TRY(vl_path_join((*document)->name, "", name));
    source->documents++;
    return VL_OK;
}

// Files whose content is tensors, or says where tensors lie: it comes out anew.
static bool holds_weights(const char *name) {
    static const char *const ends[] = {".safetensors", ".bin",  ".pt",   ".pth",        ".ckpt", ".h5",
                                       ".msgpack",     ".onnx", ".gguf", ".index.json", ".npz"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (vl_ends_with(name, ends[i])) return true;
    }
    return false;
}

VlStatus vl_convert_source_add_file(VlConvertSource *source, const char *folder, const char *name, const char *inside) {
    char path[VL_PATH_MAX], full[VL_PATH_MAX];
    VlConvertDocument *document;
    VL_TRY(vl_path_join(path, folder, name));
    VL_TRY(vl_path_join(full, inside, name));
    if (!vl_path_exists(path) || vl_path_is_folder(path)) return VL_OK;
    VL_TRY(add_document(source, full, &document));
    memcpy(document->path, path, sizeof path);
    return VL_OK;
}

VlStatus vl_convert_source_add_files(VlConvertSource *source, const char *folder, const char *inside) {
    char **names;
    int64_t count;
    VL_TRY(vl_list_folder(folder, &names, &count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count && status == VL_OK; i++) {
        if (names[i][0] == '.' || holds_weights(names[i])) continue;
        status = vl_convert_source_add_file(source, folder, names[i], inside);
    }
    vl_free_names(names, count);
    return status;
}

VlStatus vl_convert_source_set_document(VlConvertSource *source, const char *name, const json_t *json) {
    VlConvertDocument *document;
    VL_TRY(add_document(source, name, &document));
    char *text = json_dumps(json, JSON_INDENT(2));
    if (!text) return vl_error(VL_OUT_OF_MEMORY, "out of memory for %s", name);
    vl_free(document->text);
    document->text = text;
    return VL_OK;
}

VlStatus vl_convert_source_load_document(const VlConvertSource *source, const char *name, json_t **json) {
    const VlConvertDocument *document = vl_convert_source_find_document(source, name);
    if (!document) return vl_error(VL_IO, "%s is missing in the model folder", name);
    VlStatus status = document->text ? vl_json_parse(document->text, (int64_t)strlen(document->text), name, json)
                                     : vl_json_load(document->path, DOCUMENT_LIMIT, json);
    if (status == VL_OK && !json_is_object(*json)) {
        json_decref(*json);
        status = vl_error(VL_FORMAT, "%s: not a JSON object", document->text ? name : document->path);
    }
    return status;
}

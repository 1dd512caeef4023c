#include "train/checkpoint_manifest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { MANIFEST_LIMIT = 64 << 20 };

// XXH3-128 of a manifest's values, whatever its layout as text. `root` has no member "hash".
static VlStatus hash_manifest(const json_t *root, const char *name, char hex[VL_HASH_TEXT]) {
    char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text) return vl_error(VL_OUT_OF_MEMORY, "out of memory for the hash of %s", name);
    vl_hash_bytes(text, (int64_t)strlen(text), hex);
    free(text);
    return VL_OK;
}

// ---- Writing --------------------------------------------------------------------

VlStatus vl_manifest_add_file(json_t *root, const char *folder, const char *name, bool table) {
    char path[VL_PATH_MAX], hex[VL_HASH_TEXT];
    int64_t size;
    VL_TRY(vl_path_join(path, folder, name));
    VL_TRY(vl_file_size(path, &size));
    VL_TRY(vl_hash_file(path, hex));
    json_t *files = json_object_get(root, "files");
    json_t *file =
        json_pack("{s:s, s:I, s:s, s:b}", "name", name, "size", (json_int_t)size, "xxh3_128", hex, "table", (int)table);
    if (!file || json_array_append_new(files, file) != 0)
        return vl_error(VL_OUT_OF_MEMORY, "out of memory for the manifest of %s", folder);
    return VL_OK;
}

VlStatus vl_manifest_write(json_t *root, const char *folder) {
    char path[VL_PATH_MAX], hash[VL_HASH_TEXT];
    VlStatus status = root ? VL_OK : vl_error(VL_OUT_OF_MEMORY, "out of memory for the manifest of %s", folder);
    if (status == VL_OK) status = vl_path_join(path, folder, VL_MANIFEST);
    if (status == VL_OK) status = hash_manifest(root, path, hash);
    if (status == VL_OK && json_object_set_new(root, "hash", json_string(hash)) != 0)
        status = vl_error(VL_OUT_OF_MEMORY, "out of memory for the manifest of %s", folder);
    if (status == VL_OK) status = vl_json_save(path, root, JSON_INDENT(1));
    json_decref(root);
    return status;
}

// ---- Reading ----------------------------------------------------------------------

static VlStatus check_manifest(json_t *root, const char *path) {
    int64_t version = 0;
    const char *expected = NULL;
    char found[VL_HASH_TEXT];
    VL_TRY(vl_json_get_int(root, path, "version", true, &version));
    if (version != VL_MANIFEST_VERSION) {
        return vl_error(VL_UNSUPPORTED, "%s: version %" PRId64 " of the format; this program reads version %d", path,
                        version, VL_MANIFEST_VERSION);
    }
    VL_TRY(vl_json_get_string(root, path, "hash", true, &expected));
    json_t *hash = json_incref(json_object_get(root, "hash"));
    json_object_del(root, "hash");
    VlStatus status = hash_manifest(root, path, found);
    if (status == VL_OK && strcmp(found, expected) != 0)
        status = vl_error(VL_FORMAT, "%s does not match the hash within it: the checkpoint is damaged", path);
    json_decref(hash);
    return status;
}

typedef struct File {
    char path[VL_PATH_MAX];
    int64_t size;
    const char *hash;
    bool table;
} File;

static VlStatus read_file(const VlManifest *manifest, size_t i, File *file) {
    const json_t *object = json_array_get(json_object_get(manifest->root, "files"), i);
    const char *name = NULL;
    if (!json_is_object(object)) return vl_error(VL_FORMAT, "%s: 'files' is no list of objects", manifest->path);
    VL_TRY(vl_json_get_string(object, manifest->path, "name", true, &name));
    if (*name == '/' || strcmp(name, "..") == 0 || strncmp(name, "../", 3) == 0 || strstr(name, "/../"))
        return vl_error(VL_FORMAT, "%s: file '%s' lies outside of the checkpoint", manifest->path, name);
    VL_TRY(vl_json_get_int(object, manifest->path, "size", true, &file->size));
    VL_TRY(vl_json_get_string(object, manifest->path, "xxh3_128", true, &file->hash));
    VL_TRY(vl_json_get_bool(object, manifest->path, "table", true, &file->table));
    VL_TRY(vl_path_join(file->path, manifest->folder, name));
    return VL_OK;
}

static size_t file_count(const VlManifest *manifest) {
    return json_array_size(json_object_get(manifest->root, "files"));
}

static VlStatus check_size(const char *path, int64_t size) {
    int64_t actual;
    VL_TRY(vl_file_size(path, &actual));
    if (actual != size) {
        return vl_error(VL_FORMAT, "%s has %" PRId64 " bytes, %" PRId64 " were written: the checkpoint is damaged",
                        path, actual, size);
    }
    return VL_OK;
}

static VlStatus verify_file(const File *file) {
    char found[VL_HASH_TEXT];
    VL_TRY(check_size(file->path, file->size));
    VL_TRY(vl_hash_file(file->path, found));
    if (strcmp(found, file->hash) != 0) {
        return vl_error(VL_FORMAT, "%s does not match its hash (%s, expected %s): the checkpoint is damaged",
                        file->path, found, file->hash);
    }
    return VL_OK;
}

static VlStatus load_tables(VlManifest *manifest) {
    File file;
    size_t files = file_count(manifest);
    VL_TRY(VL_NEW(&manifest->table, (int64_t)files));
    for (size_t i = 0; i < files; i++) {
        VL_TRY(read_file(manifest, i, &file));
        if (!file.table) continue;
        VL_TRY(verify_file(&file));
        VL_TRY(vl_tensor_table_load(&manifest->table[manifest->tables], file.path));
        manifest->tables++;
    }
    if (manifest->tables == 0) return vl_error(VL_FORMAT, "%s names no tables of tensors", manifest->path);
    return VL_OK;
}

VlStatus vl_manifest_open(VlManifest *manifest, const char *folder) {
    *manifest = (VlManifest){0};
    VL_TRY(vl_path_join(manifest->folder, "", folder));
    VL_TRY(vl_path_join(manifest->path, folder, VL_MANIFEST));
    VL_TRY(vl_json_load(manifest->path, MANIFEST_LIMIT, &manifest->root));
    VlStatus status = check_manifest(manifest->root, manifest->path);
    if (status == VL_OK) status = load_tables(manifest);
    if (status != VL_OK) vl_manifest_close(manifest);
    return status;
}

void vl_manifest_close(VlManifest *manifest) {
    for (int64_t i = 0; i < manifest->tables; i++) vl_tensor_table_free(&manifest->table[i]);
    vl_free(manifest->table);
    json_decref(manifest->root);
    *manifest = (VlManifest){0};
}

VlStatus vl_manifest_verify_files(const VlManifest *manifest) {
    File file;
    for (size_t i = 0; i < file_count(manifest); i++) {
        VL_TRY(read_file(manifest, i, &file));
        if (!file.table) VL_TRY(verify_file(&file));
    }
    return VL_OK;
}

static VlStatus damaged(const VlReader *reader, const char *what) {
    return vl_error(VL_FORMAT, "%s: %s does not match its hash: the checkpoint is damaged", reader->path, what);
}

// Opens the HDF5 file of a table, which has to have its size.
static VlStatus open_file(const VlManifest *manifest, const VlTensorTable *table, VlReader *reader) {
    char path[VL_PATH_MAX];
    VL_TRY(vl_path_join(path, manifest->folder, table->file));
    VL_TRY(check_size(path, table->size));
    return vl_reader_open(reader, path);
}

VlStatus vl_manifest_verify_rest(const VlManifest *manifest, int64_t first, int64_t step) {
    for (int64_t i = first; i < manifest->tables; i += step) {
        const VlTensorTable *table = &manifest->table[i];
        char found[VL_HASH_TEXT];
        VlReader reader;
        VL_TRY(open_file(manifest, table, &reader));
        VlStatus status = vl_tensor_table_hash_rest(table, &reader, found);
        if (status == VL_OK && strcmp(found, table->hash) != 0)
            status = damaged(&reader, "what lies between the tensors");
        vl_reader_close(&reader);
        VL_TRY(status);
    }
    return VL_OK;
}

static VlStatus verify_tensor(const VlStoredTensor *tensor, const VlReader *reader) {
    char found[VL_HASH_TEXT];
    VL_TRY(vl_hash_stored_tensor(reader, tensor->offset, vl_bytes(tensor->shape), found));
    return strcmp(found, tensor->hash) == 0 ? VL_OK : damaged(reader, tensor->name);
}

VlStatus vl_manifest_verify_tensors(const VlManifest *manifest, int64_t first, int64_t step) {
    int64_t number = 0;
    for (int64_t i = 0; i < manifest->tables; i++) {
        const VlTensorTable *table = &manifest->table[i];
        VlReader reader;
        VL_TRY(open_file(manifest, table, &reader));
        VlStatus status = VL_OK;
        for (int64_t j = 0; j < table->count && status == VL_OK; j++, number++) {
            if (number % step == first) status = verify_tensor(&table->tensors[j], &reader);
        }
        vl_reader_close(&reader);
        VL_TRY(status);
    }
    return VL_OK;
}

// ---- The tensors as a set -------------------------------------------------------

#define PARAMETERS "parameters/"

typedef struct Row {
    VlSafetensorsEntry entry;
    const char *hash;
} Row;

static int compare_rows(const void *a, const void *b) {
    return strcmp(((const Row *)a)->entry.name, ((const Row *)b)->entry.name);
}

// A row for every tensor of /parameters, sorted by name; *rows holds room for all.
static VlStatus list_rows(const VlManifest *manifest, Row **rows, int64_t *count) {
    int64_t most = 0;
    for (int64_t i = 0; i < manifest->tables; i++) most += manifest->table[i].count;
    VL_TRY(VL_NEW(rows, most));
    *count = 0;
    for (int64_t i = 0; i < manifest->tables; i++) {
        for (int64_t j = 0; j < manifest->table[i].count; j++) {
            const VlStoredTensor *tensor = &manifest->table[i].tensors[j];
            if (strncmp(tensor->name, PARAMETERS, strlen(PARAMETERS)) != 0) continue;
            Row *row = &(*rows)[(*count)++];
            *row = (Row){.entry = {.name = tensor->name + strlen(PARAMETERS),
                                   .tensor = tensor->shape,
                                   .scalar = tensor->scalar,
                                   .file = i,
                                   .offset = tensor->offset},
                         .hash = tensor->hash};
        }
    }
    if (*count) qsort(*rows, (size_t)*count, sizeof **rows, compare_rows);
    for (int64_t i = 1; i < *count; i++) {
        if (compare_rows(&(*rows)[i - 1], &(*rows)[i]) == 0)
            return vl_error(VL_FORMAT, "%s holds %s twice", manifest->folder, (*rows)[i].entry.name);
    }
    return VL_OK;
}

static VlStatus open_files(const VlManifest *manifest, VlSafetensors *set) {
    VL_TRY(VL_NEW(&set->readers, manifest->tables));
    for (int64_t i = 0; i < manifest->tables; i++) {
        VL_TRY(open_file(manifest, &manifest->table[i], &set->readers[i]));
        set->files++;
    }
    return VL_OK;
}

static VlStatus fill_weights(VlWeights *weights, const char **hashes, const Row *rows, int64_t count) {
    VlSafetensors *set = &weights->safetensors;
    VL_TRY(VL_NEW(&set->entries, count));
    VL_TRY(VL_NEW(&weights->entries, count));
    for (int64_t i = 0; i < count; i++) {
        VlSafetensorsEntry *entry = &set->entries[i];
        *entry = rows[i].entry;
        entry->name = NULL;
        VL_TRY(vl_duplicate_string(&entry->name, rows[i].entry.name));
        set->count++;
        weights->entries[weights->count++] = (VlWeightsEntry){
            .name = entry->name, .tensor = entry->tensor, .scalar = entry->scalar, .file = entry->file, .position = i};
        if (hashes) hashes[i] = rows[i].hash;
    }
    return VL_OK;
}

VlStatus vl_manifest_weights(const VlManifest *manifest, VlWeights *weights, const char ***hashes) {
    Row *rows = NULL;
    int64_t count = 0;
    *weights = (VlWeights){.format = VL_WEIGHTS_SAFETENSORS};
    if (hashes) *hashes = NULL;
    VlStatus status = list_rows(manifest, &rows, &count);
    if (status == VL_OK && hashes) status = VL_NEW(hashes, count);
    if (status == VL_OK) status = open_files(manifest, &weights->safetensors);
    weights->files = weights->safetensors.files;
    if (status == VL_OK) status = fill_weights(weights, hashes ? *hashes : NULL, rows, count);
    vl_free(rows);
    if (status != VL_OK) {
        VlError error = vl_error_take(status);
        vl_weights_close(weights);
        if (hashes) vl_free(*hashes);
        return vl_error_raise(&error);
    }
    return VL_OK;
}

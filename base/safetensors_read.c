#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "base/safetensors_internal.h"
#include "base/shard_index.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor bytes are read as they stand in the file");

const char *const vl_safetensors_dtypes[VL_DTYPE_COUNT] = {
    [VL_F32] = "F32", [VL_BF16] = "BF16", [VL_F16] = "F16", [VL_F64] = "F64", [VL_I64] = "I64",
    [VL_I32] = "I32", [VL_I16] = "I16",   [VL_I8] = "I8",   [VL_U8] = "U8",   [VL_BOOL] = "BOOL",
};

void vl_safetensors_free_entries(VlSafetensorsEntry **entries, int64_t count) {
    for (int64_t i = 0; i < count; i++) vl_free((*entries)[i].name);
    vl_free(*entries);
    *entries = NULL;
}

bool vl_safetensors_bytes(VlTensor shape, int64_t *bytes) {
    int64_t total = vl_dtype_size(shape.dtype);
    for (int32_t i = 0; i < shape.dims; i++) {
        if (!vl_multiply(total, shape.dim[i], &total)) return false;
    }
    *bytes = total;
    return true;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const VlSafetensorsEntry *)a)->name, ((const VlSafetensorsEntry *)b)->name);
}

// By first byte; empty tensors, which share it with their successor, first.
static int compare_offsets(const void *a, const void *b) {
    const VlSafetensorsEntry *x = a, *y = b;
    int64_t bytes_x = vl_bytes(x->tensor), bytes_y = vl_bytes(y->tensor);
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (bytes_x > bytes_y) - (bytes_x < bytes_y);
}

// ---- One tensor's description ----------------------------------------------

static VlStatus read_dtype(const json_t *info, VlDtype *dtype) {
    const char *name = json_string_value(json_object_get(info, "dtype"));
    if (!name) return vl_error(VL_FORMAT, "\"dtype\" is missing or is no string");
    for (VlDtype i = 0; i < VL_DTYPE_COUNT; i++) {
        if (!strcmp(name, vl_safetensors_dtypes[i])) {
            *dtype = i;
            return VL_OK;
        }
    }
    return vl_error(VL_UNSUPPORTED, "the dtype \"%.40s\" is not supported", name);
}

static VlStatus read_shape(const json_t *info, VlSafetensorsEntry *entry) {
    const json_t *shape = json_object_get(info, "shape");
    if (!json_is_array(shape)) return vl_error(VL_FORMAT, "\"shape\" is missing or is no list");
    size_t dims = json_array_size(shape);
    if (dims > VL_MAX_DIMS) {
        return vl_error(VL_UNSUPPORTED, "it has %zu extents; at most %d are supported", dims, VL_MAX_DIMS);
    }
    entry->scalar = dims == 0;
    entry->tensor.dims = dims ? (int32_t)dims : 1;
    entry->tensor.dim[0] = 1;
    for (size_t i = 0; i < dims; i++) {
        const json_t *extent = json_array_get(shape, i);
        if (!json_is_integer(extent)) return vl_error(VL_FORMAT, "an extent in \"shape\" is no integer");
        if (json_integer_value(extent) < 0) {
            return vl_error(VL_FORMAT, "the extent %lld is negative", (long long)json_integer_value(extent));
        }
        entry->tensor.dim[i] = json_integer_value(extent);
    }
    return VL_OK;
}

// The first byte counted from the end of the header; the range must be what dtype and shape need.
static VlStatus read_offsets(const json_t *info, VlSafetensorsEntry *entry) {
    const json_t *offsets = json_object_get(info, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last)) {
        return vl_error(VL_FORMAT, "\"data_offsets\" is missing or is not two integers");
    }
    int64_t begin = json_integer_value(first), end = json_integer_value(last), needed;
    if (begin < 0 || end < begin) {
        return vl_error(VL_FORMAT, "the offsets [%lld, %lld) are negative or run backwards", (long long)begin,
                        (long long)end);
    }
    if (!vl_safetensors_bytes(entry->tensor, &needed)) {
        return vl_error(VL_FORMAT, "its size overflows: %s", vl_describe(entry->tensor));
    }
    if (end - begin != needed) {
        return vl_error(VL_FORMAT, "%s needs %lld bytes, but its offsets [%lld, %lld) hold %lld",
                        vl_describe(entry->tensor), (long long)needed, (long long)begin, (long long)end,
                        (long long)(end - begin));
    }
    entry->offset = begin;
    return VL_OK;
}

static VlStatus read_entry(const json_t *info, VlSafetensorsEntry *entry) {
    const char *key;
    json_t *member;
    if (!json_is_object(info)) return vl_error(VL_FORMAT, "its description is no JSON object");
    json_object_foreach((json_t *)info, key, member) {
        if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets")) {
            return vl_error(VL_FORMAT, "unknown key \"%.40s\" in its description", key);
        }
    }
    VL_TRY(read_dtype(info, &entry->tensor.dtype));
    VL_TRY(read_shape(info, entry));
    VL_TRY(read_offsets(info, entry));
    return VL_OK;
}

// ---- One file --------------------------------------------------------------

static VlStatus read_header(const VlReader *reader, json_t **header, int64_t *header_end) {
    unsigned char prefix[8];
    uint64_t length = 0;
    char *text = NULL;
    VlStatus status;
    if (reader->size < 8) {
        return vl_error(VL_FORMAT, "truncated: it has %lld bytes, fewer than the 8 that hold the header's length",
                        (long long)reader->size);
    }
    VL_TRY(vl_reader_read(reader, 0, prefix, 8));
    for (int i = 7; i >= 0; i--) length = length << 8 | prefix[i];
    if (length > VL_SAFETENSORS_HEADER_LIMIT) {
        return vl_error(VL_FORMAT, "the header claims %llu bytes; at most %d are allowed: is this a safetensors file?",
                        (unsigned long long)length, VL_SAFETENSORS_HEADER_LIMIT);
    }
    if ((int64_t)length > reader->size - 8) {
        return vl_error(VL_FORMAT, "truncated: the header claims %llu bytes, but only %lld follow",
                        (unsigned long long)length, (long long)reader->size - 8);
    }
    VL_TRY(VL_NEW(&text, (int64_t)length));
    VL_TRY_GOTO(status, vl_reader_read(reader, 8, text, (int64_t)length), done);
    if (!length || text[0] != '{') {
        VL_TRY_GOTO(status, vl_error(VL_FORMAT, "the header does not begin with '{'"), done);
    }
    VL_TRY_GOTO(status, vl_json_parse(text, (int64_t)length, "header", header), done);
    *header_end = 8 + (int64_t)length;
done:
    vl_free(text);
    return status;
}

static VlStatus check_metadata(const json_t *metadata) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) return vl_error(VL_FORMAT, "\"__metadata__\" is no object");
    json_object_foreach((json_t *)metadata, key, value) {
        if (!json_is_string(value)) return vl_error(VL_FORMAT, "\"__metadata__\": \"%.40s\" is no string", key);
    }
    return VL_OK;
}

// The tensors must fill the file from the end of the header to its last byte, one behind the other.
static VlStatus check_layout(VlSafetensorsEntry *entries, int64_t count, int64_t data_bytes) {
    int64_t end = 0;
    if (count) qsort(entries, (size_t)count, sizeof *entries, compare_offsets);
    for (int64_t i = 0; i < count; i++) {
        if (entries[i].offset != end) {
            return vl_error(VL_FORMAT, "tensor '%s' begins at %lld, %s: the tensors before it end at %lld",
                            entries[i].name, (long long)entries[i].offset,
                            entries[i].offset > end ? "which leaves a hole" : "which overlaps", (long long)end);
        }
        if (!vl_add(end, vl_bytes(entries[i].tensor), &end)) {
            return vl_error(VL_FORMAT, "the size of all tensors overflows at '%s'", entries[i].name);
        }
    }
    if (end > data_bytes) {
        return vl_error(VL_FORMAT, "truncated: the tensors need %lld bytes, but the file holds %lld", (long long)end,
                        (long long)data_bytes);
    }
    if (end < data_bytes) {
        return vl_error(VL_FORMAT, "%lld bytes behind the last tensor belong to none", (long long)(data_bytes - end));
    }
    return VL_OK;
}

// Appends the tensors of file number `file`, whose reader is open, to the set.
static VlStatus read_file_entries(VlSafetensors *set, int64_t file, int64_t *capacity) {
    VlReader *reader = &set->readers[file];
    VlStatus status;
    json_t *header = NULL, *info;
    const char *name;
    int64_t header_end = 0, first = set->count;
    VL_TRY(read_header(reader, &header, &header_end));
    json_object_foreach(header, name, info) {
        if (!strcmp(name, "__metadata__")) {
            VL_TRY_GOTO(status, check_metadata(info), done);
            continue;
        }
        VL_TRY_GOTO(status, vl_reserve(&set->entries, capacity, set->count + 1, (int64_t)sizeof *set->entries), done);
        VlSafetensorsEntry *entry = &set->entries[set->count];
        *entry = (VlSafetensorsEntry){.file = file};
        VL_TRY_GOTO(status, vl_duplicate_string(&entry->name, name), done);
        set->count++;
        status = read_entry(info, entry);
        if (status) {
            vl_error_context(status, "tensor '%.200s'", name);
            goto done;
        }
    }
    VlSafetensorsEntry *added = set->entries ? set->entries + first : NULL;  // none in a file without tensors
    VL_TRY_GOTO(status, check_layout(added, set->count - first, reader->size - header_end), done);
    for (int64_t i = first; i < set->count; i++) set->entries[i].offset += header_end;
done:
    json_decref(header);
    return status;
}

static VlStatus open_files(VlSafetensors *set, const char *folder, const char *const *names, int64_t count) {
    int64_t capacity = 0;
    char path[VL_PATH_MAX];
    VL_TRY(VL_NEW(&set->readers, count));
    for (int64_t i = 0; i < count; i++) {
        VL_TRY(vl_path_join(path, folder, names[i]));
        VL_TRY(vl_reader_open(&set->readers[i], path));
        set->files++;
        VL_TRY_CONTEXT(read_file_entries(set, i, &capacity), "%s", path);
    }
    if (set->count) qsort(set->entries, (size_t)set->count, sizeof *set->entries, compare_names);
    return VL_OK;
}

// ---- An index and its shards -----------------------------------------------

static void get_tensor(const void *set, int64_t i, const char **name, int64_t *file) {
    const VlSafetensorsEntry *entry = &((const VlSafetensors *)set)->entries[i];
    *name = entry->name;
    *file = entry->file;
}

static VlStatus open_index(VlSafetensors *set, const char *path) {
    VlShardIndex index;
    char folder[VL_PATH_MAX];
    VL_TRY(vl_path_folder(folder, path));
    VL_TRY(vl_shard_index_load(&index, path));
    VlStatus status = open_files(set, folder, index.names, index.files);
    if (!status) status = vl_shard_index_check(&index, set, set->count, get_tensor);
    vl_shard_index_free(&index);
    return status ? vl_error_context(status, "%s", path) : VL_OK;
}

// ---- Public ----------------------------------------------------------------

VlStatus vl_safetensors_open(VlSafetensors *set, const char *path) {
    char found[VL_PATH_MAX];
    *set = (VlSafetensors){0};
    VL_TRY(vl_path_join(found, NULL, path));
    if (vl_path_is_folder(path)) {
        VL_TRY(vl_path_join(found, path, "model.safetensors"));
        if (!vl_path_exists(found)) VL_TRY(vl_path_join(found, path, "model.safetensors.index.json"));
        if (!vl_path_exists(found)) {
            return vl_error(VL_IO, "the folder '%s' holds neither model.safetensors nor model.safetensors.index.json",
                            path);
        }
    }
    VlStatus status =
        vl_ends_with(found, ".index.json") ? open_index(set, found) : open_files(set, "", &(const char *){found}, 1);
    if (status) vl_safetensors_close(set);
    return status;
}

const VlSafetensorsEntry *vl_safetensors_find(const VlSafetensors *set, const char *name) {
    VlSafetensorsEntry wanted = {.name = (char *)name};
    if (!set->count) return NULL;
    return bsearch(&wanted, set->entries, (size_t)set->count, sizeof *set->entries, compare_names);
}

VlStatus vl_safetensors_read_part(const VlSafetensors *set, const VlSafetensorsEntry *entry, int64_t begin,
                                  int64_t count, void *data) {
    int64_t end, size = vl_dtype_size(entry->tensor.dtype);
    if (!vl_add(begin, count, &end) || end > vl_elements(entry->tensor)) {
        return vl_error(VL_INVALID, "tensor '%s': elements [%lld, +%lld) are not within %s", entry->name,
                        (long long)begin, (long long)count, vl_describe(entry->tensor));
    }
    VL_TRY_CONTEXT(vl_reader_read(&set->readers[entry->file], entry->offset + begin * size, data, count * size),
                   "tensor '%s'", entry->name);
    return VL_OK;
}

VlStatus vl_safetensors_read(const VlSafetensors *set, const VlSafetensorsEntry *entry, void *data) {
    return vl_safetensors_read_part(set, entry, 0, vl_elements(entry->tensor), data);
}

VlStatus vl_read_converted(const char *name, VlTensor stored, VlDtype dtype, void *data, VlReadElements *read,
                           const void *set, const void *entry) {
    enum { PIECE = 1 << 18 };  // elements converted at a time
    VlStatus status = VL_OK;
    char *piece;
    int64_t total = vl_elements(stored);
    if (dtype == stored.dtype) return read(set, entry, 0, total, data);
    if (!vl_dtype_is_floating(dtype) || !vl_dtype_is_floating(stored.dtype)) {
        return vl_error(VL_INVALID, "tensor '%s' is %s and cannot be read as %s", name, vl_dtype_name(stored.dtype),
                        vl_dtype_name(dtype));
    }
    VL_TRY(vl_allocate(&piece, total < PIECE ? total : PIECE, vl_dtype_size(stored.dtype)));
    for (int64_t begin = 0; begin < total; begin += PIECE) {
        int64_t count = total - begin < PIECE ? total - begin : PIECE;
        VL_TRY_GOTO(status, read(set, entry, begin, count, piece), done);
        vl_convert((char *)data + begin * vl_dtype_size(dtype), dtype, piece, stored.dtype, count);
    }
done:
    vl_free(piece);
    return status;
}

static VlStatus read_elements(const void *set, const void *entry, int64_t begin, int64_t count, void *data) {
    return vl_safetensors_read_part(set, entry, begin, count, data);
}

VlStatus vl_safetensors_read_as(const VlSafetensors *set, const VlSafetensorsEntry *entry, VlDtype dtype, void *data) {
    return vl_read_converted(entry->name, entry->tensor, dtype, data, read_elements, set, entry);
}

void vl_safetensors_close(VlSafetensors *set) {
    for (int64_t i = 0; i < set->files; i++) vl_reader_close(&set->readers[i]);
    vl_free(set->readers);
    vl_safetensors_free_entries(&set->entries, set->count);
    *set = (VlSafetensors){0};
}

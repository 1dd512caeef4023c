#include "train/tensor_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"

enum { TABLE_LIMIT = 256 << 20 };

VlStatus vl_tensor_table_add(VlTensorTable *table, const char *group, const char *name, VlTensor shape, bool scalar) {
    if (!*name || strcmp(name, ".") == 0 || strchr(name, '/'))
        return vl_error(VL_UNSUPPORTED, "a tensor named '%.200s' cannot be a dataset of a checkpoint", name);
    VL_TRY(vl_reserve(&table->tensors, &table->capacity, table->count + 1, (int64_t)sizeof *table->tensors));
    VlStoredTensor *tensor = &table->tensors[table->count];
    *tensor = (VlStoredTensor){.shape = shape, .scalar = scalar};
    tensor->shape.data = NULL;
    size_t size = strlen(group) + strlen(name) + 2;
    VL_TRY(vl_allocate(&tensor->name, (int64_t)size, 1));
    snprintf(tensor->name, size, "%s/%s", group, name);
    table->count++;
    return VL_OK;
}

void vl_tensor_table_free(VlTensorTable *table) {
    for (int64_t i = 0; i < table->count; i++) vl_free(table->tensors[i].name);
    vl_free(table->tensors);
    *table = (VlTensorTable){0};
}

// ---- Places -----------------------------------------------------------------

typedef struct Range {
    int64_t begin, end;
} Range;

static int compare_ranges(const void *a, const void *b) {
    const Range *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

// The tensors' ranges in the order of the file; those without a byte are left out.
static VlStatus list_ranges(const VlTensorTable *table, Range **ranges, int64_t *count) {
    VL_TRY(VL_NEW(ranges, table->count));
    *count = 0;
    for (int64_t i = 0; i < table->count; i++) {
        const VlStoredTensor *tensor = &table->tensors[i];
        int64_t bytes = vl_bytes(tensor->shape);
        if (bytes > 0) (*ranges)[(*count)++] = (Range){tensor->offset, tensor->offset + bytes};
    }
    if (*count) qsort(*ranges, (size_t)*count, sizeof **ranges, compare_ranges);
    return VL_OK;
}

VlStatus vl_tensor_table_hash_rest(const VlTensorTable *table, const VlReader *reader, char hex[VL_HASH_TEXT]) {
    Range *ranges;
    char *rest = NULL;
    int64_t count, capacity = 0, used = 0, begin = 0;
    VL_TRY(list_ranges(table, &ranges, &count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i <= count && status == VL_OK; i++) {
        int64_t end = i < count ? ranges[i].begin : reader->size;
        if (end > begin) {
            status = vl_reserve(&rest, &capacity, used + end - begin, 1);
            if (status == VL_OK) status = vl_reader_read(reader, begin, rest + used, end - begin);
            used += end - begin;
        }
        if (i < count) begin = ranges[i].end;
    }
    if (status == VL_OK) vl_hash_bytes(rest ? rest : "", used, hex);
    vl_free(rest);
    vl_free(ranges);
    return status;
}

static VlStatus check_places(const VlTensorTable *table, const char *path) {
    Range *ranges;
    int64_t count, end = 0;
    VL_TRY(list_ranges(table, &ranges, &count));
    VlStatus status = VL_OK;
    for (int64_t i = 0; i < count && status == VL_OK; i++) {
        if (ranges[i].begin < end || ranges[i].end > table->size) {
            status = vl_error(VL_FORMAT, "%s: the tensor at byte %lld lies over another one or past the end of %s",
                              path, (long long)ranges[i].begin, table->file);
        }
        end = ranges[i].end;
    }
    vl_free(ranges);
    return status;
}

// ---- As JSON ----------------------------------------------------------------

static json_t *describe(const VlStoredTensor *tensor) {
    json_t *shape = json_array();
    for (int32_t i = 0; !tensor->scalar && i < tensor->shape.dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->shape.dim[i]));
    return json_pack("{s:s, s:s, s:o, s:I, s:s}", "name", tensor->name, "dtype", vl_dtype_name(tensor->shape.dtype),
                     "shape", shape, "offset", (json_int_t)tensor->offset, "xxh3_128", tensor->hash);
}

VlStatus vl_tensor_table_save(const VlTensorTable *table, const char *path) {
    json_t *list = json_array();
    VlStatus status = list ? VL_OK : vl_error(VL_OUT_OF_MEMORY, "out of memory for %s", path);
    for (int64_t i = 0; i < table->count && status == VL_OK; i++) {
        if (json_array_append_new(list, describe(&table->tensors[i])) != 0)
            status = vl_error(VL_OUT_OF_MEMORY, "out of memory for %s", path);
    }
    json_t *root = json_pack("{s:s, s:I, s:s, s:o}", "file", table->file, "size", (json_int_t)table->size, "xxh3_128",
                             table->hash, "tensors", list);
    if (status == VL_OK && !root) status = vl_error(VL_OUT_OF_MEMORY, "out of memory for %s", path);
    if (status == VL_OK) status = vl_json_save(path, root, JSON_INDENT(1));
    json_decref(root);
    return status;
}

static VlStatus read_text(const json_t *object, const char *path, const char *key, char *out, size_t size) {
    const char *text = NULL;
    VL_TRY(vl_json_get_string(object, path, key, true, &text));
    if (strlen(text) >= size) return vl_error(VL_FORMAT, "%s: '%s' is too long", path, key);
    memcpy(out, text, strlen(text) + 1);
    return VL_OK;
}

static VlStatus read_dtype(const json_t *object, const char *path, VlDtype *dtype) {
    const char *name = NULL;
    VL_TRY(vl_json_get_string(object, path, "dtype", true, &name));
    for (int i = 0; i < VL_DTYPE_COUNT; i++) {
        *dtype = (VlDtype)i;
        if (strcmp(name, vl_dtype_name(*dtype)) == 0) return VL_OK;
    }
    return vl_error(VL_FORMAT, "%s: a tensor of dtype '%.20s'", path, name);
}

static VlStatus read_tensor(VlTensorTable *table, const json_t *object, const char *path) {
    int64_t dim[VL_MAX_DIMS] = {1};
    VlDtype dtype;
    const char *name = NULL;
    VL_TRY(vl_json_get_string(object, path, "name", true, &name));
    VL_TRY(read_dtype(object, path, &dtype));
    const json_t *shape = json_object_get(object, "shape");
    size_t dims = json_array_size(shape);
    if (!json_is_array(shape) || dims > VL_MAX_DIMS)
        return vl_error(VL_FORMAT, "%s: %.200s has no valid shape", path, name);
    int64_t bytes = vl_dtype_size(dtype);
    for (size_t i = 0; i < dims; i++) {
        dim[i] = json_integer_value(json_array_get(shape, i));
        if (!json_is_integer(json_array_get(shape, i)) || !vl_multiply(bytes, dim[i], &bytes))
            return vl_error(VL_FORMAT, "%s: %.200s has no valid shape", path, name);
    }
    const char *slash = strchr(name, '/');
    char group[64];
    if (!slash || (size_t)(slash - name) >= sizeof group)
        return vl_error(VL_FORMAT, "%s: the tensor '%.200s' is in no group", path, name);
    memcpy(group, name, (size_t)(slash - name));
    group[slash - name] = '\0';
    VL_TRY(vl_tensor_table_add(table, group, slash + 1, vl_tensor_make(NULL, dtype, dims ? (int32_t)dims : 1, dim),
                               dims == 0));
    VlStoredTensor *tensor = &table->tensors[table->count - 1];
    VL_TRY(vl_json_get_int(object, path, "offset", true, &tensor->offset));
    VL_TRY(read_text(object, path, "xxh3_128", tensor->hash, sizeof tensor->hash));
    int64_t end;
    if (!vl_add(tensor->offset, bytes, &end))
        return vl_error(VL_FORMAT, "%s: the offset of %.200s is %lld", path, name, (long long)tensor->offset);
    return VL_OK;
}

static VlStatus read_table(VlTensorTable *table, const json_t *root, const char *path) {
    VL_TRY(read_text(root, path, "file", table->file, sizeof table->file));
    if (strchr(table->file, '/')) return vl_error(VL_FORMAT, "%s: '%s' is no name of a file", path, table->file);
    VL_TRY(vl_json_get_int(root, path, "size", true, &table->size));
    VL_TRY(read_text(root, path, "xxh3_128", table->hash, sizeof table->hash));
    const json_t *list = json_object_get(root, "tensors");
    if (!json_is_array(list)) return vl_error(VL_FORMAT, "%s: 'tensors' is no list", path);
    size_t i;
    json_t *object;
    json_array_foreach(list, i, object) {
        if (!json_is_object(object)) return vl_error(VL_FORMAT, "%s: 'tensors' is no list of objects", path);
        VL_TRY(read_tensor(table, object, path));
    }
    return check_places(table, path);
}

VlStatus vl_tensor_table_load(VlTensorTable *table, const char *path) {
    json_t *root;
    *table = (VlTensorTable){0};
    VL_TRY(vl_json_load(path, TABLE_LIMIT, &root));
    VlStatus status =
        json_is_object(root) ? read_table(table, root, path) : vl_error(VL_FORMAT, "%s: not a JSON object", path);
    json_decref(root);
    if (status != VL_OK) vl_tensor_table_free(table);
    return status;
}

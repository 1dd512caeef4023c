#include "base/shard_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { INDEX_LIMIT = 100000000 };  // bytes, as for a header of safetensors

static int compare_strings(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static VlStatus find_names(VlShardIndex *index) {
    const char *tensor;
    json_t *value;
    int64_t used = 0;
    VL_TRY(vl_allocate(&index->names, (int64_t)json_object_size(index->map), (int64_t)sizeof *index->names));
    json_object_foreach((json_t *)index->map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file) return vl_error(VL_FORMAT, "weight_map: the file of '%.200s' is no string", tensor);
        if (!file[0] || strchr(file, '/') || !strcmp(file, ".") || !strcmp(file, "..")) {
            return vl_error(VL_FORMAT, "weight_map: '%.200s' is in \"%.200s\", which is no file name inside the folder",
                            tensor, file);
        }
        index->names[used++] = file;
    }
    if (used) qsort(index->names, (size_t)used, sizeof *index->names, compare_strings);
    index->files = used > 0;
    for (int64_t i = 1; i < used; i++) {
        if (strcmp(index->names[i], index->names[index->files - 1])) index->names[index->files++] = index->names[i];
    }
    return VL_OK;
}

VlStatus vl_shard_index_load(VlShardIndex *index, const char *path) {
    *index = (VlShardIndex){0};
    VL_TRY(vl_json_load(path, INDEX_LIMIT, &index->document));
    index->map = json_object_get(index->document, "weight_map");
    VlStatus status = json_is_object(index->map) ? find_names(index)
                                                 : vl_error(VL_FORMAT, "\"weight_map\" is missing or is no object");
    if (!status) return VL_OK;
    vl_shard_index_free(index);
    return vl_error_context(status, "%s", path);
}

static bool contains(const void *set, int64_t count, VlShardTensor *get, const char *wanted) {
    int64_t low = 0, high = count, file;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const char *name;
        get(set, middle, &name, &file);
        int order = strcmp(wanted, name);
        if (order == 0) return true;
        if (order < 0) high = middle;
        if (order > 0) low = middle + 1;
    }
    return false;
}

VlStatus vl_shard_index_check(const VlShardIndex *index, const void *set, int64_t count, VlShardTensor *get) {
    const char *tensor, *name, *next_name;
    json_t *value;
    int64_t file, next_file;
    for (int64_t i = 0; i < count; i++) {
        get(set, i, &name, &file);
        const char *stated = json_string_value(json_object_get(index->map, name));
        if (i + 1 < count) {
            get(set, i + 1, &next_name, &next_file);
            if (!strcmp(name, next_name)) {
                return vl_error(VL_FORMAT, "tensor '%.200s' is in two shards: %s and %s", name, index->names[file],
                                index->names[next_file]);
            }
        }
        if (!stated) {
            return vl_error(VL_FORMAT, "tensor '%.200s' of %s is not in the index", name, index->names[file]);
        }
        if (strcmp(stated, index->names[file])) {
            return vl_error(VL_FORMAT, "tensor '%.200s' is in %s, but the index names %s", name, index->names[file],
                            stated);
        }
    }
    json_object_foreach((json_t *)index->map, tensor, value) {
        if (!contains(set, count, get, tensor)) {
            return vl_error(VL_FORMAT, "tensor '%.200s' is not in %s, which the index names", tensor,
                            json_string_value(value));
        }
    }
    return VL_OK;
}

void vl_shard_index_free(VlShardIndex *index) {
    vl_free(index->names);
    json_decref(index->document);
    *index = (VlShardIndex){0};
}

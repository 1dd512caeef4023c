// The index of a model in several files (model.safetensors.index.json, pytorch_model.bin.index.json): which tensor is
// in which file of the same folder.
#ifndef VL_BASE_SHARD_INDEX_H
#define VL_BASE_SHARD_INDEX_H

#include "base/json.h"

typedef struct VlShardIndex {
    json_t *document;
    const json_t *map;  // "weight_map": tensor -> file
    int64_t files;
    const char **names;  // the distinct files, sorted; they belong to the document
} VlShardIndex;

// Reads an index; every file must be a plain name inside the folder. Errors: VL_IO, VL_FORMAT.
VlStatus vl_shard_index_load(VlShardIndex *index, const char *path);

// Name and file (a place in index->names) of tensor number i of a set.
typedef void VlShardTensor(const void *set, int64_t i, const char **name, int64_t *file);
// Index and files must tell the same: every tensor once, in the file that the index names. `get` gives the `count`
// tensors that the files hold, sorted by name. VL_FORMAT names the tensor.
VlStatus vl_shard_index_check(const VlShardIndex *index, const void *set, int64_t count, VlShardTensor *get);
void vl_shard_index_free(VlShardIndex *index);

#endif

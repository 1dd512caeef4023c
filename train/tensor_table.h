// What lies where in one HDF5 file of a checkpoint. The table is a JSON file beside it, rank-00000.json beside
// rank-00000.h5, and names dtype, extents, offset and hash (train/tensor_hash.h) of every tensor. So values are read
// and written at their offsets, in pieces, by any thread, past the HDF5 library.
#ifndef VL_TRAIN_TENSOR_TABLE_H
#define VL_TRAIN_TENSOR_TABLE_H

#include "base/tensor.h"
#include "train/tensor_hash.h"

enum { VL_TABLE_FILE = 64 };

typedef struct VlStoredTensor {
    char *name;      // group and dataset: "parameters/lm_head.weight"
    VlTensor shape;  // dtype and extents; a scalar is one extent of 1
    bool scalar;
    int64_t offset;
    char hash[VL_HASH_TEXT];
} VlStoredTensor;

typedef struct VlTensorTable {
    char file[VL_TABLE_FILE];  // name of the HDF5 file
    int64_t size;              // of the file
    char hash[VL_HASH_TEXT];   // XXH3-128 of the bytes that belong to no tensor, in order
    int64_t count, capacity;
    VlStoredTensor *tensors;
} VlTensorTable;

// Appends a tensor "group/name"; offset and hash are filled in by who writes the file. Errors: VL_UNSUPPORTED for a
// name that is no name of a dataset ("", ".", one with a slash).
VlStatus vl_tensor_table_add(VlTensorTable *table, const char *group, const char *name, VlTensor shape, bool scalar);
// table->hash from a file whose tensors have their offsets.
VlStatus vl_tensor_table_hash_rest(const VlTensorTable *table, const VlReader *reader, char hex[VL_HASH_TEXT]);
VlStatus vl_tensor_table_save(const VlTensorTable *table, const char *path);
// Checked: dtypes and extents, sizes without overflow, each tensor within the file, none over another. VL_FORMAT.
VlStatus vl_tensor_table_load(VlTensorTable *table, const char *path);
void vl_tensor_table_free(VlTensorTable *table);

#endif

// manifest.json of a checkpoint: what the checkpoint is, and name, size and XXH3-128 of every file in it. Tensors are
// in tables (train/tensor_table.h), which are such files and name the hashes of their HDF5 file. The manifest holds a
// hash of itself, too; so every byte of a checkpoint is under a hash.
#ifndef VL_TRAIN_CHECKPOINT_MANIFEST_H
#define VL_TRAIN_CHECKPOINT_MANIFEST_H

#include "base/json.h"
#include "base/weights.h"
#include "train/tensor_table.h"

#define VL_MANIFEST "manifest.json"
enum { VL_MANIFEST_VERSION = 2 };

typedef struct VlManifest {
    char folder[VL_PATH_MAX], path[VL_PATH_MAX];  // the checkpoint, and its manifest.json
    json_t *root;
    int64_t tables;
    VlTensorTable *table;
} VlManifest;

// Reads and checks the manifest and its tables; HDF5 files are not opened. Errors: VL_IO, VL_FORMAT naming the damaged
// file, VL_UNSUPPORTED for another version of the format.
VlStatus vl_manifest_open(VlManifest *manifest, const char *folder);
void vl_manifest_close(VlManifest *manifest);

// Compares the files that are no tables with their hashes.
VlStatus vl_manifest_verify_files(const VlManifest *manifest);
// Compares with their hashes the HDF5 files number `first`, `first` + `step`, ...: their size, and what lies between
// the tensors; and the tensors with such numbers, counted through all files.
VlStatus vl_manifest_verify_rest(const VlManifest *manifest, int64_t first, int64_t step);
VlStatus vl_manifest_verify_tensors(const VlManifest *manifest, int64_t first, int64_t step);

// The tensors of /parameters of all tables as a set like that of a safetensors file; hashes[i] (NULL: not wanted)
// belongs to entry i, and to the manifest. The caller frees *hashes with vl_free.
VlStatus vl_manifest_weights(const VlManifest *manifest, VlWeights *weights, const char ***hashes);

// For writing: appends FOLDER/NAME, which is there already, to root's member "files", and ends the manifest with its
// own hash and writes it. vl_manifest_write takes `root` over, whatever becomes of it.
VlStatus vl_manifest_add_file(json_t *root, const char *folder, const char *name, bool table);
VlStatus vl_manifest_write(json_t *root, const char *folder);

#endif

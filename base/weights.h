// Stored tensors, whatever the format: safetensors (base/safetensors.h) or PyTorch's files (base/torch_file.h).
#ifndef VL_BASE_WEIGHTS_H
#define VL_BASE_WEIGHTS_H

#include "base/safetensors.h"
#include "base/torch_file.h"

typedef enum VlWeightsFormat { VL_WEIGHTS_SAFETENSORS, VL_WEIGHTS_TORCH } VlWeightsFormat;

typedef struct VlWeightsEntry {
    const char *name;
    VlTensor tensor;  // dtype and extents; data is NULL. A scalar ([]) is one extent of 1.
    bool scalar;
    int64_t file;      // which file of the set: vl_weights_path
    int64_t position;  // among that file's entries (torch), or the set's (safetensors)
} VlWeightsEntry;

// One file or the shards that an index names. Entries are sorted by name; names belong to the set.
typedef struct VlWeights {
    VlWeightsFormat format;
    int64_t count;
    VlWeightsEntry *entries;
    int64_t files;
    VlSafetensors safetensors;  // the one ...
    VlTorchFile *torch;         // [files] ... or the other
} VlWeights;

// Looks for weights in a folder: model.safetensors, model.safetensors.index.json, pytorch_model.bin,
// pytorch_model.bin.index.json, in this order. `path` (VL_PATH_MAX bytes) = the first that exists, "" when the folder
// holds no weights at all. VL_UNSUPPORTED when it holds only files of other names that look like weights: to take such
// a folder for one without weights would silently train from scratch.
VlStatus vl_weights_locate(char *path, const char *folder);

// Opens PATH: a .safetensors file, a PyTorch file (any other name), an index (*.index.json, its shards in the same
// folder), or a folder as above; nothing found in it is VL_IO. Only headers are read, and everything that
// base/safetensors.h and base/torch_file.h promise is checked; index and shards must name the same tensors. Errors:
// VL_IO, VL_FORMAT, VL_UNSUPPORTED.
VlStatus vl_weights_open(VlWeights *weights, const char *path);
const VlWeightsEntry *vl_weights_find(const VlWeights *weights, const char *name);  // NULL when absent
const char *vl_weights_format_name(const VlWeights *weights);                       // "safetensors", "PyTorch"
const char *vl_weights_path(const VlWeights *weights, int64_t file);
// What file number `file` holds beside tensors, as base/torch_file.h says (BEATs' `cfg`); NULL for safetensors. The
// value belongs to the set.
const json_t *vl_weights_data(const VlWeights *weights, int64_t file);

// The tensor's elements in its own type, or elements [begin, begin + count) of it, row-major, into host memory. Any
// number of threads at a time.
VlStatus vl_weights_read(const VlWeights *weights, const VlWeightsEntry *entry, void *data);
VlStatus vl_weights_read_part(const VlWeights *weights, const VlWeightsEntry *entry, int64_t begin, int64_t count,
                              void *data);
// As f32, f64, ... (floating types only), whatever the file's type.
VlStatus vl_weights_read_as(const VlWeights *weights, const VlWeightsEntry *entry, VlDtype dtype, void *data);
// Reads all data and compares it with the checksums that the format has: CRC-32 in PyTorch's archives, none in
// safetensors (nothing is read then).
VlStatus vl_weights_verify(const VlWeights *weights);
void vl_weights_close(VlWeights *weights);

#endif

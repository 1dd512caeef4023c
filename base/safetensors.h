// The safetensors format: a reader that trusts nothing, and a writer that streams.
#ifndef VL_BASE_SAFETENSORS_H
#define VL_BASE_SAFETENSORS_H

#include "base/files.h"
#include "base/tensor.h"

typedef struct VlSafetensorsEntry {
    char *name;
    VlTensor tensor;  // dtype and extents; data is NULL. A scalar ([]) is one extent of 1.
    bool scalar;
    int64_t file;    // which file of the set
    int64_t offset;  // of the first byte in that file
} VlSafetensorsEntry;

// One file, or the shards that an index names. Entries are sorted by name.
typedef struct VlSafetensors {
    int64_t count;
    VlSafetensorsEntry *entries;
    int64_t files;
    VlReader *readers;
} VlSafetensors;

// Opens PATH: a .safetensors file, an index (*.index.json), or a folder with model.safetensors or its index.
// Checked before anything is used: header length (at most 100 MB) against the file's size, UTF-8 and JSON, known
// dtypes, extents and sizes without overflow, offsets contiguous from 0, without hole or overlap, covering the file;
// index names inside the folder, every tensor in the shard that the index names and nowhere else. Errors: VL_IO,
// VL_FORMAT.
VlStatus vl_safetensors_open(VlSafetensors *set, const char *path);
const VlSafetensorsEntry *vl_safetensors_find(const VlSafetensors *set, const char *name);  // NULL when absent
// The tensor's bytes as stored, or elements [begin, begin + count) of it, into host memory.
VlStatus vl_safetensors_read(const VlSafetensors *set, const VlSafetensorsEntry *entry, void *data);
VlStatus vl_safetensors_read_part(const VlSafetensors *set, const VlSafetensorsEntry *entry, int64_t begin,
                                  int64_t count, void *data);
// As f32, f64, ... (floating types only), whatever the file's type.
VlStatus vl_safetensors_read_as(const VlSafetensors *set, const VlSafetensorsEntry *entry, VlDtype dtype, void *data);
void vl_safetensors_close(VlSafetensors *set);

// Writing: name every tensor first, then give the bytes in the same order, in pieces of any size.
typedef struct VlSafetensorsWriter {
    VlWriter writer;
    int64_t count, capacity;
    VlSafetensorsEntry *entries;
    int64_t header_end, data_end;  // offsets in the file, known after vl_safetensors_begin
} VlSafetensorsWriter;
VlStatus vl_safetensors_create(VlSafetensorsWriter *writer, const char *path);
VlStatus vl_safetensors_declare(VlSafetensorsWriter *writer, const char *name, VlTensor shape);
VlStatus vl_safetensors_declare_scalar(VlSafetensorsWriter *writer, const char *name, VlDtype dtype);  // extents []
VlStatus vl_safetensors_begin(VlSafetensorsWriter *writer);  // writes the header; data starts at a multiple of 8
// After vl_safetensors_begin, for those who write at offsets themselves (vl_write_sparse into writer->writer.descriptor
// at header_end + entries[i].offset): the file gets its full size, as a hole, and counts as written.
VlStatus vl_safetensors_make_hole(VlSafetensorsWriter *writer);
VlStatus vl_safetensors_write(VlSafetensorsWriter *writer, const void *data, int64_t bytes);
VlStatus vl_safetensors_commit(VlSafetensorsWriter *writer);  // an error unless all declared bytes were written
void vl_safetensors_abandon(VlSafetensorsWriter *writer);

// All at once: `count` host tensors under their names.
VlStatus vl_safetensors_save(const char *path, int64_t count, const char *const *names, const VlTensor *tensors);

#endif

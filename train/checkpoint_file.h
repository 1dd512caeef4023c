// The HDF5 file of a checkpoint: datasets /parameters/NAME, and of a run /moment1/NAME and /moment2/NAME, contiguous,
// with the tensors' own extents, under Hugging Face names. The HDF5 library makes the file and its metadata; values are
// written and read at the offsets of the table beside it.
#ifndef VL_TRAIN_CHECKPOINT_FILE_H
#define VL_TRAIN_CHECKPOINT_FILE_H

#include "optim/optimizer.h"
#include "train/tensor_table.h"

// Creates PATH with a dataset for every tensor of the table, allocated and not yet written (holes), and fills in the
// table's file, size, hash and offsets. Types: f32, f64, f16 and integers are HDF5's own; bf16 is u16 and bool is u8,
// with an attribute "dtype" that says so. Not collective.
VlStatus vl_checkpoint_file_create(const char *path, VlTensorTable *table);

// Writes the trainable rows among [first, last) of the registry and their moments into FOLDER/NAME.h5, the table into
// FOLDER/NAME.json, and fsyncs both. Not collective.
VlStatus vl_checkpoint_file_save(const char *folder, const char *name, const VlOptimizer *optimizer, int64_t first,
                                 int64_t last);
// Reads the tensors of a table, whose file lies in `folder`, into the registry; with `optimizer` also the moments of
// those that train. Marks the rows that it found in found[params->count]. The hashes are not looked at.
VlStatus vl_checkpoint_file_read(const char *folder, const VlTensorTable *table, VlContext *context, VlParams *params,
                                 VlOptimizer *optimizer, bool *found);

#endif

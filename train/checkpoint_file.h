// The HDF5 file of one rank in a checkpoint: datasets /parameters/NAME, /moment1/NAME and /moment2/NAME in f32, with
// the tensor's own extents, under Hugging Face names.
#ifndef VL_TRAIN_CHECKPOINT_FILE_H
#define VL_TRAIN_CHECKPOINT_FILE_H

#include "optim/optimizer.h"

// Writes the trainable rows among [first, last) of the registry and fsyncs the file. Not collective.
VlStatus vl_checkpoint_file_write(const char *path, const VlOptimizer *optimizer, int64_t first, int64_t last);
// Reads every tensor of the file into the registry; with `optimizer` also the moments of those that train. Marks the
// rows that it found in found[params->count].
VlStatus vl_checkpoint_file_read(const char *path, VlContext *context, VlParams *params, VlOptimizer *optimizer,
                                 bool *found);

// Calls visit for every tensor: name and shape. For `vl2 info`.
typedef VlStatus (*VlTensorVisit)(void *user, const char *name, VlTensor shape);
VlStatus vl_checkpoint_file_list(const char *path, VlTensorVisit visit, void *user);

#endif

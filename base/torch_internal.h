// What the parts of the reader of PyTorch's files share.
#ifndef VL_BASE_TORCH_INTERNAL_H
#define VL_BASE_TORCH_INTERNAL_H

#include "base/pickle.h"
#include "base/torch_file.h"

enum { VL_TORCH_PICKLE_LIMIT = 64 << 20 };  // bytes

// Turns what the pickle made into the file's entries (sorted by name) and data. The storage KEY is the record
// `prefix`KEY of file->records.
VlStatus vl_torch_walk(VlTorchFile *file, const VlPickleValue *result, const char *prefix);

// Opens the format before PyTorch 1.6; file->reader is open. True if the begin of the file looks like it.
bool vl_torch_is_legacy(const unsigned char *begin, int64_t size);
VlStatus vl_torch_open_legacy(VlTorchFile *file);

#endif

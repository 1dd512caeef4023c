// What the reader and the writer of safetensors share.
#ifndef VL_BASE_SAFETENSORS_INTERNAL_H
#define VL_BASE_SAFETENSORS_INTERNAL_H

#include "base/safetensors.h"

enum { VL_SAFETENSORS_HEADER_LIMIT = 100000000 };  // bytes of JSON, as in the reference implementation

// Frees the names and the array; *entries = NULL.
void vl_safetensors_free_entries(VlSafetensorsEntry **entries, int64_t count);

// Element type names of the format ("BF16"), indexed by VlDtype.
extern const char *const vl_safetensors_dtypes[VL_DTYPE_COUNT];

// *bytes = extents * element size; false on overflow.
bool vl_safetensors_bytes(VlTensor shape, int64_t *bytes);

#endif

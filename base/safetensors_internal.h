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

// A tensor `stored` as `dtype` (both floating, or the same), in pieces from `read`, which gives elements in the stored
// type. Errors: VL_INVALID for other types; what `read` reports.
typedef VlStatus VlReadElements(const void *set, const void *entry, int64_t begin, int64_t count, void *data);
VlStatus vl_read_converted(const char *name, VlTensor stored, VlDtype dtype, void *data, VlReadElements *read,
                           const void *set, const void *entry);

#endif

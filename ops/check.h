// Steps of the checks in front of the operations (ops/check_*.c). `name` is the argument's name in ops_list.h. All give
// VL_INVALID with the name, what was given and what is needed.
#ifndef VL_OPS_CHECK_H
#define VL_OPS_CHECK_H

#include "ops/context.h"

// The tensor has `dims` extents and is f32 or bf16; it has memory unless there is nothing in it or the context plans.
VlStatus vl_check_floating(const VlContext *context, const char *name, VlTensor tensor, int32_t dims);

// The tensor has this type and these extents, and memory as above. VL_ANY as an extent allows any.
enum { VL_ANY = -1 };
VlStatus vl_check_tensor_make(const VlContext *context, const char *name, VlTensor tensor, VlDtype dtype, int32_t dims,
                              const int64_t *dim);
#define vl_check_tensor(context, name, tensor, dtype, ...)     \
    vl_check_tensor_make((context), (name), (tensor), (dtype), \
                         (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

// The tensor has type and extents of `other`, and memory as above.
VlStatus vl_check_like(const VlContext *context, const char *name, VlTensor tensor, const char *other_name,
                       VlTensor other);

// Offsets of packed sequences: offsets[count] run from 0 to `rows` without decreasing. The first reads host memory or
// an open window; the second takes a device tensor i64 [B+1], and skips what it holds where vl_indices does not know
// it.
VlStatus vl_check_offsets(const char *name, const int64_t *offsets, int64_t count, const char *rows_name, int64_t rows);
VlStatus vl_check_sequences(VlContext *context, const char *name, VlTensor offsets, const char *rows_name,
                            int64_t rows);

// The indices are in [0, bound), as far as vl_indices knows them. They have been checked to be i64.
VlStatus vl_check_indices(VlContext *context, const char *name, VlTensor indices, int64_t bound);

// The tensors share no memory. Empty views overlap nothing.
VlStatus vl_check_apart(const char *name, VlTensor tensor, const char *other_name, VlTensor other);

#endif

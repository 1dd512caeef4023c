// A tensor is a small view by value: pointer, element type, extents. Row-major and contiguous. It owns nothing.
#ifndef VL_BASE_TENSOR_H
#define VL_BASE_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

enum { VL_MAX_DIMS = 5 };

typedef struct VlTensor {
    void *data;  // device memory: only operations and the copies of ops/context.h may touch what it points to
    VlDtype dtype;
    int32_t dims;
    int64_t dim[VL_MAX_DIMS];
} VlTensor;

// "Not wanted" as a gradient, "absent" as an optional input (a bias, say).
#define VL_EMPTY ((VlTensor){0})
static inline bool vl_is_empty(VlTensor tensor) { return tensor.dims == 0; }

// vl_tensor(data, VL_F32, 2, rows, columns): extents as int64_t.
VlTensor vl_tensor_make(void *data, VlDtype dtype, int32_t dims, const int64_t *dim);
#define vl_tensor(data, dtype, ...)                                                                \
    vl_tensor_make((data), (dtype), (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
                   (int64_t[]){__VA_ARGS__})

int64_t vl_elements(VlTensor tensor);  // product of the extents; 0 for an empty view
int64_t vl_bytes(VlTensor tensor);
bool vl_same_shape(VlTensor a, VlTensor b);

// The same memory under other extents (their product must be equal), and the rows [begin, begin + count) of the
// first extent.
VlTensor vl_reshape_make(VlTensor tensor, int32_t dims, const int64_t *dim);
#define vl_reshape(tensor, ...) \
    vl_reshape_make((tensor), (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
VlTensor vl_rows(VlTensor tensor, int64_t begin, int64_t count);

// "[8,64,4096] bf16" for error texts; the buffer is this thread's and lives for eight further calls.
const char *vl_describe(VlTensor tensor);

#endif

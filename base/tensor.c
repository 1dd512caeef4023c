#include "base/tensor.h"

#include <stdio.h>

#include "base/status.h"

VlTensor vl_tensor_make(void *data, VlDtype dtype, int32_t dims, const int64_t *dim) {
    VL_ASSERT(dims >= 1 && dims <= VL_MAX_DIMS);
    VlTensor tensor = {.data = data, .dtype = dtype, .dims = dims};
    for (int32_t i = 0; i < dims; i++) {
        VL_ASSERT(dim[i] >= 0);
        tensor.dim[i] = dim[i];
    }
    return tensor;
}

int64_t vl_elements(VlTensor tensor) {
    int64_t count = tensor.dims > 0;
    for (int32_t i = 0; i < tensor.dims; i++) count *= tensor.dim[i];
    return count;
}

int64_t vl_bytes(VlTensor tensor) { return vl_elements(tensor) * vl_dtype_size(tensor.dtype); }

bool vl_same_shape(VlTensor a, VlTensor b) {
    if (a.dims != b.dims) return false;
    for (int32_t i = 0; i < a.dims; i++) {
        if (a.dim[i] != b.dim[i]) return false;
    }
    return true;
}

VlTensor vl_reshape_make(VlTensor tensor, int32_t dims, const int64_t *dim) {
    VlTensor shaped = vl_tensor_make(tensor.data, tensor.dtype, dims, dim);
    VL_ASSERT(vl_elements(shaped) == vl_elements(tensor));
    return shaped;
}

VlTensor vl_rows(VlTensor tensor, int64_t begin, int64_t count) {
    VL_ASSERT(tensor.dims >= 1 && begin >= 0 && count >= 0 && begin + count <= tensor.dim[0]);
    int64_t row = vl_dtype_size(tensor.dtype);
    for (int32_t i = 1; i < tensor.dims; i++) row *= tensor.dim[i];
    VlTensor part = tensor;
    if (part.data) part.data = (char *)tensor.data + begin * row;
    part.dim[0] = count;
    return part;
}

const char *vl_describe(VlTensor tensor) {
    static _Thread_local char buffers[8][128];
    static _Thread_local int turn;
    char *text = buffers[turn++ & 7];
    size_t used = 0;
    text[used++] = '[';
    for (int32_t i = 0; i < tensor.dims; i++) {
        used +=
            (size_t)snprintf(text + used, sizeof buffers[0] - used, "%s%lld", i ? "," : "", (long long)tensor.dim[i]);
    }
    snprintf(text + used, sizeof buffers[0] - used, "] %s", vl_dtype_name(tensor.dtype));
    return text;
}

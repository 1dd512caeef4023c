#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"

VlStatus vl_cpu_embedding_forward(VlContext *context, VlTensor y, VlTensor table, VlTensor ids) {
    int64_t bytes = y.dim[1] * vl_dtype_size(y.dtype);
    const int64_t *id = ids.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(y)))
    for (int64_t t = 0; t < y.dim[0]; t++) {
        memcpy((char *)y.data + t * bytes, (const char *)table.data + id[t] * bytes, (size_t)bytes);
    }
    return VL_OK;
}

// A thread has some columns and goes through all tokens, so the order of the sums is that of T.
VlStatus vl_cpu_embedding_backward(VlContext *context, VlTensor dtable, VlTensor dy, VlTensor ids) {
    if (vl_is_empty(dtable)) return VL_OK;
    int64_t columns = dy.dim[1], width = vl_column_block(context, columns);
    const int64_t *id = ids.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dy)))
    for (int64_t c = 0; c < columns; c += width) {
        float buffer[VL_BLOCK];
        int64_t count = vl_minimum(width, columns - c);
        for (int64_t t = 0; t < dy.dim[0]; t++) {
            float *to = (float *)dtable.data + id[t] * columns + c;
            vl_block_sum(to, to, vl_block_read(dy, t * columns + c, count, buffer), count);
        }
    }
    return VL_OK;
}

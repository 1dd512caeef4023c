// add_tensors, zero, cast.
#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

enum { BYTES = 1 << 16 };  // moved by a thread at a time

VL_VECTORISED static void scale_and_add(float *y, const float *a, float scale, const float *b, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = scale * a[i] + b[i];
}

VL_VECTORISED static void multiply(float *y, const float *a, float scale, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = scale * a[i];
}

VlStatus vl_cpu_add_tensors(VlContext *context, VlTensor y, VlTensor a, float scale, VlTensor b) {
    int64_t elements = vl_elements(y);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, elements))
    for (int64_t start = 0; start < elements; start += VL_BLOCK) {
        float buffers[3][VL_BLOCK];
        int64_t count = vl_minimum(VL_BLOCK, elements - start);
        float *to = vl_block_target(y, start, VL_WRITE, buffers[0]);
        const float *from = vl_block_read(a, start, count, buffers[1]);
        if (vl_is_empty(b)) {
            multiply(to, from, scale, count);
        } else {
            scale_and_add(to, from, scale, vl_block_read(b, start, count, buffers[2]), count);
        }
        vl_block_write(y, start, count, VL_WRITE, to);
    }
    return VL_OK;
}

VlStatus vl_cpu_zero(VlContext *context, VlTensor y) {
    int64_t bytes = vl_bytes(y);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, bytes / 4))
    for (int64_t start = 0; start < bytes; start += BYTES) {
        memset((char *)y.data + start, 0, (size_t)vl_minimum(BYTES, bytes - start));
    }
    return VL_OK;
}

static void copy(VlContext *context, VlTensor y, VlTensor x) {
    int64_t bytes = vl_bytes(y);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, bytes / 4))
    for (int64_t start = 0; start < bytes; start += BYTES) {
        memcpy((char *)y.data + start, (const char *)x.data + start, (size_t)vl_minimum(BYTES, bytes - start));
    }
}

VlStatus vl_cpu_cast(VlContext *context, VlTensor y, VlTensor x) {
    if (y.dtype == x.dtype) {
        copy(context, y, x);
        return VL_OK;
    }
    int64_t elements = vl_elements(y);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, elements))
    for (int64_t start = 0; start < elements; start += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, elements - start);
        if (y.dtype == VL_F32) {
            vl_block_widen((float *)y.data + start, (const VlBf16 *)x.data + start, count);
        } else {
            vl_block_write(y, start, count, VL_WRITE, (const float *)x.data + start);
        }
    }
    return VL_OK;
}

#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

VL_VECTORISED static void add_scaled(float *sum, float scale, const float *x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) sum[i] += scale * x[i];
}

VL_VECTORISED static void scale_to(float *y, float scale, const float *x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = scale * x[i];
}

VL_VECTORISED static double dot(const float *a, const float *b, int64_t count) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

VlStatus vl_cpu_combine_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor weights, VlTensor places,
                                VlMode mode) {
    int64_t columns = y.dim[1], chosen = weights.dim[1];
    const float *weight = weights.data;
    const int64_t *place = places.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t t = 0; t < y.dim[0]; t++) {
        for (int64_t c = 0; c < columns; c += VL_BLOCK) {
            float buffers[2][VL_BLOCK];
            int64_t start = t * columns + c, count = vl_minimum(VL_BLOCK, columns - c);
            float *sum = vl_block_target(y, start, mode, buffers[0]);
            memset(sum, 0, (size_t)count * sizeof *sum);
            for (int64_t r = t * chosen; r < (t + 1) * chosen; r++) {
                add_scaled(sum, weight[r], vl_block_read(x, place[r] * columns + c, count, buffers[1]), count);
            }
            vl_block_write(y, start, count, mode, sum);
        }
    }
    return VL_OK;
}

VlStatus vl_cpu_combine_backward(VlContext *context, VlTensor dx, VlTensor dweights, VlTensor dy, VlTensor x,
                                 VlTensor weights, VlTensor places) {
    int64_t columns = dy.dim[1], chosen = weights.dim[1];
    const float *weight = weights.data;
    const int64_t *place = places.data;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t r = 0; r < x.dim[0]; r++) {
        double sum = 0;
        for (int64_t c = 0; c < columns; c += VL_BLOCK) {
            float buffers[3][VL_BLOCK];
            int64_t row = place[r] * columns + c, count = vl_minimum(VL_BLOCK, columns - c);
            const float *upstream = vl_block_read(dy, r / chosen * columns + c, count, buffers[0]);
            if (!vl_is_empty(dweights)) sum += dot(upstream, vl_block_read(x, row, count, buffers[1]), count);
            float *to = vl_block_target(dx, row, VL_WRITE, buffers[2]);
            scale_to(to, weight[r], upstream, count);
            vl_block_write(dx, row, count, VL_WRITE, to);
        }
        if (!vl_is_empty(dweights)) ((float *)dweights.data)[r] = (float)sum;
    }
    return VL_OK;
}

#include <math.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

// Angles are computed in f64: at positions of some ten thousands an f32 angle has four digits left.
VlStatus vl_cpu_rotary_table(VlContext *context, VlTensor table, VlTensor positions, double theta) {
    enum { FREQUENCIES = 256 };
    double frequency[FREQUENCIES];
    int64_t rows = table.dim[0], half = table.dim[1] / 2;
    for (int64_t first = 0; first < half; first += FREQUENCIES) {
        int64_t count = vl_minimum(FREQUENCIES, half - first);
        for (int64_t i = 0; i < count; i++) frequency[i] = pow(theta, -(double)(first + i) / (double)half);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, 32 * vl_elements(table)))
        for (int64_t row = 0; row < rows; row++) {
            double position = (double)((const int64_t *)positions.data)[row];
            float *cosine = (float *)table.data + row * 2 * half + first, *sine = cosine + half;
            for (int64_t i = 0; i < count; i++) {
                cosine[i] = (float)cos(position * frequency[i]);
                sine[i] = (float)sin(position * frequency[i]);
            }
        }
    }
    return VL_OK;
}

// Both elements of a pair are read before they are written, which may happen in place. direction is 1, or -1 to rotate
// back.
VL_VECTORISED static void rotate(float *y1, float *y2, const float *x1, const float *x2, const float *cosine,
                                 const float *sine, float direction, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float a = x1[i], b = x2[i], s = direction * sine[i];
        y1[i] = a * cosine[i] - b * s;
        y2[i] = b * cosine[i] + a * s;
    }
}

static void rotate_row(VlTensor y, VlTensor x, VlTensor table, int64_t heads, float direction, int64_t row) {
    float buffers[4][VL_BLOCK];
    int64_t half = table.dim[1] / 2;
    const float *cosine = (const float *)table.data + row * 2 * half, *sine = cosine + half;
    for (int64_t head = 0; head < heads; head++) {
        for (int64_t i = 0; i < half; i += VL_BLOCK) {
            int64_t count = vl_minimum(VL_BLOCK, half - i), first = (row * heads + head) * 2 * half + i;
            float *to1 = vl_block_target(y, first, VL_WRITE, buffers[0]);
            float *to2 = vl_block_target(y, first + half, VL_WRITE, buffers[1]);
            rotate(to1, to2, vl_block_read(x, first, count, buffers[2]),
                   vl_block_read(x, first + half, count, buffers[3]), cosine + i, sine + i, direction, count);
            vl_block_write(y, first, count, VL_WRITE, to1);
            vl_block_write(y, first + half, count, VL_WRITE, to2);
        }
    }
}

VlStatus vl_cpu_rotary_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor table, int64_t heads) {
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t row = 0; row < x.dim[0]; row++) rotate_row(y, x, table, heads, 1.0f, row);
    return VL_OK;
}

VlStatus vl_cpu_rotary_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor table, int64_t heads) {
    if (vl_is_empty(dx)) return VL_OK;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dy)))
    for (int64_t row = 0; row < dy.dim[0]; row++) rotate_row(dx, dy, table, heads, -1.0f, row);
    return VL_OK;
}

#include <math.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

enum { TILE_ROWS = 64 };  // rows that are summed together before they are added to dw

VL_VECTORISED static float sum_of_squares(const float *x, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
    return sum;
}

VL_VECTORISED static void scale(float *y, const float *x, const float *w, float rstd, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * rstd * w[i];
}

static void forward_row(VlTensor y, VlTensor rstd, VlTensor x, VlTensor w, float eps, int64_t row) {
    float buffers[3][VL_BLOCK];
    int64_t columns = x.dim[1], start = row * columns;
    float sum = 0;
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        sum += sum_of_squares(vl_block_read(x, start + c, count, buffers[0]), count);
    }
    float factor = 1.0f / sqrtf(sum / (float)columns + eps);
    ((float *)rstd.data)[row] = factor;
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        float *to = vl_block_target(y, start + c, VL_WRITE, buffers[0]);
        scale(to, vl_block_read(x, start + c, count, buffers[1]), vl_block_read(w, c, count, buffers[2]), factor,
              count);
        vl_block_write(y, start + c, count, VL_WRITE, to);
    }
}

VlStatus vl_cpu_rmsnorm_forward(VlContext *context, VlTensor y, VlTensor rstd, VlTensor x, VlTensor w, float eps) {
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t row = 0; row < x.dim[0]; row++) forward_row(y, rstd, x, w, eps, row);
    return VL_OK;
}

VL_VECTORISED static float sum_of_products(const float *dy, const float *w, const float *x, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += dy[i] * w[i] * x[i];
    return sum;
}

VL_VECTORISED static void input_gradient(float *dx, const float *dy, const float *w, const float *x, float rstd,
                                         float projection, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) dx[i] = rstd * (dy[i] * w[i] - x[i] * projection);
}

// With g = dy * w: dx = rstd * (g - x * rstd^2 * mean(g * x)).
static void backward_row(VlTensor dx, VlTensor dy, VlTensor x, VlTensor w, VlTensor rstd, VlMode mode, int64_t row) {
    float buffers[4][VL_BLOCK];
    int64_t columns = x.dim[1], start = row * columns;
    float sum = 0, factor = ((const float *)rstd.data)[row];
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        sum += sum_of_products(vl_block_read(dy, start + c, count, buffers[0]), vl_block_read(w, c, count, buffers[1]),
                               vl_block_read(x, start + c, count, buffers[2]), count);
    }
    float projection = factor * factor * sum / (float)columns;
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        float *to = vl_block_target(dx, start + c, mode, buffers[3]);
        input_gradient(to, vl_block_read(dy, start + c, count, buffers[0]), vl_block_read(w, c, count, buffers[1]),
                       vl_block_read(x, start + c, count, buffers[2]), factor, projection, count);
        vl_block_write(dx, start + c, count, mode, to);
    }
}

VL_VECTORISED static void add_scaled_products(float *sum, const float *dy, const float *x, float rstd, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) sum[i] += dy[i] * x[i] * rstd;
}

// dw += the sum over rows [begin, end) of dy * x * rstd, in columns [c, c + count).
static void weight_gradient(VlTensor dw, VlTensor dy, VlTensor x, VlTensor rstd, int64_t begin, int64_t end, int64_t c,
                            int64_t count) {
    float buffers[2][VL_BLOCK], sum[VL_BLOCK] = {0};
    for (int64_t row = begin; row < end; row++) {
        int64_t start = row * x.dim[1] + c;
        add_scaled_products(sum, vl_block_read(dy, start, count, buffers[0]),
                            vl_block_read(x, start, count, buffers[1]), ((const float *)rstd.data)[row], count);
    }
    vl_block_write(dw, c, count, VL_ADD, sum);
}

// Tile by tile, so that the weights' gradient finds the rows of the inputs' gradient in the cache. A thread has the
// same columns in every tile, hence needs no barrier.
VlStatus vl_cpu_rmsnorm_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x, VlTensor w,
                                 VlTensor rstd, VlMode mode) {
    int64_t rows = x.dim[0], columns = x.dim[1], width = vl_column_block(context, columns);
#pragma omp parallel num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t begin = 0; begin < rows; begin += TILE_ROWS) {
        int64_t end = vl_minimum(begin + TILE_ROWS, rows);
        if (!vl_is_empty(dx)) {
#pragma omp for schedule(static) nowait
            for (int64_t row = begin; row < end; row++) backward_row(dx, dy, x, w, rstd, mode, row);
        }
        if (!vl_is_empty(dw)) {
#pragma omp for schedule(static) nowait
            for (int64_t c = 0; c < columns; c += width) {
                weight_gradient(dw, dy, x, rstd, begin, end, c, vl_minimum(width, columns - c));
            }
        }
    }
    return VL_OK;
}

#include <math.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

enum { TILE_ROWS = 64 };  // rows that are summed together before they are added to dw and db

VL_VECTORISED static float sum(const float *x, int64_t count) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; i++) total += x[i];
    return total;
}

VL_VECTORISED static float sum_of_squared_deviations(const float *x, float mean, int64_t count) {
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < count; i++) total += (x[i] - mean) * (x[i] - mean);
    return total;
}

VL_VECTORISED static void normalise(float *y, const float *x, const float *w, const float *b, float mean, float rstd,
                                    int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = (x[i] - mean) * rstd * w[i] + b[i];
}

static void forward_row(VlTensor y, VlTensor mean, VlTensor rstd, VlTensor x, VlTensor w, VlTensor b, float eps,
                        int64_t row) {
    static const float zeros[VL_BLOCK];
    float buffers[4][VL_BLOCK];
    int64_t columns = x.dim[1], start = row * columns;
    float total = 0;
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        total += sum(vl_block_read(x, start + c, count, buffers[0]), count);
    }
    float centre = total / (float)columns;
    total = 0;
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        total += sum_of_squared_deviations(vl_block_read(x, start + c, count, buffers[0]), centre, count);
    }
    float factor = 1.0f / sqrtf(total / (float)columns + eps);
    ((float *)mean.data)[row] = centre;
    ((float *)rstd.data)[row] = factor;
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        float *to = vl_block_target(y, start + c, VL_WRITE, buffers[0]);
        normalise(to, vl_block_read(x, start + c, count, buffers[1]), vl_block_read(w, c, count, buffers[2]),
                  vl_is_empty(b) ? zeros : vl_block_read(b, c, count, buffers[3]), centre, factor, count);
        vl_block_write(y, start + c, count, VL_WRITE, to);
    }
}

VlStatus vl_cpu_layernorm_forward(VlContext *context, VlTensor y, VlTensor mean, VlTensor rstd, VlTensor x, VlTensor w,
                                  VlTensor b, float eps) {
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t row = 0; row < x.dim[0]; row++) forward_row(y, mean, rstd, x, w, b, eps, row);
    return VL_OK;
}

typedef struct Sums {
    float gradient, product;
} Sums;

VL_VECTORISED static Sums sums(const float *dy, const float *w, const float *x, float mean, float rstd, int64_t count) {
    float gradient = 0, product = 0;
#pragma omp simd reduction(+ : gradient, product)
    for (int64_t i = 0; i < count; i++) {
        float g = dy[i] * w[i];
        gradient += g;
        product += g * ((x[i] - mean) * rstd);
    }
    return (Sums){gradient, product};
}

VL_VECTORISED static void input_gradient(float *dx, const float *dy, const float *w, const float *x, float mean,
                                         float rstd, Sums means, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        dx[i] = rstd * (dy[i] * w[i] - means.gradient - (x[i] - mean) * rstd * means.product);
    }
}

// With g = dy * w and n = (x - mean) * rstd: dx = rstd * (g - mean(g) - n * mean(g * n)).
static void backward_row(VlTensor dx, VlTensor dy, VlTensor x, VlTensor w, VlTensor mean, VlTensor rstd, VlMode mode,
                         int64_t row) {
    float buffers[4][VL_BLOCK];
    int64_t columns = x.dim[1], start = row * columns;
    float centre = ((const float *)mean.data)[row], factor = ((const float *)rstd.data)[row];
    Sums means = {0, 0};
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        Sums part = sums(vl_block_read(dy, start + c, count, buffers[0]), vl_block_read(w, c, count, buffers[1]),
                         vl_block_read(x, start + c, count, buffers[2]), centre, factor, count);
        means.gradient += part.gradient;
        means.product += part.product;
    }
    means.gradient /= (float)columns;
    means.product /= (float)columns;
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        float *to = vl_block_target(dx, start + c, mode, buffers[3]);
        input_gradient(to, vl_block_read(dy, start + c, count, buffers[0]), vl_block_read(w, c, count, buffers[1]),
                       vl_block_read(x, start + c, count, buffers[2]), centre, factor, means, count);
        vl_block_write(dx, start + c, count, mode, to);
    }
}

VL_VECTORISED static void add_gradients(float *dw, float *db, const float *dy, const float *x, float mean, float rstd,
                                        int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        dw[i] += dy[i] * ((x[i] - mean) * rstd);
        db[i] += dy[i];
    }
}

// dw += the sum over rows [begin, end) of dy * n, db += that of dy, in columns [c, c + count).
static void parameter_gradients(VlTensor dw, VlTensor db, VlTensor dy, VlTensor x, VlTensor mean, VlTensor rstd,
                                int64_t begin, int64_t end, int64_t c, int64_t count) {
    float buffers[2][VL_BLOCK], dw_sum[VL_BLOCK] = {0}, db_sum[VL_BLOCK] = {0};
    for (int64_t row = begin; row < end; row++) {
        int64_t start = row * x.dim[1] + c;
        add_gradients(dw_sum, db_sum, vl_block_read(dy, start, count, buffers[0]),
                      vl_block_read(x, start, count, buffers[1]), ((const float *)mean.data)[row],
                      ((const float *)rstd.data)[row], count);
    }
    vl_block_write(dw, c, count, VL_ADD, dw_sum);
    vl_block_write(db, c, count, VL_ADD, db_sum);
}

// Tile by tile, so that the parameters' gradients find the rows of the inputs' gradient in the cache. A thread has the
// same columns in every tile, hence needs no barrier.
VlStatus vl_cpu_layernorm_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x,
                                   VlTensor w, VlTensor mean, VlTensor rstd, VlMode mode) {
    int64_t rows = x.dim[0], columns = x.dim[1], width = vl_column_block(context, columns);
    bool parameters = !vl_is_empty(dw) || !vl_is_empty(db);
#pragma omp parallel num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t begin = 0; begin < rows; begin += TILE_ROWS) {
        int64_t end = vl_minimum(begin + TILE_ROWS, rows);
        if (!vl_is_empty(dx)) {
#pragma omp for schedule(static) nowait
            for (int64_t row = begin; row < end; row++) backward_row(dx, dy, x, w, mean, rstd, mode, row);
        }
        if (parameters) {
#pragma omp for schedule(static) nowait
            for (int64_t c = 0; c < columns; c += width) {
                parameter_gradients(dw, db, dy, x, mean, rstd, begin, end, c, vl_minimum(width, columns - c));
            }
        }
    }
    return VL_OK;
}

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

VL_VECTORISED static void sigmoids(float *to, const float *gate, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) to[i] = vl_sigmoid(gate[i]);
}

VL_VECTORISED static void multiply(float *y, const float *x, const float *factor, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = x[i] * factor[i];
}

VL_VECTORISED static void add_products(float *sum, const float *dy, const float *x, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) sum[i] += dy[i] * x[i];
}

VL_VECTORISED static void through_sigmoid(float *dgate, const float *sum, const float *factor, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) dgate[i] = sum[i] * factor[i] * (1.0f - factor[i]);
}

// y = x * factor in columns [c, c + count) of the rows of image n; the gradient of x is the same of dy.
static void scale_rows(VlTensor y, VlTensor x, const float *factor, int64_t n, int64_t c, int64_t count) {
    float buffers[2][VL_BLOCK];
    int64_t rows = x.dim[1], channels = x.dim[2];
    for (int64_t s = 0; s < rows; s++) {
        int64_t start = (n * rows + s) * channels + c;
        float *to = vl_block_target(y, start, VL_WRITE, buffers[0]);
        multiply(to, vl_block_read(x, start, count, buffers[1]), factor, count);
        vl_block_write(y, start, count, VL_WRITE, to);
    }
}

VlStatus vl_cpu_sigmoid_gate_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor gate) {
    int64_t channels = gate.dim[1], width = vl_column_block(context, channels);
#pragma omp parallel for collapse(2) schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t n = 0; n < gate.dim[0]; n++) {
        for (int64_t c = 0; c < channels; c += width) {
            float buffer[VL_BLOCK], factor[VL_BLOCK];
            int64_t count = vl_minimum(width, channels - c);
            sigmoids(factor, vl_block_read(gate, n * channels + c, count, buffer), count);
            scale_rows(y, x, factor, n, c, count);
        }
    }
    return VL_OK;
}

static void gate_gradient(VlTensor dgate, VlTensor dy, VlTensor x, const float *factor, int64_t n, int64_t c,
                          int64_t count) {
    float buffers[2][VL_BLOCK], sum[VL_BLOCK] = {0};
    int64_t rows = x.dim[1], channels = x.dim[2];
    for (int64_t s = 0; s < rows; s++) {
        int64_t start = (n * rows + s) * channels + c;
        add_products(sum, vl_block_read(dy, start, count, buffers[0]), vl_block_read(x, start, count, buffers[1]),
                     count);
    }
    float *to = vl_block_target(dgate, n * channels + c, VL_WRITE, buffers[0]);
    through_sigmoid(to, sum, factor, count);
    vl_block_write(dgate, n * channels + c, count, VL_WRITE, to);
}

VlStatus vl_cpu_sigmoid_gate_backward(VlContext *context, VlTensor dx, VlTensor dgate, VlTensor dy, VlTensor x,
                                      VlTensor gate) {
    int64_t channels = gate.dim[1], width = vl_column_block(context, channels);
#pragma omp parallel for collapse(2) schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t n = 0; n < gate.dim[0]; n++) {
        for (int64_t c = 0; c < channels; c += width) {
            float buffer[VL_BLOCK], factor[VL_BLOCK];
            int64_t count = vl_minimum(width, channels - c);
            sigmoids(factor, vl_block_read(gate, n * channels + c, count, buffer), count);
            if (!vl_is_empty(dgate)) gate_gradient(dgate, dy, x, factor, n, c, count);
            if (!vl_is_empty(dx)) scale_rows(dx, dy, factor, n, c, count);
        }
    }
    return VL_OK;
}

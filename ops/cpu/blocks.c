#include "ops/cpu/blocks.h"

#include "ops/cpu/vector_math.h"

VL_VECTORISED void vl_block_widen(float *to, const VlBf16 *from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = vl_f32_from_bf16(from[i]);
}

VL_VECTORISED static void narrow(VlBf16 *to, const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = vl_bf16_from_f32(from[i]);
}

VL_VECTORISED static void add_bf16(VlBf16 *to, const float *from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = vl_bf16_from_f32(vl_f32_from_bf16(to[i]) + from[i]);
}

void vl_block_convert(VlTensor y, int64_t start, int64_t count, VlMode mode, const float *values) {
    if (y.dtype == VL_F32) {
        vl_block_sum((float *)y.data + start, (float *)y.data + start, values, count);
    } else if (mode == VL_ADD) {
        add_bf16((VlBf16 *)y.data + start, values, count);
    } else {
        narrow((VlBf16 *)y.data + start, values, count);
    }
}

VL_VECTORISED void vl_block_sum(float *y, const float *a, const float *b, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = a[i] + b[i];
}

VL_VECTORISED void vl_block_divide(float *y, const float *x, float divisor, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) y[i] = x[i] / divisor;
}

enum { SUM_COLUMNS = 256 };

VL_VECTORISED static void add_row(double *sums, const float *row, int64_t count) {
    for (int64_t j = 0; j < count; j++) sums[j] += (double)row[j];
}

void vl_add_column_sums(VlContext *context, VlTensor db, VlTensor dy) {
    int64_t rows = dy.dim[0], columns = dy.dim[1];
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, rows *columns))
    for (int64_t begin = 0; begin < columns; begin += SUM_COLUMNS) {
        double sums[SUM_COLUMNS] = {0};
        float buffer[SUM_COLUMNS];
        int64_t count = vl_minimum(SUM_COLUMNS, columns - begin);
        for (int64_t i = 0; i < rows; i++) add_row(sums, vl_block_read(dy, i * columns + begin, count, buffer), count);
        float *to = (float *)db.data + begin;
        for (int64_t j = 0; j < count; j++) to[j] = (float)((double)to[j] + sums[j]);
    }
}

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/vector_math.h"

VlStatus vl_cpu_linear_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, VlMode mode) {
    int64_t rows = x.dim[0], in = x.dim[1], out = w.dim[0];
    VL_TRY(vl_gemm(context, (VlGemm){.m = rows,
                                     .n = out,
                                     .k = in,
                                     .a = x.data,
                                     .a_leading = in,
                                     .b = w.data,
                                     .b_leading = in,
                                     .b_transposed = true,
                                     .bias = b.data,
                                     .c = y.data,
                                     .c_leading = out,
                                     .add = mode == VL_ADD,
                                     .input = x.dtype,
                                     .output = y.dtype}));
    return VL_OK;
}

enum { SUM_COLUMNS = 256 };

VL_VECTORISED static void add_row(double *sums, const float *row, int64_t count) {
    for (int64_t j = 0; j < count; j++) sums[j] += (double)row[j];
}

// db += column sums of dy: one after the other down the rows, in f64.
static void add_column_sums(VlContext *context, VlTensor db, VlTensor dy) {
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

VlStatus vl_cpu_linear_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x,
                                VlTensor w, VlMode mode) {
    int64_t rows = dy.dim[0], in = w.dim[1], out = w.dim[0];
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_gemm(context, (VlGemm){.m = rows,
                                         .n = in,
                                         .k = out,
                                         .a = dy.data,
                                         .a_leading = out,
                                         .b = w.data,
                                         .b_leading = in,
                                         .c = dx.data,
                                         .c_leading = in,
                                         .add = mode == VL_ADD,
                                         .input = dy.dtype,
                                         .output = dx.dtype}));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_gemm(context, (VlGemm){.m = out,
                                         .n = in,
                                         .k = rows,
                                         .a = dy.data,
                                         .a_leading = out,
                                         .a_transposed = true,
                                         .b = x.data,
                                         .b_leading = in,
                                         .c = dw.data,
                                         .c_leading = in,
                                         .add = true,
                                         .input = dy.dtype,
                                         .output = VL_F32}));
    }
    if (!vl_is_empty(db)) add_column_sums(context, db, dy);
    return VL_OK;
}

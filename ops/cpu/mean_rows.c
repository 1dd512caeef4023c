#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"

VlStatus vl_cpu_mean_rows_forward(VlContext *context, VlTensor y, VlTensor x) {
    int64_t rows = x.dim[1], columns = x.dim[2], width = vl_column_block(context, columns);
#pragma omp parallel for collapse(2) schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t n = 0; n < x.dim[0]; n++) {
        for (int64_t c = 0; c < columns; c += width) {
            float buffer[VL_BLOCK], sum[VL_BLOCK] = {0};
            int64_t count = vl_minimum(width, columns - c);
            for (int64_t s = 0; s < rows; s++) {
                vl_block_sum(sum, sum, vl_block_read(x, (n * rows + s) * columns + c, count, buffer), count);
            }
            float *to = vl_block_target(y, n * columns + c, VL_WRITE, buffer);
            vl_block_divide(to, sum, (float)rows, count);
            vl_block_write(y, n * columns + c, count, VL_WRITE, to);
        }
    }
    return VL_OK;
}

VlStatus vl_cpu_mean_rows_backward(VlContext *context, VlTensor dx, VlTensor dy, VlMode mode) {
    if (vl_is_empty(dx)) return VL_OK;
    int64_t rows = dx.dim[1], columns = dx.dim[2];
#pragma omp parallel for collapse(2) schedule(static) num_threads(vl_threads_for(context, vl_elements(dx)))
    for (int64_t n = 0; n < dx.dim[0]; n++) {
        for (int64_t s = 0; s < rows; s++) {
            for (int64_t c = 0; c < columns; c += VL_BLOCK) {
                float buffers[2][VL_BLOCK];
                int64_t count = vl_minimum(VL_BLOCK, columns - c), start = (n * rows + s) * columns + c;
                float *to = vl_block_target(dx, start, mode, buffers[0]);
                vl_block_divide(to, vl_block_read(dy, n * columns + c, count, buffers[1]), (float)rows, count);
                vl_block_write(dx, start, count, mode, to);
            }
        }
    }
    return VL_OK;
}

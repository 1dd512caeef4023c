#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"

VlStatus vl_cpu_vit_embedding_forward(VlContext *context, VlTensor y, VlTensor patches, VlTensor class_token,
                                      VlTensor position) {
    int64_t rows = y.dim[1], columns = y.dim[2], extra = rows - patches.dim[1];
#pragma omp parallel for collapse(2) schedule(static) num_threads(vl_threads_for(context, vl_elements(y)))
    for (int64_t n = 0; n < y.dim[0]; n++) {
        for (int64_t row = 0; row < rows; row++) {
            VlTensor from = row < extra ? class_token : patches;
            int64_t from_start = row < extra ? 0 : (n * (rows - extra) + row - extra) * columns;
            for (int64_t c = 0; c < columns; c += VL_BLOCK) {
                float buffers[3][VL_BLOCK];
                int64_t count = vl_minimum(VL_BLOCK, columns - c), start = (n * rows + row) * columns + c;
                float *to = vl_block_target(y, start, VL_WRITE, buffers[0]);
                vl_block_sum(to, vl_block_read(from, from_start + c, count, buffers[1]),
                             vl_block_read(position, row * columns + c, count, buffers[2]), count);
                vl_block_write(y, start, count, VL_WRITE, to);
            }
        }
    }
    return VL_OK;
}

// The sum over the images of one row of dy goes to the position, and that of the class token to its own gradient too.
static void parameter_gradients(VlTensor dclass_token, VlTensor dposition, VlTensor dy, int64_t row) {
    float sum[VL_BLOCK], buffer[VL_BLOCK];
    int64_t rows = dy.dim[1], columns = dy.dim[2];
    for (int64_t c = 0; c < columns; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, columns - c);
        memset(sum, 0, sizeof sum);
        for (int64_t n = 0; n < dy.dim[0]; n++) {
            vl_block_sum(sum, sum, vl_block_read(dy, (n * rows + row) * columns + c, count, buffer), count);
        }
        vl_block_write(dposition, row * columns + c, count, VL_ADD, sum);
        if (row == 0) vl_block_write(dclass_token, c, count, VL_ADD, sum);
    }
}

VlStatus vl_cpu_vit_embedding_backward(VlContext *context, VlTensor dpatches, VlTensor dclass_token, VlTensor dposition,
                                       VlTensor dy) {
    int64_t rows = dy.dim[1];
    if (!vl_is_empty(dpatches)) {
        int64_t kept = dpatches.dim[1], bytes = dy.dim[2] * vl_dtype_size(dy.dtype);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dy)))
        for (int64_t n = 0; n < dy.dim[0]; n++) {
            memcpy((char *)dpatches.data + n * kept * bytes, (const char *)dy.data + ((n + 1) * rows - kept) * bytes,
                   (size_t)(kept * bytes));
        }
    }
    int64_t summed = !vl_is_empty(dposition) ? rows : vl_is_empty(dclass_token) ? 0 : 1;
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dy)))
    for (int64_t row = 0; row < summed; row++) parameter_gradients(dclass_token, dposition, dy, row);
    return VL_OK;
}

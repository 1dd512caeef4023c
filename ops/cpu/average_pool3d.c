#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"

// One pixel of y[N,t',h',w',C], of which `index` counts all but the channels.
static void pool_pixel(VlTensor y, VlTensor x, const int64_t kernel[3], int64_t index) {
    float buffer[VL_BLOCK], sum[VL_BLOCK];
    int64_t channels = x.dim[4], size = kernel[0] * kernel[1] * kernel[2];
    int64_t w = index % y.dim[3], h = index / y.dim[3] % y.dim[2], nt = index / (y.dim[2] * y.dim[3]);
    int64_t n = nt / y.dim[1], t = nt % y.dim[1];
    for (int64_t c = 0; c < channels; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, channels - c);
        memset(sum, 0, sizeof sum);
        for (int64_t k = 0; k < size; k++) {
            int64_t from_t = t * kernel[0] + k / (kernel[1] * kernel[2]);
            int64_t from_h = h * kernel[1] + k / kernel[2] % kernel[1], from_w = w * kernel[2] + k % kernel[2];
            int64_t pixel = ((n * x.dim[1] + from_t) * x.dim[2] + from_h) * x.dim[3] + from_w;
            vl_block_sum(sum, sum, vl_block_read(x, pixel * channels + c, count, buffer), count);
        }
        float *to = vl_block_target(y, index * channels + c, VL_WRITE, buffer);
        vl_block_divide(to, sum, (float)size, count);
        vl_block_write(y, index * channels + c, count, VL_WRITE, to);
    }
}

VlStatus vl_cpu_average_pool3d_forward(VlContext *context, VlTensor y, VlTensor x, int64_t kt, int64_t kh, int64_t kw) {
    int64_t pixels = y.dim[0] * y.dim[1] * y.dim[2] * y.dim[3];
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(x)))
    for (int64_t i = 0; i < pixels; i++) pool_pixel(y, x, (const int64_t[3]){kt, kh, kw}, i);
    return VL_OK;
}

// One pixel of dx[N,T,H,W,C]: the gradient of its block's mean, or zero where no block covers it.
static void spread_pixel(VlTensor dx, VlTensor dy, const int64_t kernel[3], int64_t index) {
    float buffers[2][VL_BLOCK];
    int64_t channels = dx.dim[4], size = kernel[0] * kernel[1] * kernel[2];
    int64_t nt = index / (dx.dim[2] * dx.dim[3]), n = nt / dx.dim[1], t = nt % dx.dim[1] / kernel[0];
    int64_t h = index / dx.dim[3] % dx.dim[2] / kernel[1], w = index % dx.dim[3] / kernel[2];
    if (t >= dy.dim[1] || h >= dy.dim[2] || w >= dy.dim[3]) {
        int64_t bytes = channels * vl_dtype_size(dx.dtype);
        memset((char *)dx.data + index * bytes, 0, (size_t)bytes);
        return;
    }
    int64_t from = ((n * dy.dim[1] + t) * dy.dim[2] + h) * dy.dim[3] + w;
    for (int64_t c = 0; c < channels; c += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, channels - c);
        float *to = vl_block_target(dx, index * channels + c, VL_WRITE, buffers[0]);
        vl_block_divide(to, vl_block_read(dy, from * channels + c, count, buffers[1]), (float)size, count);
        vl_block_write(dx, index * channels + c, count, VL_WRITE, to);
    }
}

VlStatus vl_cpu_average_pool3d_backward(VlContext *context, VlTensor dx, VlTensor dy, int64_t kt, int64_t kh,
                                        int64_t kw) {
    if (vl_is_empty(dx)) return VL_OK;
    int64_t pixels = dx.dim[0] * dx.dim[1] * dx.dim[2] * dx.dim[3];
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(dx)))
    for (int64_t i = 0; i < pixels; i++) spread_pixel(dx, dy, (const int64_t[3]){kt, kh, kw}, i);
    return VL_OK;
}

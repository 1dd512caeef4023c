// Grouped convolution over time. The windows of a block of rows are laid side by side and multiplied with a group's
// weights. The gradient of x is the convolution of dy with the weights turned round, so both directions share this.
#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/scratch_sound.h"

// A block of rows of one group.
typedef struct Block {
    const int64_t *cu_seqlens;
    int64_t sequences;
    int64_t taps, width;   // of a window: K taps of I channels
    int64_t reach;         // row t's first tap is at row t - reach
    int64_t first, count;  // rows
    int64_t channel;       // first of the group
} Block;

static int64_t find_sequence(const Block *block, int64_t row) {
    int64_t low = 0, high = block->sequences - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (block->cu_seqlens[middle] <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

// windows[count, taps * width] from x[T,C]; zeros outside of a row's sequence.
static void gather_windows(VlContext *context, VlTensor windows, VlTensor x, const Block *block) {
    int64_t size = vl_dtype_size(x.dtype), piece = block->width * size, window = block->taps * piece;
#pragma omp parallel for schedule(static) \
    num_threads(vl_threads_for(context, block->count * block->taps * block->width))
    for (int64_t i = 0; i < block->count; i++) {
        int64_t row = block->first + i, sequence = find_sequence(block, row);
        int64_t begin = block->cu_seqlens[sequence], end = block->cu_seqlens[sequence + 1];
        char *to = (char *)windows.data + i * window;
        for (int64_t tap = 0; tap < block->taps; tap++, to += piece) {
            int64_t from = row - block->reach + tap;
            if (from < begin || from >= end) {
                memset(to, 0, (size_t)piece);
            } else {
                memcpy(to, (const char *)x.data + (from * x.dim[1] + block->channel) * size, (size_t)piece);
            }
        }
    }
}

// y (+)= windows of x times w (+ b), for every block of rows and every group.
static VlStatus convolve(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, Block block,
                         VlTensor windows, VlMode mode) {
    int64_t rows = x.dim[0], channels = x.dim[1], window = block.taps * block.width, size = vl_dtype_size(x.dtype);
    for (block.first = 0; block.first < rows; block.first += windows.dim[0]) {
        block.count = vl_minimum(windows.dim[0], rows - block.first);
        for (block.channel = 0; block.channel < channels; block.channel += block.width) {
            gather_windows(context, windows, x, &block);
            const char *bias = vl_is_empty(b) ? NULL : (const char *)b.data + block.channel * size;
            VL_TRY(vl_gemm(context, (VlGemm){.m = block.count,
                                             .n = block.width,
                                             .k = window,
                                             .a = windows.data,
                                             .a_leading = window,
                                             .b = (const char *)w.data + block.channel * window * size,
                                             .b_leading = window,
                                             .b_transposed = true,
                                             .bias = bias,
                                             .c = (char *)y.data + (block.first * channels + block.channel) * size,
                                             .c_leading = channels,
                                             .add = mode == VL_ADD,
                                             .input = x.dtype,
                                             .output = y.dtype}));
        }
    }
    return VL_OK;
}

static Block describe(VlTensor w, VlTensor cu_seqlens, int64_t reach) {
    return (Block){.cu_seqlens = cu_seqlens.data,
                   .sequences = cu_seqlens.dim[0] - 1,
                   .taps = w.dim[1],
                   .width = w.dim[2],
                   .reach = reach};
}

VlStatus vl_cpu_convolution1d_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b,
                                      VlTensor cu_seqlens, int64_t groups) {
    (void)groups;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor windows, turned;
    VL_TRY(vl_scratch_convolution1d(context, &windows, &turned, w, x.dim[0], false));
    VL_TRY(convolve(context, y, x, w, b, describe(w, cu_seqlens, w.dim[1] / 2), windows, VL_WRITE));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

// turned[i,K-1-k,o] = w[o,k,i] within each group of I channels.
static void turn_weights(VlContext *context, VlTensor turned, VlTensor w) {
    int64_t taps = w.dim[1], width = w.dim[2], size = vl_dtype_size(w.dtype);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(w)))
    for (int64_t channel = 0; channel < w.dim[0]; channel++) {
        int64_t group = channel / width * width, i = channel % width;
        for (int64_t tap = 0; tap < taps; tap++) {
            char *to = (char *)turned.data + (channel * taps + taps - 1 - tap) * width * size;
            const char *from = (const char *)w.data + ((group * taps + tap) * width + i) * size;
            for (int64_t o = 0; o < width; o++) memcpy(to + o * size, from + o * taps * width * size, (size_t)size);
        }
    }
}

static VlStatus add_weight_gradient(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x, Block block,
                                    VlTensor windows) {
    int64_t rows = x.dim[0], channels = x.dim[1], window = block.taps * block.width, size = vl_dtype_size(x.dtype);
    for (block.first = 0; block.first < rows; block.first += windows.dim[0]) {
        block.count = vl_minimum(windows.dim[0], rows - block.first);
        for (block.channel = 0; block.channel < channels; block.channel += block.width) {
            gather_windows(context, windows, x, &block);
            VL_TRY(
                vl_gemm(context, (VlGemm){.m = block.width,
                                          .n = window,
                                          .k = block.count,
                                          .a = (const char *)dy.data + (block.first * channels + block.channel) * size,
                                          .a_leading = channels,
                                          .a_transposed = true,
                                          .b = windows.data,
                                          .b_leading = window,
                                          .c = (float *)dw.data + block.channel * window,
                                          .c_leading = window,
                                          .add = true,
                                          .input = x.dtype,
                                          .output = VL_F32}));
        }
    }
    return VL_OK;
}

VlStatus vl_cpu_convolution1d_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy,
                                       VlTensor x, VlTensor w, VlTensor cu_seqlens, int64_t groups, VlMode mode) {
    (void)groups;
    int64_t mark = vl_arena_mark(&context->scratch), taps = w.dim[1];
    VlTensor windows, turned;
    VL_TRY(vl_scratch_convolution1d(context, &windows, &turned, w, dy.dim[0], true));
    if (!vl_is_empty(dx)) {
        turn_weights(context, turned, w);
        Block block = describe(w, cu_seqlens, taps - 1 - taps / 2);
        VL_TRY(convolve(context, dx, dy, turned, VL_EMPTY, block, windows, mode));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(add_weight_gradient(context, dw, dy, x, describe(w, cu_seqlens, taps / 2), windows));
    }
    if (!vl_is_empty(db)) vl_add_column_sums(context, db, dy);
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

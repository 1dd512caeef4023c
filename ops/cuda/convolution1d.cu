// Grouped convolution over time. Where convolution1d_tiles.cu does not serve, the windows of a block of rows are laid
// side by side and multiplied with a group's weights. The gradient of x is the convolution of dy with the weights
// turned round, so both directions share this.
#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/convolution1d_tiles.cuh"
#include "ops/cuda/gemm.cuh"
#include "ops/cuda/rows.cuh"

extern "C" {
#include "ops/scratch_sound.h"
}

// A block of rows of one group.
struct Block {
    const int64_t *cu_seqlens;
    int64_t sequences, rows;  // of all
    int64_t channels;         // of all groups
    int64_t taps, width;      // of a window: K taps of I channels
    int64_t reach;            // row t's first tap is at row t - reach
    int64_t first, count;     // rows
    int64_t channel;          // first of the group
};

static Block describe(VlTensor x, VlTensor w, VlTensor cu_seqlens, int64_t reach) {
    return {
        data_of<int64_t>(cu_seqlens), cu_seqlens.dim[0] - 1, x.dim[0], x.dim[1], w.dim[1], w.dim[2], reach, 0, 0, 0};
}

static __device__ __forceinline__ int64_t find_sequence(const Block &block, int64_t row) {
    int64_t low = 0, high = block.sequences - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (block.cu_seqlens[middle] <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

// windows[count, taps * width]; zeros outside of a row's sequence. A block of threads has a row.
template <class T, int N>
static __global__ void window_kernel(T *windows, const T *x, Block block) {
    int64_t row = block.first + blockIdx.x, sequence = find_sequence(block, row);
    int64_t begin = max(block.cu_seqlens[sequence], (int64_t)0);
    int64_t end = min(block.cu_seqlens[sequence + 1], block.rows);
    T *to = windows + blockIdx.x * block.taps * block.width;
    for (int64_t tap = threadIdx.y; tap < block.taps; tap += blockDim.y) {
        int64_t from = row - block.reach + tap;
        for (int64_t c = first_column<N>(); c < block.width; c += column_step<N>()) {
            Group<T, N> group = {};
            if (from >= begin && from < end) group = load_group<N>(x + from * block.channels + block.channel + c);
            store_group(to + tap * block.width + c, group);
        }
    }
}

static VlStatus gather_windows(VlContext *context, VlTensor windows, VlTensor x, const Block &block) {
    return with_groups(x.dtype, rows_aligned(block.width, windows, x), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(block.taps, block.width, n);
        return launch(context, window_kernel<T, n>, dim3((unsigned)block.count), grid.block, 0, data_of<T>(windows),
                      data_of<T>(x), block);
    });
}

static char *element(VlTensor tensor, int64_t index) {
    return (char *)tensor.data + index * vl_dtype_size(tensor.dtype);
}

// multiply(block) for every block of rows and every group, whose windows of x are there.
template <class Multiply>
static VlStatus for_blocks(VlContext *context, VlTensor windows, VlTensor x, Block block, Multiply multiply) {
    for (block.first = 0; block.first < block.rows; block.first += windows.dim[0]) {
        block.count = min(windows.dim[0], block.rows - block.first);
        for (block.channel = 0; block.channel < block.channels; block.channel += block.width) {
            VL_TRY(gather_windows(context, windows, x, block));
            VL_TRY(multiply(block));
        }
    }
    return VL_OK;
}

// y (+)= windows of x times w (+ b).
static VlStatus convolve(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, VlTensor cu_seqlens,
                         int64_t reach, VlTensor windows, VlMode mode) {
    if (vl_cuda_convolution1d_fits(w, y, x)) {
        return vl_cuda_convolution1d_tiles(context, y, x, w, b, cu_seqlens, reach, mode);
    }
    Block all = describe(x, w, cu_seqlens, reach);
    int64_t window = all.taps * all.width;
    return for_blocks(context, windows, x, all, [&](const Block &block) {
        return vl_cuda_gemm(context, {.m = block.count,
                                      .n = block.width,
                                      .k = window,
                                      .a = windows.data,
                                      .b = element(w, block.channel * window),
                                      .bias = vl_is_empty(b) ? NULL : element(b, block.channel),
                                      .a_leading = window,
                                      .b_leading = window,
                                      .c_leading = block.channels,
                                      .b_transposed = true,
                                      .add = mode == VL_ADD,
                                      .c = element(y, block.first * block.channels + block.channel),
                                      .input = x.dtype,
                                      .output = y.dtype});
    });
}

VlStatus vl_cuda_convolution1d_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b,
                                       VlTensor cu_seqlens, int64_t groups) {
    (void)groups;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor windows, turned;
    VL_TRY(vl_scratch_convolution1d(context, &windows, &turned, w, x.dim[0], false));
    VlStatus status = convolve(context, y, x, w, b, cu_seqlens, w.dim[1] / 2, windows, VL_WRITE);
    vl_arena_release(&context->scratch, mark);
    return status;
}

// ---- Gradients -----------------------------------------------------------------

enum { TILE = 32, DOWN = 8 };

// turned[i,K-1-k,o] = w[o,k,i] within each group of `width` channels: a tile of one tap of a group through shared
// memory.
template <class T>
static __global__ void turn_kernel(T *turned, const T *w, int64_t taps, int64_t width) {
    VL_SHARED(T, tile, TILE * (TILE + 2));
    int64_t across = (width + TILE - 1) / TILE;
    int64_t first = blockIdx.x % across * TILE, start = blockIdx.x / across % across * TILE;
    int64_t tap = blockIdx.x / (across * across) % taps, group = blockIdx.x / (across * across * taps) * width;
    int x = (int)threadIdx.x;
    for (int y = (int)threadIdx.y; y < TILE && start + y < width; y += DOWN) {
        if (first + x < width) tile[y * (TILE + 2) + x] = w[((group + start + y) * taps + tap) * width + first + x];
    }
    __syncthreads();
    for (int y = (int)threadIdx.y; y < TILE && first + y < width; y += DOWN) {
        if (start + x >= width) continue;
        turned[((group + first + y) * taps + taps - 1 - tap) * width + start + x] = tile[x * (TILE + 2) + y];
    }
}

static VlStatus turn_weights(VlContext *context, VlTensor turned, VlTensor w, int64_t groups) {
    int64_t across = (w.dim[2] + TILE - 1) / TILE;
    return with_type(w.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, turn_kernel<T>, dim3((unsigned)(across * across * w.dim[1] * groups)), dim3(TILE, DOWN),
                      0, data_of<T>(turned), data_of<T>(w), w.dim[1], w.dim[2]);
    });
}

static VlStatus add_weight_gradient(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x, VlTensor w,
                                    VlTensor cu_seqlens, VlTensor windows) {
    int64_t reach = w.dim[1] / 2, window = w.dim[1] * w.dim[2];
    if (vl_cuda_convolution1d_fits(w, dy, x) && aligned(dw)) {
        return vl_cuda_convolution1d_tiles_weights(context, dw, dy, x, cu_seqlens, reach);
    }
    return for_blocks(context, windows, x, describe(x, w, cu_seqlens, reach), [&](const Block &block) {
        return vl_cuda_gemm(context, {.m = block.width,
                                      .n = window,
                                      .k = block.count,
                                      .a = element(dy, block.first * block.channels + block.channel),
                                      .b = windows.data,
                                      .a_leading = block.channels,
                                      .b_leading = window,
                                      .c_leading = window,
                                      .a_transposed = true,
                                      .add = true,
                                      .c = element(dw, block.channel * window),
                                      .input = x.dtype,
                                      .output = VL_F32});
    });
}

static VlStatus add_bias_gradient(VlContext *context, VlTensor db, VlTensor dy) {
    return with_type(dy.dtype, [&](auto type) {
        using T = decltype(type);
        return add_column_sums(context, {{data_of<float>(db)}}, ColumnValues<T>{data_of<T>(dy), dy.dim[1]}, dy.dim[0],
                               dy.dim[1]);
    });
}

VlStatus vl_cuda_convolution1d_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy,
                                        VlTensor x, VlTensor w, VlTensor cu_seqlens, int64_t groups, VlMode mode) {
    int64_t mark = vl_arena_mark(&context->scratch), taps = w.dim[1];
    VlStatus status;
    VlTensor windows, turned;
    VL_TRY_GOTO(status, vl_scratch_convolution1d(context, &windows, &turned, w, dy.dim[0], true), done);
    if (!vl_is_empty(dx)) {
        int64_t reach = taps - 1 - taps / 2;
        VL_TRY_GOTO(status, turn_weights(context, turned, w, groups), done);
        VL_TRY_GOTO(status, convolve(context, dx, dy, turned, VlTensor{}, cu_seqlens, reach, windows, mode), done);
    }
    if (!vl_is_empty(dw)) {
        VL_TRY_GOTO(status, add_weight_gradient(context, dw, dy, x, w, cu_seqlens, windows), done);
    }
    if (!vl_is_empty(db)) VL_TRY_GOTO(status, add_bias_gradient(context, db, dy), done);
done:
    vl_arena_release(&context->scratch, mark);
    return status;
}

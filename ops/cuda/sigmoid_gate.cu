#include "ops/cuda/rows.cuh"

// A block's rows of threads take several rows of an image each, so that a sigmoid is found once for them.
enum { BLOCK_ROWS = 4 * SUM_DOWN };

template <int N, class T>
static __device__ __forceinline__ Floats<N> load_sigmoids(const T *gate) {
    Floats<N> factor = load_floats<N>(gate);
    for (int k = 0; k < N; k++) factor.at[k] = 1.0f / (1.0f + expf(-factor.at[k]));
    return factor;
}

template <class T, int N>
static __global__ void forward_kernel(T *y, const T *x, const T *gate, int64_t rows, int64_t columns, int64_t chunks,
                                      int64_t pieces) {
    int64_t c = sum_column<N>(chunks), image = blockIdx.x / chunks / pieces;
    int64_t begin = blockIdx.x / chunks % pieces * BLOCK_ROWS, end = begin + BLOCK_ROWS;
    if (c >= columns) return;
    if (end > rows) end = rows;
    Floats<N> factor = load_sigmoids<N>(gate + image * columns + c);
#pragma unroll 4
    for (int64_t row = begin + threadIdx.y; row < end; row += SUM_DOWN) {
        int64_t start = (image * rows + row) * columns + c;
        Floats<N> values = load_floats<N>(x + start);
        for (int k = 0; k < N; k++) values.at[k] *= factor.at[k];
        store_floats(y + start, values);
    }
}

VlStatus vl_cuda_sigmoid_gate_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor gate) {
    int64_t rows = x.dim[1], columns = x.dim[2], pieces = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    return with_groups(x.dtype, rows_aligned(columns, y, x, gate), [&](auto type, auto n) {
        using T = decltype(type);
        SumGrid grid = sum_grid(x.dim[0] * pieces, columns, n);
        return launch(context, forward_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(y), data_of<T>(x),
                      data_of<T>(gate), rows, columns, grid.chunks, pieces);
    });
}

// dx or dgate may be NULL: not wanted.
template <class T, int N>
static __global__ void backward_kernel(T *dx, T *dgate, const T *dy, const T *x, const T *gate, int64_t rows,
                                       int64_t columns, int64_t chunks) {
    int64_t image = blockIdx.x / chunks, c = sum_column<N>(chunks);
    Floats<N> factor = {}, sum = {};
    if (c < columns) {
        factor = load_sigmoids<N>(gate + image * columns + c);
#pragma unroll 2
        for (int64_t row = threadIdx.y; row < rows; row += SUM_DOWN) {
            int64_t start = (image * rows + row) * columns + c;
            Floats<N> d = load_floats<N>(dy + start), values = {};
            if (dgate) values = load_floats<N>(x + start);
            for (int k = 0; k < N; k++) {
                sum.at[k] += d.at[k] * values.at[k];
                d.at[k] *= factor.at[k];
            }
            if (dx) store_floats(dx + start, d);
        }
    }
    sum_down(sum);
    if (threadIdx.y > 0 || c >= columns || !dgate) return;
    for (int k = 0; k < N; k++) sum.at[k] *= factor.at[k] * (1.0f - factor.at[k]);
    store_floats(dgate + image * columns + c, sum);
}

VlStatus vl_cuda_sigmoid_gate_backward(VlContext *context, VlTensor dx, VlTensor dgate, VlTensor dy, VlTensor x,
                                       VlTensor gate) {
    if (vl_is_empty(dx) && vl_is_empty(dgate)) return VL_OK;
    int64_t rows = dy.dim[1], columns = dy.dim[2];
    return with_groups(dy.dtype, rows_aligned(columns, dx, dgate, dy, x, gate), [&](auto type, auto n) {
        using T = decltype(type);
        SumGrid grid = sum_grid(dy.dim[0], columns, n);
        return launch(context, backward_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(dx), data_of<T>(dgate),
                      data_of<T>(dy), data_of<T>(x), data_of<T>(gate), rows, columns, grid.chunks);
    });
}

#include "ops/cuda/rows.cuh"

template <class T, int N>
static __global__ void mean_kernel(T *y, const T *x, int64_t rows, int64_t columns, int64_t chunks) {
    int64_t image = blockIdx.x / chunks, c = sum_column<N>(chunks);
    Floats<N> sum = {};
    if (c < columns) {
#pragma unroll 4
        for (int64_t row = threadIdx.y; row < rows; row += SUM_DOWN) {
            Floats<N> values = load_floats<N>(x + (image * rows + row) * columns + c);
            for (int k = 0; k < N; k++) sum.at[k] += values.at[k];
        }
    }
    sum_down(sum);
    if (threadIdx.y > 0 || c >= columns) return;
    for (int k = 0; k < N; k++) sum.at[k] /= (float)rows;
    store_floats(y + image * columns + c, sum);
}

VlStatus vl_cuda_mean_rows_forward(VlContext *context, VlTensor y, VlTensor x) {
    int64_t rows = x.dim[1], columns = x.dim[2];
    return with_groups(x.dtype, rows_aligned(columns, y, x), [&](auto type, auto n) {
        using T = decltype(type);
        SumGrid grid = sum_grid(x.dim[0], columns, n);
        return launch(context, mean_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(y), data_of<T>(x), rows, columns,
                      grid.chunks);
    });
}

template <class T, int N>
static __global__ void spread_kernel(T *dx, const T *dy, int64_t images, int64_t rows, int64_t columns, bool add) {
    int64_t row = grid_row();
    if (row >= images * rows) return;
    const T *from = dy + row / rows * columns;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        Floats<N> values = load_floats<N>(from + c);
        for (int k = 0; k < N; k++) values.at[k] /= (float)rows;
        put_floats(dx + row * columns + c, values, add);
    }
}

VlStatus vl_cuda_mean_rows_backward(VlContext *context, VlTensor dx, VlTensor dy, VlMode mode) {
    if (vl_is_empty(dx)) return VL_OK;
    int64_t images = dx.dim[0], rows = dx.dim[1], columns = dx.dim[2];
    return with_groups(dx.dtype, rows_aligned(columns, dx, dy), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(images * rows, columns, n);
        return launch(context, spread_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(dx), data_of<T>(dy), images,
                      rows, columns, mode == VL_ADD);
    });
}

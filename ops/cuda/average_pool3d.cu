#include "ops/cuda/rows.cuh"

// Pixels of x[N,T,H,W,C] and of y[N,t',h',w',C], numbered without the channels.
struct Pool {
    int64_t images, extent[3], kernel[3], grid[3], channels;
};

template <class T, int N>
static __global__ void pool_kernel(T *y, const T *x, Pool p) {
    int64_t at = grid_row(), size = p.kernel[0] * p.kernel[1] * p.kernel[2];
    if (at >= p.images * p.grid[0] * p.grid[1] * p.grid[2]) return;
    int64_t w = at % p.grid[2] * p.kernel[2], h = at / p.grid[2] % p.grid[1] * p.kernel[1];
    int64_t nt = at / (p.grid[1] * p.grid[2]), n = nt / p.grid[0], t = nt % p.grid[0] * p.kernel[0];
    const T *from = x + (((n * p.extent[0] + t) * p.extent[1] + h) * p.extent[2] + w) * p.channels;
    for (int64_t c = first_column<N>(); c < p.channels; c += column_step<N>()) {
        Floats<N> sum = {};
        for (int64_t i = 0; i < p.kernel[0] * p.kernel[1]; i++) {
            const T *line = from + (i / p.kernel[1] * p.extent[1] + i % p.kernel[1]) * p.extent[2] * p.channels + c;
            for (int64_t j = 0; j < p.kernel[2]; j++) {
                Floats<N> values = load_floats<N>(line + j * p.channels);
                for (int k = 0; k < N; k++) sum.at[k] += values.at[k];
            }
        }
        for (int k = 0; k < N; k++) sum.at[k] /= (float)size;
        store_floats(y + at * p.channels + c, sum);
    }
}

// The gradient of a pixel's block, or zero where no block covers the pixel.
template <class T, int N>
static __global__ void spread_kernel(T *dx, const T *dy, Pool p) {
    int64_t at = grid_row(), size = p.kernel[0] * p.kernel[1] * p.kernel[2];
    if (at >= p.images * p.extent[0] * p.extent[1] * p.extent[2]) return;
    int64_t w = at % p.extent[2] / p.kernel[2], h = at / p.extent[2] % p.extent[1] / p.kernel[1];
    int64_t nt = at / (p.extent[1] * p.extent[2]), n = nt / p.extent[0], t = nt % p.extent[0] / p.kernel[0];
    bool covered = t < p.grid[0] && h < p.grid[1] && w < p.grid[2];
    const T *from = dy + (((n * p.grid[0] + t) * p.grid[1] + h) * p.grid[2] + w) * p.channels;
    for (int64_t c = first_column<N>(); c < p.channels; c += column_step<N>()) {
        Floats<N> values = {};
        if (covered) values = load_floats<N>(from + c);
        for (int k = 0; k < N; k++) values.at[k] /= (float)size;
        store_floats(dx + at * p.channels + c, values);
    }
}

static Pool describe(VlTensor x, VlTensor y, int64_t kt, int64_t kh, int64_t kw) {
    Pool pool = {x.dim[0], {}, {kt, kh, kw}, {}, x.dim[4]};
    for (int i = 0; i < 3; i++) {
        pool.extent[i] = x.dim[i + 1];
        pool.grid[i] = y.dim[i + 1];
    }
    return pool;
}

VlStatus vl_cuda_average_pool3d_forward(VlContext *context, VlTensor y, VlTensor x, int64_t kt, int64_t kh,
                                        int64_t kw) {
    Pool pool = describe(x, y, kt, kh, kw);
    return with_groups(x.dtype, rows_aligned(pool.channels, y, x), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(y.dim[0] * y.dim[1] * y.dim[2] * y.dim[3], pool.channels, n);
        return launch(context, pool_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(y), data_of<T>(x), pool);
    });
}

VlStatus vl_cuda_average_pool3d_backward(VlContext *context, VlTensor dx, VlTensor dy, int64_t kt, int64_t kh,
                                         int64_t kw) {
    if (vl_is_empty(dx)) return VL_OK;
    Pool pool = describe(dx, dy, kt, kh, kw);
    return with_groups(dx.dtype, rows_aligned(pool.channels, dx, dy), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(dx.dim[0] * dx.dim[1] * dx.dim[2] * dx.dim[3], pool.channels, n);
        return launch(context, spread_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(dx), data_of<T>(dy), pool);
    });
}

#include "ops/cuda/rows.cuh"

// y[N,rows,C]; the first rows - kept of an image, one or none, are the class token.
template <class T, int N>
static __global__ void forward_kernel(T *y, const T *patches, const T *class_token, const T *position, int64_t images,
                                      int64_t rows, int64_t kept, int64_t columns) {
    int64_t at = grid_row();
    if (at >= images * rows) return;
    int64_t image = at / rows, row = at % rows, patch = row - (rows - kept);
    const T *from = patch < 0 ? class_token : patches + (image * kept + patch) * columns;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        Floats<N> values = load_floats<N>(from + c), offset = load_floats<N>(position + row * columns + c);
        for (int k = 0; k < N; k++) values.at[k] += offset.at[k];
        store_floats(y + at * columns + c, values);
    }
}

VlStatus vl_cuda_vit_embedding_forward(VlContext *context, VlTensor y, VlTensor patches, VlTensor class_token,
                                       VlTensor position) {
    int64_t images = y.dim[0], rows = y.dim[1], columns = y.dim[2];
    return with_groups(y.dtype, rows_aligned(columns, y, patches, class_token, position), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(images * rows, columns, n);
        return launch(context, forward_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(y), data_of<T>(patches),
                      data_of<T>(class_token), data_of<T>(position), images, rows, patches.dim[1], columns);
    });
}

// dpatches = the last `kept` rows of every image of dy.
template <class T, int N>
static __global__ void take_kernel(T *dpatches, const T *dy, int64_t images, int64_t rows, int64_t kept,
                                   int64_t columns) {
    int64_t at = grid_row();
    if (at >= images * kept) return;
    const T *from = dy + (at / kept * rows + rows - kept + at % kept) * columns;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        store_group(dpatches + at * columns + c, load_group<N>(from + c));
    }
}

// Sums over the images; either gradient may be NULL.
template <class T, int N>
static __global__ void sum_kernel(float *dclass_token, float *dposition, const T *dy, int64_t images, int64_t rows,
                                  int64_t summed, int64_t columns) {
    int64_t row = grid_row();
    if (row >= summed) return;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        Floats<N> sum = {};
#pragma unroll 4
        for (int64_t image = 0; image < images; image++) {
            Floats<N> values = load_floats<N>(dy + (image * rows + row) * columns + c);
            for (int k = 0; k < N; k++) sum.at[k] += values.at[k];
        }
        if (dposition) put_floats(dposition + row * columns + c, sum, true);
        if (dclass_token && row == 0) put_floats(dclass_token + c, sum, true);
    }
}

VlStatus vl_cuda_vit_embedding_backward(VlContext *context, VlTensor dpatches, VlTensor dclass_token,
                                        VlTensor dposition, VlTensor dy) {
    int64_t images = dy.dim[0], rows = dy.dim[1], columns = dy.dim[2];
    int64_t kept = vl_is_empty(dpatches) ? 0 : dpatches.dim[1];
    int64_t summed = !vl_is_empty(dposition) ? rows : vl_is_empty(dclass_token) ? 0 : 1;
    return with_groups(dy.dtype, rows_aligned(columns, dpatches, dclass_token, dposition, dy), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(images * kept, columns, n);
        VL_TRY(launch(context, take_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(dpatches), data_of<T>(dy),
                      images, rows, kept, columns));
        grid = row_grid(summed, columns, n);
        return launch(context, sum_kernel<T, n>, grid.grid, grid.block, 0, data_of<float>(dclass_token),
                      data_of<float>(dposition), data_of<T>(dy), images, rows, summed, columns);
    });
}

#include "ops/cuda/row_index.cuh"

VlStatus vl_cuda_gather_rows_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor index) {
    return vl_cuda_take_rows(context, y, x, index);
}

template <class T, int N>
static __global__ void sum_kernel(T *dx, const T *dy, const int64_t *begin, const int64_t *places, int64_t rows,
                                  int64_t columns) {
    int64_t row = grid_row();
    if (row >= rows) return;
    int64_t first = begin[row], count = begin[row + 1] - first;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        Floats<N> sum = {};
        add_places<T>(sum, dy, columns, c, places + first, count);
        store_floats(dx + row * columns + c, sum);
    }
}

static VlStatus sum_rows(VlContext *context, VlTensor dx, VlTensor dy, VlPlaces places) {
    int64_t rows = dx.dim[0], columns = dx.dim[1];
    return with_groups(dx.dtype, rows_aligned(columns, dx, dy), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(rows, columns, n);
        return launch(context, sum_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(dx), data_of<T>(dy),
                      data_of<int64_t>(places.begin), data_of<int64_t>(places.places), rows, columns);
    });
}

VlStatus vl_cuda_gather_rows_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor index) {
    if (vl_is_empty(dx)) return VL_OK;
    int64_t rows = dx.dim[0], mark = vl_arena_mark(&context->scratch);
    VlPlaces places;
    VL_TRY(vl_scratch_gather_rows(context, &places, rows, dy.dim[0]));
    VlStatus status = vl_cuda_sort_places(context, places, index, rows);
    if (status == VL_OK) status = sum_rows(context, dx, dy, places);
    vl_arena_release(&context->scratch, mark);
    return status;
}

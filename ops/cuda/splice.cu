#include "ops/cuda/rows.cuh"

// The two sides; either may be missing.
template <class T>
struct Sides {
    T *text, *media;
    int64_t text_rows, media_rows;
};

// What source names; NULL where the side is missing or, noted as a fault, has no such row.
template <class T>
static __device__ __forceinline__ T *find_row(const Sides<T> &sides, int64_t source, int64_t columns, int64_t position,
                                              VlCudaFault *fault) {
    bool text = source >= 0;
    int64_t row = text ? source : -1 - source;
    if (!index_fits(fault, position, row, text ? sides.text_rows : sides.media_rows)) return NULL;
    T *side = text ? sides.text : sides.media;
    return side ? side + row * columns : NULL;
}

// Between the rows of `whole` and those of the sides.
template <class T, int N, bool TO_SIDES>
static __global__ void splice_kernel(T *whole, Sides<T> sides, const int64_t *source, int64_t rows, int64_t columns,
                                     VlCudaFault *fault) {
    int64_t row = grid_row();
    if (row >= rows) return;
    T *side = find_row(sides, source[row], columns, row, fault);
    if (!side) return;
    T *mine = whole + row * columns, *to = TO_SIDES ? side : mine;
    const T *from = TO_SIDES ? mine : side;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        store_group(to + c, load_group<N>(from + c));
    }
}

// A side that is missing has the rows that the other leaves.
template <bool TO_SIDES>
static VlStatus splice(VlContext *context, VlTensor whole, VlTensor text, VlTensor media, VlTensor source) {
    int64_t rows = whole.dim[0], columns = whole.dim[1];
    int64_t media_rows = !vl_is_empty(media) ? media.dim[0] : vl_is_empty(text) ? 0 : rows - text.dim[0];
    return with_groups(whole.dtype, rows_aligned(columns, whole, text, media), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(rows, columns, n);
        Sides<T> sides = {data_of<T>(text), data_of<T>(media), rows - media_rows, media_rows};
        return launch(context, splice_kernel<T, n, TO_SIDES>, grid.grid, grid.block, 0, data_of<T>(whole), sides,
                      data_of<int64_t>(source), rows, columns, vl_cuda_state(context)->fault);
    });
}

VlStatus vl_cuda_splice_forward(VlContext *context, VlTensor y, VlTensor text, VlTensor media, VlTensor source) {
    return splice<false>(context, y, text, media, source);
}

VlStatus vl_cuda_splice_backward(VlContext *context, VlTensor dtext, VlTensor dmedia, VlTensor dy, VlTensor source) {
    if (vl_is_empty(dtext) && vl_is_empty(dmedia)) return VL_OK;
    return splice<true>(context, dy, dtext, dmedia, source);
}

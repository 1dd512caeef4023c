#include "ops/cuda/reduce.cuh"
#include "ops/cuda/rows.cuh"

enum { THREADS = 128 };

// Where the rows of x are. An index out of range is noted; its row is left out.
struct Slots {
    const float *weights;
    const int64_t *places;
    int64_t count, chosen;
    VlCudaFault *fault;
};

static Slots slots_of(VlContext *context, VlTensor weights, VlTensor places) {
    return {data_of<float>(weights), data_of<int64_t>(places), places.dim[0], weights.dim[1],
            vl_cuda_state(context)->fault};
}

template <class T, int N>
static __global__ void sum_kernel(T *y, const T *x, Slots slots, int64_t tokens, int64_t columns, bool add) {
    int64_t token = grid_row(), first = token * slots.chosen;
    if (token >= tokens) return;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        Floats<N> sum = {};
        for (int64_t r = first; r < first + slots.chosen; r++) {
            if (!index_fits(slots.fault, r, slots.places[r], slots.count)) continue;
            Floats<N> row = load_floats<N>(x + slots.places[r] * columns + c);
            for (int k = 0; k < N; k++) sum.at[k] += slots.weights[r] * row.at[k];
        }
        put_floats(y + token * columns + c, sum, add);
    }
}

VlStatus vl_cuda_combine_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor weights, VlTensor places,
                                 VlMode mode) {
    int64_t columns = y.dim[1];
    return with_groups(y.dtype, rows_aligned(columns, y, x), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(y.dim[0], columns, n);
        return launch(context, sum_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(y), data_of<T>(x),
                      slots_of(context, weights, places), y.dim[0], columns, mode == VL_ADD);
    });
}

// A block has a slot. dx and dweights may be NULL.
template <class T, int N>
static __global__ void __launch_bounds__(THREADS)
    gradient_kernel(T *dx, float *dweights, const T *dy, const T *x, Slots slots, int64_t columns) {
    int64_t slot = blockIdx.x, place = slots.places[slot];
    if (!index_fits(slots.fault, slot, place, slots.count)) return;
    float weight = slots.weights[slot], sum = 0;
    dy += slot / slots.chosen * columns;
    for (int64_t c = threadIdx.x * N; c < columns; c += THREADS * N) {
        Floats<N> upstream = load_floats<N>(dy + c);
        if (dweights) {
            Floats<N> row = load_floats<N>(x + place * columns + c);
            for (int k = 0; k < N; k++) sum += upstream.at[k] * row.at[k];
        }
        for (int k = 0; k < N; k++) upstream.at[k] *= weight;
        if (dx) store_floats(dx + place * columns + c, upstream);
    }
    if (!dweights) return;
    sum = block_sum(sum);
    if (threadIdx.x == 0) dweights[slot] = sum;
}

VlStatus vl_cuda_combine_backward(VlContext *context, VlTensor dx, VlTensor dweights, VlTensor dy, VlTensor x,
                                  VlTensor weights, VlTensor places) {
    int64_t columns = dy.dim[1];
    if (vl_is_empty(dx) && vl_is_empty(dweights)) return VL_OK;
    return with_groups(dy.dtype, rows_aligned(columns, dx, dy, x), [&](auto type, auto n) {
        using T = decltype(type);
        return launch(context, gradient_kernel<T, n>, dim3((unsigned)x.dim[0]), dim3(THREADS), 0, data_of<T>(dx),
                      data_of<float>(dweights), data_of<T>(dy), data_of<T>(x), slots_of(context, weights, places),
                      columns);
    });
}

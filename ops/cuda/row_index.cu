#include "ops/cuda/row_index.cuh"

#include "ops/cuda/reduce.cuh"

enum { THREADS = 256, ITEMS = VL_PLACES_TILE / THREADS };

template <class T, int N>
static __global__ void take_kernel(T *y, const T *x, const int64_t *index, int64_t rows, int64_t columns, int64_t bound,
                                   VlCudaFault *fault) {
    int64_t row = grid_row();
    if (row >= rows || !index_fits(fault, row, index[row], bound)) return;
    const T *from = x + index[row] * columns;
    for (int64_t c = first_column<N>(); c < columns; c += column_step<N>()) {
        store_group(y + row * columns + c, load_group<N>(from + c));
    }
}

VlStatus vl_cuda_take_rows(VlContext *context, VlTensor y, VlTensor x, VlTensor index) {
    int64_t columns = y.dim[1];
    return with_groups(y.dtype, rows_aligned(columns, y, x), [&](auto type, auto n) {
        using T = decltype(type);
        RowGrid grid = row_grid(y.dim[0], columns, n);
        return launch(context, take_kernel<T, n>, grid.grid, grid.block, 0, data_of<T>(y), data_of<T>(x),
                      data_of<int64_t>(index), y.dim[0], columns, x.dim[0], vl_cuda_state(context)->fault);
    });
}

// ---- A counting sort ---------------------------------------------------------
//
// begin[r] counts the places of row r, then is their end; each place that is filled in moves it down by one, until it
// is their begin. begin[rows] is the end of all. The order in which a row's places are filled in depends on the
// launch's timing; the last kernel puts them in rising order. An index out of range has no place.

static __device__ __forceinline__ int64_t add_to(int64_t *counter, int64_t value) {
    return (int64_t)atomicAdd((unsigned long long *)counter, (unsigned long long)value);
}

static __global__ void count_kernel(int64_t *begin, const int64_t *index, int64_t count, int64_t rows,
                                    VlCudaFault *fault) {
    for (int64_t i = grid_index(); i < count; i += grid_stride()) {
        if (index_fits(fault, i, index[i], rows)) add_to(begin + index[i], 1);
    }
}

// The sum of each tile of VL_PLACES_TILE counts.
static __global__ void total_kernel(int64_t *totals, const int64_t *counts, int64_t count) {
    int64_t start = (int64_t)blockIdx.x * VL_PLACES_TILE, sum = 0;
    for (int64_t i = start + threadIdx.x; i < count && i < start + VL_PLACES_TILE; i += THREADS) sum += counts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) totals[blockIdx.x] = sum;
}

// counts[i] = the sum of all counts up to i; a block has a tile, a thread ITEMS neighbours of it.
static __global__ void accumulate_kernel(int64_t *counts, const int64_t *totals, int64_t count) {
    VL_SHARED(int64_t, sums, THREADS);
    int64_t before = 0, items[ITEMS], mine = 0;
    for (int64_t i = threadIdx.x; i < blockIdx.x; i += THREADS) before += totals[i];
    before = block_sum(before);
    int64_t start = (int64_t)blockIdx.x * VL_PLACES_TILE + (int64_t)threadIdx.x * ITEMS;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) items[i] = mine += start + i < count ? counts[start + i] : 0;
    sums[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned step = 1; step < THREADS; step *= 2) {
        int64_t left = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += left;
        __syncthreads();
    }
    before += sums[threadIdx.x] - mine;
#pragma unroll
    for (int i = 0; i < ITEMS; i++) {
        if (start + i < count) counts[start + i] = before + items[i];
    }
}

static __global__ void fill_kernel(int64_t *loose, int64_t *begin, const int64_t *index, int64_t count, int64_t rows) {
    for (int64_t i = grid_index(); i < count; i += grid_stride()) {
        if (index[i] >= 0 && index[i] < rows) loose[add_to(begin + index[i], -1) - 1] = i;
    }
}

// Each place goes behind those of its row that are smaller.
static __global__ void order_kernel(int64_t *places, const int64_t *loose, const int64_t *begin, const int64_t *index,
                                    int64_t rows) {
    for (int64_t i = grid_index(); i < begin[rows]; i += grid_stride()) {
        int64_t place = loose[i], row = index[place], to = begin[row];
        for (int64_t other = begin[row]; other < begin[row + 1]; other++) to += loose[other] < place;
        places[to] = place;
    }
}

VlStatus vl_cuda_sort_places(VlContext *context, VlPlaces places, VlTensor index, int64_t rows) {
    int64_t count = vl_elements(index), *begin = data_of<int64_t>(places.begin);
    int64_t *loose = data_of<int64_t>(places.loose), *totals = data_of<int64_t>(places.totals);
    const int64_t *named = data_of<int64_t>(index);
    dim3 block(THREADS), each = blocks_for(count, THREADS), tiles((unsigned)places.totals.dim[0]);
    VL_TRY(vl_cuda_zero(context, places.begin));
    VL_TRY(launch(context, count_kernel, each, block, 0, begin, named, count, rows, vl_cuda_state(context)->fault));
    VL_TRY(launch(context, total_kernel, tiles, block, 0, totals, begin, rows + 1));
    VL_TRY(launch(context, accumulate_kernel, tiles, block, 0, begin, totals, rows + 1));
    VL_TRY(launch(context, fill_kernel, each, block, 0, loose, begin, named, count, rows));
    return launch(context, order_kernel, each, block, 0, data_of<int64_t>(places.places), loose, begin, named, rows);
}

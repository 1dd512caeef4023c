// What the normalisations share: a row in the registers of the threads that compute it, sums over these threads, and
// the gradients of what all rows share.
#ifndef VL_OPS_CUDA_NORM_CUH
#define VL_OPS_CUDA_NORM_CUH

#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/groups.cuh"
#include "ops/cuda/reduce.cuh"

extern "C" {
#include "ops/scratch_norm.h"
}

// A row is shared by LANES threads: a warp, or the block. Each holds PIECES groups of N neighbouring elements; what
// lies beyond them is read again each time (BEYOND in place of the piece's number).
constexpr int NORM_THREADS = 128, PIECES = 4, BEYOND = PIECES;

template <int LANES>
static __device__ __forceinline__ int row_lane() {
    return (int)threadIdx.x % LANES;
}
// Which of the grid's groups of LANES threads this one belongs to.
template <int LANES>
static __device__ __forceinline__ int64_t row_group() {
    return grid_index() / LANES;
}

// body(piece, column) for this thread's groups of a row.
template <int N, int LANES, class Body>
static __device__ __forceinline__ void for_row(int64_t columns, Body body) {
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t c = (int64_t)(piece * LANES + row_lane<LANES>()) * N;
        if (c < columns) body(piece, c);
    }
    for (int64_t c = (int64_t)(PIECES * LANES + row_lane<LANES>()) * N; c < columns; c += LANES * N) body(BEYOND, c);
}

template <class T, int N, int LANES>
struct Row {
    Group<T, N> pieces[PIECES];
    const T *row;

    __device__ __forceinline__ Row(const T *from, int64_t columns) : row(from) {
        for (int piece = 0; piece < PIECES; piece++) {
            int64_t c = (int64_t)(piece * LANES + row_lane<LANES>()) * N;
            if (c < columns) pieces[piece] = load_group<N>(row + c);
        }
    }
    __device__ __forceinline__ Floats<N> at(int piece, int64_t c) const {
        return piece == BEYOND ? load_floats<N>(row + c) : widen(pieces[piece]);
    }
};

// Sums over the threads of a row; each of them gets all. With LANES above a warp every thread of the block calls it.
template <int LANES, int COUNT>
static __device__ __forceinline__ void row_sums(float (&values)[COUNT]) {
    for (int i = 0; i < COUNT; i++) values[i] = warp_sum(values[i]);
    if constexpr (LANES > WARP) {
        constexpr int WARPS = LANES / WARP;
        VL_SHARED(float, parts, COUNT *WARPS);
        int warp = (int)threadIdx.x / WARP;
        if (threadIdx.x % WARP == 0) {
            for (int i = 0; i < COUNT; i++) parts[i * WARPS + warp] = values[i];
        }
        __syncthreads();
        for (int i = 0; i < COUNT; i++) {
            values[i] = 0;
            for (int w = 0; w < WARPS; w++) values[i] += parts[i * WARPS + w];
        }
        __syncthreads();
    }
}

// The sums over rows that a thread keeps for its pieces of SUMS vectors.
template <int SUMS, int N>
struct PieceSums {
    Floats<N> of[SUMS][PIECES] = {};

    // parts[sum, group, column]
    template <int LANES>
    __device__ __forceinline__ void store(float *parts, int64_t group, int64_t groups, int64_t columns) const {
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            if (piece == BEYOND) return;
            for (int s = 0; s < SUMS; s++) store_floats(parts + (s * groups + group) * columns + c, of[s][piece]);
        });
    }
};

// What the groups of threads have summed: the term of add_column_sums.
template <int SUMS_>
struct GroupSums {
    static constexpr int SUMS = SUMS_;
    const float *parts;
    int64_t groups, columns;
    __device__ void operator()(int64_t group, int64_t column, float (&values)[SUMS]) const {
        for (int s = 0; s < SUMS; s++) values[s] = parts[(s * groups + group) * columns + column];
    }
};

// function(type, n, lanes): type as with_type, n elements to a group, a row shared by `lanes` threads.
template <class Function>
static VlStatus with_rows(VlTensor x, bool are_aligned, Function function) {
    int64_t columns = x.dim[1];
    return with_type(x.dtype, [&](auto type) {
        constexpr int VECTOR = 16 / (int)sizeof type;
        if (!are_aligned || columns % VECTOR) return function(type, Number<1>{}, Number<NORM_THREADS>{});
        if (columns <= PIECES * WARP * VECTOR) return function(type, Number<VECTOR>{}, Number<WARP>{});
        return function(type, Number<VECTOR>{}, Number<NORM_THREADS>{});
    });
}

// The grid for `groups` groups of `lanes` threads.
static inline dim3 blocks_for_rows(int64_t groups, int lanes) {
    return blocks_for(groups, NORM_THREADS / lanes, INT32_MAX);
}

// Rows that are taken one each, without sums over them: as many groups as there are rows, within reason.
static inline int64_t groups_for_rows(int64_t rows) {
    constexpr int64_t MOST = 1 << 24;
    return rows < MOST ? rows : MOST;
}

#endif

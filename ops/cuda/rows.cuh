// Kernels over rows of columns: a thread has N neighbouring columns, 16 bytes of them where the rows allow it, and
// neighbouring threads have neighbouring columns.
#ifndef VL_OPS_CUDA_ROWS_CUH
#define VL_OPS_CUDA_ROWS_CUH

#include "ops/cuda/groups.cuh"

// Whether rows of `columns` elements of all these tensors begin at multiples of 16 bytes; those of empty views do.
template <class... Tensors>
static bool rows_aligned(int64_t columns, Tensors... tensors) {
    return ((vl_is_empty(tensors) || vectors_fit(tensors, columns)) && ...);
}

// A block has blockDim.y rows at a time and blockDim.x groups of n of their columns.
struct RowGrid {
    dim3 grid, block;
};
static inline RowGrid row_grid(int64_t rows, int64_t columns, int n) {
    enum { THREADS = 256 };
    unsigned across = 1;
    while (across < THREADS && (int64_t)across * n < columns) across *= 2;
    unsigned down = THREADS / across;
    return {dim3(columns > 0 ? (unsigned)((rows + down - 1) / down) : 0), dim3(across, down)};
}
static __device__ __forceinline__ int64_t grid_row() { return (int64_t)blockIdx.x * blockDim.y + threadIdx.y; }
template <int N>
static __device__ __forceinline__ int64_t first_column() {
    return (int64_t)threadIdx.x * N;
}
template <int N>
static __device__ __forceinline__ int64_t column_step() {
    return (int64_t)blockDim.x * N;
}

// Sums down the rows of each of many images: a block has SUM_ACROSS groups of columns of one image, and its rows of
// threads share the image's rows.
enum { SUM_ACROSS = 32, SUM_DOWN = 16 };
struct SumGrid {
    dim3 grid, block;
    int64_t chunks;  // blocks of an image
};
static inline SumGrid sum_grid(int64_t images, int64_t columns, int n) {
    int64_t width = (int64_t)SUM_ACROSS * n, chunks = (columns + width - 1) / width;
    return {dim3((unsigned)(images * chunks)), dim3(SUM_ACROSS, SUM_DOWN), chunks};
}
// The first column of this thread.
template <int N>
static __device__ __forceinline__ int64_t sum_column(int64_t chunks) {
    return (blockIdx.x % chunks * SUM_ACROSS + threadIdx.x) * N;
}
// sum of the first row of threads += those of the other rows. Every thread of the block calls it.
template <int N>
static __device__ void sum_down(Floats<N> &sum) {
    VL_SHARED(float, parts, SUM_DOWN *SUM_ACROSS *N);
    for (int k = 0; k < N; k++) parts[(threadIdx.y * N + k) * SUM_ACROSS + threadIdx.x] = sum.at[k];
    __syncthreads();
    if (threadIdx.y > 0) return;
    for (int row = 1; row < SUM_DOWN; row++) {
        for (int k = 0; k < N; k++) sum.at[k] += parts[(row * N + k) * SUM_ACROSS + threadIdx.x];
    }
}

#endif

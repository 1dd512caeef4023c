// Sums down the columns, for gradients of what every row shares: biases, weights of norms. Two kernels: blocks of rows
// to scratch, then the blocks one after the other. The order follows from the shape alone.
#ifndef VL_OPS_CUDA_COLUMN_SUMS_CUH
#define VL_OPS_CUDA_COLUMN_SUMS_CUH

#include "ops/cuda/numeric.cuh"
#include "ops/cuda/reduce.cuh"

// What is summed, SUMS numbers for every element (row, column); values[] is written:
//   struct Product {
//       static constexpr int SUMS = 1;
//       const float *a, *b;
//       int64_t columns;
//       __device__ void operator()(int64_t row, int64_t column, float (&values)[SUMS]) const;
//   };
// Neighbouring threads have neighbouring columns of one row.

enum { COLUMN_SUMS_WARPS = 8, COLUMN_SUMS_PIECE = 8 };

// parts[sum, blockIdx.y, column]: a block has 32 columns, a lane each, and `length` rows, dealt to its warps one by
// one. Pieces are summed in f32, their sums in f64.
template <class Term>
static __global__ void column_parts_kernel(float *parts, Term term, int64_t rows, int64_t columns, int64_t length) {
    constexpr int SUMS = Term::SUMS;
    VL_SHARED(double, shared, COLUMN_SUMS_WARPS *SUMS *WARP);
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    int64_t column = (int64_t)blockIdx.x * WARP + lane, end = (blockIdx.y + (int64_t)1) * length;
    if (end > rows) end = rows;
    double totals[SUMS] = {};
    for (int64_t begin = blockIdx.y * length + warp; column < columns && begin < end;
         begin += COLUMN_SUMS_WARPS * COLUMN_SUMS_PIECE) {
        float piece[SUMS] = {};
        for (int i = 0; i < COLUMN_SUMS_PIECE; i++) {
            int64_t row = begin + i * COLUMN_SUMS_WARPS;
            float values[SUMS] = {};
            if (row < end) term(row, column, values);
            for (int s = 0; s < SUMS; s++) piece[s] += values[s];
        }
        for (int s = 0; s < SUMS; s++) totals[s] += (double)piece[s];
    }
    for (int s = 0; s < SUMS; s++) shared[(warp * SUMS + s) * WARP + lane] = totals[s];
    __syncthreads();
    if (warp > 0 || column >= columns) return;
    for (int s = 0; s < SUMS; s++) {
        double total = 0;
        for (int w = 0; w < COLUMN_SUMS_WARPS; w++) total += shared[(w * SUMS + s) * WARP + lane];
        parts[((int64_t)s * gridDim.y + blockIdx.y) * columns + column] = (float)total;
    }
}

template <int SUMS>
struct ColumnSums {
    float *of[SUMS];  // [columns] each; NULL: not wanted
};

template <int SUMS>
static __global__ void column_totals_kernel(ColumnSums<SUMS> sums, const float *parts, int64_t count, int64_t columns) {
    int64_t column = grid_index();
    if (column >= columns) return;
    for (int s = 0; s < SUMS; s++) {
        if (!sums.of[s]) continue;
        double total = 0;
        for (int64_t i = 0; i < count; i++) total += (double)parts[((int64_t)s * count + i) * columns + column];
        sums.of[s][column] += (float)total;
    }
}

// sums.of[s][column] += the sum over the rows of term(row, column)[s]. The row's check reserves its scratch:
// vl_scratch_column_sums(context, &parts, rows, columns, SUMS) of ops/scratch.h, after what the row itself has pushed.
template <class Term>
static VlStatus add_column_sums(VlContext *context, ColumnSums<Term::SUMS> sums, Term term, int64_t rows,
                                int64_t columns) {
    if (rows == 0 || columns == 0) return VL_OK;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor parts;
    VL_TRY(vl_scratch_column_sums(context, &parts, rows, columns, Term::SUMS));
    int64_t count = parts.dim[1], length = (rows + count - 1) / count;
    VlStatus status =
        launch(context, column_parts_kernel<Term>, dim3((unsigned)((columns + WARP - 1) / WARP), (unsigned)count),
               dim3(COLUMN_SUMS_WARPS * WARP), 0, data_of<float>(parts), term, rows, columns, length);
    if (status == VL_OK) {
        status = launch(context, column_totals_kernel<Term::SUMS>, blocks_for(columns, 128, INT32_MAX), dim3(128), 0,
                        sums, data_of<float>(parts), count, columns);
    }
    vl_arena_release(&context->scratch, mark);
    return status;
}

// The elements of a matrix, as they are.
template <class T>
struct ColumnValues {
    static constexpr int SUMS = 1;
    const T *values;
    int64_t columns;
    __device__ void operator()(int64_t row, int64_t column, float (&value)[SUMS]) const {
        value[0] = to_float(values[row * columns + column]);
    }
};

#endif

// What embedding and gather_rows share: rows taken by an index, and the places of each row in the index.
#ifndef VL_OPS_CUDA_ROW_INDEX_CUH
#define VL_OPS_CUDA_ROW_INDEX_CUH

#include "ops/cuda/rows.cuh"

extern "C" {
#include "ops/scratch_rows.h"
}

// y[M,C] = x[N,C] at index[M].
VlStatus vl_cuda_take_rows(VlContext *context, VlTensor y, VlTensor x, VlTensor index);

// Fills places.begin and places.places from index[M], which names `rows` rows.
VlStatus vl_cuda_sort_places(VlContext *context, VlPlaces places, VlTensor index, int64_t rows);

// sum += the rows of dy at the places, one after the other, in columns from c on.
template <class T, int N>
static __device__ __forceinline__ void add_places(Floats<N> &sum, const T *dy, int64_t columns, int64_t c,
                                                  const int64_t *places, int64_t count) {
    enum { AHEAD = 4 };  // loads under way together
    int64_t i = 0;
    for (; i + AHEAD <= count; i += AHEAD) {
        Group<T, N> rows[AHEAD];
        for (int next = 0; next < AHEAD; next++) rows[next] = load_group<N>(dy + places[i + next] * columns + c);
        for (int next = 0; next < AHEAD; next++) {
            for (int k = 0; k < N; k++) sum.at[k] += to_float(rows[next].at[k]);
        }
    }
    for (; i < count; i++) {
        Floats<N> row = load_floats<N>(dy + places[i] * columns + c);
        for (int k = 0; k < N; k++) sum.at[k] += row.at[k];
    }
}

#endif

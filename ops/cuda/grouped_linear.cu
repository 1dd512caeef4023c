#include "ops/cuda/grouped_linear.cuh"

#include "ops/cuda/numeric.cuh"

// Plain multiply-adds: f32, and bf16 with rows that are no whole pieces of 16 bytes. A block has a tile of SIDE x SIDE,
// a thread MINE x MINE of it; the sums go DEPTH terms at a time through shared memory.
enum { SIDE = 64, DEPTH = 16, MINE = 4, ACROSS = SIDE / MINE, THREADS = ACROSS * ACROSS, STRIDE = SIDE + 4 };

// c[i,j] (+)= the sum over k of a[i,k] b[k,j], i below m, j below n, k below terms. Strides in elements.
template <class T, class C>
struct Product {
    C *c;
    const T *a, *b;
    int64_t m, n, terms, c_row, a_row, a_term, b_term, b_column;
    bool add;
};

// to[DEPTH][SIDE] = terms from `term` on of SIDE rows (columns) that are `line` apart, zeros where there are none.
// Neighbouring threads read neighbours in memory.
template <class T>
static __device__ __forceinline__ void load_part(float *to, const T *from, int64_t term, int64_t terms, int64_t lines,
                                                 int64_t term_stride, int64_t line_stride) {
    for (int i = (int)threadIdx.x; i < DEPTH * SIDE; i += THREADS) {
        int k = term_stride == 1 ? i % DEPTH : i / SIDE, line = term_stride == 1 ? i / DEPTH : i % SIDE;
        bool there = term + k < terms && line < lines;
        to[k * STRIDE + line] = there ? to_float(from[(term + k) * term_stride + line * line_stride]) : 0;
    }
}

template <class T, class C>
static __device__ __forceinline__ void multiply(const Product<T, C> &p) {
    VL_SHARED(float, left, DEPTH *STRIDE);
    VL_SHARED(float, right, DEPTH *STRIDE);
    int row = (int)threadIdx.x / ACROSS * MINE, column = (int)threadIdx.x % ACROSS * MINE;
    float sums[MINE][MINE] = {};
    for (int64_t term = 0; term < p.terms; term += DEPTH) {
        load_part(left, p.a, term, p.terms, p.m, p.a_term, p.a_row);
        load_part(right, p.b, term, p.terms, p.n, p.b_term, p.b_column);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            Vector<float> a = load_vector(left + k * STRIDE + row), b = load_vector(right + k * STRIDE + column);
#pragma unroll
            for (int i = 0; i < MINE; i++) {
#pragma unroll
                for (int j = 0; j < MINE; j++) sums[i][j] = fmaf(a.at[i], b.at[j], sums[i][j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < MINE; i++) {
#pragma unroll
        for (int j = 0; j < MINE; j++) {
            if (row + i >= p.m || column + j >= p.n) continue;
            put(p.c + (row + i) * p.c_row + column + j, sums[i][j], p.add);
        }
    }
}

// c[rows,columns] (+)= a[rows,terms] times the expert's b, whose strides these are.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    rows_kernel(T *c, const T *a, const T *b, Experts experts, int64_t columns, int64_t terms, int64_t b_term,
                int64_t b_column, bool add) {
    int64_t across = (columns + SIDE - 1) / SIDE, column = blockIdx.x % across * SIDE;
    ExpertRows rows;
    if (!find_rows<SIDE>(&rows, experts, blockIdx.x / across)) return;
    multiply(Product<T, T>{.c = c + rows.first * columns + column,
                           .a = a + rows.first * terms,
                           .b = b + rows.expert * columns * terms + column * b_column,
                           .m = rows.end - rows.first,
                           .n = columns - column,
                           .terms = terms,
                           .c_row = columns,
                           .a_row = terms,
                           .a_term = 1,
                           .b_term = b_term,
                           .b_column = b_column,
                           .add = add});
}

// dw[expert] += dy^T x over the expert's rows.
template <class T>
static __global__ void __launch_bounds__(THREADS)
    weights_kernel(float *dw, const T *dy, const T *x, Experts experts, int64_t out, int64_t in) {
    int64_t across = (in + SIDE - 1) / SIDE, down = (out + SIDE - 1) / SIDE, tile = blockIdx.x % (across * down);
    int64_t row = tile / across * SIDE, column = tile % across * SIDE;
    ExpertRows rows = rows_of(experts, blockIdx.x / (across * down));
    if (rows.first >= rows.end) return;
    multiply(Product<T, float>{.c = dw + (rows.expert * out + row) * in + column,
                               .a = dy + rows.first * out + row,
                               .b = x + rows.first * in + column,
                               .m = out - row,
                               .n = in - column,
                               .terms = rows.end - rows.first,
                               .c_row = in,
                               .a_row = 1,
                               .a_term = out,
                               .b_term = in,
                               .b_column = 1,
                               .add = true});
}

// ---- Launches ------------------------------------------------------------------

static VlStatus multiply_rows(VlContext *context, VlTensor c, VlTensor a, VlTensor b, VlTensor offsets, int64_t b_term,
                              int64_t b_column, VlMode mode) {
    Experts experts = {data_of<int64_t>(offsets), offsets.dim[0] - 1, c.dim[0]};
    int64_t tiles = most_row_tiles<SIDE>(experts) * ((c.dim[1] + SIDE - 1) / SIDE);
    return with_type(c.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, rows_kernel<T>, dim3((unsigned)tiles), dim3(THREADS), 0, data_of<T>(c), data_of<T>(a),
                      data_of<T>(b), experts, c.dim[1], a.dim[1], b_term, b_column, mode == VL_ADD);
    });
}

VlStatus vl_cuda_grouped_linear_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor offsets,
                                        VlMode mode) {
    if (vl_cuda_grouped_fits(w, x, y)) return vl_cuda_grouped_forward(context, y, x, w, offsets, mode);
    return multiply_rows(context, y, x, w, offsets, 1, w.dim[2], mode);
}

static VlStatus add_weights(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x, VlTensor offsets) {
    Experts experts = {data_of<int64_t>(offsets), dw.dim[0], x.dim[0]};
    int64_t out = dw.dim[1], in = dw.dim[2], tiles = (out + SIDE - 1) / SIDE * ((in + SIDE - 1) / SIDE);
    return with_type(x.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, weights_kernel<T>, dim3((unsigned)(experts.rows ? experts.count * tiles : 0)),
                      dim3(THREADS), 0, data_of<float>(dw), data_of<T>(dy), data_of<T>(x), experts, out, in);
    });
}

VlStatus vl_cuda_grouped_linear_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x,
                                         VlTensor w, VlTensor offsets, VlMode mode) {
    if (!vl_is_empty(dx)) {
        bool fits = vl_cuda_grouped_fits(w, dy, dx);
        VL_TRY(fits ? vl_cuda_grouped_inputs(context, dx, dy, w, offsets, mode)
                    : multiply_rows(context, dx, dy, w, offsets, w.dim[2], 1, mode));
    }
    if (!vl_is_empty(dw)) {
        bool fits = vl_cuda_grouped_fits(dw, dy, x);
        VL_TRY(fits ? vl_cuda_grouped_weights(context, dw, dy, x, offsets) : add_weights(context, dw, dy, x, offsets));
    }
    return VL_OK;
}

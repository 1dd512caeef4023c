#include "ops/cuda/norm.cuh"

template <class T, int N, int LANES>
static __global__ void forward_kernel(T *y, float *rstd, const T *x, const T *w, float eps, int64_t rows,
                                      int64_t columns, int64_t groups) {
    for (int64_t row = row_group<LANES>(); row < rows; row += groups) {
        Row<T, N, LANES> from(x + row * columns, columns);
        float squares[1] = {0};
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = from.at(piece, c);
            for (int k = 0; k < N; k++) squares[0] += values.at[k] * values.at[k];
        });
        row_sums<LANES>(squares);
        float factor = 1.0f / sqrtf(squares[0] / (float)columns + eps);
        if (row_lane<LANES>() == 0) rstd[row] = factor;
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = from.at(piece, c), weights = load_floats<N>(w + c);
            for (int k = 0; k < N; k++) values.at[k] *= factor * weights.at[k];
            store_floats(y + row * columns + c, values);
        });
    }
}

VlStatus vl_cuda_rmsnorm_forward(VlContext *context, VlTensor y, VlTensor rstd, VlTensor x, VlTensor w, float eps) {
    int64_t rows = x.dim[0], groups = groups_for_rows(rows);
    return with_rows(x, aligned(y, x, w), [&](auto type, auto n, auto lanes) {
        using T = decltype(type);
        return launch(context, forward_kernel<T, n, lanes>, blocks_for_rows(groups, lanes), dim3(NORM_THREADS), 0,
                      data_of<T>(y), data_of<float>(rstd), data_of<T>(x), data_of<T>(w), eps, rows, x.dim[1], groups);
    });
}

template <class T>
struct Gradient {
    T *dx;  // NULL: not wanted
    const T *dy, *x, *w;
    const float *rstd;
    bool add;
    int64_t rows, columns;
};

// With g = dy * w: dx = rstd * (g - x * rstd^2 * mean(g * x)). With WEIGHTS each group of threads also writes what its
// rows add to dw; the columns have to fit into the pieces.
template <class T, int N, int LANES, bool WEIGHTS>
static __global__ void backward_kernel(Gradient<T> of, float *parts, int64_t groups) {
    PieceSums<1, N> sums;
    int64_t columns = of.columns, group = row_group<LANES>();
    if (group >= groups) return;
    for (int64_t row = group; row < of.rows; row += groups) {
        Row<T, N, LANES> x(of.x + row * columns, columns), dy(of.dy + row * columns, columns);
        float factor = of.rstd[row];
        if (WEIGHTS) {
            for_row<N, LANES>(columns, [&](int piece, int64_t c) {
                if (piece == BEYOND) return;
                Floats<N> values = x.at(piece, c), gradients = dy.at(piece, c);
                for (int k = 0; k < N; k++) sums.of[0][piece].at[k] += gradients.at[k] * values.at[k] * factor;
            });
        }
        if (!of.dx) continue;
        float product[1] = {0};
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = x.at(piece, c), gradients = dy.at(piece, c), weights = load_floats<N>(of.w + c);
            for (int k = 0; k < N; k++) {
                product[0] = fmaf(gradients.at[k] * weights.at[k], values.at[k], product[0]);
            }
        });
        row_sums<LANES>(product);
        float projection = factor * factor * product[0] / (float)columns;
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = x.at(piece, c), gradients = dy.at(piece, c), weights = load_floats<N>(of.w + c);
            for (int k = 0; k < N; k++) {
                values.at[k] = factor * fmaf(-values.at[k], projection, gradients.at[k] * weights.at[k]);
            }
            put_floats(of.dx + row * columns + c, values, of.add);
        });
    }
    if (WEIGHTS) sums.template store<LANES>(parts, group, groups, columns);
}

// An element's part in dw, for rows that are too wide for the registers.
template <class T>
struct WeightTerm {
    static constexpr int SUMS = 1;
    const T *dy, *x;
    const float *rstd;
    int64_t columns;
    __device__ void operator()(int64_t row, int64_t column, float (&values)[SUMS]) const {
        int64_t i = row * columns + column;
        values[0] = to_float(dy[i]) * to_float(x[i]) * rstd[row];
    }
};

template <class T, int N, int LANES>
static VlStatus backward(VlContext *context, Gradient<T> of, VlTensor dw) {
    bool weights = !vl_is_empty(dw) && of.rows > 0;
    ColumnSums<1> sums = {{data_of<float>(dw)}};
    if (!weights || of.columns > PIECES * LANES * N) {
        int64_t groups = of.dx ? groups_for_rows(of.rows) : 0;
        VL_TRY(launch(context, backward_kernel<T, N, LANES, false>, blocks_for_rows(groups, LANES), dim3(NORM_THREADS),
                      0, of, NULL, groups));
        WeightTerm<T> term = {of.dy, of.x, of.rstd, of.columns};
        return weights ? add_column_sums(context, sums, term, of.rows, of.columns) : VL_OK;
    }
    VlTensor parts;
    VL_TRY(vl_scratch_norm(context, &parts, of.rows, of.columns, 1));
    int64_t groups = parts.dim[1];
    VL_TRY(launch(context, backward_kernel<T, N, LANES, true>, blocks_for_rows(groups, LANES), dim3(NORM_THREADS), 0,
                  of, data_of<float>(parts), groups));
    GroupSums<1> term = {data_of<float>(parts), groups, of.columns};
    return add_column_sums(context, sums, term, groups, of.columns);
}

VlStatus vl_cuda_rmsnorm_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x, VlTensor w,
                                  VlTensor rstd, VlMode mode) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlStatus status = with_rows(x, aligned(dx, dy, x, w), [&](auto type, auto n, auto lanes) {
        using T = decltype(type);
        Gradient<T> of = {data_of<T>(dx),       data_of<T>(dy), data_of<T>(x), data_of<T>(w),
                          data_of<float>(rstd), mode == VL_ADD, x.dim[0],      x.dim[1]};
        return backward<T, n, lanes>(context, of, dw);
    });
    vl_arena_release(&context->scratch, mark);
    return status;
}

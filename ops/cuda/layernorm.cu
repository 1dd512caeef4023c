#include "ops/cuda/norm.cuh"

template <class T>
struct Forward {
    T *y;
    float *mean, *rstd;
    const T *x, *w, *b;  // b NULL: absent
    float eps;
    int64_t rows, columns;
};

template <class T, int N, int LANES>
static __global__ void forward_kernel(Forward<T> of, int64_t groups) {
    int64_t columns = of.columns;
    for (int64_t row = row_group<LANES>(); row < of.rows; row += groups) {
        Row<T, N, LANES> from(of.x + row * columns, columns);
        float sum[1] = {0}, squares[1] = {0};
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = from.at(piece, c);
            for (int k = 0; k < N; k++) sum[0] += values.at[k];
        });
        row_sums<LANES>(sum);
        float mean = sum[0] / (float)columns;
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = from.at(piece, c);
            for (int k = 0; k < N; k++) squares[0] += (values.at[k] - mean) * (values.at[k] - mean);
        });
        row_sums<LANES>(squares);
        float factor = 1.0f / sqrtf(squares[0] / (float)columns + of.eps);
        if (row_lane<LANES>() == 0) {
            of.mean[row] = mean;
            of.rstd[row] = factor;
        }
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = from.at(piece, c), weights = load_floats<N>(of.w + c), biases = {};
            if (of.b) biases = load_floats<N>(of.b + c);
            for (int k = 0; k < N; k++) {
                values.at[k] = (values.at[k] - mean) * factor * weights.at[k] + biases.at[k];
            }
            store_floats(of.y + row * columns + c, values);
        });
    }
}

VlStatus vl_cuda_layernorm_forward(VlContext *context, VlTensor y, VlTensor mean, VlTensor rstd, VlTensor x, VlTensor w,
                                   VlTensor b, float eps) {
    int64_t groups = groups_for_rows(x.dim[0]);
    return with_rows(x, aligned(y, x, w, b), [&](auto type, auto n, auto lanes) {
        using T = decltype(type);
        Forward<T> of = {data_of<T>(y),
                         data_of<float>(mean),
                         data_of<float>(rstd),
                         data_of<T>(x),
                         data_of<T>(w),
                         data_of<T>(b),
                         eps,
                         x.dim[0],
                         x.dim[1]};
        return launch(context, forward_kernel<T, n, lanes>, blocks_for_rows(groups, lanes), dim3(NORM_THREADS), 0, of,
                      groups);
    });
}

template <class T>
struct Gradient {
    T *dx;  // NULL: not wanted
    const T *dy, *x, *w;
    const float *mean, *rstd;
    bool add;
    int64_t rows, columns;
};

// With g = dy * w and n = (x - mean) * rstd: dx = rstd * (g - mean(g) - n * mean(g * n)). With PARAMETERS each group of
// threads also writes what its rows add to dw and db; the columns have to fit into the pieces.
template <class T, int N, int LANES, bool PARAMETERS>
static __global__ void backward_kernel(Gradient<T> of, float *parts, int64_t groups) {
    PieceSums<2, N> sums;
    int64_t columns = of.columns, group = row_group<LANES>();
    if (group >= groups) return;
    for (int64_t row = group; row < of.rows; row += groups) {
        Row<T, N, LANES> x(of.x + row * columns, columns), dy(of.dy + row * columns, columns);
        float mean = of.mean[row], factor = of.rstd[row];
        if (PARAMETERS) {
            for_row<N, LANES>(columns, [&](int piece, int64_t c) {
                if (piece == BEYOND) return;
                Floats<N> values = x.at(piece, c), gradients = dy.at(piece, c);
                for (int k = 0; k < N; k++) {
                    sums.of[0][piece].at[k] += gradients.at[k] * ((values.at[k] - mean) * factor);
                    sums.of[1][piece].at[k] += gradients.at[k];
                }
            });
        }
        if (!of.dx) continue;
        float means[2] = {0, 0};
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = x.at(piece, c), gradients = dy.at(piece, c), weights = load_floats<N>(of.w + c);
            for (int k = 0; k < N; k++) {
                float g = gradients.at[k] * weights.at[k];
                means[0] += g;
                means[1] = fmaf(g, (values.at[k] - mean) * factor, means[1]);
            }
        });
        row_sums<LANES>(means);
        for (int i = 0; i < 2; i++) means[i] /= (float)columns;
        for_row<N, LANES>(columns, [&](int piece, int64_t c) {
            Floats<N> values = x.at(piece, c), gradients = dy.at(piece, c), weights = load_floats<N>(of.w + c);
            for (int k = 0; k < N; k++) {
                float rest = fmaf(gradients.at[k], weights.at[k], -means[0]);
                values.at[k] = factor * fmaf(-means[1], (values.at[k] - mean) * factor, rest);
            }
            put_floats(of.dx + row * columns + c, values, of.add);
        });
    }
    if (PARAMETERS) sums.template store<LANES>(parts, group, groups, columns);
}

// An element's part in dw and db, for rows that are too wide for the registers.
template <class T>
struct ParameterTerms {
    static constexpr int SUMS = 2;
    const T *dy, *x;
    const float *mean, *rstd;
    int64_t columns;
    __device__ void operator()(int64_t row, int64_t column, float (&values)[SUMS]) const {
        int64_t i = row * columns + column;
        values[1] = to_float(dy[i]);
        values[0] = values[1] * ((to_float(x[i]) - mean[row]) * rstd[row]);
    }
};

template <class T, int N, int LANES>
static VlStatus backward(VlContext *context, Gradient<T> of, VlTensor dw, VlTensor db) {
    bool parameters = (!vl_is_empty(dw) || !vl_is_empty(db)) && of.rows > 0;
    ColumnSums<2> sums = {{data_of<float>(dw), data_of<float>(db)}};
    if (!parameters || of.columns > PIECES * LANES * N) {
        int64_t groups = of.dx ? groups_for_rows(of.rows) : 0;
        VL_TRY(launch(context, backward_kernel<T, N, LANES, false>, blocks_for_rows(groups, LANES), dim3(NORM_THREADS),
                      0, of, NULL, groups));
        ParameterTerms<T> terms = {of.dy, of.x, of.mean, of.rstd, of.columns};
        return parameters ? add_column_sums(context, sums, terms, of.rows, of.columns) : VL_OK;
    }
    VlTensor parts;
    VL_TRY(vl_scratch_norm(context, &parts, of.rows, of.columns, 2));
    int64_t groups = parts.dim[1];
    VL_TRY(launch(context, backward_kernel<T, N, LANES, true>, blocks_for_rows(groups, LANES), dim3(NORM_THREADS), 0,
                  of, data_of<float>(parts), groups));
    GroupSums<2> terms = {data_of<float>(parts), groups, of.columns};
    return add_column_sums(context, sums, terms, groups, of.columns);
}

VlStatus vl_cuda_layernorm_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x,
                                    VlTensor w, VlTensor mean, VlTensor rstd, VlMode mode) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlStatus status = with_rows(x, aligned(dx, dy, x, w), [&](auto type, auto n, auto lanes) {
        using T = decltype(type);
        Gradient<T> of = {data_of<T>(dx),       data_of<T>(dy), data_of<T>(x), data_of<T>(w), data_of<float>(mean),
                          data_of<float>(rstd), mode == VL_ADD, x.dim[0],      x.dim[1]};
        return backward<T, n, lanes>(context, of, dw, db);
    });
    vl_arena_release(&context->scratch, mark);
    return status;
}

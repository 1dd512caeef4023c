#include "ops/cuda/gemm.cuh"
#include "ops/cuda/numeric.cuh"
#include "ops/cuda/reduce.cuh"

enum { THREADS = 512, AT_ONCE = 4, CHUNK = THREADS * AT_ONCE };

// Four logits from `column` on; behind the row's end they are -infinity, of which the exponential is 0.
template <bool VECTORS>
static __device__ __forceinline__ Vector<float> load_logits(const float *row, int64_t column, int64_t columns) {
    if constexpr (VECTORS) {
        return load_vector(row + column);
    } else {
        Vector<float> logits;
        for (int i = 0; i < AT_ONCE; i++) logits.at[i] = column + i < columns ? row[column + i] : -INFINITY;
        return logits;
    }
}

template <class T>
struct alignas(AT_ONCE * sizeof(T)) Quad {
    T at[AT_ONCE];
};

template <bool VECTORS, class T>
static __device__ __forceinline__ void store_gradients(T *row, int64_t column, int64_t columns, Quad<T> values) {
    if constexpr (VECTORS) {
        *(Quad<T> *)(row + column) = values;
    } else {
        for (int i = 0; i < AT_ONCE && column + i < columns; i++) row[column + i] = values.at[i];
    }
}

// The natural logarithm of the sum of the row's exponentials, to all threads. The row is read once: a thread's sum is
// relative to the largest logit that it has met so far.
template <bool VECTORS>
static __device__ double log_sum(const float *row, int64_t columns) {
    float most = -INFINITY, sum = 0;
    for (int64_t column = threadIdx.x * AT_ONCE; column < columns; column += CHUNK) {
        Vector<float> logits = load_logits<VECTORS>(row, column, columns);
        float larger = fmaxf(fmaxf(logits.at[0], logits.at[1]), fmaxf(logits.at[2], logits.at[3]));
        if (larger > most) {
            sum *= expf(most - larger);
            most = larger;
        }
        for (int i = 0; i < AT_ONCE; i++) sum += expf(logits.at[i] - most);
    }
    float largest = block_maximum(most);
    double total = block_sum((double)sum * (double)expf(most - largest));
    return (double)largest + log(total);
}

// One block a row: its loss and, with `gradients`, scale * dloss/dlogits in place of the logits, as T at the start of
// the row.
template <bool VECTORS, class T>
static __global__ void loss_kernel(float *losses, float *logits, const int64_t *targets, VlCudaFault *fault,
                                   int64_t first, int64_t columns, bool gradients, float scale) {
    float *row = logits + blockIdx.x * columns;
    int64_t target = targets[first + blockIdx.x];
    float chosen = 0;
    if (threadIdx.x == 0 && index_fits(fault, first + blockIdx.x, target, columns)) chosen = row[target];
    double lse = log_sum<VECTORS>(row, columns);  // ends with a barrier: `chosen` is read
    if (threadIdx.x == 0) losses[first + blockIdx.x] = (float)(lse - (double)chosen);
    if (!gradients) return;
    for (int64_t begin = 0; begin < columns; begin += CHUNK) {
        int64_t column = begin + threadIdx.x * AT_ONCE;
        Quad<T> values = {};
        if (column < columns) {
            Vector<float> chunk = load_logits<VECTORS>(row, column, columns);
            for (int i = 0; i < AT_ONCE; i++) {
                float value = scale * expf(chunk.at[i] - (float)lse);
                values.at[i] = from_float<T>(column + i == target ? value - scale : value);
            }
        }
        // Where T is shorter than f32, a chunk is written over logits of this chunk and of those before it.
        if (sizeof(T) < sizeof(float)) __syncthreads();
        if (column < columns) store_gradients<VECTORS>((T *)row, column, columns, values);
    }
}

static VlStatus finish_rows(VlContext *context, VlTensor losses, VlTensor logits, VlTensor targets, int64_t first,
                            int64_t rows, bool gradients, float scale, VlDtype dtype) {
    int64_t columns = logits.dim[1];
    VlCudaFault *fault = vl_cuda_state(context)->fault;
    bool vectors = vectors_fit(logits, columns);
    return with_type(dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, vectors ? loss_kernel<true, T> : loss_kernel<false, T>, dim3((unsigned)rows),
                      dim3(THREADS), 0, data_of<float>(losses), data_of<float>(logits), data_of<int64_t>(targets),
                      fault, first, columns, gradients, scale);
    });
}

// Rows [first, first + rows) of x, dx, losses and targets. Rows of w and x stand for [V,C] and [rows,C]; gradients for
// [rows,V], two bf16 per logit.
static VlStatus block(VlContext *context, VlTensor losses, VlTensor dx, VlTensor dw, VlTensor x, VlTensor w,
                      VlTensor targets, float scale, VlTensor logits, int64_t first, int64_t rows) {
    int64_t width = x.dim[1], vocabulary = w.dim[0];
    int64_t leading = x.dtype == VL_BF16 ? 2 * vocabulary : vocabulary;
    bool gradients = !vl_is_empty(dx) || !vl_is_empty(dw);
    VlTensor x_rows = vl_rows(x, first, rows);
    VL_TRY(vl_cuda_gemm(context, {.m = rows,
                                  .n = vocabulary,
                                  .k = width,
                                  .a = x_rows.data,
                                  .b = w.data,
                                  .a_leading = width,
                                  .b_leading = width,
                                  .c_leading = vocabulary,
                                  .b_transposed = true,
                                  .c = logits.data,
                                  .input = x.dtype,
                                  .output = VL_F32}));
    VL_TRY(finish_rows(context, losses, logits, targets, first, rows, gradients, scale, x.dtype));
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_cuda_gemm(context, {.m = rows,
                                      .n = width,
                                      .k = vocabulary,
                                      .a = logits.data,
                                      .b = w.data,
                                      .a_leading = leading,
                                      .b_leading = width,
                                      .c_leading = width,
                                      .c = vl_rows(dx, first, rows).data,
                                      .input = x.dtype,
                                      .output = x.dtype}));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_cuda_gemm(context, {.m = vocabulary,
                                      .n = width,
                                      .k = rows,
                                      .a = logits.data,
                                      .b = x_rows.data,
                                      .a_leading = leading,
                                      .b_leading = width,
                                      .c_leading = width,
                                      .a_transposed = true,
                                      .add = true,
                                      .c = dw.data,
                                      .input = x.dtype,
                                      .output = VL_F32}));
    }
    return VL_OK;
}

VlStatus vl_cuda_linear_cross_entropy(VlContext *context, VlTensor losses, VlTensor dx, VlTensor dw, VlTensor x,
                                      VlTensor w, VlTensor targets, float scale) {
    int64_t rows = x.dim[0], mark = vl_arena_mark(&context->scratch);
    VlTensor logits;
    VlStatus status = vl_scratch_linear_cross_entropy(context, &logits, rows, w.dim[0]);
    for (int64_t first = 0; status == VL_OK && first < rows; first += logits.dim[0]) {
        int64_t count = rows - first < logits.dim[0] ? rows - first : logits.dim[0];
        status = block(context, losses, dx, dw, x, w, targets, scale, logits, first, count);
    }
    vl_arena_release(&context->scratch, mark);
    return status;
}

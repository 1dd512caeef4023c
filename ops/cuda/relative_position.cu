// relative_bias and relative_gate: what biased_attention adds to its scores.
#include "ops/cuda/numeric.cuh"
#include "ops/cuda/reduce.cuh"

extern "C" {
#include "ops/scratch_sound.h"
}

enum { THREADS = 256, WARPS = THREADS / WARP };

// ---- Bias ------------------------------------------------------------------

// How distances fall into the buckets of a table.
struct Buckets {
    int64_t count, half, exact;  // of all; of one direction; of those for one distance each
    float ratio;                 // log(max_distance / exact)
};

static Buckets describe(int64_t count, int64_t max_distance) {
    int64_t half = count / 2, exact = half / 2;
    return {count, half, exact, (float)log((double)max_distance / (double)exact)};
}

// Of a distance in one direction. In f32, as the reference computes it; the logarithm is one of f64, rounded, so that
// it is the same everywhere.
static __device__ __forceinline__ int64_t find_bucket(const Buckets &b, int64_t size) {
    if (size < b.exact) return size;
    float grown = (float)log((double)((float)size / (float)b.exact)) / b.ratio;
    int64_t far = b.exact + (int64_t)(grown * (float)(b.half - b.exact));
    return far < b.half ? far : b.half - 1;
}

// bias[head, column] is for key - query = columns / 2 - column.
template <class T>
static __global__ void bias_kernel(float *bias, const T *table, Buckets buckets, int64_t heads, int64_t columns) {
    for (int64_t column = grid_index(); column < columns; column += grid_stride()) {
        int64_t distance = columns / 2 - column, size = distance < 0 ? -distance : distance;
        int64_t bucket = find_bucket(buckets, size) + (distance > 0 ? buckets.half : 0);
        for (int64_t head = 0; head < heads; head++) {
            bias[head * columns + column] = to_float(table[bucket * heads + head]);
        }
    }
}

VlStatus vl_cuda_relative_bias_forward(VlContext *context, VlTensor bias, VlTensor table, int64_t max_distance) {
    int64_t heads = bias.dim[0], columns = bias.dim[1];
    if (vl_elements(bias) == 0) return VL_OK;
    return with_type(table.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, bias_kernel<T>, blocks_for(columns, THREADS), dim3(THREADS), 0, data_of<float>(bias),
                      data_of<T>(table), describe(table.dim[0], max_distance), heads, columns);
    });
}

// The smallest distance, up to `most`, whose bucket is not below `bucket`.
static __device__ __forceinline__ int64_t find_size(const Buckets &b, int64_t bucket, int64_t most) {
    int64_t low = 0, high = most;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (find_bucket(b, middle) < bucket) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// A warp has a bucket, which is an interval of columns, and adds up one head after the other.
static __global__ void table_kernel(float *dtable, const float *dbias, Buckets buckets, int64_t heads,
                                    int64_t columns) {
    int64_t bucket = grid_index() / WARP, lane = threadIdx.x % WARP, most = columns / 2 + 1;
    if (bucket >= buckets.count) return;
    bool after = bucket >= buckets.half;
    int64_t key = after ? bucket - buckets.half : bucket;
    int64_t from = find_size(buckets, key, most);
    int64_t to = key == buckets.half - 1 ? most : find_size(buckets, key + 1, most);
    if (after && from == 0) from = 1;
    // Columns columns / 2 + size, or with the key after the query columns / 2 - size.
    int64_t begin = columns / 2 + (after ? 1 - to : from), end = columns / 2 + (after ? 1 - from : to);
    for (int64_t head = 0; head < heads; head++) {
        float sum = 0;
        for (int64_t column = begin + lane; column < end; column += WARP) sum += dbias[head * columns + column];
        sum = warp_sum(sum);
        if (lane == 0 && begin < end) dtable[bucket * heads + head] += sum;
    }
}

VlStatus vl_cuda_relative_bias_backward(VlContext *context, VlTensor dtable, VlTensor dbias, int64_t max_distance) {
    int64_t heads = dbias.dim[0], columns = dbias.dim[1];
    if (vl_elements(dbias) == 0) return VL_OK;
    return launch(context, table_kernel, blocks_for(dtable.dim[0], WARPS, INT32_MAX), dim3(THREADS), 0,
                  data_of<float>(dtable), data_of<float>(dbias), describe(dtable.dim[0], max_distance), heads, columns);
}

// ---- Gate ------------------------------------------------------------------

// q as [rows, size] with rows = T * heads; each half of w has `half` rows.
struct Gate {
    int64_t rows, heads, size, half;
};

static Gate describe(VlTensor q, VlTensor w) {
    return {vl_elements(q) / w.dim[1], q.dim[1] / w.dim[1], w.dim[1], w.dim[0] / 2};
}
static int64_t shared_bytes(const Gate &gate) { return (2 * gate.size + 2) * (int64_t)sizeof(float); }

// halves[2, size] = the sums of the first and of the last half of the rows of w, then those of bias. Ends with a
// barrier.
template <class T>
static __device__ void sum_halves(float *halves, const T *w, const T *bias, const Gate &gate) {
    for (int64_t i = threadIdx.x; i < 2 * gate.size + 2; i += THREADS) {
        bool is_bias = i >= 2 * gate.size;
        int64_t first = (is_bias ? i - 2 * gate.size : i / gate.size) * gate.half;
        float sum = 0;
        for (int64_t row = first; row < first + gate.half; row++) {
            sum += to_float(is_bias ? bias[row] : w[row * gate.size + i % gate.size]);
        }
        halves[i] = sum;
    }
    __syncthreads();
}

struct Sigmoids {
    float a, b;
};

// Of a row of q, for every lane of the warp.
template <class T>
static __device__ __forceinline__ Sigmoids find_sigmoids(const float *halves, const T *row, int64_t size) {
    float a = 0, b = 0;
    for (int64_t i = threadIdx.x % WARP; i < size; i += WARP) {
        float value = to_float(row[i]);
        a += value * halves[i];
        b += value * halves[size + i];
    }
    a = warp_sum(a) + halves[2 * size];
    b = warp_sum(b) + halves[2 * size + 1];
    return {1.0f / (1.0f + expf(-a)), 1.0f / (1.0f + expf(-b))};
}

// A warp has a row.
template <class T>
static __global__ void gate_kernel(float *gates, const T *q, const T *w, const T *bias, const T *scale, Gate gate) {
    VL_DYNAMIC_SHARED(float, halves);
    sum_halves(halves, w, bias, gate);
    for (int64_t row = grid_index() / WARP; row < gate.rows; row += grid_stride() / WARP) {
        Sigmoids s = find_sigmoids(halves, q + row * gate.size, gate.size);
        if (threadIdx.x % WARP == 0) gates[row] = s.a * (s.b * to_float(scale[row % gate.heads]) - 1.0f) + 2.0f;
    }
}

enum { MOST_BLOCKS = 1024 };  // each of them sums w

VlStatus vl_cuda_relative_gate_forward(VlContext *context, VlTensor gate, VlTensor q, VlTensor w, VlTensor bias,
                                       VlTensor scale) {
    Gate shape = describe(q, w);
    return with_type(q.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, gate_kernel<T>, blocks_for(shape.rows, WARPS, MOST_BLOCKS), dim3(THREADS),
                      shared_bytes(shape), data_of<float>(gate), data_of<T>(q), data_of<T>(w), data_of<T>(bias),
                      data_of<T>(scale), shape);
    });
}

// slopes[rows,3] = the gradients of the two sums, and what the row gives to dscale. dq may be NULL.
template <class T>
static __global__ void slope_kernel(float *slopes, T *dq, const float *dgate, const T *q, const T *w, const T *bias,
                                    const T *scale, Gate gate, bool add) {
    VL_DYNAMIC_SHARED(float, halves);
    sum_halves(halves, w, bias, gate);
    for (int64_t row = grid_index() / WARP; row < gate.rows; row += grid_stride() / WARP) {
        Sigmoids s = find_sigmoids(halves, q + row * gate.size, gate.size);
        float factor = to_float(scale[row % gate.heads]), d = dgate[row];
        float first = d * (s.b * factor - 1.0f) * s.a * (1.0f - s.a), last = d * s.a * factor * s.b * (1.0f - s.b);
        if (threadIdx.x % WARP == 0) {
            slopes[row * 3] = first;
            slopes[row * 3 + 1] = last;
            slopes[row * 3 + 2] = d * s.a * s.b;
        }
        for (int64_t i = threadIdx.x % WARP; dq && i < gate.size; i += WARP) {
            put(dq + row * gate.size + i, first * halves[i] + last * halves[gate.size + i], add);
        }
    }
}

// parts[part, 2, size + 1]: sums over `length` rows of the slopes times q and, at the end, of the slopes. A block has a
// part; its rows of threads share the part's rows.
template <class T>
static __global__ void parts_kernel(double *parts, const float *slopes, const T *q, Gate gate, int64_t length) {
    VL_SHARED(double, sums, 2 * THREADS);
    int64_t width = gate.size + 1, begin = blockIdx.x * length, end = begin + length;
    if (end > gate.rows) end = gate.rows;
    for (int64_t start = 0; start < width; start += blockDim.x) {
        int64_t i = start + threadIdx.x;
        double first = 0, last = 0;
        for (int64_t row = begin + threadIdx.y; i < width && row < end; row += blockDim.y) {
            double value = i < gate.size ? (double)to_float(q[row * gate.size + i]) : 1.0;
            first += (double)slopes[row * 3] * value;
            last += (double)slopes[row * 3 + 1] * value;
        }
        int at = (int)(threadIdx.y * blockDim.x + threadIdx.x);
        sums[at] = first;
        sums[THREADS + at] = last;
        __syncthreads();
        for (int half = (int)threadIdx.y; half < 2 && i < width; half += (int)blockDim.y) {
            double sum = 0;
            for (unsigned y = 0; y < blockDim.y; y++) sum += sums[half * THREADS + y * blockDim.x + threadIdx.x];
            parts[(blockIdx.x * (int64_t)2 + half) * width + i] = sum;
        }
        __syncthreads();
    }
}

// Each row of a half of w, and of bias, has the same gradient. dw or dbias may be NULL.
static __global__ void weight_kernel(float *dw, float *dbias, const double *parts, int64_t count, Gate gate) {
    int64_t at = grid_index(), width = gate.size + 1, half = at / width, i = at % width;
    if (at >= 2 * width) return;
    double sum = 0;
    for (int64_t part = 0; part < count; part++) sum += parts[part * 2 * width + at];
    for (int64_t row = half * gate.half; row < (half + 1) * gate.half; row++) {
        if (i == gate.size) {
            if (dbias) dbias[row] += (float)sum;
        } else if (dw) {
            dw[row * gate.size + i] += (float)sum;
        }
    }
}

// A block has a head.
static __global__ void scale_kernel(float *dscale, const float *slopes, Gate gate) {
    double sum = 0;
    for (int64_t row = blockIdx.x + threadIdx.x * gate.heads; row < gate.rows; row += THREADS * gate.heads) {
        sum += (double)slopes[row * 3 + 2];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) dscale[blockIdx.x] += (float)sum;
}

static VlStatus add_parameters(VlContext *context, VlTensor dw, VlTensor dbias, VlTensor dscale, VlTensor q,
                               VlRelativeGate scratch, const Gate &gate) {
    const float *slopes = data_of<float>(scratch.slopes);
    if (!vl_is_empty(dw) || !vl_is_empty(dbias)) {
        int64_t count = scratch.parts.dim[0], length = (gate.rows + count - 1) / count;
        unsigned across = WARP;
        while (across < THREADS && across < gate.size + 1) across *= 2;
        VL_TRY(with_type(q.dtype, [&](auto type) {
            using T = decltype(type);
            return launch(context, parts_kernel<T>, dim3((unsigned)count), dim3(across, THREADS / across), 0,
                          data_of<double>(scratch.parts), slopes, data_of<T>(q), gate, length);
        }));
        VL_TRY(launch(context, weight_kernel, blocks_for(2 * (gate.size + 1), THREADS), dim3(THREADS), 0,
                      data_of<float>(dw), data_of<float>(dbias), data_of<double>(scratch.parts), count, gate));
    }
    if (vl_is_empty(dscale)) return VL_OK;
    return launch(context, scale_kernel, dim3((unsigned)gate.heads), dim3(THREADS), 0, data_of<float>(dscale), slopes,
                  gate);
}

VlStatus vl_cuda_relative_gate_backward(VlContext *context, VlTensor dq, VlTensor dw, VlTensor dbias, VlTensor dscale,
                                        VlTensor dgate, VlTensor q, VlTensor w, VlTensor bias, VlTensor scale,
                                        VlMode mode) {
    Gate gate = describe(q, w);
    int64_t mark = vl_arena_mark(&context->scratch);
    VlRelativeGate scratch;
    if (gate.rows == 0) return VL_OK;
    VL_TRY(vl_scratch_relative_gate(context, &scratch, dgate, w));
    VlStatus status = with_type(q.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, slope_kernel<T>, blocks_for(gate.rows, WARPS, MOST_BLOCKS), dim3(THREADS),
                      shared_bytes(gate), data_of<float>(scratch.slopes), data_of<T>(dq), data_of<float>(dgate),
                      data_of<T>(q), data_of<T>(w), data_of<T>(bias), data_of<T>(scale), gate, mode == VL_ADD);
    });
    if (status == VL_OK) status = add_parameters(context, dw, dbias, dscale, q, scratch, gate);
    vl_arena_release(&context->scratch, mark);
    return status;
}

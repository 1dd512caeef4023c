// Weight normalisation over the taps of a convolution. v[O,I,K] has the taps of a pair (o,i) side by side, w[O,K,I] the
// pairs of a tap: tiles of both go through shared memory.
#include "ops/cuda/numeric.cuh"

extern "C" {
#include "ops/scratch_sound.h"
}

enum { TILE = 32, DOWN = 8, THREADS = 128 };

struct Shape {
    int64_t outputs, inputs, taps;
};

static Shape describe(VlTensor v) { return {v.dim[0], v.dim[1], v.dim[2]}; }
static int64_t tiles_of(int64_t extent) { return (extent + TILE - 1) / TILE; }

// tile[row][column] = from[row * stride + column] within rows x columns.
template <class T>
static __device__ __forceinline__ void load_tile(float (*tile)[TILE + 1], const T *from, int64_t stride, int64_t rows,
                                                 int64_t columns) {
    for (int row = (int)threadIdx.y; row < TILE && row < rows; row += DOWN) {
        if (threadIdx.x < columns) tile[row][threadIdx.x] = to_float(from[row * stride + threadIdx.x]);
    }
}

// parts[part, 0, k] = the sum of the squares of v's tap k over `length` outputs, parts[part, 1, k] that of dw * v. dw
// may be NULL.
template <class T>
static __global__ void measure_kernel(double *parts, const T *v, const float *dw, Shape shape, int64_t length) {
    VL_SHARED(float, storage, TILE *(TILE + 1));
    VL_SHARED(double, sums, 2 * DOWN * TILE);
    float(*tile)[TILE + 1] = (float(*)[TILE + 1]) storage;
    int64_t first = (int64_t)blockIdx.x * TILE, k = first + threadIdx.x, end = (blockIdx.y + (int64_t)1) * length;
    double square = 0, along = 0;
    if (end > shape.outputs) end = shape.outputs;
    for (int64_t o = blockIdx.y * length; o < end; o++) {
        for (int64_t start = 0; start < shape.inputs; start += TILE) {
            if (dw) {
                load_tile(tile, dw + (o * shape.taps + first) * shape.inputs + start, shape.inputs, shape.taps - first,
                          shape.inputs - start);
            }
            __syncthreads();
            for (int i = (int)threadIdx.y; i < TILE && start + i < shape.inputs && k < shape.taps; i += DOWN) {
                double value = (double)to_float(v[(o * shape.inputs + start + i) * shape.taps + k]);
                square += value * value;
                if (dw) along += value * (double)tile[threadIdx.x][i];
            }
            __syncthreads();
        }
    }
    sums[threadIdx.y * TILE + threadIdx.x] = square;
    sums[(DOWN + threadIdx.y) * TILE + threadIdx.x] = along;
    __syncthreads();
    if (threadIdx.y >= 2 || k >= shape.taps) return;
    double sum = 0;
    for (int i = 0; i < DOWN; i++) sum += sums[(threadIdx.y * DOWN + i) * TILE + threadIdx.x];
    parts[(blockIdx.y * (int64_t)2 + threadIdx.y) * shape.taps + k] = sum;
}

// totals[0, k] = 1 / sqrt(sum of squares + 1e-6), totals[1, k] = the sum of dw * v. dg may be NULL.
static __global__ void total_kernel(double *totals, float *dg, const double *parts, int64_t count, int64_t taps) {
    int64_t k = grid_index();
    if (k >= taps) return;
    double square = 1e-6, along = 0;
    for (int64_t part = 0; part < count; part++) {
        square += parts[part * 2 * taps + k];
        along += parts[(part * 2 + 1) * taps + k];
    }
    double inverse = 1.0 / sqrt(square);
    totals[k] = inverse;
    totals[taps + k] = along;
    if (dg) dg[k] += (float)(inverse * along);
}

static VlStatus measure(VlContext *context, VlTensor dg, VlTensor dw, VlTensor v, VlWeightNorm scratch) {
    Shape shape = describe(v);
    int64_t count = scratch.parts.dim[0], length = (shape.outputs + count - 1) / count;
    VL_TRY(with_type(v.dtype, [&](auto type) {
        using T = decltype(type);
        return launch(context, measure_kernel<T>, dim3((unsigned)tiles_of(shape.taps), (unsigned)count),
                      dim3(TILE, DOWN), 0, data_of<double>(scratch.parts), data_of<T>(v), data_of<float>(dw), shape,
                      length);
    }));
    return launch(context, total_kernel, blocks_for(shape.taps, THREADS, INT32_MAX), dim3(THREADS), 0,
                  data_of<double>(scratch.totals), data_of<float>(dg), data_of<double>(scratch.parts), count,
                  shape.taps);
}

// The tile of this block: of output o, taps from k on and inputs from i on.
struct Tile {
    int64_t o, k, i;
};
static __device__ __forceinline__ Tile find_tile(Shape shape) {
    int64_t across = (shape.taps + TILE - 1) / TILE, down = (shape.inputs + TILE - 1) / TILE;
    return {blockIdx.x / (across * down), blockIdx.x / down % across * TILE, blockIdx.x % down * TILE};
}
static dim3 tile_grid(Shape shape) {
    return dim3((unsigned)(shape.outputs * tiles_of(shape.taps) * tiles_of(shape.inputs)));
}

template <class T>
static __global__ void forward_kernel(T *w, const T *g, const T *v, const double *totals, Shape shape) {
    VL_SHARED(float, storage, TILE *(TILE + 1));
    float(*tile)[TILE + 1] = (float(*)[TILE + 1]) storage;
    Tile at = find_tile(shape);
    load_tile(tile, v + (at.o * shape.inputs + at.i) * shape.taps + at.k, shape.taps, shape.inputs - at.i,
              shape.taps - at.k);
    __syncthreads();
    int64_t i = at.i + threadIdx.x;
    for (int row = (int)threadIdx.y; row < TILE && at.k + row < shape.taps && i < shape.inputs; row += DOWN) {
        int64_t k = at.k + row;
        float factor = (float)((double)to_float(g[k]) * totals[k]);
        w[(at.o * shape.taps + k) * shape.inputs + i] = from_float<T>(factor * tile[threadIdx.x][row]);
    }
}

VlStatus vl_cuda_weight_norm_forward(VlContext *context, VlTensor w, VlTensor g, VlTensor v) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlWeightNorm scratch;
    VL_TRY(vl_scratch_weight_norm(context, &scratch, v));
    VlStatus status = measure(context, VlTensor{}, VlTensor{}, v, scratch);
    if (status == VL_OK) {
        status = with_type(v.dtype, [&](auto type) {
            using T = decltype(type);
            return launch(context, forward_kernel<T>, tile_grid(describe(v)), dim3(TILE, DOWN), 0, data_of<T>(w),
                          data_of<T>(g), data_of<T>(v), data_of<double>(scratch.totals), describe(v));
        });
    }
    vl_arena_release(&context->scratch, mark);
    return status;
}

// With n = 1 / norm and s = the sum of dw * v over a tap: dv = g n (dw - v n^2 s).
template <class T>
static __global__ void backward_kernel(float *dv, const float *dw, const T *g, const T *v, const double *totals,
                                       Shape shape) {
    VL_SHARED(float, storage, TILE *(TILE + 1));
    float(*tile)[TILE + 1] = (float(*)[TILE + 1]) storage;
    Tile at = find_tile(shape);
    load_tile(tile, dw + (at.o * shape.taps + at.k) * shape.inputs + at.i, shape.inputs, shape.taps - at.k,
              shape.inputs - at.i);
    __syncthreads();
    int64_t k = at.k + threadIdx.x;
    if (k >= shape.taps) return;
    double n = totals[k], factor = (double)to_float(g[k]) * n, along = n * n * totals[shape.taps + k];
    for (int row = (int)threadIdx.y; row < TILE && at.i + row < shape.inputs; row += DOWN) {
        int64_t to = (at.o * shape.inputs + at.i + row) * shape.taps + k;
        dv[to] += (float)(factor * ((double)tile[threadIdx.x][row] - (double)to_float(v[to]) * along));
    }
}

VlStatus vl_cuda_weight_norm_backward(VlContext *context, VlTensor dg, VlTensor dv, VlTensor dw, VlTensor g,
                                      VlTensor v) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlWeightNorm scratch;
    VL_TRY(vl_scratch_weight_norm(context, &scratch, v));
    VlStatus status = measure(context, dg, dw, v, scratch);
    if (status == VL_OK && !vl_is_empty(dv)) {
        status = with_type(v.dtype, [&](auto type) {
            using T = decltype(type);
            return launch(context, backward_kernel<T>, tile_grid(describe(v)), dim3(TILE, DOWN), 0, data_of<float>(dv),
                          data_of<float>(dw), data_of<T>(g), data_of<T>(v), data_of<double>(scratch.totals),
                          describe(v));
        });
    }
    vl_arena_release(&context->scratch, mark);
    return status;
}

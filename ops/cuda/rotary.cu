// rotary_table, rotary.
#include "ops/cuda/groups.cuh"

enum { TABLE_THREADS = 128, TABLE_ROWS = 16, THREADS = 256, MOST_BLOCKS = 1 << 20 };

// A thread has one frequency and every gridDim.y-th row. Angles are f64: at positions of some ten thousands an f32
// angle has four digits left.
static __global__ void table_kernel(float *table, const int64_t *positions, double theta, int64_t rows, int64_t half) {
    int64_t i = grid_index();
    if (i >= half) return;
    double frequency = pow(theta, -(double)i / (double)half);
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        double angle = (double)positions[row] * frequency;
        table[row * 2 * half + i] = (float)cos(angle);
        table[row * 2 * half + half + i] = (float)sin(angle);
    }
}

VlStatus vl_cuda_rotary_table(VlContext *context, VlTensor table, VlTensor positions, double theta) {
    constexpr int64_t MOST_ROWS = 65535;
    int64_t rows = table.dim[0], half = table.dim[1] / 2, down = (rows + TABLE_ROWS - 1) / TABLE_ROWS;
    dim3 grid((unsigned)((half + TABLE_THREADS - 1) / TABLE_THREADS), (unsigned)(down < MOST_ROWS ? down : MOST_ROWS));
    return launch(context, table_kernel, grid, dim3(TABLE_THREADS), 0, data_of<float>(table),
                  data_of<int64_t>(positions), theta, rows, half);
}

// A block has a row: threadIdx.x counts the groups of half a head, threadIdx.y the heads. Both elements of a pair are
// loaded before they are stored, which may happen in place. direction is 1, or -1 to rotate back.
template <class T, int N>
static __global__ void rotate_kernel(T *y, const T *x, const float *table, float direction, int64_t rows, int64_t heads,
                                     int64_t half) {
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        for (int64_t head = threadIdx.y; head < heads; head += blockDim.y) {
            for (int64_t i = (int64_t)threadIdx.x * N; i < half; i += (int64_t)blockDim.x * N) {
                int64_t first = (row * heads + head) * 2 * half + i;
                Floats<N> a = load_floats<N>(x + first), b = load_floats<N>(x + first + half), to_a, to_b;
                Floats<N> cosine = load_floats<N>(table + row * 2 * half + i);
                Floats<N> sine = load_floats<N>(table + row * 2 * half + half + i);
                for (int k = 0; k < N; k++) {
                    float c = cosine.at[k], s = direction * sine.at[k];
                    to_a.at[k] = a.at[k] * c - b.at[k] * s;
                    to_b.at[k] = b.at[k] * c + a.at[k] * s;
                }
                store_floats(y + first, to_a);
                store_floats(y + first + half, to_b);
            }
        }
    }
}

static int64_t at_most(int64_t value, int64_t most) { return value < most ? value : most; }

static VlStatus rotate(VlContext *context, VlTensor y, VlTensor x, VlTensor table, int64_t heads, float direction) {
    int64_t rows = x.dim[0], half = table.dim[1] / 2;
    if (half == 0) return VL_OK;
    bool fit = vectors_fit(y, half) && vectors_fit(x, half) && vectors_fit(table, half);
    return with_groups(x.dtype, fit, [&](auto type, auto n) {
        using T = decltype(type);
        int64_t across = at_most(half / n, THREADS), down = at_most(heads, THREADS / across);
        return launch(context, rotate_kernel<T, n>, dim3((unsigned)at_most(rows, MOST_BLOCKS)),
                      dim3((unsigned)across, (unsigned)down), 0, data_of<T>(y), data_of<T>(x), data_of<float>(table),
                      direction, rows, heads, half);
    });
}

VlStatus vl_cuda_rotary_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor table, int64_t heads) {
    return rotate(context, y, x, table, heads, 1.0f);
}

VlStatus vl_cuda_rotary_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor table, int64_t heads) {
    return vl_is_empty(dx) ? VL_OK : rotate(context, dx, dy, table, heads, -1.0f);
}

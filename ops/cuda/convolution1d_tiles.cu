#include "ops/cuda/convolution1d_tiles.cuh"

#include "ops/cuda/groups.cuh"
#include "ops/cuda/reduce.cuh"

enum { ROWS = 128, WARP_ROWS = 32, THREADS = ROWS / WARP_ROWS * 32 };       // of y
enum { TAPS = 4 };                                                          // whose weights are loaded together
enum { TIMES = 64, WEIGHT_WARPS = 8, WEIGHT_THREADS = WEIGHT_WARPS * 32 };  // of the gradient: a warp has a tap
enum { PIECE = 8 };                                                         // elements of 16 bytes

// Rows in shared memory are 16 bytes apart modulo 128 in some order: eight of them are in different banks.
template <int WIDTH>
constexpr int STRIDE = WIDTH + PIECE;

struct Sequences {
    const int64_t *offsets;
    int64_t count, rows;            // sequences; rows of all
    int64_t channels, taps, reach;  // row t's first tap is at row t - reach
};

// A piece of a sequence: rows from `first` on, of those in [begin, end).
struct Span {
    int64_t first, begin, end;
};

static __device__ __forceinline__ Span find_sequence(const Sequences &s, int64_t sequence) {
    int64_t begin = max(s.offsets[sequence], (int64_t)0), end = min(s.offsets[sequence + 1], s.rows);
    return {begin, begin, end};
}

// to[count][STRIDE] = rows of x from `first` on; zeros outside of the sequence.
template <int WIDTH>
static __device__ __forceinline__ void load_rows(Bf16 *to, const Bf16 *x, int64_t first, int count, const Span &span,
                                                 int64_t channels) {
    constexpr int PIECES = WIDTH / PIECE;
    for (int i = (int)threadIdx.x; i < count * PIECES; i += (int)blockDim.x) {
        int64_t row = first + i / PIECES;
        bool inside = row >= span.begin && row < span.end;
        int column = i % PIECES * PIECE;
        ptx_copy_async<16>(to + i / PIECES * STRIDE<WIDTH> + column, x + (inside ? row * channels + column : 0),
                           inside);
    }
}

// ---- y -------------------------------------------------------------------------

// to[TAPS][WIDTH outputs][STRIDE] = the weights of a group for the taps from `tap` on.
template <int WIDTH>
static __device__ __forceinline__ void load_weights(Bf16 *to, const Bf16 *w, int64_t tap, int64_t taps) {
    constexpr int PIECES = WIDTH / PIECE;
    for (int i = (int)threadIdx.x; i < TAPS * WIDTH * PIECES; i += THREADS) {
        int column = i % PIECES * PIECE, k = i / PIECES % TAPS, output = i / (PIECES * TAPS);
        bool inside = tap + k < taps;
        ptx_copy_async<16>(to + (k * WIDTH + output) * STRIDE<WIDTH> + column,
                           w + (inside ? (output * taps + tap + k) * WIDTH + column : 0), inside);
    }
}

// sums += the warp's rows, from `rows` on, times the weights of one tap.
template <int WIDTH>
static __device__ __forceinline__ void multiply_tap(float (&sums)[2][WIDTH / 8][4], const Bf16 *rows,
                                                    const Bf16 *weights) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < WIDTH; k += 16) {
        uint32_t a[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++) {
            ptx_ldmatrix_x4(a[m], rows + (m * 16 + lane % 16) * STRIDE<WIDTH> + k + lane / 16 * 8);
        }
#pragma unroll
        for (int n = 0; n < WIDTH; n += 16) {
            uint32_t b[4];
            ptx_ldmatrix_x4(b, weights + (n + lane / 16 * 8 + lane % 8) * STRIDE<WIDTH> + k + lane / 8 % 2 * 8);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                ptx_mma_bf16(sums[m][n / 8], a[m], b[0], b[1]);
                ptx_mma_bf16(sums[m][n / 8 + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// The piece of ROWS rows with this number, counted through all sequences.
static __device__ __forceinline__ bool find_span(Span *span, const Sequences &s, int64_t number) {
    for (int64_t sequence = 0; sequence < s.count; sequence++) {
        *span = find_sequence(s, sequence);
        int64_t pieces = span->end > span->begin ? (span->end - span->begin + ROWS - 1) / ROWS : 0;
        span->first += number * ROWS;
        if (number < pieces) return true;
        number -= pieces;
    }
    return false;
}

template <int WIDTH>
static __global__ void __launch_bounds__(THREADS, 1)
    convolve_kernel(Bf16 *y, const Bf16 *x, const Bf16 *w, const Bf16 *bias, Sequences s, bool add) {
    constexpr int STAGE = TAPS * WIDTH * STRIDE<WIDTH>;
    VL_DYNAMIC_SHARED(Bf16, stages);  // two of them, then rows of x
    Bf16 *rows = stages + 2 * STAGE;
    int64_t groups = s.channels / WIDTH, channel = blockIdx.x % groups * WIDTH;
    int lane = (int)threadIdx.x % WARP, first = (int)threadIdx.x / WARP * WARP_ROWS;
    float sums[2][WIDTH / 8][4] = {};
    Span span;
    if (!find_span(&span, s, blockIdx.x / groups)) return;
    w += channel * s.taps * WIDTH;
    load_rows<WIDTH>(rows, x + channel, span.first - s.reach, ROWS + (int)s.taps - 1, span, s.channels);
    load_weights<WIDTH>(stages, w, 0, s.taps);
    ptx_copy_commit();
    for (int tap = 0, stage = 0; tap < s.taps; tap += TAPS, stage ^= 1) {
        if (tap + TAPS < s.taps) load_weights<WIDTH>(stages + (stage ^ 1) * STAGE, w, tap + TAPS, s.taps);
        ptx_copy_commit();
        ptx_copy_wait<1>();
        __syncthreads();
        for (int k = 0; k < TAPS && tap + k < s.taps; k++) {
            multiply_tap<WIDTH>(sums, rows + (first + tap + k) * STRIDE<WIDTH>,
                                stages + stage * STAGE + k * WIDTH * STRIDE<WIDTH>);
        }
        __syncthreads();
    }
    // A lane has two neighbouring columns of rows lane / 4 and lane / 4 + 8 of each 16 x 8 sums.
#pragma unroll
    for (int m = 0; m < 4; m++) {
        int64_t row = span.first + first + m * 8 + lane / 4;
        if (row >= span.end) continue;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            int64_t column = channel + n * 8 + lane % 4 * 2;
            Floats<2> pair = {{sums[m / 2][n][m % 2 * 2], sums[m / 2][n][m % 2 * 2 + 1]}};
            for (int i = 0; bias && i < 2; i++) pair.at[i] += to_float(bias[column + i]);
            put_floats(y + row * s.channels + column, pair, add);
        }
    }
}

// ---- dw ------------------------------------------------------------------------

// Goes through all sequences, TIMES rows at a time.
struct Walk {
    int64_t sequence;
    Span span;
};
static __device__ __forceinline__ bool go_on(Walk *walk, const Sequences &s) {
    walk->span.first += TIMES;
    while (walk->span.first >= walk->span.end) {
        if (++walk->sequence >= s.count) return false;
        walk->span = find_sequence(s, walk->sequence);
    }
    return true;
}

// sums[output][input] += the transpose of TIMES rows of dy times rows of x.
template <int WIDTH>
static __device__ __forceinline__ void multiply_rows(float (&sums)[WIDTH / 16][WIDTH / 8][4], const Bf16 *dy,
                                                     const Bf16 *x) {
    int lane = (int)threadIdx.x % WARP;
    for (int t = 0; t < TIMES; t += 16) {
        uint32_t a[WIDTH / 16][4];
#pragma unroll
        for (int m = 0; m < WIDTH / 16; m++) {
            ptx_ldmatrix_x4_transposed(a[m],
                                       dy + (t + lane / 16 * 8 + lane % 8) * STRIDE<WIDTH> + m * 16 + lane / 8 % 2 * 8);
        }
#pragma unroll
        for (int n = 0; n < WIDTH; n += 16) {
            uint32_t b[4];
            ptx_ldmatrix_x4_transposed(b, x + (t + lane % 16) * STRIDE<WIDTH> + n + lane / 16 * 8);
#pragma unroll
            for (int m = 0; m < WIDTH / 16; m++) {
                ptx_mma_bf16(sums[m][n / 8], a[m], b[0], b[1]);
                ptx_mma_bf16(sums[m][n / 8 + 1], a[m], b[2], b[3]);
            }
        }
    }
}

template <int WIDTH>
static __global__ void __launch_bounds__(WEIGHT_THREADS, 1)
    weight_kernel(float *dw, const Bf16 *dy, const Bf16 *x, Sequences s) {
    constexpr int STAGE = (2 * TIMES + WEIGHT_WARPS - 1) * STRIDE<WIDTH>;
    VL_DYNAMIC_SHARED(Bf16, stages);  // two of them: rows of dy, rows of x
    int64_t groups = s.channels / WIDTH, channel = blockIdx.x % groups * WIDTH;
    int64_t first_tap = blockIdx.x / groups * WEIGHT_WARPS;
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    float sums[WIDTH / 16][WIDTH / 8][4] = {};
    auto load = [&](const Span &span, int stage) {
        Bf16 *to = stages + stage * STAGE;
        load_rows<WIDTH>(to, dy + channel, span.first, TIMES, span, s.channels);
        load_rows<WIDTH>(to + TIMES * STRIDE<WIDTH>, x + channel, span.first + first_tap - s.reach,
                         TIMES + WEIGHT_WARPS - 1, span, s.channels);
    };
    Walk walk = {-1, {0, 0, 0}};
    bool more = go_on(&walk, s);
    if (more) load(walk.span, 0);
    ptx_copy_commit();
    for (int stage = 0; more; stage ^= 1) {
        more = go_on(&walk, s);
        if (more) load(walk.span, stage ^ 1);
        ptx_copy_commit();
        ptx_copy_wait<1>();
        __syncthreads();
        const Bf16 *rows = stages + stage * STAGE;
        multiply_rows<WIDTH>(sums, rows, rows + (TIMES + warp) * STRIDE<WIDTH>);
        __syncthreads();
    }
    if (first_tap + warp >= s.taps) return;
#pragma unroll
    for (int m = 0; m < WIDTH / 8; m++) {
        int64_t output = channel + m * 8 + lane / 4;
        float *to = dw + (output * s.taps + first_tap + warp) * WIDTH + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            Floats<2> pair = {{sums[m / 2][n][m % 2 * 2], sums[m / 2][n][m % 2 * 2 + 1]}};
            put_floats(to + n * 8, pair, true);
        }
    }
}

// ---- Launches ------------------------------------------------------------------

static int64_t shared_bytes(int64_t width, int64_t taps) {
    return (2 * TAPS * width + ROWS + taps - 1) * (width + PIECE) * (int64_t)sizeof(Bf16);
}

bool vl_cuda_convolution1d_fits(VlTensor w, VlTensor a, VlTensor b) {
    int64_t width = w.dim[2];
    return w.dtype == VL_BF16 && width % 16 == 0 && width > 0 && width <= 64 &&
           shared_bytes(width, w.dim[1]) <= MOST_SHARED && aligned(w, a, b);
}

// function(width) with w's channels of a group as a Number.
template <class Function>
static VlStatus with_width(int64_t width, Function function) {
    switch (width) {
    case 16: return function(Number<16>{});
    case 32: return function(Number<32>{});
    case 48: return function(Number<48>{});
    default: return function(Number<64>{});
    }
}

static Sequences describe(VlTensor x, VlTensor w, VlTensor cu_seqlens, int64_t reach) {
    return {data_of<int64_t>(cu_seqlens), cu_seqlens.dim[0] - 1, x.dim[0], x.dim[1], w.dim[1], reach};
}

VlStatus vl_cuda_convolution1d_tiles(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b,
                                     VlTensor cu_seqlens, int64_t reach, VlMode mode) {
    Sequences s = describe(x, w, cu_seqlens, reach);
    int64_t spans = s.rows ? s.rows / ROWS + s.count : 0;  // or fewer
    return with_width(w.dim[2], [&](auto width) {
        return launch(context, convolve_kernel<width>, dim3((unsigned)(spans * (s.channels / width))), dim3(THREADS),
                      shared_bytes(width, s.taps), data_of<Bf16>(y), data_of<Bf16>(x), data_of<Bf16>(w),
                      data_of<Bf16>(b), s, mode == VL_ADD);
    });
}

VlStatus vl_cuda_convolution1d_tiles_weights(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x,
                                             VlTensor cu_seqlens, int64_t reach) {
    Sequences s = describe(x, dw, cu_seqlens, reach);
    int64_t pieces = (s.taps + WEIGHT_WARPS - 1) / WEIGHT_WARPS;
    return with_width(dw.dim[2], [&](auto width) {
        constexpr int64_t BYTES = 2 * (2 * TIMES + WEIGHT_WARPS - 1) * STRIDE<width> * (int64_t)sizeof(Bf16);
        return launch(context, weight_kernel<width>, dim3((unsigned)(pieces * (s.channels / width))),
                      dim3(WEIGHT_THREADS), BYTES, data_of<float>(dw), data_of<Bf16>(dy), data_of<Bf16>(x), s);
    });
}

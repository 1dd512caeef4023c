#include "ops/cuda/grouped_linear.cuh"
#include "ops/cuda/groups.cuh"
#include "ops/cuda/reduce.cuh"

// A block has a tile of TALL x WIDE of the product, a warp SIDE x SIDE of it. The sums go STEP terms at a time through
// shared memory, in STAGES places: while one is multiplied, the others are on their way.
enum { TALL = 128, WIDE = 256, SIDE = 64, STEP = 64, STAGES = 3 };
enum { WARPS_ACROSS = WIDE / SIDE, THREADS = TALL / SIDE * WARPS_ACROSS * WARP };
enum { DEPTH = 16, STEPS = STEP / DEPTH, PIECE = 8 };  // of an mma; elements of 16 bytes
enum { BAND = 16 };                                    // tiles below each other that run together and share the cache

// function(step) for all steps, as constants.
template <class Function>
static __device__ __forceinline__ void for_steps(Function function) {
    static_assert(STEPS == 4);
    function(Number<0>{});
    function(Number<1>{});
    function(Number<2>{});
    function(Number<3>{});
}

using Sums = float[SIDE / 16][SIDE / 8][4];

// One side of the product: LINES rows of the left, or columns of the right, of a block's tile. ALONG: in memory, terms
// of the sum are neighbours, else lines are. In shared memory as in memory; rows are 16 bytes apart modulo 128 in some
// order, so that eight of them are in different banks.
template <int LINES, bool ALONG>
struct Operand {
    static constexpr int WIDTH = ALONG ? STEP : LINES, HEIGHT = ALONG ? LINES : STEP, STRIDE = WIDTH + PIECE;
    static constexpr int SIZE = HEIGHT * STRIDE, PIECES = WIDTH / PIECE, ROWS = THREADS / PIECES;
    static constexpr int COPIES = HEIGHT / ROWS;  // of a thread, ROWS rows apart
    static_assert(THREADS % PIECES == 0 && HEIGHT % ROWS == 0 && COPIES % STEPS == 0, "whole copies");

    const uint4 *from;                // the thread's first piece
    int leading, row, column, lines;  // pieces from row to row: 32 bits, as registers are scarce

    __device__ __forceinline__ Operand(const Bf16 *corner, int64_t elements, int64_t lines_)
        : leading((int)(elements / PIECE)), lines((int)min(lines_, (int64_t)LINES)) {
        row = (int)threadIdx.x / PIECES;
        column = (int)threadIdx.x % PIECES * PIECE;
        from = (const uint4 *)(corner + row * elements + column);
    }
    // Part PART of STEPS of the copies of the next STEP terms, of which `left` are there; zeros for the others.
    template <int PART>
    __device__ __forceinline__ void copy(Bf16 *to, int64_t left) const {
#pragma unroll
        for (int i = COPIES / STEPS * PART; i < COPIES / STEPS * (PART + 1); i++) {
            int at = row + i * ROWS;
            bool there = ALONG ? at < lines && column < left : at < left && column < lines;
            ptx_copy_async<16>(to + at * STRIDE + column, from + i * ROWS * leading, there);
        }
    }
    __device__ __forceinline__ void advance() { from += ALONG ? STEP / PIECE : STEP * leading; }
    // Fragments of 16 lines from `first` on, DEPTH terms from k on.
    static __device__ __forceinline__ void read_left(uint32_t (&to)[4], const Bf16 *part, int first, int k) {
        int lane = (int)threadIdx.x % WARP;
        if constexpr (ALONG) {
            ptx_ldmatrix_x4(to, part + (first + lane % 16) * STRIDE + k + lane / 16 * 8);
        } else {
            ptx_ldmatrix_x4_transposed(to, part + (k + lane / 16 * 8 + lane % 8) * STRIDE + first + lane / 8 % 2 * 8);
        }
    }
    static __device__ __forceinline__ void read_right(uint32_t (&to)[4], const Bf16 *part, int first, int k) {
        int lane = (int)threadIdx.x % WARP;
        if constexpr (ALONG) {
            ptx_ldmatrix_x4(to, part + (first + lane / 16 * 8 + lane % 8) * STRIDE + k + lane / 8 % 2 * 8);
        } else {
            ptx_ldmatrix_x4_transposed(to, part + (k + lane % 16) * STRIDE + first + lane / 16 * 8);
        }
    }
};

// The warp's fragments of DEPTH terms.
template <class Left, class Right>
struct WarpFragments {
    uint32_t a[SIDE / 16][4], b[SIDE / 16][4];

    __device__ __forceinline__ void read(const Bf16 *part, int k) {
        int warp = (int)threadIdx.x / WARP;
#pragma unroll
        for (int i = 0; i < SIDE / 16; i++) {
            Left::read_left(a[i], part, warp / WARPS_ACROSS * SIDE + i * 16, k);
            Right::read_right(b[i], part + Left::SIZE, warp % WARPS_ACROSS * SIDE + i * 16, k);
        }
    }
    __device__ __forceinline__ void multiply(Sums &sums) const {
#pragma unroll
        for (int m = 0; m < SIDE / 16; m++) {
#pragma unroll
            for (int n = 0; n < SIDE / 8; n++) {
                ptx_mma_bf16(sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
            }
        }
    }
};

template <class Left, class Right>
constexpr int64_t SHARED_BYTES = (int64_t)STAGES *(Left::SIZE + Right::SIZE) * (int64_t)sizeof(Bf16);

// sums += left times right, all terms.
template <class Left, class Right>
static __device__ __forceinline__ void multiply(Sums &sums, Left &left, Right &right, int64_t terms) {
    constexpr int STAGE = Left::SIZE + Right::SIZE;
    VL_DYNAMIC_SHARED(Bf16, stages);
    int64_t to_copy = terms;
    auto copy = [&](Bf16 *to, auto part) {
        if (to_copy <= 0) return;
        left.template copy<part>(to, to_copy);
        right.template copy<part>(to + Left::SIZE, to_copy);
    };
    auto advance = [&]() {
        ptx_copy_commit();
        left.advance();
        right.advance();
        to_copy -= STEP;
    };
    for (int stage = 0; stage < STAGES - 1; stage++) {
        for_steps([&](auto part) { copy(stages + stage * STAGE, part); });
        advance();
    }
    int full = 0, empty = STAGES - 1;
    for (int64_t k = 0; k < terms; k += STEP) {
        ptx_copy_wait<STAGES - 2>();
        __syncthreads();  // the copies of all threads are here, and all have left the place that was multiplied last
        const Bf16 *part = stages + full * STAGE;
        WarpFragments<Left, Right> fragments[2];
        fragments[0].read(part, 0);
        for_steps([&](auto step) {
            if constexpr (step + 1 < STEPS) fragments[(step + 1) % 2].read(part, (step + 1) * DEPTH);
            copy(stages + empty * STAGE, step);
            fragments[step % 2].multiply(sums);
        });
        advance();
        full = full + 1 == STAGES ? 0 : full + 1;
        empty = empty + 1 == STAGES ? 0 : empty + 1;
    }
}

// c[rows,columns] from the tile's corner (+)= sums. A thread has two neighbouring columns of rows lane / 4 and
// lane / 4 + 8 of each 16 x 8 sums; what is added to is read for 16 rows at once.
template <class C>
static __device__ __forceinline__ void store_sums(C *c, const Sums &sums, int64_t rows, int64_t columns,
                                                  int64_t leading, bool add) {
    constexpr int PARTS = SIDE / 8;
    int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    int first = warp / WARPS_ACROSS * SIDE + lane / 4, column = warp % WARPS_ACROSS * SIDE + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < SIDE / 16; m++) {
        Floats<2> pairs[2][PARTS];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first + m * 16 + half * 8;
#pragma unroll
            for (int n = 0; n < PARTS; n++) {
                pairs[half][n] = {};
                if (!add || row >= rows || column + n * 8 >= columns) continue;
                pairs[half][n] = load_floats<2>(c + row * leading + column + n * 8);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first + m * 16 + half * 8;
#pragma unroll
            for (int n = 0; n < PARTS; n++) {
                for (int i = 0; i < 2; i++) pairs[half][n].at[i] += sums[m][n][half * 2 + i];
                if (row >= rows || column + n * 8 >= columns) continue;
                store_floats(c + row * leading + column + n * 8, pairs[half][n]);
            }
        }
    }
}

// The tile with this number of rows x columns of them: BAND rows, column by column, then the next BAND.
static __device__ __forceinline__ void find_tile(int64_t *row, int64_t *column, int64_t number, int64_t rows,
                                                 int64_t columns) {
    int64_t band = number / (BAND * columns) * BAND, height = min(rows - band, (int64_t)BAND);
    number -= band * columns;
    *row = band + number % height;
    *column = number / height;
}

// c[rows,columns] (+)= a[rows,terms] times the expert's b: [columns,terms] when B_ALONG, else [terms,columns].
template <bool B_ALONG>
static __global__ void __launch_bounds__(THREADS, 1)
    rows_kernel(Bf16 *c, const Bf16 *a, const Bf16 *b, Experts experts, int64_t row_tiles, int64_t columns,
                int64_t terms, bool add) {
    int64_t row_tile, column;
    ExpertRows rows;
    find_tile(&row_tile, &column, blockIdx.x, row_tiles, (columns + WIDE - 1) / WIDE);
    if (!find_rows<TALL>(&rows, experts, row_tile)) return;
    column *= WIDE;
    b += rows.expert * columns * terms + column * (B_ALONG ? terms : 1);
    Operand<TALL, true> left(a + rows.first * terms, terms, rows.end - rows.first);
    Operand<WIDE, B_ALONG> right(b, B_ALONG ? terms : columns, columns - column);
    Sums sums = {};
    multiply(sums, left, right, terms);
    store_sums(c + rows.first * columns + column, sums, rows.end - rows.first, columns - column, columns, add);
}

// dw[expert] += dy^T x over the expert's rows.
static __global__ void __launch_bounds__(THREADS, 1)
    weights_kernel(float *dw, const Bf16 *dy, const Bf16 *x, Experts experts, int64_t out, int64_t in) {
    int64_t down = (out + TALL - 1) / TALL, across = (in + WIDE - 1) / WIDE, row, column;
    ExpertRows rows = rows_of(experts, blockIdx.x / (down * across));
    if (rows.first >= rows.end) return;
    find_tile(&row, &column, blockIdx.x % (down * across), down, across);
    row *= TALL;
    column *= WIDE;
    Operand<TALL, false> left(dy + rows.first * out + row, out, out - row);
    Operand<WIDE, false> right(x + rows.first * in + column, in, in - column);
    Sums sums = {};
    multiply(sums, left, right, rows.end - rows.first);
    store_sums(dw + (rows.expert * out + row) * in + column, sums, out - row, in - column, in, true);
}

// ---- Launches ------------------------------------------------------------------

bool vl_cuda_grouped_fits(VlTensor w, VlTensor a, VlTensor b) {
    const int64_t longest = 1 << 24;  // rows whose pieces, and those of WIDE rows, are counted in 32 bits
    return a.dtype == VL_BF16 && w.dim[1] % PIECE == 0 && w.dim[2] % PIECE == 0 && w.dim[1] <= longest &&
           w.dim[2] <= longest && aligned(w, a, b);
}

template <bool B_ALONG>
static VlStatus multiply_rows(VlContext *context, VlTensor c, VlTensor a, VlTensor b, VlTensor offsets, VlMode mode) {
    Experts experts = {data_of<int64_t>(offsets), offsets.dim[0] - 1, c.dim[0]};
    int64_t row_tiles = most_row_tiles<TALL>(experts), column_tiles = (c.dim[1] + WIDE - 1) / WIDE;
    constexpr int64_t BYTES = SHARED_BYTES<Operand<TALL, true>, Operand<WIDE, B_ALONG>>;
    return launch(context, rows_kernel<B_ALONG>, dim3((unsigned)(row_tiles * column_tiles)), dim3(THREADS), BYTES,
                  data_of<Bf16>(c), data_of<Bf16>(a), data_of<Bf16>(b), experts, row_tiles, c.dim[1], a.dim[1],
                  mode == VL_ADD);
}

VlStatus vl_cuda_grouped_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor offsets,
                                 VlMode mode) {
    return multiply_rows<true>(context, y, x, w, offsets, mode);
}

VlStatus vl_cuda_grouped_inputs(VlContext *context, VlTensor dx, VlTensor dy, VlTensor w, VlTensor offsets,
                                VlMode mode) {
    return multiply_rows<false>(context, dx, dy, w, offsets, mode);
}

VlStatus vl_cuda_grouped_weights(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x, VlTensor offsets) {
    Experts experts = {data_of<int64_t>(offsets), dw.dim[0], x.dim[0]};
    int64_t tiles = (dw.dim[1] + TALL - 1) / TALL * ((dw.dim[2] + WIDE - 1) / WIDE);
    constexpr int64_t BYTES = SHARED_BYTES<Operand<TALL, false>, Operand<WIDE, false>>;
    return launch(context, weights_kernel, dim3((unsigned)(experts.rows ? experts.count * tiles : 0)), dim3(THREADS),
                  BYTES, data_of<float>(dw), data_of<Bf16>(dy), data_of<Bf16>(x), experts, dw.dim[1], dw.dim[2]);
}

// Two ways to multiply tiles of attention, behind one interface: TensorTile on tensor cores (bf16), PlainTile with
// plain multiply-adds (any type, any head size up to 256). The kernels of attention are written once, over a tile.
//
// A block of THREADS threads owns ROWS rows (queries or keys) and goes through the others, COLUMNS at a time. Products
// leave each thread MY_ROWS x MY_COLUMNS scores, or MY_ROWS x MY_WIDTH numbers of an output [ROWS,head size]; row(r),
// column(c) say which. All lanes that share a row are in one warp, and no warp needs another's scores or outputs:
// there are barriers for the tiles in shared memory only.
//
// Tiles in shared memory are [rows,stride(head size)]; where a row's head size ends, zeros follow up to what the
// products read.
#ifndef VL_OPS_CUDA_ATTENTION_TILES_CUH
#define VL_OPS_CUDA_ATTENTION_TILES_CUH

#include "ops/cuda/numeric.cuh"
#include "ops/cuda/reduce.cuh"

// A thread's numbers of a product, in the order of mma's fragments.
template <int ROWS, int COLUMNS>
struct Fragments {
    float part[ROWS / 2][(COLUMNS + 1) / 2][4];

    __device__ __forceinline__ float &at(int row, int column) {
        return part[row / 2][column / 2][row % 2 * 2 + column % 2];
    }
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) at(r, c) = 0;
        }
    }
    __device__ __forceinline__ void scale_row(int row, float factor) {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) at(row, c) *= factor;
    }
    __device__ __forceinline__ void scale(float factor) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) scale_row(r, factor);
    }
};

// Rows of a tensor: `count` rows of one head, `leading` elements apart.
template <class T>
struct HeadRows {
    T *data;
    int64_t leading;
    int count, head_size;
};

// ---- Tensor cores ----------------------------------------------------------

// A warp owns ROW_TILES times 16 rows. KEPT: it holds its rows of one left operand in registers.
// Head sizes are multiples of 8 up to WIDTH, a multiple of 16.
template <int WIDTH_, int ROW_TILES_, int WARPS_, int COLUMNS_, bool KEPT_>
struct TensorTile {
    using Element = Bf16;
    using Shared = Bf16;
    static constexpr int WIDTH = WIDTH_, ROW_TILES = ROW_TILES_, WARPS = WARPS_, COLUMNS = COLUMNS_;
    static constexpr bool KEPT = KEPT_;
    static constexpr int THREADS = WARP * WARPS, ROWS = 16 * ROW_TILES * WARPS;
    static constexpr int MY_ROWS = 2 * ROW_TILES, MY_COLUMNS = COLUMNS / 4, MY_WIDTH = WIDTH / 4;
    static constexpr int PIECE = 8, PIECES = WIDTH / PIECE, STEPS = WIDTH / 16;
    // An odd number of 16-byte pieces: eight rows below each other lie in different banks.
    static constexpr int STRIDE = (PIECES | 1) * PIECE;
    using Scores = Fragments<MY_ROWS, MY_COLUMNS>;
    using Output = Fragments<MY_ROWS, MY_WIDTH>;

    static __host__ __device__ constexpr int stride(int) { return STRIDE; }
    static __host__ __device__ constexpr int work_floats() { return 0; }

    static __device__ __forceinline__ int lane() { return (int)threadIdx.x % WARP; }
    static __device__ __forceinline__ int first_row() { return (int)threadIdx.x / WARP * (16 * ROW_TILES); }
    static __device__ __forceinline__ int row(int r) { return first_row() + r / 2 * 16 + r % 2 * 8 + lane() / 4; }
    static __device__ __forceinline__ int column(int c) { return c / 2 * 8 + lane() % 4 * 2 + c % 2; }
    static __device__ __forceinline__ bool leads_row() { return lane() % 4 == 0; }

    static __device__ __forceinline__ float exp2(float value) { return ptx_exp2(value); }
    static __device__ __forceinline__ float row_sum(float value) {
        value += __shfl_xor_sync(0xffffffffu, value, 1);
        return value + __shfl_xor_sync(0xffffffffu, value, 2);
    }
    static __device__ __forceinline__ float row_maximum(float value) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
        return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
    }

    // Rows [first, first + TILE) into a tile, zeros for rows that are not there. Asynchronous.
    template <int TILE>
    static __device__ __forceinline__ void load(Shared *tile, const HeadRows<const Element> &from, int first) {
        constexpr int LANES = PIECES <= 8 ? 8 : 16, STEP = THREADS / LANES;  // of a row; rows at once
        static_assert(TILE % STEP == 0 && PIECES <= LANES, "whole steps");
        int row = (int)threadIdx.x / LANES, at = (int)threadIdx.x % LANES * PIECE;
        if (PIECES < LANES && at >= WIDTH) return;
        const Element *source = from.data + (first + row) * from.leading + at;
#pragma unroll 2  // more would take registers for addresses
        for (int i = 0; i < TILE; i += STEP, source += STEP * from.leading) {
            bool there = at < from.head_size && (unsigned)(first + row + i) < (unsigned)from.count;
            ptx_copy_async<16>(tile + (row + i) * STRIDE + at, source, there);
        }
    }

    // The warp's rows of a tile, as left operand: in registers, or in shared memory.
    template <bool IN_REGISTERS>
    struct LeftOperand {
        const Shared *tile;
        uint32_t kept[IN_REGISTERS ? STEPS : 1][ROW_TILES][4];

        __device__ __forceinline__ void fragments(uint32_t (&to)[ROW_TILES][4], int step) const {
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                ptx_ldmatrix_x4(to[i],
                                tile + (first_row() + i * 16 + lane() % 16) * STRIDE + step * 16 + lane() / 16 * 8);
            }
        }
        // The fragments of a step, which may be loaded to `loaded`.
        __device__ __forceinline__ auto &step_of(int step, uint32_t (&loaded)[ROW_TILES][4]) const {
            if constexpr (IN_REGISTERS) {
                return kept[step];
            } else {
                fragments(loaded, step);
                return loaded;
            }
        }
        // When the tile has arrived. It stays where it is unless IN_REGISTERS.
        __device__ __forceinline__ void read(const Shared *from) {
            tile = from;
            if constexpr (IN_REGISTERS) {
#pragma unroll
                for (int step = 0; step < STEPS; step++) fragments(kept[step], step);
            }
        }
    };
    using Left = LeftOperand<KEPT>;
    using SharedLeft = LeftOperand<false>;

    // scores = left right^T with the tile right[COLUMNS,head size].
    template <class AnyLeft>
    static __device__ __forceinline__ void multiply_transposed(Scores &scores, const AnyLeft &left, const Shared *right,
                                                               int) {
        const Shared *corner = right + (lane() % 8 + lane() / 16 * 8) * STRIDE + lane() / 8 % 2 * 8;
        scores.clear();
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t loaded[ROW_TILES][4], b[4];
            const auto &a = left.step_of(step, loaded);
#pragma unroll
            for (int j = 0; j < COLUMNS / 16; j++) {
                ptx_ldmatrix_x4(b, corner + j * 16 * STRIDE + step * 16);
#pragma unroll
                for (int i = 0; i < ROW_TILES; i++) {
                    ptx_mma_bf16(scores.part[i][2 * j], a[i], b[0], b[1]);
                    ptx_mma_bf16(scores.part[i][2 * j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }

    // out += scores right with the tile right[COLUMNS,head size]; scores are rounded to bf16.
    static __device__ __forceinline__ void multiply(Output &out, Scores &scores, const Shared *right, int, float *) {
        const Shared *corner = right + lane() % 16 * STRIDE + lane() / 16 * 8;
#pragma unroll
        for (int step = 0; step < COLUMNS / 16; step++) {
            uint32_t a[ROW_TILES][4], b[4];
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                const float(&left)[4] = scores.part[i][2 * step], (&next)[4] = scores.part[i][2 * step + 1];
                a[i][0] = ptx_pack_bf16(left[0], left[1]);
                a[i][1] = ptx_pack_bf16(left[2], left[3]);
                a[i][2] = ptx_pack_bf16(next[0], next[1]);
                a[i][3] = ptx_pack_bf16(next[2], next[3]);
            }
#pragma unroll
            for (int j = 0; j < WIDTH / 16; j++) {
                ptx_ldmatrix_x4_transposed(b, corner + step * 16 * STRIDE + j * 16);
#pragma unroll
                for (int i = 0; i < ROW_TILES; i++) {
                    ptx_mma_bf16(out.part[i][2 * j], a[i], b[0], b[1]);
                    ptx_mma_bf16(out.part[i][2 * j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }

    // Writes the block's rows, from row `first` on, those that are there; through a tile of which the warp's own rows
    // are no longer needed, so that whole pieces are written.
    static __device__ __forceinline__ void store(const HeadRows<Element> &to, int first, Output &out, Shared *tile) {
        __syncwarp();
#pragma unroll
        for (int r = 0; r < MY_ROWS; r++) {
#pragma unroll
            for (int w = 0; w < MY_WIDTH; w += 2) {
                *reinterpret_cast<uint32_t *>(tile + row(r) * STRIDE + column(w)) =
                    ptx_pack_bf16(out.at(r, w), out.at(r, w + 1));
            }
        }
        __syncwarp();
        for (int i = lane(); i < 16 * ROW_TILES * PIECES; i += WARP) {
            int tile_row = first_row() + i / PIECES, at = i % PIECES * PIECE;
            if (first + tile_row >= to.count || at >= to.head_size) continue;
            store_vector(to.data + (first + tile_row) * to.leading + at, load_vector(tile + tile_row * STRIDE + at));
        }
    }
};

// ---- Plain multiply-adds ---------------------------------------------------

// 32 x COLUMNS scores by 8 x 16 threads; tiles are f32. A thread's four rows lie together, its columns 16 apart in
// scores and in fours in outputs.
template <class T, int COLUMNS_ = 32>
struct PlainTile {
    using Element = T;
    using Shared = float;
    static constexpr int WIDTH = 256, THREADS = 128, ACROSS = 16, ROWS = 32, COLUMNS = COLUMNS_;
    static constexpr int MY_ROWS = 4, MY_COLUMNS = COLUMNS / ACROSS, MY_WIDTH = WIDTH / ACROSS;
    static constexpr int WORK_STRIDE = COLUMNS + 4;
    using Scores = Fragments<MY_ROWS, MY_COLUMNS>;
    using Output = Fragments<MY_ROWS, MY_WIDTH>;

    // An odd number of 16-byte pieces: eight rows below each other lie in different banks.
    static __host__ __device__ constexpr int stride(int head_size) { return ((head_size + 3) / 4 | 1) * 4; }
    // A warp's scores on their way to the other product.
    static __host__ __device__ constexpr int work_floats() { return ROWS * WORK_STRIDE; }

    static __device__ __forceinline__ int down() { return (int)threadIdx.x / ACROSS; }
    static __device__ __forceinline__ int across() { return (int)threadIdx.x % ACROSS; }
    static __device__ __forceinline__ int row(int r) { return down() * MY_ROWS + r; }
    static __device__ __forceinline__ int column(int c) { return c * ACROSS + across(); }
    static __device__ __forceinline__ int output_column(int w) { return w / 4 * (4 * ACROSS) + across() * 4 + w % 4; }
    static __device__ __forceinline__ bool leads_row() { return across() == 0; }

    static __device__ __forceinline__ float exp2(float value) { return exp2f(value); }
    static __device__ __forceinline__ float row_sum(float value) {
        for (int lanes = ACROSS / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
        return value;
    }
    static __device__ __forceinline__ float row_maximum(float value) {
        for (int lanes = ACROSS / 2; lanes > 0; lanes /= 2) {
            value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, lanes));
        }
        return value;
    }

    template <int TILE>
    static __device__ __forceinline__ void load(Shared *tile, const HeadRows<const Element> &from, int first) {
        int padded = (from.head_size + 3) / 4 * 4, apart = stride(from.head_size);
        for (int i = (int)threadIdx.x; i < TILE * padded; i += THREADS) {
            int tile_row = i / padded, at = i % padded;
            int source = first + tile_row;
            bool there = source >= 0 && source < from.count && at < from.head_size;
            tile[tile_row * apart + at] = there ? to_float(from.data[source * from.leading + at]) : 0.0f;
        }
    }

    struct Left {
        const Shared *tile;
        __device__ __forceinline__ void read(const Shared *from) { tile = from; }
    };
    using SharedLeft = Left;

    static __device__ __forceinline__ void multiply_transposed(Scores &scores, const Left &left, const Shared *right,
                                                               int head_size) {
        int apart = stride(head_size);
        scores.clear();
        for (int at = 0; at < head_size; at += 4) {
            Vector<float> a[MY_ROWS];
#pragma unroll
            for (int r = 0; r < MY_ROWS; r++) a[r] = load_vector(left.tile + row(r) * apart + at);
#pragma unroll
            for (int c = 0; c < MY_COLUMNS; c++) {
                Vector<float> b = load_vector(right + column(c) * apart + at);
#pragma unroll
                for (int r = 0; r < MY_ROWS; r++) {
#pragma unroll
                    for (int e = 0; e < 4; e++) scores.at(r, c) = fmaf(a[r].at[e], b.at[e], scores.at(r, c));
                }
            }
        }
    }

    static __device__ __forceinline__ void multiply(Output &out, Scores &scores, const Shared *right, int head_size,
                                                    float *work) {
        int apart = stride(head_size);
        __syncwarp();
#pragma unroll
        for (int r = 0; r < MY_ROWS; r++) {
#pragma unroll
            for (int c = 0; c < MY_COLUMNS; c++) work[row(r) * WORK_STRIDE + column(c)] = scores.at(r, c);
        }
        __syncwarp();
        for (int j = 0; j < COLUMNS; j += 4) {
            Vector<float> a[MY_ROWS];
#pragma unroll
            for (int r = 0; r < MY_ROWS; r++) a[r] = load_vector(work + row(r) * WORK_STRIDE + j);
#pragma unroll
            for (int w = 0; w < MY_WIDTH; w += 4) {
                if (output_column(w) >= head_size) continue;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    Vector<float> b = load_vector(right + (j + i) * apart + output_column(w));
#pragma unroll
                    for (int r = 0; r < MY_ROWS; r++) {
#pragma unroll
                        for (int e = 0; e < 4; e++) {
                            out.at(r, w + e) = fmaf(a[r].at[i], b.at[e], out.at(r, w + e));
                        }
                    }
                }
            }
        }
    }

    static __device__ __forceinline__ void store(const HeadRows<Element> &to, int first, Output &out, Shared *) {
#pragma unroll
        for (int r = 0; r < MY_ROWS; r++) {
            if (first + row(r) >= to.count) continue;
#pragma unroll
            for (int w = 0; w < MY_WIDTH; w++) {
                if (output_column(w) >= to.head_size) continue;
                to.data[(first + row(r)) * to.leading + output_column(w)] = from_float<Element>(out.at(r, w));
            }
        }
    }
};

#endif

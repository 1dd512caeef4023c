// Attention over packed sequences, backward (formulas as FlashAttention-2). With p = exp(score - lse): dv = p^T do;
// dp = do v^T; ds = p * (dp - delta), delta = sum(do * o); dq = scale * ds k; dk = scale * ds^T q.
//
// Two kernels that share no sums: one owns tiles of keys, for dk and dv, one owns tiles of queries, for dq and the
// gradient of the gates. Each computes p and ds for itself; what that costs is saved in exchanges through memory, and
// the order of all sums is fixed.
#include "ops/cuda/attention.cuh"
#include "ops/scratch.h"

// Tiles of keys. dk and dv of a warp's rows are in registers, and two tiles of scores. Small heads leave a warp room
// for 32 rows, so that a fragment of queries serves two products; others, or with a bias, for 16, and for keys beside.
template <int WIDTH, bool BIASED = false, bool WIDE = (WIDTH <= 64 && !BIASED)>
using KeyTile = TensorTile<WIDTH, (WIDE ? 2 : 1), (WIDE ? 4 : 8), 32, !WIDE>;
// Tiles of queries: dq, and two tiles of scores. Small heads leave room for queries and do, if there is no bias.
template <int WIDTH, bool BIASED = false>
using QueryTile = TensorTile<WIDTH, 2, 4, 32, (WIDTH <= 64 && !BIASED)>;

// ---- Statistics ------------------------------------------------------------

// A group of lanes takes a query and a head.
enum { STATISTICS_THREADS = 256, STATISTICS_LANES = 16 };

template <class T, bool VECTORS>
static __global__ void statistics_kernel(RowStatistics *statistics, Attention<T> a) {
    int64_t index = grid_index() / STATISTICS_LANES, row = index / a.heads, head = index % a.heads;
    int lane = (int)threadIdx.x % STATISTICS_LANES;
    bool there = row < a.total_queries;
    float delta = 0;
    if (there) {
        const T *d_o = a.d_o + index * a.head_size, *o = a.o + index * a.head_size;
        constexpr int COUNT = VECTORS ? Vector<T>::COUNT : 1;
        for (int at = lane * COUNT; at < a.head_size; at += STATISTICS_LANES * COUNT) {
            if constexpr (VECTORS) {
                Vector<T> x = load_vector(d_o + at), y = load_vector(o + at);
#pragma unroll
                for (int i = 0; i < COUNT; i++) delta = fmaf(to_float(x.at[i]), to_float(y.at[i]), delta);
            } else {
                delta = fmaf(to_float(d_o[at]), to_float(o[at]), delta);
            }
        }
    }
    for (int lanes = STATISTICS_LANES / 2; lanes > 0; lanes /= 2) {
        delta += __shfl_xor_sync(0xffffffffu, delta, lanes);
    }
    if (!there || lane != 0) return;
    float lse = a.lse[head * a.total_queries + row];
    statistics[head * a.total_queries + row] = RowStatistics{lse == -INFINITY ? INFINITY : lse * LOG2_E, delta};
}

template <class T>
static VlStatus run_statistics(VlContext *context, RowStatistics *statistics, const AttentionTensors &t) {
    auto a = describe<T>(context, t);
    bool vectors = vectors_fit(t.o, a.head_size) && vectors_fit(t.d_o, a.head_size);
    int64_t threads = a.total_queries * a.heads * STATISTICS_LANES;
    return launch(context, vectors ? statistics_kernel<T, true> : statistics_kernel<T, false>,
                  blocks_for(threads, STATISTICS_THREADS, INT32_MAX), dim3(STATISTICS_THREADS), 0, statistics, a);
}

// ---- Tiles of keys ---------------------------------------------------------

// What one tile of queries needs, in shared memory: two of them, one in use and one on its way.
template <class Tile, bool BIASED>
struct QueryStage {
    using Shared = typename Tile::Shared;
    static constexpr int COLUMNS = Tile::COLUMNS, SLICE = Tile::ROWS + COLUMNS;
    static constexpr int FLOATS = 2 * COLUMNS + (BIASED ? COLUMNS + SLICE : 0);
    Shared *q, *d_o;
    RowStatistics *statistics;  // [COLUMNS]
    float *gates, *slice;       // [COLUMNS]; of the bias

    __device__ __forceinline__ QueryStage(Shared *tiles, float *floats, int number, int stride) {
        q = tiles + 2 * number * COLUMNS * stride;
        d_o = q + COLUMNS * stride;
        statistics = (RowStatistics *)(floats + number * FLOATS);
        gates = floats + number * FLOATS + 2 * COLUMNS;
        slice = gates + COLUMNS;
    }
};

// Where things are in the block's shared memory.
template <class Tile, bool BIASED>
struct KeyShared {
    using Shared = typename Tile::Shared;
    using Stage = QueryStage<Tile, BIASED>;
    Shared *k, *v, *tiles;
    float *floats, *work;
    int stride;

    __device__ KeyShared(char *memory, int head_size) : stride(Tile::stride(head_size)) {
        k = (Shared *)(memory + PIECE_BYTES);
        v = k + Tile::ROWS * stride;
        tiles = v + Tile::ROWS * stride;
        floats = (float *)(tiles + 4 * Tile::COLUMNS * stride);
        work = floats + 2 * Stage::FLOATS;
    }
    __device__ __forceinline__ Stage stage(int number) const { return Stage(tiles, floats, number, stride); }
    static int64_t bytes(int head_size) {
        int64_t elements = (2 * Tile::ROWS + 4 * Tile::COLUMNS) * Tile::stride(head_size);
        int64_t floats = 2 * Stage::FLOATS + Tile::work_floats();
        return PIECE_BYTES + elements * (int64_t)sizeof(Shared) + floats * (int64_t)sizeof(float);
    }
};

// Which tile of queries: a tile of keys meets those of every query head of its group, head after head.
struct Turn {
    int head, query;

    template <class Tile>
    __device__ __forceinline__ Turn next(const Piece &piece) const {
        bool more = query + Tile::COLUMNS < piece.end;
        return Turn{more ? head : head + 1, more ? query + Tile::COLUMNS : piece.begin};
    }
};

template <class Tile, bool BIASED, class T, class Stage>
static __device__ __forceinline__ void load_queries(const Stage &stage, const Attention<T> &a, const Piece &piece,
                                                    Turn turn) {
    int head = turn.head, query = turn.query;
    Tile::template load<Tile::COLUMNS>(stage.q, rows_of_queries(a.q, a, piece, head), query);
    Tile::template load<Tile::COLUMNS>(stage.d_o, rows_of_queries(a.d_o, a, piece, head), query);
    copy_values(stage.statistics, Tile::COLUMNS, a.statistics + head * a.total_queries + piece.first_query, query,
                piece.queries);
    if constexpr (BIASED) {
        copy_values(stage.gates, Tile::COLUMNS, a.gate + piece.first_query * a.heads + head, query, piece.queries,
                    a.heads);
        copy_values(stage.slice, Tile::ROWS + Tile::COLUMNS - 1, a.bias + head * a.distances,
                    a.distances / 2 + query - piece.start - (Tile::ROWS - 1), a.distances);
    }
    ptx_copy_commit();
}

// Scores, rows are keys, become probabilities: of queries from `query` on. Rows of zeros behind the last query have
// statistics of zero: their probabilities are finite and meet zeros only.
template <class Tile, bool BIASED, class T, class Stage>
static __device__ __forceinline__ void soften_columns(typename Tile::Scores &scores, const Stage &stage,
                                                      const Attention<T> &a, const Piece &piece, int query) {
    float factor = a.scale * LOG2_E;
    int seen = visible_keys(a, piece, query) - piece.start;  // rows that the first query sees
    bool hidden = a.causal && seen < Tile::ROWS;
#pragma unroll
    for (int c = 0; c < Tile::MY_COLUMNS; c++) {
        int column = Tile::column(c);
        float lse = stage.statistics[column].lse;
#pragma unroll
        for (int r = 0; r < Tile::MY_ROWS; r++) {
            int row = Tile::row(r);
            float score = scores.at(r, c) * factor;
            if constexpr (BIASED) {
                score = fmaf(stage.gates[column] * LOG2_E, stage.slice[column - row + Tile::ROWS - 1], score);
            }
            if (hidden && row >= seen + column) score = -INFINITY;
            scores.at(r, c) = Tile::exp2(score - lse);
        }
    }
}

// The gradients of the probabilities become those of the scores.
template <class Tile, class Stage>
static __device__ __forceinline__ void differentiate_columns(typename Tile::Scores &p, typename Tile::Scores &ds,
                                                             const Stage &stage) {
#pragma unroll
    for (int c = 0; c < Tile::MY_COLUMNS; c++) {
        float delta = stage.statistics[Tile::column(c)].delta;
#pragma unroll
        for (int r = 0; r < Tile::MY_ROWS; r++) ds.at(r, c) = p.at(r, c) * (ds.at(r, c) - delta);
    }
}

template <class Tile, bool BIASED>
static __global__ void __launch_bounds__(Tile::THREADS) keys_kernel(Attention<typename Tile::Element> a) {
    VL_DYNAMIC_SHARED(char, memory);
    KeyShared<Tile, BIASED> shared(memory, a.head_size);
    if (!find_block<Tile>((Piece *)memory, a, true)) return;
    const Piece &piece = *(const Piece *)memory;

    Turn turn = {piece.head * a.group, piece.begin};
    if (piece.begin >= piece.end) turn.head += a.group;
    Tile::template load<Tile::ROWS>(shared.k, rows_of_keys(a.k, a, piece, piece.head), piece.start);
    Tile::template load<Tile::ROWS>(shared.v, rows_of_keys(a.v, a, piece, piece.head), piece.start);
    ptx_copy_commit();
    if (piece.begin < piece.end) load_queries<Tile, BIASED>(shared.stage(0), a, piece, turn);
    typename Tile::Output dk, dv;
    dk.clear();
    dv.clear();
    ptx_copy_wait<0>();
    __syncthreads();
    typename Tile::Left k;
    typename Tile::SharedLeft v;
    k.read(shared.k);
    v.read(shared.v);

    for (int number = 0; turn.head < (piece.head + 1) * a.group; number ^= 1) {
        auto stage = shared.stage(number);
        Turn next = turn.next<Tile>(piece);
        ptx_copy_wait<0>();
        __syncthreads();  // this stage is here, and nobody reads the other any more
        if (next.head < (piece.head + 1) * a.group)
            load_queries<Tile, BIASED>(shared.stage(number ^ 1), a, piece, next);
        typename Tile::Scores p, ds;
        Tile::multiply_transposed(p, k, stage.q, a.head_size);
        soften_columns<Tile, BIASED>(p, stage, a, piece, turn.query);
        Tile::multiply_transposed(ds, v, stage.d_o, a.head_size);
        differentiate_columns<Tile>(p, ds, stage);
        Tile::multiply(dv, p, stage.d_o, a.head_size, shared.work);
        Tile::multiply(dk, ds, stage.q, a.head_size, shared.work);
        turn = next;
    }
    dk.scale(a.scale);
    if (a.dk) Tile::store(rows_of_keys(a.dk, a, piece, piece.head), piece.start, dk, shared.k);
    if (a.dv) Tile::store(rows_of_keys(a.dv, a, piece, piece.head), piece.start, dv, shared.v);
}

// ---- Tiles of queries ------------------------------------------------------

// The same for a tile of keys.
template <class Tile, bool BIASED>
struct KeyStage {
    using Shared = typename Tile::Shared;
    static constexpr int FLOATS = BIASED ? Tile::ROWS + Tile::COLUMNS : 0;
    Shared *k, *v;
    float *slice;  // of the bias

    __device__ __forceinline__ KeyStage(Shared *tiles, float *floats, int number, int stride) {
        k = tiles + 2 * number * Tile::COLUMNS * stride;
        v = k + Tile::COLUMNS * stride;
        slice = floats + number * FLOATS;
    }
};

template <class Tile, bool BIASED>
struct QueryShared {
    using Shared = typename Tile::Shared;
    using Stage = KeyStage<Tile, BIASED>;
    Shared *q, *d_o, *tiles;
    float *floats, *work;
    int stride;

    __device__ QueryShared(char *memory, int head_size) : stride(Tile::stride(head_size)) {
        q = (Shared *)(memory + PIECE_BYTES);
        d_o = q + Tile::ROWS * stride;
        tiles = d_o + Tile::ROWS * stride;
        floats = (float *)(tiles + 4 * Tile::COLUMNS * stride);
        work = floats + 2 * Stage::FLOATS;
    }
    __device__ __forceinline__ Stage stage(int number) const { return Stage(tiles, floats, number, stride); }
    static int64_t bytes(int head_size) {
        int64_t elements = (2 * Tile::ROWS + 4 * Tile::COLUMNS) * Tile::stride(head_size);
        int64_t floats = 2 * Stage::FLOATS + Tile::work_floats();
        return PIECE_BYTES + elements * (int64_t)sizeof(Shared) + floats * (int64_t)sizeof(float);
    }
};

template <class Tile, bool BIASED, class T, class Stage>
static __device__ __forceinline__ void load_keys(const Stage &stage, const Attention<T> &a, const Piece &piece,
                                                 int head, int key) {
    Tile::template load<Tile::COLUMNS>(stage.k, rows_of_keys(a.k, a, piece, head / a.group), key);
    Tile::template load<Tile::COLUMNS>(stage.v, rows_of_keys(a.v, a, piece, head / a.group), key);
    if constexpr (BIASED) copy_slice<Tile>(stage.slice, a, head, piece.start, key);
    ptx_copy_commit();
}

// The gradient of a row's gate: sums of ds * bias, of ds, of p * bias. A query has one gate for all its keys, and the
// bias has the same sign for most of them: an error of delta, whose o is rounded when it is bf16, adds up there. The
// sum of ds would be zero without it; with the mean of the bias it is taken out to first order.
template <class Tile>
struct GateGradient {
    float product[Tile::MY_ROWS], drift[Tile::MY_ROWS], mean[Tile::MY_ROWS];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int r = 0; r < Tile::MY_ROWS; r++) product[r] = drift[r] = mean[r] = 0;
    }
    __device__ __forceinline__ void add(int r, float p, float ds, float bias) {
        product[r] = fmaf(ds, bias, product[r]);
        drift[r] += ds;
        mean[r] = fmaf(p, bias, mean[r]);
    }
    template <class T>
    __device__ __forceinline__ void store(const Attention<T> &a, const Piece &piece, int head) {
#pragma unroll
        for (int r = 0; r < Tile::MY_ROWS; r++) {
            float gradient = Tile::row_sum(product[r]) - Tile::row_sum(drift[r]) * Tile::row_sum(mean[r]);
            int query = piece.start + Tile::row(r);
            if (!Tile::leads_row() || query >= piece.queries) continue;
            a.dgate[(piece.first_query + query) * a.heads + head] = gradient;
        }
    }
};

template <class Tile, bool BIASED>
static __global__ void __launch_bounds__(Tile::THREADS, 1) queries_kernel(Attention<typename Tile::Element> a) {
    VL_DYNAMIC_SHARED(char, memory);
    QueryShared<Tile, BIASED> shared(memory, a.head_size);
    if (!find_block<Tile>((Piece *)memory, a, false)) return;
    const Piece &piece = *(const Piece *)memory;

    Tile::template load<Tile::ROWS>(shared.q, rows_of_queries(a.q, a, piece, piece.head), piece.start);
    Tile::template load<Tile::ROWS>(shared.d_o, rows_of_queries(a.d_o, a, piece, piece.head), piece.start);
    load_keys<Tile, BIASED>(shared.stage(0), a, piece, piece.head, 0);
    typename Tile::Output dq;
    dq.clear();
    QueryRows<Tile> rows;
    rows.template load<BIASED>(a, piece, piece.head, piece.start);
    GateGradient<Tile> gate_gradient;
    if constexpr (BIASED) gate_gradient.clear();
    ptx_copy_wait<0>();
    __syncthreads();
    typename Tile::Left q, d_o;
    q.read(shared.q);
    d_o.read(shared.d_o);

    float factor = a.scale * LOG2_E;
    for (int key = 0, turn = 0; key < piece.end; key += Tile::COLUMNS, turn ^= 1) {
        auto stage = shared.stage(turn);
        ptx_copy_wait<0>();
        __syncthreads();  // this stage is here, and nobody reads the other any more
        if (key + Tile::COLUMNS < piece.end) {
            load_keys<Tile, BIASED>(shared.stage(turn ^ 1), a, piece, piece.head, key + Tile::COLUMNS);
        }
        typename Tile::Scores p, ds;
        Tile::multiply_transposed(p, q, stage.k, a.head_size);
        if constexpr (BIASED) add_bias<Tile>(p, stage.slice, rows.gate, factor);
        if (key + Tile::COLUMNS > piece.certain) hide_keys<Tile>(p, a, piece, piece.start, key);
        Tile::multiply_transposed(ds, d_o, stage.v, a.head_size);
        differentiate<Tile>(p, ds, rows, BIASED ? 1.0f : factor);
        if constexpr (BIASED) {
#pragma unroll
            for (int r = 0; r < Tile::MY_ROWS; r++) {
#pragma unroll
                for (int c = 0; c < Tile::MY_COLUMNS; c++) {
                    float bias = stage.slice[Tile::row(r) - Tile::column(c) + Tile::COLUMNS - 1];
                    gate_gradient.add(r, p.at(r, c), ds.at(r, c), bias);
                }
            }
        }
        Tile::multiply(dq, ds, stage.k, a.head_size, shared.work);
    }
    if constexpr (BIASED) {
        if (a.dgate) gate_gradient.store(a, piece, piece.head);
    }
    dq.scale(a.scale);
    if (a.dq) Tile::store(rows_of_queries(a.dq, a, piece, piece.head), piece.start, dq, shared.q);
}

// ---- Both ------------------------------------------------------------------

template <class OfKeys, class OfQueries, bool BIASED>
static VlStatus run(VlContext *context, const AttentionTensors &tensors, const RowStatistics *statistics) {
    auto a = describe<typename OfKeys::Element>(context, tensors);
    a.statistics = statistics;
    if (a.dk || a.dv) {
        int64_t slots = count_slots(a.total_keys, a.sequences, OfKeys::ROWS);
        VL_TRY(launch(context, keys_kernel<OfKeys, BIASED>, dim3((unsigned)(slots * a.kv_heads)), dim3(OfKeys::THREADS),
                      KeyShared<OfKeys, BIASED>::bytes(a.head_size), a));
    }
    if (a.dq || a.dgate) {
        int64_t slots = count_slots(a.total_queries, a.sequences, OfQueries::ROWS);
        VL_TRY(launch(context, queries_kernel<OfQueries, BIASED>, dim3((unsigned)(slots * a.heads)),
                      dim3(OfQueries::THREADS), QueryShared<OfQueries, BIASED>::bytes(a.head_size), a));
    }
    return VL_OK;
}

// Two stages of 16 rows beside a tile: of the widest heads, 32 would not fit.
template <class T, bool BIASED>
static VlStatus run_plain(VlContext *context, const AttentionTensors &tensors, const RowStatistics *statistics) {
    return run<PlainTile<T, 16>, PlainTile<T, 16>, BIASED>(context, tensors, statistics);
}

static VlStatus run_attention(VlContext *context, const AttentionTensors &t, const RowStatistics *statistics) {
    if (t.q.dtype == VL_F32) return run_plain<float, false>(context, t, statistics);
    if (fits_tensor_cores(t, 64)) return run<KeyTile<64>, QueryTile<64>, false>(context, t, statistics);
    if (fits_tensor_cores(t, 80)) return run<KeyTile<80>, QueryTile<80>, false>(context, t, statistics);
    if (fits_tensor_cores(t, 96)) return run<KeyTile<96>, QueryTile<96>, false>(context, t, statistics);
    if (fits_tensor_cores(t, 128)) return run<KeyTile<128>, QueryTile<128>, false>(context, t, statistics);
    return run_plain<Bf16, false>(context, t, statistics);
}

static VlStatus run_biased(VlContext *context, const AttentionTensors &t, const RowStatistics *statistics) {
    if (t.q.dtype == VL_F32) return run_plain<float, true>(context, t, statistics);
    if (fits_tensor_cores(t, 64)) return run<KeyTile<64, true>, QueryTile<64, true>, true>(context, t, statistics);
    return run_plain<Bf16, true>(context, t, statistics);
}

// Pushes the statistics of the rows and computes them.
static VlStatus make_statistics(VlContext *context, const AttentionTensors &t, const RowStatistics **statistics) {
    VlTensor scratch;
    VL_TRY(check_limits(t));
    VL_TRY(vl_scratch_attention_backward(context, &scratch, vl_attention_tiles(t.q, t.k, t.heads, t.kv_heads), t.lse));
    auto made = (RowStatistics *)scratch.data;
    *statistics = made;
    return t.q.dtype == VL_F32 ? run_statistics<float>(context, made, t) : run_statistics<Bf16>(context, made, t);
}

VlStatus vl_cuda_attention_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor d_o, VlTensor q,
                                    VlTensor k, VlTensor v, VlTensor o, VlTensor lse, VlTensor cu_q, VlTensor cu_k,
                                    int64_t heads, int64_t kv_heads, bool causal) {
    AttentionTensors tensors = {.q = q,
                                .k = k,
                                .v = v,
                                .cu_q = cu_q,
                                .cu_k = cu_k,
                                .o = o,
                                .lse = lse,
                                .d_o = d_o,
                                .dq = dq,
                                .dk = dk,
                                .dv = dv,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .causal = causal};
    int64_t mark = vl_arena_mark(&context->scratch);
    const RowStatistics *statistics;
    VL_TRY(make_statistics(context, tensors, &statistics));
    VL_TRY(run_attention(context, tensors, statistics));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_cuda_biased_attention_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor dbias,
                                           VlTensor dgate, VlTensor d_o, VlTensor q, VlTensor k, VlTensor v, VlTensor o,
                                           VlTensor lse, VlTensor bias, VlTensor gate, VlTensor cu_seqlens,
                                           int64_t heads) {
    AttentionTensors tensors = {.q = q,
                                .k = k,
                                .v = v,
                                .cu_q = cu_seqlens,
                                .cu_k = cu_seqlens,
                                .o = o,
                                .lse = lse,
                                .bias = bias,
                                .gate = gate,
                                .d_o = d_o,
                                .dq = dq,
                                .dk = dk,
                                .dv = dv,
                                .dbias = dbias,
                                .dgate = dgate,
                                .heads = heads,
                                .kv_heads = heads};
    int64_t mark = vl_arena_mark(&context->scratch);
    const RowStatistics *statistics;
    VL_TRY(make_statistics(context, tensors, &statistics));
    VL_TRY(run_biased(context, tensors, statistics));
    if (!vl_is_empty(dbias)) VL_TRY(vl_cuda_attention_bias_gradient(context, tensors, statistics));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

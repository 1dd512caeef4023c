// What the kernels of attention share: their arguments, which part of the work is a block's, and what queries see.
//
// The method is FlashAttention-2 (Tri Dao, 2023). Sequences are packed, and only the device knows their lengths: a grid
// has a slot for every tile that there could be, and a block finds its own by binary search over the offsets.
#ifndef VL_OPS_CUDA_ATTENTION_CUH
#define VL_OPS_CUDA_ATTENTION_CUH

#include <math.h>

#include "ops/cuda/attention_tiles.cuh"

static constexpr float LOG2_E = 1.44269504088896340736f, LN_2 = 0.69314718055994530942f;

// Of a query and a head, for backward. lse in units of log2; INFINITY where the query sees no key.
struct alignas(8) RowStatistics {
    float lse, delta;  // delta: sum of do * o
};

// The arguments of a call; those that it has not got are empty.
struct AttentionTensors {
    VlTensor q, k, v, cu_q, cu_k, o, lse;
    VlTensor bias, gate;                     // of biased_attention
    VlTensor d_o, dq, dk, dv, dbias, dgate;  // backward
    int64_t heads, kv_heads;
    bool causal;
};

// The same for kernels; NULL for what is empty.
template <class T>
struct Attention {
    const T *q, *k, *v, *d_o;
    T *o, *dq, *dk, *dv;
    const int64_t *cu_q, *cu_k;
    float *lse;                       // [heads,total_queries]
    const RowStatistics *statistics;  // [heads,total_queries]
    const float *bias, *gate;         // [heads,distances], [total_queries,heads]
    float *dbias, *dgate;
    int64_t sequences, total_queries, total_keys, distances;
    int heads, kv_heads, group;  // group: the query heads of a key/value head
    int head_size;
    bool causal;
    float scale;
    VlCudaFault *fault;
};

template <class T>
static Attention<T> describe(VlContext *context, const AttentionTensors &t) {
    Attention<T> a = {};
    a.q = data_of<T>(t.q), a.k = data_of<T>(t.k), a.v = data_of<T>(t.v), a.d_o = data_of<T>(t.d_o);
    a.o = data_of<T>(t.o), a.dq = data_of<T>(t.dq), a.dk = data_of<T>(t.dk), a.dv = data_of<T>(t.dv);
    a.cu_q = data_of<int64_t>(t.cu_q), a.cu_k = data_of<int64_t>(t.cu_k);
    a.lse = data_of<float>(t.lse);
    a.bias = data_of<float>(t.bias), a.gate = data_of<float>(t.gate);
    a.dbias = data_of<float>(t.dbias), a.dgate = data_of<float>(t.dgate);
    a.sequences = t.cu_q.dim[0] - 1, a.total_queries = t.q.dim[0], a.total_keys = t.k.dim[0];
    a.distances = t.bias.dim[1];
    a.heads = (int)t.heads, a.kv_heads = (int)t.kv_heads, a.group = a.heads / a.kv_heads;
    a.head_size = (int)(t.q.dim[1] / t.heads);
    a.causal = t.causal;
    a.scale = (float)(1.0 / sqrt((double)a.head_size));
    a.fault = vl_cuda_state(context)->fault;
    return a;
}

// Rows of a sequence are counted in 32 bits.
static inline VlStatus check_limits(const AttentionTensors &t) {
    int64_t head_size = t.q.dim[1] / t.heads, most = PlainTile<float>::WIDTH, most_rows = 1 << 30;
    if (t.q.dim[0] > most_rows || t.k.dim[0] > most_rows) {
        return vl_error(VL_UNSUPPORTED, "q %s and k %s, at most %lld rows are served on the device cuda",
                        vl_describe(t.q), vl_describe(t.k), (long long)most_rows);
    }
    if (head_size <= most) return VL_OK;
    return vl_error(VL_UNSUPPORTED, "heads of %lld columns, at most %lld are served on the device cuda",
                    (long long)head_size, (long long)most);
}

// Whether rows of heads are whole pieces of 16 bytes, of heads that a TensorTile is wide enough for.
static inline bool fits_tensor_cores(const AttentionTensors &t, int64_t widest) {
    int64_t head_size = t.q.dim[1] / t.heads;
    if (t.q.dtype != VL_BF16 || head_size % 8 != 0 || head_size > widest) return false;
    const VlTensor tensors[] = {t.q, t.k, t.v, t.o, t.d_o, t.dq, t.dk, t.dv};
    for (const VlTensor &tensor : tensors) {
        if ((uintptr_t)tensor.data % 16 != 0) return false;
    }
    return true;
}

// dbias += the sums of ds * gate over the queries and keys at each distance (attention_bias.cu).
VlStatus vl_cuda_attention_bias_gradient(VlContext *context, const AttentionTensors &tensors,
                                         const RowStatistics *statistics);

// ---- In kernels ------------------------------------------------------------

// A tile of a sequence: rows from `start` on, of its queries or of its keys; and what it meets.
struct Piece {
    int64_t first_query, first_key;
    int queries, keys, start;
    int head;        // of q where the tile is one of queries, of k where it is one of keys
    int begin, end;  // the keys that some of its queries see, the queries that see some of its keys, whole tiles
    int certain;     // keys before this one are seen by all of its queries
};

// How many slots there are for tiles of `size` rows: sequence s has those from offsets[s] / size + s on, enough for it.
static inline int64_t count_slots(int64_t rows, int64_t sequences, int64_t size) {
    return sequences > 0 ? rows / size + sequences : 0;
}

// Where a sequence is. Offsets that cannot be are reported; false then.
template <class T>
static __device__ bool find_sequence(Piece *piece, const Attention<T> &a, int64_t sequence) {
    int64_t query = a.cu_q[sequence], queries = a.cu_q[sequence + 1] - query;
    int64_t key = a.cu_k[sequence], keys = a.cu_k[sequence + 1] - key;
    *piece = Piece{query, key, (int)queries, (int)keys, 0, 0, 0, 0, 0};
    return index_fits(a.fault, sequence, query, a.total_queries + 1) &&
           index_fits(a.fault, sequence, key, a.total_keys + 1) &&
           index_fits(a.fault, sequence + 1, queries, a.total_queries - query + 1) &&
           index_fits(a.fault, sequence + 1, keys, a.total_keys - key + 1);
}

// How many keys of its sequence a query sees, from the first one on; 0 or less: none.
template <class T>
static __device__ __forceinline__ int visible_keys(const Attention<T> &a, const Piece &piece, int query) {
    int border = piece.keys - piece.queries + query + 1;
    return a.causal && border < piece.keys ? border : piece.keys;
}

// The tile of a slot, of queries or of keys; false where there is none. Tiles of queries come last first, tiles of keys
// first first: those for which causality leaves most to do.
template <class Tile, class T>
static __device__ bool find_piece(Piece *piece, const Attention<T> &a, bool of_keys, int slot) {
    constexpr int SIZE = Tile::ROWS;
    const int64_t *offsets = of_keys ? a.cu_k : a.cu_q;
    int64_t sequence = 0;
    for (int64_t end = a.sequences; end - sequence > 1;) {
        int64_t middle = (sequence + end) / 2;
        if (offsets[middle] / SIZE + middle <= slot) {
            sequence = middle;
        } else {
            end = middle;
        }
    }
    if (!find_sequence(piece, a, sequence)) return false;
    int tile = (int)(slot - (offsets[sequence] / SIZE + sequence));
    int tiles = ((of_keys ? piece->keys : piece->queries) + SIZE - 1) / SIZE;
    if (tile >= tiles) return false;
    if (of_keys) {
        piece->start = tile * SIZE;
        int first = a.causal ? piece->start - (piece->keys - piece->queries) : 0;
        piece->begin = first > 0 ? first / Tile::COLUMNS * Tile::COLUMNS : 0;
        piece->end = piece->queries;
    } else {
        piece->start = (tiles - 1 - tile) * SIZE;
        int last = piece->start + SIZE < piece->queries ? piece->start + SIZE : piece->queries;
        piece->end = visible_keys(a, *piece, last - 1);
        piece->certain = visible_keys(a, *piece, piece->start);
    }
    return true;
}

// Finds the block's tile, for all of its threads; heads of a slot follow each other. It stands at the beginning of
// shared memory, as registers are scarce. False: there is nothing to do.
template <class Tile, class T>
static __device__ bool find_block(Piece *piece, const Attention<T> &a, bool of_keys) {
    int heads = of_keys ? a.kv_heads : a.heads, found = 0;
    if (threadIdx.x == 0) {
        found = find_piece<Tile>(piece, a, of_keys, (int)blockIdx.x / heads);
        piece->head = (int)blockIdx.x % heads;
    }
    return __syncthreads_or(found) != 0;
}
enum { PIECE_BYTES = 64 };  // in front of the tiles
static_assert(sizeof(Piece) <= PIECE_BYTES, "a piece has its place");

// The rows of a head in a sequence.
template <class T, class Q>
static __device__ __forceinline__ HeadRows<T> rows_of_queries(T *x, const Attention<Q> &a, const Piece &piece,
                                                              int head) {
    int64_t leading = (int64_t)a.heads * a.head_size;
    return HeadRows<T>{x + piece.first_query * leading + head * a.head_size, leading, piece.queries, a.head_size};
}
template <class T, class Q>
static __device__ __forceinline__ HeadRows<T> rows_of_keys(T *x, const Attention<Q> &a, const Piece &piece,
                                                           int kv_head) {
    int64_t leading = (int64_t)a.kv_heads * a.head_size;
    return HeadRows<T>{x + piece.first_key * leading + kv_head * a.head_size, leading, piece.keys, a.head_size};
}

// `count` values that lie `apart` values apart in memory; the first is number `first` of `total`. Zeros for
// those that are not there. By the block, asynchronous.
template <class T>
static __device__ __forceinline__ void copy_values(T *to, int count, const T *from, int64_t first, int64_t total,
                                                   int64_t apart = 1) {
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) {
        bool there = first + i >= 0 && first + i < total;
        ptx_copy_async<(int)sizeof(T)>(to + i, from + (there ? (first + i) * apart : 0), there);
    }
}

// Adds the gated bias to scores, which come out in units of log2: of rows that are queries (slice[0] is of the first
// row and the last column), with a gate for each.
template <class Tile>
static __device__ __forceinline__ void add_bias(typename Tile::Scores &scores, const float *slice, const float *gates,
                                                float factor) {
#pragma unroll
    for (int r = 0; r < Tile::MY_ROWS; r++) {
#pragma unroll
        for (int c = 0; c < Tile::MY_COLUMNS; c++) {
            float bias = slice[Tile::row(r) - Tile::column(c) + Tile::COLUMNS - 1];
            scores.at(r, c) = fmaf(scores.at(r, c), factor, gates[r] * LOG2_E * bias);
        }
    }
}
// The slice of the bias that a tile of queries from `query` on and one of keys from `key` on need.
template <class Tile, class T>
static __device__ __forceinline__ void copy_slice(float *slice, const Attention<T> &a, int head, int query, int key) {
    copy_values(slice, Tile::ROWS + Tile::COLUMNS - 1, a.bias + head * a.distances,
                a.distances / 2 + query - key - (Tile::COLUMNS - 1), a.distances);
}

// Hides keys from queries: rows are queries from `query` on, columns keys from `key` on.
template <class Tile, class T>
static __device__ __forceinline__ void hide_keys(typename Tile::Scores &scores, const Attention<T> &a,
                                                 const Piece &piece, int query, int key) {
#pragma unroll
    for (int r = 0; r < Tile::MY_ROWS; r++) {
        int visible = visible_keys(a, piece, query + Tile::row(r)) - key;
#pragma unroll
        for (int c = 0; c < Tile::MY_COLUMNS; c++) {
            if (Tile::column(c) >= visible) scores.at(r, c) = -INFINITY;
        }
    }
}

// What backward knows of a thread's rows, when they are queries. Rows behind the last query see no key.
template <class Tile>
struct QueryRows {
    float lse[Tile::MY_ROWS], delta[Tile::MY_ROWS], gate[Tile::MY_ROWS];

    template <bool BIASED, class T>
    __device__ __forceinline__ void load(const Attention<T> &a, const Piece &piece, int head, int query) {
#pragma unroll
        for (int r = 0; r < Tile::MY_ROWS; r++) {
            int at = query + Tile::row(r);
            int64_t row = piece.first_query + at;
            bool there = at < piece.queries;
            RowStatistics of_row = there ? a.statistics[head * a.total_queries + row] : RowStatistics{INFINITY, 0.0f};
            lse[r] = of_row.lse, delta[r] = of_row.delta;
            if constexpr (BIASED) gate[r] = there ? a.gate[row * a.heads + head] : 0.0f;
        }
    }
};

// Scores become probabilities, the gradients of the probabilities those of the scores; rows are queries.
template <class Tile>
static __device__ __forceinline__ void differentiate(typename Tile::Scores &p, typename Tile::Scores &ds,
                                                     const QueryRows<Tile> &rows, float factor) {
#pragma unroll
    for (int r = 0; r < Tile::MY_ROWS; r++) {
#pragma unroll
        for (int c = 0; c < Tile::MY_COLUMNS; c++) {
            p.at(r, c) = Tile::exp2(fmaf(p.at(r, c), factor, -rows.lse[r]));
            ds.at(r, c) = p.at(r, c) * (ds.at(r, c) - rows.delta[r]);
        }
    }
}

#endif

// The gradient of biased_attention's bias: sums along diagonals. A block owns a head and a band of distances, and goes
// through all sequences, so that the order of a sum is that of its queries.
#include "ops/cuda/attention.cuh"

template <class Tile>
struct BiasShared {
    // As many distances as the keys of two tiles hold for every query of one.
    static constexpr int BAND = Tile::COLUMNS + 1, STRIP_STRIDE = 2 * Tile::COLUMNS + 1;
    static constexpr int SLICE = Tile::ROWS + Tile::COLUMNS;
    typename Tile::Shared *q, *d_o, *k, *v;
    float *slice, *strip;  // of the bias; ds * gate, a row for every query

    __device__ BiasShared(typename Tile::Shared *memory, int head_size) {
        int stride = Tile::stride(head_size);
        q = memory;
        d_o = q + Tile::ROWS * stride;
        k = d_o + Tile::ROWS * stride;
        v = k + Tile::COLUMNS * stride;
        slice = (float *)(v + Tile::COLUMNS * stride);
        strip = slice + SLICE;
    }
    static int64_t bytes(int head_size) {
        int64_t tiles = 2 * (Tile::ROWS + Tile::COLUMNS) * Tile::stride(head_size);
        int64_t floats = SLICE + Tile::ROWS * STRIP_STRIDE;
        return tiles * (int64_t)sizeof(typename Tile::Shared) + floats * (int64_t)sizeof(float);
    }
};

// ds * gate of the queries from `query` on and one tile of keys, into a half of the strip.
template <class Tile, class T>
static __device__ void fill_strip(float *strip, const BiasShared<Tile> &shared, const Attention<T> &a,
                                  const Piece &piece, const QueryRows<Tile> &rows, int key) {
    typename Tile::Left q, d_o;
    typename Tile::Scores p, ds;
    q.read(shared.q);
    d_o.read(shared.d_o);
    Tile::multiply_transposed(p, q, shared.k, a.head_size);
    add_bias<Tile>(p, shared.slice, rows.gate, a.scale * LOG2_E);
    Tile::multiply_transposed(ds, d_o, shared.v, a.head_size);
    differentiate<Tile>(p, ds, rows, 1.0f);
#pragma unroll
    for (int r = 0; r < Tile::MY_ROWS; r++) {
#pragma unroll
        for (int c = 0; c < Tile::MY_COLUMNS; c++) {
            int at = key + Tile::column(c);
            bool there = at >= 0 && at < piece.keys;
            strip[Tile::row(r) * BiasShared<Tile>::STRIP_STRIDE + Tile::column(c)] =
                there ? ds.at(r, c) * rows.gate[r] : 0.0f;
        }
    }
}

template <class Tile>
static __global__ void __launch_bounds__(Tile::THREADS, 1) bias_kernel(Attention<typename Tile::Element> a) {
    constexpr int BAND = BiasShared<Tile>::BAND, ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS;
    static_assert(ROWS == COLUMNS && BAND <= Tile::THREADS, "a strip is two tiles of keys, a thread has one distance");
    VL_DYNAMIC_SHARED(typename Tile::Shared, memory);
    BiasShared<Tile> shared(memory, a.head_size);
    int head = (int)blockIdx.x % a.heads;
    int64_t column = (int64_t)((int)blockIdx.x / a.heads) * BAND;
    int64_t nearest = column - a.distances / 2;  // query - key of the band's first distance
    int mine = (int)threadIdx.x;
    float sum = 0;
    for (int64_t sequence = 0; sequence < a.sequences; sequence++) {
        Piece piece;
        if (!find_sequence(&piece, a, sequence)) return;
        int64_t end = piece.keys + nearest + BAND - 1;
        if (end > piece.queries) end = piece.queries;
        for (int64_t query = nearest > 0 ? nearest : 0; query < end; query += ROWS) {
            __syncthreads();  // nobody reads the last tiles and strip any more
            Tile::template load<ROWS>(shared.q, rows_of_queries(a.q, a, piece, head), query);
            Tile::template load<ROWS>(shared.d_o, rows_of_queries(a.d_o, a, piece, head), query);
            QueryRows<Tile> rows;
            rows.template load<true>(a, piece, head, query);
#pragma unroll 1  // for fewer registers
            for (int half = 0; half < 2; half++) {
                int64_t key = query - nearest - (BAND - 1) + half * COLUMNS;
                if (half > 0) __syncthreads();
                Tile::template load<COLUMNS>(shared.k, rows_of_keys(a.k, a, piece, head), key);
                Tile::template load<COLUMNS>(shared.v, rows_of_keys(a.v, a, piece, head), key);
                copy_slice<Tile>(shared.slice, a, head, query, key);
                ptx_copy_commit();
                ptx_copy_wait<0>();
                __syncthreads();
                fill_strip<Tile>(shared.strip + half * COLUMNS, shared, a, piece, rows, key);
            }
            __syncthreads();
            if (mine < BAND) {
                for (int r = 0; r < ROWS; r++) {
                    sum += shared.strip[r * BiasShared<Tile>::STRIP_STRIDE + r + BAND - 1 - mine];
                }
            }
        }
    }
    if (mine < BAND && column + mine < a.distances) a.dbias[head * a.distances + column + mine] += sum;
}

template <class Tile>
static VlStatus run(VlContext *context, const AttentionTensors &tensors, const RowStatistics *statistics) {
    auto a = describe<typename Tile::Element>(context, tensors);
    a.statistics = statistics;
    int64_t bands = (a.distances + BiasShared<Tile>::BAND - 1) / BiasShared<Tile>::BAND;
    return launch(context, bias_kernel<Tile>, dim3((unsigned)(bands * a.heads)), dim3(Tile::THREADS),
                  BiasShared<Tile>::bytes(a.head_size), a);
}

VlStatus vl_cuda_attention_bias_gradient(VlContext *context, const AttentionTensors &tensors,
                                         const RowStatistics *statistics) {
    if (tensors.q.dtype == VL_F32) return run<PlainTile<float>>(context, tensors, statistics);
    if (fits_tensor_cores(tensors, 64)) return run<TensorTile<64, 1, 4, 64, false>>(context, tensors, statistics);
    return run<PlainTile<Bf16>>(context, tensors, statistics);
}

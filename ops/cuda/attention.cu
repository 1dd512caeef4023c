// Attention over packed sequences, forward: a block owns a tile of queries of one head and goes through the keys that
// they see; the matrix of scores never exists.
#include "ops/cuda/attention.cuh"

// Four warps of 32 rows: a fragment of keys serves two products, without which reading shared memory would take longer
// than multiplying. At head size 128 outputs and scores are 192 registers a thread, two blocks fit on a multiprocessor,
// and queries stay in shared memory; the smallest heads keep them in registers.
template <int WIDTH>
using ForwardTile = TensorTile<WIDTH, 2, 4, 64, (WIDTH <= 64)>;

// Where things are in the block's shared memory.
template <class Tile, bool BIASED>
struct ForwardShared {
    static constexpr int SLICE = BIASED ? Tile::ROWS + Tile::COLUMNS : 0, SUMS = Tile::MY_ROWS * Tile::THREADS;
    typename Tile::Shared *q, *k, *v;
    float *work, *sums, *slices;  // slices of the bias: of this tile of keys and of the next

    __device__ ForwardShared(char *memory, int head_size) {
        int stride = Tile::stride(head_size);
        q = (typename Tile::Shared *)(memory + PIECE_BYTES);
        k = q + Tile::ROWS * stride;
        v = k + Tile::COLUMNS * stride;
        work = (float *)(v + Tile::COLUMNS * stride);
        sums = work + Tile::work_floats();
        slices = sums + SUMS;
    }
    static int64_t bytes(int head_size) {
        int64_t tiles = (Tile::ROWS + 2 * Tile::COLUMNS) * Tile::stride(head_size);
        int64_t floats = Tile::work_floats() + SUMS + 2 * SLICE;
        return PIECE_BYTES + tiles * (int64_t)sizeof(typename Tile::Shared) + floats * (int64_t)sizeof(float);
    }
};

// Per row of a thread: the running maximum in units of log2, and the thread's part of the sum of exp2(score - maximum),
// which lies in shared memory, as registers are scarce.
template <class Tile>
struct RunningSoftmax {
    float most[Tile::MY_ROWS], *sums;

    __device__ __forceinline__ float &total(int row) const { return sums[row * Tile::THREADS + (int)threadIdx.x]; }
};

// Scores become exp2(score * factor - maximum); sums and outputs are brought to the new maximum. A row that has seen no
// key yet has the maximum -INFINITY; 0 in its place keeps its exponentials 0.
template <class Tile>
static __device__ __forceinline__ void soften(typename Tile::Scores &scores, typename Tile::Output &out,
                                              RunningSoftmax<Tile> &running, float factor) {
#pragma unroll
    for (int r = 0; r < Tile::MY_ROWS; r++) {
        float most = scores.at(r, 0);
#pragma unroll
        for (int c = 1; c < Tile::MY_COLUMNS; c++) most = fmaxf(most, scores.at(r, c));
        most = fmaxf(running.most[r], Tile::row_maximum(most) * factor);
        float top = most == -INFINITY ? 0.0f : most, correction = Tile::exp2(running.most[r] - top), sum = 0;
        running.most[r] = most;
#pragma unroll
        for (int c = 0; c < Tile::MY_COLUMNS; c++) {
            float power = Tile::exp2(fmaf(scores.at(r, c), factor, -top));
            scores.at(r, c) = power;
            sum += power;
        }
        running.total(r) = fmaf(running.total(r), correction, sum);
        out.scale_row(r, correction);
    }
}

// Divides the outputs by the sums, and writes lse.
template <class Tile, class T>
static __device__ __forceinline__ void finish(typename Tile::Output &out, const RunningSoftmax<Tile> &running,
                                              const Attention<T> &a, const Piece &piece, int head) {
#pragma unroll
    for (int r = 0; r < Tile::MY_ROWS; r++) {
        float total = Tile::row_sum(running.total(r)), factor = total > 0 ? ptx_reciprocal(total) : 0.0f;
        out.scale_row(r, factor);
        int query = piece.start + Tile::row(r);
        if (!a.lse || !Tile::leads_row() || query >= piece.queries) continue;
        a.lse[head * a.total_queries + piece.first_query + query] =
            total > 0 ? fmaf(running.most[r], LN_2, logf(total)) : -INFINITY;
    }
}

template <class Tile, bool BIASED>
static __global__ void __launch_bounds__(Tile::THREADS) forward_kernel(Attention<typename Tile::Element> a) {
    VL_DYNAMIC_SHARED(char, memory);
    ForwardShared<Tile, BIASED> shared(memory, a.head_size);
    if (!find_block<Tile>((Piece *)memory, a, false)) return;
    const Piece &piece = *(const Piece *)memory;
    int head = piece.head;

    Tile::template load<Tile::ROWS>(shared.q, rows_of_queries(a.q, a, piece, head), piece.start);
    Tile::template load<Tile::COLUMNS>(shared.k, rows_of_keys(a.k, a, piece, head / a.group), 0);
    if constexpr (BIASED) copy_slice<Tile>(shared.slices, a, head, piece.start, 0);
    ptx_copy_commit();
    typename Tile::Output out;
    RunningSoftmax<Tile> running = {{}, shared.sums};
    float gates[Tile::MY_ROWS];
    out.clear();
#pragma unroll
    for (int r = 0; r < Tile::MY_ROWS; r++) {
        int query = piece.start + Tile::row(r);
        running.most[r] = -INFINITY, running.total(r) = 0;
        if constexpr (BIASED) {
            gates[r] = query < piece.queries ? a.gate[(piece.first_query + query) * a.heads + head] : 0.0f;
        }
    }
    ptx_copy_wait<0>();
    __syncthreads();
    typename Tile::Left q;
    q.read(shared.q);

    float factor = a.scale * LOG2_E;
    for (int key = 0, turn = 0; key < piece.end; key += Tile::COLUMNS, turn ^= 1) {
        ptx_copy_wait<0>();
        __syncthreads();  // the keys are here, and nobody reads the old values any more
        Tile::template load<Tile::COLUMNS>(shared.v, rows_of_keys(a.v, a, piece, piece.head / a.group), key);
        ptx_copy_commit();
        typename Tile::Scores scores;
        Tile::multiply_transposed(scores, q, shared.k, a.head_size);
        ptx_copy_wait<0>();
        __syncthreads();  // the values are here, and nobody reads the keys any more
        if (key + Tile::COLUMNS < piece.end) {
            Tile::template load<Tile::COLUMNS>(shared.k, rows_of_keys(a.k, a, piece, piece.head / a.group),
                                               key + Tile::COLUMNS);
            if constexpr (BIASED) {
                copy_slice<Tile>(shared.slices + (turn ^ 1) * shared.SLICE, a, piece.head, piece.start,
                                 key + Tile::COLUMNS);
            }
            ptx_copy_commit();
        }
        if constexpr (BIASED) add_bias<Tile>(scores, shared.slices + turn * shared.SLICE, gates, factor);
        if (key + Tile::COLUMNS > piece.certain) hide_keys<Tile>(scores, a, piece, piece.start, key);
        soften<Tile>(scores, out, running, BIASED ? 1.0f : factor);
        Tile::multiply(out, scores, shared.v, a.head_size, shared.work);
    }
    finish<Tile>(out, running, a, piece, piece.head);
    Tile::store(rows_of_queries(a.o, a, piece, piece.head), piece.start, out, shared.q);
}

template <class Tile, bool BIASED>
static VlStatus run(VlContext *context, const AttentionTensors &tensors) {
    auto a = describe<typename Tile::Element>(context, tensors);
    int64_t blocks = count_slots(a.total_queries, a.sequences, Tile::ROWS) * a.heads;
    return launch(context, forward_kernel<Tile, BIASED>, dim3((unsigned)blocks), dim3(Tile::THREADS),
                  ForwardShared<Tile, BIASED>::bytes(a.head_size), a);
}

VlStatus vl_cuda_attention_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v,
                                   VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads, bool causal) {
    AttentionTensors tensors = {.q = q,
                                .k = k,
                                .v = v,
                                .cu_q = cu_q,
                                .cu_k = cu_k,
                                .o = o,
                                .lse = lse,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .causal = causal};
    VL_TRY(check_limits(tensors));
    if (q.dtype == VL_F32) return run<PlainTile<float>, false>(context, tensors);
    if (fits_tensor_cores(tensors, 64)) return run<ForwardTile<64>, false>(context, tensors);
    if (fits_tensor_cores(tensors, 80)) return run<ForwardTile<80>, false>(context, tensors);
    if (fits_tensor_cores(tensors, 96)) return run<ForwardTile<96>, false>(context, tensors);
    if (fits_tensor_cores(tensors, 128)) return run<ForwardTile<128>, false>(context, tensors);
    return run<PlainTile<Bf16>, false>(context, tensors);
}

VlStatus vl_cuda_biased_attention_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k,
                                          VlTensor v, VlTensor bias, VlTensor gate, VlTensor cu_seqlens,
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
                                .heads = heads,
                                .kv_heads = heads};
    VL_TRY(check_limits(tensors));
    if (q.dtype == VL_F32) return run<PlainTile<float>, true>(context, tensors);
    if (fits_tensor_cores(tensors, 64)) return run<ForwardTile<64>, true>(context, tensors);
    return run<PlainTile<Bf16>, true>(context, tensors);
}

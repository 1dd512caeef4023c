// Attention over packed sequences, backward (formulas and tiling as FlashAttention-2). With p = exp(score - lse):
// dv = p^T do; dp = do v^T; ds = p * (dp - sum(do * o)); dq = scale * ds k; dk = scale * ds^T q.
// One task owns a key/value head of a sequence with its dk and dv, hence sums need no exchange between threads.
#include <math.h>
#include <omp.h>
#include <string.h>

#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

// A thread's part of the scratch. Scores and their gradients stand with a key's in a row, as in forward.
typedef struct Work {
    float *k, *v, *dk, *dv;  // of a sequence: [keys,width]
    float *q, *d_o, *dq;     // [rows,width]; q times the scale
    float *qt, *d_ot;        // [width,rows]
    float *p, *ds;           // [KEYS,rows]
    float *lse, *delta;      // per row
    float *gates, *dgates;   // per row: of the bias
    float *drift, *mean;     // per row: sum of ds, which is zero but for delta's rounding; sum of p * bias
    int32_t *visible;        // per row: how many keys it sees
    int64_t rows, width;     // as in VlAttentionTiles
} Work;

static Work divide_scratch(float *scratch, VlAttentionTiles tiles) {
    int64_t keys = tiles.keys * tiles.width, rows = tiles.rows * tiles.width, scores = tiles.rows * VL_TILE_KEYS;
    Work work = {.k = scratch, .rows = tiles.rows, .width = tiles.width};
    work.v = work.k + keys;
    work.dk = work.v + keys;
    work.dv = work.dk + keys;
    work.q = work.dv + keys;
    work.d_o = work.q + rows;
    work.dq = work.d_o + rows;
    work.qt = work.dq + rows;
    work.d_ot = work.qt + rows;
    work.p = work.d_ot + rows;
    work.ds = work.p + scores;
    work.lse = work.ds + scores;
    work.delta = work.lse + tiles.rows;
    work.gates = work.delta + tiles.rows;
    work.dgates = work.gates + tiles.rows;
    work.drift = work.dgates + tiles.rows;
    work.mean = work.drift + tiles.rows;
    work.visible = (int32_t *)(void *)(work.mean + tiles.rows);
    return work;
}

static void load_sequence(const Work *work, VlTensor k, VlTensor v, const VlAttention *attention,
                          const VlAttentionBlock *block) {
    int64_t padded = vl_divide_up(block->keys, VL_TILE_KEYS) * VL_TILE_KEYS;
    size_t padding = (size_t)((padded - block->keys) * work->width) * sizeof(float);
    vl_tile_load(work->k, k, block->first_key, block->keys, block->kv_head, attention);
    memset(work->k + block->keys * work->width, 0, padding);
    vl_tile_load(work->v, v, block->first_key, block->keys, block->kv_head, attention);
    memset(work->v + block->keys * work->width, 0, padding);
    memset(work->dk, 0, (size_t)(padded * work->width) * sizeof(float));
    memset(work->dv, 0, (size_t)(padded * work->width) * sizeof(float));
}

VL_VECTORISED static float sum_of_products(const float *a, const float *b, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

// Loads a block; dq serves for o, which only delta needs. Returns how many keys the block sees.
static int64_t load_block(const Work *work, VlTensor d_o, VlTensor q, VlTensor o, VlTensor lse,
                          const VlAttention *attention, const VlAttentionBlock *block) {
    int64_t width = work->width, group = attention->group;
    vl_tile_load_block(work->q, q, attention->scale, attention, block);
    vl_tile_load_block(work->d_o, d_o, 1.0f, attention, block);
    vl_tile_load_block(work->dq, o, 1.0f, attention, block);
    vl_tile_transpose(work->qt, work->rows, work->q, block->rows, width);
    vl_tile_transpose(work->d_ot, work->rows, work->d_o, block->rows, width);
    for (int64_t row = 0; row < block->rows; row++) {
        work->delta[row] = sum_of_products(work->d_o + row * width, work->dq + row * width, width);
        work->lse[row] = 0;
        if (row >= block->count * group) continue;
        int64_t head = block->kv_head * group + row % group;
        int64_t query = block->first_query + block->query + row / group;
        float value = ((const float *)lse.data)[head * lse.dim[1] + query];
        if (value != -INFINITY) work->lse[row] = value;  // of a row that sees no key: all its scores are hidden
    }
    memset(work->dq, 0, (size_t)(block->rows * width) * sizeof(float));
    memset(work->dgates, 0, (size_t)block->rows * sizeof(float));
    memset(work->drift, 0, (size_t)block->rows * sizeof(float));
    memset(work->mean, 0, (size_t)block->rows * sizeof(float));
    vl_attention_load_gates(work->gates, attention, block);
    return vl_attention_visible(attention, block, work->visible);
}

// Scores of `count` rows become probabilities, the gradients of the probabilities those of the scores.
VL_VECTORISED static void differentiate(float *p, float *ds, int64_t leading, const float *lse, const float *delta,
                                        int64_t count) {
    for (int64_t j = 0; j < VL_TILE_KEYS; j++, p += leading, ds += leading) {
#pragma omp simd
        for (int64_t r = 0; r < count; r++) {
            float probability = vl_exp_flushed(p[r] - lse[r]);
            p[r] = probability;
            ds[r] = probability * (ds[r] - delta[r]);
        }
    }
}

// p and ds of the rows from `first` on against the block of keys that starts at `key`.
static void score(const Work *work, const VlAttention *attention, const VlAttentionBlock *block, int64_t first,
                  int64_t key) {
    VlTileProduct scores = {.c = work->p + first,
                            .c_leading = work->rows,
                            .a = work->k + key * work->width,
                            .a_leading = work->width,
                            .b = work->qt + first,
                            .b_leading = work->rows,
                            .rows = VL_TILE_KEYS,
                            .columns = block->rows - first,
                            .depth = work->width};
    vl_tile_multiply(scores);
    VlTileProduct dp = scores;
    dp.c = work->ds + first;
    dp.a = work->v + key * work->width;
    dp.b = work->d_ot + first;
    vl_tile_multiply(dp);
    vl_attention_add_bias(work->p, work->rows, work->gates, attention, block, key);
    vl_attention_hide(work->p, work->rows, block, work->visible, first, key);
    differentiate(work->p + first, work->ds + first, work->rows, work->lse + first, work->delta + first,
                  block->rows - first);
}

static void accumulate(const Work *work, const VlAttentionBlock *block, int64_t first, int64_t key) {
    int64_t width = work->width, count = block->rows - first;
    VlTileProduct dv = {.c = work->dv + key * width,
                        .c_leading = width,
                        .a = work->p + first,
                        .a_leading = work->rows,
                        .b = work->d_o + first * width,
                        .b_leading = width,
                        .rows = VL_TILE_KEYS,
                        .columns = width,
                        .depth = count,
                        .add = true};
    vl_tile_multiply(dv);
    VlTileProduct dk = dv;
    dk.c = work->dk + key * width;
    dk.a = work->ds + first;
    dk.b = work->q + first * width;
    vl_tile_multiply(dk);
    vl_tile_multiply((VlTileProduct){.c = work->dq + first * width,
                                     .c_leading = width,
                                     .a = work->ds + first,
                                     .a_leading = work->rows,
                                     .a_transposed = true,
                                     .b = work->k + key * width,
                                     .b_leading = width,
                                     .rows = count,
                                     .columns = width,
                                     .depth = VL_TILE_KEYS,
                                     .add = true});
}

typedef struct Tensors {
    VlTensor dq, dk, dv, d_o, q, k, v, o, lse;
    VlTensor dgate, bias_parts;  // of biased_attention: [T,H]; [sequences,H,2L-1], a part for every task
} Tensors;

// Of the scores of a key against `count` rows from the block's first one on.
VL_VECTORISED static void add_bias_gradient(const Work *work, float *part, const float *ds, const float *p,
                                            const float *bias, int64_t count) {
    float *dgates = work->dgates, *drift = work->drift, *mean = work->mean;
    const float *gates = work->gates;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        dgates[i] += ds[i] * bias[i];
        drift[i] += ds[i];
        mean[i] += p[i] * bias[i];
        part[i] += ds[i] * gates[i];
    }
}

// The rows of a key's scores lie along the bias in rising order.
static void differentiate_bias(const Work *work, const Tensors *t, const VlAttention *attention,
                               const VlAttentionBlock *block, int64_t sequence, int64_t key) {
    if (!attention->bias) return;
    int64_t keys = vl_minimum(VL_TILE_KEYS, block->keys - key), row = block->kv_head * attention->distances;
    float *part = (float *)t->bias_parts.data + sequence * attention->heads * attention->distances + row;
    for (int64_t j = 0; j < keys; j++) {
        int64_t at = vl_attention_distance(attention, block->query, key + j);
        add_bias_gradient(work, part + at, work->ds + j * work->rows, work->p + j * work->rows,
                          attention->bias + row + at, block->count);
    }
}

// A query has one gate for all its keys, and the bias has the same sign for most of them: an error of delta, whose o is
// rounded when it is bf16, adds up there. With drift and mean it is taken out to first order.
static void store_gates(const Work *work, VlTensor dgate, const VlAttention *attention, const VlAttentionBlock *block) {
    if (vl_is_empty(dgate)) return;
    float *to = (float *)dgate.data + (block->first_query + block->query) * attention->heads + block->kv_head;
    for (int64_t i = 0; i < block->count; i++) {
        to[i * attention->heads] = work->dgates[i] - work->drift[i] * work->mean[i];
    }
}

// One key/value head of one sequence.
static void run_task(const Work *work, const Tensors *t, const VlAttention *attention, int64_t sequence,
                     int64_t kv_head) {
    int64_t size = attention->tiles.queries;
    VlAttentionBlock block = {
        .first_query = attention->cu_q[sequence], .first_key = attention->cu_k[sequence], .kv_head = kv_head};
    block.queries = attention->cu_q[sequence + 1] - block.first_query;
    block.keys = attention->cu_k[sequence + 1] - block.first_key;
    load_sequence(work, t->k, t->v, attention, &block);
    for (block.query = 0; block.query < block.queries; block.query += size) {
        block.count = vl_minimum(size, block.queries - block.query);
        block.rows = vl_divide_up(block.count * attention->group, VL_TILE_ROWS) * VL_TILE_ROWS;
        int64_t keys = load_block(work, t->d_o, t->q, t->o, t->lse, attention, &block), first = 0;
        for (int64_t key = 0; key < keys; key += VL_TILE_KEYS) {
            first = vl_attention_first_row(&block, work->visible, first, key);
            score(work, attention, &block, first, key);
            differentiate_bias(work, t, attention, &block, sequence, key);
            accumulate(work, &block, first, key);
        }
        store_gates(work, t->dgate, attention, &block);
        if (!vl_is_empty(t->dq)) vl_tile_store_block(t->dq, work->dq, attention->scale, attention, &block);
    }
    if (!vl_is_empty(t->dk)) vl_tile_store(t->dk, block.first_key, block.keys, kv_head, work->dk, attention);
    if (!vl_is_empty(t->dv)) vl_tile_store(t->dv, block.first_key, block.keys, kv_head, work->dv, attention);
}

static VlStatus run_tasks(VlContext *context, const VlAttention *attention, const Tensors *tensors) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor scratch;
    VL_TRY(vl_scratch_attention_backward(context, &scratch, attention->tiles, tensors->lse));
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)context->threads)
    for (int64_t task = 0; task < attention->sequences * attention->kv_heads; task++) {
        Work work = divide_scratch((float *)scratch.data + omp_get_thread_num() * scratch.dim[1], attention->tiles);
        run_task(&work, tensors, attention, task / attention->kv_heads, task % attention->kv_heads);
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_cpu_attention_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor d_o, VlTensor q,
                                   VlTensor k, VlTensor v, VlTensor o, VlTensor lse, VlTensor cu_q, VlTensor cu_k,
                                   int64_t heads, int64_t kv_heads, bool causal) {
    VlAttention attention = vl_attention_describe(q, k, cu_q, cu_k, heads, kv_heads, causal);
    Tensors tensors = {.dq = dq, .dk = dk, .dv = dv, .d_o = d_o, .q = q, .k = k, .v = v, .o = o, .lse = lse};
    VL_TRY(run_tasks(context, &attention, &tensors));
    return VL_OK;
}

// dbias += the parts of all sequences, in their order.
static void add_parts(VlContext *context, VlTensor dbias, VlTensor parts) {
    int64_t count = vl_elements(dbias);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, vl_elements(parts)))
    for (int64_t begin = 0; begin < count; begin += VL_BLOCK) {
        float *to = (float *)dbias.data + begin;
        for (int64_t s = 0; s < parts.dim[0]; s++) {
            vl_block_sum(to, to, (const float *)parts.data + s * count + begin, vl_minimum(VL_BLOCK, count - begin));
        }
    }
}

VlStatus vl_cpu_biased_attention_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor dbias,
                                          VlTensor dgate, VlTensor d_o, VlTensor q, VlTensor k, VlTensor v, VlTensor o,
                                          VlTensor lse, VlTensor bias, VlTensor gate, VlTensor cu_seqlens,
                                          int64_t heads) {
    VlAttention attention = vl_attention_describe_biased(q, bias, gate, cu_seqlens, heads);
    Tensors tensors = {
        .dq = dq, .dk = dk, .dv = dv, .d_o = d_o, .q = q, .k = k, .v = v, .o = o, .lse = lse, .dgate = dgate};
    int64_t mark = vl_arena_mark(&context->scratch);
    VL_TRY(vl_scratch_attention_bias(context, &tensors.bias_parts, attention.sequences, bias));
    memset(tensors.bias_parts.data, 0, (size_t)vl_bytes(tensors.bias_parts));
    VL_TRY(run_tasks(context, &attention, &tensors));
    if (!vl_is_empty(dbias)) add_parts(context, dbias, tensors.bias_parts);
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

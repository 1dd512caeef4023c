// Attention over packed sequences, backward (formulas and tiling as FlashAttention-2). With p = exp(score - lse):
// dv = p^T do; dp = do v^T; ds = p * (dp - sum(do * o)); dq = scale * ds k; dk = scale * ds^T q.
// One task owns a key/value head of a sequence with its dk and dv, hence sums need no exchange between threads.
#include <omp.h>
#include <string.h>

#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

// A thread's part of the scratch.
typedef struct Work {
    float *k, *kt, *vt, *dk, *dv;  // of a sequence; the transposes in blocks of [width,KEYS]
    float *q, *d_o, *dq;           // [rows,width]; q times the scale
    float *p, *ds;                 // [rows,KEYS]
    float *lse, *delta;            // per row
    int32_t *visible;              // per row: how many keys it sees
} Work;

static Work divide_scratch(float *scratch, VlAttentionTiles tiles) {
    int64_t keys = tiles.keys * tiles.width, rows = tiles.rows * tiles.width, scores = tiles.rows * VL_TILE_KEYS;
    Work work = {.k = scratch};
    work.kt = work.k + keys;
    work.vt = work.kt + keys;
    work.dk = work.vt + keys;
    work.dv = work.dk + keys;
    work.q = work.dv + keys;
    work.d_o = work.q + rows;
    work.dq = work.d_o + rows;
    work.p = work.dq + rows;
    work.ds = work.p + scores;
    work.lse = work.ds + scores;
    work.delta = work.lse + tiles.rows;
    work.visible = (int32_t *)(void *)(work.delta + tiles.rows);
    return work;
}

static void load_sequence(const Work *work, VlTensor k, VlTensor v, const VlAttention *attention,
                          const VlAttentionBlock *block) {
    int64_t width = attention->tiles.width, tile = VL_TILE_KEYS * width;
    int64_t padded = vl_divide_up(block->keys, VL_TILE_KEYS) * VL_TILE_KEYS;
    size_t padding = (size_t)((padded - block->keys) * width) * sizeof(float);
    float *values = work->dv;  // not needed before they are transposed
    vl_tile_load(work->k, k, block->first_key, block->keys, block->kv_head, attention);
    memset(work->k + block->keys * width, 0, padding);
    vl_tile_load(values, v, block->first_key, block->keys, block->kv_head, attention);
    memset(values + block->keys * width, 0, padding);
    for (int64_t start = 0; start < padded * width; start += tile) {
        vl_tile_transpose(work->kt + start, work->k + start, width);
        vl_tile_transpose(work->vt + start, values + start, width);
    }
    memset(work->dk, 0, (size_t)(padded * width) * sizeof(float));
    memset(work->dv, 0, (size_t)(padded * width) * sizeof(float));
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
    int64_t width = attention->tiles.width, group = attention->group;
    vl_tile_load_block(work->q, q, attention->scale, attention, block);
    vl_tile_load_block(work->d_o, d_o, 1.0f, attention, block);
    vl_tile_load_block(work->dq, o, 1.0f, attention, block);
    for (int64_t row = 0; row < block->rows; row++) {
        work->delta[row] = sum_of_products(work->d_o + row * width, work->dq + row * width, width);
        work->lse[row] = 0;
        if (row >= block->count * group) continue;
        int64_t head = block->kv_head * group + row % group;
        int64_t query = block->first_query + block->query + row / group;
        work->lse[row] = ((const float *)lse.data)[head * lse.dim[1] + query];
    }
    memset(work->dq, 0, (size_t)(block->rows * width) * sizeof(float));
    return vl_attention_visible(attention, block, work->visible);
}

// Scores become probabilities, their gradients dp become ds; both 0 where a key is not seen.
VL_VECTORISED static void differentiate_row(float *p, float *ds, int64_t seen, float lse, float delta) {
#pragma omp simd
    for (int64_t j = 0; j < VL_TILE_KEYS; j++) {
        float probability = vl_exp(p[j] - lse);
        p[j] = probability;
        ds[j] = probability * (ds[j] - delta);
    }
    for (int64_t j = seen; j < VL_TILE_KEYS; j++) p[j] = ds[j] = 0;
}

// p and ds of rows [first, rows) against the block of keys that starts at `key`.
static void differentiate(const Work *work, int64_t first, int64_t rows, int64_t key, int64_t width) {
    VlTileProduct scores = {.c = work->p + first * VL_TILE_KEYS,
                            .c_leading = VL_TILE_KEYS,
                            .a = work->q + first * width,
                            .a_leading = width,
                            .b = work->kt + key * width,
                            .b_leading = VL_TILE_KEYS,
                            .rows = rows - first,
                            .columns = VL_TILE_KEYS,
                            .depth = width};
    vl_tile_multiply(scores);
    VlTileProduct dp = scores;
    dp.c = work->ds + first * VL_TILE_KEYS;
    dp.a = work->d_o + first * width;
    dp.b = work->vt + key * width;
    vl_tile_multiply(dp);
    for (int64_t row = first; row < rows; row++) {
        int64_t seen = vl_minimum(work->visible[row] - key, VL_TILE_KEYS);
        float *p = work->p + row * VL_TILE_KEYS, *ds = work->ds + row * VL_TILE_KEYS;
        if (seen > 0) {
            differentiate_row(p, ds, seen, work->lse[row], work->delta[row]);
        } else {
            memset(p, 0, VL_TILE_KEYS * sizeof *p);
            memset(ds, 0, VL_TILE_KEYS * sizeof *ds);
        }
    }
}

static void accumulate(const Work *work, int64_t first, int64_t rows, int64_t key, int64_t width) {
    VlTileProduct dv = {.c = work->dv + key * width,
                        .c_leading = width,
                        .a = work->p + first * VL_TILE_KEYS,
                        .a_leading = VL_TILE_KEYS,
                        .a_transposed = true,
                        .b = work->d_o + first * width,
                        .b_leading = width,
                        .rows = VL_TILE_KEYS,
                        .columns = width,
                        .depth = rows - first,
                        .add = true};
    vl_tile_multiply(dv);
    VlTileProduct dk = dv;
    dk.c = work->dk + key * width;
    dk.a = work->ds + first * VL_TILE_KEYS;
    dk.b = work->q + first * width;
    vl_tile_multiply(dk);
    vl_tile_multiply((VlTileProduct){.c = work->dq + first * width,
                                     .c_leading = width,
                                     .a = work->ds + first * VL_TILE_KEYS,
                                     .a_leading = VL_TILE_KEYS,
                                     .b = work->k + key * width,
                                     .b_leading = width,
                                     .rows = rows - first,
                                     .columns = width,
                                     .depth = VL_TILE_KEYS,
                                     .add = true});
}

typedef struct Tensors {
    VlTensor dq, dk, dv, d_o, q, k, v, o, lse;
} Tensors;

// One key/value head of one sequence.
static void run_task(const Work *work, const Tensors *t, const VlAttention *attention, int64_t sequence,
                     int64_t kv_head) {
    int64_t width = attention->tiles.width, size = attention->tiles.queries;
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
            while (work->visible[first + VL_TILE_ROWS - 1] <= key && first + VL_TILE_ROWS < block.rows) {
                first += VL_TILE_ROWS;
            }
            differentiate(work, first, block.rows, key, width);
            accumulate(work, first, block.rows, key, width);
        }
        if (!vl_is_empty(t->dq)) vl_tile_store_block(t->dq, work->dq, attention->scale, attention, &block);
    }
    if (!vl_is_empty(t->dk)) vl_tile_store(t->dk, block.first_key, block.keys, kv_head, work->dk, attention);
    if (!vl_is_empty(t->dv)) vl_tile_store(t->dv, block.first_key, block.keys, kv_head, work->dv, attention);
}

VlStatus vl_cpu_attention_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor d_o, VlTensor q,
                                   VlTensor k, VlTensor v, VlTensor o, VlTensor lse, VlTensor cu_q, VlTensor cu_k,
                                   int64_t heads, int64_t kv_heads, bool causal) {
    VlAttention attention = vl_attention_describe(q, k, cu_q, cu_k, heads, kv_heads, causal);
    Tensors tensors = {dq, dk, dv, d_o, q, k, v, o, lse};
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor scratch;
    VL_TRY(vl_scratch_attention_backward(context, &scratch, attention.tiles));
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)context->threads)
    for (int64_t task = 0; task < attention.sequences * kv_heads; task++) {
        Work work = divide_scratch((float *)scratch.data + omp_get_thread_num() * scratch.dim[1], attention.tiles);
        run_task(&work, &tensors, &attention, task / kv_heads, task % kv_heads);
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

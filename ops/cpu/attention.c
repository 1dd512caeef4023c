// Attention over packed sequences, forward. Tri Dao, "FlashAttention-2" (2023): blocks of queries, a running maximum
// and sum over blocks of keys; the matrix of scores never exists.
#include <math.h>
#include <omp.h>
#include <string.h>

#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

// A thread's part of the scratch. Scores stand with a key's in a row: they are k q^T, so that one transpose of q serves
// all keys and sums over keys run down the columns.
typedef struct Work {
    float *qt, *o;        // [width,rows], times the scale; [rows,width]
    float *k, *v;         // a block of keys: [KEYS,width]
    float *scores;        // [KEYS,rows]
    float *most, *total;  // per row: the running maximum and the sum of exp(score - maximum)
    float *correction;    // per row: exp(old maximum - new one)
    float *gates;         // per row: of the bias
    int32_t *visible;     // per row: how many keys it sees
    int64_t rows, width;  // as in VlAttentionTiles
} Work;

static Work divide_scratch(float *scratch, VlAttentionTiles tiles) {
    Work work = {.qt = scratch, .rows = tiles.rows, .width = tiles.width};
    work.o = work.qt + tiles.rows * tiles.width;
    work.k = work.o + tiles.rows * tiles.width;
    work.v = work.k + VL_TILE_KEYS * tiles.width;
    work.scores = work.v + VL_TILE_KEYS * tiles.width;
    work.most = work.scores + VL_TILE_KEYS * tiles.rows;
    work.total = work.most + tiles.rows;
    work.correction = work.total + tiles.rows;
    work.gates = work.correction + tiles.rows;
    work.visible = (int32_t *)(void *)(work.gates + tiles.rows);
    return work;
}

// Scores of `count` rows become exp(score - maximum), total is brought to the new maximum. A row that has seen no key
// yet has the maximum -INFINITY; 0 in its place keeps its exponentials 0.
VL_VECTORISED static void soften(float *scores, int64_t leading, float *most, float *total, float *correction,
                                 int64_t count) {
    for (int64_t r = 0; r < count; r++) correction[r] = most[r];
    for (int64_t j = 0; j < VL_TILE_KEYS; j++) {
        const float *row = scores + j * leading;
#pragma omp simd
        for (int64_t r = 0; r < count; r++) most[r] = row[r] > most[r] ? row[r] : most[r];
    }
#pragma omp simd
    for (int64_t r = 0; r < count; r++) {
        float top = most[r] == -INFINITY ? 0.0f : most[r];
        correction[r] = vl_exp(correction[r] - top);
        total[r] *= correction[r];
    }
    for (int64_t j = 0; j < VL_TILE_KEYS; j++) {
        float *row = scores + j * leading;
#pragma omp simd
        for (int64_t r = 0; r < count; r++) {
            float top = most[r] == -INFINITY ? 0.0f : most[r];
            row[r] = vl_exp_flushed(row[r] - top);
            total[r] += row[r];
        }
    }
}

VL_VECTORISED static void correct(float *o, const float *correction, int64_t count, int64_t width) {
    for (int64_t r = 0; r < count; r++) {
        if (correction[r] == 1.0f) continue;
#pragma omp simd
        for (int64_t d = 0; d < width; d++) o[r * width + d] *= correction[r];
    }
}

// A block of k or v in one piece, zero behind the last key.
static void load_keys(float *to, VlTensor x, const VlAttention *attention, const VlAttentionBlock *block, int64_t key) {
    int64_t width = attention->tiles.width, count = vl_minimum(VL_TILE_KEYS, block->keys - key);
    vl_tile_load(to, x, block->first_key + key, count, block->kv_head, attention);
    memset(to + count * width, 0, (size_t)((VL_TILE_KEYS - count) * width) * sizeof *to);
}

// Rows from `first` on against the block of keys that starts at `key`.
static void attend(const Work *work, const VlAttention *attention, const VlAttentionBlock *block, int64_t first,
                   int64_t key) {
    int64_t count = block->rows - first;
    vl_tile_multiply((VlTileProduct){.c = work->scores + first,
                                     .c_leading = work->rows,
                                     .a = work->k,
                                     .a_leading = work->width,
                                     .b = work->qt + first,
                                     .b_leading = work->rows,
                                     .rows = VL_TILE_KEYS,
                                     .columns = count,
                                     .depth = work->width});
    vl_attention_add_bias(work->scores, work->rows, work->gates, attention, block, key);
    vl_attention_hide(work->scores, work->rows, block, work->visible, first, key);
    soften(work->scores + first, work->rows, work->most + first, work->total + first, work->correction + first, count);
    correct(work->o + first * work->width, work->correction + first, count, work->width);
    vl_tile_multiply((VlTileProduct){.c = work->o + first * work->width,
                                     .c_leading = work->width,
                                     .a = work->scores + first,
                                     .a_leading = work->rows,
                                     .a_transposed = true,
                                     .b = work->v,
                                     .b_leading = work->width,
                                     .rows = count,
                                     .columns = work->width,
                                     .depth = VL_TILE_KEYS,
                                     .add = true});
}

static void finish_block(const Work *work, VlTensor o, VlTensor lse, const VlAttention *attention,
                         const VlAttentionBlock *block) {
    int64_t width = attention->tiles.width, group = attention->group;
    for (int64_t row = 0; row < block->count * group; row++) {
        float total = work->total[row], factor = total > 0 ? 1.0f / total : 0.0f;
        for (int64_t d = 0; d < width; d++) work->o[row * width + d] *= factor;
        if (vl_is_empty(lse)) continue;
        int64_t head = block->kv_head * group + row % group;
        int64_t query = block->first_query + block->query + row / group;
        ((float *)lse.data)[head * lse.dim[1] + query] = total > 0 ? work->most[row] + logf(total) : -INFINITY;
    }
    vl_tile_store_block(o, work->o, 1.0f, attention, block);
}

static void run_block(const Work *work, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v,
                      const VlAttention *attention, const VlAttentionBlock *block) {
    int64_t keys = vl_attention_visible(attention, block, work->visible), first = 0;
    vl_attention_load_gates(work->gates, attention, block);
    vl_tile_load_block(work->o, q, attention->scale, attention, block);
    vl_tile_transpose(work->qt, work->rows, work->o, block->rows, work->width);
    memset(work->o, 0, (size_t)(block->rows * work->width) * sizeof *work->o);
    for (int64_t row = 0; row < block->rows; row++) {
        work->most[row] = -INFINITY;
        work->total[row] = 0;
    }
    for (int64_t key = 0; key < keys; key += VL_TILE_KEYS) {
        load_keys(work->k, k, attention, block, key);
        load_keys(work->v, v, attention, block, key);
        first = vl_attention_first_row(block, work->visible, first, key);
        attend(work, attention, block, first, key);
    }
    finish_block(work, o, lse, attention, block);
}

// Block number `index` of all sequences and key/value heads; the last queries of a sequence, which see most, come
// first.
static VlAttentionBlock find_block(const VlAttention *attention, int64_t index) {
    int64_t size = attention->tiles.queries, sequence = 0;
    for (;; sequence++) {
        int64_t queries = attention->cu_q[sequence + 1] - attention->cu_q[sequence];
        int64_t tasks = vl_divide_up(queries, size) * attention->kv_heads;
        if (index < tasks) break;
        index -= tasks;
    }
    VlAttentionBlock block = {.first_query = attention->cu_q[sequence], .first_key = attention->cu_k[sequence]};
    block.queries = attention->cu_q[sequence + 1] - block.first_query;
    block.keys = attention->cu_k[sequence + 1] - block.first_key;
    int64_t blocks = vl_divide_up(block.queries, size);
    block.kv_head = index / blocks;
    block.query = (blocks - 1 - index % blocks) * size;
    block.count = vl_minimum(size, block.queries - block.query);
    block.rows = vl_divide_up(block.count * attention->group, VL_TILE_ROWS) * VL_TILE_ROWS;
    return block;
}

static int64_t count_blocks(const VlAttention *attention) {
    int64_t blocks = 0;
    for (int64_t s = 0; s < attention->sequences; s++) {
        blocks += vl_divide_up(attention->cu_q[s + 1] - attention->cu_q[s], attention->tiles.queries);
    }
    return blocks * attention->kv_heads;
}

static VlStatus run_blocks(VlContext *context, const VlAttention *attention, VlTensor o, VlTensor lse, VlTensor q,
                           VlTensor k, VlTensor v) {
    int64_t mark = vl_arena_mark(&context->scratch), blocks = count_blocks(attention);
    VlTensor scratch;
    VL_TRY(vl_scratch_attention_forward(context, &scratch, attention->tiles));
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)context->threads)
    for (int64_t index = 0; index < blocks; index++) {
        Work work = divide_scratch((float *)scratch.data + omp_get_thread_num() * scratch.dim[1], attention->tiles);
        VlAttentionBlock block = find_block(attention, index);
        run_block(&work, o, lse, q, k, v, attention, &block);
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_cpu_attention_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v,
                                  VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads, bool causal) {
    VlAttention attention = vl_attention_describe(q, k, cu_q, cu_k, heads, kv_heads, causal);
    VL_TRY(run_blocks(context, &attention, o, lse, q, k, v));
    return VL_OK;
}

VlStatus vl_cpu_biased_attention_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k,
                                         VlTensor v, VlTensor bias, VlTensor gate, VlTensor cu_seqlens, int64_t heads) {
    VlAttention attention = vl_attention_describe_biased(q, bias, gate, cu_seqlens, heads);
    VL_TRY(run_blocks(context, &attention, o, lse, q, k, v));
    return VL_OK;
}

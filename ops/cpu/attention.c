// Attention over packed sequences, forward. Tri Dao, "FlashAttention-2" (2023): blocks of queries, a running maximum
// and sum over blocks of keys; the matrix of scores never exists.
#include <math.h>
#include <omp.h>
#include <string.h>

#include "ops/cpu/attention_tiles.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

// A thread's part of the scratch.
typedef struct Work {
    float *q, *o;         // [rows,width]
    float *k, *kt, *v;    // a block of keys: [KEYS,width], [width,KEYS], [KEYS,width]
    float *scores;        // [TILE_ROWS,KEYS]
    float *most, *total;  // per row: the running maximum and the sum of exp(score - maximum)
    int32_t *visible;     // per row: how many keys it sees
} Work;

static Work divide_scratch(float *scratch, VlAttentionTiles tiles) {
    int64_t tile = VL_TILE_KEYS * tiles.width;
    Work work = {.q = scratch};
    work.o = work.q + tiles.rows * tiles.width;
    work.k = work.o + tiles.rows * tiles.width;
    work.kt = work.k + tile;
    work.v = work.kt + tile;
    work.scores = work.v + tile;
    work.most = work.scores + VL_TILE_ROWS * VL_TILE_KEYS;
    work.total = work.most + tiles.rows;
    work.visible = (int32_t *)(void *)(work.total + tiles.rows);
    return work;
}

// Scores become exp(score - maximum) over `seen` keys and 0 behind; o and total are brought to the new maximum.
VL_VECTORISED static void soften_row(float *scores, int64_t seen, float *most, float *total, float *o, int64_t width) {
    for (int64_t j = seen; j < VL_TILE_KEYS; j++) scores[j] = -INFINITY;
    float top = *most;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < VL_TILE_KEYS; j++) top = scores[j] > top ? scores[j] : top;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < VL_TILE_KEYS; j++) {
        scores[j] = vl_exp(scores[j] - top);
        sum += scores[j];
    }
    float correction = vl_exp(*most - top);
    *total = *total * correction + sum;
    *most = top;
    if (correction == 1.0f) return;
#pragma omp simd
    for (int64_t d = 0; d < width; d++) o[d] *= correction;
}

// The rows of one tile against the block of keys that starts at `key`.
static void attend(const Work *work, int64_t row, int64_t key, int64_t width) {
    vl_tile_multiply((VlTileProduct){.c = work->scores,
                                     .c_leading = VL_TILE_KEYS,
                                     .a = work->q + row * width,
                                     .a_leading = width,
                                     .b = work->kt,
                                     .b_leading = VL_TILE_KEYS,
                                     .rows = VL_TILE_ROWS,
                                     .columns = VL_TILE_KEYS,
                                     .depth = width});
    for (int64_t r = 0; r < VL_TILE_ROWS; r++) {
        int64_t seen = vl_minimum(work->visible[row + r] - key, VL_TILE_KEYS);
        float *scores = work->scores + r * VL_TILE_KEYS;
        if (seen > 0) {
            soften_row(scores, seen, &work->most[row + r], &work->total[row + r], work->o + (row + r) * width, width);
        } else {
            memset(scores, 0, VL_TILE_KEYS * sizeof *scores);
        }
    }
    vl_tile_multiply((VlTileProduct){.c = work->o + row * width,
                                     .c_leading = width,
                                     .a = work->scores,
                                     .a_leading = VL_TILE_KEYS,
                                     .b = work->v,
                                     .b_leading = width,
                                     .rows = VL_TILE_ROWS,
                                     .columns = width,
                                     .depth = VL_TILE_KEYS,
                                     .add = true});
}

static bool tile_sees(const int32_t *visible, int64_t row, int64_t key) {
    for (int64_t r = 0; r < VL_TILE_ROWS; r++) {
        if (visible[row + r] > key) return true;
    }
    return false;
}

static void load_keys(const Work *work, VlTensor k, VlTensor v, const VlAttention *attention,
                      const VlAttentionBlock *block, int64_t key) {
    int64_t width = attention->tiles.width, count = vl_minimum(VL_TILE_KEYS, block->keys - key);
    size_t padding = (size_t)((VL_TILE_KEYS - count) * width) * sizeof(float);
    vl_tile_load(work->k, k, block->first_key + key, count, block->kv_head, attention);
    memset(work->k + count * width, 0, padding);
    vl_tile_transpose(work->kt, work->k, width);
    vl_tile_load(work->v, v, block->first_key + key, count, block->kv_head, attention);
    memset(work->v + count * width, 0, padding);
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
    int64_t width = attention->tiles.width;
    int64_t keys = vl_attention_visible(attention, block, work->visible);
    vl_tile_load_block(work->q, q, attention->scale, attention, block);
    memset(work->o, 0, (size_t)(block->rows * width) * sizeof *work->o);
    for (int64_t row = 0; row < block->rows; row++) {
        work->most[row] = -INFINITY;
        work->total[row] = 0;
    }
    for (int64_t key = 0; key < keys; key += VL_TILE_KEYS) {
        load_keys(work, k, v, attention, block, key);
        for (int64_t row = 0; row < block->rows; row += VL_TILE_ROWS) {
            if (tile_sees(work->visible, row, key)) attend(work, row, key, width);
        }
    }
    finish_block(work, o, lse, attention, block);
}

// Block number `index` of all sequences and key/value heads; the last queries of a sequence, which see most, come
// first.
static VlAttentionBlock find_block(const VlAttention *attention, int64_t index) {
    int64_t size = attention->tiles.queries, sequence = 0;
    for (;; sequence++) {
        int64_t queries = attention->cu_q[sequence + 1] - attention->cu_q[sequence];
        int64_t blocks = vl_divide_up(queries, size) * attention->kv_heads;
        if (index < blocks) break;
        index -= blocks;
    }
    VlAttentionBlock block = {.first_query = attention->cu_q[sequence], .first_key = attention->cu_k[sequence]};
    block.queries = attention->cu_q[sequence + 1] - block.first_query;
    block.keys = attention->cu_k[sequence + 1] - block.first_key;
    block.kv_head = index % attention->kv_heads;
    block.query = (vl_divide_up(block.queries, size) - 1 - index / attention->kv_heads) * size;
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

VlStatus vl_cpu_attention_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v,
                                  VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads, bool causal) {
    VlAttention attention = vl_attention_describe(q, k, cu_q, cu_k, heads, kv_heads, causal);
    int64_t mark = vl_arena_mark(&context->scratch), blocks = count_blocks(&attention);
    VlTensor scratch;
    VL_TRY(vl_scratch_attention_forward(context, &scratch, attention.tiles));
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)context->threads)
    for (int64_t index = 0; index < blocks; index++) {
        Work work = divide_scratch((float *)scratch.data + omp_get_thread_num() * scratch.dim[1], attention.tiles);
        VlAttentionBlock block = find_block(&attention, index);
        run_block(&work, o, lse, q, k, v, &attention, &block);
    }
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

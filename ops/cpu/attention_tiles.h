// What attention's forward and backward share: small matrix products, copies into tiles, and the work list.
#ifndef VL_OPS_CPU_ATTENTION_TILES_H
#define VL_OPS_CPU_ATTENTION_TILES_H

#include "ops/scratch.h"

// c[rows,columns] = (c +) a[rows,depth] b[depth,columns]; rows and columns multiples of 16. a_transposed:
// a is stored as [depth,rows]. Leading dimensions in floats.
typedef struct VlTileProduct {
    float *c;
    const float *a, *b;
    int64_t c_leading, a_leading, b_leading, rows, columns, depth;
    bool a_transposed, add;
} VlTileProduct;
void vl_tile_multiply(VlTileProduct product);

// The arguments of an attention, for tasks.
typedef struct VlAttention {
    VlAttentionTiles tiles;
    const int64_t *cu_q, *cu_k;
    int64_t sequences, heads, kv_heads, group, head_size;
    bool causal;
    float scale;
    const float *bias, *gate;  // of biased_attention (there is no group then), else NULL
    int64_t distances;         // 2L-1, columns of the bias
} VlAttention;
VlAttention vl_attention_describe(VlTensor q, VlTensor k, VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads,
                                  bool causal);
VlAttention vl_attention_describe_biased(VlTensor q, VlTensor bias, VlTensor gate, VlTensor cu_seqlens, int64_t heads);

// A block of queries of one sequence and one key/value head. Row i * group + h of its tiles is query `query` + i of the
// sequence, query head h of the group.
typedef struct VlAttentionBlock {
    int64_t first_query, first_key;  // of the sequence, in q and in k
    int64_t keys;                    // of the sequence
    int64_t queries;                 // of the sequence
    int64_t query, count;            // of the block
    int64_t kv_head;
    int64_t rows;  // count * group, padded to VL_TILE_ROWS
} VlAttentionBlock;

// How many of the sequence's keys each row of the block sees, never decreasing; padding rows see what the last row
// sees. Returns the largest.
int64_t vl_attention_visible(const VlAttention *attention, const VlAttentionBlock *block, int32_t *visible);
// The first tile of rows, from `first` on, of which some row sees the key.
int64_t vl_attention_first_row(const VlAttentionBlock *block, const int32_t *visible, int64_t first, int64_t key);
// scores[VL_TILE_KEYS,rows] of the keys from `key` on: -INFINITY where a row does not see a key, from row `first` on.
void vl_attention_hide(float *scores, int64_t leading, const VlAttentionBlock *block, const int32_t *visible,
                       int64_t first, int64_t key);

// The gates of the block's rows, where there is a bias; zero for padding rows.
void vl_attention_load_gates(float *gates, const VlAttention *attention, const VlAttentionBlock *block);
// Adds the gated bias to scores[VL_TILE_KEYS,rows] of the keys from `key` on, where there is one.
void vl_attention_add_bias(float *scores, int64_t leading, const float *gates, const VlAttention *attention,
                           const VlAttentionBlock *block, int64_t key);
// Where the columns of query `query` and the keys from `key` on stand in a row of the bias: the first key's, the others
// before it.
static inline int64_t vl_attention_distance(const VlAttention *attention, int64_t query, int64_t key) {
    return attention->distances / 2 + query - key;
}

// Rows [row, row + rows) of head `head` of x[T,heads*D], as f32 rows of `width` that are zero where D ends.
void vl_tile_load(float *to, VlTensor x, int64_t row, int64_t rows, int64_t head, const VlAttention *attention);
void vl_tile_store(VlTensor x, int64_t row, int64_t rows, int64_t head, const float *from,
                   const VlAttention *attention);
// The rows of a block, times `factor`; loaded as zero in the padding rows.
void vl_tile_load_block(float *to, VlTensor x, float factor, const VlAttention *attention,
                        const VlAttentionBlock *block);
void vl_tile_store_block(VlTensor x, float *from, float factor, const VlAttention *attention,
                         const VlAttentionBlock *block);
// to[width,leading] from from[rows,width].
void vl_tile_transpose(float *to, int64_t leading, const float *from, int64_t rows, int64_t width);

#endif

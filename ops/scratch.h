// Temporaries of operations: one function per row that needs them, called by the row's check and by its kernel between
// a mark and a release of context->scratch (ops/context.h). Sizes follow from shapes and context->threads.
#ifndef VL_OPS_SCRATCH_H
#define VL_OPS_SCRATCH_H

#include "ops/context.h"

// The logits of a block of rows: on the CPU at most 512 rows and 64 MiB, on CUDA at most 256 MiB, unless a single row
// is larger.
VlStatus vl_scratch_linear_cross_entropy(VlContext *context, VlTensor *logits, int64_t rows, int64_t vocabulary);

// Matrix products: the workspace of cuBLASLt; empty on the CPU. The last that a row pushes.
VlStatus vl_scratch_gemm(VlContext *context, VlTensor *workspace);

// Sums down the columns (ops/cuda/column_sums.cuh): f32 [sums, blocks of rows, columns]; empty on the CPU.
VlStatus vl_scratch_column_sums(VlContext *context, VlTensor *parts, int64_t rows, int64_t columns, int64_t sums);

// The tiles of attention: rows are the queries of a block times the query heads of one key/value head.
enum { VL_TILE_ROWS = 16, VL_TILE_KEYS = 64 };
typedef struct VlAttentionTiles {
    int64_t width;    // the head size, padded to a multiple of 16
    int64_t queries;  // of a block
    int64_t rows;     // of a block, padded to a multiple of VL_TILE_ROWS
    int64_t keys;     // of all sequences, padded to a multiple of VL_TILE_KEYS
} VlAttentionTiles;
VlAttentionTiles vl_attention_tiles(VlTensor q, VlTensor k, int64_t heads, int64_t kv_heads);

// CPU: f32 [threads, n], a row for every thread. CUDA: forward nothing; backward f32 [Q,T,2], two numbers for each of
// lse.
VlStatus vl_scratch_attention_forward(VlContext *context, VlTensor *scratch, VlAttentionTiles tiles);
VlStatus vl_scratch_attention_backward(VlContext *context, VlTensor *scratch, VlAttentionTiles tiles, VlTensor lse);
// biased_attention's backward. CPU: f32 [sequences, H, 2L-1], the bias's gradient of each sequence. CUDA: nothing.
VlStatus vl_scratch_attention_bias(VlContext *context, VlTensor *parts, int64_t sequences, VlTensor bias);

#endif

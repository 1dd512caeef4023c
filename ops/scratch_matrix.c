#include "ops/scratch.h"

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

VlStatus vl_scratch_linear_cross_entropy(VlContext *context, VlTensor *logits, int64_t rows, int64_t vocabulary) {
    enum { MOST_ROWS = 512, MOST_LOGITS = 16 << 20, MOST_LOGITS_CUDA = 64 << 20, ALIGNED_ROWS = 128 };
    int64_t block = rows, columns = vocabulary ? vocabulary : 1;
    if (context->device == VL_DEVICE_CUDA) {
        int64_t most = MOST_LOGITS_CUDA / columns;
        if (most > ALIGNED_ROWS) most -= most % ALIGNED_ROWS;
        block = minimum(block, most);
    } else {
        block = minimum(minimum(block, MOST_ROWS), MOST_LOGITS / columns);
    }
    VL_TRY(vl_arena_push(&context->scratch, logits, VL_F32, block > 0 ? block : 1, vocabulary));
    return VL_OK;
}

VlStatus vl_scratch_gemm(VlContext *context, VlTensor *workspace) {
    enum { BYTES = (32 << 20) + 256 };  // and what it takes to align it
    *workspace = VL_EMPTY;
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    VL_TRY(vl_arena_push(&context->scratch, workspace, VL_F32, BYTES / (int64_t)sizeof(float)));
    return VL_OK;
}

// As many blocks of rows as keep a large GPU busy, with at least 64 rows each.
VlStatus vl_scratch_column_sums(VlContext *context, VlTensor *parts, int64_t rows, int64_t columns, int64_t sums) {
    enum { BLOCKS_AIM = 1024, LEAST_ROWS = 64, BLOCK_COLUMNS = 32 };
    *parts = VL_EMPTY;
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    int64_t across = (columns + BLOCK_COLUMNS - 1) / BLOCK_COLUMNS, down = (rows + LEAST_ROWS - 1) / LEAST_ROWS;
    int64_t most = across ? (BLOCKS_AIM + across - 1) / across : 1;
    VL_TRY(vl_arena_push(&context->scratch, parts, VL_F32, sums, down > 0 ? minimum(down, most) : 1, columns));
    return VL_OK;
}

VlAttentionTiles vl_attention_tiles(VlTensor q, VlTensor k, int64_t heads, int64_t kv_heads) {
    enum { LANES = 16, ROWS_AIM = 192 };
    int64_t group = heads / kv_heads, all = q.dim[0] > 0 ? q.dim[0] : 1;
    int64_t queries = minimum(round_up((ROWS_AIM + group - 1) / group, VL_TILE_ROWS), all);
    return (VlAttentionTiles){.width = round_up(q.dim[1] / heads, LANES),
                              .queries = queries,
                              .rows = round_up(queries * group, VL_TILE_ROWS),
                              .keys = round_up(k.dim[0], VL_TILE_KEYS)};
}

// The transpose of q and o of a block; a block of k and of v; scores of a block of keys; seven numbers a row.
VlStatus vl_scratch_attention_forward(VlContext *context, VlTensor *scratch, VlAttentionTiles tiles) {
    *scratch = VL_EMPTY;
    if (context->device == VL_DEVICE_CUDA) return VL_OK;
    int64_t size = 2 * (tiles.rows + VL_TILE_KEYS) * tiles.width + (VL_TILE_KEYS + 5) * tiles.rows;
    VL_TRY(vl_arena_push(&context->scratch, scratch, VL_F32, context->threads, round_up(size, 16)));
    return VL_OK;
}

// k, v, dk and dv of a sequence; q and do of a block, their transposes, and dq; probabilities of a block of keys and
// the gradients of the scores; seven numbers a row.
VlStatus vl_scratch_attention_backward(VlContext *context, VlTensor *scratch, VlAttentionTiles tiles, VlTensor lse) {
    if (context->device == VL_DEVICE_CUDA) {
        VL_TRY(vl_arena_push(&context->scratch, scratch, VL_F32, lse.dim[0], lse.dim[1], 2));
        return VL_OK;
    }
    int64_t size = (4 * tiles.keys + 5 * tiles.rows) * tiles.width + (2 * VL_TILE_KEYS + 7) * tiles.rows;
    VL_TRY(vl_arena_push(&context->scratch, scratch, VL_F32, context->threads, round_up(size, 16)));
    return VL_OK;
}

VlStatus vl_scratch_attention_bias(VlContext *context, VlTensor *parts, int64_t sequences, VlTensor bias) {
    *parts = VL_EMPTY;
    if (context->device == VL_DEVICE_CUDA) return VL_OK;
    VL_TRY(vl_arena_push(&context->scratch, parts, VL_F32, sequences, bias.dim[0], bias.dim[1]));
    return VL_OK;
}

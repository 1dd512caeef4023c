#include "ops/scratch.h"

static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

VlStatus vl_scratch_linear_cross_entropy(VlContext *context, VlTensor *logits, int64_t rows, int64_t vocabulary) {
    enum { MOST_ROWS = 512, MOST_LOGITS = 16 << 20 };
    int64_t block = minimum(minimum(rows, MOST_ROWS), MOST_LOGITS / (vocabulary ? vocabulary : 1));
    VL_TRY(vl_arena_push(&context->scratch, logits, VL_F32, block > 0 ? block : 1, vocabulary));
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
    int64_t size = 2 * (tiles.rows + VL_TILE_KEYS) * tiles.width + (VL_TILE_KEYS + 5) * tiles.rows;
    VL_TRY(vl_arena_push(&context->scratch, scratch, VL_F32, context->threads, round_up(size, 16)));
    return VL_OK;
}

// k, v, dk and dv of a sequence; q and do of a block, their transposes, and dq; probabilities of a block of keys and
// the gradients of the scores; seven numbers a row.
VlStatus vl_scratch_attention_backward(VlContext *context, VlTensor *scratch, VlAttentionTiles tiles) {
    int64_t size = (4 * tiles.keys + 5 * tiles.rows) * tiles.width + (2 * VL_TILE_KEYS + 7) * tiles.rows;
    VL_TRY(vl_arena_push(&context->scratch, scratch, VL_F32, context->threads, round_up(size, 16)));
    return VL_OK;
}

VlStatus vl_scratch_attention_bias(VlContext *context, VlTensor *parts, int64_t sequences, VlTensor bias) {
    VL_TRY(vl_arena_push(&context->scratch, parts, VL_F32, sequences, bias.dim[0], bias.dim[1]));
    return VL_OK;
}

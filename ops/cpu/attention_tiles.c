#include "ops/cpu/attention_tiles.h"

#include <math.h>
#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/vector_math.h"

// NAME: a product in tiles of HEIGHT x VECTORS vectors, whose sums stay in registers; what is left over goes through
// tiles of 4 rows and of fewer vectors. An element's sum runs over the depth in order, whatever the tile. A macro,
// because vectors that are longer than the processor's end up in memory.
#define DEFINE_MULTIPLY(NAME, LANES, VECTORS, ATTRIBUTES)                                                              \
    typedef float NAME##_lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias)); \
    /* c[height, LANES * vectors]; height and vectors are constants where it is inlined. */                            \
    static inline __attribute__((always_inline)) void NAME##_registers(const VlTileProduct *p, int64_t i, int64_t j,   \
                                                                       const int height, const int vectors) {          \
        int64_t row_stride = p->a_transposed ? 1 : p->a_leading, step = p->a_transposed ? p->a_leading : 1;            \
        int64_t c_leading = p->c_leading, b_leading = p->b_leading;                                                    \
        NAME##_lanes sum[HEIGHT][VECTORS], x[VECTORS];                                                                 \
        float *c = p->c + i * c_leading + j;                                                                           \
        const float *a = p->a + i * row_stride, *b = p->b + j;                                                         \
        _Pragma("GCC unroll 6") for (int r = 0; r < height; r++) {                                                     \
            _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++) {                                                \
                sum[r][v] = p->add ? *(NAME##_lanes *)(c + r * c_leading + v * LANES) : (NAME##_lanes){0};             \
            }                                                                                                          \
        }                                                                                                              \
        for (int64_t k = 0; k < p->depth; k++) {                                                                       \
            _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++) {                                                \
                x[v] = *(const NAME##_lanes *)(b + k * b_leading + v * LANES);                                         \
            }                                                                                                          \
            _Pragma("GCC unroll 6") for (int r = 0; r < height; r++) {                                                 \
                float factor = a[r * row_stride + k * step];                                                           \
                _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++) sum[r][v] += factor * x[v];                  \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 6") for (int r = 0; r < height; r++) {                                                     \
            _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++) {                                                \
                *(NAME##_lanes *)(c + r * c_leading + v * LANES) = sum[r][v];                                          \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static inline                                                                                                      \
        __attribute__((always_inline)) void NAME##_rows(const VlTileProduct *p, int64_t i, const int height) {         \
        int64_t j = 0;                                                                                                 \
        for (; j + LANES * VECTORS <= p->columns; j += LANES * VECTORS) NAME##_registers(p, i, j, height, VECTORS);    \
        for (; j + LANES * 2 <= p->columns; j += LANES * 2) NAME##_registers(p, i, j, height, 2);                      \
        for (; j < p->columns; j += LANES) NAME##_registers(p, i, j, height, 1);                                       \
    }                                                                                                                  \
    ATTRIBUTES static void NAME(const VlTileProduct *p) {                                                              \
        int64_t i = 0;                                                                                                 \
        for (; i < p->rows && p->rows - i != 8 && p->rows - i != 4; i += HEIGHT) NAME##_rows(p, i, HEIGHT);            \
        for (; i < p->rows; i += 4) NAME##_rows(p, i, 4);                                                              \
    }

// 6 x 2 vectors of 8 and a factor fit in the 16 registers of AVX2, 6 x 4 of 16 in the 32 of AVX-512: loads, not
// multiplications, are what limits a product with smaller tiles.
enum { HEIGHT = 6 };
DEFINE_MULTIPLY(multiply_narrow, 8, 2, VL_VECTORISED)

#if defined(__x86_64__)
DEFINE_MULTIPLY(multiply_wide, 16, 4, __attribute__((target("arch=x86-64-v4"))))

void vl_tile_multiply(VlTileProduct product) {
    if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")) {
        multiply_wide(&product);
    } else {
        multiply_narrow(&product);
    }
}
#else
void vl_tile_multiply(VlTileProduct product) { multiply_narrow(&product); }
#endif

VlAttention vl_attention_describe(VlTensor q, VlTensor k, VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads,
                                  bool causal) {
    int64_t head_size = q.dim[1] / heads;
    return (VlAttention){.tiles = vl_attention_tiles(q, k, heads, kv_heads),
                         .cu_q = cu_q.data,
                         .cu_k = cu_k.data,
                         .sequences = cu_q.dim[0] - 1,
                         .heads = heads,
                         .kv_heads = kv_heads,
                         .group = heads / kv_heads,
                         .head_size = head_size,
                         .causal = causal,
                         .scale = (float)(1.0 / sqrt((double)head_size))};
}

VlAttention vl_attention_describe_biased(VlTensor q, VlTensor bias, VlTensor gate, VlTensor cu_seqlens, int64_t heads) {
    VlAttention attention = vl_attention_describe(q, q, cu_seqlens, cu_seqlens, heads, heads, false);
    attention.bias = bias.data;
    attention.gate = gate.data;
    attention.distances = bias.dim[1];
    return attention;
}

int64_t vl_attention_visible(const VlAttention *attention, const VlAttentionBlock *block, int32_t *visible) {
    int64_t largest = 0, row = 0;
    for (int64_t i = 0; i < block->count; i++) {
        int64_t keys = block->keys;
        if (attention->causal) keys += block->query + i + 1 - block->queries;
        if (keys < 0) keys = 0;
        if (keys > largest) largest = keys;
        for (int64_t h = 0; h < attention->group; h++) visible[row++] = (int32_t)keys;
    }
    for (; row < block->rows; row++) visible[row] = (int32_t)largest;
    return largest;
}

int64_t vl_attention_first_row(const VlAttentionBlock *block, const int32_t *visible, int64_t first, int64_t key) {
    while (first < block->rows && visible[first + VL_TILE_ROWS - 1] <= key) first += VL_TILE_ROWS;
    return first;
}

void vl_attention_hide(float *scores, int64_t leading, const VlAttentionBlock *block, const int32_t *visible,
                       int64_t first, int64_t key) {
    for (int64_t row = first; row < block->rows && visible[row] < key + VL_TILE_KEYS; row++) {
        for (int64_t j = visible[row] > key ? visible[row] - key : 0; j < VL_TILE_KEYS; j++) {
            scores[j * leading + row] = -INFINITY;
        }
    }
}

void vl_attention_load_gates(float *gates, const VlAttention *attention, const VlAttentionBlock *block) {
    if (!attention->bias) return;
    const float *from = attention->gate + (block->first_query + block->query) * attention->heads + block->kv_head;
    for (int64_t i = 0; i < block->rows; i++) gates[i] = i < block->count ? from[i * attention->heads] : 0.0f;
}

VL_VECTORISED static void add_products(float *scores, const float *gates, const float *bias, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) scores[i] += gates[i] * bias[i];
}

void vl_attention_add_bias(float *scores, int64_t leading, const float *gates, const VlAttention *attention,
                           const VlAttentionBlock *block, int64_t key) {
    if (!attention->bias) return;
    const float *bias = attention->bias + block->kv_head * attention->distances;
    int64_t keys = vl_minimum(VL_TILE_KEYS, block->keys - key);
    for (int64_t j = 0; j < keys; j++) {
        const float *row = bias + vl_attention_distance(attention, block->query, key + j);
        add_products(scores + j * leading, gates, row, block->count);
    }
}

void vl_tile_load(float *to, VlTensor x, int64_t row, int64_t rows, int64_t head, const VlAttention *attention) {
    int64_t columns = x.dim[1], size = attention->head_size, width = attention->tiles.width;
    for (int64_t i = 0; i < rows; i++, to += width) {
        int64_t start = (row + i) * columns + head * size;
        if (x.dtype == VL_F32) {
            memcpy(to, (const float *)x.data + start, (size_t)size * sizeof *to);
        } else {
            vl_block_widen(to, (const VlBf16 *)x.data + start, size);
        }
        if (size < width) memset(to + size, 0, (size_t)(width - size) * sizeof *to);
    }
}

void vl_tile_store(VlTensor x, int64_t row, int64_t rows, int64_t head, const float *from,
                   const VlAttention *attention) {
    int64_t size = attention->head_size;
    for (int64_t i = 0; i < rows; i++, from += attention->tiles.width) {
        int64_t start = (row + i) * x.dim[1] + head * size;
        if (x.dtype == VL_F32) {
            memcpy((float *)x.data + start, from, (size_t)size * sizeof *from);
        } else {
            vl_block_convert(x, start, size, VL_WRITE, from);
        }
    }
}

VL_VECTORISED static void multiply_by(float *values, float factor, int64_t count) {
    for (int64_t i = 0; i < count; i++) values[i] *= factor;
}

void vl_tile_load_block(float *to, VlTensor x, float factor, const VlAttention *attention,
                        const VlAttentionBlock *block) {
    int64_t width = attention->tiles.width, group = attention->group, rows = block->count * group;
    for (int64_t r = 0; r < rows; r++) {
        int64_t query = block->first_query + block->query + r / group;
        vl_tile_load(to + r * width, x, query, 1, block->kv_head * group + r % group, attention);
    }
    if (factor != 1.0f) multiply_by(to, factor, rows * width);
    memset(to + rows * width, 0, (size_t)((block->rows - rows) * width) * sizeof *to);
}

void vl_tile_store_block(VlTensor x, float *from, float factor, const VlAttention *attention,
                         const VlAttentionBlock *block) {
    int64_t width = attention->tiles.width, group = attention->group, rows = block->count * group;
    if (factor != 1.0f) multiply_by(from, factor, rows * width);
    for (int64_t r = 0; r < rows; r++) {
        int64_t query = block->first_query + block->query + r / group;
        vl_tile_store(x, query, 1, block->kv_head * group + r % group, from + r * width, attention);
    }
}

void vl_tile_transpose(float *to, int64_t leading, const float *from, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t d = 0; d < width; d++) to[d * leading + r] = from[r * width + d];
    }
}

// Times rows of the operations table at the sizes of the released models: one JSON object a line, for
// tests/gpu/report.py to hold against the machine's limits and against PyTorch (tests/gpu/torch_ops.py, same names).
//
//   gpu_bench_ops [cpu|cuda] [tokens] [part of a name]
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/dtype.h"
#include "base/memory.h"
#include "base/random.h"
#include "ops/ops.h"

enum { SLOTS = 16, SIZES = 6, PATTERN = 1 << 16 };

typedef struct Bench {
    VlContext *context;
    VlTensor t[SLOTS];
    int64_t size[SIZES];
    const float *pattern;  // [PATTERN] normal numbers
} Bench;

// `make` pushes the tensors onto the activations, `run` is what is timed. A size below 0 is that part of the tokens.
typedef struct Case {
    const char *name;
    VlStatus (*make)(Bench *bench);
    VlStatus (*run)(Bench *bench);
    int64_t size[SIZES];
    double (*moved)(const int64_t *size);  // bytes read and written; NULL: all tensors once
} Case;

// ---- Tensors ---------------------------------------------------------------

static VlStatus push_noise(Bench *bench, int slot, VlDtype dtype, int32_t dims, const int64_t *extents) {
    VlContext *context = bench->context;
    VlTensor *tensor = &bench->t[slot];
    VL_TRY(vl_arena_push_make(&context->activations, tensor, dtype, dims, extents));
    if (context->planning) return VL_OK;
    void *converted;
    VlTensor flat = vl_reshape(*tensor, vl_elements(*tensor));
    VL_TRY(vl_allocate(&converted, PATTERN, vl_dtype_size(dtype)));
    vl_convert(converted, dtype, bench->pattern, VL_F32, PATTERN);
    VlStatus status = VL_OK;
    for (int64_t begin = 0; begin < flat.dim[0] && status == VL_OK; begin += PATTERN) {
        int64_t left = flat.dim[0] - begin;
        status = vl_copy_from_host(context, vl_rows(flat, begin, left < PATTERN ? left : PATTERN), converted);
    }
    vl_free(converted);
    return status;
}
#define NOISE(slot, dtype, ...)                                                                              \
    VL_TRY(push_noise(bench, (slot), (dtype), (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
                      (int64_t[]){__VA_ARGS__}))

// Index tensors: value i is (i * factor + shift) % bound, or, with bound 0, without the remainder.
static VlStatus push_indices(Bench *bench, int slot, int64_t count, int64_t factor, int64_t shift, int64_t bound) {
    int64_t *values;
    VL_TRY(vl_arena_push(&bench->context->activations, &bench->t[slot], VL_I64, count));
    VL_TRY(VL_NEW(&values, count));
    for (int64_t i = 0; i < count; i++) {
        values[i] = i * factor + shift;
        if (bound > 0) values[i] %= bound;
    }
    VlStatus status = vl_copy_from_host(bench->context, bench->t[slot], values);
    vl_free(values);
    return status;
}

// ---- Products: size M, N, K ------------------------------------------------

static VlStatus make_linear(Bench *bench) {
    const int64_t *size = bench->size;
    NOISE(0, VL_BF16, size[0], size[1]);
    NOISE(1, VL_BF16, size[0], size[2]);
    NOISE(2, VL_BF16, size[1], size[2]);
    NOISE(3, VL_F32, size[1], size[2]);
    NOISE(4, VL_BF16, size[0], size[2]);
    return VL_OK;
}
static VlStatus linear_forward(Bench *bench) {
    return vl_linear_forward(bench->context, bench->t[0], bench->t[1], bench->t[2], VL_EMPTY, VL_WRITE);
}
static VlStatus linear_inputs(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_linear_backward(bench->context, t[4], VL_EMPTY, VL_EMPTY, t[0], t[1], t[2], VL_WRITE);
}
static VlStatus linear_weights(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_linear_backward(bench->context, VL_EMPTY, t[3], VL_EMPTY, t[0], t[1], t[2], VL_WRITE);
}

static VlStatus make_head(Bench *bench) {
    const int64_t *size = bench->size;
    NOISE(0, VL_F32, size[0]);
    NOISE(1, VL_BF16, size[0], size[2]);
    NOISE(2, VL_F32, size[1], size[2]);
    NOISE(3, VL_BF16, size[0], size[2]);
    NOISE(4, VL_BF16, size[1], size[2]);
    return push_indices(bench, 5, size[0], 7919, 0, size[1]);
}
static VlStatus head(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_linear_cross_entropy(bench->context, t[0], t[1], t[2], t[3], t[4], t[5], 1e-4F);
}

// ---- Experts: tokens, N, K, experts, those of a token ------------------------

// Logits and what follows from them: weights, experts, offsets, tokens, places, dweights, dlogits.
static VlStatus make_route(Bench *bench) {
    VlArena *arena = &bench->context->activations;
    VlTensor *t = bench->t;
    int64_t tokens = bench->size[0], experts = bench->size[3], chosen = bench->size[4], slots = tokens * chosen;
    NOISE(0, VL_BF16, tokens, experts);
    NOISE(1, VL_F32, tokens, chosen);
    VL_TRY(vl_arena_push(arena, &t[2], VL_I64, tokens, chosen));
    VL_TRY(vl_arena_push(arena, &t[3], VL_I64, experts + 1));
    VL_TRY(vl_arena_push(arena, &t[4], VL_I64, slots));
    VL_TRY(vl_arena_push(arena, &t[5], VL_I64, slots));
    NOISE(6, VL_F32, tokens, chosen);
    NOISE(7, VL_BF16, tokens, experts);
    VL_TRY(vl_route_forward(bench->context, t[1], t[2], t[0]));
    return vl_group_slots(bench->context, t[3], t[4], t[5], t[2]);
}
static VlStatus route_forward(Bench *bench) {
    return vl_route_forward(bench->context, bench->t[1], bench->t[2], bench->t[0]);
}
static VlStatus route_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_route_backward(bench->context, t[7], t[6], t[1], t[2]);
}
static VlStatus group_slots(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_group_slots(bench->context, t[3], t[4], t[5], t[2]);
}

static VlStatus make_experts(Bench *bench) {
    const int64_t *size = bench->size, slots = size[0] * size[4];
    VL_TRY(make_route(bench));
    NOISE(8, VL_BF16, slots, size[1]);
    NOISE(9, VL_BF16, slots, size[2]);
    NOISE(10, VL_BF16, size[3], size[1], size[2]);
    NOISE(11, VL_F32, size[3], size[1], size[2]);
    NOISE(12, VL_BF16, slots, size[2]);
    return VL_OK;
}
static VlStatus experts_forward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_grouped_linear_forward(bench->context, t[8], t[9], t[10], t[3], VL_WRITE);
}
static VlStatus experts_inputs(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_grouped_linear_backward(bench->context, t[12], VL_EMPTY, t[8], t[9], t[10], t[3], VL_WRITE);
}
static VlStatus experts_weights(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_grouped_linear_backward(bench->context, VL_EMPTY, t[11], t[8], t[9], t[10], t[3], VL_WRITE);
}

static VlStatus make_combine(Bench *bench) {
    const int64_t *size = bench->size, slots = size[0] * size[4];
    VL_TRY(make_route(bench));
    NOISE(8, VL_BF16, slots, size[1]);
    NOISE(9, VL_BF16, slots, size[1]);
    NOISE(10, VL_BF16, size[0], size[1]);
    return VL_OK;
}
static VlStatus combine_forward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_combine_forward(bench->context, t[10], t[8], t[1], t[5], VL_WRITE);
}
static VlStatus combine_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_combine_backward(bench->context, t[9], t[6], t[10], t[8], t[1], t[5]);
}
static VlStatus gather_experts(Bench *bench) {
    return vl_gather_rows_forward(bench->context, bench->t[8], bench->t[10], bench->t[4]);
}
static VlStatus gather_experts_backward(Bench *bench) {
    return vl_gather_rows_backward(bench->context, bench->t[10], bench->t[8], bench->t[4]);
}

// ---- Attention: sequences, length, heads, kv_heads, head size, causal -------

static VlStatus make_attention(Bench *bench) {
    const int64_t *size = bench->size;
    int64_t rows = size[0] * size[1], width = size[2] * size[4], kv_width = size[3] * size[4];
    for (int slot = 0; slot < 8; slot++) {  // o, q, do, dq, k, v, dk, dv
        NOISE(slot, VL_BF16, rows, slot < 4 ? width : kv_width);
    }
    NOISE(8, VL_F32, size[2], rows);
    return push_indices(bench, 9, size[0] + 1, size[1], 0, 0);
}
static VlStatus attention_forward(Bench *bench) {
    const VlTensor *t = bench->t;
    const int64_t *size = bench->size;
    return vl_attention_forward(bench->context, t[0], t[8], t[1], t[4], t[5], t[9], t[9], size[2], size[3], size[5]);
}
static VlStatus attention_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    const int64_t *size = bench->size;
    return vl_attention_backward(bench->context, t[3], t[6], t[7], t[2], t[1], t[4], t[5], t[0], t[8], t[9], t[9],
                                 size[2], size[3], size[5]);
}

static VlStatus make_biased(Bench *bench) {
    const int64_t *size = bench->size;
    VL_TRY(make_attention(bench));
    NOISE(10, VL_F32, size[2], 2 * size[1] - 1);
    NOISE(11, VL_F32, size[0] * size[1], size[2]);
    NOISE(12, VL_F32, size[2], 2 * size[1] - 1);
    NOISE(13, VL_F32, size[0] * size[1], size[2]);
    return VL_OK;
}
static VlStatus biased_forward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_biased_attention_forward(bench->context, t[0], t[8], t[1], t[4], t[5], t[10], t[11], t[9],
                                       bench->size[2]);
}
static VlStatus biased_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_biased_attention_backward(bench->context, t[3], t[6], t[7], t[12], t[13], t[2], t[1], t[4], t[5], t[0],
                                        t[8], t[10], t[11], t[9], bench->size[2]);
}

// ---- Rows: size rows, columns ------------------------------------------------

// Six activations, then two f32 vectors of rows, two of columns, and a bf16 one of columns (twice).
static VlStatus make_rows(Bench *bench) {
    const int64_t *size = bench->size;
    for (int slot = 0; slot < 6; slot++) NOISE(slot, VL_BF16, size[0], size[1]);
    for (int slot = 6; slot < 8; slot++) NOISE(slot, VL_F32, size[0]);
    for (int slot = 8; slot < 10; slot++) NOISE(slot, VL_F32, size[1]);
    for (int slot = 10; slot < 12; slot++) NOISE(slot, VL_BF16, size[1]);
    return VL_OK;
}
static VlStatus rmsnorm_forward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_rmsnorm_forward(bench->context, t[0], t[6], t[1], t[10], 1e-5F);
}
static VlStatus rmsnorm_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_rmsnorm_backward(bench->context, t[0], t[8], t[2], t[1], t[10], t[6], VL_WRITE);
}
static VlStatus layernorm_forward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_layernorm_forward(bench->context, t[0], t[6], t[7], t[1], t[10], t[11], 1e-5F);
}
static VlStatus layernorm_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_layernorm_backward(bench->context, t[0], t[8], t[9], t[2], t[1], t[10], t[6], t[7], VL_WRITE);
}
static VlStatus swiglu_forward(Bench *bench) {
    return vl_swiglu_forward(bench->context, bench->t[0], bench->t[1], bench->t[2]);
}
static VlStatus swiglu_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_swiglu_backward(bench->context, t[3], t[4], t[0], t[1], t[2]);
}
static VlStatus quick_gelu(Bench *bench) {
    return vl_activation_forward(bench->context, bench->t[0], bench->t[1], VL_QUICK_GELU);
}
static VlStatus gelu_backward(Bench *bench) {
    return vl_activation_backward(bench->context, bench->t[0], bench->t[1], bench->t[2], VL_GELU_ERF);
}
static VlStatus add(Bench *bench) { return vl_add_tensors(bench->context, bench->t[0], bench->t[1], 1, bench->t[2]); }
static VlStatus zero(Bench *bench) { return vl_zero(bench->context, bench->t[0]); }
static VlStatus copy(Bench *bench) { return vl_cast(bench->context, bench->t[0], bench->t[1]); }

// Rows, columns, heads.
static VlStatus make_rotary(Bench *bench) {
    const int64_t *size = bench->size;
    NOISE(0, VL_BF16, size[0], size[1]);
    NOISE(1, VL_BF16, size[0], size[1]);
    NOISE(2, VL_F32, size[0], size[1] / size[2]);
    return push_indices(bench, 3, size[0], 1, 0, 2048);
}
static VlStatus rotary(Bench *bench) {
    return vl_rotary_forward(bench->context, bench->t[0], bench->t[1], bench->t[2], bench->size[2]);
}
static VlStatus rotary_table(Bench *bench) { return vl_rotary_table(bench->context, bench->t[2], bench->t[3], 1e6); }

// Rows, columns, rows of the table.
static VlStatus make_table(Bench *bench) {
    const int64_t *size = bench->size;
    NOISE(0, VL_BF16, size[0], size[1]);
    NOISE(1, VL_BF16, size[2], size[1]);
    NOISE(2, VL_F32, size[2], size[1]);
    NOISE(3, VL_BF16, size[2], size[1]);
    return push_indices(bench, 4, size[0], 7919, 3, size[2]);
}
static VlStatus embedding_forward(Bench *bench) {
    return vl_embedding_forward(bench->context, bench->t[0], bench->t[1], bench->t[4]);
}
static VlStatus embedding_backward(Bench *bench) {
    return vl_embedding_backward(bench->context, bench->t[2], bench->t[0], bench->t[4]);
}
static VlStatus gather_forward(Bench *bench) {
    return vl_gather_rows_forward(bench->context, bench->t[0], bench->t[1], bench->t[4]);
}
static VlStatus gather_backward(Bench *bench) {
    return vl_gather_rows_backward(bench->context, bench->t[3], bench->t[0], bench->t[4]);
}

// Of tables only the rows that are asked for.
static double rows_read(const int64_t *size) { return 2.0 * 2 * (double)(size[0] * size[1]); }
static double rows_added(const int64_t *size) { return (2.0 + 8) * (double)(size[0] * size[1]); }

// ---- The optimizer: tokens, elements a token ---------------------------------

static VlStatus zero_remainder(Bench *bench) {
    VlTensor flat = bench->t[4];
    int16_t *zeros;
    VL_TRY(VL_NEW(&zeros, PATTERN));
    VlStatus status = VL_OK;
    for (int64_t begin = 0; begin < flat.dim[0] && status == VL_OK; begin += PATTERN) {
        int64_t left = flat.dim[0] - begin;
        status = vl_copy_from_host(bench->context, vl_rows(flat, begin, left < PATTERN ? left : PATTERN), zeros);
    }
    vl_free(zeros);
    return status;
}
static VlStatus make_flat(Bench *bench) {
    int64_t count = bench->size[0] * bench->size[1];
    for (int slot = 0; slot < 3; slot++) NOISE(slot, VL_F32, count);
    NOISE(3, VL_BF16, count);
    VL_TRY(vl_arena_push(&bench->context->activations, &bench->t[4], VL_I16, count));
    VL_TRY(vl_arena_push(&bench->context->activations, &bench->t[5], VL_F64, 1));
    if (!bench->context->planning) VL_TRY(zero_remainder(bench));
    VL_TRY(vl_zero(bench->context, bench->t[2]));  // the second moment is not negative
    return VL_OK;
}
static VlStatus square_sum(Bench *bench) { return vl_square_sum(bench->context, bench->t[5], bench->t[0]); }
static VlStatus adamw(Bench *bench) {
    const VlTensor *t = bench->t;
    const VlAdamW settings = {
        .learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = 100, .gradient_scale = 0.5};
    return vl_adamw(bench->context, t[3], t[4], t[1], t[2], t[0], settings);
}
static double adamw_moved(const int64_t *size) { return (16.0 + 12) * (double)(size[0] * size[1]); }
static VlStatus to_bf16(Bench *bench) { return vl_cast(bench->context, bench->t[3], bench->t[0]); }

// ---- Pictures and sounds -----------------------------------------------------

// Frames, side, channels.
static VlStatus make_frames(Bench *bench) {
    const int64_t *size = bench->size;
    for (int slot = 0; slot < 3; slot++) NOISE(slot, VL_BF16, size[0], size[1], size[1], size[2]);
    NOISE(3, VL_BF16, size[2], 3, 3);
    NOISE(4, VL_F32, size[2], 3, 3);
    NOISE(5, VL_BF16, size[0], size[2]);
    return VL_OK;
}
static VlTensor pixels_flat(const Bench *bench, int slot) {
    const int64_t *size = bench->size;
    return vl_reshape(bench->t[slot], size[0], size[1] * size[1], size[2]);
}
static VlStatus depthwise_forward(Bench *bench) {
    return vl_depthwise3x3_forward(bench->context, bench->t[0], bench->t[1], bench->t[3]);
}
static VlStatus depthwise_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_depthwise3x3_backward(bench->context, t[0], t[4], t[2], t[1], t[3]);
}
static VlStatus mean_rows(Bench *bench) {
    return vl_mean_rows_forward(bench->context, bench->t[5], pixels_flat(bench, 0));
}
static VlStatus sigmoid_gate(Bench *bench) {
    return vl_sigmoid_gate_forward(bench->context, pixels_flat(bench, 0), pixels_flat(bench, 1), bench->t[5]);
}

static VlStatus make_patches(Bench *bench) {
    const int64_t *size = bench->size;  // frames, side of the picture, patch
    int64_t side = size[1] / size[2];
    NOISE(0, VL_F32, size[0], 3, size[1], size[1]);
    NOISE(1, VL_BF16, size[0] * side * side, 3 * size[2] * size[2]);
    return VL_OK;
}
static VlStatus patches(Bench *bench) { return vl_patches(bench->context, bench->t[1], bench->t[0], bench->size[2]); }

// Tokens, channels, taps, groups.
static VlStatus make_convolution(Bench *bench) {
    const int64_t *size = bench->size;
    for (int slot = 0; slot < 4; slot++) NOISE(slot, VL_BF16, size[0], size[1]);
    NOISE(4, VL_BF16, size[1], size[2], size[1] / size[3]);
    NOISE(5, VL_F32, size[1], size[2], size[1] / size[3]);
    NOISE(6, VL_BF16, size[1]);
    NOISE(7, VL_F32, size[1]);
    return push_indices(bench, 8, 2, size[0], 0, 0);
}
static VlStatus convolution_forward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_convolution1d_forward(bench->context, t[0], t[1], t[4], t[6], t[8], bench->size[3]);
}
static VlStatus convolution_backward(Bench *bench) {
    const VlTensor *t = bench->t;
    return vl_convolution1d_backward(bench->context, t[2], t[5], t[7], t[3], t[1], t[4], t[8], bench->size[3],
                                     VL_WRITE);
}

// ---- Cases -------------------------------------------------------------------

enum { ALL = -1, QUARTER = -4, HALF = -2 };  // of the tokens

static const Case cases[] = {
    {"linear 4096x4096", make_linear, linear_forward, {ALL, 4096, 4096}, NULL},
    {"linear 14336x4096", make_linear, linear_forward, {ALL, 14336, 4096}, NULL},
    {"linear 4096x14336", make_linear, linear_forward, {ALL, 4096, 14336}, NULL},
    {"linear 14336x4096 inputs", make_linear, linear_inputs, {ALL, 14336, 4096}, NULL},
    {"linear 14336x4096 weights", make_linear, linear_weights, {ALL, 14336, 4096}, NULL},
    {"linear tower 4096x1024", make_linear, linear_forward, {4616, 4096, 1024}, NULL},
    {"head and loss 32000x4096", make_head, head, {HALF, 32000, 4096}, NULL},
    {"experts 14336x4096", make_experts, experts_forward, {ALL, 14336, 4096, 8, 2}, NULL},
    {"experts 4096x14336", make_experts, experts_forward, {ALL, 4096, 14336, 8, 2}, NULL},
    {"experts 14336x4096 inputs", make_experts, experts_inputs, {ALL, 14336, 4096, 8, 2}, NULL},
    {"experts 14336x4096 weights", make_experts, experts_weights, {ALL, 14336, 4096, 8, 2}, NULL},
    {"route", make_route, route_forward, {ALL, 0, 0, 8, 2}, NULL},
    {"route backward", make_route, route_backward, {ALL, 0, 0, 8, 2}, NULL},
    {"group_slots", make_route, group_slots, {ALL, 0, 0, 8, 2}, NULL},
    {"gather_rows experts", make_combine, gather_experts, {ALL, 4096, 0, 8, 2}, NULL},
    {"gather_rows experts backward", make_combine, gather_experts_backward, {ALL, 4096, 0, 8, 2}, NULL},
    {"combine", make_combine, combine_forward, {ALL, 4096, 0, 8, 2}, NULL},
    {"combine backward", make_combine, combine_backward, {ALL, 4096, 0, 8, 2}, NULL},
    {"attention 4 sequences", make_attention, attention_forward, {4, QUARTER, 32, 8, 128, true}, NULL},
    {"attention 4 sequences backward", make_attention, attention_backward, {4, QUARTER, 32, 8, 128, true}, NULL},
    {"attention 1 sequence", make_attention, attention_forward, {1, ALL, 32, 8, 128, true}, NULL},
    {"attention 1 sequence backward", make_attention, attention_backward, {1, ALL, 32, 8, 128, true}, NULL},
    {"attention head 64", make_attention, attention_forward, {4, QUARTER, 16, 16, 64, true}, NULL},
    {"attention head 64 backward", make_attention, attention_backward, {4, QUARTER, 16, 16, 64, true}, NULL},
    {"attention tower 64", make_attention, attention_forward, {8, 577, 16, 16, 64, false}, NULL},
    {"attention tower 72", make_attention, attention_forward, {8, 729, 16, 16, 72, false}, NULL},
    {"biased attention", make_biased, biased_forward, {4, 496, 12, 12, 64, false}, NULL},
    {"biased attention backward", make_biased, biased_backward, {4, 496, 12, 12, 64, false}, NULL},
    {"rmsnorm", make_rows, rmsnorm_forward, {ALL, 4096}, NULL},
    {"rmsnorm backward", make_rows, rmsnorm_backward, {ALL, 4096}, NULL},
    {"layernorm tower", make_rows, layernorm_forward, {4616, 1024}, NULL},
    {"layernorm backward", make_rows, layernorm_backward, {ALL, 4096}, NULL},
    {"swiglu", make_rows, swiglu_forward, {ALL, 14336}, NULL},
    {"swiglu backward", make_rows, swiglu_backward, {ALL, 14336}, NULL},
    {"quick_gelu tower", make_rows, quick_gelu, {4616, 4096}, NULL},
    {"gelu backward", make_rows, gelu_backward, {ALL, 4096}, NULL},
    {"add", make_rows, add, {ALL, 4096}, NULL},
    {"zero", make_rows, zero, {ALL, 14336}, NULL},
    {"copy", make_rows, copy, {ALL, 14336}, NULL},
    {"rotary", make_rotary, rotary, {ALL, 4096, 32}, NULL},
    {"rotary table", make_rotary, rotary_table, {ALL, 4096, 32}, NULL},
    {"embedding", make_table, embedding_forward, {ALL, 4096, 32000}, rows_read},
    {"embedding backward", make_table, embedding_backward, {ALL, 4096, 32000}, rows_added},
    {"gather_rows", make_table, gather_forward, {HALF, 4096, ALL}, rows_read},
    {"gather_rows backward", make_table, gather_backward, {HALF, 4096, ALL}, NULL},
    {"square_sum", make_flat, square_sum, {ALL, 32768}, NULL},
    {"cast f32 bf16", make_flat, to_bf16, {ALL, 32768}, NULL},
    {"adamw", make_flat, adamw, {ALL, 32768}, adamw_moved},
    {"depthwise3x3", make_frames, depthwise_forward, {8, 24, 4096}, NULL},
    {"depthwise3x3 backward", make_frames, depthwise_backward, {8, 24, 4096}, NULL},
    {"mean_rows", make_frames, mean_rows, {8, 24, 4096}, NULL},
    {"sigmoid_gate", make_frames, sigmoid_gate, {8, 24, 4096}, NULL},
    {"patches", make_patches, patches, {8, 336, 14}, NULL},
    {"convolution1d", make_convolution, convolution_forward, {1984, 768, 128, 16}, NULL},
    {"convolution1d backward", make_convolution, convolution_backward, {1984, 768, 128, 16}, NULL},
};
enum { CASES = sizeof cases / sizeof *cases };

// ---- Timing --------------------------------------------------------------------

static void set_case(Bench *bench, const Case *of, int64_t tokens) {
    for (int i = 0; i < SIZES; i++) {
        int64_t size = of->size[i];
        bench->size[i] = size >= 0 ? size : tokens / -size;
        if (size < 0 && bench->size[i] < 1) bench->size[i] = 1;
    }
}

// What the case needs, multiplies and moves, by its plan.
static VlStatus plan_case(const Case *of, int64_t tokens, VlDevice device, int64_t threads, int64_t bytes[2],
                          double *flops, double *moved) {
    Bench bench = {0};
    VL_TRY(vl_context_create_plan(&bench.context, device, threads));
    set_case(&bench, of, tokens);
    VlRoofline *roofline = &bench.context->roofline;
    VlStatus status = of->make(&bench);
    bench.context->flops = (VlFlops){0};
    // At one byte a second, and products in no time, the seconds are the bytes.
    *roofline = (VlRoofline){.bytes_per_second = 1};
    for (int product = 0; product < VL_PRODUCTS; product++) roofline->flops_per_second[product] = 1e300;
    if (status == VL_OK) status = of->run(&bench);
    *flops = (double)vl_flops_total(&bench.context->flops);
    *moved = of->moved ? of->moved(bench.size) : vl_roofline_seconds(roofline);
    bytes[0] = bench.context->activations.peak;
    bytes[1] = bench.context->scratch.peak;
    vl_context_free(bench.context);
    return status;
}

static VlStatus run_often(const Case *of, Bench *bench, int64_t times, double *seconds) {
    VL_TRY(vl_device_wait(bench->context));
    double begin = vl_seconds();
    for (int64_t i = 0; i < times; i++) VL_TRY(of->run(bench));
    VL_TRY(vl_device_wait(bench->context));
    *seconds = vl_seconds() - begin;
    return VL_OK;
}

// The best of three batches of so many runs that each takes a fiftieth of a second.
static VlStatus time_case(const Case *of, Bench *bench, double *best) {
    double seconds = 0;
    int64_t times = 1;
    VL_TRY(run_often(of, bench, 2, &seconds));
    for (;;) {
        VL_TRY(run_often(of, bench, times, &seconds));
        if (seconds >= 0.02 || times >= 1 << 14) break;
        times *= 2;
    }
    *best = seconds / (double)times;
    for (int i = 0; i < 2; i++) {
        VL_TRY(run_often(of, bench, times, &seconds));
        if (seconds / (double)times < *best) *best = seconds / (double)times;
    }
    return VL_OK;
}

static VlStatus bench_case(const Case *of, VlDevice device, int64_t tokens, const float *pattern) {
    Bench bench = {.pattern = pattern};
    int64_t bytes[2] = {0, 0};
    double flops = 0, moved = 0, seconds = 0;
    VL_TRY(vl_context_create(&bench.context, device, 0));
    VlStatus status;
    VL_TRY_GOTO(status, plan_case(of, tokens, device, bench.context->threads, bytes, &flops, &moved), done);
    VL_TRY_GOTO(status, vl_arena_bind(bench.context, &bench.context->activations, "activations", bytes[0]), done);
    VL_TRY_GOTO(status, vl_arena_bind(bench.context, &bench.context->scratch, "scratch", bytes[1]), done);
    set_case(&bench, of, tokens);
    VL_TRY_GOTO(status, of->make(&bench), done);
    VL_TRY_GOTO(status, time_case(of, &bench, &seconds), done);
    printf("{\"op\": \"%s\", \"seconds\": %.4e, \"flops\": %.6e, \"bytes\": %.6e}\n", of->name, seconds, flops, moved);
    fflush(stdout);
done:
    if (bench.context) {
        vl_arena_release(&bench.context->activations, 0);
        vl_arena_release(&bench.context->scratch, 0);
    }
    vl_context_free(bench.context);
    return status;
}

int main(int argc, char **argv) {
    VlDevice device = VL_DEVICE_CPU;
    VlStatus status = vl_device_choose(&device, argc > 1 ? argv[1] : "auto");
    int64_t tokens = argc > 2 ? strtoll(argv[2], NULL, 10) : 8192, failed = 0;
    static float pattern[PATTERN];
    VlRandom random = vl_random(1, 0);
    if (status != VL_OK || tokens < 4) {
        fprintf(stderr, "gpu_bench_ops [cpu|cuda] [tokens] [part of a name]: %s\n",
                status != VL_OK ? vl_error_text() : "at least 4 tokens are needed");
        return 2;
    }
    for (int i = 0; i < PATTERN; i++) pattern[i] = (float)vl_random_normal(&random);
    for (int i = 0; i < CASES; i++) {
        if (argc > 3 && !strstr(cases[i].name, argv[3])) continue;
        status = bench_case(&cases[i], device, tokens, pattern);
        if (status == VL_OK) continue;
        failed++;
        fprintf(stderr, "%s: %s\n", cases[i].name, vl_error_text());
        if (status == VL_UNSUPPORTED) break;  // no device: nothing else will work either
    }
    return failed > 0;
}

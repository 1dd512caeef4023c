// Checks and FLOPs of linear, attention and linear_cross_entropy: 2 FLOPs per multiply-add of matrix products.
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/scratch.h"

static VlStatus check_weight(const VlContext *context, VlTensor w, const char *x_name, VlTensor x) {
    VL_TRY(vl_check_floating(context, "w", w, 2));
    if (w.dtype == x.dtype) return VL_OK;
    return vl_error(VL_INVALID, "w is %s and %s is %s, they must be of one type", vl_describe(w), x_name,
                    vl_describe(x));
}

// The scratch of one product, behind what the row has pushed.
static VlStatus check_product(VlContext *context) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor workspace;
    VlStatus status = vl_scratch_gemm(context, &workspace);
    vl_arena_release(&context->scratch, mark);
    return status;
}

VlStatus vl_check_linear_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, VlMode mode) {
    (void)mode;
    VL_TRY(vl_check_floating(context, "x", x, 2));
    VL_TRY(check_weight(context, w, "x", x));
    int64_t rows = x.dim[0], in = x.dim[1], out = w.dim[0];
    VL_TRY(vl_check_tensor(context, "w", w, x.dtype, out, in));
    VL_TRY(vl_check_tensor(context, "y", y, y.dtype == VL_F32 ? VL_F32 : x.dtype, rows, out));
    if (!vl_is_empty(b)) VL_TRY(vl_check_tensor(context, "b", b, x.dtype, out));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "w", w));
    VL_TRY(check_product(context));
    context->flops.of[VL_PRODUCT_LINEAR][VL_PASS_FORWARD] += 2 * rows * in * out;
    return VL_OK;
}

VlStatus vl_check_linear_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x,
                                  VlTensor w, VlMode mode) {
    (void)mode;
    VL_TRY(vl_check_floating(context, "dy", dy, 2));
    VL_TRY(check_weight(context, w, "dy", dy));
    int64_t rows = dy.dim[0], in = w.dim[1], out = w.dim[0], *flops = context->flops.of[VL_PRODUCT_LINEAR];
    VL_TRY(vl_check_tensor(context, "dy", dy, dy.dtype, rows, out));
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_check_tensor(context, "dx", dx, dy.dtype, rows, in));
        VL_TRY(vl_check_apart("dx", dx, "dy", dy));
        VL_TRY(vl_check_apart("dx", dx, "w", w));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_check_tensor(context, "x", x, dy.dtype, rows, in));
        VL_TRY(vl_check_tensor(context, "dw", dw, VL_F32, out, in));
        VL_TRY(vl_check_apart("dx", dx, "x", x));
    }
    if (!vl_is_empty(db)) {
        VL_TRY(vl_check_tensor(context, "db", db, VL_F32, out));
        int64_t mark = vl_arena_mark(&context->scratch);
        VlTensor parts;
        VlStatus status = vl_scratch_column_sums(context, &parts, rows, out, 1);
        vl_arena_release(&context->scratch, mark);
        VL_TRY(status);
    }
    VL_TRY(check_product(context));
    if (!vl_is_empty(dx)) flops[VL_PASS_INPUTS] += 2 * rows * in * out;
    if (!vl_is_empty(dw)) flops[VL_PASS_WEIGHTS] += 2 * rows * in * out;
    return VL_OK;
}

// Pairs of a query and a key that it sees.
static int64_t count_pairs(int64_t queries, int64_t keys, bool causal) {
    if (!causal) return queries * keys;
    if (keys < queries) return keys * (keys + 1) / 2;
    return queries * (keys - queries) + queries * (queries + 1) / 2;
}

// *flops += `products` products per pair. Where the offsets are not known (vl_indices), the rows are spread evenly over
// the sequences.
static VlStatus check_sequences(VlContext *context, VlTensor q, VlTensor k, VlTensor cu_q, VlTensor cu_k, bool causal,
                                int64_t products, int64_t *flops) {
    int64_t sequences = cu_q.dim[0] - 1, pairs = 0;
    vl_device_open(context);
    const int64_t *offsets_q = vl_indices(context, cu_q), *offsets_k = vl_indices(context, cu_k);
    VlStatus status = VL_OK;
    if (offsets_q && offsets_k) {
        status = vl_check_offsets("cu_q", offsets_q, sequences + 1, "q", q.dim[0]);
        if (status == VL_OK) status = vl_check_offsets("cu_k", offsets_k, sequences + 1, "k", k.dim[0]);
        for (int64_t s = 0; status == VL_OK && s < sequences; s++) {
            pairs += count_pairs(offsets_q[s + 1] - offsets_q[s], offsets_k[s + 1] - offsets_k[s], causal);
        }
    } else {
        for (int64_t s = 0; s < sequences; s++) {
            pairs += count_pairs((q.dim[0] + s) / sequences, (k.dim[0] + s) / sequences, causal);
        }
    }
    vl_device_close(context);
    VL_TRY(status);
    *flops += products * 2 * pairs * q.dim[1];
    return VL_OK;
}

static VlStatus check_attention(const VlContext *context, VlTensor q, VlTensor k, VlTensor v, VlTensor cu_q,
                                VlTensor cu_k, int64_t heads, int64_t kv_heads) {
    VL_TRY(vl_check_floating(context, "q", q, 2));
    VL_TRY(vl_check_floating(context, "k", k, 2));
    if (heads < 1 || kv_heads < 1 || heads % kv_heads || q.dim[1] < heads || q.dim[1] % heads) {
        return vl_error(VL_INVALID, "%lld heads and %lld key/value heads do not divide q %s", (long long)heads,
                        (long long)kv_heads, vl_describe(q));
    }
    if (k.dim[0] > INT32_MAX) return vl_error(VL_INVALID, "k %s has more than 2^31 rows", vl_describe(k));
    VL_TRY(vl_check_tensor(context, "k", k, q.dtype, k.dim[0], q.dim[1] / heads * kv_heads));
    VL_TRY(vl_check_like(context, "v", v, "k", k));
    VL_TRY(vl_check_tensor(context, "cu_q", cu_q, VL_I64, VL_ANY));
    VL_TRY(vl_check_like(context, "cu_k", cu_k, "cu_q", cu_q));
    if (cu_q.dim[0] < 1) return vl_error(VL_INVALID, "cu_q is %s, it must hold at least one offset", vl_describe(cu_q));
    return VL_OK;
}

static VlStatus check_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v,
                              VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads, bool causal,
                              int64_t flops[VL_PASSES]) {
    VL_TRY(check_attention(context, q, k, v, cu_q, cu_k, heads, kv_heads));
    VL_TRY(vl_check_like(context, "o", o, "q", q));
    if (!vl_is_empty(lse)) VL_TRY(vl_check_tensor(context, "lse", lse, VL_F32, heads, q.dim[0]));
    VL_TRY(vl_check_apart("o", o, "q", q));
    VL_TRY(vl_check_apart("o", o, "k", k));
    VL_TRY(vl_check_apart("o", o, "v", v));
    VL_TRY(check_sequences(context, q, k, cu_q, cu_k, causal, 2, &flops[VL_PASS_FORWARD]));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor scratch;
    VL_TRY(vl_scratch_attention_forward(context, &scratch, vl_attention_tiles(q, k, heads, kv_heads)));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

static VlStatus check_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor d_o, VlTensor q,
                               VlTensor k, VlTensor v, VlTensor o, VlTensor lse, VlTensor cu_q, VlTensor cu_k,
                               int64_t heads, int64_t kv_heads, bool causal, int64_t flops[VL_PASSES]) {
    VL_TRY(check_attention(context, q, k, v, cu_q, cu_k, heads, kv_heads));
    VL_TRY(vl_check_like(context, "d_o", d_o, "q", q));
    VL_TRY(vl_check_like(context, "o", o, "q", q));
    VL_TRY(vl_check_tensor(context, "lse", lse, VL_F32, heads, q.dim[0]));
    if (!vl_is_empty(dq)) VL_TRY(vl_check_like(context, "dq", dq, "q", q));
    if (!vl_is_empty(dk)) VL_TRY(vl_check_like(context, "dk", dk, "k", k));
    if (!vl_is_empty(dv)) VL_TRY(vl_check_like(context, "dv", dv, "v", v));
    const VlTensor outputs[] = {dq, dk, dv}, inputs[] = {d_o, q, k, v, o};
    static const char *const output_names[] = {"dq", "dk", "dv"}, *const input_names[] = {"d_o", "q", "k", "v", "o"};
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 5; j++) VL_TRY(vl_check_apart(output_names[i], outputs[i], input_names[j], inputs[j]));
    }
    VL_TRY(check_sequences(context, q, k, cu_q, cu_k, causal, 4, &flops[VL_PASS_INPUTS]));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor scratch;
    VL_TRY(vl_scratch_attention_backward(context, &scratch, vl_attention_tiles(q, k, heads, kv_heads), lse));
    vl_arena_release(&context->scratch, mark);
    return VL_OK;
}

VlStatus vl_check_attention_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k, VlTensor v,
                                    VlTensor cu_q, VlTensor cu_k, int64_t heads, int64_t kv_heads, bool causal) {
    return check_forward(context, o, lse, q, k, v, cu_q, cu_k, heads, kv_heads, causal,
                         context->flops.of[VL_PRODUCT_ATTENTION]);
}

VlStatus vl_check_attention_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor d_o,
                                     VlTensor q, VlTensor k, VlTensor v, VlTensor o, VlTensor lse, VlTensor cu_q,
                                     VlTensor cu_k, int64_t heads, int64_t kv_heads, bool causal) {
    return check_backward(context, dq, dk, dv, d_o, q, k, v, o, lse, cu_q, cu_k, heads, kv_heads, causal,
                          context->flops.of[VL_PRODUCT_ATTENTION]);
}

// q[T,H*D] with its bias; planning: the longest sequence is not known.
static VlStatus check_biased(VlContext *context, VlTensor q, VlTensor k, VlTensor v, VlTensor bias, VlTensor gate,
                             VlTensor cu_seqlens, int64_t heads) {
    VL_TRY(check_attention(context, q, k, v, cu_seqlens, cu_seqlens, heads, heads));
    VL_TRY(vl_check_like(context, "k", k, "q", q));
    VL_TRY(vl_check_tensor(context, "gate", gate, VL_F32, q.dim[0], heads));
    VL_TRY(vl_check_tensor(context, "bias", bias, VL_F32, heads, VL_ANY));
    if (bias.dim[1] % 2 == 0) {
        return vl_error(VL_INVALID, "bias is %s, it must have an odd number of columns", vl_describe(bias));
    }
    return VL_OK;
}

static VlStatus check_longest(VlContext *context, VlTensor bias, VlTensor cu_seqlens) {
    vl_device_open(context);
    VlStatus status = VL_OK;
    const int64_t *offsets = vl_indices(context, cu_seqlens), most = (bias.dim[1] + 1) / 2;
    for (int64_t s = 0; offsets && s + 1 < cu_seqlens.dim[0] && status == VL_OK; s++) {
        int64_t length = offsets[s + 1] - offsets[s];
        if (length > most) {
            status = vl_error(VL_INVALID, "sequence %lld has %lld rows, bias %s serves %lld at most", (long long)s,
                              (long long)length, vl_describe(bias), (long long)most);
        }
    }
    vl_device_close(context);
    return status;
}

VlStatus vl_check_biased_attention_forward(VlContext *context, VlTensor o, VlTensor lse, VlTensor q, VlTensor k,
                                           VlTensor v, VlTensor bias, VlTensor gate, VlTensor cu_seqlens,
                                           int64_t heads) {
    VL_TRY(check_biased(context, q, k, v, bias, gate, cu_seqlens, heads));
    VL_TRY(check_forward(context, o, lse, q, k, v, cu_seqlens, cu_seqlens, heads, heads, false,
                         context->flops.of[VL_PRODUCT_BIASED_ATTENTION]));
    return check_longest(context, bias, cu_seqlens);
}

VlStatus vl_check_biased_attention_backward(VlContext *context, VlTensor dq, VlTensor dk, VlTensor dv, VlTensor dbias,
                                            VlTensor dgate, VlTensor d_o, VlTensor q, VlTensor k, VlTensor v,
                                            VlTensor o, VlTensor lse, VlTensor bias, VlTensor gate, VlTensor cu_seqlens,
                                            int64_t heads) {
    VL_TRY(check_biased(context, q, k, v, bias, gate, cu_seqlens, heads));
    if (!vl_is_empty(dbias)) VL_TRY(vl_check_like(context, "dbias", dbias, "bias", bias));
    if (!vl_is_empty(dgate)) VL_TRY(vl_check_like(context, "dgate", dgate, "gate", gate));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor parts;
    VL_TRY(vl_scratch_attention_bias(context, &parts, cu_seqlens.dim[0] - 1, bias));
    VlStatus status = check_backward(context, dq, dk, dv, d_o, q, k, v, o, lse, cu_seqlens, cu_seqlens, heads, heads,
                                     false, context->flops.of[VL_PRODUCT_BIASED_ATTENTION]);
    vl_arena_release(&context->scratch, mark);
    VL_TRY(status);
    return check_longest(context, bias, cu_seqlens);
}

VlStatus vl_check_linear_cross_entropy(VlContext *context, VlTensor losses, VlTensor dx, VlTensor dw, VlTensor x,
                                       VlTensor w, VlTensor targets, float scale) {
    (void)scale;
    VL_TRY(vl_check_floating(context, "x", x, 2));
    VL_TRY(check_weight(context, w, "x", x));
    int64_t rows = x.dim[0], width = x.dim[1], vocabulary = w.dim[0], product = 2 * rows * width * vocabulary;
    int64_t *flops = context->flops.of[VL_PRODUCT_LINEAR_CROSS_ENTROPY];
    VL_TRY(vl_check_tensor(context, "w", w, x.dtype, vocabulary, width));
    VL_TRY(vl_check_tensor(context, "losses", losses, VL_F32, rows));
    VL_TRY(vl_check_tensor(context, "targets", targets, VL_I64, rows));
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_check_like(context, "dx", dx, "x", x));
        VL_TRY(vl_check_apart("dx", dx, "x", x));
    }
    if (!vl_is_empty(dw)) VL_TRY(vl_check_tensor(context, "dw", dw, VL_F32, vocabulary, width));
    VL_TRY(vl_check_indices(context, "targets", targets, vocabulary));
    flops[VL_PASS_FORWARD] += product;
    if (!vl_is_empty(dx)) flops[VL_PASS_INPUTS] += product;
    if (!vl_is_empty(dw)) flops[VL_PASS_WEIGHTS] += product;
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor logits;
    VlStatus status = vl_scratch_linear_cross_entropy(context, &logits, rows, vocabulary);
    if (status == VL_OK) status = check_product(context);
    vl_arena_release(&context->scratch, mark);
    VL_TRY(status);
    return VL_OK;
}

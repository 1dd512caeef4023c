// Checks, scratch and FLOPs of the rows of the audio tower: convolution1d, weight_norm, relative_bias, relative_gate.
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/scratch.h"
#include "ops/scratch_sound.h"

VlStatus vl_scratch_convolution1d(VlContext *context, VlTensor *windows, VlTensor *turned, VlTensor w, int64_t rows,
                                  bool backward) {
    enum { ELEMENTS = 1 << 19, FEWEST = 16 };  // a block of windows stays in the second-level cache where it can
    enum { ELEMENTS_CUDA = 1 << 25 };          // there each product should be large
    int64_t window = w.dim[1] * w.dim[2];
    int64_t block = (context->device == VL_DEVICE_CUDA ? ELEMENTS_CUDA : ELEMENTS) / (window ? window : 1);
    if (block < FEWEST) block = FEWEST;
    if (block > rows) block = rows;
    *turned = VL_EMPTY;
    VL_TRY(vl_arena_push(&context->scratch, windows, w.dtype, block, window));
    if (backward) VL_TRY(vl_arena_push(&context->scratch, turned, w.dtype, w.dim[0], w.dim[1], w.dim[2]));
    return VL_OK;
}

static VlStatus check_scratch(VlContext *context, VlTensor w, int64_t rows, bool backward) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlTensor windows, turned, workspace, parts;
    VlStatus status = vl_scratch_convolution1d(context, &windows, &turned, w, rows, backward);
    int64_t products = vl_arena_mark(&context->scratch);
    if (status == VL_OK) status = vl_scratch_gemm(context, &workspace);
    vl_arena_release(&context->scratch, products);
    if (status == VL_OK && backward) status = vl_scratch_column_sums(context, &parts, rows, w.dim[0], 1);
    vl_arena_release(&context->scratch, mark);
    return status;
}

static VlStatus check_convolution(VlContext *context, const char *x_name, VlTensor x, VlTensor w, VlTensor cu_seqlens,
                                  int64_t groups) {
    VL_TRY(vl_check_floating(context, x_name, x, 2));
    int64_t channels = x.dim[1];
    if (groups < 1 || channels % groups) {
        return vl_error(VL_INVALID, "%lld groups do not divide %s %s", (long long)groups, x_name, vl_describe(x));
    }
    VL_TRY(vl_check_tensor(context, "w", w, x.dtype, channels, VL_ANY, channels / groups));
    if (w.dim[1] < 1) return vl_error(VL_INVALID, "w is %s, it must have at least one tap", vl_describe(w));
    VL_TRY(vl_check_sequences(context, "cu_seqlens", cu_seqlens, x_name, x.dim[0]));
    return VL_OK;
}

VlStatus vl_check_convolution1d_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b,
                                        VlTensor cu_seqlens, int64_t groups) {
    VL_TRY(check_convolution(context, "x", x, w, cu_seqlens, groups));
    VL_TRY(vl_check_like(context, "y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "x", x));
    VL_TRY(vl_check_apart("y", y, "w", w));
    if (!vl_is_empty(b)) VL_TRY(vl_check_tensor(context, "b", b, x.dtype, x.dim[1]));
    VL_TRY(check_scratch(context, w, x.dim[0], false));
    context->flops.of[VL_PRODUCT_CONVOLUTION1D][VL_PASS_FORWARD] += 2 * x.dim[0] * vl_elements(w);
    return VL_OK;
}

VlStatus vl_check_convolution1d_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy,
                                         VlTensor x, VlTensor w, VlTensor cu_seqlens, int64_t groups, VlMode mode) {
    (void)mode;
    VL_TRY(check_convolution(context, "dy", dy, w, cu_seqlens, groups));
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_check_like(context, "dx", dx, "dy", dy));
        VL_TRY(vl_check_apart("dx", dx, "dy", dy));
        VL_TRY(vl_check_apart("dx", dx, "w", w));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_check_like(context, "x", x, "dy", dy));
        VL_TRY(vl_check_tensor(context, "dw", dw, VL_F32, w.dim[0], w.dim[1], w.dim[2]));
        VL_TRY(vl_check_apart("dx", dx, "x", x));
    }
    if (!vl_is_empty(db)) VL_TRY(vl_check_tensor(context, "db", db, VL_F32, dy.dim[1]));
    VL_TRY(check_scratch(context, w, dy.dim[0], true));
    int64_t *flops = context->flops.of[VL_PRODUCT_CONVOLUTION1D], product = 2 * dy.dim[0] * vl_elements(w);
    if (!vl_is_empty(dx)) flops[VL_PASS_INPUTS] += product;
    if (!vl_is_empty(dw)) flops[VL_PASS_WEIGHTS] += product;
    return VL_OK;
}

// v[O,I,K] with g[K], of one type.
static VlStatus check_taps(VlContext *context, VlTensor g, VlTensor v) {
    VL_TRY(vl_check_floating(context, "v", v, 3));
    VL_TRY(vl_check_tensor(context, "g", g, v.dtype, v.dim[2]));
    return VL_OK;
}

VlStatus vl_scratch_weight_norm(VlContext *context, VlWeightNorm *scratch, VlTensor v) {
    enum { MOST_PARTS = 64 };
    *scratch = (VlWeightNorm){.parts = VL_EMPTY};
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    int64_t parts = v.dim[0] < MOST_PARTS ? v.dim[0] : MOST_PARTS;
    VL_TRY(vl_arena_push(&context->scratch, &scratch->parts, VL_F64, parts > 0 ? parts : 1, 2, v.dim[2]));
    VL_TRY(vl_arena_push(&context->scratch, &scratch->totals, VL_F64, 2, v.dim[2]));
    return VL_OK;
}

static VlStatus check_norm_scratch(VlContext *context, VlTensor v) {
    int64_t mark = vl_arena_mark(&context->scratch);
    VlWeightNorm scratch;
    VlStatus status = vl_scratch_weight_norm(context, &scratch, v);
    vl_arena_release(&context->scratch, mark);
    return status;
}

VlStatus vl_check_weight_norm_forward(VlContext *context, VlTensor w, VlTensor g, VlTensor v) {
    VL_TRY(check_taps(context, g, v));
    VL_TRY(vl_check_tensor(context, "w", w, v.dtype, v.dim[0], v.dim[2], v.dim[1]));
    VL_TRY(vl_check_apart("w", w, "v", v));
    return check_norm_scratch(context, v);
}

VlStatus vl_check_weight_norm_backward(VlContext *context, VlTensor dg, VlTensor dv, VlTensor dw, VlTensor g,
                                       VlTensor v) {
    VL_TRY(check_taps(context, g, v));
    VL_TRY(vl_check_tensor(context, "dw", dw, VL_F32, v.dim[0], v.dim[2], v.dim[1]));
    if (!vl_is_empty(dg)) VL_TRY(vl_check_tensor(context, "dg", dg, VL_F32, v.dim[2]));
    if (!vl_is_empty(dv)) VL_TRY(vl_check_tensor(context, "dv", dv, VL_F32, v.dim[0], v.dim[1], v.dim[2]));
    VL_TRY(vl_check_apart("dv", dv, "dw", dw));
    return check_norm_scratch(context, v);
}

static VlStatus check_bias(const VlContext *context, const char *bias_name, VlTensor bias, const char *table_name,
                           VlTensor table, int64_t max_distance) {
    VL_TRY(vl_check_tensor(context, bias_name, bias, VL_F32, table.dim[1], VL_ANY));
    if (bias.dim[1] % 2 == 0) {
        return vl_error(VL_INVALID, "%s is %s, it must have an odd number of columns", bias_name, vl_describe(bias));
    }
    if (table.dim[0] < 4 || table.dim[0] % 4) {
        return vl_error(VL_INVALID, "%s is %s, its rows must be a multiple of 4", table_name, vl_describe(table));
    }
    if (max_distance <= table.dim[0] / 4) {
        return vl_error(VL_INVALID, "max_distance is %lld, with %lld buckets it must be above %lld",
                        (long long)max_distance, (long long)table.dim[0], (long long)(table.dim[0] / 4));
    }
    return VL_OK;
}

VlStatus vl_check_relative_bias_forward(VlContext *context, VlTensor bias, VlTensor table, int64_t max_distance) {
    VL_TRY(vl_check_floating(context, "table", table, 2));
    VL_TRY(check_bias(context, "bias", bias, "table", table, max_distance));
    return VL_OK;
}

VlStatus vl_check_relative_bias_backward(VlContext *context, VlTensor dtable, VlTensor dbias, int64_t max_distance) {
    VL_TRY(vl_check_tensor(context, "dtable", dtable, VL_F32, VL_ANY, VL_ANY));
    VL_TRY(check_bias(context, "dbias", dbias, "dtable", dtable, max_distance));
    return VL_OK;
}

VlStatus vl_scratch_relative_gate(VlContext *context, VlRelativeGate *scratch, VlTensor dgate, VlTensor w) {
    enum { MOST_PARTS = 256, FEWEST_ROWS = 16 };
    int64_t rows = vl_elements(dgate), parts = rows / FEWEST_ROWS + 1;
    *scratch = (VlRelativeGate){.parts = VL_EMPTY};
    VL_TRY(vl_arena_push(&context->scratch, &scratch->slopes, VL_F32, rows, 3));
    if (context->device != VL_DEVICE_CUDA) return VL_OK;
    if (parts > MOST_PARTS) parts = MOST_PARTS;
    VL_TRY(vl_arena_push(&context->scratch, &scratch->parts, VL_F64, parts, 2, w.dim[1] + 1));
    return VL_OK;
}

static VlStatus check_gate(const VlContext *context, const char *gate_name, VlTensor gate, VlTensor q, VlTensor w,
                           VlTensor bias, VlTensor scale) {
    enum { MOST_HEAD = 1024 };
    VL_TRY(vl_check_floating(context, "q", q, 2));
    VL_TRY(vl_check_tensor(context, "w", w, q.dtype, VL_ANY, VL_ANY));
    if (w.dim[0] < 2 || w.dim[0] % 2 || w.dim[1] < 1 || w.dim[1] > MOST_HEAD || q.dim[1] % w.dim[1]) {
        return vl_error(VL_INVALID,
                        "w is %s, it must have an even number of rows and heads of at most %d that divide q %s",
                        vl_describe(w), MOST_HEAD, vl_describe(q));
    }
    VL_TRY(vl_check_tensor(context, "bias", bias, q.dtype, w.dim[0]));
    VL_TRY(vl_check_tensor(context, "scale", scale, q.dtype, q.dim[1] / w.dim[1]));
    VL_TRY(vl_check_tensor(context, gate_name, gate, VL_F32, q.dim[0], q.dim[1] / w.dim[1]));
    return VL_OK;
}

VlStatus vl_check_relative_gate_forward(VlContext *context, VlTensor gate, VlTensor q, VlTensor w, VlTensor bias,
                                        VlTensor scale) {
    VL_TRY(check_gate(context, "gate", gate, q, w, bias, scale));
    return VL_OK;
}

VlStatus vl_check_relative_gate_backward(VlContext *context, VlTensor dq, VlTensor dw, VlTensor dbias, VlTensor dscale,
                                         VlTensor dgate, VlTensor q, VlTensor w, VlTensor bias, VlTensor scale,
                                         VlMode mode) {
    (void)mode;
    VL_TRY(check_gate(context, "dgate", dgate, q, w, bias, scale));
    if (!vl_is_empty(dq)) {
        VL_TRY(vl_check_like(context, "dq", dq, "q", q));
        VL_TRY(vl_check_apart("dq", dq, "q", q));
    }
    if (!vl_is_empty(dw)) VL_TRY(vl_check_tensor(context, "dw", dw, VL_F32, w.dim[0], w.dim[1]));
    if (!vl_is_empty(dbias)) VL_TRY(vl_check_tensor(context, "dbias", dbias, VL_F32, w.dim[0]));
    if (!vl_is_empty(dscale)) VL_TRY(vl_check_tensor(context, "dscale", dscale, VL_F32, scale.dim[0]));
    int64_t mark = vl_arena_mark(&context->scratch);
    VlRelativeGate scratch;
    VlStatus status = vl_scratch_relative_gate(context, &scratch, dgate, w);
    vl_arena_release(&context->scratch, mark);
    return status;
}

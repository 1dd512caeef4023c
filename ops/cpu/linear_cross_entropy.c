#include <math.h>
#include <string.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/vector_math.h"
#include "ops/scratch.h"

VL_VECTORISED static float largest(const float *row, int64_t count) {
    float most = -INFINITY;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < count; i++) most = row[i] > most ? row[i] : most;
    return most;
}

VL_VECTORISED static float sum_of_exponentials(const float *row, float most, int64_t count) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += vl_exp_flushed(row[i] - most);
    return sum;
}

VL_VECTORISED static void scaled_softmax(float *row, float lse, float scale, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) row[i] = scale * vl_exp_flushed(row[i] - lse);
}

// The row as bf16 at its own start. In pieces through a buffer, because source and destination overlap.
static void narrow_in_place(float *row, int64_t count) {
    VlBf16 piece[VL_BLOCK];
    VlTensor to = vl_tensor(piece, VL_BF16, VL_BLOCK);
    for (int64_t i = 0; i < count; i += VL_BLOCK) {
        int64_t length = vl_minimum(VL_BLOCK, count - i);
        vl_block_convert(to, 0, length, VL_WRITE, row + i);
        memcpy((char *)row + i * (int64_t)sizeof(VlBf16), piece, (size_t)length * sizeof(VlBf16));
    }
}

// The losses of `rows` rows of logits; with `gradients` the logits become scale * dlosses/dlogits, of type `dtype`,
// each row at the start of its f32 row.
static void finish_rows(const VlContext *context, float *losses, float *logits, const int64_t *targets, int64_t rows,
                        int64_t vocabulary, bool gradients, float scale, VlDtype dtype) {
#pragma omp parallel for schedule(dynamic, 4) num_threads((int)context->threads)
    for (int64_t i = 0; i < rows; i++) {
        float *row = logits + i * vocabulary;
        float most = largest(row, vocabulary);
        float sum = 0;
        double total = 0;
        for (int64_t j = 0; j < vocabulary; j += VL_BLOCK) {
            sum = sum_of_exponentials(row + j, most, vl_minimum(VL_BLOCK, vocabulary - j));
            total += (double)sum;
        }
        double lse = (double)most + log(total);
        losses[i] = (float)(lse - (double)row[targets[i]]);
        if (!gradients) continue;
        scaled_softmax(row, (float)lse, scale, vocabulary);
        row[targets[i]] -= scale;
        if (dtype == VL_BF16) narrow_in_place(row, vocabulary);
    }
}

// Rows of w and x stand for [V,C] and [rows,C]; gradients for [rows,V], two bf16 per logit.
static VlStatus block(VlContext *context, VlTensor losses, VlTensor dx, VlTensor dw, VlTensor x, VlTensor w,
                      VlTensor targets, float scale, float *logits) {
    int64_t rows = x.dim[0], width = x.dim[1], vocabulary = w.dim[0];
    int64_t leading = x.dtype == VL_BF16 ? 2 * vocabulary : vocabulary;
    bool gradients = !vl_is_empty(dx) || !vl_is_empty(dw);
    VL_TRY(vl_gemm(context, (VlGemm){.m = rows,
                                     .n = vocabulary,
                                     .k = width,
                                     .a = x.data,
                                     .a_leading = width,
                                     .b = w.data,
                                     .b_leading = width,
                                     .b_transposed = true,
                                     .c = logits,
                                     .c_leading = vocabulary,
                                     .input = x.dtype,
                                     .output = VL_F32}));
    finish_rows(context, losses.data, logits, targets.data, rows, vocabulary, gradients, scale, x.dtype);
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_gemm(context, (VlGemm){.m = rows,
                                         .n = width,
                                         .k = vocabulary,
                                         .a = logits,
                                         .a_leading = leading,
                                         .b = w.data,
                                         .b_leading = width,
                                         .c = dx.data,
                                         .c_leading = width,
                                         .input = x.dtype,
                                         .output = x.dtype}));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_gemm(context, (VlGemm){.m = vocabulary,
                                         .n = width,
                                         .k = rows,
                                         .a = logits,
                                         .a_leading = leading,
                                         .a_transposed = true,
                                         .b = x.data,
                                         .b_leading = width,
                                         .c = dw.data,
                                         .c_leading = width,
                                         .add = true,
                                         .input = x.dtype,
                                         .output = VL_F32}));
    }
    return VL_OK;
}

VlStatus vl_cpu_linear_cross_entropy(VlContext *context, VlTensor losses, VlTensor dx, VlTensor dw, VlTensor x,
                                     VlTensor w, VlTensor targets, float scale) {
    int64_t rows = x.dim[0], mark = vl_arena_mark(&context->scratch);
    VlStatus status;
    VlTensor logits;
    VL_TRY_GOTO(status, vl_scratch_linear_cross_entropy(context, &logits, rows, w.dim[0]), done);
    for (int64_t begin = 0; begin < rows; begin += logits.dim[0]) {
        int64_t count = vl_minimum(logits.dim[0], rows - begin);
        VL_TRY_GOTO(status,
                    block(context, vl_rows(losses, begin, count), vl_is_empty(dx) ? dx : vl_rows(dx, begin, count), dw,
                          vl_rows(x, begin, count), w, vl_rows(targets, begin, count), scale, logits.data),
                    done);
    }
done:
    vl_arena_release(&context->scratch, mark);
    return status;
}

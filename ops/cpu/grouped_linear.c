#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"

// An expert's weight, or its gradient.
static void *matrix_of(VlTensor w, int64_t expert) {
    return (char *)w.data + expert * w.dim[1] * w.dim[2] * vl_dtype_size(w.dtype);
}

VlStatus vl_cpu_grouped_linear_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor offsets,
                                       VlMode mode) {
    int64_t in = w.dim[2], out = w.dim[1];
    const int64_t *begin = offsets.data;
    for (int64_t e = 0; e < w.dim[0]; e++) {
        int64_t rows = begin[e + 1] - begin[e];
        VL_TRY(vl_gemm(context, (VlGemm){.m = rows,
                                         .n = out,
                                         .k = in,
                                         .a = vl_rows(x, begin[e], rows).data,
                                         .a_leading = in,
                                         .b = matrix_of(w, e),
                                         .b_leading = in,
                                         .b_transposed = true,
                                         .c = vl_rows(y, begin[e], rows).data,
                                         .c_leading = out,
                                         .add = mode == VL_ADD,
                                         .input = x.dtype,
                                         .output = y.dtype}));
    }
    return VL_OK;
}

static VlStatus multiply_inputs(VlContext *context, VlTensor dx, VlTensor dy, VlTensor w, int64_t expert, VlMode mode) {
    int64_t rows = dx.dim[0], in = w.dim[2], out = w.dim[1];
    return vl_gemm(context, (VlGemm){.m = rows,
                                     .n = in,
                                     .k = out,
                                     .a = dy.data,
                                     .a_leading = out,
                                     .b = matrix_of(w, expert),
                                     .b_leading = in,
                                     .c = dx.data,
                                     .c_leading = in,
                                     .add = mode == VL_ADD,
                                     .input = dy.dtype,
                                     .output = dx.dtype});
}

static VlStatus multiply_weights(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x, int64_t expert) {
    int64_t rows = x.dim[0], in = dw.dim[2], out = dw.dim[1];
    return vl_gemm(context, (VlGemm){.m = out,
                                     .n = in,
                                     .k = rows,
                                     .a = dy.data,
                                     .a_leading = out,
                                     .a_transposed = true,
                                     .b = x.data,
                                     .b_leading = in,
                                     .c = matrix_of(dw, expert),
                                     .c_leading = in,
                                     .add = true,
                                     .input = dy.dtype,
                                     .output = VL_F32});
}

VlStatus vl_cpu_grouped_linear_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor dy, VlTensor x,
                                        VlTensor w, VlTensor offsets, VlMode mode) {
    const int64_t *begin = offsets.data;
    for (int64_t e = 0; e < w.dim[0]; e++) {
        int64_t rows = begin[e + 1] - begin[e];
        VlTensor mine = vl_rows(dy, begin[e], rows);
        if (!vl_is_empty(dx)) VL_TRY(multiply_inputs(context, vl_rows(dx, begin[e], rows), mine, w, e, mode));
        if (!vl_is_empty(dw)) VL_TRY(multiply_weights(context, dw, mine, vl_rows(x, begin[e], rows), e));
    }
    return VL_OK;
}

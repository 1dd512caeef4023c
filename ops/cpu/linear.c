#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemm.h"

VlStatus vl_cpu_linear_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, VlMode mode) {
    int64_t rows = x.dim[0], in = x.dim[1], out = w.dim[0];
    VL_TRY(vl_gemm(context, (VlGemm){.m = rows,
                                     .n = out,
                                     .k = in,
                                     .a = x.data,
                                     .a_leading = in,
                                     .b = w.data,
                                     .b_leading = in,
                                     .b_transposed = true,
                                     .bias = b.data,
                                     .c = y.data,
                                     .c_leading = out,
                                     .add = mode == VL_ADD,
                                     .input = x.dtype,
                                     .output = y.dtype}));
    return VL_OK;
}

VlStatus vl_cpu_linear_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x,
                                VlTensor w, VlMode mode) {
    int64_t rows = dy.dim[0], in = w.dim[1], out = w.dim[0];
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_gemm(context, (VlGemm){.m = rows,
                                         .n = in,
                                         .k = out,
                                         .a = dy.data,
                                         .a_leading = out,
                                         .b = w.data,
                                         .b_leading = in,
                                         .c = dx.data,
                                         .c_leading = in,
                                         .add = mode == VL_ADD,
                                         .input = dy.dtype,
                                         .output = dx.dtype}));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_gemm(context, (VlGemm){.m = out,
                                         .n = in,
                                         .k = rows,
                                         .a = dy.data,
                                         .a_leading = out,
                                         .a_transposed = true,
                                         .b = x.data,
                                         .b_leading = in,
                                         .c = dw.data,
                                         .c_leading = in,
                                         .add = true,
                                         .input = dy.dtype,
                                         .output = VL_F32}));
    }
    if (!vl_is_empty(db)) vl_add_column_sums(context, db, dy);
    return VL_OK;
}

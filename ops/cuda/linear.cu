#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/gemm.cuh"

VlStatus vl_cuda_linear_forward(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b, VlMode mode) {
    int64_t rows = x.dim[0], in = x.dim[1], out = w.dim[0];
    return vl_cuda_gemm(context, {.m = rows,
                                  .n = out,
                                  .k = in,
                                  .a = x.data,
                                  .b = w.data,
                                  .bias = b.data,
                                  .a_leading = in,
                                  .b_leading = in,
                                  .c_leading = out,
                                  .b_transposed = true,
                                  .add = mode == VL_ADD,
                                  .c = y.data,
                                  .input = x.dtype,
                                  .output = y.dtype});
}

static VlStatus add_bias_gradient(VlContext *context, VlTensor db, VlTensor dy) {
    return with_type(dy.dtype, [&](auto type) {
        using T = decltype(type);
        return add_column_sums(context, {{data_of<float>(db)}}, ColumnValues<T>{data_of<T>(dy), dy.dim[1]}, dy.dim[0],
                               dy.dim[1]);
    });
}

VlStatus vl_cuda_linear_backward(VlContext *context, VlTensor dx, VlTensor dw, VlTensor db, VlTensor dy, VlTensor x,
                                 VlTensor w, VlMode mode) {
    int64_t rows = dy.dim[0], in = w.dim[1], out = w.dim[0];
    if (!vl_is_empty(dx)) {
        VL_TRY(vl_cuda_gemm(context, {.m = rows,
                                      .n = in,
                                      .k = out,
                                      .a = dy.data,
                                      .b = w.data,
                                      .a_leading = out,
                                      .b_leading = in,
                                      .c_leading = in,
                                      .add = mode == VL_ADD,
                                      .c = dx.data,
                                      .input = dy.dtype,
                                      .output = dx.dtype}));
    }
    if (!vl_is_empty(dw)) {
        VL_TRY(vl_cuda_gemm(context, {.m = out,
                                      .n = in,
                                      .k = rows,
                                      .a = dy.data,
                                      .b = x.data,
                                      .a_leading = out,
                                      .b_leading = in,
                                      .c_leading = in,
                                      .a_transposed = true,
                                      .add = true,
                                      .c = dw.data,
                                      .input = dy.dtype,
                                      .output = VL_F32}));
    }
    if (!vl_is_empty(db)) VL_TRY(add_bias_gradient(context, db, dy));
    return VL_OK;
}

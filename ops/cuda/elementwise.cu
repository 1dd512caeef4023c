// add_tensors, zero, cast.
#include "ops/cuda/groups.cuh"

template <class T, int N>
static __global__ void add_kernel(T *y, const T *a, float scale, const T *b, int64_t count) {
    for_groups<N>(
        count,
        [=](int64_t i, auto n) {
            Inputs<2, n> in;
            in.of[0] = load_floats<n>(a + i);
            if (b) in.of[1] = load_floats<n>(b + i);
            return in;
        },
        [=](int64_t i, auto in, auto n) {
            Floats<n> sum;
            for (int k = 0; k < n; k++) {
                sum.at[k] = b ? fmaf(scale, in.of[0].at[k], in.of[1].at[k]) : scale * in.of[0].at[k];
            }
            store_floats(y + i, sum);
        });
}

VlStatus vl_cuda_add_tensors(VlContext *context, VlTensor y, VlTensor a, float scale, VlTensor b) {
    int64_t count = vl_elements(y);
    return with_groups(y.dtype, aligned(y, a, b), [&](auto type, auto n) {
        using T = decltype(type);
        return launch(context, add_kernel<T, n>, blocks_for_groups(count, n), dim3(GROUP_THREADS), 0, data_of<T>(y),
                      data_of<T>(a), scale, data_of<T>(b), count);
    });
}

VlStatus vl_cuda_zero(VlContext *context, VlTensor y) {
    if (vl_bytes(y) == 0) return VL_OK;
    return vl_cuda_error(cudaMemsetAsync(y.data, 0, (size_t)vl_bytes(y), vl_cuda_state(context)->stream), "zero");
}

template <class Y, class X, int N>
static __global__ void cast_kernel(Y *y, const X *x, int64_t count) {
    for_groups<N>(
        count, [=](int64_t i, auto n) { return load_floats<n>(x + i); },
        [=](int64_t i, auto values, auto) { store_floats(y + i, values); });
}

VlStatus vl_cuda_cast(VlContext *context, VlTensor y, VlTensor x) {
    int64_t count = vl_elements(y);
    if (y.dtype == x.dtype) {
        if (count == 0) return VL_OK;
        return vl_cuda_error(cudaMemcpyAsync(y.data, x.data, (size_t)vl_bytes(y), cudaMemcpyDeviceToDevice,
                                             vl_cuda_state(context)->stream),
                             "cast");
    }
    return with_groups_of<4>(aligned(y, x), [&](auto n) {
        dim3 grid = blocks_for_groups(count, n);
        if (y.dtype == VL_F32) {
            return launch(context, cast_kernel<float, Bf16, n>, grid, dim3(GROUP_THREADS), 0, data_of<float>(y),
                          data_of<Bf16>(x), count);
        }
        return launch(context, cast_kernel<Bf16, float, n>, grid, dim3(GROUP_THREADS), 0, data_of<Bf16>(y),
                      data_of<float>(x), count);
    });
}

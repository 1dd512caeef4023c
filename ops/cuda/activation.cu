#include "ops/cuda/activation.cuh"
#include "ops/cuda/groups.cuh"

template <class Function>
static __device__ __forceinline__ void with_kind(VlActivation kind, Function function) {
    switch (kind) {
    case VL_SILU: return function(Silu{});
    case VL_GELU_ERF: return function(GeluErf{});
    case VL_GELU_TANH: return function(GeluTanh{});
    default: return function(QuickGelu{});
    }
}

template <class T, int N>
static __global__ void forward_kernel(T *y, const T *x, VlActivation kind, int64_t count) {
    for_groups<N>(
        count, [=](int64_t i, auto n) { return load_floats<n>(x + i); },
        [=](int64_t i, auto values, auto n) {
            with_kind(kind, [&](auto activation) {
                for (int k = 0; k < n; k++) values.at[k] *= activation.gate(values.at[k]).value;
            });
            store_floats(y + i, values);
        });
}

VlStatus vl_cuda_activation_forward(VlContext *context, VlTensor y, VlTensor x, VlActivation kind) {
    int64_t count = vl_elements(y);
    return with_groups(y.dtype, aligned(y, x), [&](auto type, auto n) {
        using T = decltype(type);
        return launch(context, forward_kernel<T, n>, blocks_for_groups(count, n), dim3(GROUP_THREADS), 0, data_of<T>(y),
                      data_of<T>(x), kind, count);
    });
}

template <class T, int N>
static __global__ void backward_kernel(T *dx, const T *dy, const T *x, VlActivation kind, int64_t count) {
    for_groups<N>(
        count,
        [=](int64_t i, auto n) {
            return Inputs<2, n>{{load_floats<n>(dy + i), load_floats<n>(x + i)}};
        },
        [=](int64_t i, auto in, auto n) {
            Floats<n> gradient;
            with_kind(kind, [&](auto activation) {
                for (int k = 0; k < n; k++) {
                    float value = in.of[1].at[k];
                    Gate gate = activation.gate(value);
                    gradient.at[k] = in.of[0].at[k] * (gate.value + value * gate.derivative);
                }
            });
            store_floats(dx + i, gradient);
        });
}

VlStatus vl_cuda_activation_backward(VlContext *context, VlTensor dx, VlTensor dy, VlTensor x, VlActivation kind) {
    if (vl_is_empty(dx)) return VL_OK;
    int64_t count = vl_elements(dy);
    return with_groups(dy.dtype, aligned(dx, dy, x), [&](auto type, auto n) {
        using T = decltype(type);
        return launch(context, backward_kernel<T, n>, blocks_for_groups(count, n), dim3(GROUP_THREADS), 0,
                      data_of<T>(dx), data_of<T>(dy), data_of<T>(x), kind, count);
    });
}

#include "ops/cuda/activation.cuh"
#include "ops/cuda/groups.cuh"

template <class T, int N>
static __global__ void forward_kernel(T *y, const T *gate, const T *up, int64_t count) {
    for_groups<N>(
        count,
        [=](int64_t i, auto n) {
            return Inputs<2, n>{{load_floats<n>(gate + i), load_floats<n>(up + i)}};
        },
        [=](int64_t i, auto in, auto n) {
            Floats<n> values;
            for (int k = 0; k < n; k++) {
                float g = in.of[0].at[k];
                values.at[k] = g * sigmoid(g) * in.of[1].at[k];
            }
            store_floats(y + i, values);
        });
}

VlStatus vl_cuda_swiglu_forward(VlContext *context, VlTensor y, VlTensor gate, VlTensor up) {
    int64_t count = vl_elements(y);
    return with_groups(y.dtype, aligned(y, gate, up), [&](auto type, auto n) {
        using T = decltype(type);
        return launch(context, forward_kernel<T, n>, blocks_for_groups(count, n), dim3(GROUP_THREADS), 0, data_of<T>(y),
                      data_of<T>(gate), data_of<T>(up), count);
    });
}

// dgate and dup may take the place of gate and up: all that an element needs is loaded before they are stored.
template <class T, int N>
static __global__ void backward_kernel(T *dgate, T *dup, const T *dy, const T *gate, const T *up, int64_t count) {
    for_groups<N>(
        count,
        [=](int64_t i, auto n) {
            return Inputs<3, n>{{load_floats<n>(dy + i), load_floats<n>(gate + i), load_floats<n>(up + i)}};
        },
        [=](int64_t i, auto in, auto n) {
            Floats<n> to_gate, to_up;
            for (int k = 0; k < n; k++) {
                float d = in.of[0].at[k], g = in.of[1].at[k], u = in.of[2].at[k], s = sigmoid(g);
                to_gate.at[k] = d * u * s * (1.0f + g * (1.0f - s));
                to_up.at[k] = d * g * s;
            }
            if (dgate) store_floats(dgate + i, to_gate);
            if (dup) store_floats(dup + i, to_up);
        });
}

VlStatus vl_cuda_swiglu_backward(VlContext *context, VlTensor dgate, VlTensor dup, VlTensor dy, VlTensor gate,
                                 VlTensor up) {
    int64_t count = vl_elements(dy);
    if (vl_is_empty(dgate) && vl_is_empty(dup)) return VL_OK;
    return with_groups(dy.dtype, aligned(dgate, dup, dy, gate, up), [&](auto type, auto n) {
        using T = decltype(type);
        return launch(context, backward_kernel<T, n>, blocks_for_groups(count, n), dim3(GROUP_THREADS), 0,
                      data_of<T>(dgate), data_of<T>(dup), data_of<T>(dy), data_of<T>(gate), data_of<T>(up), count);
    });
}

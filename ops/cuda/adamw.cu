#include "ops/cuda/groups.cuh"

extern "C" {
#include "ops/adamw.h"
}

// The f32 that is updated: the weight itself, or what it and its remainder are the halves of (base/dtype.h).
static __device__ __forceinline__ float join(float weight, int16_t) { return weight; }
static __device__ __forceinline__ float join(Bf16 weight, int16_t remainder) {
    return __uint_as_float(((uint32_t)weight.bits << 16) + (uint32_t)(int32_t)remainder);
}
static __device__ __forceinline__ void split(float value, float *weight, int16_t *) { *weight = value; }
static __device__ __forceinline__ void split(float value, Bf16 *weight, int16_t *remainder) {
    uint32_t bits = __float_as_uint(value);
    bool number = (bits & 0x7fffffffu) <= 0x7f800000u;
    weight->bits = (uint16_t)(number ? (bits + 0x8000u) >> 16 : (bits >> 16) | 0x40u);
    *remainder = (int16_t)(number ? bits & 0xffffu : 0);
}

template <class T, int N>
struct Loaded {
    Group<T, N> weight;
    Group<int16_t, N> remainder;
    Floats<N> gradient, moment1, moment2;
};

template <class T, int N>
static __global__ void adamw_kernel(T *weight, int16_t *remainder, float *moment1, float *moment2,
                                    const float *gradient, VlAdamWStep step, int64_t count) {
    for_groups<N>(
        count,
        [=](int64_t i, auto n) {
            Loaded<T, n> in;
            in.weight = load_group<n>(weight + i);
            if (remainder) in.remainder = load_group<n>(remainder + i);
            in.gradient = load_floats<n>(gradient + i);
            in.moment1 = load_floats<n>(moment1 + i);
            in.moment2 = load_floats<n>(moment2 + i);
            return in;
        },
        [=](int64_t i, auto in, auto n) {
            for (int k = 0; k < n; k++) {
                float g = in.gradient.at[k] * step.gradient_scale;
                float m = in.moment1.at[k] + step.moment1_rate * (g - in.moment1.at[k]);
                float v = in.moment2.at[k] * step.beta2 + step.moment2_rate * g * g;
                float denominator = sqrtf(v) / step.correction2_root + step.eps;
                float master = join(in.weight.at[k], in.remainder.at[k]) * step.decay - step.size * m / denominator;
                in.moment1.at[k] = m;
                in.moment2.at[k] = v;
                split(master, &in.weight.at[k], &in.remainder.at[k]);
            }
            store_group(weight + i, in.weight);
            if (remainder) store_group(remainder + i, in.remainder);
            store_floats(moment1 + i, in.moment1);
            store_floats(moment2 + i, in.moment2);
        });
}

VlStatus vl_cuda_adamw(VlContext *context, VlTensor weight, VlTensor remainder, VlTensor moment1, VlTensor moment2,
                       VlTensor gradient, VlAdamW settings) {
    int64_t count = vl_elements(weight);
    VlAdamWStep step = vl_adamw_step(settings);
    return with_type(weight.dtype, [&](auto type) {
        using T = decltype(type);
        return with_groups_of<4>(aligned(weight, remainder, moment1, moment2, gradient), [&](auto n) {
            return launch(context, adamw_kernel<T, n>, blocks_for_groups(count, n), dim3(GROUP_THREADS), 0,
                          data_of<T>(weight), data_of<int16_t>(remainder), data_of<float>(moment1),
                          data_of<float>(moment2), data_of<float>(gradient), step, count);
        });
    });
}

// Activations as x * g(x): the gates and their derivatives, as ops/cpu/activation.c has them.
#ifndef VL_OPS_CUDA_ACTIVATION_CUH
#define VL_OPS_CUDA_ACTIVATION_CUH

#include "ops/cuda/device.cuh"
#include "ops/cuda/ptx.cuh"

struct Gate {
    float value, derivative;
};

static __device__ __forceinline__ float fast_exp(float x) { return ptx_exp2(1.44269504f * x); }
static __device__ __forceinline__ float sigmoid(float x) { return ptx_reciprocal(1.0f + fast_exp(-x)); }

static __device__ __forceinline__ Gate logistic(float argument, float slope) {
    float value = sigmoid(argument);
    return {value, value * (1.0f - value) * slope};
}

struct Silu {
    static __device__ __forceinline__ Gate gate(float x) { return logistic(x, 1.0f); }
};

struct QuickGelu {
    static __device__ __forceinline__ Gate gate(float x) { return logistic(1.702f * x, 1.702f); }
};

// (1 + tanh(u)) / 2 = sigmoid(2u) with u = sqrt(2/pi) (x + 0.044715 x^3).
struct GeluTanh {
    static __device__ __forceinline__ Gate gate(float x) {
        const float scale = 1.59576912f, cubic = 0.044715f;
        return logistic(scale * (x + cubic * x * x * x), scale * (1.0f + 3.0f * cubic * x * x));
    }
};

// The normal distribution function and its density; the polynomial is that of ops/cpu/activation.c.
struct GeluErf {
    static __device__ __forceinline__ Gate gate(float x) {
        float t = ptx_reciprocal(1.0f + 0.3f * fabsf(x));
        float sum = -0.020623637f;
        sum = sum * t + 0.11243651f;
        sum = sum * t - 0.22821568f;
        sum = sum * t + 0.19178726f;
        sum = sum * t - 0.0794257f;
        sum = sum * t + 0.09615798f;
        sum = sum * t + 0.078389265f;
        sum = sum * t + 0.1102355f;
        sum = sum * t + 0.119571805f;
        sum = sum * t + 0.11968669f;
        float bell = fast_exp(-0.5f * x * x), tail = bell * t * sum;
        return {x < 0.0f ? tail : 1.0f - tail, 0.39894228f * bell};
    }
};

#endif

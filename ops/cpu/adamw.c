#include <math.h>

#include "ops/adamw.h"
#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

VL_VECTORISED static void join(float *master, const VlBf16 *weight, const int16_t *remainder, int64_t count) {
    for (int64_t i = 0; i < count; i++) master[i] = vl_f32_from_halves(weight[i], remainder[i]);
}

VL_VECTORISED static void split(VlBf16 *weight, int16_t *remainder, const float *master, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        VlHalves halves = vl_halves_from_f32(master[i]);
        weight[i] = halves.upper;
        remainder[i] = halves.remainder;
    }
}

VL_VECTORISED static void update(float *master, float *moment1, float *moment2, const float *gradient, VlAdamWStep step,
                                 int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        float g = gradient[i] * step.gradient_scale;
        float m = moment1[i] + step.moment1_rate * (g - moment1[i]);
        float v = moment2[i] * step.beta2 + step.moment2_rate * g * g;
        float denominator = sqrtf(v) / step.correction2_root + step.eps;
        moment1[i] = m;
        moment2[i] = v;
        master[i] = master[i] * step.decay - step.size * m / denominator;
    }
}

VlStatus vl_cpu_adamw(VlContext *context, VlTensor weight, VlTensor remainder, VlTensor moment1, VlTensor moment2,
                      VlTensor gradient, VlAdamW settings) {
    VlAdamWStep step = vl_adamw_step(settings);
    int64_t elements = vl_elements(weight);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, elements))
    for (int64_t start = 0; start < elements; start += VL_BLOCK) {
        float buffer[VL_BLOCK], *m = (float *)moment1.data + start, *v = (float *)moment2.data + start;
        const float *g = (const float *)gradient.data + start;
        int64_t count = vl_minimum(VL_BLOCK, elements - start);
        if (weight.dtype == VL_F32) {
            update((float *)weight.data + start, m, v, g, step, count);
        } else {
            VlBf16 *upper = (VlBf16 *)weight.data + start;
            int16_t *lower = (int16_t *)remainder.data + start;
            join(buffer, upper, lower, count);
            update(buffer, m, v, g, step, count);
            split(upper, lower, buffer, count);
        }
    }
    return VL_OK;
}

#include <math.h>

#include "ops/cpu/blocks.h"
#include "ops/cpu/cpu.h"
#include "ops/cpu/vector_math.h"

// The scalars of a step, computed in f64 and rounded once.
typedef struct Step {
    float gradient_scale, decay, moment1_rate, beta2, moment2_rate, correction2_root, eps, size;
} Step;

static Step step_make(VlAdamW settings) {
    double correction1 = 1.0 - pow(settings.beta1, (double)settings.step);
    double correction2 = 1.0 - pow(settings.beta2, (double)settings.step);
    return (Step){
        .gradient_scale = (float)settings.gradient_scale,
        .decay = (float)(1.0 - settings.learning_rate * settings.weight_decay),
        .moment1_rate = (float)(1.0 - settings.beta1),
        .beta2 = (float)settings.beta2,
        .moment2_rate = (float)(1.0 - settings.beta2),
        .correction2_root = (float)sqrt(correction2),
        .eps = (float)settings.eps,
        .size = (float)(settings.learning_rate / correction1),
    };
}

VL_VECTORISED static void update(float *master, float *moment1, float *moment2, const float *gradient, Step step,
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

VlStatus vl_cpu_adamw(VlContext *context, VlTensor weight, VlTensor master, VlTensor moment1, VlTensor moment2,
                      VlTensor gradient, VlAdamW settings) {
    Step step = step_make(settings);
    int64_t elements = vl_elements(master);
#pragma omp parallel for schedule(static) num_threads(vl_threads_for(context, elements))
    for (int64_t start = 0; start < elements; start += VL_BLOCK) {
        int64_t count = vl_minimum(VL_BLOCK, elements - start);
        float *to = (float *)master.data + start;
        update(to, (float *)moment1.data + start, (float *)moment2.data + start, (const float *)gradient.data + start,
               step, count);
        vl_block_write(weight, start, count, VL_WRITE, to);
    }
    return VL_OK;
}

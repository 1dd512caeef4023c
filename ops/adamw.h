// The scalars of an AdamW step, computed in f64 and rounded once: the same on every backend.
#ifndef VL_OPS_ADAMW_H
#define VL_OPS_ADAMW_H

#include <math.h>

#include "ops/ops.h"

typedef struct VlAdamWStep {
    float gradient_scale, decay, moment1_rate, beta2, moment2_rate, correction2_root, eps, size;
} VlAdamWStep;

static inline VlAdamWStep vl_adamw_step(VlAdamW settings) {
    double correction1 = 1.0 - pow(settings.beta1, (double)settings.step);
    double correction2 = 1.0 - pow(settings.beta2, (double)settings.step);
    VlAdamWStep step = {
        .gradient_scale = (float)settings.gradient_scale,
        .decay = (float)(1.0 - settings.learning_rate * settings.weight_decay),
        .moment1_rate = (float)(1.0 - settings.beta1),
        .beta2 = (float)settings.beta2,
        .moment2_rate = (float)(1.0 - settings.beta2),
        .correction2_root = (float)sqrt(correction2),
        .eps = (float)settings.eps,
        .size = (float)(settings.learning_rate / correction1),
    };
    return step;
}

#endif

// AdamW over the flat range of trainable parameters, and the global gradient norm.
#ifndef VL_OPTIM_OPTIMIZER_H
#define VL_OPTIM_OPTIMIZER_H

#include "model/params.h"

typedef struct VlOptimizerSettings {
    double beta1, beta2, eps, weight_decay;
    double clip_norm;  // 0: not clipped
} VlOptimizerSettings;

typedef struct VlOptimizer {
    VlContext *context;
    VlParams *params;
    VlOptimizerSettings settings;
    int64_t steps;              // updates made so far
    VlTensor moment1, moment2;  // [trainable_elements] f32, device
    VlTensor norm_square;       // [1] f64, device
    int64_t bytes;              // device memory taken (known on a planning context too)
    void *memory;
} VlOptimizer;

// Takes memory for the moments, zeroed. `params` is bound and outlives the optimizer.
VlStatus vl_optimizer_create(VlOptimizer *optimizer, VlContext *context, VlParams *params,
                             VlOptimizerSettings settings);
void vl_optimizer_free(VlOptimizer *optimizer);
// The L2 norm of the whole gradient. With gradients already summed over the ranks it is the same on each.
VlStatus vl_optimizer_gradient_norm(VlOptimizer *optimizer, double *norm);
// One update at rate `learning_rate`, gradients scaled by min(1, clip_norm / (norm + 1e-6)) as
// torch.nn.utils.clip_grad_norm_.
VlStatus vl_optimizer_step(VlOptimizer *optimizer, double learning_rate, double norm);
// Gradients = 0, for the next step.
VlStatus vl_optimizer_clear_gradients(VlOptimizer *optimizer);

#endif

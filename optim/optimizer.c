#include "optim/optimizer.h"

#include <math.h>

VlStatus vl_optimizer_create(VlOptimizer *optimizer, VlContext *context, VlParams *params,
                             VlOptimizerSettings settings) {
    *optimizer = (VlOptimizer){.context = context, .params = params, .settings = settings};
    int64_t elements = params->trainable_elements, moment = elements * 4;
    optimizer->bytes = 2 * moment + 64;
    VL_TRY(vl_device_allocate(context, optimizer->bytes, &optimizer->memory));
    char *base = optimizer->memory;
    optimizer->norm_square = vl_tensor(base, VL_F64, 1);
    optimizer->moment1 = vl_tensor(base ? base + 64 : NULL, VL_F32, elements);
    optimizer->moment2 = vl_tensor(base ? base + 64 + moment : NULL, VL_F32, elements);
    return VL_OK;
}

void vl_optimizer_free(VlOptimizer *optimizer) {
    if (optimizer->context) vl_device_free(optimizer->context, optimizer->memory);
    *optimizer = (VlOptimizer){0};
}

VlStatus vl_optimizer_gradient_norm(VlOptimizer *optimizer, double *norm) {
    double square = 0;
    VL_TRY(vl_square_sum(optimizer->context, optimizer->norm_square, optimizer->params->flat_gradient));
    VL_TRY(vl_copy_to_host(optimizer->context, &square, optimizer->norm_square));
    *norm = sqrt(square);
    return VL_OK;
}

VlStatus vl_optimizer_step(VlOptimizer *optimizer, double learning_rate, double norm) {
    const VlOptimizerSettings *settings = &optimizer->settings;
    const VlParams *params = optimizer->params;
    double scale = settings->clip_norm > 0 ? settings->clip_norm / (norm + 1e-6) : 1.0;
    VlAdamW adamw = {.learning_rate = learning_rate,
                     .beta1 = settings->beta1,
                     .beta2 = settings->beta2,
                     .eps = settings->eps,
                     .step = ++optimizer->steps,
                     .gradient_scale = scale < 1.0 ? scale : 1.0};
    // One call per run of neighbouring rows with the same decay: a whole model without decay is one call.
    for (int64_t i = 0; i < params->count;) {
        if (!params->rows[i]->trainable) {
            i++;
            continue;
        }
        bool decay = params->rows[i]->decay;
        int64_t begin = params->rows[i]->offset, end = params->trainable_elements;
        for (i++; i < params->count; i++) {
            const VlParam *row = params->rows[i];
            if (row->trainable && settings->weight_decay != 0 && row->decay != decay) {
                end = row->offset;
                break;
            }
        }
        adamw.weight_decay = decay ? settings->weight_decay : 0;
        VlTensor remainder =
            vl_is_empty(params->flat_remainder) ? VL_EMPTY : vl_rows(params->flat_remainder, begin, end - begin);
        VL_TRY(vl_adamw(optimizer->context, vl_rows(params->flat_value, begin, end - begin), remainder,
                        vl_rows(optimizer->moment1, begin, end - begin),
                        vl_rows(optimizer->moment2, begin, end - begin),
                        vl_rows(params->flat_gradient, begin, end - begin), adamw));
    }
    return VL_OK;
}

VlStatus vl_optimizer_clear_gradients(VlOptimizer *optimizer) {
    return vl_zero(optimizer->context, optimizer->params->flat_gradient);
}

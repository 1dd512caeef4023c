// The operations: vl_NAME_forward and vl_NAME_backward, or vl_NAME for rows without a gradient. What each computes
// stands in ops_list.h. A call checks shapes and types (ops/check_*.c), counts FLOPs, and hands over to the context's
// backend. Not collective. Errors: VL_INVALID with the tensors' shapes; what the backend reports.
#ifndef VL_OPS_OPS_H
#define VL_OPS_OPS_H

#include "ops/context.h"

typedef enum VlMode { VL_WRITE, VL_ADD } VlMode;

typedef enum VlActivation {
    VL_SILU,       // x * sigmoid(x)
    VL_GELU_ERF,   // x * Phi(x)
    VL_GELU_TANH,  // the tanh approximation
    VL_QUICK_GELU  // x * sigmoid(1.702 x)
} VlActivation;

typedef struct VlAdamW {
    double learning_rate, beta1, beta2, eps, weight_decay;
    int64_t step;           // from 1, for the bias corrections 1 - beta^step
    double gradient_scale;  // 1, or less when the gradient is clipped
} VlAdamW;

// The table of a backend.
typedef struct VlOps {
#define OP(name, forward, forward_names, backward, backward_names) \
    VlStatus(*name##_forward) forward;                             \
    VlStatus(*name##_backward) backward;
#define OP_NO_GRADIENT(name, parameters, names, reason) VlStatus(*name) parameters;
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT
} VlOps;

// Public functions.
#define OP(name, forward, forward_names, backward, backward_names) \
    VlStatus vl_##name##_forward forward;                          \
    VlStatus vl_##name##_backward backward;
#define OP_NO_GRADIENT(name, parameters, names, reason) VlStatus vl_##name parameters;
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT

#endif

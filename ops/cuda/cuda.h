// The operations of the CUDA backend, one file per row or pair as in ops/cpu: vl_cuda_NAME_forward and
// vl_cuda_NAME_backward, or vl_cuda_NAME. Arguments are checked (ops/check_*.c) before they are called. They queue
// their kernels on the context's stream and return; results do not depend on the launch's timing: no float atomics.
#ifndef VL_OPS_CUDA_CUDA_H
#define VL_OPS_CUDA_CUDA_H

#include "ops/ops.h"

#define OP(name, forward, forward_names, backward, backward_names) \
    VlStatus vl_cuda_##name##_forward forward;                     \
    VlStatus vl_cuda_##name##_backward backward;
#define OP_NO_GRADIENT(name, parameters, names, reason) VlStatus vl_cuda_##name parameters;
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT

#endif

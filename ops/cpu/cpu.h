// The operations of the CPU backend, one file per row or pair: vl_cpu_NAME_forward and vl_cpu_NAME_backward, or
// vl_cpu_NAME. Arguments are checked (ops/check_*.c) before they are called. Loops run on context->threads OpenMP
// threads, by num_threads(...) at every parallel region; the result does not depend on that number.
#ifndef VL_OPS_CPU_CPU_H
#define VL_OPS_CPU_CPU_H

#include "ops/ops.h"

#define OP(name, forward, forward_names, backward, backward_names) \
    VlStatus vl_cpu_##name##_forward forward;                      \
    VlStatus vl_cpu_##name##_backward backward;
#define OP_NO_GRADIENT(name, parameters, names, reason) VlStatus vl_cpu_##name parameters;
#include "ops/ops_list.h"
#undef OP
#undef OP_NO_GRADIENT

#endif

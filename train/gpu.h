// The GPUs that plans and rates are told for, by their makers' data sheets.
#ifndef VL_TRAIN_GPU_H
#define VL_TRAIN_GPU_H

#include "ops/context.h"

typedef struct VlGpu {
    const char *name;       // "h200"; in capitals part of what its driver calls it
    int64_t memory;         // bytes that a program can have
    double bf16, f32;       // FLOP/s of dense products, bf16 with f32 sums, and f32 without TF32
    double bandwidth;       // bytes per second of its memory
    int64_t driver_memory;  // bytes that driver, kernels and cuBLAS keep for themselves
} VlGpu;

// What of the limits real kernels reach, roughly: the largest matrix products under the power limit, attention without
// instructions of one architecture alone, and memory-bound kernels.
typedef struct VlGpuShares {
    double gemm, attention, bandwidth;
} VlGpuShares;
extern const VlGpuShares vl_gpu_limits;    // all 1
extern const VlGpuShares vl_gpu_expected;  // 0.70, 0.40, 0.85

// The GPU of a name such as "h200". Errors: VL_USAGE naming the nearest.
VlStatus vl_gpu_parse(const VlGpu **gpu, const char *name);
// By what its driver calls it ("NVIDIA H200"); NULL when the table lacks it.
const VlGpu *vl_gpu_of_model(const char *model);
// Its rates for weights and activations of `dtype`.
VlRoofline vl_gpu_roofline(const VlGpu *gpu, VlDtype dtype, VlGpuShares shares);

#endif

// The machine's own limits, against which all other figures are held.
#ifndef VL_TRAIN_BENCH_MACHINE_H
#define VL_TRAIN_BENCH_MACHINE_H

#include "ops/ops.h"

// FLOP/s of a square matrix product of `size` through the linear operation: the best of the repetitions that fit
// `seconds`. The scratch arena is bound to what it needs where it is smaller; nothing may lie in it then.
VlStatus vl_measure_gemm_peak(VlContext *context, VlDtype dtype, int64_t size, double seconds,
                              double *flops_per_second);
// Bytes per second of a copy (2 streams) and of a triad a = b + s * c (3 streams) on the host, all threads of the
// context, arrays far larger than the caches; on a GPU the same of its own memory.
VlStatus vl_measure_bandwidth(VlContext *context, double seconds, double *copy, double *triad);

// What the MFU of a run in `dtype` is held against: a known GPU's bf16 peak by its maker, else what is measured.
VlStatus vl_peak_flops(VlContext *context, VlDtype dtype, double *flops_per_second);

#endif

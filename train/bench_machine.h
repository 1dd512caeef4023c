// The machine's own limits, against which all other figures are held.
#ifndef VL_TRAIN_BENCH_MACHINE_H
#define VL_TRAIN_BENCH_MACHINE_H

#include "ops/ops.h"

// FLOP/s of a square matrix product of `size` through the linear operation: the best of the repetitions that fit
// `seconds`.
VlStatus vl_measure_gemm_peak(VlContext *context, VlDtype dtype, int64_t size, double seconds,
                              double *flops_per_second);
// Bytes per second of a copy (2 streams) and of a triad a = b + s * c (3 streams) on the host, all threads of the
// context, arrays far larger than the caches.
VlStatus vl_measure_bandwidth(VlContext *context, double seconds, double *copy, double *triad);

#endif

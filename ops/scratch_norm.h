// Temporaries, as in ops/scratch.h, of the rows that normalise, and of square_sum.
#ifndef VL_OPS_SCRATCH_NORM_H
#define VL_OPS_SCRATCH_NORM_H

#include "ops/context.h"

// Gradients of `sums` vectors that all rows share: f32 [sums, groups, columns], what groups of rows sum; empty on the
// CPU. vl_scratch_column_sums of as many sums goes on top of it.
VlStatus vl_scratch_norm(VlContext *context, VlTensor *parts, int64_t rows, int64_t columns, int64_t sums);

// f64 [blocks], what blocks of elements sum; empty on the CPU.
VlStatus vl_scratch_square_sum(VlContext *context, VlTensor *parts, int64_t elements);

#endif

// Temporaries, as in ops/scratch.h, of the rows over images.
#ifndef VL_OPS_SCRATCH_SPATIAL_H
#define VL_OPS_SCRATCH_SPATIAL_H

#include "ops/context.h"

// depthwise3x3_backward's dw of x[N,H,W,C]: sums over some of the rows of all images each, f32 [sums, 9, C]. On the CPU
// nothing.
VlStatus vl_scratch_depthwise3x3(VlContext *context, VlTensor *parts, VlTensor x);

#endif

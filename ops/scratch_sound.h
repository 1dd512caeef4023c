// Temporaries, as in ops/scratch.h, of the rows of the audio tower.
#ifndef VL_OPS_SCRATCH_SOUND_H
#define VL_OPS_SCRATCH_SOUND_H

#include "ops/context.h"

// convolution1d of w[C,K,I] over `rows` rows: the windows of a block of rows (w's type, [block, K*I]), and with
// `backward` the weights turned round, of w's size.
VlStatus vl_scratch_convolution1d(VlContext *context, VlTensor *windows, VlTensor *turned, VlTensor w, int64_t rows,
                                  bool backward);

// relative_gate_backward of dgate[T,H]: three numbers for each of its elements (f32 [T*H,3]).
VlStatus vl_scratch_relative_gate(VlContext *context, VlTensor *slopes, VlTensor dgate);

#endif

// Temporaries, as in ops/scratch.h, of the rows of the audio tower.
#ifndef VL_OPS_SCRATCH_SOUND_H
#define VL_OPS_SCRATCH_SOUND_H

#include "ops/context.h"

// convolution1d of w[C,K,I] over `rows` rows: the windows of a block of rows (w's type, [block, K*I]), and with
// `backward` the weights turned round, of w's size. On CUDA that of the products comes after it.
VlStatus vl_scratch_convolution1d(VlContext *context, VlTensor *windows, VlTensor *turned, VlTensor w, int64_t rows,
                                  bool backward);

// weight_norm of v[O,I,K]; on the CPU nothing.
typedef struct VlWeightNorm {
    VlTensor parts;   // f64 [parts, 2, K]: two sums for each tap, over some of the outputs each
    VlTensor totals;  // f64 [2, K]
} VlWeightNorm;
VlStatus vl_scratch_weight_norm(VlContext *context, VlWeightNorm *scratch, VlTensor v);

// relative_gate_backward of dgate[T,H] and w[2N,D].
typedef struct VlRelativeGate {
    VlTensor slopes;  // f32 [T*H, 3]: three numbers for each element of dgate
    VlTensor parts;   // f64 [parts, 2, D+1], on CUDA only: sums over some of these rows each
} VlRelativeGate;
VlStatus vl_scratch_relative_gate(VlContext *context, VlRelativeGate *scratch, VlTensor dgate, VlTensor w);

#endif

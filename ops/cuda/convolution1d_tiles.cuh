// Grouped convolution over time on tensor cores, for bf16 and groups of 16, 32, 48 or 64 channels: no windows are
// gathered, rows of x in shared memory serve all taps.
#ifndef VL_OPS_CUDA_CONVOLUTION1D_TILES_CUH
#define VL_OPS_CUDA_CONVOLUTION1D_TILES_CUH

#include "ops/cuda/device.cuh"

// Whether it serves w and these activations, or w's gradient.
bool vl_cuda_convolution1d_fits(VlTensor w, VlTensor a, VlTensor b);

// y (+)= b + the sum over the taps of w times x[t + tap - reach], as convolution1d says; b may be empty.
VlStatus vl_cuda_convolution1d_tiles(VlContext *context, VlTensor y, VlTensor x, VlTensor w, VlTensor b,
                                     VlTensor cu_seqlens, int64_t reach, VlMode mode);

// dw += the sum over t of dy[t] times x[t + tap - reach].
VlStatus vl_cuda_convolution1d_tiles_weights(VlContext *context, VlTensor dw, VlTensor dy, VlTensor x,
                                             VlTensor cu_seqlens, int64_t reach);

#endif

// Sums and maxima over a warp and over a block, in a fixed order. Every thread of the warp, or of the block, calls them
// and gets the result. A block is a whole number of warps.
#ifndef VL_OPS_CUDA_REDUCE_CUH
#define VL_OPS_CUDA_REDUCE_CUH

#include "ops/cuda/device.cuh"

enum { WARP = 32, MOST_WARPS = 32 };

template <class T> static __device__ __forceinline__ T warp_sum(T value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

static __device__ __forceinline__ float warp_maximum(float value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
}

// Ends with a barrier: the next call may follow at once.
template <class T> static __device__ T block_sum(T value) {
    VL_SHARED(T, parts, MOST_WARPS);
    int warps = (int)(blockDim.x + WARP - 1) / WARP, lane = (int)threadIdx.x % WARP;
    value = warp_sum(value);
    if (lane == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    value = warp_sum(lane < warps ? parts[lane] : T(0));
    __syncthreads();
    return value;
}

static __device__ float block_maximum(float value) {
    VL_SHARED(float, parts, MOST_WARPS);
    int warps = (int)(blockDim.x + WARP - 1) / WARP, lane = (int)threadIdx.x % WARP;
    value = warp_maximum(value);
    if (lane == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    value = warp_maximum(lane < warps ? parts[lane] : -INFINITY);
    __syncthreads();
    return value;
}

#endif

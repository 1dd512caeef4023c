// The instructions of ops/cuda/ptx.cuh for the host: each does what the PTX manual says of it.
//   ptx_bf16_from_f32, ptx_pack_bf16, ptx_exp2, ptx_reciprocal
//   ptx_copy_async, ptx_copy_commit, ptx_copy_wait
//   ptx_ldmatrix_x4, ptx_ldmatrix_x4_transposed, ptx_mma_bf16
// One of a whole warp hands in pointers to its operands through execute_warp; the last lane computes for all, in
// ptx_host.cc.
#ifndef VL_TESTS_CUDA_HOST_PTX_HOST_H
#define VL_TESTS_CUDA_HOST_PTX_HOST_H

#include <float.h>

#include "cuda_runtime.h"

// ---- Numbers ---------------------------------------------------------------

static inline uint16_t ptx_bf16_from_f32(float value) {
    uint32_t bits = __float_as_uint(value);
    if (value != value) return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint32_t ptx_pack_bf16(float low, float high) {
    return ptx_bf16_from_f32(low) | (uint32_t)ptx_bf16_from_f32(high) << 16;
}

// .ftz: subnormal numbers are 0.
static inline float host_flushed(float value) { return fabsf(value) < FLT_MIN ? copysignf(0.0f, value) : value; }

static inline float ptx_exp2(float value) { return host_flushed(exp2f(host_flushed(value))); }

static inline float ptx_reciprocal(float value) { return host_flushed(1.0f / host_flushed(value)); }

// ---- cp.async --------------------------------------------------------------

template <int BYTES>
static inline void ptx_copy_async(void *to, const void *from, bool read) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16);
    execute_copy(to, read ? from : NULL, BYTES);
}
static inline void ptx_copy_commit() {
    execute_copy_commit();
    __syncwarp();
}
template <int GROUPS>
static inline void ptx_copy_wait() {
    execute_copy_wait(GROUPS);
}

// ---- ldmatrix, mma.sync ----------------------------------------------------

struct HostLdmatrix {
    uint32_t *to;
    const void *row;
};
struct HostMma {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
};
ExecuteCompute host_ldmatrix_x4, host_ldmatrix_x4_transposed, host_mma_bf16;

static inline void ptx_ldmatrix_x4(uint32_t (&to)[4], const void *row, ExecuteWhere where = ExecuteWhere::current()) {
    HostLdmatrix lane = {to, row};
    execute_warp("ldmatrix", 0xffffffffu, host_ldmatrix_x4, &lane, where);
}

static inline void ptx_ldmatrix_x4_transposed(uint32_t (&to)[4], const void *row,
                                              ExecuteWhere where = ExecuteWhere::current()) {
    HostLdmatrix lane = {to, row};
    execute_warp("ldmatrix.trans", 0xffffffffu, host_ldmatrix_x4_transposed, &lane, where);
}

static inline void ptx_mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                ExecuteWhere where = ExecuteWhere::current()) {
    HostMma lane = {c, a, {b0, b1}};
    execute_warp("mma.sync", 0xffffffffu, host_mma_bf16, &lane, where);
}

#endif

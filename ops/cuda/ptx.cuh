// Instructions that C++ lacks, one named wrapper each. For the host, tests/cuda_host/ptx_host.h defines the same names
// by what the PTX manual says of the instruction.
#ifndef VL_OPS_CUDA_PTX_CUH
#define VL_OPS_CUDA_PTX_CUH

#include <stdint.h>

#ifdef __CUDACC__

// cvt.rn: to bf16, round to nearest even.
static __device__ __forceinline__ uint16_t ptx_bf16_from_f32(float value) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// ex2.approx.ftz: 2^value; 0 for -INFINITY.
static __device__ __forceinline__ float ptx_exp2(float value) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(value));
    return power;
}

// rcp.approx.ftz: 1 / value within a unit in the last place; 0 for infinity.
static __device__ __forceinline__ float ptx_reciprocal(float value) {
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(value));
    return reciprocal;
}

// cvt.rn.bf16x2: two bf16 in a word, `low` in the lower half.
static __device__ __forceinline__ uint32_t ptx_pack_bf16(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// mma.m16n8k16, bf16 with f32 sums: c += a b. Fragments as in the PTX manual.
static __device__ __forceinline__ void ptx_mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ldmatrix.x4: four matrices of 8 rows of 16 bytes; lane i gives the address of row i % 8 of matrix i / 8.
static __device__ __forceinline__ void ptx_ldmatrix_x4(uint32_t (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}
// The matrices transposed.
static __device__ __forceinline__ void ptx_ldmatrix_x4_transposed(uint32_t (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

// cp.async: BYTES (4, 8 or 16) to shared memory, or zeros where `from` is not `read`. They have arrived for the thread
// after ptx_copy_wait, for others after a barrier too.
template <int BYTES> static __device__ __forceinline__ void ptx_copy_async(void *to, const void *from, bool read) {
    uint32_t shared = (uint32_t)__cvta_generic_to_shared(to);
    int bytes = read ? BYTES : 0;
    if constexpr (BYTES == 16) {  // past L1
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(BYTES), "r"(bytes)
                     : "memory");
    }
}
// The lanes, of which some may have had less to copy, are together again after it, as ldmatrix wants them.
static __device__ __forceinline__ void ptx_copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
    __syncwarp();
}
// Until at most GROUPS of the committed groups are under way.
template <int GROUPS> static __device__ __forceinline__ void ptx_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

#else
#include <ptx_host.h>
#endif

#endif

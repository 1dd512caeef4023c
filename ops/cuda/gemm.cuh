// Matrix products through cuBLASLt; gemm.cu is the only file that knows it.
#ifndef VL_OPS_CUDA_GEMM_CUH
#define VL_OPS_CUDA_GEMM_CUH

#include "ops/cuda/device.cuh"

// c[m,n] = (c +) a[m,k] b[k,n] (+ bias[n] to every row), row-major. Leading dimensions are the elements from one stored
// row to the next.
typedef struct VlCudaGemm {
    int64_t m, n, k;
    const void *a, *b, *bias;  // of type `input`; bias may be NULL
    int64_t a_leading, b_leading, c_leading;
    bool a_transposed, b_transposed;  // stored as [k,m], as [n,k]
    bool add;                         // to what c holds
    void *c;                          // of type `output`
    VlDtype input, output;            // f32 and f32, bf16 and bf16, bf16 and f32; sums are f32, never TF32
} VlCudaGemm;

// Queues it. The algorithm for a shape is chosen once and kept; its workspace is the context's scratch
// (vl_scratch_gemm, ops/scratch.h). Extents of 0 are allowed.
VlStatus vl_cuda_gemm(VlContext *context, const VlCudaGemm &gemm);

#endif

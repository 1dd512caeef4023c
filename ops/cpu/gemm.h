// Matrix products through oneDNN; gemm.c is the only file that knows it.
#ifndef VL_OPS_CPU_GEMM_H
#define VL_OPS_CPU_GEMM_H

#include "ops/context.h"

// c[m,n] = (c +) a[m,k] b[k,n] (+ bias[n] to every row). Leading dimensions are the elements from one stored row to the
// next.
typedef struct VlGemm {
    int64_t m, n, k;
    const void *a, *b, *bias;  // of type `input`; bias may be NULL
    int64_t a_leading, b_leading, c_leading;
    bool a_transposed, b_transposed;  // stored as [k,m], as [n,k]
    bool add;                         // to what c holds
    void *c;                          // of type `output`
    VlDtype input, output;            // f32 and f32, bf16 and bf16, bf16 and f32; sums are f32
} VlGemm;

// Computes it on context->threads threads, in tiles that follow from the shape alone: the bits do not depend on the
// threads. Errors: VL_UNSUPPORTED when this processor or oneDNN cannot multiply the types, VL_OUT_OF_MEMORY.
VlStatus vl_gemm(VlContext *context, VlGemm gemm);

#endif

// cuBLASLt, found when it is needed: a program built with CUDA starts on a machine that has none of its libraries.
#ifndef VL_OPS_CUDA_LIBRARIES_CUH
#define VL_OPS_CUDA_LIBRARIES_CUH

#include "ops/cuda/device.cuh"

#include <cublasLt.h>

#define VL_CUBLAS_FUNCTIONS(FUNCTION)              \
    FUNCTION(cublasLtCreate)                       \
    FUNCTION(cublasLtDestroy)                      \
    FUNCTION(cublasLtGetStatusString)              \
    FUNCTION(cublasLtMatmulDescCreate)             \
    FUNCTION(cublasLtMatmulDescDestroy)            \
    FUNCTION(cublasLtMatmulDescSetAttribute)       \
    FUNCTION(cublasLtMatrixLayoutCreate)           \
    FUNCTION(cublasLtMatrixLayoutDestroy)          \
    FUNCTION(cublasLtMatmulPreferenceCreate)       \
    FUNCTION(cublasLtMatmulPreferenceDestroy)      \
    FUNCTION(cublasLtMatmulPreferenceSetAttribute) \
    FUNCTION(cublasLtMatmulAlgoGetHeuristic)       \
    FUNCTION(cublasLtMatmul)

// The functions of cuBLASLt that gemm.cu calls, under their own names.
typedef struct VlCublas {
#define FUNCTION(name) decltype(&::name) name;
    VL_CUBLAS_FUNCTIONS(FUNCTION)
#undef FUNCTION
} VlCublas;

// Loads the library of the major version that this program was built for. It stays loaded.
VlStatus vl_cuda_load_cublas(VlCublas *cublas);

#endif

// What the files of the CUDA backend share: the device's state, errors, and the launch of a kernel.
//
// The sources are CUDA C++ for nvcc and, with the headers of tests/cuda_host in place of CUDA's, C++ for the host,
// where the tests execute every kernel without a GPU. So they keep to what both know: kernels are launched by launch()
// below, shared memory is declared by VL_SHARED and VL_DYNAMIC_SHARED, and instructions that C++ lacks stand in
// ptx.cuh.
#ifndef VL_OPS_CUDA_DEVICE_CUH
#define VL_OPS_CUDA_DEVICE_CUH

#include <cuda_runtime.h>

#define _Noreturn [[noreturn]]
extern "C" {
#include "base/memory.h"
#include "ops/backend.h"
#include "ops/cuda/cuda.h"
#include "ops/scratch.h"
#include "ops/scratch_rows.h"
#include "ops/scratch_sound.h"
}
#undef _Noreturn

// ---- Shared memory ---------------------------------------------------------

#ifdef __CUDACC__
// VL_SHARED(float, tile, 32 * 33): an array of the block, aligned to 16 bytes. Its content is undefined until it is
// written.
#define VL_SHARED(type, name, count) __shared__ __align__(16) type name[count]
// VL_DYNAMIC_SHARED(float, tiles): the block's memory of the size that launch() was given, aligned to 16 bytes.
#define VL_DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char vl_dynamic_shared[]; \
    type *name = (type *)vl_dynamic_shared
#endif

// Bytes that a block may have, of either kind: those of compute capability 8.0.
enum { MOST_SHARED = 163 << 10 };

// ---- State -----------------------------------------------------------------

// What a kernel found wrong in a tensor of indices; the first one wins. In device memory.
typedef struct VlCudaFault {
    int32_t taken;  // 0: none
    int32_t padding;
    int64_t position, value, bound;
} VlCudaFault;

// context->state of the CUDA backend. As the context itself, one thread uses it: operations and copies are queued on
// one stream, in the order of the calls. Other threads may use the device with streams of their own, and order them
// with this one by events.
typedef struct VlCudaState {
    int32_t device;
    int32_t processors;   // streaming multiprocessors
    cudaStream_t stream;  // operations and copies, one after the other
    VlCudaFault *fault;
    bool waits;                     // after every operation (VL2_GUARD=1)
    struct VlCudaIndices *indices;  // what the host knows of index tensors: indices.cuh
    struct VlCudaStaging *staging;  // pinned host memory for copies to the device: staging.cuh
    struct VlCudaBlas *blas;        // cuBLASLt: gemm.cu
} VlCudaState;

static inline VlCudaState *vl_cuda_state(const VlContext *context) { return (VlCudaState *)context->state; }

// VL_OK, or an error that says what was tried and CUDA's words for why not.
VlStatus vl_cuda_error(cudaError_t code, const char *what);
// Waits for the stream; errors of kernels, and indices out of range, come to light here.
VlStatus vl_cuda_wait(VlContext *context);

// cuBLASLt's handle and the plans found so far (gemm.cu).
VlStatus vl_cuda_blas_open(struct VlCudaBlas **blas);
void vl_cuda_blas_close(struct VlCudaBlas *blas);

// ---- Launch ----------------------------------------------------------------

// Queues the kernel; `shared` bytes of dynamic shared memory. A grid without blocks is no launch.
template <class... Parameters, class... Arguments>
static VlStatus launch(VlContext *context, void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared,
                       Arguments... arguments) {
    enum { PLAIN_SHARED = 48 << 10 };  // more must be asked for
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return VL_OK;
    if (shared > PLAIN_SHARED) {
        VL_TRY(vl_cuda_error(
            cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
            "a kernel's shared memory"));
    }
    cudaLaunchConfig_t configuration = {};
    configuration.gridDim = grid;
    configuration.blockDim = block;
    configuration.dynamicSmemBytes = (size_t)shared;
    configuration.stream = vl_cuda_state(context)->stream;
    VL_TRY(vl_cuda_error(cudaLaunchKernelEx(&configuration, kernel, (Parameters)arguments...), "a kernel's launch"));
    return vl_cuda_state(context)->waits ? vl_cuda_wait(context) : VL_OK;
}

// Blocks of `threads` for `count` items, at most `most` of them: for kernels that stride over the grid.
static inline dim3 blocks_for(int64_t count, int64_t threads, int64_t most = 1 << 16) {
    int64_t blocks = (count + threads - 1) / threads;
    return dim3((unsigned)(blocks < most ? blocks : most));
}

// vl_arena_push for C++: its macro is C's.
template <class... Extents>
static VlStatus push(VlArena *arena, VlTensor *tensor, VlDtype dtype, Extents... extents) {
    const int64_t dim[] = {(int64_t)extents...};
    return vl_arena_push_make(arena, tensor, dtype, (int32_t)sizeof...(extents), dim);
}

// ---- In kernels ------------------------------------------------------------

// The index of this thread in the grid, and how many there are, for loops that stride.
static __device__ __forceinline__ int64_t grid_index() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }
static __device__ __forceinline__ int64_t grid_stride() { return (int64_t)gridDim.x * blockDim.x; }

// Whether value is in [0, bound); otherwise it is noted and the kernel goes on without it.
static __device__ __forceinline__ bool index_fits(VlCudaFault *fault, int64_t position, int64_t value, int64_t bound) {
    if (value >= 0 && value < bound) return true;
    if (atomicCAS(&fault->taken, 0, 1) == 0) {
        fault->position = position;
        fault->value = value;
        fault->bound = bound;
    }
    return false;
}

#endif

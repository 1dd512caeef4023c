// Copies from host memory that the host need not wait for: through pinned memory of our own, from which the device
// fetches them when the stream gets there.
#ifndef VL_OPS_CUDA_STAGING_CUH
#define VL_OPS_CUDA_STAGING_CUH

#include "ops/cuda/device.cuh"

// Makes *staging without any memory; it grows as copies are under way, up to 256 MiB. vl_cuda_staging_free waits for
// none of them: the stream must be idle.
VlStatus vl_cuda_staging_create(struct VlCudaStaging **staging);
void vl_cuda_staging_free(struct VlCudaStaging *staging);

// Queues the copy of `bytes` bytes to device memory; `from` may be changed when it returns. The host waits only while
// all of the staging memory is under way.
VlStatus vl_cuda_staging_copy(struct VlCudaStaging *staging, cudaStream_t stream, void *to, const void *from,
                              int64_t bytes);

#endif

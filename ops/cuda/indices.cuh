// What the host knows of index tensors in device memory (vl_indices): the last few that it copied there.
#ifndef VL_OPS_CUDA_INDICES_CUH
#define VL_OPS_CUDA_INDICES_CUH

#include "ops/cuda/device.cuh"

VlStatus vl_cuda_indices_create(struct VlCudaIndices **indices);
void vl_cuda_indices_free(struct VlCudaIndices *indices);

// `bytes` bytes of device memory from `begin` on are written.
void vl_cuda_indices_forget(struct VlCudaIndices *indices, const void *begin, int64_t bytes);
// The i64 tensor holds these values; what was known of its memory is forgotten.
VlStatus vl_cuda_indices_keep(struct VlCudaIndices *indices, VlTensor tensor, const int64_t *values);
// What the tensor holds, which may be a part of one that was kept, or NULL; valid until its memory is written or many
// others have been kept.
const int64_t *vl_cuda_indices_find(const struct VlCudaIndices *indices, VlTensor tensor);

#endif

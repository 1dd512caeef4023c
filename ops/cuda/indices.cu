#include "ops/cuda/indices.cuh"

#include <string.h>

// A step keeps about a dozen; those of steps past lie wherever their arena was then, and make room by age.
enum { KEPT = 256 };

typedef struct Known {
    const char *begin;  // NULL: nothing
    int64_t count, capacity, *values;
} Known;

struct VlCudaIndices {
    Known known[KEPT];
    int64_t kept;  // so far: the newest is known[(kept - 1) % KEPT]
};

static const char *end_of(const Known *known) { return known->begin + known->count * (int64_t)sizeof(int64_t); }

VlStatus vl_cuda_indices_create(struct VlCudaIndices **indices) { return VL_NEW(indices, 1); }

void vl_cuda_indices_free(struct VlCudaIndices *indices) {
    for (int i = 0; indices && i < KEPT; i++) vl_free(indices->known[i].values);
    vl_free(indices);
}

void vl_cuda_indices_forget(struct VlCudaIndices *indices, const void *begin, int64_t bytes) {
    for (int i = 0; i < KEPT; i++) {
        Known *known = &indices->known[i];
        if (known->begin && known->begin < (const char *)begin + bytes && end_of(known) > (const char *)begin) {
            known->begin = NULL;
        }
    }
}

VlStatus vl_cuda_indices_keep(struct VlCudaIndices *indices, VlTensor tensor, const int64_t *values) {
    vl_cuda_indices_forget(indices, tensor.data, vl_bytes(tensor));
    Known *known = &indices->known[indices->kept++ % KEPT];
    known->begin = NULL;
    known->count = vl_elements(tensor);
    VL_TRY(vl_reserve(&known->values, &known->capacity, known->count, (int64_t)sizeof(int64_t)));
    memcpy(known->values, values, (size_t)vl_bytes(tensor));
    known->begin = (const char *)tensor.data;
    return VL_OK;
}

const int64_t *vl_cuda_indices_find(const struct VlCudaIndices *indices, VlTensor tensor) {
    const char *begin = (const char *)tensor.data, *end = begin + vl_bytes(tensor);
    int64_t oldest = indices->kept > KEPT ? indices->kept - KEPT : 0;
    for (int64_t i = indices->kept - 1; i >= oldest; i--) {
        const Known *known = &indices->known[i % KEPT];
        if (!known->begin || begin < known->begin || end > end_of(known)) continue;
        return known->values + (begin - known->begin) / (int64_t)sizeof(int64_t);
    }
    return NULL;
}

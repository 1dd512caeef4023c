#include "ops/cuda/staging.cuh"

#include <string.h>

enum { MOST_PARTS = 32, PART_BYTES = 8 << 20, ALIGNMENT = 256 };

// A piece of pinned memory, filled from its start. `done` comes when the device has fetched all of it.
typedef struct Part {
    char *memory;
    int64_t used;
    cudaEvent_t done;
} Part;

// A ring: the part after the current one is the one that has waited longest.
struct VlCudaStaging {
    Part parts[MOST_PARTS];
    int64_t count, current;
};

VlStatus vl_cuda_staging_create(struct VlCudaStaging **staging) { return VL_NEW(staging, 1); }

void vl_cuda_staging_free(struct VlCudaStaging *staging) {
    for (int64_t i = 0; staging && i < staging->count; i++) {
        if (staging->parts[i].done) cudaEventDestroy(staging->parts[i].done);
        if (staging->parts[i].memory) cudaFreeHost(staging->parts[i].memory);
    }
    vl_free(staging);
}

// A new part, which becomes the current one and stands after the one that was.
static VlStatus grow(VlCudaStaging *staging) {
    Part made = {};
    VL_TRY(vl_cuda_error(cudaEventCreateWithFlags(&made.done, cudaEventDisableTiming), "making an event"));
    VlStatus status = vl_cuda_error(cudaMallocHost((void **)&made.memory, PART_BYTES), "pinned host memory");
    if (status != VL_OK) {
        cudaEventDestroy(made.done);
        return status;
    }
    int64_t at = staging->count ? staging->current + 1 : 0;
    memmove(staging->parts + at + 1, staging->parts + at, (size_t)(staging->count - at) * sizeof(Part));
    staging->parts[at] = made;
    staging->count++;
    staging->current = at;
    return VL_OK;
}

// Goes on to a part of which nothing is under way: the oldest, or a new one while that is not yet done.
static VlStatus advance(VlCudaStaging *staging, cudaStream_t stream) {
    if (staging->count == 0) return grow(staging);
    VL_TRY(vl_cuda_error(cudaEventRecord(staging->parts[staging->current].done, stream), "recording an event"));
    int64_t next = (staging->current + 1) % staging->count;
    cudaError_t code = cudaEventQuery(staging->parts[next].done);
    if (code == cudaErrorNotReady) {
        cudaGetLastError();
        if (staging->count < MOST_PARTS) return grow(staging);
        code = cudaEventSynchronize(staging->parts[next].done);
    }
    VL_TRY(vl_cuda_error(code, "waiting for a copy"));
    staging->parts[next].used = 0;
    staging->current = next;
    return VL_OK;
}

VlStatus vl_cuda_staging_copy(struct VlCudaStaging *staging, cudaStream_t stream, void *to, const void *from,
                              int64_t bytes) {
    for (int64_t done = 0; done < bytes;) {
        if (staging->count == 0 || staging->parts[staging->current].used == PART_BYTES) {
            VL_TRY(advance(staging, stream));
        }
        Part *part = &staging->parts[staging->current];
        int64_t length = bytes - done < PART_BYTES - part->used ? bytes - done : PART_BYTES - part->used;
        memcpy(part->memory + part->used, (const char *)from + done, (size_t)length);
        VL_TRY(vl_cuda_error(cudaMemcpyAsync((char *)to + done, part->memory + part->used, (size_t)length,
                                             cudaMemcpyHostToDevice, stream),
                             "a copy from the host"));
        part->used += (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        done += length;
    }
    return VL_OK;
}

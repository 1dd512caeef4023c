#include "dist/buckets.h"

#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "dist/device_comm.h"

struct VlBuckets {
    VlContext *context;
    VlComm *comm;
    VlDeviceComm *device_comm;  // several ranks whose gradients are in the memory of GPUs; else NULL
    VlTensor flat;
    int64_t size, count;  // elements a bucket, buckets
    int64_t *complete;    // [count] elements announced in this round
    int64_t next;         // the bucket to be sent next: they go from the last to the first, on every rank alike
    bool window;          // the device is open for the communication thread
};

static int64_t bucket_length(const VlBuckets *buckets, int64_t bucket) {
    int64_t left = buckets->flat.dim[0] - bucket * buckets->size;
    return left < buckets->size ? left : buckets->size;
}

static VlStatus send(VlBuckets *buckets, int64_t bucket) {
    if (vl_comm_size(buckets->comm) == 1) return VL_OK;
    int64_t begin = bucket * buckets->size, length = bucket_length(buckets, bucket);
    if (buckets->device_comm) return vl_device_comm_reduce(buckets->device_comm, vl_rows(buckets->flat, begin, length));
    if (!buckets->window) vl_device_open(buckets->context);
    buckets->window = true;
    return vl_comm_start_reduce(buckets->comm, VL_SUM_F32, (float *)buckets->flat.data + begin, length);
}

static VlStatus check_same_device(const VlContext *context, VlComm *comm) {
    int64_t gpus = context->device == VL_DEVICE_CUDA, ranks = vl_comm_size(comm);
    VL_TRY(vl_comm_reduce(comm, VL_SUM_I64, &gpus, 1));
    if (gpus == 0 || gpus == ranks) return VL_OK;
    return vl_error(VL_INVALID, "%lld of %lld ranks compute on a GPU: all must, or none; give device: cuda or cpu",
                    (long long)gpus, (long long)ranks);
}

VlStatus vl_buckets_create(VlBuckets **out, VlContext *context, VlComm *comm, VlTensor flat, int64_t bucket_elements) {
    VlBuckets *buckets;
    VL_TRY(VL_NEW(&buckets, 1));
    *buckets = (VlBuckets){.context = context, .comm = comm, .flat = flat, .size = bucket_elements};
    if (buckets->size == 0) buckets->size = context->device == VL_DEVICE_CUDA ? 16 << 20 : 4 << 20;
    buckets->count = (flat.dim[0] + buckets->size - 1) / buckets->size;
    buckets->next = buckets->count - 1;
    VlStatus status = VL_NEW(&buckets->complete, buckets->count);
    status = vl_comm_agree(comm, status);
    if (status == VL_OK) status = check_same_device(context, comm);
    if (status == VL_OK && vl_comm_size(comm) > 1 && context->device == VL_DEVICE_CUDA) {
        status = vl_device_comm_open(&buckets->device_comm, context, comm);
    }
    if (buckets->device_comm) {
        vl_log(VL_LOG_INFO, "gradients are summed by %s", vl_device_comm_describe(buckets->device_comm));
    }
    if (status != VL_OK) {
        vl_buckets_free(buckets);
        return status;
    }
    *out = buckets;
    return VL_OK;
}

VlStatus vl_buckets_ready(VlBuckets *buckets, int64_t offset, int64_t count) {
    for (int64_t end = offset + count; end > offset;) {
        int64_t bucket = (end - 1) / buckets->size, begin = bucket * buckets->size;
        if (begin < offset) begin = offset;
        buckets->complete[bucket] += end - begin;
        VL_ASSERT(buckets->complete[bucket] <= bucket_length(buckets, bucket));
        end = begin;
    }
    while (buckets->next >= 0 && buckets->complete[buckets->next] == bucket_length(buckets, buckets->next)) {
        VL_TRY(send(buckets, buckets->next--));
    }
    return VL_OK;
}

VlStatus vl_buckets_finish(VlBuckets *buckets) {
    VlStatus status = VL_OK;
    while (buckets->next >= 0 && status == VL_OK) status = send(buckets, buckets->next--);
    VlStatus waited = buckets->device_comm ? vl_device_comm_wait(buckets->device_comm) : vl_comm_wait(buckets->comm);
    if (buckets->window) vl_device_close(buckets->context);
    buckets->window = false;
    buckets->next = buckets->count - 1;
    memset(buckets->complete, 0, (size_t)buckets->count * sizeof *buckets->complete);
    return status != VL_OK ? status : waited;
}

void vl_buckets_free(VlBuckets *buckets) {
    if (!buckets) return;
    vl_device_comm_close(buckets->device_comm);
    vl_free(buckets->complete);
    vl_free(buckets);
}

// Sums gradients over the ranks while backward is still running. The flat gradient range is cut into buckets; a bucket
// is sent as soon as all of it, and of those behind it, is complete: buckets go from the last to the first, the
// direction of backward, on every rank alike, also on one that has nothing to announce.
//
// Gradients in host memory are summed by comm.h, those in the memory of GPUs by device_comm.h. From the first range of
// a round that is announced to its end no other collective may be called.
#ifndef VL_DIST_BUCKETS_H
#define VL_DIST_BUCKETS_H

#include "dist/comm.h"
#include "ops/context.h"

typedef struct VlBuckets VlBuckets;

// `flat` [elements] f32, memory of the context's device. bucket_elements 0: 4 Mi, on GPUs 16 Mi. Collective.
VlStatus vl_buckets_create(VlBuckets **buckets, VlContext *context, VlComm *comm, VlTensor flat,
                           int64_t bucket_elements);
// Elements [offset, offset + count) are complete on this rank, or will be when what the context was given so far has
// been computed. Each element is announced once a round. Collective in effect.
VlStatus vl_buckets_ready(VlBuckets *buckets, int64_t offset, int64_t count);
// Sends what was never announced, waits for all buckets, and starts the next round. Collective.
VlStatus vl_buckets_finish(VlBuckets *buckets);
void vl_buckets_free(VlBuckets *buckets);

#endif

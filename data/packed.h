// A folder that `vl2 pack` wrote, opened for reading: its shards one behind the other.
#ifndef VL_DATA_PACKED_H
#define VL_DATA_PACKED_H

#include "data/pack.h"
#include "data/shard.h"

typedef struct VlPacked {
    char *folder;
    VlPackReport report;
    int64_t shards, samples;
    VlShard **shard;  // [shards]
    int64_t *first;   // [shards + 1] number of each shard's first sample
} VlPacked;

// Errors: VL_IO, VL_FORMAT (damaged, or not packed to its end), naming the folder or the shard.
VlStatus vl_packed_open(VlPacked *packed, const char *folder);
void vl_packed_close(VlPacked *packed);  // harmless on a zeroed one

// The shard of sample `index` and its row there. 0 <= index < samples.
const VlShard *vl_packed_find(const VlPacked *packed, int64_t index, int64_t *row);

#endif

#include "data/packed.h"

#include "base/files.h"
#include "base/memory.h"
#include "data/pack_manifest.h"

static VlStatus open_shards(VlPacked *packed, const VlPackManifest *manifest) {
    char path[VL_PATH_MAX];
    if (!manifest->complete || !manifest->shards) {
        return vl_error(VL_FORMAT, "%s is not packed to its end: run vl2 pack again, it goes on where it stopped",
                        packed->folder);
    }
    VL_TRY(VL_NEW(&packed->shard, manifest->shards));
    VL_TRY(VL_NEW(&packed->first, manifest->shards + 1));
    for (int64_t i = 0; i < manifest->shards; i++) {
        VL_TRY(vl_path_join(path, packed->folder, manifest->shard[i].name));
        VL_TRY(vl_shard_open(&packed->shard[i], path));
        packed->shards++;
        packed->samples += vl_shard_header(packed->shard[i])->samples;
        packed->first[i + 1] = packed->samples;
    }
    if (packed->samples != manifest->report.samples) {
        return vl_error(VL_FORMAT, "%s: its shards hold %lld samples, its %s says %lld: pack it again", packed->folder,
                        (long long)packed->samples, VL_PACK_MANIFEST, (long long)manifest->report.samples);
    }
    packed->report = manifest->report;
    return VL_OK;
}

VlStatus vl_packed_open(VlPacked *packed, const char *folder) {
    VlPackManifest manifest;
    *packed = (VlPacked){0};
    VL_TRY_CONTEXT(vl_pack_manifest_load(&manifest, folder), "shards of %s", folder);
    VlStatus status = vl_duplicate_string(&packed->folder, folder);
    if (!status) status = open_shards(packed, &manifest);
    vl_pack_manifest_free(&manifest);
    if (status) vl_packed_close(packed);
    return status;
}

void vl_packed_close(VlPacked *packed) {
    for (int64_t i = 0; i < packed->shards; i++) vl_shard_close(packed->shard[i]);
    vl_free(packed->shard);
    vl_free(packed->first);
    vl_free(packed->folder);
    *packed = (VlPacked){0};
}

const VlShard *vl_packed_find(const VlPacked *packed, int64_t index, int64_t *row) {
    VL_ASSERT(index >= 0 && index < packed->samples);
    int64_t low = 0, high = packed->shards;  // first[low] <= index < first[high]
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        *(packed->first[middle] <= index ? &low : &high) = middle;
    }
    *row = index - packed->first[low];
    return packed->shard[low];
}

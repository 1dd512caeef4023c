// pack.json and quarantine.jsonl of a packed folder.
#ifndef VL_DATA_PACK_MANIFEST_H
#define VL_DATA_PACK_MANIFEST_H

#include <jansson.h>
#include <stdio.h>

#include "data/pack.h"

typedef struct VlPackShard {
    char name[32];
    int64_t file_bytes;
    uint32_t crc32c;           // of the whole file
    int64_t quarantine_bytes;  // length of quarantine.jsonl when the shard was complete
    VlPackReport report;       // counts up to and with this shard
} VlPackShard;

typedef struct VlPackManifest {
    char options[17];  // hash of everything that the shards' content depends on, as hexadecimal digits
    char preprocessing[VL_PREPROCESSING_MAX];
    bool complete;
    VlPackReport report;  // final counts, when complete
    VlPackShard *shard;
    int64_t shards, capacity;
} VlPackManifest;

// Errors: VL_IO when there is none, VL_FORMAT when it is damaged.
VlStatus vl_pack_manifest_load(VlPackManifest *manifest, const char *folder);
VlStatus vl_pack_manifest_save(const VlPackManifest *manifest, const char *folder);
VlStatus vl_pack_manifest_add(VlPackManifest *manifest, const VlPackShard *shard);
void vl_pack_manifest_free(VlPackManifest *manifest);

// The checksum of a file, read in pieces.
VlStatus vl_pack_file_checksum(const char *path, int64_t *size, uint32_t *crc);

// Opens quarantine.jsonl cut to `bytes`, to append to it.
VlStatus vl_pack_quarantine_open(FILE **file, const char *folder, int64_t bytes);
VlStatus vl_pack_quarantine_add(FILE *file, int64_t index, const char *id, const char *reason);
// Makes the lines durable and gives the file's length.
VlStatus vl_pack_quarantine_sync(FILE *file, int64_t *bytes);

#endif

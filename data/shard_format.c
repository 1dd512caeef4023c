#include "data/shard_format.h"

#include <stddef.h>

#include "base/crc32c.h"

_Static_assert(sizeof(VlShardRow) == 40 && sizeof(VlShardMedia) == 32 && sizeof(VlShardChunk) == 16 &&
                   sizeof(VlShardTrailer) == VL_PREPROCESSING_MAX + VL_SOUND_PREPROCESSING_MAX + 14 * 8,
               "what lies in a file has no padding");

uint32_t vl_shard_table_checksum(const VlShardHeader *header, const VlShardRow *rows, const VlShardMedia *media,
                                 const VlShardChunk *chunks) {
    uint32_t crc = vl_crc32c(0, header, (int64_t)sizeof *header);
    crc = vl_crc32c(crc, rows, header->samples * (int64_t)sizeof *rows);
    crc = vl_crc32c(crc, media, header->media * (int64_t)sizeof *media);
    return vl_crc32c(crc, chunks, vl_shard_chunks(header) * (int64_t)sizeof *chunks);
}

uint32_t vl_shard_trailer_checksum(const VlShardTrailer *trailer) {
    return vl_crc32c(0, trailer, (int64_t)offsetof(VlShardTrailer, crc32c));
}

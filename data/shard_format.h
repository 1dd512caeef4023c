// How the reader finds its way in a shard without HDF5, whose library trusts what files say: a trailer of fixed size
// behind the part of the file that HDF5 knows of. Shared by the shard files only.
#ifndef VL_DATA_SHARD_FORMAT_H
#define VL_DATA_SHARD_FORMAT_H

#include "data/fbank.h"
#include "data/shard.h"

#define VL_SHARD_MAGIC "VL2SHARD"

// The last bytes of a shard, little-endian.
typedef struct VlShardTrailer {
    char magic[8];
    int64_t version;
    VlShardHeader header;
    int64_t index_address, media_address, chunks_address;  // of the tables' rows in the file
    int64_t table_crc32c;                                  // vl_shard_table_checksum
    int64_t crc32c;                                        // of the trailer's bytes before this one
} VlShardTrailer;

// The checksum of header and tables.
uint32_t vl_shard_table_checksum(const VlShardHeader *header, const VlShardRow *rows, const VlShardMedia *media,
                                 const VlShardChunk *chunks);

uint32_t vl_shard_trailer_checksum(const VlShardTrailer *trailer);

// Bytes of a media record: its frames, behind them their times, behind those the planes of its filter bank.
static inline int64_t vl_shard_frame_bytes(const VlShardHeader *header) { return header->height * header->width * 3; }
static inline int64_t vl_shard_visual_bytes(const VlShardHeader *header, int64_t frames) {
    return frames * (vl_shard_frame_bytes(header) + (int64_t)sizeof(VlFrameTime));
}
static inline int64_t vl_shard_sound_bytes(int64_t rows) { return rows * VL_FBANK_BINS * (int64_t)sizeof(float); }
static inline int64_t vl_shard_media_bytes(const VlShardHeader *header, int64_t frames, int64_t rows) {
    return vl_shard_visual_bytes(header, frames) + vl_shard_sound_bytes(rows);
}

// Chunks that /bytes has.
static inline int64_t vl_shard_chunks(const VlShardHeader *header) {
    return (header->bytes + header->chunk_bytes - 1) / header->chunk_bytes;
}

#endif

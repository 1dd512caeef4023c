// Shards: HDF5 files of packed samples that h5py with hdf5plugin reads, and that the loader reads past HDF5.
//
//   /bytes   u8 [n], chunked, each chunk one zstd frame (registered filter 32015): records one behind the other.
//            A text record is JSON in UTF-8, {"id","kind","modal","va","conversations":[{"from","value"},..]}; "va"
//            stands there for a video with its sound only.
//            A media record has three parts, of which the first two are empty for a sound and the last one for what
//            has none:
//            - u8 [frames,height,width,3], RGB after the image preprocessor's resize and crop and before its
//              normalisation, each byte less the byte three before it (modulo 256; the first three as they are), which
//              takes a third off the compressed size: numpy.add.accumulate(part.reshape(-1, 3), axis=0, dtype='u1')
//              restores it;
//            - VlFrameTime [frames], 16 bytes each;
//            - the filter bank, f32 [rows,128] before normalisation, as four planes u8 [4,rows*128]: plane b holds
//              byte b of every value, so that zstd finds the order in it: numpy.ascontiguousarray(part.reshape(4,
//              -1).T).view('<f4').reshape(-1, 128) restores it.
//            Samples about the same file share one media record; a video with and without its sound are two.
//   /index   one row per sample, fields as in VlShardRow
//   /media   one row per media record, fields as in VlShardMedia
//   /chunks  one row per chunk of /bytes, fields as in VlShardChunk: where in this file it lies
//   /ids     the samples' ids as strings (cut to 255 bytes; the text records hold them whole)
//   attributes of /: format, format_version, preprocessing, sound, height, width, num_frames, chunk_bytes, bytes,
//            samples, media, crc32c (of the values before it and of the tables index, media and chunks), complete
// All integers are little-endian. A file under its final name is complete: it is written under a temporary one. Behind
// the end of the HDF5 file stands a trailer (data/shard_format.h) that names the tables' places, so that reading needs
// no HDF5: its library trusts what damaged files say, and works under one global lock.
#ifndef VL_DATA_SHARD_H
#define VL_DATA_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/pool.h"
#include "base/status.h"
#include "data/sample.h"

enum {
    VL_SHARD_VERSION = 3,
    VL_PREPROCESSING_MAX = 512,       // bytes of a fingerprint with its final zero
    VL_SOUND_PREPROCESSING_MAX = 64,  // the same for sounds
    VL_SHARD_ROWS_LIMIT = 1 << 16,    // of one filter bank
    VL_SHARD_TEXT_LIMIT = 64 << 20    // bytes of one text record
};

typedef struct VlShardRow {
    int64_t offset, length;  // of the text record in /bytes
    int64_t number;          // of the annotation in its list, from 0
    uint32_t crc32c;         // of the text record
    int32_t media;           // row of /media; -1: a text sample
    int32_t modality;        // VlModal
    int32_t tokens;  // text tokens under the protocol of packing, the modality id counted as one; to predict cost
} VlShardRow;

typedef struct VlShardMedia {
    int64_t offset, length;  // of the media record in /bytes
    uint32_t crc32c;
    int32_t frames;  // 0: a sound alone
    int64_t rows;    // of the filter bank; 0: no sound
} VlShardMedia;

typedef struct VlShardChunk {
    int64_t address, stored;  // bytes of the file that hold the compressed chunk
} VlShardChunk;

typedef struct VlShardHeader {
    char preprocessing[VL_PREPROCESSING_MAX];  // fingerprint of how the frames were made
    char sound[VL_SOUND_PREPROCESSING_MAX];    // of how the filter banks were made; "": the shard can hold none
    int64_t height, width;                     // of every frame; both 0: the shard can hold none
    int64_t num_frames;                        // frames of a video at most; an image has one
    int64_t chunk_bytes;  // uncompressed bytes of a chunk; 0 when writing: chosen by the frames' size
    int64_t bytes;        // length of /bytes; filled by the writer, as the two below
    int64_t samples, media;
} VlShardHeader;

// ---- Writing ---------------------------------------------------------------
// One thread calls; chunks are compressed by the pool. The file depends on the calls alone, not on the pool's threads.

typedef struct VlShardWriter VlShardWriter;

// Begins PATH under a temporary name. Errors: VL_INVALID (sizes), VL_IO.
VlStatus vl_shard_writer_open(VlShardWriter **writer, const char *path, const VlShardHeader *header, VlPool *pool);

// What a media record holds: frames, a sound, or both.
typedef struct VlShardMedium {
    int64_t frames;
    const uint8_t *pixels;     // [frames,height,width,3]
    const VlFrameTime *times;  // [frames]
    int64_t rows;
    const float *fbank;  // [rows,128]
} VlShardMedium;
// Adds a media record and gives its row for VlShardSample.media. VL_INVALID for one that the header rules out, or for a
// filter bank that holds a value that is not finite.
VlStatus vl_shard_writer_media(VlShardWriter *writer, const VlShardMedium *medium, int32_t *row);

typedef struct VlShardSample {
    const char *id;
    const char *text;  // the text record, `length` bytes of JSON
    int64_t length;
    int64_t number, tokens;
    int32_t media;  // -1 for text
    VlModal modality;
} VlShardSample;
VlStatus vl_shard_writer_sample(VlShardWriter *writer, const VlShardSample *sample);
int64_t vl_shard_writer_bytes(const VlShardWriter *writer);    // uncompressed, so far
int64_t vl_shard_writer_samples(const VlShardWriter *writer);  // so far

// Writes what is pending, syncs and renames. On failure, too, the writer is gone, and no file is left.
VlStatus vl_shard_writer_commit(VlShardWriter *writer);
void vl_shard_writer_abandon(VlShardWriter *writer);  // removes the temporary file; NULL is allowed

// ---- Reading ---------------------------------------------------------------
// An open shard is its tables in memory: no file stays open, any number of threads may read records at the same time.

typedef struct VlShard VlShard;

// Reads and checks the tables. Errors name the path: VL_IO, VL_FORMAT (damaged,
// not a shard), VL_UNSUPPORTED (a later version).
VlStatus vl_shard_open(VlShard **shard, const char *path);
void vl_shard_close(VlShard *shard);
const char *vl_shard_path(const VlShard *shard);
const VlShardHeader *vl_shard_header(const VlShard *shard);
uint32_t vl_shard_checksum(const VlShard *shard);  // of header and tables, and through their checksums of all records
const VlShardRow *vl_shard_row(const VlShard *shard, int64_t sample);
int64_t vl_shard_frames(const VlShard *shard, int64_t sample);  // stored frames; 0 for text and audio
int64_t vl_shard_rows(const VlShard *shard, int64_t sample);    // of the sound's filter bank; 0: no sound
bool vl_shard_has_frames(const VlShard *shard);                 // whether any record holds some
bool vl_shard_has_sound(const VlShard *shard);
int64_t vl_shard_stored(const VlShard *shard);  // compressed bytes of /bytes

// Buffers of one reading thread, grown as needed; zero it before first use, and release it with vl_shard_scratch_free.
typedef struct VlShardScratch {
    struct ZSTD_DCtx_s *context;
    uint8_t *stored, *chunk;
    int64_t stored_capacity, chunk_capacity;
} VlShardScratch;
void vl_shard_scratch_free(VlShardScratch *scratch);

// What one sample's records hold; the caller releases it with vl_shard_record_free.
typedef struct VlShardRecord {
    char *text;  // the text record; a zero byte follows it
    int64_t length;
    uint8_t *pixels;  // [frames,height,width,3]; NULL where there are none
    float *fbank;     // [rows,128]; NULL where there is none
} VlShardRecord;
void vl_shard_record_free(VlShardRecord *record);

// Reads the text record and, with `media`, the media record. The checksums are verified: VL_FORMAT names shard and
// sample, and *record is empty.
VlStatus vl_shard_read(const VlShard *shard, int64_t sample, VlShardScratch *scratch, bool media,
                       VlShardRecord *record);

// Which frames of their file the sample's are: [vl_shard_frames], the caller's; NULL for a sample without frames.
VlStatus vl_shard_read_times(const VlShard *shard, int64_t sample, VlShardScratch *scratch, VlFrameTime **times);

#endif

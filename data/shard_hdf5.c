#include "data/shard_hdf5.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

enum { FRAME_LIMIT = 1 << 30 };

// HDF5's side of the filter, for programs that read or write /bytes through the library. HDF5 owns *buffer and expects
// memory of the C library's allocator. Returns the new size, 0 on failure.
static size_t zstd_filter(unsigned flags, size_t value_count, const unsigned values[], size_t size, size_t *capacity,
                          void **buffer) {
    bool reading = flags & H5Z_FLAG_REVERSE;
    unsigned long long bound = reading ? ZSTD_getFrameContentSize(*buffer, size) : ZSTD_compressBound(size);
    if (bound > FRAME_LIMIT) return 0;  // also the codes of "unknown" and "damaged"
    void *out = malloc(bound ? bound : 1);
    if (!out) return 0;
    int level = value_count > 0 ? (int)values[0] : ZSTD_CLEVEL_DEFAULT;
    size_t done =
        reading ? ZSTD_decompress(out, bound, *buffer, size) : ZSTD_compress(out, bound, *buffer, size, level);
    if (ZSTD_isError(done)) {
        free(out);
        return 0;
    }
    free(*buffer);
    *buffer = out;
    *capacity = bound;
    return done;
}

VlStatus vl_shard_hdf5_start(void) {
    static const H5Z_class2_t filter = {.version = H5Z_CLASS_T_VERS,
                                        .id = VL_SHARD_ZSTD_FILTER,
                                        .encoder_present = 1,
                                        .decoder_present = 1,
                                        .name = "zstd",
                                        .filter = zstd_filter};
    H5dont_atexit();  // after a failed write (a full disk) its clean-up at exit crashes; every file is closed by us
    if (H5open() < 0 || H5Eset_auto2(H5E_DEFAULT, NULL, NULL) < 0 || H5Zregister(&filter) < 0) {
        return vl_error(VL_INTERNAL, "HDF5 cannot be started: its library refuses the zstd filter");
    }
    return VL_OK;
}

typedef struct Reason {
    char *text;
    size_t size;
} Reason;

static herr_t keep_innermost(unsigned number, const H5E_error2_t *entry, void *argument) {
    Reason *reason = argument;
    if (number == 0 && entry->desc) snprintf(reason->text, reason->size, "%s", entry->desc);
    return 0;
}

const char *vl_shard_hdf5_reason(char *text, int64_t size) {
    Reason reason = {text, (size_t)size};
    snprintf(text, (size_t)size, "no reason given");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &reason);
    return text;
}

static bool insert(hid_t type, const char *name, size_t offset, hid_t member) {
    return H5Tinsert(type, name, offset, member) >= 0;
}

hid_t vl_shard_row_type(void) {
    hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(VlShardRow));
    if (type < 0) return type;
    if (insert(type, "offset", offsetof(VlShardRow, offset), H5T_STD_I64LE) &&
        insert(type, "length", offsetof(VlShardRow, length), H5T_STD_I64LE) &&
        insert(type, "number", offsetof(VlShardRow, number), H5T_STD_I64LE) &&
        insert(type, "crc32c", offsetof(VlShardRow, crc32c), H5T_STD_U32LE) &&
        insert(type, "media", offsetof(VlShardRow, media), H5T_STD_I32LE) &&
        insert(type, "modality", offsetof(VlShardRow, modality), H5T_STD_I32LE) &&
        insert(type, "tokens", offsetof(VlShardRow, tokens), H5T_STD_I32LE)) {
        return type;
    }
    H5Tclose(type);
    return -1;
}

hid_t vl_shard_media_type(void) {
    hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(VlShardMedia));
    if (type < 0) return type;
    if (insert(type, "offset", offsetof(VlShardMedia, offset), H5T_STD_I64LE) &&
        insert(type, "length", offsetof(VlShardMedia, length), H5T_STD_I64LE) &&
        insert(type, "crc32c", offsetof(VlShardMedia, crc32c), H5T_STD_U32LE) &&
        insert(type, "frames", offsetof(VlShardMedia, frames), H5T_STD_I32LE) &&
        insert(type, "rows", offsetof(VlShardMedia, rows), H5T_STD_I64LE)) {
        return type;
    }
    H5Tclose(type);
    return -1;
}

hid_t vl_shard_chunk_type(void) {
    hid_t type = H5Tcreate(H5T_COMPOUND, sizeof(VlShardChunk));
    if (type < 0) return type;
    if (insert(type, "address", offsetof(VlShardChunk, address), H5T_STD_I64LE) &&
        insert(type, "stored", offsetof(VlShardChunk, stored), H5T_STD_I64LE)) {
        return type;
    }
    H5Tclose(type);
    return -1;
}

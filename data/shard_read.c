#include <stdio.h>
#include <string.h>
#include <zstd.h>

#include "base/crc32c.h"
#include "base/files.h"
#include "base/memory.h"
#include "data/shard_hdf5.h"

enum { CHUNK_LEAST = 1 << 10, CHUNK_LIMIT = 64 << 20, TABLE_LIMIT = 1 << 28 };

struct VlShard {
    char *path;
    VlShardHeader header;
    uint32_t crc32c;
    VlShardRow *rows;
    VlShardMedia *media;
    VlShardChunk *chunks;
};

// ---- Tables ----------------------------------------------------------------

static VlStatus damaged(const char *path, const char *what) {
    return vl_error(VL_FORMAT, "shard %s: %s: it is damaged or not a shard; pack it again", path, what);
}

// *size_limit bytes at most of a scalar attribute; `memory` is a type that HDF5 converts to.
static VlStatus read_attribute(hid_t file, const char *path, const char *name, hid_t memory, void *value) {
    char what[320], reason[256];
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT), space = attribute < 0 ? -1 : H5Aget_space(attribute);
    bool done = space >= 0 && H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, memory, value) >= 0;
    if (!done) snprintf(what, sizeof what, "attribute '%s': %s", name, vl_shard_hdf5_reason(reason, sizeof reason));
    if (space >= 0) H5Sclose(space);
    if (attribute >= 0) H5Aclose(attribute);
    return done ? VL_OK : damaged(path, what);
}

static VlStatus read_integer(hid_t file, const char *path, const char *name, int64_t *value) {
    return read_attribute(file, path, name, H5T_NATIVE_INT64, value);
}

// `size` bytes with a final zero.
static VlStatus read_string(hid_t file, const char *path, const char *name, char *value, size_t size) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0 || H5Tset_size(type, size) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0 ||
        H5Tset_strpad(type, H5T_STR_NULLTERM) < 0) {
        if (type >= 0) H5Tclose(type);
        return vl_error(VL_OUT_OF_MEMORY, "shard %s: HDF5 cannot create a type", path);
    }
    VlStatus status = read_attribute(file, path, name, type, value);
    H5Tclose(type);
    value[size - 1] = '\0';
    return status;
}

// Takes over `type`. The table must have exactly `count` rows.
static VlStatus read_table(hid_t file, const char *path, const char *name, hid_t type, int64_t count, void *rows) {
    char what[320], reason[256];
    hsize_t extent = 0;
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), space = dataset < 0 ? -1 : H5Dget_space(dataset);
    bool done = false;
    if (type >= 0 && space >= 0 && H5Sget_simple_extent_ndims(space) == 1 &&
        H5Sget_simple_extent_dims(space, &extent, NULL) == 1 && extent == (hsize_t)count) {
        done = !count || H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows) >= 0;
    }
    if (!done) snprintf(what, sizeof what, "table '%s': %s", name, vl_shard_hdf5_reason(reason, sizeof reason));
    if (space >= 0) H5Sclose(space);
    if (dataset >= 0) H5Dclose(dataset);
    if (type >= 0) H5Tclose(type);
    return done ? VL_OK : damaged(path, what);
}

static VlStatus read_header(VlShard *shard, hid_t file, int64_t file_size) {
    VlShardHeader *header = &shard->header;
    const char *path = shard->path;
    char format[32];
    int64_t version = 0, crc = 0, complete = 0, frames = 0;
    VL_TRY(read_string(file, path, "format", format, sizeof format));
    if (strcmp(format, VL_SHARD_FORMAT)) return damaged(path, "its attribute 'format' is not \"" VL_SHARD_FORMAT "\"");
    VL_TRY(read_integer(file, path, "format_version", &version));
    if (version != VL_SHARD_VERSION) {
        return vl_error(VL_UNSUPPORTED, "shard %s: its format has version %lld, this program reads version %d", path,
                        (long long)version, VL_SHARD_VERSION);
    }
    VL_TRY(read_string(file, path, "preprocessing", header->preprocessing, sizeof header->preprocessing));
    VL_TRY(read_integer(file, path, "height", &header->height));
    VL_TRY(read_integer(file, path, "width", &header->width));
    VL_TRY(read_integer(file, path, "num_frames", &header->num_frames));
    VL_TRY(read_integer(file, path, "chunk_bytes", &header->chunk_bytes));
    VL_TRY(read_integer(file, path, "bytes", &header->bytes));
    VL_TRY(read_integer(file, path, "samples", &header->samples));
    VL_TRY(read_integer(file, path, "media", &header->media));
    VL_TRY(read_integer(file, path, "crc32c", &crc));
    VL_TRY(read_integer(file, path, "complete", &complete));
    shard->crc32c = (uint32_t)crc;
    if (complete != 1) return damaged(path, "it is not complete");
    if (!vl_multiply(header->height, header->width, &frames) || !vl_multiply(frames, header->num_frames, &frames) ||
        !vl_multiply(frames, 3, &frames) || frames < 1 || frames > INT32_MAX) {
        return damaged(path, "its frames have no valid size");
    }
    // A table is part of the file, so the file's size bounds the memory for it.
    if (header->chunk_bytes < CHUNK_LEAST || header->chunk_bytes > CHUNK_LIMIT || header->bytes < 0 ||
        header->bytes > INT64_MAX - header->chunk_bytes || header->samples < 0 || header->media < 0 ||
        header->samples > TABLE_LIMIT || header->media > TABLE_LIMIT ||
        header->samples > file_size / (int64_t)sizeof(VlShardRow) ||
        header->media > file_size / (int64_t)sizeof(VlShardMedia) ||
        vl_shard_chunks(header) > file_size / (int64_t)sizeof(VlShardChunk)) {
        return damaged(path, "its counts are not possible");
    }
    return VL_OK;
}

// [offset, offset + length) lies in [0, limit).
static bool inside(int64_t offset, int64_t length, int64_t limit) {
    return offset >= 0 && length >= 0 && offset <= limit && length <= limit - offset;
}

static VlStatus check_tables(const VlShard *shard, int64_t file_size) {
    const VlShardHeader *header = &shard->header;
    int64_t chunks = vl_shard_chunks(header), frame = header->height * header->width * 3;
    uint32_t crc = vl_shard_table_checksum(header, shard->rows, shard->media, shard->chunks, chunks);
    if (crc != shard->crc32c) return damaged(shard->path, "the checksum of its tables is wrong");
    for (int64_t i = 0; i < header->samples; i++) {
        const VlShardRow *row = &shard->rows[i];
        bool text = row->modality == VL_MODAL_TEXT;
        if (!inside(row->offset, row->length, header->bytes) || row->length < 1 || row->length > VL_SHARD_TEXT_LIMIT ||
            row->number < 0 || row->tokens < 0 || row->modality < VL_MODAL_TEXT || row->modality > VL_MODAL_AUDIO ||
            row->media < -1 || row->media >= header->media || text != (row->media == -1)) {
            return damaged(shard->path, "its table 'index' holds values that are not possible");
        }
    }
    for (int64_t i = 0; i < header->media; i++) {
        const VlShardMedia *media = &shard->media[i];
        if (!inside(media->offset, media->length, header->bytes) || media->frames < 1 ||
            media->frames > header->num_frames || media->length != media->frames * frame) {
            return damaged(shard->path, "its table 'media' holds values that are not possible");
        }
    }
    for (int64_t i = 0; i < chunks; i++) {
        const VlShardChunk *chunk = &shard->chunks[i];
        if (!inside(chunk->address, chunk->stored, file_size) || chunk->stored < 1 ||
            chunk->stored > (int64_t)ZSTD_compressBound((size_t)header->chunk_bytes)) {
            return damaged(shard->path, "its table 'chunks' points outside of the file; it may be truncated");
        }
    }
    return VL_OK;
}

static VlStatus read_tables(VlShard *shard, hid_t file, int64_t file_size) {
    VlShardHeader *header = &shard->header;
    VL_TRY(read_header(shard, file, file_size));
    int64_t chunks = vl_shard_chunks(header);
    VL_TRY(VL_NEW(&shard->rows, header->samples));
    VL_TRY(VL_NEW(&shard->media, header->media));
    VL_TRY(VL_NEW(&shard->chunks, chunks));
    VL_TRY(read_table(file, shard->path, "index", vl_shard_row_type(), header->samples, shard->rows));
    VL_TRY(read_table(file, shard->path, "media", vl_shard_media_type(), header->media, shard->media));
    VL_TRY(read_table(file, shard->path, "chunks", vl_shard_chunk_type(), chunks, shard->chunks));
    return check_tables(shard, file_size);
}

VlStatus vl_shard_open(VlShard **out, const char *path) {
    VlShard *shard;
    VlStatus status;
    VlReader reader;
    hid_t file = -1;
    char reason[256];
    VL_TRY(vl_reader_open(&reader, path));  // a missing file is told from a damaged one
    vl_reader_close(&reader);
    VL_TRY(vl_shard_hdf5_start());
    VL_TRY(VL_NEW(&shard, 1));
    VL_TRY_GOTO(status, vl_duplicate_string(&shard->path, path), failed);
    file = vl_fault_hit() ? -1 : H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) {
        VL_TRY_GOTO(status, damaged(path, vl_shard_hdf5_reason(reason, sizeof reason)), failed);
    }
    VL_TRY_GOTO(status, read_tables(shard, file, reader.size), failed);
    H5Fclose(file);
    *out = shard;
    return VL_OK;
failed:
    if (file >= 0) H5Fclose(file);
    vl_shard_close(shard);
    return status;
}

void vl_shard_close(VlShard *shard) {
    if (!shard) return;
    vl_free(shard->path);
    vl_free(shard->rows);
    vl_free(shard->media);
    vl_free(shard->chunks);
    vl_free(shard);
}

const char *vl_shard_path(const VlShard *shard) { return shard->path; }

const VlShardHeader *vl_shard_header(const VlShard *shard) { return &shard->header; }

uint32_t vl_shard_checksum(const VlShard *shard) { return shard->crc32c; }

const VlShardRow *vl_shard_row(const VlShard *shard, int64_t sample) {
    VL_ASSERT(sample >= 0 && sample < shard->header.samples);
    return &shard->rows[sample];
}

int64_t vl_shard_frames(const VlShard *shard, int64_t sample) {
    const VlShardRow *row = vl_shard_row(shard, sample);
    return row->media < 0 ? 0 : shard->media[row->media].frames;
}

int64_t vl_shard_stored(const VlShard *shard) {
    int64_t stored = 0;
    for (int64_t i = 0; i < vl_shard_chunks(&shard->header); i++) stored += shard->chunks[i].stored;
    return stored;
}

// ---- Records ---------------------------------------------------------------

void vl_shard_scratch_free(VlShardScratch *scratch) {
    ZSTD_freeDCtx(scratch->context);
    vl_free(scratch->stored);
    vl_free(scratch->chunk);
    *scratch = (VlShardScratch){0};
}

// The first `size` bytes of a chunk, and no more of it than zstd's blocks make necessary.
static VlStatus decompress(const VlShard *shard, int64_t index, const VlReader *reader, VlShardScratch *scratch,
                           uint8_t *out, int64_t size) {
    const VlShardChunk *chunk = &shard->chunks[index];
    VL_TRY(vl_reserve(&scratch->stored, &scratch->stored_capacity, chunk->stored, 1));
    VL_TRY(vl_reader_read(reader, chunk->address, scratch->stored, chunk->stored));
    ZSTD_inBuffer input = {scratch->stored, (size_t)chunk->stored, 0};
    ZSTD_outBuffer output = {out, (size_t)size, 0};
    size_t result = ZSTD_DCtx_reset(scratch->context, ZSTD_reset_session_only);
    while (!ZSTD_isError(result) && output.pos < output.size) {
        size_t before = output.pos, consumed = input.pos;
        result = ZSTD_decompressStream(scratch->context, &output, &input);
        if (output.pos == before && input.pos == consumed) break;
    }
    if (!ZSTD_isError(result) && output.pos == output.size) return VL_OK;
    return vl_error(VL_FORMAT, "chunk %lld of its bytes does not decompress (%s); the file is damaged, pack it again",
                    (long long)index, ZSTD_isError(result) ? ZSTD_getErrorName(result) : "it is too short");
}

static VlStatus read_range(const VlShard *shard, const VlReader *reader, VlShardScratch *scratch, int64_t offset,
                           int64_t length, uint8_t *out) {
    int64_t chunk_bytes = shard->header.chunk_bytes;
    while (length > 0) {
        int64_t index = offset / chunk_bytes, begin = offset % chunk_bytes;
        int64_t part = length < chunk_bytes - begin ? length : chunk_bytes - begin;
        if (begin == 0) {
            VL_TRY(decompress(shard, index, reader, scratch, out, part));
        } else {
            VL_TRY(vl_reserve(&scratch->chunk, &scratch->chunk_capacity, chunk_bytes, 1));
            VL_TRY(decompress(shard, index, reader, scratch, scratch->chunk, begin + part));
            memcpy(out, scratch->chunk + begin, (size_t)part);
        }
        offset += part;
        length -= part;
        out += part;
    }
    return VL_OK;
}

static VlStatus read_record(const VlShard *shard, const VlReader *reader, VlShardScratch *scratch, int64_t offset,
                            int64_t length, uint32_t crc, const char *what, uint8_t **out) {
    uint8_t *data;
    VL_TRY(vl_allocate(&data, length + 1, 1));
    VlStatus status = read_range(shard, reader, scratch, offset, length, data);
    if (!status && vl_crc32c(0, data, length) != crc) {
        status = vl_error(VL_FORMAT, "the checksum of its %s is wrong; the file is damaged, pack it again", what);
    }
    if (status) {
        vl_free(data);
        return status;
    }
    *out = data;
    return VL_OK;
}

// From differences to pixels.
static void restore_frames(uint8_t *pixels, int64_t length) {
    uint8_t red = 0, green = 0, blue = 0;
    for (int64_t i = 0; i < length; i += 3) {
        pixels[i] = red = (uint8_t)(red + pixels[i]);
        pixels[i + 1] = green = (uint8_t)(green + pixels[i + 1]);
        pixels[i + 2] = blue = (uint8_t)(blue + pixels[i + 2]);
    }
}

static VlStatus read_sample(const VlShard *shard, const VlShardRow *row, const VlReader *reader,
                            VlShardScratch *scratch, uint8_t **text, uint8_t **pixels) {
    if (!scratch->context) scratch->context = ZSTD_createDCtx();
    if (!scratch->context) return vl_error(VL_OUT_OF_MEMORY, "out of memory for zstd's context");
    VL_TRY(read_record(shard, reader, scratch, row->offset, row->length, row->crc32c, "text", text));
    if (pixels && row->media >= 0) {
        const VlShardMedia *media = &shard->media[row->media];
        VlStatus status =
            read_record(shard, reader, scratch, media->offset, media->length, media->crc32c, "frames", pixels);
        if (status) {
            vl_free(*text);
            return status;
        }
        restore_frames(*pixels, media->length);
    }
    return VL_OK;
}

VlStatus vl_shard_read(const VlShard *shard, int64_t sample, VlShardScratch *scratch, char **text, int64_t *length,
                       uint8_t **pixels) {
    const VlShardRow *row = vl_shard_row(shard, sample);
    uint8_t *bytes = NULL, *frames = NULL;
    VlReader reader;
    VL_TRY(vl_reader_open(&reader, shard->path));
    VlStatus status = read_sample(shard, row, &reader, scratch, &bytes, pixels ? &frames : NULL);
    vl_reader_close(&reader);
    if (status) {
        return vl_error_context(status, "shard %s, sample %lld (annotation %lld)", shard->path, (long long)sample,
                                (long long)row->number);
    }
    *text = (char *)bytes;
    *length = row->length;
    if (pixels) *pixels = frames;
    return VL_OK;
}
